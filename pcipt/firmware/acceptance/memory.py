"""Hold the memory map as Xen has it while it reads the IOMMU tables, and judge reserved regions by it.

Source: Xen arch/x86/e820.c (e820_all_mapped, e820_add_range), arch/x86/mm.c (page_get_ram_type),
        drivers/passthrough/x86/iommu.c (iommu_unity_region_ok).
"""

from collections.abc import Iterable

from pcipt.firmware.memory_map import MemoryEntry, MemoryType, entry, flatten_map, overlapping
from pcipt.pci import Address, Range
from pcipt.pci.units import PAGE_SIZE

_TAKEN = {MemoryType.RESERVED, MemoryType.ACPI, MemoryType.NVS, MemoryType.UNUSABLE}
_MANY = 1 << 32  # minutes at least
_LOW_RAM = entry(0, PAGE_SIZE, MemoryType.RAM)


class MemoryMap:
    """The memory map; a region in a hole becomes reserved, as in Xen.

    Without a map only the first page is known: each PC has RAM there.
    """

    def __init__(self, entries: Iterable[MemoryEntry] | None) -> None:
        self._entries = flatten_map(entries if entries is not None else [_LOW_RAM])

    def wrong_page(self, base: int, end: int, *, inverted: bool = False) -> tuple[int, str] | None:
        """Return the first page of a region that Xen does not accept, and what lies there; else None.

        The region has the pages from `base` to before `end`. Pages that touch memory that the map reserves
        are good, and so are holes. With `inverted` pages with such memory are wrong, unless all of the region
        is reserved; RAM is good.
        """
        if end <= base:
            return None
        span = Range(Address(base), end - base)
        found = overlapping(self._entries, span)
        if not self._is_reserved(found, base, end):
            at = base
            while at < end:
                after, kinds = self._run(found, at, end)
                if self._is_wrong(kinds, inverted=inverted):
                    return at, self._word(kinds)
                at = after
        return None

    def endless(self, base: int, end: int, wrong: tuple[int, str] | None) -> int:
        """Return how many pages Xen looks at one by one, if they are too many to end soon; else 0.

        `wrong` is what `wrong_page` said of the region: Xen looks no further than that page. It looks at no
        page if all of the region is reserved.
        """
        until = wrong[0] if wrong is not None else end
        count = (until - base) // PAGE_SIZE
        if count < _MANY:
            return 0
        found = overlapping(self._entries, Range(Address(base), end - base))
        return 0 if self._is_reserved(found, base, end) else count

    @staticmethod
    def _is_reserved(found: Iterable[MemoryEntry], base: int, end: int) -> bool:
        """Return True if entries of the type RESERVED cover all of the region."""
        for each in found:
            if each.type is MemoryType.RESERVED and each.range.start <= base:
                base = each.range.last + 1
        return base >= end

    @staticmethod
    def _run(found: Iterable[MemoryEntry], at: int, end: int) -> tuple[int, list[MemoryEntry]]:
        """Return the entries of the page at `at`, and up to where all pages have the same."""
        inside = [each for each in found if each.range.start < at + PAGE_SIZE and at <= each.range.last]
        cuts = [int(each.range.start) for each in found if each.range.start >= at + PAGE_SIZE]
        cuts += [each.range.last + 1 for each in inside if each.range.last >= at + PAGE_SIZE]
        until = min([*cuts, end]) // PAGE_SIZE * PAGE_SIZE
        whole = all(each.range.start <= at and each.range.last + 1 >= at + PAGE_SIZE for each in inside)
        return (max(until, at + PAGE_SIZE) if whole else at + PAGE_SIZE), inside

    @staticmethod
    def _is_wrong(inside: list[MemoryEntry], *, inverted: bool) -> bool:
        """Return True if Xen does not accept a page that touches these entries.

        It cannot make a page reserved that touches only entries of types that it does not know.
        """
        taken = any(each.type in _TAKEN for each in inside)
        ram = any(each.type is MemoryType.RAM for each in inside)
        if not taken and not ram:
            return bool(inside)
        return taken if inverted else not taken

    @staticmethod
    def _word(inside: list[MemoryEntry]) -> str:
        kinds = sorted({each.word for each in inside})
        return " and ".join("RAM" if kind == "ram" else f"memory of the type {kind}" for kind in kinds)

    def reserve(self, base: int, end: int) -> None:
        """Make the holes of a region reserved, as Xen does with a region that it accepts."""
        if end <= base:
            return
        at, added = base, []
        for each in overlapping(self._entries, Range(Address(base), end - base)):
            if each.range.start > at:
                added.append(entry(at, each.range.start - at, MemoryType.RESERVED))
            at = max(at, each.range.last + 1)
        if at < end:
            added.append(entry(at, end - at, MemoryType.RESERVED))
        if added:
            self._entries = flatten_map([*self._entries, *added])
