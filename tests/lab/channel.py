"""The host's end of the wire to the agent in dom0: one question, one answer, every wait bounded.

The wire is a second serial port. It needs no PCI function, so nothing a scene does to PCI cuts it, and it is
the same under a PV and a PVH dom0.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .agent import PIECE, frame, pack, parse_frame, unpack
from .errors import LabError, TimedOutError

#: How long a frame may take beyond the time its command was given.
SLACK = 60.0


def connect(path: Path, timeout: float, check: Callable[[], None]) -> socket.socket:
    """Connect to a socket that QEMU is about to open."""
    end = time.monotonic() + timeout
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(path))
        except OSError as exc:
            link.close()
            check()
            if time.monotonic() > end:
                raise TimedOutError(f"QEMU did not open {path} within {timeout:.0f} s") from exc
            time.sleep(0.05)
        else:
            return link


class Channel:
    """A conversation with the agent. `check` raises when the machine is dead; it is asked while we wait."""

    def __init__(self, link: socket.socket, check: Callable[[], None]) -> None:
        self._link = link
        self._check = check
        self._pending = b""
        self._last = 0
        self._lock = threading.RLock()
        link.setblocking(False)

    def close(self) -> None:
        """Close the wire."""
        self._link.close()

    def wait_hello(self, timeout: float) -> None:
        """Wait until the agent has said that it is there."""
        with self._lock:
            end = time.monotonic() + timeout
            while "hello" not in self._receive(end, "the agent in dom0"):
                pass

    def ask(self, op: str, timeout: float, **fields: Any) -> dict[str, Any]:
        """Send one request and give its answer."""
        with self._lock:
            self._last += 1
            end = time.monotonic() + timeout
            self._send(frame({"id": self._last, "op": op, **fields}), end)
            while True:
                message = self._receive(end, f"an answer to {op!r}")
                if "hello" in message:
                    raise LabError(f"the agent in dom0 was restarted during {op!r}")
                if "torn" in message:
                    raise LabError(f"a frame of {message['torn']} bytes arrived damaged in dom0")
                if message.get("id") == self._last:
                    break
        if "error" in message:
            raise LabError(f"{op}: {message['error']}")
        return message

    def put(self, path: str, data: bytes, timeout: float) -> None:
        """Write a file in dom0."""
        for offset in range(0, max(1, len(data)), PIECE):
            self.ask("put", timeout, path=path, offset=offset, data=pack(data[offset : offset + PIECE]))

    def fetch(self, path: str, timeout: float) -> bytes:
        """Read a file in dom0, also one of those in /proc and /sys that have no size."""
        whole = b""
        while True:
            piece = unpack(self.ask("fetch", timeout, path=path, offset=len(whole), size=PIECE)["data"])
            if not piece:
                return whole
            whole += piece

    def _wait(self, end: float, what: str, *, write: bool = False) -> None:
        while True:
            wire = [self._link]
            ready = select.select([] if write else wire, wire if write else [], [], 0.5)
            if ready[0] or ready[1]:
                return
            self._check()
            if time.monotonic() > end:
                raise TimedOutError(f"waited in vain for {what}")

    def _send(self, data: bytes, end: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(end, "dom0 to read", write=True)
            try:
                view = view[self._link.send(view) :]
            except ConnectionError:
                self._closed()

    def _closed(self) -> NoReturn:
        # QEMU closes its sockets a moment before it is seen to have ended.
        for _ in range(20):
            self._check()
            time.sleep(0.1)
        raise LabError("QEMU closed the wire to dom0")

    def _receive(self, end: float, what: str) -> dict[str, Any]:
        while True:
            while b"\n" in self._pending:
                line, self._pending = self._pending.split(b"\n", 1)
                message = parse_frame(line)
                if message is not None:
                    return message
            self._wait(end, what)
            try:
                data = self._link.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                self._closed()
            self._pending += data
