"""Index the memory BARs of all present functions by page, whether they decode or not. Pure.

Before pages are mapped or unmapped, the guards ask this index which other BARs, and which MSI-X structures,
lie on these pages. Its owner updates the index in place each time a function is read again, so the time of an
answer does not grow with the number of functions.
"""

from collections.abc import Iterable

import attrs

from pcipt.pci import Frames, Function, Range, Sbdf, frames_from_range
from pcipt.remap.desired import assigned_range, msix_frames, place_of
from pcipt.remap.intervals import Intervals


@attrs.frozen
class PresentBar:
    """A memory BAR or ROM that has an address and a size. `place` is that of its function (`place_of`).

    `range` is in bytes, as the register names it. `decoding` is False also if nobody knows whether it
    decodes.
    """

    place: str
    sbdf: Sbdf
    bar: int
    range: Range
    decoding: bool


class BarIndex:
    """The present functions, found by the pages of their BARs, by MSI-X pages, and by physical function.

    The page indexes hold addresses of functions only. The BARs of an answer come from the functions
    themselves.
    """

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._bars: Intervals[Sbdf] = Intervals()
        self._tables: Intervals[Sbdf] = Intervals()
        self._of: dict[Sbdf, Function] = {}
        self._virtual: dict[Sbdf, set[Sbdf]] = {}
        for function in functions:
            self.put(function)

    def put(self, function: Function) -> None:
        """Add a function that was just read, or replace the index's version of it."""
        sbdf, before = function.sbdf, self._of.get(function.sbdf)
        if before is not None and _indexed(before) == _indexed(function):
            self._of[sbdf] = function
            return
        self.drop(sbdf)
        self._of[sbdf] = function
        bars, tables, physfn = _indexed(function)
        for frames in bars:
            self._bars.add(frames, sbdf)
        for frames in tables:
            self._tables.add(frames, sbdf)
        if physfn is not None:
            self._virtual.setdefault(physfn, set()).add(sbdf)

    def drop(self, sbdf: Sbdf) -> None:
        """Remove the function at this address. Do nothing if the index has none there."""
        before = self._of.pop(sbdf, None)
        if before is None:
            return
        bars, tables, physfn = _indexed(before)
        for frames in bars:
            self._bars.discard(frames, sbdf)
        for frames in tables:
            self._tables.discard(frames, sbdf)
        if physfn is not None:
            self._virtual[physfn].discard(sbdf)

    def over(self, frames: Frames) -> list[PresentBar]:
        """Return the memory BARs and ROMs whose pages overlap `frames`, sorted by range, function and BAR
        number.
        """
        found = [
            bar
            for sbdf in {sbdf for _, sbdf in self._bars.over(frames)}
            for bar in _present_bars(self._of[sbdf])
            if frames_from_range(bar.range).overlaps(frames)
        ]
        return sorted(found, key=lambda bar: (bar.range, bar.sbdf, bar.bar))

    def tables_over(self, frames: Frames) -> list[Sbdf]:
        """Return the functions whose MSI-X table or pending bit array overlaps these pages, sorted by
        address.
        """
        return sorted({sbdf for _, sbdf in self._tables.over(frames)})

    def pages_of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the pages of a function's memory BARs, decoding or not; empty if Linux does not have it."""
        function = self._of.get(sbdf)
        return _indexed(function)[0] if function is not None else ()

    def virtual(self, physfn: Sbdf) -> list[Sbdf]:
        """Return the present virtual functions of the physical function at `physfn`, sorted by address."""
        return sorted(self._virtual.get(physfn, ()))


def _indexed(function: Function) -> tuple[tuple[Frames, ...], tuple[Frames, ...], Sbdf | None]:
    """Return the keys of a function in the index: pages of its BARs, MSI-X pages, its physical function or
    None.
    """
    spans = (assigned_range(bar) for bar in function.bars)
    bars = tuple(frames_from_range(span) for span in spans if span is not None)
    return bars, tuple(msix_frames(function)), function.physfn


def _present_bars(function: Function) -> Iterable[PresentBar]:
    """Yield the memory BARs and the ROM of a function that have an address and a size."""
    place = place_of(function)
    for bar in function.bars:
        span = assigned_range(bar)
        if span is not None:
            yield PresentBar(place, function.sbdf, bar.index, span, bool(bar.decoding))
