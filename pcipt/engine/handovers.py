"""When to look again at functions that may have changed hands.

The toolstack binds a function to xen-pciback first and gives it away after that, and no message tells of the
second step. So the owners are asked for a few times more, within two seconds, until they have changed. What a
guest keeps of a function that has left it is looked at longer: it may be a guest that is about to end.
"""

from collections.abc import Collection, Mapping

from pcipt.pci import Sbdf

PAUSES = (0.2, 0.5, 1.0, 4.0, 10.0, 20.0)  # seconds before each look
LOOKS = 3  # at a function whose owner stays the same


class Handovers:
    """Functions that something was told of: those with an unchanged owner, those that a guest clings to."""

    def __init__(self) -> None:
        self._before: dict[Sbdf, str] = {}
        self._clinging: frozenset[Sbdf] = frozenset()
        self._looks = 0
        self.due: float | None = None

    @property
    def waiting(self) -> set[Sbdf]:
        return {*self._before, *self._clinging}

    def begin(self, same: Mapping[Sbdf, str], clinging: Collection[Sbdf], now: float) -> None:
        """Wait for these to change hands; one that is waited for already keeps its first owner."""
        self._before = {**same, **self._before}
        self._clinging |= frozenset(clinging)
        if same or clinging:
            self._looks = 0
            self.due = now + PAUSES[0]

    def looked(self, owners: Mapping[Sbdf, str], clinging: Collection[Sbdf], now: float) -> None:
        """Take in who has them now (`owners`, of those still bound), and decide when to look again."""
        self._looks += 1
        wanted = self._looks < LOOKS
        self._before = {s: was for s, was in self._before.items() if wanted and owners.get(s) == was}
        self._clinging &= frozenset(clinging)
        if self._looks == len(PAUSES):
            self._clinging = frozenset()
        self.due = now + PAUSES[self._looks] if self.waiting else None
