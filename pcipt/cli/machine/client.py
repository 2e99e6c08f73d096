"""The client of the daemon's control socket: send a request, return the reply.

`pcipt status` must start in milliseconds, so only modules that load fast are imported.
"""

import json
import socket
import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from pcipt import errors
from pcipt.daemon.control.protocol import request

TIMEOUT = 30.0  # seconds


def call(path: str, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request to the daemon at socket `path` and return the parameters of its reply.

    Raises: NotRunningError if nobody listens or no reply arrives; NotPermittedError; NoSuchDeviceError;
            InputError with the daemon's reason for any other error, or if the reply is not of pcipt's
            protocol.
    """
    with socket.socket(socket.AF_UNIX) as connection, _progress():
        connection.settimeout(TIMEOUT)
        with _told_errors(path):
            connection.connect(path)
            with suppress(BrokenPipeError):  # it refused the connection: its reply can still be read
                connection.sendall(request(method, parameters))
            frame, _ = _read_frame(connection, b"")
    if not frame:
        raise errors.NotRunningError(path, "it closed the connection without an answer")
    return _unwrap(frame, path, method)


def stream(path: str, method: str, parameters: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    """Send one request that has many replies, and yield the parameters of each until the daemon stops.

    Raises: as `call`; NotRunningError also when the daemon closes the connection.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        rest = b""
        with _told_errors(path):
            connection.connect(path)
            with suppress(BrokenPipeError):
                connection.sendall(request(method, parameters, more=True))
        while True:
            with _told_errors(path):
                frame, rest = _read_frame(connection, rest)
            if not frame:
                raise errors.NotRunningError(path, "it has stopped")
            yield _unwrap(frame, path, method)


@contextmanager
def checked_address(text: str | None, *, slot: bool = False) -> Iterator[None]:
    """Run the with-block. If it fails with a PciptError and `text` is malformed, raise AddressError instead.

    `text` is the address that the with-block sends to the daemon (with `slot`: a slot filter); None is not
    checked. The parser of addresses is loaded only after a failure, because the daemon checks addresses too.

    Raises: AddressError; else the PciptError of the with-block.
    """
    try:
        yield
    except errors.PciptError:
        if text is not None:
            _check_address(text, slot=slot)
        raise


def _check_address(text: str, *, slot: bool) -> None:
    """Raise AddressError if `text` is not an address or PCI path (with `slot`: not a slot filter)."""
    from pcipt.pci import PciPath, parse_sbdf, parse_slot, parse_target

    if slot:
        parse_slot(text)
    elif not isinstance(parse_target(text), PciPath):
        parse_sbdf(text)


def _progress() -> AbstractContextManager[None]:
    """Return a context manager that shows on a terminal that no reply has arrived yet."""
    if not sys.stderr.isatty():
        return nullcontext()
    from pcipt.cli.text.progress import progress

    return progress("the daemon", lambda: "no answer yet")


@contextmanager
def _told_errors(path: str) -> Iterator[None]:
    """Raise NotPermittedError for a PermissionError of the with-block, NotRunningError for other OSErrors."""
    try:
        yield
    except PermissionError as error:
        raise errors.NotPermittedError(path, "only root and members of group pcipt may connect") from error
    except (OSError, UnicodeError) as error:
        why = "it does not answer" if isinstance(error, TimeoutError) else _reason(error)
        raise errors.NotRunningError(path, why) from error


def _read_frame(connection: socket.socket, rest: bytes) -> tuple[bytes, bytes]:
    """Read up to the next NUL byte; return the frame without it, and the bytes after it.

    `rest` holds bytes that were read before. The frame is empty if the daemon closed the connection.
    """
    parts = [rest]
    while b"\0" not in parts[-1]:
        part = connection.recv(65536)
        if not part:
            return b"", b""
        parts.append(part)
    frame, _, rest = b"".join(parts).partition(b"\0")
    return frame, rest


def _unwrap(frame: bytes, path: str, method: str) -> dict[str, Any]:
    """Return the parameters of a reply, or raise the error that it holds."""
    try:
        message = json.loads(frame)
    except ValueError as error:
        raise errors.InputError(path, "what listens there does not speak pcipt's protocol") from error
    parameters = message.get("parameters", {}) if isinstance(message, dict) else None
    if not isinstance(parameters, dict):
        raise errors.InputError(path, "what listens there does not speak pcipt's protocol")
    name = str(message.get("error", "")).rpartition(".")[2]
    if not name:
        return parameters
    if name == "PermissionDenied":
        raise errors.NotPermittedError(method, str(parameters.get("needed", "only root may do this")))
    if name == "NoSuchDevice":
        nearest = parameters.get("nearest")
        known = tuple(map(str, nearest)) if isinstance(nearest, list) else ()
        raise errors.NoSuchDeviceError(str(parameters.get("sbdf", "")), known)
    raise errors.InputError(path, str(parameters.get("reason", name)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
