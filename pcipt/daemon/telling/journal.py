"""The native protocol of journald: one datagram a message, with named fields. No call here ever waits.

A value with a newline is sent with its length. A message too long for a datagram is sent as a sealed memory
file. If journald does not accept a message, it is dropped and counted.

Source: systemd, "Native Journal Protocol"; systemd.exec(5), $JOURNAL_STREAM.
"""

import array
import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping

PATH = "/run/systemd/journal/socket"
SEND_BUFFER = 8 << 20
_KEY = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")
_TOO_LONG = {errno.EMSGSIZE, errno.ENOBUFS}
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Journal:
    """A sender of messages to journald's socket at `path`.

    `dropped` counts the messages that were not accepted.
    """

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.dropped = 0

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one message. If journald does not accept it, add 1 to `dropped`; that raises nothing.

        Raises: AssertionError if a field name is not valid for journald.
        """
        data = encode_fields(fields)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG or not self._send_as_file(data):
                self.dropped += 1

    def _send_as_file(self, data: bytes) -> bool:
        """Send a message as a sealed memory file; return True if that succeeded."""
        try:
            descriptor = os.memfd_create("pcipt-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            _write_all(descriptor, data)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def close(self) -> None:
        self._socket.close()


def encode_fields(fields: Mapping[str, str]) -> bytes:
    """Return the fields of one message as bytes, in their order.

    Raises: AssertionError if a field name is not valid for journald: at most 64 characters A-Z, 0-9 and _,
            the first of which is not _.
    """
    parts = []
    for key, value in fields.items():
        assert _KEY.fullmatch(key), key
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (key.encode(), struct.pack("<Q", len(data)), data))
        else:
            parts.append(b"%s=%s\n" % (key.encode(), data))
    return b"".join(parts)


def stderr_is_journal(stream: str | None, descriptor: int = 2) -> bool:
    """Return True if standard error is connected to journald.

    `stream` is the value of $JOURNAL_STREAM, or None. The variable holds device and inode of journald's pipe.
    They are compared with those of `descriptor`, because a shell started by a service inherits the variable
    but not the pipe. Return False if the descriptor is closed.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        return stream == f"{status.st_dev}:{status.st_ino}"
    return False


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, in several calls if necessary. Raises OSError if a call fails."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
