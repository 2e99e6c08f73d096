"""The feeding of systemd's watchdog: it is fed only after a request went through the whole service.

The request `Check` goes through the control socket to the engine, which asks Xen. If the loop is stuck, a
hypercall hangs, or the source of writes has died, nothing is fed, and systemd restarts the service. Without
$WATCHDOG_USEC no timer runs.

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
    """Return the seconds between two checks; None if systemd expects no watchdog from this process.

    The interval is a third of systemd's limit ($WATCHDOG_USEC), so that one check may fail. None is also
    returned if $WATCHDOG_USEC is 0 or not a number, or if $WATCHDOG_PID names another process.
    """
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isascii() or not usec.isdecimal() or pid != str(os.getpid()) or not int(usec):
        return None
    return int(usec) / 3_000_000


class Watchdog:
    """A check of the service every `interval` seconds, by a request to its control socket at `address`.

    `feed` is called after each successful check, `complain` with the reason after each failed one. The first
    check is sent after `interval` seconds. `close` ends the checks.
    """

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
        self._rearm()

    def close(self) -> None:
        """End the checks; `feed` and `complain` are not called after this."""
        self._loop.cancel("watchdog")
        self._hang_up()

    def _rearm(self) -> None:
        self._loop.after("watchdog", self._interval, self._check)

    def _check(self) -> None:
        """Send the next check and set the next deadline.

        Complain if the last check got no answer, and if the control socket cannot be reached now.
        """
        if self._connection is not None:
            self._complain("the last check got no answer")
        self._hang_up()
        self._rearm()
        try:
            self._ask()
        except OSError as error:
            self._hang_up()
            self._complain(f"the control socket cannot be reached: {error.strerror or error}")

    def _ask(self) -> None:
        """Send a request to the control socket. Raises: OSError, also if no descriptor is free."""
        self._answer = b""
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._connection.setblocking(False)
        self._connection.connect(self._address)  # our own socket: connects at once or fails
        self._connection.send(request("Check"))
        self._loop.watch(self._connection.fileno(), selectors.EVENT_READ, self._ready)

    def _ready(self, _events: int) -> None:
        """Read the answer; when it is complete or too long, or the connection ends, feed the watchdog or
        complain.
        """
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
        """Close the connection of the present check, if there is one."""
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None


def _complaint(answer: bytes) -> str | None:
    """Return the problem that the answer to `Check` reports; None if it reports no problem.

    An answer that is empty, an error or not understood is a problem too.
    """
    try:
        told = json.loads(answer)
    except ValueError:
        return "the check got no answer"
    if not isinstance(told, dict) or "error" in told:
        return f"the check failed: {told.get('error') if isinstance(told, dict) else told}"
    parameters = told.get("parameters")
    problems = parameters.get("problems") if isinstance(parameters, dict) else None
    if not isinstance(problems, list):
        return "the answer to the check was not understood"
    return "; ".join(map(str, problems)) or None
