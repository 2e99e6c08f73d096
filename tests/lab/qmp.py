"""The wire to QEMU itself: plugging, unplugging, ending the machine."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

from .errors import LabError, TimedOutError


class QmpError(LabError):
    """Say what QEMU refused."""

    def __init__(self, command: str, kind: str, text: str) -> None:
        super().__init__(f"QEMU refused {command}: {text}")
        self.command = command
        self.kind = kind


class Qmp:
    """A conversation with QEMU; the events it tells in between are kept."""

    def __init__(self, link: socket.socket, timeout: float = 30.0) -> None:
        self._link = link
        self._pending = b""
        self._lock = threading.RLock()
        self.events: list[dict[str, Any]] = []
        self._receive(time.monotonic() + timeout)
        self.execute("qmp_capabilities", timeout=timeout)

    def close(self) -> None:
        """Close the wire."""
        self._link.close()

    def execute(self, command: str, *, timeout: float = 30.0, **arguments: Any) -> Any:
        """Run a QMP command and give what it returns."""
        with self._lock:
            end = time.monotonic() + timeout
            self._link.settimeout(timeout)
            request = json.dumps({"execute": command, "arguments": arguments}).encode()
            try:
                self._link.sendall(request + b"\n")
            except OSError as exc:
                raise LabError(f"QEMU does not listen to {command}: {exc}") from exc
            while True:
                message = self._receive(end)
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise QmpError(command, message["error"]["class"], message["error"]["desc"])

    def wait_event(self, name: str, timeout: float, **data: Any) -> dict[str, Any]:
        """Wait for an event with this data, also one that came since the last look; it is then used up."""
        with self._lock:
            end = time.monotonic() + timeout
            while True:
                for event in self.events:
                    told = event.get("data", {})
                    if event["event"] == name and all(told.get(key) == value for key, value in data.items()):
                        self.events.remove(event)
                        return event
                self._receive(end, event_only=True)

    def _receive(self, end: float, *, event_only: bool = False) -> dict[str, Any]:
        while True:
            while b"\n" in self._pending:
                line, self._pending = self._pending.split(b"\n", 1)
                message: dict[str, Any] = json.loads(line)
                if "event" not in message:
                    return message
                self.events.append(message)
                if event_only:
                    return message
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._link], [], [], left)[0]:
                raise TimedOutError("QEMU did not answer in time")
            try:
                data = self._link.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise LabError("QEMU closed its control socket")
            self._pending += data
