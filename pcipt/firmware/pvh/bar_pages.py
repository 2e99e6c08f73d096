"""Compute the pages that the BARs of all functions occupy in a PVH dom0's address space.

Xen maps whole pages 1:1 for each BAR that decodes memory. It does not map the pages of an MSI-X table or of
its pending bits: it traps accesses to them. Of a BAR whose pages overlap an entry of the memory map, vPCI
maps nothing, or the pages outside of the entry (`E820_CUTS_BARS`). Reserved memory is mapped 1:1 at boot all
the same, unless Xen's option dom0-iommu=no-map-reserved forbids it.
Source: xen/drivers/vpci/header.c (modify_bars), vpci/msix.c, xen/arch/x86/pci.c (pci_check_bar,
        pci_sanitize_bar_memory), xen/drivers/passthrough/x86/iommu.c (arch_iommu_hwdom_init).
"""

from collections.abc import Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.memory_map import MemoryEntry, MemoryType, overlapping
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


@attrs.frozen
class Rules:
    """What Xen does with BARs over entries of the memory map.

    `cuts` is True if vPCI maps the pages of such a BAR that are outside of the entries. `map_reserved` is
    True if Xen maps reserved memory 1:1 when it boots.
    """

    cuts: bool = True
    map_reserved: bool = True


USUAL = Rules()


def bar_layers(
    machine: Machine, memory: Sequence[MemoryEntry], findings: list[Finding], rules: Rules = USUAL
) -> Iterator[Layer]:
    """Yield the layers of the memory BARs that decode and that are mapped, and of their MSI-X structures.

    `memory` must come from `flatten_map`. For a decoding BAR of which pages are not mapped, a finding is
    appended to `findings`. A BAR gets neither layer nor finding if it does not decode, if it is not known
    whether it decodes, or if Xen cannot name its function: such a BAR lies inside a BAR of a controller
    (VMD). What Xen has really mapped is not looked at.
    Shape:  the layers of MSI-X tables and pending bits, and of BARs over reserved memory, first, in the
            machine's order, then the layers of other BARs, sorted by address.
    """
    pages: list[tuple[Range, str, bool]] = []
    for function in machine.functions.values():
        for bar in function.bars:
            if bar.kind is BarKind.IO or not bar.decoding or not function.sbdf.fits_xen:
                continue
            title = f"{function.sbdf} {'ROM' if bar.kind is BarKind.ROM else f'BAR {bar.index}'}"
            if bar.range is None or not bar.address:
                reason = "it decodes at address 0" if bar.range is not None else _NO_SIZE
                findings.append(Finding("bar-not-mapped", f"{title} at {bar.address:#x}: {reason}"))
                continue
            parts = _parts(whole_pages(bar.range), memory, rules)
            if parts.why:
                findings.append(Finding("bar-not-mapped", f"{title} at {bar.address:#x}: {parts.why}"))
            pages += ((span, title, function.physfn is not None) for span in parts.by_vpci)
            for span in parts.at_boot:
                yield Layer(BAR_RANK, span, Treatment.IDENTITY, title, _AT_BOOT)
            if parts.by_vpci or parts.at_boot:
                yield from _tables(function, bar)
    yield from _joined(pages)


_NO_SIZE = "its size is unknown, so pcipt does not know what is mapped"
_AT_BOOT = "map-reserved: it lies over reserved memory, which Xen maps when it boots"


@attrs.frozen
class _Parts:
    """The pages of one BAR: mapped by vPCI, mapped at boot; `why` tells why others are not mapped."""

    by_vpci: tuple[Range, ...]
    at_boot: tuple[Range, ...]
    why: str


def _parts(pages: Range, memory: Sequence[MemoryEntry], rules: Rules) -> _Parts:
    """Divide the pages of a decoding BAR. `memory` must come from `flatten_map`."""
    over = list(overlapping(memory, pages))
    at_boot: list[Range] = []
    outside: list[Range] = []
    end = int(pages.start)
    lost = next((each for each in over if not _is_mapped_at_boot(each, rules)), None)
    for entry in over:
        within = _common(whole_pages(entry.range), pages)
        if within.start > end:
            outside.append(Range(Address(end), within.start - end))
        if _is_mapped_at_boot(entry, rules):
            at_boot.append(within)
        end = max(end, within.last + 1)
    if pages.last + 1 > end:
        outside.append(Range(Address(end), pages.last + 1 - end))
    whole = not over or rules.cuts
    first = lost or (over[0] if over and outside and not whole else None)
    if first is None:
        why = ""
    elif at_boot or (outside and whole):
        why = f"it lies over {first.word} at {first.range}: Xen maps only a part of it"
    else:
        why = f"it lies over {first.word} at {first.range}: Xen does not map it"
    return _Parts(tuple(outside) if whole else (), tuple(at_boot), why)


def _is_mapped_at_boot(entry: MemoryEntry, rules: Rules) -> bool:
    """Return True if Xen maps the pages of an entry 1:1 when it boots."""
    return rules.map_reserved and entry.type is MemoryType.RESERVED


def _common(span: Range, pages: Range) -> Range:
    """Return the addresses that two overlapping ranges have in common."""
    start = max(span.start, pages.start)
    return Range(start, min(span.last, pages.last) + 1 - start)


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
