"""The event loop: it waits for file descriptors, signals and named deadlines, and calls back.

Without any deadline it sleeps until a descriptor is ready. What may take long and is not urgent, such as an
answer to a client, is called last, one in each turn.
"""

import contextlib
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

Callback = Callable[[], object]


class Loop:
    """An event loop in one thread. `run` waits for descriptors and deadlines and calls their callbacks.

    `before_waiting` is called before each wait. An exception of a callback ends `run` and is raised by it.
    """

    def __init__(self) -> None:
        self.before_waiting: Callback = lambda: None
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[str, tuple[float, Callback]] = {}
        self._last: deque[Callback] = deque()
        self._stopping = False

    def watch(self, fileno: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with the ready events (EVENT_READ, EVENT_WRITE) whenever the descriptor is ready.

        A second call for the same descriptor replaces its events and its callback.
        """
        if fileno in self._selector.get_map():
            self._selector.modify(fileno, events, callback)
        else:
            self._selector.register(fileno, events, callback)

    def forget(self, fileno: int) -> None:
        """Stop watching a descriptor. Do nothing if it is not watched."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fileno)

    def after(self, name: str, seconds: float, callback: Callback) -> None:
        """Call `callback` once, `seconds` from now, in a turn of the loop.

        If `after` is called with the same `name` before the callback was called, the new call replaces the
        old one.
        """
        self._deadlines[name] = (time.monotonic() + seconds, callback)

    def cancel(self, name: str) -> None:
        """Cancel the deadline `name`. Do nothing if there is none."""
        self._deadlines.pop(name, None)

    def last(self, callback: Callback) -> None:
        """Call `callback` once, when a turn has called everything else and no other such callback.

        So these callbacks delay a descriptor or a deadline by one of them at most. They are called in the
        order in which they were added; one that waits already is not added again.
        """
        if callback not in self._last:
            self._last.append(callback)

    def stop(self) -> None:
        """Make `run` return after the present callback; callbacks that are also ready are not called."""
        self._stopping = True

    def run(self) -> None:
        """Do one turn after the other until a callback calls `stop`.

        Raises: every exception of a callback.
        """
        self._stopping = False
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Wait, and call the callbacks of descriptors, then those of deadlines, then one of those of `last`.

        Raises: every exception of a callback.
        """
        self.before_waiting()
        for key, events in self._selector.select(self._timeout()):
            if not self._stopping and key.fd in self._selector.get_map():
                key.data(events)
        now = time.monotonic()
        for name in [name for name, (due, _) in self._deadlines.items() if due <= now]:
            _, callback = self._deadlines.pop(name, (0.0, None))
            if callback is not None and not self._stopping:
                callback()
        if self._last and not self._stopping:
            self._last.popleft()()

    def _timeout(self) -> float | None:
        """Return the seconds until the next deadline, 0.0 if it has passed; None if there is no deadline.

        Return 0.0 if a callback of `last` waits.
        """
        if self._last:
            return 0.0
        if not self._deadlines:
            return None
        return max(0.0, min(due for due, _ in self._deadlines.values()) - time.monotonic())

    def close(self) -> None:
        """Close the selector. The loop cannot be used after this."""
        self._selector.close()


class Signals:
    """Calls the handler of each signal from the loop, so that no handler interrupts another callback.

    `pending` holds the numbers of the signals that have arrived and whose handlers were not called yet.
    `close` restores the former handlers.
    """

    def __init__(self, loop: Loop, handlers: Mapping[signal.Signals, Callback]) -> None:
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
        """Add a signal to `pending` when it arrives; long work reads `pending` between two steps."""
        self.pending.add(number)

    def _ready(self, _events: int) -> None:
        """Call the handlers of the signals that have arrived, each once, in the order of arrival."""
        numbers: Iterable[int] = self._read.recv(4096)
        for number in dict.fromkeys(numbers):
            self.pending.discard(number)
            self._handlers[signal.Signals(number)]()

    def close(self) -> None:
        """Restore the former handlers and stop watching for signals."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._loop.forget(self._read.fileno())
        self._read.close()
        self._write.close()
