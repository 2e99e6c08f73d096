"""The few things that are done to tracefs, each one system call or two; a test puts a recorded tree in its
place.

Source: linux Documentation/trace/ftrace.rst (instances), kprobetrace.rst (kprobe_events).
"""

import os
from collections.abc import Iterator

DEFAULT = "/sys/kernel/tracing"
_LIMIT = 1 << 20


class Tracefs:
    """A mounted tracefs; names are relative to it. Every method raises the OSError that the kernel gives."""

    def __init__(self, path: str = DEFAULT) -> None:
        self.path = path

    def exists(self, name: str) -> bool:
        return os.path.exists(self._full(name))

    def read(self, name: str) -> str:
        opened = os.open(self._full(name), os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")

    def write(self, name: str, text: str, *, append: bool = False) -> None:
        """Write one value. Truncating kprobe_events removes everybody's probes: append there."""
        mode = os.O_APPEND if append else 0
        opened = os.open(self._full(name), os.O_WRONLY | os.O_CLOEXEC | mode)
        try:
            os.write(opened, text.encode())
        finally:
            os.close(opened)

    def make_instance(self, name: str) -> None:
        os.mkdir(self._full(f"instances/{name}"))

    def remove_instance(self, name: str) -> None:
        """Remove an instance with all its files, which tracefs does in one go."""
        os.rmdir(self._full(f"instances/{name}"))

    def open_pipe(self, name: str) -> int:
        return os.open(self._full(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def names(self, directory: str) -> Iterator[str]:
        yield from sorted(os.listdir(self._full(directory)))

    def _full(self, name: str) -> str:
        return os.path.join(self.path, name)
