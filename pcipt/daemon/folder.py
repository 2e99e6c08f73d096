"""A directory in which the daemon writes. Nothing that lies there can make the daemon wait or lead it away.

All files that the daemon writes are written by this module. The directory is opened once, and every name is
taken relative to it. A file is created exclusively under a name that nobody can foresee, and then renamed.
Nothing is opened that is no regular file: opening a FIFO would wait for its other end for ever.

Source: open(2), O_EXCL, O_NOFOLLOW; path_resolution(7).
"""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from pcipt.errors import InputError

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
_FRESH = re.compile(r"\..+\.[0-9a-f]{16}\.new")
_MOST_NAMES = 10_000  # that are looked at for remains of a killed daemon


class Folder:
    """The directory `path`; it is opened when it is needed first, and stays open until `close`.

    With `own`, the directory must belong to root or to the daemon's user, and nobody else may write in it.
    Without `own`, it may belong to anybody, because no content is read from it.

    Every method that is not `close` raises OSError if the directory cannot be opened or does not fit.
    """

    def __init__(self, path: str, *, own: bool = True) -> None:
        self.path = path
        self._own = own
        self._opened: int | None = None

    def place(self, name: str) -> str:
        """Return the path of a file, for texts."""
        return os.path.join(self.path, name)

    def open_for_reading(self, name: str) -> BinaryIO:
        """Open a regular file for reading. The caller closes it.

        Raises: InputError if it is no regular file (a link is none); FileNotFoundError if it is missing;
                OSError if it cannot be opened.
        """
        try:
            return os.fdopen(self._open(name, os.O_RDONLY), "rb")
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise InputError(self.place(name), "is no regular file") from error
            raise

    def open_for_appending(self, name: str, *, anew: bool) -> int:
        """Return a descriptor that appends to a file.

        With `anew` the file is made; what has the name is deleted before, or put aside if it is a directory.

        Raises: OSError if the file cannot be made, is missing and not `anew`, or is no regular file.
        """
        if not anew:
            return self._open(name, os.O_WRONLY | os.O_APPEND)
        try:
            self.delete(name)
        except IsADirectoryError:
            self.put_aside(name)
        return self._open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def open_for_locking(self, name: str) -> int:
        """Return a descriptor for reading and writing; the file is made if it is missing.

        Raises: OSError if the file cannot be opened or made, or is no regular file.
        """
        return self._open(name, os.O_RDWR | os.O_CREAT, 0o600)

    def replace(self, name: str, parts: Iterable[bytes], *, mode: int = 0o600, sync: bool = True) -> None:
        """Replace the content of a file by `parts`; a reader sees the old content or the new one.

        With `sync`, content and name are on disk when this returns. The file gets `mode`, whatever the umask.

        Raises: OSError if it cannot be written. The file is then as it was before, unless only the name could
                not be synced.
        """
        fresh = f".{name}.{secrets.token_hex(8)}.new"
        descriptor = self._open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.writelines(parts)
                file.flush()
                if sync:
                    os.fsync(descriptor)
            self.rename(fresh, name)
        except OSError:
            with contextlib.suppress(OSError):
                self.delete(fresh)
            raise
        if sync:
            self.sync()

    def sync(self) -> None:
        """Sync the names of the directory to disk, so that a new name survives a crash. Raises: OSError."""
        os.fsync(self._directory())

    def rename(self, name: str, new: str) -> None:
        """Rename a file inside the directory; a file of the new name is replaced. Raises: OSError."""
        os.rename(name, new, src_dir_fd=self._directory(), dst_dir_fd=self._directory())

    def delete(self, name: str) -> None:
        """Delete a file; do nothing if it is missing. Raises: OSError, also if it is a directory."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory())

    def put_aside(self, name: str) -> str:
        """Rename a file to NAME.damaged-N with the lowest free N from 1 to 999; return its new path.

        If none is free, the new name is NAME.damaged, and a file of that name is replaced. Raises: OSError.
        """
        free = (new for n in range(1, 1000) if not self._exists(new := f"{name}.damaged-{n}"))
        aside = next(free, f"{name}.damaged")
        self.rename(name, aside)
        return self.place(aside)

    def sweep(self, name: str) -> None:
        """Delete what a killed daemon left of a `replace` of this file. Errors are ignored."""
        with contextlib.suppress(OSError), os.scandir(self._directory()) as entries:
            for _, entry in zip(range(_MOST_NAMES), entries, strict=False):
                if entry.name.startswith(f".{name}.") and _FRESH.fullmatch(entry.name):
                    self.delete(entry.name)

    def close(self) -> None:
        """Close the directory if it is open. A later use opens it again."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def _exists(self, name: str) -> bool:
        """Return True if something has this name."""
        try:
            os.lstat(name, dir_fd=self._directory())
        except FileNotFoundError:
            return False
        return True

    def _open(self, name: str, flags: int, mode: int = 0) -> int:
        """Open a file of the directory, which must be regular; return its descriptor.

        Raises: OSError; ENXIO if it is no regular file.
        """
        descriptor = os.open(name, flags | _FILE, mode, dir_fd=self._directory())
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, "is no regular file", self.place(name))
        return descriptor

    def _directory(self) -> int:
        """Return the descriptor of the directory, which is opened and checked if it is not open yet.

        Raises: OSError if it cannot be opened; EPERM if it must be our own and others may write in it.
        """
        if self._opened is None:
            opened = open_directory(self.path)
            if self._own and not _is_ours(opened):
                os.close(opened)
                raise OSError(
                    errno.EPERM, "others than root and this user may write in this directory", self.path
                )
            self._opened = opened
        return self._opened


def open_directory(path: str) -> int:
    """Open a directory, one part of its path after the other; return a descriptor. The caller closes it.

    A link is followed only if it lies in a directory in which nobody but root and this user can write, so
    that another account cannot lead the daemon to a directory that is not its own.

    Raises: OSError if a part is missing or cannot be opened, or if it is a link that is not followed.
    """
    above = os.open("/" if os.path.isabs(path) else ".", os.O_PATH | _FOLDER)
    try:
        for part in (*_parts(path), "."):
            kind = os.O_RDONLY if part == "." else os.O_PATH
            follow = 0 if _is_ours(above) else os.O_NOFOLLOW
            try:
                below = os.open(part, kind | _FOLDER | follow, dir_fd=above)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            os.close(above)
            above = below
    except BaseException:
        os.close(above)
        raise
    return above


def _parts(path: str) -> Iterator[str]:
    """Yield the names in a path that must be entered one after the other."""
    return (part for part in path.split("/") if part not in ("", "."))


def _is_ours(descriptor: int) -> bool:
    """Return True if an open directory belongs to root or to this user, and no other user can write in it.

    Members of root's group (0) may write in it. If this user is not root, members of this user's group may
    write in it too. If this user is root, members of the process's group may not, unless that is group 0: the
    service runs as root with the group pcipt, and other users are members of pcipt.
    """
    status, user = os.fstat(descriptor), os.geteuid()
    groups = {0, os.getegid()} if user else {0}
    others = stat.S_IWOTH | (0 if status.st_gid in groups else stat.S_IWGRP)
    return status.st_uid in {0, user} and not status.st_mode & others
