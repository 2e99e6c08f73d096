"""The lab's hands in dom0: executes what the host asks for and answers. Standard library only.

Law of the wire, both ways: one frame a line, `CRC32 JSON`, bytes inside JSON as base64 of zlib. The host
asks one thing at a time and waits for its answer. Frames towards dom0 stay below 64 KiB: nothing throttles a
serial line, and what the kernel cannot buffer while nobody reads is lost.
"""

from __future__ import annotations

import base64
import ctypes  # noqa: F401 - this, mmap and socket are for what `do_call` runs, loaded once for all
import json
import mmap  # noqa: F401
import os
import select
import signal
import socket  # noqa: F401
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import tty
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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


class Command:
    """A process of its own group with its output in files: a child it leaves behind blocks nothing."""

    def __init__(self, out: IO[bytes], err: IO[bytes]) -> None:
        self._streams = {"stdout": out, "stderr": err}
        self._started = time.monotonic()

    def answer(self, rc: int | None) -> dict[str, Any]:
        """Say how it ended and what it said."""
        answer: dict[str, Any] = {"rc": rc, "seconds": round(time.monotonic() - self._started, 3)}
        for name, stream in self._streams.items():
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - OUTPUT_LIMIT))
            answer[name] = pack(stream.read())
            answer[f"{name}_lost"] = max(0, size - OUTPUT_LIMIT)
        return answer


@contextmanager
def output_files() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Give a file each for what a command says and complains."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        yield out, err


def do_run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program."""
    with output_files() as (out, err):
        command = Command(out, err)
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
        return command.answer(rc)


def do_call(request: dict[str, Any]) -> dict[str, Any]:
    """Run a Python function in a fork of this process: a start of Python takes ten times as long here."""
    with output_files() as (out, err):
        command = Command(out, err)
        child = os.fork()
        if child == 0:
            rc = 1
            try:
                call_here(request, out, err)
                rc = 0
            except BaseException:  # noqa: BLE001 - whatever it is, this copy of the agent must end here
                sys.stdout.flush()
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(rc)
        return command.answer(wait_for_child(child, request["limit"]))


def call_here(request: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> None:
    """Execute the source, call the function, write its result as JSON; what it prints is its complaint."""
    os.setsid()
    for number in (1, 2):
        os.dup2(err.fileno(), number)
    names: dict[str, Any] = {}
    exec(compile(unpack(request["source"]), f"<{request['name']}>", "exec"), names)
    out.write(json.dumps(names[request["name"]](*request["arguments"])).encode())
    out.flush()


def wait_for_child(child: int, limit: float) -> int | None:
    """Give a child's exit code; None if it had to be killed."""
    watched = os.pidfd_open(child)
    try:
        if not select.select([watched], [], [], limit)[0]:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(watched)


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


OPERATIONS = {"run": do_run, "call": do_call, "put": do_put, "fetch": do_fetch, "ping": do_ping}


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
