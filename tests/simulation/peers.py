"""Clients of the control socket, in the process of the daemon: they send now and read later."""

import contextlib
import json
import socket

from pcipt.daemon.control.protocol import request

JUNK = (
    b"\0", b"{}\0", b"[" * 5000 + b"\0", b"\xff\xfe\0", b'{"method": "org.pcipt.Status"', b"x" * 70_000,
    b'{"method": "org.pcipt.Explain", "parameters": {"function": "../../etc"}}\0',
    b'{"method": "org.pcipt.Status", "parameters": {"x": 1}}\0' * 3,
)  # fmt: skip


class Client:
    """One connection; nothing here waits."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._data = b""
        self._socket.connect(path)

    def send(self, data):
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def ask(self, method, parameters=None, **more):
        self.send(request(method, parameters, **more))

    def read(self):
        """Give the messages that have arrived."""
        with contextlib.suppress(OSError):
            while part := self._socket.recv(1 << 20):
                self._data += part
        *whole, self._data = self._data.split(b"\0")
        return [json.loads(each) for each in whole]

    def close(self):
        self._socket.close()
