"""Index the memory BARs of all present functions by page, whether they decode or not. Pure.

Before pages are mapped or unmapped, the guards ask this index which other BARs, and which MSI-X structures,
lie on these pages. Its owner updates the index in place each time a function is read again, so the time of an
answer does not grow with the number of functions.
"""

from collections.abc import Iterable

import attrs

from pcipt.pci import Frames, Function, Range, Sbdf, frames_from_range
from pcipt.remap.bar_ranges import assigned_range
from pcipt.remap.desired import place_of
from pcipt.remap.intervals import Intervals
from pcipt.remap.vpci.msix import msix_frames

Keys = tuple[tuple[Frames, ...], tuple[Frames, ...], Sbdf | None]  # of BARs, of MSI-X, physical function


@attrs.frozen
class PresentBar:
    """A memory BAR or ROM that has an address and a size. `place` is the place of its function (`place_of`).

    `range` is the bytes that the BAR's register names. `decoding` is False if the BAR does not decode, and if
    it is unknown whether it decodes.
    """

    place: str
    sbdf: Sbdf
    bar: int
    range: Range
    decoding: bool


class BarIndex:
    """The functions of a machine, found by their BARs' pages, their MSI-X pages, or their physical function;
    functions that Xen cannot name also by their segment.

    I/O BARs, and BARs without an address or a size, are not indexed (`assigned_range`). The page indexes hold
    addresses of functions only; the BARs of an answer are taken from the functions.
    """

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._bars: Intervals[Sbdf] = Intervals()
        self._tables: Intervals[Sbdf] = Intervals()
        self._of: dict[Sbdf, Function] = {}
        self._virtual: dict[Sbdf, set[Sbdf]] = {}
        self._beyond: dict[int, set[Sbdf]] = {}
        for function in functions:
            self.put(function)

    def put(self, function: Function) -> Function | None:
        """Add a function that was just read, or replace the function that the index has at this address.

        Return the replaced function, None if there was none.
        """
        sbdf, before = function.sbdf, self._of.get(function.sbdf)
        now = _indexed(function)
        if before is not None:
            held = _indexed(before)
            if held == now:
                self._of[sbdf] = function
                return before
            self._forget(sbdf, held)
        self._of[sbdf] = function
        bars, tables, physfn = now
        for frames in bars:
            self._bars.add(frames, sbdf)
        for frames in tables:
            self._tables.add(frames, sbdf)
        if physfn is not None:
            self._virtual.setdefault(physfn, set()).add(sbdf)
        if not sbdf.fits_xen:
            self._beyond.setdefault(sbdf.segment, set()).add(sbdf)
        return before

    def drop(self, sbdf: Sbdf) -> Function | None:
        """Remove the function at this address and return it. Do nothing if the index has none there."""
        before = self._of.pop(sbdf, None)
        if before is not None:
            self._forget(sbdf, _indexed(before))
        return before

    def _forget(self, sbdf: Sbdf, keys: Keys) -> None:
        """Remove a function from the index. `keys` are the keys that it has there."""
        bars, tables, physfn = keys
        for frames in bars:
            self._bars.discard(frames, sbdf)
        for frames in tables:
            self._tables.discard(frames, sbdf)
        if physfn is not None:
            self._virtual[physfn].discard(sbdf)
        if not sbdf.fits_xen:
            self._beyond[sbdf.segment].discard(sbdf)
            if not self._beyond[sbdf.segment]:
                del self._beyond[sbdf.segment]

    def over(self, frames: Frames) -> list[PresentBar]:
        """Return the memory BARs and ROMs whose pages overlap `frames`, whether or not they decode.
        Shape:  sorted by start and size of the BAR's range, then by address of the function, then by BAR
                number.
        """
        found = [bar for sbdf in self.functions_over(frames) for bar in _present_bars(self._of[sbdf], frames)]
        if len(found) > 1:
            found.sort(key=lambda bar: (bar.range, bar.sbdf, bar.bar))
        return found

    def functions_over(self, frames: Frames) -> set[Sbdf]:
        """Return the functions that have a memory BAR or a ROM whose pages overlap `frames`."""
        return {sbdf for _, sbdf in self._bars.over(frames)}

    def tables_over(self, frames: Frames) -> list[Sbdf]:
        """Return the addresses, sorted, of functions whose MSI-X pages (`msix_frames`) overlap `frames`."""
        return sorted({sbdf for _, sbdf in self._tables.over(frames)})

    def pages_of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the pages of the memory BARs and the ROM of a function, in BAR order.

        It does not matter whether they decode. The result is empty if the index has no function at `sbdf`.
        """
        function = self._of.get(sbdf)
        return _indexed(function)[0] if function is not None else ()

    def virtual(self, physfn: Sbdf) -> list[Sbdf]:
        """Return the addresses, sorted, of the virtual functions of the physical function at `physfn`."""
        return sorted(self._virtual.get(physfn, ()))

    @property
    def beyond_xen(self) -> list[int]:
        """The segments that have functions and that Xen cannot name (above ffff), sorted."""
        return sorted(self._beyond)

    def of_segment(self, segment: int) -> list[Sbdf]:
        """Return the functions, sorted, of a segment that Xen cannot name; empty for any other segment."""
        return sorted(self._beyond.get(segment, ()))


def _indexed(function: Function) -> Keys:
    """Return the index keys of a function: pages of its BARs, MSI-X pages, physical function or None."""
    spans = (assigned_range(bar) for bar in function.bars)
    bars = tuple(frames_from_range(span) for span in spans if span is not None)
    return bars, tuple(msix_frames(function)), function.physfn


def _present_bars(function: Function, frames: Frames) -> Iterable[PresentBar]:
    """Yield the memory BARs and the ROM of a function whose pages overlap `frames`, in BAR order."""
    place = place_of(function)
    for bar in function.bars:
        span = assigned_range(bar)
        if span is not None and frames_from_range(span).overlaps(frames):
            yield PresentBar(place, function.sbdf, bar.index, span, bool(bar.decoding))
