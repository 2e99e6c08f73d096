"""JSON documents that survive a crash: written to a new file, synced, and renamed over the old file.

    {"format": 2, "sha256": "…", "content": {…}}

Steps appended between two saves go to FILE.steps and are synced: one line each, with a checksum. The first
line holds the checksum of the document to which the steps belong. A damaged file, or a file of a newer
format, is renamed and reported; the caller then starts without it.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from pcipt.daemon.folder import Folder
from pcipt.errors import InputError
from pcipt.pci import Finding

FORMATS = (1, 2)  # format 1 had no steps, and no mappings in the ledger
SIZE_LIMIT = 64 * 1024 * 1024
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Document:
    """One JSON document in the file `base` of `folder`, with its steps in `base`.steps.

    `name` says in findings what the document holds. Steps are values that were appended since the document
    was saved last.
    """

    def __init__(self, folder: Folder, base: str, name: str) -> None:
        self._folder = folder
        self._base = base
        self._steps_base = f"{base}.steps"
        self.name = name
        self._digest = ""
        self._steps: int | None = None  # descriptor of the file of steps, once something was appended
        self._length = 0  # bytes of that file that hold whole lines
        self._torn = True  # it may hold more bytes than that

    def load(self) -> tuple[Any, Finding | None]:
        """Read the document and return its content, and a finding if the file cannot be used.

        The content is None without a finding if there is no file. It is None with a finding if the file is
        damaged or has an unknown format; the file and its steps are then renamed.

        Raises: OSError if the file exists and cannot be read, or cannot be renamed.
        """
        self._folder.sweep(self._base)
        try:
            data = self._read(self._base)
        except FileNotFoundError:
            return None, None
        content, digest, why = _unwrap(data)
        if why is None:
            self._digest = digest
            return content, None
        return None, self.rejected(why)

    def rejected(self, why: str) -> Finding:
        """Rename the document's file and its file of steps, because the content cannot be used.

        Return a finding with the reason `why` and the new name of the document's file.

        Raises: OSError if the file does not exist or cannot be renamed.
        """
        with contextlib.suppress(FileNotFoundError):
            self._folder.put_aside(self._steps_base)
        return self._damaged(self._base, why)

    def rejected_steps(self, why: str) -> Finding:
        """Rename the file of steps, because the steps cannot be used; return a finding that says so.

        The document itself is kept.

        Raises: OSError if the file of steps does not exist or cannot be renamed.
        """
        return self._damaged(self._steps_base, why)

    def load_steps(self) -> tuple[list[Any], Finding | None]:
        """Return the steps that were appended to the document, in their order. Call `load` first.

        The list is empty without a finding if there is no file of steps. Steps that belong to an older
        document are ignored, because the present document includes them. If the last line is incomplete or
        damaged, for example after a crash, it is left out without a finding. If a line before it is damaged,
        the file is renamed; return the steps before that line, with a finding: none if it is the first line,
        which names the document. A file that is not regular is renamed too; return no steps, with a finding.

        Raises: OSError if the file exists and cannot be read, or cannot be renamed.
        """
        self._length = 0
        try:
            data = self._read(self._steps_base)
        except FileNotFoundError:
            return [], None
        if data is None:
            return [], self.rejected_steps("it is no regular file")
        lines = data.split(b"\n")[:-1]
        found = [_line(line) for line in lines]
        broken = found.index(None) if None in found else len(found)
        if not found or (broken and found[0] != self._digest):
            return [], None  # steps of an older document; this one includes them
        if broken < len(found) - 1:
            return found[1:broken], self._damaged(self._steps_base, f"line {broken + 1} is damaged")
        self._length = sum(len(line) + 1 for line in lines[:broken])
        return found[1:broken], None

    def append(self, steps: Sequence[Any]) -> None:
        """Append steps to the document; they are on disk when this returns.

        Call `load_steps` or `save` before.

        Raises: OSError if they cannot be written. The file may then contain some of them, until the next
                append or save removes them.
        """
        if self._steps is None:
            self._steps = self._folder.open_for_appending(self._steps_base, anew=not self._length)
            self._folder.sync()
        if self._torn:
            os.ftruncate(self._steps, self._length)
        self._torn = True
        lines = b"".join(_checked(step) for step in ([] if self._length else [self._digest]) + list(steps))
        if os.write(self._steps, lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(self._steps)
        self._length += len(lines)
        self._torn = False

    def close(self) -> None:
        """Close the file of steps if it is open. A later `append` opens it again."""
        if self._steps is not None:
            os.close(self._steps)
            self._steps = None

    def _read(self, base: str) -> bytes | None:
        """Return the first SIZE_LIMIT bytes of a file; None if it is not a regular file.

        Raises: OSError if it cannot be opened or read; FileNotFoundError if it does not exist.
        """
        try:
            with self._folder.open_for_reading(base) as file:
                return file.read(SIZE_LIMIT)
        except InputError:
            return None

    def _damaged(self, base: str, why: str) -> Finding:
        """Rename a file and return a finding that it is damaged. Raises OSError if it cannot be renamed."""
        aside = self._folder.put_aside(base)
        text = f"{self._folder.place(base)}: {why}; kept as {aside}, "
        text += f"the {self.name} is rebuilt from what Xen and hardware say"
        return Finding(f"{self.name}-damaged", text)

    def save(self, content: Any) -> None:
        """Replace the document's content and delete its steps. The content is on disk when this returns.

        Raises: OSError if it cannot be written. The file is then usually as it was before the call. It holds
                the new content if only the directory could not be synced.
        """
        body = _canonical(content)
        digest = hashlib.sha256(body).hexdigest()
        head = f'{{"format": {FORMATS[-1]}, "sha256": "{digest}", "content":\n'.encode()
        self._folder.replace(self._base, (head, body, b"}\n"))
        self._digest = digest
        self._length, self._torn = 0, True  # the document includes the steps now
        self.close()
        with contextlib.suppress(OSError):
            self._folder.delete(self._steps_base)


def _checked(value: Any) -> bytes:
    """Return a step as one line of bytes: checksum, space, JSON, newline."""
    body = _canonical(value)
    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


def _line(line: bytes) -> Any:
    """Return the step in one line (without its newline) of the file of steps; None if the line is damaged."""
    digest, _, body = line.partition(b" ")
    if hashlib.sha256(body).hexdigest()[:16].encode() != digest:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _canonical(content: Any) -> bytes:
    """Return content as JSON bytes with sorted keys; checksums are computed over these bytes."""
    return _ENCODER.encode(content).encode()


def _unwrap(data: bytes | None) -> tuple[Any, str, str | None]:
    """Return a document's content, its checksum, and why it cannot be used (None if it can).

    `data` is None for a file that is not regular. If the document cannot be used, the content is None and the
    checksum is empty.
    """
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
