"""Somebody else in dom0 who calls Xen between two calls of pcipt: xl, the kernel, a second program.

Since XSA-492 (4.17 to 4.22, releases of 2026) memory_mapping, the permission calls and the questions about
device groups run without the domctl lock, and no lock holds over two calls of one caller. What somebody else
does comes after one call of pcipt and before the next.
"""

from collections.abc import Callable


class SecondCaller:
    """What another caller will do, and after how many calls of pcipt. `done` counts what it has done."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self._calls = 0
        self.done = 0

    def order(self, after: int, what: Callable[[], object]) -> None:
        """Have `what` done after the next `after` calls of pcipt (1: after the next one)."""
        self._waiting.append((self._calls + after, what))

    def called(self) -> None:
        """Do what is due after one more call of pcipt."""
        self._calls += 1
        due = [what for at, what in self._waiting if at <= self._calls]
        self._waiting = [each for each in self._waiting if each[0] > self._calls]
        self.done += len(due)
        for what in due:
            what()

    def rest(self) -> None:
        """Forget what was not done yet."""
        self._waiting.clear()
