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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO

from pcipt.daemon.folder import Folder
from pcipt.errors import InputError
from pcipt.pci import Finding

FORMATS = (1, 2)  # format 1 had no steps, and no mappings in the ledger
NOT_REGULAR = "it is no regular file"
MIB = 1024 * 1024
#  bytes
SIZE_LIMIT = 16 * MIB  # of a document: three times that of 10,000 functions
STEPS_LONG = MIB  # of steps: the document is to be saved again
STEPS_LIMIT = 16 * MIB  # of steps: no more are appended
STEPS_READ = 64 * MIB  # of steps: what an earlier pcipt may have left
LINE_LIMIT = 64 * 1024  # of one step
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
            data = self._read()
        except FileNotFoundError:
            return None, None
        except InputError as error:
            return None, self.rejected(error.why)
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

    def load_steps(self, take: Callable[[Any], None]) -> Finding | None:
        """Call `take` with each step that was appended to the document, in their order. Call `load` first.

        One line is held in memory at a time. Nothing is done if there is no file of steps, or if its steps
        belong to an older document, because the present document includes them. If the last line is
        incomplete or damaged, for example after a crash, it is left out without a finding. If a line before
        it is damaged, or if the file is longer than STEPS_READ, the file is renamed; the steps before that
        line are taken, and a finding is returned: none are taken if it is the first line, which names the
        document. A file that is not regular is renamed too; no step is taken, and a finding is returned.

        Raises: OSError if the file exists and cannot be read, or cannot be renamed; every error of `take`.
        """
        self._length = 0
        try:
            with self._folder.open_for_reading(self._steps_base) as file:
                why = self._take_lines(file, take)
        except FileNotFoundError:
            return None
        except InputError:
            why = NOT_REGULAR
        return None if why is None else self.rejected_steps(why)

    def _take_lines(self, file: BinaryIO, take: Callable[[Any], None]) -> str | None:
        """Call `take` with each step of the file of steps; return why the rest of the file cannot be used.

        If the whole file can be used, set `_length` to the bytes of its whole lines, and return None.
        """
        length, damaged = 0, 0
        for number, line in enumerate(iter(partial(file.readline, LINE_LIMIT), b""), 1):
            if damaged:
                return f"line {damaged} is damaged"
            if length + len(line) > STEPS_READ:
                return (
                    f"line {number} is behind the first {STEPS_READ} bytes, and nothing from there on is used"
                )
            whole = line.endswith(b"\n")
            value = _line(line[:-1]) if whole else None
            if value is None:
                damaged = number if whole or len(line) == LINE_LIMIT else 0
                continue
            if number == 1 and value != self._digest:
                return None  # steps of an older document; this one includes them
            if number > 1:
                take(value)
            length += len(line)
        self._length = length
        return None

    def append(self, steps: Sequence[Any]) -> None:
        """Append steps to the document; they are on disk when this returns.

        Call `load_steps` or `save` before.

        Raises: OSError if they cannot be written, or if there are more than STEPS_LIMIT bytes of steps. The
                file may then contain some of them, until the next append or save removes them.
        """
        if self._length > STEPS_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
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

    @property
    def is_long(self) -> bool:
        """Return True if there are more than STEPS_LONG bytes of steps: `save` is due."""
        return self._length > STEPS_LONG

    def close(self) -> None:
        """Close the file of steps if it is open. A later `append` opens it again."""
        if self._steps is not None:
            os.close(self._steps)
            self._steps = None

    def _read(self) -> bytes:
        """Return the bytes of the document.

        Raises: InputError if it is no regular file, or longer than SIZE_LIMIT; FileNotFoundError if it does
                not exist; OSError if it cannot be opened or read.
        """
        place = self._folder.place(self._base)
        try:
            with self._folder.open_for_reading(self._base) as file:
                data = file.read(SIZE_LIMIT + 1)
        except InputError as error:
            raise InputError(place, NOT_REGULAR) from error
        if len(data) > SIZE_LIMIT:
            raise InputError(place, f"it is longer than {SIZE_LIMIT} bytes")
        return data

    def _damaged(self, base: str, why: str) -> Finding:
        """Rename a file and return a finding that it is damaged. Raises OSError if it cannot be renamed."""
        aside = self._folder.put_aside(base)
        text = f"{self._folder.place(base)}: {why}; the file is kept as {aside}, "
        text += f"and the {self.name} is rebuilt from what Xen and hardware say"
        return Finding(f"{self.name}-damaged", text)

    def save(self, content: Any) -> None:
        """Replace the document's content and delete its steps. The content is on disk when this returns.

        Raises: OSError if it cannot be written, or is longer than `load` would take. The file is then usually
                as it was before the call. It holds the new content if only the directory could not be synced.
        """
        body = _canonical(content)
        if len(body) > SIZE_LIMIT - LINE_LIMIT:  # less the first line and the last
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
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


def _unwrap(data: bytes) -> tuple[Any, str, str | None]:
    """Return a document's content, its checksum, and why it cannot be used (None if it can).

    If the document cannot be used, the content is None and the checksum is empty.
    """
    try:
        whole = json.loads(data)
        version, digest, content = whole["format"], whole["sha256"], whole["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "", "it is damaged"
    if version not in FORMATS:
        return None, "", f"it has format {version!r}, but this pcipt uses format {FORMATS[-1]}"
    if hashlib.sha256(_canonical(content)).hexdigest() != digest:
        return None, "", "its checksum does not fit"
    return content, digest, None
