"""Hold a memory map as firmware or a hypervisor gives it: the type of each range of addresses.

The types are those of E820 and of `hvm_start_info`, which agree. An address outside of all entries is a hole.
A flat map is the result of `flatten_map`: its entries are sorted by address and do not overlap.
Source: ACPI 6.5 §15 (Address Range Types); Xen public/arch-x86/hvm/start_info.h, XEN_HVM_MEMMAP_TYPE_*.
"""

import bisect
import enum
import heapq
import itertools
from collections.abc import Iterable, Sequence

from pcipt import values as attrs
from pcipt.errors import UnsupportedError
from pcipt.pci import Address, Range

FOUR_GIB = 1 << 32
ONE_MIB = 1 << 20
MESSAGES = Range(Address(0xFEE0_0000), ONE_MIB)  # a device's write there is an interrupt


class MemoryType(enum.Enum):
    """The types of memory that E820 and `hvm_start_info` define."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    DISABLED = 6
    PMEM = 7

    @property
    def word(self) -> str:
        """The type's name in lower case, for reports."""
        return self.name.lower()


@attrs.frozen
class MemoryEntry:
    """One entry of a map: a range of addresses and the number `kind` of its type.

    `kind` is a plain number, because a map may hold types that `MemoryType` does not have.
    """

    range: Range
    kind: int

    @property
    def type(self) -> MemoryType | None:
        """The type as a `MemoryType`; None if `MemoryType` does not have the number."""
        return _TYPES.get(self.kind)

    @property
    def word(self) -> str:
        """The name of the type in lower case, for reports.

        It is "type N" if `MemoryType` does not have the number N.
        """
        return _TYPES[self.kind].word if self.kind in _TYPES else f"type {self.kind}"


_TYPES = {kind.value: kind for kind in MemoryType}
_RAM = MemoryType.RAM.value


def entry(start: int, size: int, kind: MemoryType) -> MemoryEntry:
    """Return an entry of a known type that begins at byte address `start` and has `size` bytes.

    `size` must not be 0.
    """
    return MemoryEntry(Range(Address(start), size), kind.value)


# Linux's names of the types in /proc/iomem and /sys/firmware/memmap (arch/x86/kernel/e820.c)
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
    """Return the flat map (see `flatten_map`) of the ranges that have one of Linux's names of E820 types.

    Linux's names are those of /proc/iomem and /sys/firmware/memmap, for example "System RAM". Upper and lower
    case do not matter. Ranges with other names are left out.
    """
    found = ((span, _LINUX_NAMES.get(name.lower())) for span, name in named)
    return flatten_map(MemoryEntry(span, kind.value) for span, kind in found if kind is not None)


def flatten_map(entries: Iterable[MemoryEntry]) -> tuple[MemoryEntry, ...]:
    """Return the entries as a flat map: sorted by address, no overlaps, adjacent entries of one type joined.

    The entries may be in any order. Where entries overlap, the result has the type with the highest number,
    as in Linux and Xen. RAM has the lowest number, so it never hides another type. Entries of type 0 are left
    out.
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
    """Return the entries that share at least one byte with `span`, in address order; empty if none does.

    `entries` must come from `flatten_map`. The entries are not cut to `span`.
    """
    first = bisect.bisect_left(entries, span.start, key=lambda each: each.range.last)
    end = bisect.bisect_right(entries, span.last, key=lambda each: each.range.start)
    return entries[first:end]


def is_ram(entries: Sequence[MemoryEntry], span: Range) -> bool:
    """Return True if every byte of `span` is RAM. `entries` must come from `flatten_map`."""
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
    """Return the lowest address with `size` free bytes of RAM; None if there is none.

    The address is a multiple of `align`. The `size` bytes lie in one range of RAM, begin at or above 1 MiB,
    overlap no range of `taken`, and end at or below `limit` (None: no limit). `entries` and `taken` may be in
    any order.
    Units:  bytes.
    """
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
    """Return one range of RAM for each module, in the order of `sizes`, which are the modules' sizes.

    A module begins at the lowest page from which it lies in free RAM (see `find_room`) and ends at or below 4
    GiB. If there is no such page, it begins at the lowest page from which it lies in free RAM at all. No
    module overlaps another module or a range of `taken`.
    Units:  bytes; a size must not be 0.
    Raises: UnsupportedError if a module does not fit into the RAM that is left.
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
