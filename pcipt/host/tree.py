"""Suspicious reading beneath one root: no link, FIFO, device node or endless file may lead it astray.

Links are followed by hand, step by step from the root, so that no recorded tree leads outside; the live `/`
is read the same way. Directories are held open by descriptor, so that nothing is exchanged between two steps.
Every failure is an OSError whose errno tells it: EXDEV led outside, ELOOP too many links, EMEDIUMTYPE no
regular file, EFBIG longer than its limit; the rest as the kernel says.
"""

import errno
import functools
import itertools
import os
import stat
from types import TracebackType
from typing import Self

from pcipt.errors import InputError
from pcipt.host.files import PAGE

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAX_DEPTH = 200  # each level holds a descriptor; real nesting is two levels per bridge at most
_MAX_LINKS = 40
_CHUNK = 1 << 16


class Tree:
    """A root directory, and a cursor beneath it that remembers where it stands.

    `names` and the descriptors behind them are one chain of real directories (no links) from the root down;
    moving to a neighbour opens only what differs.
    """

    def __init__(self, root: str) -> None:
        try:
            self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise InputError(root, reason(error)) from error
        self._names: list[str] = []
        self._chain: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._drop(0)
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    @property
    def names(self) -> tuple[str, ...]:
        """Where the cursor stands: real directory names from the root down."""
        return tuple(self._names)

    def enter(self, path: str) -> int:
        """Move the cursor to the directory `path` (beneath the root) and give its descriptor.

        The descriptor is valid until the next call.
        Raises: OSError; the cursor then stands at the root or on the way.
        """
        pending = path.split("/")
        pending.reverse()
        names, chain = self._names, self._chain
        level = links = 0
        while pending:
            part = pending.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                level -= 1
                if level < 0:
                    raise OSError(errno.EXDEV, "leads out of the tree", path)
                continue
            if level < len(names) and names[level] == part:
                level += 1
                continue
            self._drop(level)
            above = chain[-1] if chain else self._root
            try:
                opened = os.open(part, _DIRECTORY, dir_fd=above)
            except OSError as error:
                target = _link_text(part, above, error)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, "goes round in circles", path) from error
                pending += reversed(target.split("/"))
                continue
            names.append(part)
            chain.append(opened)
            level += 1
            if level > _MAX_DEPTH:
                raise OSError(errno.ENAMETOOLONG, "is nested too deeply", path)
        self._drop(level)
        return chain[-1] if chain else self._root

    def read(self, path: str, limit: int) -> bytes:
        """Read the regular file `path` (beneath the root) of at most `limit` bytes.

        Raises: OSError.
        """
        directory, _, name = path.rpartition("/")
        return read_file(self.enter(directory), name, limit)

    def _drop(self, level: int) -> None:
        while len(self._chain) > level:
            os.close(self._chain.pop())
            self._names.pop()


def read_file(directory: int, name: str, limit: int, wanted: int | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes, or its first `wanted` bytes.

    A file of up to one page is read in one go, as sysfs gives it; the type is looked at before opening, for
    opening a device node may already do something.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EMEDIUMTYPE, "is no regular file", name)
    opened = os.open(name, _FILE, dir_fd=directory)
    try:
        if limit > PAGE:
            data = _read_all(opened, limit)
        else:
            data = os.read(opened, limit + 1 if wanted is None else wanted)
    finally:
        os.close(opened)
    # sysfs gives every text attribute the size of a page, whatever it holds
    if len(data) > limit or (status.st_size > max(limit, PAGE)):
        raise OSError(errno.EFBIG, f"is longer than {limit} bytes", name)
    return data


def read_link(directory: int, name: str, level: int) -> str:
    """Read a link in a directory `level` steps below the root; refuse one that names a place outside.

    Raises: OSError, EINVAL where it is no link.
    """
    target = os.readlink(name, dir_fd=directory)
    if not stays_inside(target, level):
        raise OSError(errno.EXDEV, "leads out of the tree", name)
    return target


@functools.lru_cache(maxsize=4096)
def stays_inside(target: str, level: int) -> bool:
    """Tell whether a link's text, read `level` directories below the root, names a place beneath the root."""
    if target.startswith("/"):
        return False
    for part in target.split("/"):
        if part == "..":
            level -= 1
            if level < 0:
                return False
        elif part not in {"", "."}:
            level += 1
    return True


def list_names(directory: int, limit: int, below: str = ".") -> list[str]:
    """List a directory, or one right below it that is no link; EFBIG above `limit` entries."""
    opened = os.open(below, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(opened) as entries:
            names = [entry.name for entry in itertools.islice(entries, limit + 1)]
    finally:
        os.close(opened)
    if len(names) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit} entries")
    return names


def reason(error: Exception) -> str:
    """Say in a few words why an OSError (or a path that cannot be one) came."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error)


def text_of(name: str) -> str:
    """Turn a file name into text that can be printed as JSON: bytes that are not UTF-8 become escapes."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _link_text(part: str, directory: int, error: OSError) -> str:
    """Read the link that stopped a step; re-raise `error` where it was no link."""
    if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
        raise error
    try:
        target = os.readlink(part, dir_fd=directory)
    except OSError:
        raise error from None
    if target.startswith("/"):
        raise OSError(errno.EXDEV, "leads out of the tree", part) from error
    return target


def _read_all(opened: int, limit: int) -> bytes:
    """Read to the end: /proc and large attributes come in pieces."""
    pieces = []
    left = limit + 1
    while left > 0 and (piece := os.read(opened, min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
