"""Do the few operations on tracefs that the kprobe source needs.

A test can use another directory in place of tracefs.
Source: linux Documentation/trace/ftrace.rst (instances), kprobetrace.rst (kprobe_events).
"""

import os
from collections.abc import Iterator

DEFAULT = "/sys/kernel/tracing"
_LIMIT = 1 << 20


class Tracefs:
    """A mounted tracefs at the directory `path`.

    Names are paths below it. Every method except `exists` raises the kernel's OSError, for example
    FileNotFoundError.
    """

    def __init__(self, path: str = DEFAULT) -> None:
        self.path = path

    def exists(self, name: str) -> bool:
        """Return True if the file or directory exists. Return False also if a directory above it cannot be
        entered.
        """
        return os.path.exists(self._full(name))

    def read(self, name: str) -> str:
        """Return the text of a file, at most 1 MiB. Bytes that are not UTF-8 are replaced by U+FFFD."""
        opened = os.open(self._full(name), os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")

    def write(self, name: str, text: str, *, append: bool = False) -> None:
        """Write `text` with one system call to a file that exists. `append` opens the file for appending.

        The file is never truncated, because truncating kprobe_events would remove the probes of all programs.
        """
        mode = os.O_APPEND if append else 0
        opened = os.open(self._full(name), os.O_WRONLY | os.O_CLOEXEC | mode)
        try:
            os.write(opened, text.encode())
        finally:
            os.close(opened)

    def make_instance(self, name: str) -> None:
        """Create the trace instance `name`."""
        os.mkdir(self._full(f"instances/{name}"))

    def remove_instance(self, name: str) -> None:
        """Remove the trace instance `name` with all its files. tracefs does this in one rmdir."""
        os.rmdir(self._full(f"instances/{name}"))

    def open_pipe(self, name: str) -> int:
        """Open a file for reading without blocking and return its descriptor. The caller must close it."""
        return os.open(self._full(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def names(self, directory: str) -> Iterator[str]:
        """Yield the names in a directory, sorted. An OSError is raised during iteration, not by the call."""
        yield from sorted(os.listdir(self._full(directory)))

    def _full(self, name: str) -> str:
        """Return the path of `name` in the file system (`path`, a slash and `name`)."""
        return os.path.join(self.path, name)
