"""The metrics file for node_exporter's textfile collector, written after changes of the metrics.

At least PAUSE seconds pass between two writes, and at most AGAIN seconds: the time of the file says that the
daemon lives. The file is written under another name and renamed, so that a reader never sees half of it. It
is deleted when the daemon stops. If several writes in a row fail, only the first error is reported.
"""

import contextlib
import os
from collections.abc import Callable

from pcipt.daemon.folder import Folder
from pcipt.daemon.loop import Loop

PAUSE = 5.0  # seconds between two writings
AGAIN = 300.0  # seconds after which it is written also if nothing has changed: its time says that we live


class Textfile:
    """The metrics file `path` of node_exporter. An empty path writes no file. `text` returns the content.

    The first write is scheduled at once, later ones by `changed`. `complain` is called with the path and the
    error of a failed write. If several writes in a row fail, it is called only for the first.
    """

    def __init__(
        self, loop: Loop, path: str, text: Callable[[], str], complain: Callable[[str, OSError], None]
    ) -> None:
        self._loop = loop
        self._use(path)
        self._text = text
        self._complain = complain
        self._pending = self._pausing = self._failed = False
        self.changed()

    def changed(self) -> None:
        """Schedule a write: in the next turn of the loop, if no write was made in the last PAUSE seconds.

        Otherwise the write comes PAUSE seconds after the last write. If the path is empty, no write is
        scheduled.
        """
        self._pending = bool(self._path)
        if self._pending and not self._pausing:
            self._pausing = True
            self._loop.after("textfile", 0.0, self._write)

    def move_to(self, path: str) -> None:
        """Delete the present file and write to `path` from now on. Do nothing if `path` is unchanged."""
        if path != self._path:
            self._remove()
            self._use(path)
            self._failed = False
            self.changed()

    def close(self) -> None:
        """Cancel the pending write and delete the file. Errors of deleting are ignored."""
        self._loop.cancel("textfile")
        self._remove()

    def _write(self) -> None:
        """Write the file and begin the pause; the loop calls this.

        If no metric has changed since the last write, only end the pause; the next write comes with a change,
        at the latest AGAIN seconds after the last one.
        """
        if not self._pending or not self._path:
            self._pausing = False
            if self._path:
                self._loop.after("textfile", AGAIN - PAUSE, self.changed)
            return
        self._pending = False
        try:
            self._folder.replace(self._name, [self._text().encode()], mode=0o644, sync=False)
            self._failed = False
        except OSError as error:
            self._folder.close()  # the directory may have been made anew meanwhile
            if not self._failed:
                self._complain(self._path, error)
            self._failed = True
        self._loop.after("textfile", PAUSE, self._write)  # writes again only if a metric has changed by then

    def _use(self, path: str) -> None:
        """Write to `path` from now on. Another account may own its directory: nothing is read from there."""
        directory, self._name = os.path.split(path)
        self._path, self._folder = path, Folder(directory, own=False)
        if path:
            self._folder.sweep(self._name)

    def _remove(self) -> None:
        """Delete the file and close its directory; errors are ignored."""
        if self._path:
            with contextlib.suppress(OSError):
                self._folder.delete(self._name)
        self._folder.close()
