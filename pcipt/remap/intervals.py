"""An index of page runs that answers which of them overlap some pages.

Runs may overlap each other and be of any length. They are kept by size class, each class in order of start:
a run of class k is at most 2**k pages long, so those that reach into a place begin near it.
"""

import bisect
from array import array
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from pcipt.pci import Frames, Gfn

K = TypeVar("K", bound=Hashable)


class Intervals(Generic[K]):
    """Runs of pages, each with a key; changed in place by its owner."""

    def __init__(self, entries: Iterable[tuple[Frames, K]] = ()) -> None:
        self._classes: dict[int, _Class[K]] = {}
        for frames, key in sorted(entries, key=_start_of):
            self.add(frames, key)

    def add(self, frames: Frames, key: K) -> None:
        size_class = (frames.count - 1).bit_length()
        held = self._classes.get(size_class)
        if held is None:
            held = self._classes[size_class] = _Class()
        at = bisect.bisect_right(held.starts, frames.start)
        held.starts.insert(at, frames.start)
        held.counts.insert(at, frames.count)
        held.keys.insert(at, key)

    def discard(self, frames: Frames, key: K) -> None:
        held = self._classes.get((frames.count - 1).bit_length())
        if held is None:
            return
        starts, counts, keys = held.starts, held.counts, held.keys
        at = bisect.bisect_left(starts, frames.start)
        while at < len(starts) and starts[at] == frames.start:
            if counts[at] == frames.count and keys[at] == key:
                del starts[at], counts[at], keys[at]
                return
            at += 1

    def over(self, frames: Frames) -> Iterator[tuple[Frames, K]]:
        """Yield the runs that share pages with `frames`."""
        for size_class, held in self._classes.items():
            starts, counts = held.starts, held.counts
            at = bisect.bisect_right(starts, frames.start - (1 << size_class))
            while at < len(starts) and starts[at] < frames.end:
                if starts[at] + counts[at] > frames.start:
                    yield Frames(Gfn(starts[at]), counts[at]), held.keys[at]
                at += 1


class _Class(Generic[K]):
    """The runs of one size class as columns, for there are as many as there are BARs."""

    __slots__ = ("counts", "keys", "starts")

    def __init__(self) -> None:
        self.starts = array("Q")
        self.counts = array("Q")
        self.keys: list[K] = []


def joined(runs: Iterable[Frames]) -> tuple[Frames, ...]:
    """Make runs ordered, apart from each other, and joined where they touch."""
    found: list[Frames] = []
    given = tuple(runs)
    if len(given) < 2:
        return given
    for run in sorted(given, key=lambda run: run.start):
        if found and run.start <= found[-1].end:
            if run.end > found[-1].end:
                found[-1] = Frames(found[-1].start, run.end - found[-1].start)
        else:
            found.append(run)
    return tuple(found)


def without(runs: Iterable[Frames], holes: Iterable[Frames]) -> tuple[Frames, ...]:
    """Cut `holes` out of runs; what is left is ordered and apart from each other."""
    left: list[Frames] = []
    cuts = joined(holes)
    if not cuts:
        return joined(runs)
    for run in joined(runs):
        start = run.start
        for hole in cuts:
            if hole.end <= start or hole.start >= run.end:
                continue
            if hole.start > start:
                left.append(Frames(start, hole.start - start))
            start = Gfn(hole.end)
        if start < run.end:
            left.append(Frames(start, run.end - start))
    return tuple(left)


def common(runs: Iterable[Frames], others: Iterable[Frames]) -> tuple[Frames, ...]:
    """Give the pages that are in both."""
    kept = tuple(runs)
    return without(kept, without(kept, others))


def _start_of(entry: tuple[Frames, object]) -> int:
    return entry[0].start
