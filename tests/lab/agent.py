"""The lab's hands in dom0: executes what the host asks for and answers. Standard library only.

Law of the wire, both ways: one frame a line, `CRC32 JSON`, bytes inside JSON as base64 of zlib. The host
asks one thing at a time and waits for its answer. Frames towards dom0 stay below 64 KiB: nothing throttles a
serial line, and what the kernel cannot buffer while nobody reads is lost.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import tty
import zlib
from pathlib import Path
from typing import Any

#: Where the wire ends in dom0.
DEVICE = "/dev/ttyS1"
#: Raw bytes in one piece of a file, before compression; incompressible ones grow by a third.
PIECE = 24 * 1024
#: What is handed back of one stream of a command.
OUTPUT_LIMIT = 1024 * 1024


def pack(data: bytes) -> str:
    """Make bytes fit into JSON."""
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def unpack(text: str) -> bytes:
    """Undo `pack`."""
    return zlib.decompress(base64.b64decode(text))


def frame(message: dict[str, Any]) -> bytes:
    """Render one message as a line."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_frame(line: bytes) -> dict[str, Any] | None:
    """Decode a line; None if it is noise (firmware chatter, a torn frame)."""
    head, _, body = line.rstrip(b"\r\n").partition(b" ")
    try:
        if int(head, 16) != zlib.crc32(body):
            return None
        message = json.loads(body)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def do_run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command in its own process group; output in files: a child left behind blocks nothing."""
    for name, text in request.get("files", {}).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(unpack(text))
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=request.get("cwd") or "/root",
            env={**os.environ, **request.get("env", {})},
            start_new_session=True,
        )
        try:
            rc: int | None = process.wait(request["limit"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            rc = None
        answer: dict[str, Any] = {"rc": rc, "seconds": round(time.monotonic() - started, 3)}
        for name, stream in (("stdout", out), ("stderr", err)):
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - OUTPUT_LIMIT))
            answer[name] = pack(stream.read())
            answer[f"{name}_lost"] = max(0, size - OUTPUT_LIMIT)
        return answer


def do_put(request: dict[str, Any]) -> dict[str, Any]:
    """Write one piece of a file; the piece at 0 makes the file anew."""
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb" if request["offset"] == 0 else "r+b") as file:
        file.seek(request["offset"])
        file.write(unpack(request["data"]))
    return {}


def do_fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Read one piece of a file; an empty piece is the end."""
    with Path(request["path"]).open("rb") as file:
        file.seek(request["offset"])
        return {"data": pack(file.read(request["size"]))}


def do_ping(request: dict[str, Any]) -> dict[str, Any]:
    """Answer."""
    return {"pid": os.getpid()}


OPERATIONS = {"run": do_run, "put": do_put, "fetch": do_fetch, "ping": do_ping}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked; what goes wrong is an answer too."""
    try:
        result = OPERATIONS[request["op"]](request)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as exc:
        result = {"error": f"{exc.__class__.__name__}: {exc}"}
    return {"id": request.get("id"), **result}


def write_all(wire: int, data: bytes) -> None:
    """Write everything, whatever the line takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(wire, view) :]


def serve(wire: int) -> None:
    """Say hello, then answer one frame after the other, for ever."""
    write_all(wire, b"\n" + frame({"hello": os.getpid()}))
    pending = b""
    while True:
        select.select([wire], [], [])
        data = os.read(wire, 65536)
        if not data:
            time.sleep(0.2)
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            request = parse_frame(line)
            if request is not None:
                write_all(wire, frame(answer(request)))
            elif line.strip():
                write_all(wire, frame({"torn": len(line)}))


def main() -> None:
    """Open the line as a plain pipe of bytes and serve it."""
    device = sys.argv[1] if len(sys.argv) > 1 else DEVICE
    wire = os.open(device, os.O_RDWR | os.O_NOCTTY)
    if os.isatty(wire):
        tty.setraw(wire)
        mode = termios.tcgetattr(wire)
        mode[2] |= termios.CLOCAL
        mode[4] = mode[5] = termios.B115200
        termios.tcsetattr(wire, termios.TCSANOW, mode)
        termios.tcflush(wire, termios.TCIFLUSH)
    serve(wire)


if __name__ == "__main__":
    main()
