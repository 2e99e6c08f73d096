"""The file for node_exporter's textfile collector: written when something has changed, at most so often.

Written aside and renamed, so that no scrape sees half of it. A daemon that has stopped has no numbers: its
file goes with it. A disk that does not take it is said once, until it does again.
"""

import contextlib
import os
from collections.abc import Callable

from pcipt.daemon.loop import Loop

PAUSE = 5.0  # seconds between two writings


class Textfile:
    """`text` makes the content; `path` may change or be empty, which is no file."""

    def __init__(
        self, loop: Loop, path: str, text: Callable[[], str], complain: Callable[[str, OSError], None]
    ) -> None:
        self._loop = loop
        self._path = path
        self._text = text
        self._complain = complain
        self._pending = self._pausing = self._failed = False
        self.changed()

    def changed(self) -> None:
        """Have the file written, now or after the pause."""
        self._pending = bool(self._path)
        if self._pending and not self._pausing:
            self._pausing = True
            self._loop.after("textfile", 0.0, self._write)

    def move_to(self, path: str) -> None:
        """Write to another file from now on; the old one goes."""
        if path != self._path:
            self._remove()
            self._path = path
            self._failed = False
            self.changed()

    def close(self) -> None:
        self._loop.cancel("textfile")
        self._remove()

    def _write(self) -> None:
        if not self._pending or not self._path:
            self._pausing = False
            return
        self._pending = False
        try:
            write_aside(self._path, self._text())
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._complain(self._path, error)
            self._failed = True
        self._loop.after("textfile", PAUSE, self._write)  # once more if something changes meanwhile

    def _remove(self) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def write_aside(path: str, text: str) -> None:
    """Replace the file at once by one with this text that everybody may read.

    Raises: OSError; the old file is then still there whole.
    """
    directory, base = os.path.split(path)
    fresh = os.path.join(directory, f".{base}.new")  # the collector takes *.prom only
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o644), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
