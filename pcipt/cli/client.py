"""Asks the daemon: one request over the control socket, one reply.

Imports only what every interpreter loads cheaply; `status` must start in milliseconds.
"""

import json
import socket
from typing import Any

from pcipt import errors
from pcipt.service.protocol import request

TIMEOUT = 30.0


def call(path: str, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request and return the reply's parameters.

    Raises: NotRunningError where nobody listens or answers, NotPermittedError, NoSuchDeviceError, or
            InputError with the daemon's own words.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
            connection.sendall(request(method, parameters))
            frame = _read_frame(connection)
        except PermissionError as error:
            raise errors.NotPermittedError(
                path, "only root and members of group pcipt may connect"
            ) from error
        except (OSError, UnicodeError) as error:
            why = "it does not answer" if isinstance(error, TimeoutError) else _reason(error)
            raise errors.NotRunningError(path, why) from error
    if not frame:
        raise errors.NotRunningError(path, "it closed the connection without an answer")
    try:
        message = json.loads(frame)
    except ValueError as error:
        raise errors.InputError(path, "what listens there does not speak pcipt's protocol") from error
    return _unwrap(message, path, method)


def _read_frame(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    while part := connection.recv(65536):
        head, nul, _ = part.partition(b"\0")
        parts.append(head)
        if nul:
            return b"".join(parts)
    return b""


def _unwrap(message: Any, path: str, method: str) -> dict[str, Any]:
    parameters = message.get("parameters", {}) if isinstance(message, dict) else None
    if not isinstance(parameters, dict):
        raise errors.InputError(path, "what listens there does not speak pcipt's protocol")
    name = str(message.get("error", "")).rpartition(".")[2]
    if not name:
        return parameters
    if name == "PermissionDenied":
        raise errors.NotPermittedError(method, "only root may do this")
    if name == "NoSuchDevice":
        raise errors.NoSuchDeviceError(str(parameters.get("sbdf", "")))
    raise errors.InputError(path, str(parameters.get("reason", name)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
