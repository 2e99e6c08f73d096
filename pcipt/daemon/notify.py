"""Tells systemd how the service is: sd_notify's datagrams. Silent where nobody listens.

Source: sd_notify(3).
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable

MORE_TIME = 60.0  # seconds that a long piece of work asks for, again and again while it gets on
PATIENCE = 1.0  # seconds that a change of state waits for a manager whose queue is full
PROGRESS = 1.0  # seconds between two such messages
_STATES = frozenset({"READY=1", "RELOADING=1", "STOPPING=1"})  # others may be lost


class Notifier:
    """Sends to `$NOTIFY_SOCKET`; a leading @ is an abstract name."""

    def __init__(self, address: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        given = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + given[1:] if given and given.startswith("@") else given
        self._clock = clock
        self._ready = False
        self._shown = clock()

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1; a manager that has gone is no error of ours."""
        if not self._address:
            return
        self._ready |= "READY=1" in lines
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(PATIENCE if any(line in _STATES for line in lines) else 0.0)
            sender.sendto("\n".join(lines).encode(), self._address)

    def ask_for_time(self) -> None:
        """Ask for more time to start, before anything that may take long."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(MORE_TIME * 1_000_000)}")

    def feed(self) -> None:
        """Feed the watchdog: a real check has passed."""
        self.send("WATCHDOG=1")

    def show_progress(self) -> None:
        """Tell, at most once a second, that a long piece of work has done another step: Xen has answered."""
        now = self._clock()
        if now - self._shown < PROGRESS:
            return
        self._shown = now
        if self._ready:
            self.feed()
        else:
            self.ask_for_time()
