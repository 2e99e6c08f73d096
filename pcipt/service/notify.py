"""Tells systemd how the service is: sd_notify's datagrams. Silent where nobody listens.

Source: sd_notify(3).
"""

import contextlib
import os
import socket


class Notifier:
    """Sends to `$NOTIFY_SOCKET`; a leading @ is an abstract name."""

    def __init__(self, address: str | None = None) -> None:
        given = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + given[1:] if given and given.startswith("@") else given

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1; a manager that has gone is no error of ours."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto("\n".join(lines).encode(), self._address)
