"""JSON documents that survive a crash: written to a new file, synced, renamed over the old one.

    {"format": 2, "sha256": "…", "content": {…}}

What happens between two savings is appended to FILE.steps and synced, a line with its checksum each; the
first line names the document that they follow. A damaged file, or one of a newer format, is kept aside and
said; its reader starts afresh.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from pcipt.errors import InputError
from pcipt.host.regular_file import open_regular
from pcipt.pci import Finding

FORMATS = (1, 2)  # 1: no steps, and no mappings in the ledger
SIZE_LIMIT = 64 * 1024 * 1024
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Document:
    """One file; `name` tells in findings what it holds."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self._digest = ""
        self._steps: int | None = None  # descriptor of the file of steps, once something was appended
        self._length = 0  # how much of it is whole

    def load(self) -> tuple[Any, Finding | None]:
        """Read the content; None if there is none or it cannot be trusted (then with a finding).

        Raises: OSError where the file exists and cannot be read.
        """
        try:
            data = _read(self.path)
        except FileNotFoundError:
            return None, None
        content, digest, why = _unwrap(data)
        if why is None:
            self._digest = digest
            return content, None
        return None, self.rejected(why)

    def rejected(self, why: str) -> Finding:
        """Keep the file aside, with the steps that follow it: its content cannot be used."""
        with contextlib.suppress(FileNotFoundError):
            _put_aside(self._steps_path)
        return self._damaged(self.path, why)

    def rejected_steps(self, why: str) -> Finding:
        """Keep the steps aside; the document is good."""
        return self._damaged(self._steps_path, why)

    def load_steps(self) -> tuple[list[Any], Finding | None]:
        """Read what was appended to the document just loaded; a line cut short by a crash is left out.

        Raises: OSError where the file exists and cannot be read.
        """
        self._length = 0
        try:
            data = _read(self._steps_path)
        except FileNotFoundError:
            return [], None
        if data is None:
            return [], self.rejected_steps("it is no regular file")
        lines = data.split(b"\n")[:-1]
        found = [_line(line) for line in lines]
        if not found or found[0] != self._digest:
            return [], None  # they belong to a document before this one, which has them
        broken = found.index(None) if None in found else len(found)
        if broken < len(found) - 1:
            return found[1:broken], self._damaged(self._steps_path, f"line {broken + 1} is damaged")
        self._length = sum(len(line) + 1 for line in lines[:broken])
        return found[1:broken], None

    def append(self, steps: Sequence[Any]) -> None:
        """Append steps to what was saved; when this returns, they are on disk.

        Raises: OSError; what was appended is then not part of the file, or will not be after the next time.
        """
        if self._steps is None:
            mode = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._steps = os.open(self._steps_path, mode, 0o640)
            _sync_directory(self.path)
        os.ftruncate(self._steps, self._length)
        lines = b"".join(_checked(step) for step in ([] if self._length else [self._digest]) + list(steps))
        if os.write(self._steps, lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(self._steps)
        self._length += len(lines)

    def close(self) -> None:
        if self._steps is not None:
            os.close(self._steps)
            self._steps = None

    @property
    def _steps_path(self) -> str:
        return f"{self.path}.steps"

    def _damaged(self, path: str, why: str) -> Finding:
        aside = _put_aside(path)
        text = f"{path}: {why}; kept as {aside}, the {self.name} is rebuilt from what Xen and hardware say"
        return Finding(f"{self.name}-damaged", text)

    def save(self, content: Any) -> None:
        """Replace the document; when this returns, it is on disk.

        Raises: OSError; the old document is then still there whole.
        """
        body = _canonical(content)
        digest = hashlib.sha256(body).hexdigest()
        head = f'{{"format": {FORMATS[-1]}, "sha256": "{digest}", "content":\n'.encode()
        directory, base = os.path.split(self.path)
        fresh = os.path.join(directory, f".{base}.new")
        try:
            with open(fresh, "wb") as file:
                file.writelines((head, body, b"}\n"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        _sync_directory(self.path)
        self._digest = digest
        self._length = 0  # the steps so far are in the document now
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self._steps_path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_aside(path: str) -> str:
    for number in range(1, 1000):
        aside = f"{path}.damaged-{number}"
        if not os.path.exists(aside):
            os.replace(path, aside)
            return aside
    aside = f"{path}.damaged"
    os.replace(path, aside)
    return aside


def _checked(value: Any) -> bytes:
    body = _canonical(value)
    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


def _line(line: bytes) -> Any:
    """Read one appended line; None for one that is damaged."""
    digest, _, body = line.partition(b" ")
    if hashlib.sha256(body).hexdigest()[:16].encode() != digest:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _canonical(content: Any) -> bytes:
    return _ENCODER.encode(content).encode()


def _read(path: str) -> bytes | None:
    """Read a file; None for one that is not regular."""
    try:
        with open_regular(path) as file:
            return file.read(SIZE_LIMIT)
    except InputError:
        return None


def _unwrap(data: bytes | None) -> tuple[Any, str, str | None]:
    if data is None:
        return None, "", "it is no regular file"
    try:
        whole = json.loads(data)
        version, digest, content = whole["format"], whole["sha256"], whole["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "", "it is damaged"
    if version not in FORMATS:
        return None, "", f"it has format {version!r}, this pcipt writes {FORMATS[-1]}"
    if hashlib.sha256(_canonical(content)).hexdigest() != digest:
        return None, "", "its checksum does not fit"
    return content, digest, None
