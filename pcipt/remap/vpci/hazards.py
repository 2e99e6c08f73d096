"""Dangerous positions of BARs: where vPCI refuses to decode, unmaps too much, or makes Xen panic. Pure.

Each function of this module is about a PCI function that vPCI of a PVH dom0 handles.
Source: Xen drivers/vpci/header.c (modify_bars, modify_decoding, map_range), msix.c (vpci_make_msix_hole),
        common/rangeset.c (rangeset_add_range).
"""

from collections.abc import Iterator, Mapping

import attrs

from pcipt.pci import Address, Bar, BarKind, Finding, Frames, Function, Range, frames_from_range
from pcipt.pci.bars import ROM_INDEX, name_of_bar
from pcipt.remap.bar_ranges import assigned_range, decoding_range
from pcipt.remap.guard.protected import Protected
from pcipt.xen.releases import (
    FAULTY_CAPABILITY_HIDDEN,
    MSIX_CHECKED,
    MSIX_HOLE_NEEDS_MAPPED_BAR,
    VPCI_CHECKS_PERMISSION,
    VPCI_GOES_BAR_BY_BAR,
    VPCI_SURVIVES_FAILURE,
    WITHOUT_VPCI_PANICS,
    Version,
)

MAPPABLE_BITS = 48  # the tables of dom0's map have four levels
LOW_RAM = 0xA_0000  # bytes from 0 on that are RAM of dom0; Linux lists page 0 as reserved
_RESCAN = "remove the function in sysfs and rescan its bus"


@attrs.frozen
class Refusal:
    """Why vPCI refuses to switch memory decode on, in words.

    `msix` is True if the cause is where the function's MSI-X structures lie. `no_address_helps` is True if
    that is in none of its BARs.
    """

    why: str
    msix: bool = False
    no_address_helps: bool = False

    def is_lasting(self, version: Version) -> bool:
        """Return True if vPCI of this version drops all BAR writes after the refusal.

        Such a vPCI takes the BARs for mapped, although memory decode is off. This ends when Xen forgets the
        function.
        """
        return self.msix and MSIX_HOLE_NEEDS_MAPPED_BAR.of(version)


def wraps(bar: Bar) -> bool:
    """Return True if a 64-bit BAR reaches the end of the address space.

    A BAR that holds all ones is such a BAR. vPCI keeps the written value with its low bits, which the
    hardware does not keep; for vPCI, address plus size is then greater than 2**64.
    """
    return bar.kind is BarKind.MEM64 and bool(bar.size) and bar.address + (bar.size or 0) >= 1 << 64


def rom_over_bars(function: Function) -> list[int]:
    """Return the decoding memory BARs, in their order, that share pages with the function's enabled ROM."""
    pages = {bar.index: _pages(bar) for bar in function.bars}
    rom = pages.pop(ROM_INDEX, None)
    if rom is None:
        return []
    return [index for index, span in pages.items() if span is not None and span.overlaps(rom)]


def why_refused(function: Function, protected: Protected, version: Version) -> Refusal | None:
    """Return why vPCI would refuse to switch memory decode on with the BARs at their present addresses.

    None is returned if vPCI would not refuse. vPCI maps the BARs before it looks at the MSI-X structures.
    """
    bars = {bar.index: bar for bar in function.bars if bar.kind is not BarKind.IO and bar.size}
    for bar in bars.values():
        span = bar.range
        if span is None or not bar.address or bar.index == ROM_INDEX:
            continue
        if span.last >> MAPPABLE_BITS:
            return Refusal(f"{name_of_bar(bar.index)} lies above {MAPPABLE_BITS} bits")
        denied = protected.why_denied(frames_from_range(span))
        if denied is not None and VPCI_CHECKS_PERMISSION.of(version):
            return Refusal(f"{name_of_bar(bar.index)} lies over {denied}, which dom0 may not access")
    return _msix_refusal(function, bars, protected, version)


def _msix_refusal(
    function: Function, bars: Mapping[int, Bar], protected: Protected, version: Version
) -> Refusal | None:
    """Return why vPCI would not take the pages of MSI-X structures out of the map, None if it would.

    `bars` are the memory BARs by number. vPCI looks at address 0 for a BAR that is none; a version that
    checks the structures (`MSIX_CHECKED`) has no vPCI for such a function, or hides its MSI-X. Whether a
    vendor's build does so may not be known.
    """
    if function.msix is None or function.physfn is not None:
        return None
    unsized = {bar.index for bar in function.bars if bar.kind is not BarKind.IO and not bar.size}
    for place in (function.msix.table, function.msix.pba):
        bar = bars.get(place.bar)
        if bar is not None and not bar.address:
            return Refusal(f"{name_of_bar(bar.index)}, which has its MSI-X table, has no address", msix=True)
        if bar is None and (place.bar in unsized or MSIX_CHECKED.known_of(version)):
            continue
        start = bar.address if bar is not None else Address(0)
        over = protected.why_ram(frames_from_range(Range(Address(start + place.offset), place.size)))
        if bar is not None and over is not None:
            return Refusal(f"its MSI-X table lies over {over}", msix=True)
        if bar is None and (over is not None or place.offset < LOW_RAM):
            return Refusal("its MSI-X table lies in no BAR", msix=True, no_address_helps=True)
    return None


def hazards(function: Function, version: Version) -> Iterator[Finding]:
    """Yield a finding for each position of a BAR at which a later write of Linux would do harm."""
    for bar in function.bars:
        if wraps(bar):
            yield Finding(
                "bar-at-the-end",
                f"the address in {name_of_bar(bar.index)} is the end of the address space. Probably a "
                "program measured the size of the BAR and did not write the address back. If memory decode "
                f"is switched on now, Xen panics; before that, {_RESCAN}, or write another address to the "
                "BAR",
            )
    if VPCI_GOES_BAR_BY_BAR.of(version):
        for index in rom_over_bars(function):
            yield Finding(
                "rom-over-bar",
                f"the ROM of the function shares pages with {name_of_bar(index)}. When the ROM is switched "
                f"off, this Xen also unmaps these pages of the BAR; {_RESCAN}, or give the ROM another "
                "address",
            )


def finding_of_refusal(refusal: Refusal, version: Version) -> Finding:
    """Return the finding that Xen has refused to switch memory decode on, with the cure for this version."""
    text = f"Xen refused to switch memory decode on, because {refusal.why}: nothing answers at its BARs; "
    if refusal.no_address_helps:
        text += (
            f"another address of the BAR does not help; Xen {FAULTY_CAPABILITY_HIDDEN.begins} hides its "
            "MSI-X from dom0"
        )
    elif refusal.is_lasting(version):
        text += f"this Xen ignores all writes to the BARs until it forgets the function: {_RESCAN}"
    elif refusal.msix or VPCI_SURVIVES_FAILURE.of(version):
        text += f"give the BAR another address, then switch memory decode on: unbind the driver, {_RESCAN}"
    else:
        text += f"this Xen does not handle the function any more: unbind the driver, {_RESCAN}"
    return Finding("decode-refused", text)


def finding_of_given_up(function: Function, version: Version) -> Finding:
    """Return the finding that vPCI does not handle a function of dom0 any more, with the cure."""
    unbind = f"unbind {function.driver}, " if function.driver is not None else ""
    why = "vPCI could not map a page"
    if VPCI_SURVIVES_FAILURE.of(version):
        why = "vPCI could not set the function up when dom0 took it back"
    text = (
        f"vPCI does not handle it any more, because {why}: pcipt maps its BARs, but its MSI and MSI-X fail; "
        f"{unbind}remove the function in sysfs and rescan its bus"
    )
    if WITHOUT_VPCI_PANICS.of(version):
        text += (
            ". Do this before memory decode of any other function is switched: this Xen would panic (fixed "
            f"in Xen {WITHOUT_VPCI_PANICS.ends})"
        )
    return Finding("given-up", text)


def pages_of_bars(function: Function) -> Iterator[tuple[int, Frames]]:
    """Yield (BAR number, pages) of each memory BAR that has an address, whether or not it decodes; no ROM."""
    for bar in function.bars:
        span = assigned_range(bar)
        if span is not None and bar.index != ROM_INDEX:
            yield bar.index, frames_from_range(span)


def _pages(bar: Bar) -> Frames | None:
    """Return the pages that a BAR or ROM decodes now; None if it decodes none."""
    span = decoding_range(bar)
    return frames_from_range(span) if span is not None else None
