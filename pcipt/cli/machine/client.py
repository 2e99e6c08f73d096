"""The client of the daemon's control socket: send a request, return the reply.

`pcipt status` must start in milliseconds, so only modules that load fast are imported. `socket` and `json`
are loaded when somebody is asked: most commands can ask the daemon and need not.
"""

import argparse
import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress

from pcipt import errors
from pcipt.daemon.control.protocol import request
from pcipt.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

TIMEOUT = 30.0  # seconds
_FOREIGN = "the program that listens at this socket is not the pcipt daemon; `ss -lxp` names it"


def call(path: str, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask as `ask` does, and show on a terminal that the answer takes long."""
    with _progress():
        return ask(path, method, parameters)


def ask(path: str, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request to the daemon at socket `path` and return the parameters of its reply.

    Raises: NotRunningError if nobody listens, if no reply arrives within TIMEOUT seconds, or if the
            connection is closed before a reply; NotPermittedError if the process may not connect or may not
            call the method; NoSuchDeviceError if the daemon's machine does not have the function; InputError
            with the daemon's reason for any other error, or if the reply is not of pcipt's protocol.
    """
    with _new_connection() as connection:
        connection.settimeout(TIMEOUT)
        with _told_errors(path):
            connection.connect(path)
            with suppress(BrokenPipeError):  # it refused the connection: its reply can still be read
                connection.sendall(request(method, parameters))
            frame, _ = _read_frame(connection, b"")
    if not frame:
        raise errors.NotRunningError(path, "it closed the connection without an answer")
    return _unwrap(frame, path, method)


def asked(path: str, method: str) -> dict[str, Any] | None:
    """Return the daemon's reply; None if the daemon does not run, refuses, or does not know the method."""
    try:
        return call(path, method)
    except (errors.NotRunningError, errors.NotPermittedError, errors.InputError):
        return None


def stream(path: str, method: str, parameters: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    """Send one request that has many replies, and yield the parameters of each reply until the daemon stops.

    The request is sent when the caller asks for the first reply. Waiting for a reply has no time limit.

    Raises: the errors of `call`; NotRunningError when the daemon closes the connection. So the generator
            never ends without an error.
    """
    with _new_connection() as connection:
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
def regions_held(path: str, function: object) -> Iterator[dict[str, Any]]:
    """Make the daemon keep a function's reserved regions in dom0 during the with-block.

    The daemon restores the regions before the with-block starts. After the with-block it withdraws them again
    if no device of dom0 needs them. `function` is an address or its text. Yields the daemon's reply to
    `Reclaim`.

    Raises: InputError if the daemon cannot restore a region; the other errors of `call`.
    """
    with closing(stream(path, "Reclaim", {"function": str(function)})) as parts:
        yield next(parts)


@contextmanager
def checked_address(args: argparse.Namespace, text: str | None, *, slot: bool = False) -> Iterator[None]:
    """Raise AddressError instead of a PciptError of the with-block if `text` is not a valid address.

    `text` is the address or PCI path that the with-block sends to the daemon; with `slot` it is a slot
    filter. A `text` of None is not checked. The error suggests functions of the machine `args.root`. The
    parser of addresses is loaded only after a failure, because the daemon checks addresses too.

    Raises: AddressError; otherwise the error of the with-block.
    """
    try:
        yield
    except errors.PciptError:
        if text is not None:
            _check_address(args, text, slot=slot)
        raise


def _check_address(args: argparse.Namespace, text: str, *, slot: bool) -> None:
    """Check that `text` names one function by address or PCI path; with `slot`, that it is a slot filter.

    Raises: AddressError if it does not, with suggestions.
    """
    from pcipt.cli.machine.find import suggested
    from pcipt.cli.machine.source import Source
    from pcipt.pci import PciPath, parse_sbdf, parse_slot, parse_target

    try:
        if slot:
            parse_slot(text)
        elif not isinstance(parse_target(text), PciPath):
            parse_sbdf(text)
    except errors.AddressError as error:
        raise suggested(Source(args), error) from error


def _new_connection() -> "socket.socket":
    """Return a socket that is not connected yet."""
    import socket

    return socket.socket(socket.AF_UNIX)


def _progress() -> AbstractContextManager[None]:
    """Return a context manager that shows on stderr, after two seconds, that no reply has arrived yet.

    It shows nothing if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        return nullcontext()
    from pcipt.cli.text.progress import progress

    return progress("the daemon", lambda: "no answer yet")


@contextmanager
def _told_errors(path: str) -> Iterator[None]:
    """Run the with-block and replace its system errors by errors of pcipt.

    Raises: NotPermittedError for a PermissionError; NotRunningError for any other OSError, a timeout and a
            UnicodeError (a path that cannot be encoded).
    """
    try:
        yield
    except PermissionError as error:
        raise errors.NotPermittedError(path, "only root and members of group pcipt may connect") from error
    except (OSError, UnicodeError) as error:
        why = "it does not answer" if isinstance(error, TimeoutError) else _reason(error)
        raise errors.NotRunningError(path, why) from error


def _read_frame(connection: "socket.socket", rest: bytes) -> tuple[bytes, bytes]:
    """Read up to the next NUL byte; return the frame without that byte, and the bytes after it.

    `rest` holds bytes that were read before. If the daemon closes the connection before the NUL byte, both
    results are empty.

    Raises: OSError if reading fails; TimeoutError after the time limit of the connection.
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
    """Return the parameters of a reply. `frame` is the reply without its NUL byte.

    `path` (of the socket) and `method` are only for the texts of errors.

    Raises: NotPermittedError, NoSuchDeviceError or InputError for a reply that reports an error; InputError
            if the frame is not of pcipt's protocol.
    """
    import json

    try:
        message = json.loads(frame)
    except ValueError as error:
        raise errors.InputError(path, _FOREIGN) from error
    parameters = message.get("parameters", {}) if isinstance(message, dict) else None
    if not isinstance(parameters, dict):
        raise errors.InputError(path, _FOREIGN)
    name = str(message.get("error", "")).rpartition(".")[2]
    if not name:
        return parameters
    if name == "PermissionDenied":
        raise errors.NotPermittedError(method, str(parameters.get("needed", "only root may do this")))
    if name == "NoSuchDevice":
        nearest = parameters.get("nearest")
        known = tuple(map(str, nearest)) if isinstance(nearest, list) else ()
        raise errors.NoSuchDeviceError(str(parameters.get("sbdf", "")), known)
    raise errors.InputError("the pcipt daemon", str(parameters.get("reason", name)))


def _reason(error: Exception) -> str:
    """Return the reason of an error in words; the name of its class if it has no text."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
