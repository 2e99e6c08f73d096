"""Read files below one root safely: no link leads outside, no FIFO, device node or endless file does harm.

Links are followed step by step from the root, so that a recorded tree cannot lead outside; the live `/` is
read in the same way. Directories are kept open by descriptor, so they cannot be exchanged between two steps.
A failure is an OSError: EXDEV leads outside, ELOOP too many links, EMEDIUMTYPE not a regular file, EFBIG
longer than its limit; other errors are the kernel's.
"""

import errno
import functools
import itertools
import os
import stat
from types import TracebackType

from pcipt.errors import InputError
from pcipt.hints import Self
from pcipt.host.files import PAGE

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAX_DEPTH = 200  # each level needs a descriptor; real machines have at most two levels for each bridge
_MAX_LINKS = 40
_CHUNK = 1 << 16


class Tree:
    """A root directory, and a cursor that stands in one directory below it. It is a context manager.

    The tree keeps a descriptor for each directory from the root to the cursor. So moving the cursor opens
    only the directories of the new path that are not in the old path.
    Raises: InputError if the root cannot be opened.
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
        """Close all descriptors. A second call does nothing."""
        self._drop(0)
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the directories from the root down to the cursor, links resolved.

        The tuple is empty if the cursor is at the root.
        """
        return tuple(self._names)

    def enter(self, path: str) -> int:
        """Move the cursor to the directory `path` below the root and return its descriptor.

        An empty path is the root itself. The descriptor belongs to the tree and is valid until the next call
        of `enter`, `read` or `close`.
        Raises: OSError if a step fails, with an errno of the module's description; ENOENT if a directory is
                missing; ENAMETOOLONG if the path is more than 200 levels deep. The cursor is then in some
                directory on the way.
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
                target = _target_of(part, above, error)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, "leads back to itself", path) from error
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
        """Return the content of the regular file `path` below the root. Links to directories are followed.

        Raises: OSError: EFBIG if it is longer than `limit` bytes, EMEDIUMTYPE if it is a link or not a
                regular file, FileNotFoundError if it is missing, or another errno of the module's
                description.
        """
        directory, _, name = path.rpartition("/")
        return read_file(self.enter(directory), name, limit)

    def _drop(self, level: int) -> None:
        """Close the directories deeper than `level`."""
        while len(self._chain) > level:
            os.close(self._chain.pop())
            self._names.pop()


def read_file(directory: int, name: str, limit: int, wanted: int | None = None) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, or only its first `wanted` bytes.

    `wanted` is ignored if `limit` is more than one page. A file of at most one page is read with one call, as
    sysfs requires. The file type is checked before opening, because opening a device node can already have an
    effect.
    Raises: OSError: EMEDIUMTYPE if it is a link or not a regular file, EFBIG if it is longer than `limit`,
            FileNotFoundError if it is missing, or another errno of the kernel.
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
    # st_size of a text attribute in sysfs is always one page, whatever its content is
    if len(data) > limit or (status.st_size > limit and status.st_size != PAGE):
        raise OSError(errno.EFBIG, f"is longer than {limit} bytes", name)
    return data


def read_link(directory: int, name: str, level: int, text: bytes | None = None) -> str:
    """Return the text of a link in a directory that is `level` steps below the root.

    `text` is its text if somebody has read it already.
    Raises: OSError: EXDEV if the link leads outside the root, EINVAL if it is not a link, FileNotFoundError
            if it is missing.
    """
    target = os.fsdecode(text) if text else link_text(name, directory)
    if not stays_inside(target, level):
        raise OSError(errno.EXDEV, "leads out of the tree", name)
    return target


def link_text(name: str, directory: int) -> str:
    """Return the text of a link, as it is; it may lead anywhere.

    A regular file with nothing but a path that begins with `../` counts as a link: archives that were
    unpacked where there are no links, and Git with core.symlinks=false, leave such files.
    Raises: OSError: EINVAL if it is not a link, FileNotFoundError if it is missing.
    """
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        try:
            text = os.fsdecode(read_file(directory, name, PAGE))
        except OSError:
            raise error from None
        if not text.startswith("../") or not text.isprintable():
            raise
        return text


@functools.lru_cache(maxsize=4096)
def stays_inside(target: str, level: int) -> bool:
    """Return True if a link leads to the root or to a place below it.

    Return False if the link is absolute, or goes above the root in any of its steps.

    `target` is the text of the link; the link stands in a directory `level` steps below the root. Links in
    `target` itself are not examined. The place need not exist.
    """
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
    """Return the names in a directory, or in its subdirectory `below`. The names are not sorted.

    Raises: OSError: EFBIG if there are more than `limit` names, FileNotFoundError if the directory is
            missing, or another errno of the kernel, for example if `below` is a link or a file.
    """
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
    """Return the reason of an error in a few words.

    For an OSError these are the kernel's words, beginning with a small letter. Otherwise it is the text of
    the error.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error)


def text_of(name: str) -> str:
    """Return a file name as text that JSON can contain. Bytes that are not UTF-8 become escapes."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _target_of(part: str, directory: int, error: OSError) -> str:
    """Return the text of the link `part`, which could not be opened as a directory.

    `error` is the error of opening it.
    Raises: `error` if `part` is missing, cannot be read or is not a link; OSError with EXDEV if the link is
            absolute.
    """
    if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
        raise error
    try:
        target = link_text(part, directory)
    except OSError:
        raise error from None
    if target.startswith("/"):
        raise OSError(errno.EXDEV, "leads out of the tree", part) from error
    return target


def _read_all(opened: int, limit: int) -> bytes:
    """Read to the end of the file, but at most `limit` + 1 bytes, with as many calls as needed.

    /proc and large attributes return their content in pieces.
    """
    pieces = []
    left = limit + 1
    while left > 0 and (piece := os.read(opened, min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
