"""Read IVMD blocks as Xen does: which memory is mapped 1:1, or not translated, for which routing ids.

Source: Xen drivers/passthrough/amd/iommu_acpi.c (parse_ivmd_block and what it calls,
        reserve_unity_map_for_device, reserve_iommu_exclusion_range).
"""

import functools
from collections.abc import Mapping, Sequence

from pcipt import values as attrs
from pcipt.firmware.acceptance import rules
from pcipt.firmware.acceptance.amd_state import AmdUnit, Exclusion, Record, Runs, UnityMap
from pcipt.firmware.acceptance.memory import MemoryMap
from pcipt.firmware.acceptance.reading import Reading
from pcipt.firmware.acpi.ivrs import IVMD_ALL, IVMD_EXCLUSION, IVMD_ONE, IVMD_RANGE, IVMD_UNIT, IVMD_UNITY
from pcipt.pci.units import PAGE_SIZE

_LEAST = 32
_MASK = (1 << 64) - 1
_READ, _WRITE = 0x2, 0x4
_PER_LEVEL = 9  # each level of page tables has 2^9 entries


@attrs.frozen
class _Block:
    """An IVMD block: `base` and `limit` are the addresses of its first and last page."""

    offset: int
    entry: str
    base: int
    limit: int
    exclusion: bool
    map: UnityMap


class IvmdReader:
    """Reads the IVMD blocks of a table in turn. They count for segment 0.

    `kept` and `beyond` collect what `AmdState` has under these names. `info` is IVinfo, `levels` how many
    levels the units' page tables may have.
    """

    def __init__(
        self,
        reading: Reading,
        memory: MemoryMap,
        units: Sequence[AmdUnit],
        segments: Mapping[int, Runs],
        info: int,
        levels: int,
    ) -> None:
        self._reading, self._memory, self._units = reading, memory, units
        self._segments, self._levels = segments, levels
        self._bits = min(info >> 8 & 0x7F, info >> 15 & 0x7F)
        self.kept: set[int] = set()
        self.beyond: set[int] = set()

    def read(self, at: int, kind: int, length: int) -> None:
        """Read the block at `at`. Raises: EndedError if Xen does not accept it."""
        data, entry = self._reading, f"IVMD type {kind:#x}"
        data.has_regions = True
        if length < _LEAST:
            data.meet(rules.IVMD_LENGTH, at, entry, length=length)
        start, size, flags = data.u64(at + 16), data.u64(at + 24), data.u8(at + 1)
        if self._is_beyond(at, entry, start, size):
            self.beyond.add(at)
            return
        base = start & -PAGE_SIZE
        limit = (start + size - 1) & _MASK & -PAGE_SIZE
        self._check_memory(at, entry, base, limit)
        exclusion = bool(flags & IVMD_EXCLUSION)
        if not exclusion and not flags & IVMD_UNITY:
            data.meet(rules.IVMD_FLAGS, at, entry, flags=flags)
        readable, writable = exclusion or bool(flags & _READ), exclusion or bool(flags & _WRITE)
        span = (limit + PAGE_SIZE - base) & _MASK
        block = _Block(
            at, entry, base, limit, exclusion, UnityMap(base, span, readable, writable, frozenset({at}))
        )
        first, other = data.u16(at + 4), data.u16(at + 6)
        if kind == IVMD_ALL:
            self._for_all(block)
        elif kind == IVMD_UNIT:
            self._for_unit(block, first, other)
        else:
            self._for_functions(block, first, first if kind == IVMD_ONE else other, ranged=kind == IVMD_RANGE)

    def _is_beyond(self, at: int, entry: str, start: int, size: int) -> bool:
        """Return True if the units cannot address all of the memory."""
        frames = ((start + size + PAGE_SIZE - 1) & _MASK) // PAGE_SIZE
        if not frames:
            self._reading.meet(rules.IVMD_NOTHING, at, entry, start=start, size=size)
        last = (start + size - 1) & _MASK
        return frames > 1 << _PER_LEVEL * self._levels or bool(self._bits < 64 and last >> self._bits)

    def _check_memory(self, at: int, entry: str, base: int, limit: int) -> None:
        end = limit + PAGE_SIZE
        wrong = self._memory.wrong_page(base, end)
        inverted = self._memory.wrong_page(base, end, inverted=True)
        if pages := self._memory.endless(base, end, wrong):
            self._reading.meet(rules.IVMD_ENDLESS, at, entry, base=base, limit=end - 1, pages=pages)
        for rule, found in ((rules.IVMD_OVER_RAM, wrong), (rules.IVMD_OVER_ACPI, inverted)):
            if found is not None:
                page, what = found
                self._reading.meet(rule, at, entry, base=base, limit=end - 1, page=page, what=what)
        self._memory.reserve(base, end)

    def _for_all(self, block: _Block) -> None:
        done = [block.exclusion and self._exclude(unit, block, for_all=True) for unit in self._units]
        if block.exclusion and all(done):
            return
        if 0 not in self._segments:
            self._reading.meet(rules.IVMD_NO_SEGMENT, block.offset, block.entry)
        self._reserve(block, 0, self._segments[0].count - 1)

    def _for_unit(self, block: _Block, device: int, capability: int) -> None:
        keys = [(unit.segment, unit.device, unit.capability) for unit in self._units]
        if (0, device, capability) not in keys:
            self._reading.meet(
                rules.IVMD_NO_UNIT, block.offset, block.entry, routing=device, capability=capability
            )
        number = keys.index((0, device, capability))
        if block.exclusion and self._exclude(self._units[number], block, for_all=True):
            return
        runs = self._segments[0]
        for first, last, record in list(runs.runs(0, runs.count - 1)):
            if record.unit == number:
                self._reserve_aliased(block, first, last, record)

    def _for_functions(self, block: _Block, first: int, last: int, *, ranged: bool) -> None:
        """Count a block for the ids between two ids (inclusive); those without a unit are passed over."""
        most = next(iter(self._segments.values())).count - 1
        for routing in (first, last):
            if routing > most:
                self._reading.meet(rules.IVMD_BEYOND, block.offset, block.entry, routing=routing, most=most)
        if ranged and last <= first:
            self._reading.meet(rules.IVMD_RANGE, block.offset, block.entry, first=first, last=last)
        runs = self._segments.get(0, Runs(most + 1))
        for start, end, record in list(runs.runs(first, last)):
            if record.unit is None:
                self._reading.meet(rules.IVMD_UNSERVED, block.offset, block.entry, routing=start)
            elif block.exclusion and self._exclude(self._units[record.unit], block, for_all=False):
                runs.update(start, end, _allowed)
                if record.alias is not None:
                    runs.update(record.alias, record.alias, _allowed)
            else:
                self._reserve_aliased(block, start, end, record)

    def _reserve_aliased(self, block: _Block, first: int, last: int, record: Record) -> None:
        """Map the memory for ids with this record, and for the id under which their unit sees them."""
        self._reserve(block, first, last)
        if record.alias is not None:
            self._reserve(block, record.alias, record.alias)

    def _reserve(self, block: _Block, first: int, last: int) -> None:
        """Map the memory 1:1 for the ids between two ids (inclusive); what is mapped equally stays."""
        runs = self._segments[0]
        self.kept.add(block.offset)
        for start, end, record in list(runs.runs(first, last)):
            maps = self._with(record.maps, block, start)
            runs.update(start, end, functools.partial(_mapped, maps=maps))

    def _with(self, maps: tuple[UnityMap, ...], block: _Block, routing: int) -> tuple[UnityMap, ...]:
        """Return the maps of an id with the block's added; Xen compares with the newest first."""
        new = block.map
        for number, each in enumerate(maps):
            if _is_same(each, new):
                both = attrs.evolve(each, offsets=each.offsets | new.offsets)
                return (*maps[:number], both, *maps[number + 1 :])
            if _overlap(each, new):
                self._reading.meet(
                    rules.IVMD_OVERLAP,
                    block.offset,
                    block.entry,
                    routing=routing,
                    pages=_pages(new),
                    other=_pages(each),
                )
        return (new, *maps)

    def _exclude(self, unit: AmdUnit, block: _Block, *, for_all: bool) -> bool:
        """Make a block part of a unit's exclusion range; return False if that range cannot take it.

        A unit has one range; it grows by a range that touches it and is for the same functions.
        """
        base, limit, offsets = block.base, block.limit, frozenset({block.offset})
        held = unit.exclusion
        if held is not None:
            apart = held.limit + PAGE_SIZE < base or limit + PAGE_SIZE < held.base
            if apart or held.for_all != for_all:
                return False
            base, limit, offsets = min(base, held.base), max(limit, held.limit), offsets | held.offsets
        unit.exclusion = Exclusion(base, limit, for_all, offsets)
        self.kept.add(block.offset)
        return True


def _mapped(record: Record, maps: tuple[UnityMap, ...]) -> Record:
    return attrs.evolve(record, maps=maps)


def _allowed(record: Record) -> Record:
    return attrs.evolve(record, excluded=True)


def _overlap(one: UnityMap, other: UnityMap) -> bool:
    return one.base + one.size > other.base and other.base + other.size > one.base


def _is_same(one: UnityMap, other: UnityMap) -> bool:
    alike = one.readable == other.readable and one.writable == other.writable
    return one.base == other.base and one.size == other.size and alike


def _pages(held: UnityMap) -> str:
    return f"{held.base:#x}-{held.base + held.size - 1:#x}"
