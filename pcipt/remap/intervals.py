"""Index page runs by address, and compute unions, differences and intersections of page runs. Pure.

`Intervals` finds the runs that overlap given pages. Runs may overlap each other and may have any length. Each
run is kept in a size class, sorted by start: a run of class k has at most 2**k pages. So a run of class k
that overlaps a page starts fewer than 2**k pages before it, and only those runs are looked at.
"""

import bisect
from array import array
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from pcipt.pci import Frames, Gfn

K = TypeVar("K", bound=Hashable)


class Intervals(Generic[K]):
    """Runs of pages, each with a key. The owner of the object changes it in place.

    Two runs may have the same pages, or the same key, or both.
    """

    def __init__(self, entries: Iterable[tuple[Frames, K]] = ()) -> None:
        self._classes: dict[int, _Class[K]] = {}
        for frames, key in sorted(entries, key=_start_of):
            self.add(frames, key)

    def __len__(self) -> int:
        """Return the number of runs."""
        return sum(len(columns.keys) for columns in self._classes.values())

    def add(self, frames: Frames, key: K) -> None:
        """Add a run of pages with its key. If it is added twice, the index has it twice."""
        size_class = (frames.count - 1).bit_length()
        columns = self._classes.get(size_class)
        if columns is None:
            columns = self._classes[size_class] = _Class()
        at = bisect.bisect_right(columns.starts, frames.start)
        columns.starts.insert(at, frames.start)
        columns.counts.insert(at, frames.count)
        columns.keys.insert(at, key)

    def discard(self, frames: Frames, key: K) -> None:
        """Remove one run that has exactly these pages and this key. Do nothing if there is none."""
        columns = self._classes.get((frames.count - 1).bit_length())
        if columns is None:
            return
        starts, counts, keys = columns.starts, columns.counts, columns.keys
        at = bisect.bisect_left(starts, frames.start)
        while at < len(starts) and starts[at] == frames.start:
            if counts[at] == frames.count and keys[at] == key:
                del starts[at], counts[at], keys[at]
                return
            at += 1

    def over(self, frames: Frames) -> Iterator[tuple[Frames, K]]:
        """Yield each run that shares at least one page with `frames`, with its key, in no particular order.

        A run is yielded whole: it is not cut to `frames`. The index must not change during the iteration.
        """
        first, end = frames.start, frames.end
        for size_class, columns in self._classes.items():
            starts, counts = columns.starts, columns.counts
            at = bisect.bisect_right(starts, first - (1 << size_class))
            while at < len(starts) and starts[at] < end:
                if starts[at] + counts[at] > first:
                    yield Frames(Gfn(starts[at]), counts[at]), columns.keys[at]
                at += 1


class _Class(Generic[K]):
    """The runs of one size class, sorted by start, in three columns.

    Arrays instead of objects save memory: there are as many runs as BARs.
    """

    __slots__ = ("counts", "keys", "starts")

    def __init__(self) -> None:
        self.starts = array("Q")
        self.counts = array("Q")
        self.keys: list[K] = []


def joined(runs: Iterable[Frames]) -> tuple[Frames, ...]:
    """Return the union of `runs`, sorted by start. Runs that overlap or touch are merged into one run."""
    given = tuple(runs)
    if len(given) < 2:
        return given
    found: list[Frames] = []
    for run in sorted(given, key=lambda run: run.start):
        if found and run.start <= found[-1].end:
            if run.end > found[-1].end:
                found[-1] = Frames(found[-1].start, run.end - found[-1].start)
        else:
            found.append(run)
    return tuple(found)


def without(runs: Iterable[Frames], holes: Iterable[Frames]) -> tuple[Frames, ...]:
    """Return the pages of `runs` that lie in none of the `holes`.
    Shape:  runs sorted by start that neither overlap nor touch; empty if no page is left.
    """
    whole, cuts = joined(runs), joined(holes)
    if not cuts or not whole:
        return whole
    left: list[Frames] = []
    for run in whole:
        start, end = run.start, run.end
        for hole in cuts:
            after = hole.end
            if after <= start or hole.start >= end:
                continue
            if hole.start > start:
                left.append(Frames(start, hole.start - start))
            start = Gfn(after)
        if start < end:
            left.append(Frames(start, end - start))
    return tuple(left)


def common(runs: Iterable[Frames], others: Iterable[Frames]) -> tuple[Frames, ...]:
    """Return the pages that lie both in `runs` and in `others`.
    Shape:  runs sorted by start that neither overlap nor touch; empty if there is no common page.
    """
    kept, others = tuple(runs), tuple(others)
    return without(kept, without(kept, others)) if kept and others else ()


def _start_of(entry: tuple[Frames, object]) -> int:
    """Return the first page of an entry (run, key), to sort entries by it."""
    return entry[0].start
