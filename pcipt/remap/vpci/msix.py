"""Where the MSI-X structures of a function lie, and which of them each version of Xen rejects. Pure.

Source: Xen drivers/vpci/msix.c (init_msix, vpci_make_msix_hole); PCI Local Bus 3.0 §6.8.2.
"""

from collections.abc import Iterable, Iterator

from pcipt.pci import Address, Bar, BarKind, Frames, Function, Range, frames_from_range
from pcipt.pci.structures import Place
from pcipt.remap.bar_ranges import assigned_range
from pcipt.xen.releases import FAULTY_CAPABILITY_HIDDEN, MSIX_CHECKED, Version


def refuses_msix(version: Version) -> bool:
    """Return True if a version of Xen fails the set-up of vPCI for a function with a faulty MSI-X structure.

    Earlier versions do not check the structure; later versions hide the structure from dom0.
    """
    return MSIX_CHECKED.of(version) and not FAULTY_CAPABILITY_HIDDEN.of(version)


def has_no_vpci(function: Function, version: Version) -> bool:
    """Return True if this Xen has no vPCI for a function of dom0, because its MSI-X structure is faulty."""
    return refuses_msix(version) and has_faulty_msix(function)


def may_have_vpci(function: Function, version: Version) -> bool:
    """Return True if `has_no_vpci` is only the safer answer: it is not known whether this build looks."""
    return has_no_vpci(function, version) and MSIX_CHECKED.known_of(version) is None


def has_faulty_msix(function: Function) -> bool:
    """Return True if an MSI-X table or pending bit array lies in no memory BAR, or beyond the end of its BAR.

    A virtual function has no BARs of its own, so it is faulty if it has MSI-X. The result is False if the
    size of the BAR is not known.
    Source: Xen drivers/vpci/msix.c (init_msix).
    """
    if function.msix is None:
        return False
    bars = {bar.index: bar for bar in function.bars if bar.kind not in (BarKind.IO, BarKind.ROM)}
    return function.physfn is not None or any(
        place.bar not in bars or _is_beyond(place, bars[place.bar].size)
        for place in (function.msix.table, function.msix.pba)
    )


def is_unplaced(function: Function) -> bool:
    """Return True if the BAR of an MSI-X table or pending bit array has no address."""
    addresses = {bar.index: bar.address for bar in function.bars}
    structures = (function.msix.table, function.msix.pba) if function.msix is not None else ()
    return not all(addresses.get(place.bar) for place in structures)


def _is_beyond(place: Place, size: int | None) -> bool:
    """Return True if an MSI-X structure ends beyond a BAR of `size` bytes; False if the size is not known."""
    return size is not None and place.offset + place.size > size


def msix_frames(function: Function) -> Iterator[Frames]:
    """Yield the pages of the MSI-X table, then of the pending bit array, at the present BAR addresses.

    A structure is yielded whether or not its BAR decodes. A structure is left out if its BAR has no
    `assigned_range` (for example no address or no known size), or if the structure begins behind the end of
    the BAR. The two runs may have pages in common.
    """
    if function.msix is None:
        return
    for place in (function.msix.table, function.msix.pba):
        span = next(_inside(function.bars, place), None)
        if span is not None:
            yield frames_from_range(span)


def _inside(bars: Iterable[Bar], place: Place) -> Iterator[Range]:
    """Yield the bytes of an MSI-X structure in its BAR, cut at the end of the BAR.

    `place` is the structure's BAR, offset and size. Nothing is yielded if the BAR has no address or size, or
    if the structure begins behind the end of the BAR.
    """
    for bar in bars:
        span = assigned_range(bar)
        if bar.index == place.bar and span is not None and place.offset < span.size:
            size = min(place.size, span.size - place.offset)
            yield Range(Address(span.start + place.offset), size)
