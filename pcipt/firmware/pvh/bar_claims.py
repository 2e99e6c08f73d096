"""What the functions' BARs claim of the address space: whole pages, as Xen maps them.

Each BAR that decodes memory is identity mapped, the pages of an MSI-X table or its pending bits excepted: Xen
traps those. A BAR that lies over anything in the memory map is not mapped by Xen's vPCI (4.17).
Source: xen/drivers/vpci/header.c (modify_bars), vpci/msix.c.
"""

from collections.abc import Iterator, Sequence

from pcipt.firmware.memory_map import MemoryEntry, overlapping
from pcipt.firmware.pvh.area_claims import Claim, Treatment
from pcipt.pci import Address, Bar, BarKind, Finding, Function, Machine, Range
from pcipt.pci.structures import Place
from pcipt.pci.units import PAGE_SIZE

BAR_RANK, TABLE_RANK = 30, 35
_SHOWN = 4


def whole_pages(span: Range) -> Range:
    """Widen a range to the pages that it touches."""
    start = span.start // PAGE_SIZE * PAGE_SIZE
    end = -(-(span.last + 1) // PAGE_SIZE) * PAGE_SIZE
    return Range(Address(start), end - start)


def bar_claims(machine: Machine, memory: Sequence[MemoryEntry], findings: list[Finding]) -> Iterator[Claim]:
    """Yield the claims of all functions; what cannot be told goes to `findings`."""
    pages: list[tuple[Range, str, bool]] = []
    for function in machine.functions.values():
        for bar in function.bars:
            if bar.kind is BarKind.IO or not bar.decoding:
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
    if bar.range is None:
        return "its size is unknown, so is what is mapped"
    if not bar.address:
        return "it decodes at address 0"
    pages = whole_pages(bar.range)
    over = next(iter(overlapping(memory, pages)), None)
    if over is not None:
        return f"it lies over {over.word} at {over.range}: Xen does not map it"
    return ""


def _joined(pages: list[tuple[Range, str, bool]]) -> Iterator[Claim]:
    """Make one claim of BARs that share pages."""
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
        yield Claim(BAR_RANK, Range(span.start, end - span.start), Treatment.IDENTITY, shown, why)
        at += 1


def _tables(function: Function, bar: Bar) -> Iterator[Claim]:
    msix = function.msix
    if msix is None or bar.range is None:
        return
    for place, what in ((msix.table, "table"), (msix.pba, "pending bits")):
        span = _place_in(bar, place)
        if span is not None:
            why = "Xen keeps the vectors: the page is cut out of the mapping"
            yield Claim(TABLE_RANK, span, Treatment.TRAPPED, f"{function.sbdf} MSI-X {what}", why)


def _place_in(bar: Bar, place: Place) -> Range | None:
    if place.bar != bar.index or bar.size is None or place.offset + place.size > bar.size:
        return None
    return whole_pages(Range(Address(bar.address + place.offset), place.size))
