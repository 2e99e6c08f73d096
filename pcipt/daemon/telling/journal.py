"""journald's native protocol: one datagram a message, each field by its name; nothing here ever waits.

A value may not tell where it ends, so one with a newline goes with its length. A message too long for a
datagram goes as a sealed memory file. What journald does not take is dropped and counted.

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
    """Sends to journald at `path`; `dropped` counts what it did not take."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.dropped = 0

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one message, or count it as dropped: journald may be full, down or restarting."""
        data = encode_fields(fields)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG or not self._send_as_file(data):
                self.dropped += 1

    def _send_as_file(self, data: bytes) -> bool:
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
    """Encode a message; a name that journald would not take is our own mistake."""
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
    """Tell whether standard error leads to journald: $JOURNAL_STREAM names the device and inode of its pipe.

    A shell started from a service inherits the variable but not the pipe.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        return stream == f"{status.st_dev}:{status.st_ino}"
    return False


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
