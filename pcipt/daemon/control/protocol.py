"""The control socket's language: Varlink-shaped frames, one JSON object and a NUL byte each.

Both ends import this; it loads nothing but json. The methods, their parameters and who may call them stand in
one table. docs/protocol.md tells the whole; org.pcipt.varlink beside this file is the interface.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

SOCKET_PATH = "/run/pcipt/control"
INTERFACE = "org.pcipt"
SERVICE = "org.varlink.service"  # what every Varlink service answers, and its standard errors
VERSION = 1  # of the protocol: members are added, never renamed or given another meaning
REQUEST_LIMIT = 64 * 1024
NESTING_LIMIT = 16

Message = dict[str, Any]


class Method(NamedTuple):
    """`changes`: only uid 0 may call it. `stream`: it answers in many parts, and must be asked for "more".
    `optional`: the parameters may be left out.
    """

    parameters: Mapping[str, type] = {}
    changes: bool = False
    stream: bool = False
    optional: bool = False


METHODS: Mapping[str, Method] = {
    "Status": Method(),
    "History": Method({"function": str}),
    "Mappings": Method(),
    "Explain": Method({"function": str}),
    "Rmrr": Method(),
    "Metrics": Method(),
    "Check": Method(),
    "Monitor": Method({"slot": str}, stream=True, optional=True),
    "Release": Method({"function": str}, changes=True),
    "Reclaim": Method({"function": str}, changes=True, stream=True),
    "Guests": Method(changes=True),
    "Resync": Method({"dry_run": bool}, changes=True, optional=True),
}

# A text in JSON: its brackets open and close nothing. One without an end is taken whole: this stays linear.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)

_WORDS = {str: "a text", bool: "true or false"}

# Errors that org.varlink.service defines; every other one is org.pcipt's own.
STANDARD_ERRORS = frozenset(
    {"ExpectedMore", "InterfaceNotFound", "InvalidParameter", "MethodNotFound", "PermissionDenied"}
)


class FrameError(Exception):
    """A frame that is no request; the text is the reason, for the peer."""


class ParameterError(Exception):
    """A parameter that the method does not have, or of another type."""

    def __init__(self, parameter: str, why: str) -> None:
        super().__init__(parameter, why)
        self.parameter = parameter
        self.why = why


def encode_frame(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\0"


def request(method: str, parameters: Message | None = None, *, more: bool = False) -> bytes:
    message: Message = {"method": f"{INTERFACE}.{method}", "parameters": parameters or {}}
    return encode_frame({**message, "more": True} if more else message)


def reply(parameters: Message, *, continues: bool = False) -> bytes:
    message: Message = {"parameters": parameters}
    return encode_frame({**message, "continues": True} if continues else message)


def error(name: str, parameters: Message | None = None) -> bytes:
    interface = SERVICE if name in STANDARD_ERRORS else INTERFACE
    return encode_frame({"error": f"{interface}.{name}", "parameters": parameters or {}})


def decode_frame(frame: bytes) -> Message:
    """Decode one frame without its NUL byte.

    Raises: FrameError for anything that is not one JSON object of bounded nesting in UTF-8.
    """
    depth = deepest = 0
    for byte in _TEXT.sub(b"", frame):
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
    """Take the parameters of a call; null counts as none.

    Raises: ParameterError
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ParameterError("parameters", "parameters is no object")
    return parameters


def require_known(key: str, allowed: Collection[str], method: str) -> None:
    """Refuse a parameter that a method does not have.

    Raises: ParameterError
    """
    if key not in allowed:
        known = f"expected {' or '.join(allowed)}" if allowed else f"{method} has none"
        raise ParameterError(key[:200], f"there is no such parameter; {known}")


def checked_parameters(name: str, given: object) -> Message:
    """Check what was given against the method's own parameters; null counts as not given.

    Raises: ParameterError
    """
    method = METHODS[name]
    allowed = method.parameters
    given = members_of(given)
    for key, value in given.items():
        require_known(key, allowed, name)
        if value is not None and not isinstance(value, allowed[key]):
            raise ParameterError(key, f"{key} must be {_WORDS[allowed[key]]}")
    checked = {key: value for key, value in given.items() if value is not None}
    for key in () if method.optional else allowed.keys() - checked.keys():
        raise ParameterError(key, f"{key} is missing; expected {_WORDS[allowed[key]]}")
    return checked
