"""The memory map that firmware or a hypervisor hands over: what each range of addresses is.

The types are those of E820 and of `hvm_start_info`, which agree. Outside of all entries there is a hole.
Source: ACPI 6.5 §15 (Address Range Types); Xen public/arch-x86/hvm/start_info.h, XEN_HVM_MEMMAP_TYPE_*.
"""

import bisect
import enum
import heapq
import itertools
from collections.abc import Iterable, Sequence

import attrs

from pcipt.errors import UnsupportedError
from pcipt.pci import Address, Range

FOUR_GIB = 1 << 32
ONE_MIB = 1 << 20


class MemoryType(enum.Enum):
    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    DISABLED = 6
    PMEM = 7

    @property
    def word(self) -> str:
        return self.name.lower()


@attrs.frozen
class MemoryEntry:
    """One entry; `kind` is the plain number, for a map may hold types that nobody knows yet."""

    range: Range
    kind: int

    @property
    def type(self) -> MemoryType | None:
        return _TYPES.get(self.kind)

    @property
    def word(self) -> str:
        return _TYPES[self.kind].word if self.kind in _TYPES else f"type {self.kind}"


_TYPES = {kind.value: kind for kind in MemoryType}
_RAM = MemoryType.RAM.value


def entry(start: int, size: int, kind: MemoryType) -> MemoryEntry:
    return MemoryEntry(Range(Address(start), size), kind.value)


#  how Linux names the types, in /proc/iomem and /sys/firmware/memmap (arch/x86/kernel/e820.c)
_LINUX_NAMES = {
    "system ram": MemoryType.RAM,
    "reserved": MemoryType.RESERVED,
    "acpi tables": MemoryType.ACPI,
    "acpi non-volatile storage": MemoryType.NVS,
    "unusable memory": MemoryType.UNUSABLE,
    "persistent memory": MemoryType.PMEM,
    "persistent memory (legacy)": MemoryType.PMEM,
    "soft reserved": MemoryType.RESERVED,
    "unknown e820 type": MemoryType.RESERVED,
}


def entries_from_names(named: Iterable[tuple[Range, str]]) -> tuple[MemoryEntry, ...]:
    """Take what Linux calls by the name of an E820 type out of a list of named ranges, and flatten it."""
    found = ((span, _LINUX_NAMES.get(name.lower())) for span, name in named)
    return flatten_map(MemoryEntry(span, kind.value) for span, kind in found if kind is not None)


def flatten_map(entries: Iterable[MemoryEntry]) -> tuple[MemoryEntry, ...]:
    """Make a map whose entries are in order, apart from each other, and joined where alike.

    Where entries overlap the one that is further from RAM wins (unusable before NVS before ACPI before
    reserved), as Linux and Xen do it: the higher number, RAM being the lowest.
    """
    given = sorted(entries, key=lambda each: each.range.start)
    cuts = sorted({each.range.start for each in given} | {each.range.last + 1 for each in given})
    open_ones: list[tuple[int, int]] = []  # a heap of (-kind, end)
    found: list[MemoryEntry] = []
    arriving = 0
    for start, end in itertools.pairwise(cuts):
        while arriving < len(given) and given[arriving].range.start == start:
            each = given[arriving]
            heapq.heappush(open_ones, (-each.kind, each.range.last + 1))
            arriving += 1
        while open_ones and open_ones[0][1] <= start:
            heapq.heappop(open_ones)
        kind = -open_ones[0][0] if open_ones else 0
        if not kind:
            continue
        before = found[-1] if found else None
        if before is not None and before.kind == kind and before.range.last + 1 == start:
            found[-1] = MemoryEntry(Range(before.range.start, before.range.size + end - start), kind)
        else:
            found.append(MemoryEntry(Range(Address(start), end - start), kind))
    return tuple(found)


def overlapping(entries: Sequence[MemoryEntry], span: Range) -> Sequence[MemoryEntry]:
    """Give the entries of a flat map that share bytes with `span`."""
    first = bisect.bisect_left(entries, span.start, key=lambda each: each.range.last)
    end = bisect.bisect_right(entries, span.last, key=lambda each: each.range.start)
    return entries[first:end]


def is_ram(entries: Sequence[MemoryEntry], span: Range) -> bool:
    """Tell whether RAM runs through all of `span`; the map must be flat."""
    found = overlapping(entries, span)
    return (
        len(found) == 1
        and found[0].kind == _RAM
        and found[0].range.start <= span.start
        and span.last <= found[0].range.last
    )


def find_room(
    entries: Sequence[MemoryEntry],
    size: int,
    taken: Sequence[Range] = (),
    *,
    align: int = 4096,
    limit: int | None = None,
) -> Address | None:
    """Find the lowest aligned place above 1 MiB where `size` bytes of RAM are free, ending below `limit`."""
    for each in flatten_map(entries):
        if each.kind != _RAM:
            continue
        start = max(each.range.start, ONE_MIB)
        end = each.range.last + 1 if limit is None else min(each.range.last + 1, limit)
        for used in sorted(taken):
            at = -(-start // align) * align
            if at + size <= used.start:
                break
            start = max(start, used.last + 1)
        at = -(-start // align) * align
        if at + size <= end:
            return Address(at)
    return None


def place_modules(
    entries: Sequence[MemoryEntry], sizes: Sequence[int], taken: Sequence[Range] = ()
) -> tuple[Range, ...]:
    """Place modules as a loader does: each below 4 GiB where it fits, else above, never over another.

    Raises: UnsupportedError where no RAM is left for one.
    """
    used = list(taken)
    placed: list[Range] = []
    for number, size in enumerate(sizes):
        at = find_room(entries, size, used, limit=FOUR_GIB)
        if at is None:
            at = find_room(entries, size, used)
        if at is None:
            raise UnsupportedError(f"module {number}", f"no RAM is left for its {size} bytes")
        placed.append(Range(at, size))
        used.append(placed[-1])
    return tuple(placed)
