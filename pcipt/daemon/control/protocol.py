"""The protocol of the control socket: Varlink frames, each one JSON object and a NUL byte.

Client and server import this module, so it imports only re, and json when there is a frame. One table holds
the methods, their parameters and who may call them. docs/protocol.md describes the protocol;
org.pcipt.varlink, in this directory, is the interface.
"""

import re
from collections.abc import Collection, Mapping

from pcipt.hints import Any, NamedTuple

SOCKET_PATH = "/run/pcipt/control"
INTERFACE = "org.pcipt"
SERVICE = "org.varlink.service"  # the interface of every Varlink service, with the standard errors
VERSION = 1  # of the protocol; members are added, never renamed or redefined
REQUEST_LIMIT = 64 * 1024
NESTING_LIMIT = 16

Message = dict[str, Any]


class Method(NamedTuple):
    """One method in the table METHODS. `parameters` maps the names of its parameters to their types.

    `changes`: only uid 0 may call it. `stream`: it sends many replies, and the request must set "more".
    `optional` are the names of the parameters that may be left out.
    """

    parameters: Mapping[str, type] = {}
    changes: bool = False
    stream: bool = False
    optional: Collection[str] = ()


METHODS: Mapping[str, Method] = {
    "Status": Method(),
    "History": Method({"function": str}),
    "Mappings": Method(),
    "Explain": Method({"function": str, "as": str}, optional={"as"}),
    "Rmrr": Method(),
    "Metrics": Method(),
    "Check": Method(),
    "Monitor": Method({"slot": str}, stream=True, optional={"slot"}),
    "Release": Method({"function": str}, changes=True),
    "Reclaim": Method({"function": str}, changes=True, stream=True),
    "Admit": Method({"function": str, "admitted": bool}, changes=True, optional={"admitted"}),
    "Guests": Method(changes=True),
    "Resync": Method({"dry_run": bool}, changes=True, optional={"dry_run"}),
}

# A string in JSON; brackets inside of it do not nest. An unterminated string matches to the end: linear time.
_TEXT = rb'"(?:[^"\\]|\\.)*+"?'

_WORDS = {str: "a text", bool: "true or false"}

# Errors that org.varlink.service defines; all other errors are org.pcipt's.
STANDARD_ERRORS = frozenset(
    {"ExpectedMore", "InterfaceNotFound", "InvalidParameter", "MethodNotFound", "PermissionDenied"}
)


class FrameError(Exception):
    """Raised when a frame is not a request. The text is the reason, which is sent to the peer."""


class ParameterError(Exception):
    """Raised when a call has a wrong parameter: an unknown one, a missing one, or one of the wrong type.

    `parameter` is its name, `why` the reason.
    """

    def __init__(self, parameter: str, why: str) -> None:
        super().__init__(parameter, why)
        self.parameter = parameter
        self.why = why


def encode_frame(message: Message) -> bytes:
    """Return a message as one frame: JSON and a NUL byte."""
    import json

    return json.dumps(message, separators=(",", ":")).encode() + b"\0"


def request(method: str, parameters: Message | None = None, *, more: bool = False) -> bytes:
    """Return the frame of a call of a method of org.pcipt. With `more` the caller expects many replies.

    `method` is the name without its interface. `parameters` of None is an empty object.
    """
    message: Message = {"method": f"{INTERFACE}.{method}", "parameters": parameters or {}}
    return encode_frame({**message, "more": True} if more else message)


def reply(parameters: Message, *, continues: bool = False) -> bytes:
    """Return the frame of a reply with these parameters. With `continues` more replies follow."""
    message: Message = {"parameters": parameters}
    return encode_frame({**message, "continues": True} if continues else message)


def error(name: str, parameters: Message | None = None) -> bytes:
    """Return the frame of an error reply. `name` is the error's name without its interface.

    `parameters` of None is an empty object.
    """
    interface = SERVICE if name in STANDARD_ERRORS else INTERFACE
    return encode_frame({"error": f"{interface}.{name}", "parameters": parameters or {}})


def decode_frame(frame: bytes) -> Message:
    """Return the message in one frame, which is given without its NUL byte.

    Raises: FrameError if the frame is not one JSON object in UTF-8, or is nested deeper than NESTING_LIMIT.
    """
    import json

    depth = deepest = 0
    for byte in re.sub(_TEXT, b"", frame, flags=re.DOTALL):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    if deepest > NESTING_LIMIT:
        raise FrameError(f"nested deeper than {NESTING_LIMIT}")
    try:
        message = json.loads(frame.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise FrameError("not JSON in UTF-8") from cause
    if not isinstance(message, dict):
        raise FrameError("not a JSON object")
    return message


def members_of(parameters: object) -> Message:
    """Return the parameters of a call as a dict; None (JSON null) gives an empty dict.

    Raises: ParameterError if they are not an object.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ParameterError("parameters", "parameters is no object")
    return parameters


def require_known(key: str, allowed: Collection[str], method: str) -> None:
    """Check that `key` is in `allowed`, the names of the parameters of `method`.

    Raises: ParameterError if it is not; the error lists the allowed names.
    """
    if key not in allowed:
        known = f"expected {' or '.join(allowed)}" if allowed else f"{method} has none"
        raise ParameterError(key[:200], f"there is no such parameter; {known}")


def checked_parameters(name: str, given: object) -> Message:
    """Check the names and types of a call's parameters. Return the parameters that are not null.

    `name` is the method, a key of METHODS. A parameter that is null counts as missing.

    Raises: ParameterError if a parameter is unknown, missing or of the wrong type, or if `given` is not an
            object; KeyError if METHODS does not have `name`.
    """
    method = METHODS[name]
    allowed = method.parameters
    given = members_of(given)
    for key, value in given.items():
        require_known(key, allowed, name)
        if value is not None and not isinstance(value, allowed[key]):
            raise ParameterError(key, f"{key} must be {_WORDS[allowed[key]]}")
    checked = {key: value for key, value in given.items() if value is not None}
    for key in allowed.keys() - checked.keys() - set(method.optional):
        raise ParameterError(key, f"{key} is missing; expected {_WORDS[allowed[key]]}")
    return checked
