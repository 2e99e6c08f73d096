"""Feeds systemd's watchdog, but only after a real check: a request went to the engine and came back.

The request travels as every other one, through the control socket and its server; what answers it asks Xen. A
loop that merely spins, an engine that hangs in a hypercall, or a source of writes that has died feed nothing,
and systemd restarts the service. Without $WATCHDOG_USEC nothing is ever woken.

Source: sd_watchdog_enabled(3).
"""

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Mapping

from pcipt.daemon.control.protocol import request
from pcipt.daemon.loop import Loop

_ANSWER_LIMIT = 1 << 16


def watchdog_interval(environment: Mapping[str, str]) -> float | None:
    """Read how often to check, in seconds: a third of what systemd waits, so that one may fail."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isascii() or not usec.isdecimal() or pid != str(os.getpid()) or not int(usec):
        return None
    return int(usec) / 3_000_000


class Watchdog:
    """Checks every `interval` seconds; `feed` is called when all is well, `complain` with what is not."""

    def __init__(
        self,
        loop: Loop,
        address: str,
        interval: float,
        feed: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._interval = interval
        self._feed = feed
        self._complain = complain
        self._connection: socket.socket | None = None
        self._answer = b""
        self._again()

    def close(self) -> None:
        self._loop.cancel("watchdog")
        self._hang_up()

    def _again(self) -> None:
        self._loop.after("watchdog", self._interval, self._check)

    def _check(self) -> None:
        if self._connection is not None:
            self._complain("no answer to the last check")
        self._hang_up()
        self._again()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            connection.connect(self._address)  # it is our own socket: at once, or not at all
            connection.send(request("Check"))
        except OSError as error:
            connection.close()
            self._complain(f"the control socket cannot be reached: {error.strerror or error}")
            return
        self._connection, self._answer = connection, b""
        self._loop.watch(connection.fileno(), selectors.EVENT_READ, self._ready)

    def _ready(self, _events: int) -> None:
        assert self._connection is not None
        data = b""
        with contextlib.suppress(OSError):
            data = self._connection.recv(_ANSWER_LIMIT)
        self._answer += data
        if data and b"\0" not in self._answer and len(self._answer) < _ANSWER_LIMIT:
            return
        self._hang_up()
        why = _complaint(self._answer.partition(b"\0")[0])
        if why is None:
            self._feed()
        else:
            self._complain(why)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None


def _complaint(answer: bytes) -> str | None:
    """Read what is wrong out of the answer to Check; None where all is well."""
    try:
        told = json.loads(answer)
    except ValueError:
        return "the check got no answer"
    if not isinstance(told, dict) or "error" in told:
        return f"the check failed: {told.get('error') if isinstance(told, dict) else told}"
    parameters = told.get("parameters")
    problems = parameters.get("problems") if isinstance(parameters, dict) else None
    if not isinstance(problems, list):
        return "the check was not understood"
    return "; ".join(map(str, problems)) or None
