"""Which IOMMU unit and which reserved memory (IVMD) Xen's AMD driver has for a routing id, by the IVRS table.

Xen reads the blocks in table order into one record for each routing id: its unit, the id under which the unit
sees it, its unity maps. A routing id without a record of its own takes over the whole record of function 0 of
its device. Reserved memory counts for segment 0 only. Presence of functions does not matter: a region of a
function that is not there is kept, and applied when the function is added.
Source: Xen drivers/passthrough/amd/iommu_acpi.c (parse_ivrs_table, add_ivrs_mapping_entry, parse_ivmd_block,
        reserve_iommu_exclusion_range, register_range_for_*), iommu_map.c
        (amd_iommu_get_reserved_device_memory), pci_amd_iommu.c (find_iommu_for_device).
"""

import functools
from collections.abc import Iterable

import attrs

from pcipt.firmware.acpi.ivrs import (
    IVMD_ALL,
    IVMD_EXCLUSION,
    IVMD_UNIT,
    IVMD_UNITY,
    Ivrs,
    MemoryBlock,
    Unit,
)
from pcipt.pci.units import PAGE_SIZE

_FIRST_FUNCTION = 0xFFF8
_Key = tuple[int, int]  # a unit: its routing id and the offset of its capability


def _key(unit: Unit) -> _Key:
    """Return the name of a unit; several blocks may describe the same one."""
    return unit.device, unit.capability


def find_unit(units: Iterable[Unit], routing: int) -> Unit | None:
    """Return the unit that serves a routing id, among the used units of its segment; None if there is none.

    The last block that selects an id counts. An id that no block selects has the unit of function 0 of its
    device, unless the id is that unit's own.
    """
    units = tuple(units)
    own = _selecting(units, routing)
    if own is not None:
        return own
    first = _selecting(units, routing & _FIRST_FUNCTION)
    return first if first is not None and first.device != routing else None


def _selecting(units: Iterable[Unit], routing: int) -> Unit | None:
    """Return the last unit with an entry for a routing id; the unit's own id is not its function."""
    found = None
    for unit in units:
        named = routing in unit.sources or any(first <= routing <= last for first, last in unit.selected)
        if named and unit.device != routing:
            found = unit
    return found


@attrs.frozen
class Reservations:
    """The IVMD blocks that Xen applies, by their number in `Ivrs.blocks`.

    `kept` are those that it keeps for any function; `beyond` are those that it passes over because they lie
    above the addresses that the IOMMUs can use. `own` are the unity maps of single routing ids, `of_all` are
    those of all. `exclusions` are the exclusion ranges of units: for all functions of the unit if True, else
    for those in `allowed`.
    """

    kept: frozenset[int]
    beyond: frozenset[int]
    units: tuple[Unit, ...]
    own: dict[int, frozenset[int]]
    of_all: frozenset[int]
    exclusions: dict[_Key, tuple[bool, frozenset[int]]]
    allowed: frozenset[int]

    def of(self, routing: int) -> frozenset[int]:
        """Return the numbers of the blocks whose memory Xen maps for a routing id of segment 0."""
        unit = find_unit(self.units, routing)
        if unit is None:
            return frozenset()
        at = routing if _selecting(self.units, routing) is not None else routing & _FIRST_FUNCTION
        for_all, blocks = self.exclusions.get(_key(unit), (False, frozenset()))
        excluded = blocks if for_all or at in self.allowed else frozenset()
        return self.own.get(at, frozenset()) | self.of_all | excluded


@attrs.define
class _Exclusion:
    """The one exclusion range of a unit: addresses of its first and last page, and for which functions."""

    base: int
    limit: int
    for_all: bool
    blocks: set[int]


@functools.lru_cache(maxsize=8)
def reservations_of(ivrs: Ivrs) -> Reservations:
    """Return what Xen makes of the IVMD blocks of a table that it accepts."""
    units = tuple(unit for unit in ivrs.used if unit.segment == 0)
    reader = _Reader(units)
    beyond = set()
    for number, block in enumerate(ivrs.blocks):
        if block.size == 0 or not block.flags & (IVMD_UNITY | IVMD_EXCLUSION):
            continue
        if ivrs.address_bits < 64 and block.start + block.size - 1 >> ivrs.address_bits:
            beyond.add(number)
            continue
        reader.take(number, block)
    return reader.result(frozenset(beyond))


class _Reader:
    """Takes IVMD blocks in table order. Only units whose block stands before one have functions then."""

    def __init__(self, units: tuple[Unit, ...]) -> None:
        self._units = units
        self._own: dict[int, set[int]] = {}
        self._of_all: set[int] = set()
        self._exclusions: dict[_Key, _Exclusion] = {}
        self._allowed: set[int] = set()

    def take(self, number: int, block: MemoryBlock) -> None:
        """Note for which routing ids a block holds."""
        exclusion = bool(block.flags & IVMD_EXCLUSION)
        before = tuple(unit for unit in self._units if unit.offset < block.offset)
        if block.kind == IVMD_ALL:
            taken = [exclusion and self._exclude(unit, number, block, for_all=True) for unit in self._units]
            done = exclusion and all(taken)
            if not done:
                self._of_all.add(number)
        elif block.kind == IVMD_UNIT:
            unit = next((each for each in self._units if _key(each) == (block.first, block.capability)), None)
            if unit is not None and not (exclusion and self._exclude(unit, number, block, for_all=True)):
                served = ((routing, _selecting(before, routing)) for routing in _ids(before))
                own = [at for at, found in served if found is not None and _key(found) == _key(unit)]
                self._reserve(number, own, before)
        else:
            self._take_functions(number, block, before, exclusion=exclusion)

    def _take_functions(
        self, number: int, block: MemoryBlock, before: tuple[Unit, ...], *, exclusion: bool
    ) -> None:
        """Note a block for one routing id or a range of them; ids without a unit are passed over."""
        left = []
        for routing in range(block.first, block.last + 1):
            unit = _selecting(before, routing)
            if unit is None:
                continue
            if not exclusion or not self._exclude(unit, number, block, for_all=False):
                left.append(routing)
            else:
                self._allowed |= {routing, _alias(before, routing)}
        self._reserve(number, left, before)

    def _reserve(self, number: int, ids: Iterable[int], units: tuple[Unit, ...]) -> None:
        """Note a unity map for these routing ids and for the ids under which their units see them."""
        for routing in ids:
            for at in (routing, _alias(units, routing)):
                self._own.setdefault(at, set()).add(number)

    def _exclude(self, unit: Unit, number: int, block: MemoryBlock, *, for_all: bool) -> bool:
        """Make a block part of the exclusion range of a unit; return False if that range cannot take it.

        A unit has one range; it grows by a range that touches it and is for the same functions.
        """
        base = block.start // PAGE_SIZE * PAGE_SIZE
        limit = (block.start + block.size - 1) // PAGE_SIZE * PAGE_SIZE
        held = self._exclusions.get(_key(unit))
        if held is None:
            self._exclusions[_key(unit)] = _Exclusion(base, limit, for_all, {number})
            return True
        if held.limit + PAGE_SIZE < base or limit + PAGE_SIZE < held.base or held.for_all != for_all:
            return False
        held.base, held.limit = min(held.base, base), max(held.limit, limit)
        held.blocks.add(number)
        return True

    def result(self, beyond: frozenset[int]) -> Reservations:
        """Return what the blocks come to."""
        ranges = self._exclusions
        excluded = [each.blocks for each in ranges.values()]
        kept = {number for blocks in (*self._own.values(), *excluded, self._of_all) for number in blocks}
        return Reservations(
            frozenset(kept),
            beyond,
            self._units,
            {routing: frozenset(blocks) for routing, blocks in self._own.items()},
            frozenset(self._of_all),
            {key: (each.for_all, frozenset(each.blocks)) for key, each in ranges.items()},
            frozenset(self._allowed),
        )


def _ids(units: Iterable[Unit]) -> list[int]:
    """Return all routing ids that the units select, in ascending order."""
    found: set[int] = set()
    for unit in units:
        found.update(unit.sources)
        for first, last in unit.selected:
            found.update(range(first, last + 1))
    return sorted(found)


def _alias(units: Iterable[Unit], routing: int) -> int:
    """Return the id under which its unit sees a routing id: that of the last entry about it."""
    found = routing
    for unit in units:
        for first, last, alias in unit.requesters:
            if first <= routing <= last:
                found = routing if alias is None else alias
    return found
