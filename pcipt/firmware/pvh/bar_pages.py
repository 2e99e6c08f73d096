"""Compute the pages that the BARs of all functions occupy in a PVH dom0's address space.

Xen maps whole pages 1:1 for each BAR that decodes memory. It does not map the pages of an MSI-X table or of
its pending bits: it traps accesses to them. A BAR whose pages overlap an entry of the memory map is not
mapped by vPCI; newer versions map what lies outside of the entry (`releases.E820_CUTS_BARS`).
Source: xen/drivers/vpci/header.c (modify_bars), vpci/msix.c.
"""

from collections.abc import Iterator, Sequence

from pcipt.firmware.memory_map import MemoryEntry, overlapping
from pcipt.firmware.pvh.areas import Layer, Treatment
from pcipt.pci import Address, Bar, BarKind, Finding, Function, Machine, Range
from pcipt.pci.structures import Place
from pcipt.pci.units import PAGE_SIZE

BAR_RANK, TABLE_RANK = 30, 35
_SHOWN = 4


def whole_pages(span: Range) -> Range:
    """Return the range widened to whole pages of 4 KiB."""
    start = span.start // PAGE_SIZE * PAGE_SIZE
    end = -(-(span.last + 1) // PAGE_SIZE) * PAGE_SIZE
    return Range(Address(start), end - start)


def bar_layers(machine: Machine, memory: Sequence[MemoryEntry], findings: list[Finding]) -> Iterator[Layer]:
    """Yield the layers of the memory BARs that decode and that Xen can map, and of their MSI-X structures.

    `memory` must come from `flatten_map`. A decoding BAR that Xen cannot map (see `_unmappable`) gets no
    layer; a finding is appended to `findings` instead. A BAR gets neither if it does not decode, or if it is
    not known whether it decodes, nor if Xen cannot name its function: such a BAR lies inside a BAR of a
    controller (VMD). What Xen has really mapped is not looked at.
    Shape:  the layers of MSI-X tables and pending bits first, in the machine's order, then the layers of
            BARs, sorted by address.
    """
    pages: list[tuple[Range, str, bool]] = []
    for function in machine.functions.values():
        for bar in function.bars:
            if bar.kind is BarKind.IO or not bar.decoding or not function.sbdf.fits_xen:
                continue
            title = f"{function.sbdf} {'ROM' if bar.kind is BarKind.ROM else f'BAR {bar.index}'}"
            reason = _unmappable(bar, memory)
            if reason or bar.range is None:
                findings.append(Finding("bar-not-mapped", f"{title} at {bar.address:#x}: {reason}"))
                continue
            pages.append((whole_pages(bar.range), title, function.physfn is not None))
            yield from _tables(function, bar)
    yield from _joined(pages)


def _unmappable(bar: Bar, memory: Sequence[MemoryEntry]) -> str:
    """Return the reason for which Xen does not map a decoding BAR; an empty string if Xen maps it.

    Reasons: its size is unknown, it is at address 0, or its whole pages overlap an entry of `memory`.
    `memory` must come from `flatten_map`.
    """
    if bar.range is None:
        return "its size is unknown, so is what is mapped"
    if not bar.address:
        return "it decodes at address 0"
    pages = whole_pages(bar.range)
    over = next(iter(overlapping(memory, pages)), None)
    if over is not None:
        return f"it lies over {over.word} at {over.range}: Xen does not map it"
    return ""


def _joined(pages: list[tuple[Range, str, bool]]) -> Iterator[Layer]:
    """Yield the layers of the BARs in `pages`, sorted by address; BARs that share pages get one layer.

    `pages` holds (pages, title, True if the function is a virtual function); it is sorted in place.
    """
    pages.sort(key=lambda item: item[0])
    at = 0
    while at < len(pages):
        span, _, virtual = pages[at]
        end, titles = span.last + 1, [pages[at][1]]
        while at + 1 < len(pages) and pages[at + 1][0].start < end:
            at += 1
            end = max(end, pages[at][0].last + 1)
            titles.append(pages[at][1])
        shown = ", ".join(titles[:_SHOWN])
        if len(titles) > _SHOWN:
            shown += f" and {len(titles) - _SHOWN} more"
        why = "it decodes; vPCI maps it when decoding is switched on"
        if virtual:
            why = "it decodes; vPCI leaves virtual functions alone, pcipt maps it"
        if len(titles) > 1:
            why = "they decode and share pages"
        yield Layer(BAR_RANK, Range(span.start, end - span.start), Treatment.IDENTITY, shown, why)
        at += 1


def _tables(function: Function, bar: Bar) -> Iterator[Layer]:
    """Yield the trapped pages of the MSI-X table and of the pending bits, each only if it is in this BAR."""
    msix = function.msix
    if msix is None or bar.range is None:
        return
    for place, what in ((msix.table, "table"), (msix.pba, "pending bits")):
        span = _place_in(bar, place)
        if span is not None:
            why = "Xen keeps the vectors: the page is cut out of the mapping"
            yield Layer(TABLE_RANK, span, Treatment.TRAPPED, f"{function.sbdf} MSI-X {what}", why)


def _place_in(bar: Bar, place: Place) -> Range | None:
    """Return the pages of an MSI-X structure; None if the structure is not wholly in this BAR.

    None is returned too if the size of the BAR is unknown.
    """
    if place.bar != bar.index or bar.size is None or place.offset + place.size > bar.size:
        return None
    return whole_pages(Range(Address(bar.address + place.offset), place.size))
