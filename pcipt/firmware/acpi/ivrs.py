"""Parse the IVRS table: which functions an AMD IOMMU serves (IVHD), and which memory is reserved (IVMD).

An IVHD block is decoded to its unit and the functions that it selects. A block of another type is kept as its
type, offset and length. A routing id is bus << 8 | devfn.
Source: AMD I/O Virtualization Technology 3.07 §5.2.2; xen/drivers/passthrough/amd/iommu_acpi.c.
"""

import struct
from collections.abc import Iterable

from pcipt import values as attrs
from pcipt.firmware.acpi.table import Table
from pcipt.pci import Address, Finding
from pcipt.pci.units import PAGE_SHIFT

#: what Xen's option ivmd= says of one block: first and last page, first and last routing id
AddedBlock = tuple[int, int, int | None, int | None]

SIGNATURE = "IVRS"
BLOCKS_AT = 48
# block type: byte offset of its device entries
_IVHD = {0x10: 24, 0x11: 40, 0x40: 40}
IVMD_ALL, IVMD_ONE, IVMD_RANGE, IVMD_UNIT = 0x20, 0x21, 0x22, 0x23
IVMD_UNITY, IVMD_EXCLUSION = 0x1, 0x8
_READ, _WRITE = 0x2, 0x4
IVMD_SIZE = 32
_SELECT, _RANGE_START, _RANGE_END = 2, 3, 4
_ALIAS_SELECT, _ALIAS_RANGE, _EXT_SELECT, _EXT_RANGE, _NAMED = 0x42, 0x43, 0x46, 0x47, 0xF0
_SPECIAL = 0x48  # an IO-APIC or a HPET: its routing id is selected as well
_XEN_READS = {0x10: False, 0x11: True}  # block type: only if the table says that it has the extended features
_MASK = (1 << 64) - 1
_INFO_AT, _HAS_FEATURES = 36, 0x1
_SINGLE = (_SELECT, _ALIAS_SELECT, _EXT_SELECT)
_STARTS = (_RANGE_START, _ALIAS_RANGE, _EXT_RANGE)


@attrs.frozen
class Unit:
    """One IVHD block: an IOMMU of the segment.

    `kind` is the block's type: 10, 11 or 40 (hexadecimal). `selected` holds the functions that the IOMMU
    serves, as inclusive pairs (first, last) of routing ids; `last` may be below `first` if the table is
    wrong. `sources` are the routing ids of its IO-APICs and HPETs. `requesters` are triples (first, last,
    alias), one for each entry about functions, in table order: the IOMMU sees these functions under the
    routing id `alias`, or under their own where that is None. `offset` is the block's byte offset in the
    table; `device` and `capability` are the IOMMU's own routing id and the offset of its capability.
    """

    kind: int
    segment: int
    selected: tuple[tuple[int, int], ...]
    sources: tuple[int, ...] = ()
    requesters: tuple[tuple[int, int, int | None], ...] = ()
    offset: int = 0
    device: int = 0
    capability: int = 0


@attrs.frozen
class MemoryBlock:
    """One IVMD block: memory reserved for the functions with routing ids `first` to `last` (inclusive).

    `offset` is the block's byte offset in the table. The memory is `size` bytes from `start` on. `flags` has
    the bits IVMD_UNITY and IVMD_EXCLUSION. All numbers are as in the table: `size` may be 0, `last` may be
    below `first`. A block of type 23 is for all functions of one IOMMU: `first` and `last` are the IOMMU's
    routing id, and `capability` is the offset of its capability; of other blocks that is None.
    """

    offset: int
    flags: int
    segment: int
    first: int
    last: int
    start: Address
    size: int
    kind: int = IVMD_RANGE
    capability: int | None = None


@attrs.frozen
class Ivrs:
    """A decoded IVRS table; each field is in table order.

    `units` are the IVHD blocks, `blocks` the IVMD blocks. `others` are the blocks of other types: (type,
    offset, length), in bytes. `findings` has the faults of the header and of the blocks. `features` is True
    if the header says that the IOMMUs have extended features (EFRSup). `address_bits` is the smaller of the
    widths that IVinfo has for physical and for virtual addresses.
    """

    units: tuple[Unit, ...]
    others: tuple[tuple[int, int, int], ...]
    findings: tuple[Finding, ...]
    blocks: tuple[MemoryBlock, ...] = ()
    features: bool = True
    address_bits: int = 64

    @property
    def used(self) -> tuple[Unit, ...]:
        """The IVHD blocks that Xen reads: those of the highest type that it knows, 10 or 11.

        It knows type 11 only if `features` is True, and never type 40.
        Source: Xen drivers/passthrough/amd/iommu_acpi.c (get_supported_ivhd_type, is_ivhd_block).
        """
        known = [
            unit.kind
            for unit in self.units
            if unit.kind in _XEN_READS and (self.features or not _XEN_READS[unit.kind])
        ]
        return tuple(unit for unit in self.units if unit.kind == max(known, default=None))


def parse_ivrs(table: Table) -> Ivrs:
    """Return the decoded IVRS table. Its signature is not verified; faults become findings, not errors.

    Shape:  blocks in table order. A block whose length is impossible ends the walk; the blocks before it are
            kept. A block that is too short for its type is left out. A table shorter than 48 bytes has no
            blocks. Each of these gives a finding, and so does each fault of a device entry (see `_selected`).
            An IVMD block whose last routing id is below its first is kept, with a finding. If several IVHD
            blocks describe the same IOMMU, all of them are kept, and the IOMMU serves the union of their
            functions.
    """
    data, findings = table.data, list(table.findings)
    if len(data) < BLOCKS_AT:
        findings.append(Finding("acpi-length", f"at 0x4: {BLOCKS_AT} bytes are needed before any block"))
    units: list[Unit] = []
    blocks: list[MemoryBlock] = []
    others: list[tuple[int, int, int]] = []
    at = BLOCKS_AT
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "little")
        if at + 4 > len(data) or length < 4 or at + length > len(data):
            findings.append(Finding("acpi-entry", f"at {at:#x}: a block claims {length} bytes"))
            break
        kind = data[at]
        shortest = IVMD_SIZE if IVMD_ALL <= kind <= IVMD_UNIT else _IVHD.get(kind, 4)
        if length < shortest:
            what = f"at {at:#x}: a block of type {kind:#x} needs {shortest} bytes, has {length}"
            findings.append(Finding("acpi-entry", what))
        elif kind in _IVHD:
            units.append(_unit(table, at, at + shortest, at + length, findings))
        elif shortest == IVMD_SIZE:
            block = _memory(table, at, kind)
            if block.last < block.first:
                what = f"routing ids {block.first:#06x} to {block.last:#06x} are no range"
                findings.append(_wrong(at, what))
            blocks.append(block)
        else:
            others.append((kind, at, length))
        at += length
    info = table.u32(_INFO_AT) if len(data) >= BLOCKS_AT else 0
    bits = min(info >> 8 & 0x7F, info >> 15 & 0x7F)
    return Ivrs(tuple(units), tuple(others), tuple(findings), tuple(blocks), bool(info & _HAS_FEATURES), bits)


def _unit(table: Table, at: int, start: int, end: int, findings: list[Finding]) -> Unit:
    """Return the decoded IVHD block at `at`, whose device entries are between `start` and `end`."""
    data = table.data
    entries = _entries(data, start, end, [])
    sources = tuple(data[each + 5] | data[each + 6] << 8 for each, kind, _ in entries if kind == _SPECIAL)
    requesters: list[tuple[int, int, int | None]] = []
    for number, (each, kind, first) in enumerate(entries):
        last = entries[number + 1][2] if kind in _STARTS and number + 1 < len(entries) else first
        if kind in (*_SINGLE, *_STARTS):
            alias = data[each + 5] | data[each + 6] << 8 if kind in (_ALIAS_SELECT, _ALIAS_RANGE) else None
            requesters.append((first, last, alias))
    return Unit(
        data[at],
        table.u16(at + 16),
        _selected(data, start, end, findings),
        sources,
        tuple(requesters),
        at,
        table.u16(at + 4),
        table.u16(at + 6),
    )


def _memory(table: Table, at: int, kind: int) -> MemoryBlock:
    """Return the decoded IVMD block at byte offset `at`, which must have at least 32 bytes."""
    first, last = (0, 0xFFFF) if kind == IVMD_ALL else (table.u16(at + 4), table.u16(at + 6))
    capability = last if kind == IVMD_UNIT else None
    if kind in (IVMD_ONE, IVMD_UNIT):
        last = first
    start, size = Address(table.u64(at + 16)), table.u64(at + 24)
    return MemoryBlock(at, table.data[at + 1], table.u16(at + 8), first, last, start, size, kind, capability)


def added_blocks(added: Iterable[AddedBlock]) -> bytes:
    """Return the IVMD blocks that Xen makes of its option ivmd=, one after the other.

    `added`: (first page, last page, first routing id, last routing id). Without ids a block is for all
    functions, with the first one alone for one function. Each maps its memory 1:1, for reading and writing.
    """
    blocks = b""
    for first, last, begin, until in added:
        kind = IVMD_ALL if begin is None else IVMD_ONE if until is None else IVMD_RANGE
        start, size = ((number << PAGE_SHIFT) & _MASK for number in (first, last - first + 1))
        flags = IVMD_UNITY | _READ | _WRITE
        blocks += struct.pack("<BBHHHQQQ", kind, flags, IVMD_SIZE, begin or 0, until or 0, 0, start, size)
    return blocks


def parse_added(added: Iterable[AddedBlock], offset: int) -> tuple[MemoryBlock, ...]:
    """Return the blocks of `added_blocks`, which begin at the byte `offset` of a table."""
    data = bytes(offset) + added_blocks(added)
    table = Table(SIGNATURE, 0, data, ())
    return tuple(_memory(table, at, data[at]) for at in range(offset, len(data), IVMD_SIZE))


def _selected(data: bytes, start: int, end: int, findings: list[Finding]) -> tuple[tuple[int, int], ...]:
    """Return the routing ids that the device entries between the byte offsets `start` and `end` select.

    Entry types are hexadecimal here. Types 2, 42 and 46 select one id. Types 3, 43 and 47 begin a range, and
    the next entry must be its end, of type 4. Entries of other types select nothing, type 1 included, which
    is for all ids: Xen does not know it.
    Shape:  inclusive pairs (first, last), in table order. A range is left out if its start or its end is
            missing. A range whose last id is below its first is kept. A finding is appended to `findings` for
            each of these.
    """
    found: list[tuple[int, int]] = []
    begin: tuple[int, int] | None = None  # offset and routing id of a range's start entry
    for at, kind, routing in (*_entries(data, start, end, findings), (end, 0, 0)):
        if begin is not None and kind != _RANGE_END:
            findings.append(_wrong(begin[0], f"the range from {begin[1]:#06x} on has no end"))
            begin = None
        if kind in _SINGLE:
            found.append((routing, routing))
        elif kind in _STARTS:
            begin = at, routing
        elif kind == _RANGE_END and begin is None:
            findings.append(_wrong(at, f"the range to {routing:#06x} has no start"))
        elif kind == _RANGE_END and begin is not None:
            found.append((begin[1], routing))
            if routing < begin[1]:
                what = f"routing ids {begin[1]:#06x} to {routing:#06x} are no range"
                findings.append(_wrong(begin[0], f"{what}"))
            begin = None
    return tuple(found)


def _entries(data: bytes, start: int, end: int, findings: list[Finding]) -> list[tuple[int, int, int]]:
    """Return the device entries between the byte offsets `start` and `end`, in table order.

    Shape:  (byte offset, type, routing id). The first entry that runs past `end` ends the walk, and a finding
            is appended to `findings`.
    """
    found = []
    at = start
    while at < end:
        size = _entry_size(data, at, data[at])
        if size == 0 or at + size > end:
            what = f"a device entry of type {data[at]:#x} has no legal length"
            findings.append(_wrong(at, what))
            break
        found.append((at, data[at], data[at + 1] | data[at + 2] << 8))
        at += size
    return found


def _wrong(at: int, what: str) -> Finding:
    """Return a finding about the entry at byte offset `at`."""
    return Finding("acpi-entry", f"at {at:#x}: {what}")


def _entry_size(data: bytes, at: int, kind: int) -> int:
    """Return the size in bytes of the device entry at `at`; 0 if the data ends before the size is known.

    For a type below F0 the size is 4 << (bits 7:6 of the type). An entry for a named device (type F0 and
    above) has 22 bytes and then a name, whose length is in byte 21.
    """
    if kind < _NAMED:
        return 4 << (kind >> 6)
    return 22 + data[at + 21] if at + 22 <= len(data) else 0
