"""The control socket's language: Varlink-shaped frames, one JSON object and a NUL byte each.

Both ends import this; it loads nothing but json. The methods and who may call them stand in one table.
"""

import json
from collections.abc import Mapping
from typing import Any

SOCKET_PATH = "/run/pcipt/control"
INTERFACE = "org.pcipt"
REQUEST_LIMIT = 64 * 1024
NESTING_LIMIT = 16

# method: does it change anything (only uid 0 may then call it)
METHODS: Mapping[str, bool] = {
    "Status": False,
    "History": False,
    "Monitor": False,
    "Resync": True,
}

Message = dict[str, Any]


class FrameError(Exception):
    """A frame that is no request; the text is the reason, for the peer."""


def encode_frame(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\0"


def request(method: str, parameters: Message | None = None, *, more: bool = False) -> bytes:
    message: Message = {"method": f"{INTERFACE}.{method}", "parameters": parameters or {}}
    return encode_frame({**message, "more": True} if more else message)


def reply(parameters: Message, *, continues: bool = False) -> bytes:
    message: Message = {"parameters": parameters}
    return encode_frame({**message, "continues": True} if continues else message)


def error(name: str, parameters: Message | None = None) -> bytes:
    return encode_frame({"error": f"{INTERFACE}.{name}", "parameters": parameters or {}})


def decode_frame(frame: bytes) -> Message:
    """Decode one frame without its NUL byte.

    Raises: FrameError for anything that is not one JSON object of bounded nesting in UTF-8.
    """
    depth = deepest = 0
    for byte in frame:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    if deepest > NESTING_LIMIT:
        raise FrameError(f"nested deeper than {NESTING_LIMIT}")
    try:
        message = json.loads(frame.decode("utf-8"))
    except ValueError as cause:
        raise FrameError("not JSON in UTF-8") from cause
    if not isinstance(message, dict):
        raise FrameError("not a JSON object")
    return message
