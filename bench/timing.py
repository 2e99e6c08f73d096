"""How the benches measure: pairs of pcipt and its peer in the same run, time of the processor, one verdict.

The time is that of the processor in user and system mode: a busy machine changes it less than the clock. In
each round the peer runs directly before or after pcipt (in turn), and the ratio is taken of the two. Printed
is the median of the ratios, and the lowest and highest.
"""

import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

OKAY = (0, 3, 4)  # 3: no daemon runs; 4: degraded. `status` and `check` return these after the same work


class Row(NamedTuple):
    """One row of the table.

    `found` are the values of the rounds, of which the median must keep `bound`: be at most, with `least` at
    least `bound`. `unit` is empty for a ratio. `bound` None is not judged. `skipped` says why there are no
    values.
    """

    work: str
    peer: str
    found: tuple[float, ...] = ()
    bound: float | None = None
    unit: str = ""
    least: bool = False
    skipped: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.found)

    @property
    def held(self) -> bool:
        """Return True if the bound is held, or if there is nothing to judge."""
        if self.skipped or self.bound is None:
            return True
        return self.value >= self.bound if self.least else self.value <= self.bound

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"skipped: {self.skipped}"
        return "-" if self.bound is None else "held" if self.held else "MISSED"

    def cells(self) -> tuple[str, ...]:
        """Return the cells: work, peer, median, spread, bound, verdict."""
        if self.skipped:
            return self.work, self.peer, "-", "-", self._bound(), self.verdict
        low, high = number(min(self.found)), number(max(self.found))
        return (
            self.work,
            self.peer,
            number(self.value) + self.unit,
            f"{low}-{high}",
            self._bound(),
            self.verdict,
        )

    def _bound(self) -> str:
        if self.bound is None:
            return "-"
        return f"{'at least' if self.least else 'at most'} {self.bound:g}{self.unit}"


def number(value: float) -> str:
    """Return a number with three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def processor(command: Sequence[str]) -> float:
    """Run a command without output; return the seconds of the processor that it and its children took.

    Raises: SystemExit if it fails, or returns something other than OKAY.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in OKAY:
        raise SystemExit(f"bench: {' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def ratios(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> tuple[float, ...]:
    """Measure pairs after one that warms up; return ours : peer of each round."""
    peer(), ours()
    found = []
    for turn in range(rounds):
        if turn % 2:
            theirs, mine = peer(), ours()
        else:
            mine, theirs = ours(), peer()
        found.append(mine / theirs)
    return tuple(found)


def compared(ours: Sequence[str], peer: Sequence[str], rounds: int) -> tuple[float, ...]:
    """Return the ratios of two commands."""
    return ratios(lambda: processor(ours), lambda: processor(peer), rounds)
