"""What Xen has of an accepted IVRS table: one record for each routing id of a segment, and the units.

Neighbouring ids with equal records are kept as one run. A routing id is bus << 8 | devfn.
Source: Xen drivers/passthrough/amd/iommu.h (struct ivrs_mappings), pci_amd_iommu.c (find_iommu_for_device),
        iommu_map.c (amd_iommu_get_reserved_device_memory).
"""

import bisect
from collections.abc import Callable, Iterator

from pcipt import values as attrs
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.pci.units import PAGE_SIZE

_FIRST_FUNCTION = 0xFFF8


@attrs.frozen
class UnityMap:
    """Memory that a unit maps 1:1: byte address and size, flags, and the offsets of its IVMD blocks."""

    base: int
    size: int
    readable: bool
    writable: bool
    offsets: frozenset[int]

    @property
    def frames(self) -> Frames | None:
        """Its pages; None if there are none."""
        count = self.size // PAGE_SIZE
        return Frames(Gfn(self.base // PAGE_SIZE), count) if count else None


@attrs.frozen
class Record:
    """What Xen has for a routing id.

    `unit` is an index of `AmdState.units`, None if no unit serves the id. `alias` is the id under which the
    unit sees it, None if that is its own. `excluded` is True if the exclusion range of the unit is for it.
    """

    unit: int | None = None
    alias: int | None = None
    maps: tuple[UnityMap, ...] = ()
    excluded: bool = False


class Runs:
    """The records of one segment's routing ids from 0 to `count` - 1."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._starts = [0]
        self._records = [Record()]

    def at(self, routing: int) -> Record:
        """Return the record of an id, which must be below `count`."""
        return self._records[bisect.bisect_right(self._starts, routing) - 1]

    def runs(self, first: int, last: int) -> Iterator[tuple[int, int, Record]]:
        """Yield (first, last, record) of the runs between two ids (inclusive), in ascending order."""
        for index in range(self._cut(first), self._cut(last + 1)):
            start = self._starts[index]
            after = self._starts[index + 1] if index + 1 < len(self._starts) else self.count
            yield start, after - 1, self._records[index]

    def update(self, first: int, last: int, change: Callable[[Record], Record]) -> None:
        """Replace the records of the ids between two ids (inclusive)."""
        for index in range(self._cut(first), self._cut(last + 1)):
            self._records[index] = change(self._records[index])

    def _cut(self, routing: int) -> int:
        """Let a run begin at an id; return its index. It is the number of runs if the id is `count`."""
        if routing >= self.count:
            return len(self._starts)
        index = bisect.bisect_left(self._starts, routing)
        if index == len(self._starts) or self._starts[index] != routing:
            self._starts.insert(index, routing)
            self._records.insert(index, self._records[index - 1])
        return index


@attrs.frozen
class Exclusion:
    """The one exclusion range of a unit: addresses of its first and last page, and for which functions.

    `offsets` are those of the IVMD blocks that went into it.
    """

    base: int
    limit: int
    for_all: bool
    offsets: frozenset[int]

    @property
    def frames(self) -> Frames | None:
        """Its pages; None if there are none."""
        first = self.base // PAGE_SIZE
        count = -(-(self.limit | 1) // PAGE_SIZE) - first
        return Frames(Gfn(first), count) if count > 0 else None


@attrs.define
class AmdUnit:
    """One IOMMU of an IVRS table.

    `device` is its own routing id, `capability` the offset of its capability in config space, `base` the
    address of its registers. `offset` is the offset of its IVHD block in the table.
    """

    segment: int
    device: int
    capability: int
    base: int
    offset: int
    exclusion: Exclusion | None = None


@attrs.frozen
class AmdState:
    """What Xen has of the whole table: `units` in table order, and the records by segment.

    `kept` are the offsets of the IVMD blocks that count for any routing id, `beyond` of those that lie above
    the addresses that the IOMMUs can use.
    """

    units: tuple[AmdUnit, ...]
    segments: dict[int, Runs]
    kept: frozenset[int]
    beyond: frozenset[int]

    def unit_of(self, sbdf: Sbdf) -> AmdUnit | None:
        """Return the unit that Xen finds for a function; None if there is none."""
        found = self._found(sbdf)
        return self.units[found.unit] if found is not None and found.unit is not None else None

    def regions_of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the reserved pages that Xen lists for a function: those of its unit's exclusion range first.

        Reserved memory counts for segment 0 only.
        """
        found, unit = self._found(sbdf), self.unit_of(sbdf)
        if found is None or unit is None or sbdf.segment:
            return ()
        held = unit.exclusion
        excluded = [held.frames] if held is not None and (held.for_all or found.excluded) else []
        spans = (*excluded, *(each.frames for each in found.maps))
        return tuple(frames for frames in spans if frames is not None)

    def blocks_of(self, routing: int) -> frozenset[int]:
        """Return the offsets of the IVMD blocks that count for a routing id of segment 0."""
        sbdf = Sbdf(0, routing >> 8, routing >> 3 & 0x1F, routing & 7)
        found, unit = self._found(sbdf), self.unit_of(sbdf)
        if found is None or unit is None:
            return frozenset()
        held = unit.exclusion
        excluded = held is not None and (held.for_all or found.excluded)
        mapped = frozenset(offset for each in found.maps for offset in each.offsets)
        return mapped | held.offsets if held is not None and excluded else mapped

    def _found(self, sbdf: Sbdf) -> Record | None:
        """Return the record of a function; that of function 0 of its device if no unit serves it itself.

        A unit's own id takes over nothing from function 0.
        """
        runs, routing = self.segments.get(sbdf.segment), sbdf.bus << 8 | sbdf.devfn
        if runs is None or routing >= runs.count:
            return None
        own = runs.at(routing)
        first = runs.at(routing & _FIRST_FUNCTION)
        if own.unit is None and first.unit is not None and self.units[first.unit].device != routing:
            return first
        return own
