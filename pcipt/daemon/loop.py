"""The event loop: file descriptors, signals, and at most one pending deadline each. Without one it sleeps."""

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable

Callback = Callable[[], None]


class Loop:
    """Runs callbacks until `stop`; one thread, no timers unless somebody asked for one."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[str, tuple[float, Callback]] = {}
        self._stopping = False

    def watch(self, fileno: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the ready events (EVENT_READ, EVENT_WRITE); a second call changes them."""
        if fileno in self._selector.get_map():
            self._selector.modify(fileno, events, callback)
        else:
            self._selector.register(fileno, events, callback)

    def forget(self, fileno: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(fileno)

    def after(self, name: str, seconds: float, callback: Callback) -> None:
        """Call back once, `seconds` from now; a second call of the same name moves the deadline."""
        self._deadlines[name] = (time.monotonic() + seconds, callback)

    def cancel(self, name: str) -> None:
        self._deadlines.pop(name, None)

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        self._stopping = False
        while not self._stopping:
            for key, events in self._selector.select(self._timeout()):
                if not self._stopping and key.fd in self._selector.get_map():
                    key.data(events)
            now = time.monotonic()
            for name in [name for name, (due, _) in self._deadlines.items() if due <= now]:
                _, callback = self._deadlines.pop(name, (0.0, None))
                if callback is not None and not self._stopping:
                    callback()

    def _timeout(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(due for due, _ in self._deadlines.values()) - time.monotonic())

    def close(self) -> None:
        self._selector.close()


class Signals:
    """Turns signals into a readable descriptor, so that they arrive between two callbacks."""

    def __init__(self, loop: Loop, handlers: dict[signal.Signals, Callback]) -> None:
        self._loop = loop
        self._handlers = handlers
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.pending: set[int] = set()
        self._before = {number: signal.signal(number, self._note) for number in handlers}
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        loop.watch(self._read.fileno(), selectors.EVENT_READ, self._ready)

    def _note(self, number: int, _frame: object) -> None:
        """Remember what has come and not been handled; a long piece of work looks between two steps."""
        self.pending.add(number)

    def _ready(self, _events: int) -> None:
        numbers: Iterable[int] = self._read.recv(4096)
        for number in dict.fromkeys(numbers):
            self.pending.discard(number)
            self._handlers[signal.Signals(number)]()

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._loop.forget(self._read.fileno())
        self._read.close()
        self._write.close()
