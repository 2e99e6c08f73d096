"""What must be mapped, computed from hardware and Xen's list alone: the definition, not the way to it.

Each page of the memory BARs of dom0's functions that decode is mapped, but for the pages in which Xen traps
an MSI-X table or pending bits; nothing else is. Nothing of pcipt's own planning is used here.
"""

import attrs

from pcipt.pci import Frames, Gfn
from pcipt.xen.interface import OwnerKind

PAGE = 4096


@attrs.frozen
class Truth:
    """Page numbers: `must` be mapped, `may` be; all others must not."""

    must: frozenset[int]
    may: frozenset[int]

    def mistakes(self, mapped):
        """Tell what is wrong with a set of mapped pages: missing, too many."""
        return sorted(self.must - mapped), sorted(mapped - self.must - self.may)


def p2m_truth(hardware, xen, forbidden=frozenset(), linux=None):
    """Compute it; `forbidden` are pages that are never dom0's MMIO, whatever a BAR says.

    `linux` are the addresses that Linux uses. A function that renumbering took elsewhere without Xen being
    told keeps its holes: it may be trapped again at any moment.
    """
    must, may, holes = set(), set(), set()
    for function in hardware.functions():
        if not hardware.decodes_memory(function):
            continue
        bars = dict(hardware.memory_bars(function))
        pages = {page for bar in bars.values() for page in pages_of(bar.start, bar.size)}
        if is_elsewhere(xen, function):
            may |= pages
            continue
        must |= pages
        if xen.vpci is not None and xen.vpci.traps(function):
            tables = msix_pages(hardware.msix(function), bars)
            hidden = xen.vpci.handlers(function).hidden is not None
            holes |= {page for page in tables if not hidden or is_trapped(xen, function, page)}
        elif linux is not None and function not in linux:
            may |= msix_pages(hardware.msix(function), bars)
    # Where no bus number leads, BARs decode all the same; whether Xen traps there nobody can tell.
    reachable = {hardware.slot(function) for function in hardware.functions()}
    for slot in set(hardware.slots()) - reachable:
        owner = slot.physfn.registers if slot.physfn is not None else slot.registers
        bars = owner.vf_bars(slot.number) if slot.physfn is not None else owner.bars()
        may |= {page for _, bar in bars for page in pages_of(bar.start, bar.size)}
    return Truth(frozenset(must - holes - may - forbidden), frozenset(may - holes - forbidden))


def region_truth(xen, linux, hardware):
    """Compute it for reserved regions: one stays with each device of its own that dom0 has and Xen knows.

    Xen knows it at the address of the boot, or where renumbered buses have taken it. A device that Linux has
    and Xen does not know may have its region or not: its DMA is stopped anyway.
    """
    must, may = set(), set()
    now = {hardware.place(function): function for function in hardware.functions()}
    for region in xen.reserved.regions:
        here = [device for device in region.scope if device in linux and not is_elsewhere(xen, device)]
        known = any(is_dom0s(xen, device) for device in here)
        homes = xen.reserved.homes(region.frames) if here else set()
        known |= any(is_dom0s(xen, now[home]) for home in homes if home in now)
        (must if known else may if here else set()).update(pages_of_region(region))
    return Truth(frozenset(must), frozenset(may))


def is_dom0s(xen, function):
    """Tell whether Xen lists a function as dom0's."""
    return function in xen.devices and xen.devices[function].owner.domain == 0


def pages_of_region(region):
    return range(region.frames.start, region.frames.end)


def mapped_pages(xen):
    return {page for span in xen.p2m.direct() for page in range(span.start, span.end)}


def msix_pages(msix, bars):
    places = () if msix is None else (msix.table, msix.pba)
    return {
        page
        for place in places
        if place.bar in bars
        for page in pages_of(bars[place.bar].start + place.offset, place.size)
    }


def is_trapped(xen, function, page):
    """Tell whether Xen traps a table of MSI-X in a page, of a structure that it hides from dom0."""
    return function in xen.vpci.holes(Frames(Gfn(page), 1))


def pages_of(start, size):
    return range(start // PAGE, (start + size - 1) // PAGE + 1)


def is_elsewhere(xen, function):
    """Tell whether somebody other than dom0 has it; what Xen does not know, and orphans, are dom0's."""
    device = xen.devices.get(function)
    mine = device is None or device.owner.kind is OwnerKind.NOBODY
    return not mine and (device.owner.kind is not OwnerKind.DOMAIN or device.owner.domain != 0)
