"""Messages to systemd about the state of the service, as sd_notify sends them.

No message is sent if systemd has given no socket ($NOTIFY_SOCKET is empty or not set).

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
    """A sender of messages to systemd, to the socket `address` (None: $NOTIFY_SOCKET).

    An address that begins with @ is an abstract socket. Without an address nothing is sent. `clock` returns
    seconds of a steady clock.
    """

    def __init__(self, address: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        given = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + given[1:] if given and given.startswith("@") else given
        self._clock = clock
        self._ready = False
        self._shown = clock()

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1 in one message. Errors are ignored.

        If the receiver's queue is full, a message with READY=1, RELOADING=1 or STOPPING=1 waits up to
        PATIENCE seconds; any other message is dropped.
        """
        if not self._address:
            return
        self._ready |= "READY=1" in lines
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(PATIENCE if any(line in _STATES for line in lines) else 0.0)
            sender.sendto("\n".join(lines).encode(), self._address)

    def ask_for_time(self) -> None:
        """Ask systemd to allow at least MORE_TIME seconds from now for the start.

        Call it before work that takes long.
        """
        self.send(f"EXTEND_TIMEOUT_USEC={int(MORE_TIME * 1_000_000)}")

    def feed(self) -> None:
        """Send WATCHDOG=1. Call it only after a real check of the service."""
        self.send("WATCHDOG=1")

    def show_progress(self) -> None:
        """Tell systemd that long work has finished another step. Call it after each answer of Xen.

        Before READY=1 was sent, the message asks for more time; afterwards it feeds the watchdog. At most one
        message is sent in PROGRESS seconds; the other calls of this method do nothing.
        """
        now = self._clock()
        if now - self._shown < PROGRESS:
            return
        self._shown = now
        if self._ready:
            self.feed()
        else:
            self.ask_for_time()
