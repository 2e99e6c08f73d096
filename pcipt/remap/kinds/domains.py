"""Segments that Xen cannot name (above ffff), and the controllers of their functions (VMD). Pure.

Linux reaches such a segment through BARs of its controller; each BAR of the functions in the segment lies
inside a BAR of the controller. Linux before 6.15 tells Xen of these functions by an address whose segment is
cut to 16 bits (`Sbdf.cut`): no function answers at this address, and Xen has a record without an owner
(orphan).
Source: linux drivers/pci/controller/vmd.c (vmd_enable_domain); drivers/xen/pci.c (xen_add_device).
"""

from collections.abc import Iterable, Iterator

import attrs

from pcipt.pci import Address, Function, Machine, Range, Sbdf, WindowKind, frames_from_range
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.bar_ranges import assigned_range
from pcipt.remap.view import XenView
from pcipt.xen.releases import ORPHAN_REMOVAL_PANICS, Version

DRIVER = "vmd"
CURE = (
    "hide the controller from dom0, switch VMD off in the firmware's setup, or use Linux 6.15 or newer, "
    "then reboot"
)
_MEMORY = (WindowKind.MEMORY, WindowKind.PREFETCHABLE)


@attrs.frozen
class Domain:
    """The functions of one segment that Xen cannot name, sorted, and their controller, None if unknown."""

    segment: int
    controller: Sbdf | None
    functions: tuple[Sbdf, ...]


def domains(machine: Machine, bars: BarIndex) -> list[Domain]:
    """Return the segments above ffff that have functions, sorted. `bars` must be those of `machine`."""
    return [
        Domain(segment, controller_of(segment, machine, bars), tuple(bars.of_segment(segment)))
        for segment in bars.beyond_xen
    ]


def controller_of(segment: int, machine: Machine, bars: BarIndex) -> Sbdf | None:
    """Return the controller of a segment above ffff, or None if it cannot be found.

    The first of these is returned: the function above the segment in Linux's tree of directories; the
    function with a BAR around a BAR or window of the segment; the only function that is bound to vmd.
    """
    functions = [machine.functions[sbdf] for sbdf in bars.of_segment(segment)]
    for function in functions:
        if function.controller in machine.functions:
            return function.controller
    for span in (span for function in functions for span in _spans(function)):
        for other in bars.over(frames_from_range(span)):
            around = other.range
            if other.sbdf.fits_xen and around.start <= span.start and span.last <= around.last:
                return other.sbdf
    bound = [function.sbdf for function in machine.functions.values() if function.driver == DRIVER]
    return bound[0] if len(bound) == 1 else None


def aliased(cut: Sbdf, bars: BarIndex) -> list[Sbdf]:
    """Return Linux's functions in segments above ffff that have the cut address `cut`, sorted."""
    if not cut.fits_xen:
        return []
    present = ((segment, cut._replace(segment=segment)) for segment in bars.beyond_xen)
    return [sbdf for segment, sbdf in present if sbdf.cut == cut and sbdf in bars.of_segment(segment)]


@attrs.frozen
class CutOrphans:
    """The functions of one segment that Xen lists without an owner, because Linux cut their segment.

    `functions` are (function, address by which Xen lists it), at least one, sorted. `controller` is None if
    unknown. `panics` is True if this Xen panics when Linux removes one of the functions.
    """

    controller: Sbdf | None
    functions: tuple[tuple[Sbdf, Sbdf], ...]
    panics: bool

    @property
    def subject(self) -> Sbdf:
        """The function that the finding is about: the controller, or the first function if it is unknown."""
        return self.controller if self.controller is not None else self.functions[0][0]

    @property
    def text(self) -> str:
        """The text of the finding: what Xen lists, what would happen, and the cure for this Xen."""
        (sbdf, cut), *others = self.functions
        more = f", and {len(others)} more like it" if others else ""
        name = self.controller if self.controller is not None else "the controller of its segment"
        text = f"Linux told Xen of {sbdf} with the segment cut to 16 bits: Xen lists {cut} without an owner"
        text += f" (orphan){more}; "
        if self.panics:
            return (
                f"{text}this Xen panics when {name} (VMD) or a function behind it leaves Linux. Do not "
                f"unbind, release or unplug them; {CURE}"
            )
        return f"{text}this is harmless with this Xen, and ends when {name} (VMD) leaves Linux; {CURE}"


def cut_orphans(all_domains: Iterable[Domain], xen: XenView, version: Version) -> list[CutOrphans]:
    """Return the orphans that Linux made by cutting the segments of functions, one for each segment.

    Such an orphan may have the address of another function of the machine.
    """
    found = []
    for domain in all_domains:
        orphans = tuple((sbdf, sbdf.cut) for sbdf in domain.functions if sbdf.cut in xen.orphans)
        if orphans:
            found.append(CutOrphans(domain.controller, orphans, ORPHAN_REMOVAL_PANICS.of(version)))
    return found


def _spans(function: Function) -> Iterator[Range]:
    """Yield the memory ranges of a function's BARs, then those of its bridge windows."""
    for bar in function.bars:
        if (span := assigned_range(bar)) is not None:
            yield span
    for window in function.bridge.windows if function.bridge is not None else ():
        if window.kind in _MEMORY:
            yield Range(Address(window.base), window.limit - window.base + 1)
