"""Messages to systemd about the state of the service, as sd_notify sends them.

None are sent if systemd does not listen.

Source: sd_notify(3).
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable

MORE_TIME = 60.0  # seconds that long work asks for, again after each step
PATIENCE = 1.0  # seconds that a change of state waits for a full queue
PROGRESS = 1.0  # seconds between two messages about progress
_STATES = frozenset({"READY=1", "RELOADING=1", "STOPPING=1"})  # changes of state; other messages may be lost


class Notifier:
    """Send messages to the socket `address`, by default $NOTIFY_SOCKET; with a leading @ it is abstract.

    `clock` returns seconds of a steady clock.
    """

    def __init__(self, address: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        given = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + given[1:] if given and given.startswith("@") else given
        self._clock = clock
        self._ready = False
        self._shown = clock()

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1 in one message; errors are ignored.

        If the receiver's queue is full, a change of state waits up to PATIENCE seconds; another message is
        dropped.
        """
        if not self._address:
            return
        self._ready |= "READY=1" in lines
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(PATIENCE if any(line in _STATES for line in lines) else 0.0)
            sender.sendto("\n".join(lines).encode(), self._address)

    def ask_for_time(self) -> None:
        """Ask systemd for MORE_TIME seconds more to start, before work that may take long."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(MORE_TIME * 1_000_000)}")

    def feed(self) -> None:
        """Feed systemd's watchdog. Call it only after a real check of the service."""
        self.send("WATCHDOG=1")

    def show_progress(self) -> None:
        """Report that a long piece of work has finished another step; call it after each answer of Xen.

        At most one message a second is sent: it feeds the watchdog, or before READY=1 asks for more time.
        """
        now = self._clock()
        if now - self._shown < PROGRESS:
            return
        self._shown = now
        if self._ready:
            self.feed()
        else:
            self.ask_for_time()
