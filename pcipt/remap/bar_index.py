"""Where the BARs of all present functions are, decoding or not, kept up function by function. Pure.

What the guards ask before pages are mapped or taken away: whose BAR else is there. Changed in place by its
owner with every function that is read again, so that an answer costs the same on a machine of any size.
"""

from collections.abc import Iterable

import attrs

from pcipt.pci import Frames, Function, Range, Sbdf, frames_from_range
from pcipt.remap.desired import assigned_range, msix_frames, place_of
from pcipt.remap.intervals import Intervals


@attrs.frozen
class PresentBar:
    """A memory BAR whose address is set; `range` in bytes, as its register names it."""

    place: str
    sbdf: Sbdf
    bar: int
    range: Range
    decoding: bool


class BarIndex:
    """What it knows of a function is the function itself; the indexes only say which ones to look at."""

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._bars: Intervals[Sbdf] = Intervals()
        self._tables: Intervals[Sbdf] = Intervals()
        self._of: dict[Sbdf, Function] = {}
        self._virtual: dict[Sbdf, set[Sbdf]] = {}
        for function in functions:
            self.put(function)

    def put(self, function: Function) -> None:
        """Take in a function as it was read just now."""
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
        """Forget a function that Linux has dropped; one that is not there is no error."""
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
        """List the BARs whose pages overlap these, in order of address and function."""
        found = [
            bar
            for sbdf in {sbdf for _, sbdf in self._bars.over(frames)}
            for bar in _present_bars(self._of[sbdf])
            if frames_from_range(bar.range).overlaps(frames)
        ]
        return sorted(found, key=lambda bar: (bar.range, bar.sbdf, bar.bar))

    def tables_over(self, frames: Frames) -> list[Sbdf]:
        """List the functions whose MSI-X table or pending bits lie on these pages."""
        return sorted({sbdf for _, sbdf in self._tables.over(frames)})

    def pages_of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the pages of a function's memory BARs, decoding or not; empty if Linux does not have it."""
        function = self._of.get(sbdf)
        return _indexed(function)[0] if function is not None else ()

    def virtual(self, physfn: Sbdf) -> list[Sbdf]:
        """List the virtual functions of a physical one."""
        return sorted(self._virtual.get(physfn, ()))


def _indexed(function: Function) -> tuple[tuple[Frames, ...], tuple[Frames, ...], Sbdf | None]:
    """Give what a function is found by: the pages of its BARs and tables, its physical function."""
    spans = (assigned_range(bar) for bar in function.bars)
    bars = tuple(frames_from_range(span) for span in spans if span is not None)
    return bars, tuple(msix_frames(function)), function.physfn


def _present_bars(function: Function) -> Iterable[PresentBar]:
    place = place_of(function)
    for bar in function.bars:
        span = assigned_range(bar)
        if span is not None:
            yield PresentBar(place, function.sbdf, bar.index, span, bool(bar.decoding))
