"""Which functions an IOMMU unit stands before: an add to Xen outside of it fails and leaves an orphan.

Xen freezes the answer at boot: bus ranges of DMAR's bridge scopes are read then, IVRS names routing ids. So
ranges are taken from a snapshot made as early in the boot as pcipt runs, never from what bridges say now.

Source: xen/drivers/passthrough/vtd/dmar.c, acpi_find_matched_drhd_unit, acpi_parse_dev_scope.
"""

import enum
from collections.abc import Mapping, Sequence

import attrs

from pcipt.firmware.acpi.dmar import SCOPE_BRIDGE, SCOPE_ENDPOINT, Dmar, Scope
from pcipt.firmware.acpi.ivrs import Ivrs
from pcipt.pci import Machine, Sbdf


class Coverage(enum.Enum):
    """CERTAIN by the firmware's table alone; AT_BOOT by bus ranges of the snapshot; NONE otherwise."""

    CERTAIN = "certain"
    AT_BOOT = "at-boot"
    NONE = "none"


@attrs.frozen
class BootSnapshot:
    """The functions, and (secondary, subordinate) of each bridge, when this boot was first seen."""

    boot_id: str
    functions: frozenset[Sbdf]
    bridges: Mapping[Sbdf, tuple[int, int]]


def snapshot_from_machine(boot_id: str, machine: Machine) -> BootSnapshot:
    bridges = {
        f.sbdf: (f.bridge.secondary, f.bridge.subordinate)
        for f in machine.functions.values()
        if f.bridge is not None and f.bridge.secondary
    }
    return BootSnapshot(boot_id, frozenset(machine.functions), bridges)


@attrs.frozen
class IommuScope:
    """All that is known of the units: tables where dom0 can read them, and the snapshot."""

    snapshot: BootSnapshot
    dmar: Dmar | None = None
    ivrs: Ivrs | None = None
    absent: bool = False

    def covers(self, function: Sbdf, physfn: Sbdf | None = None) -> Coverage:
        """Judge one function; a virtual function is judged by its physical one, as Xen does.

        Without an IOMMU nothing can fail: CERTAIN. With a DMAR or IVRS table its word is final. Without one
        (PVH dom0) the function must have been there at boot or lie behind a bridge that was.
        """
        at = physfn or function
        if self.absent:
            return Coverage.CERTAIN
        if self.dmar is not None and self.dmar.units:
            return self._by_dmar(at, self.dmar)
        if self.ivrs is not None and self.ivrs.units:
            return self._by_ivrs(at, self.ivrs)
        behind_bridge = any(
            bridge.segment == at.segment and secondary <= at.bus <= subordinate
            for bridge, (secondary, subordinate) in self.snapshot.bridges.items()
        )
        return Coverage.AT_BOOT if at in self.snapshot.functions or behind_bridge else Coverage.NONE

    def _by_dmar(self, at: Sbdf, dmar: Dmar) -> Coverage:
        answer = Coverage.NONE
        for unit in dmar.units:
            if unit.segment != at.segment:
                continue
            if unit.include_all:
                return Coverage.CERTAIN
            answer = max((answer, *(self._by_scope(at, scope) for scope in unit.scopes)), key=_RANK.index)
        return answer

    def _by_scope(self, at: Sbdf, scope: Scope) -> Coverage:
        if scope.kind not in (SCOPE_ENDPOINT, SCOPE_BRIDGE):
            return Coverage.NONE
        target = self.resolve(at.segment, scope)
        if target == at:
            return Coverage.CERTAIN if len(scope.path) == 1 else Coverage.AT_BOOT
        numbers = self.snapshot.bridges.get(target) if target is not None else None
        if scope.kind == SCOPE_BRIDGE and numbers is not None and numbers[0] <= at.bus <= numbers[1]:
            return Coverage.AT_BOOT
        return Coverage.NONE

    def resolve(self, segment: int, scope: Scope) -> Sbdf | None:
        """Follow a scope's path through the bridges as they were at boot; None where a hop is missing."""
        if not scope.path or any(device > 0x1F or function > 7 for device, function in scope.path):
            return None
        bus = scope.bus
        for device, function in scope.path[:-1]:
            numbers = self.snapshot.bridges.get(Sbdf(segment, bus, device, function))
            if numbers is None:
                return None
            bus = numbers[0]
        return Sbdf(segment, bus, *scope.path[-1])

    @staticmethod
    def _by_ivrs(at: Sbdf, ivrs: Ivrs) -> Coverage:
        routing = at.bus << 8 | at.devfn
        for unit in ivrs.units:
            if unit.segment == at.segment and _within(routing, unit.selected):
                return Coverage.CERTAIN
        return Coverage.NONE


_RANK = [Coverage.NONE, Coverage.AT_BOOT, Coverage.CERTAIN]


def _within(routing: int, pairs: Sequence[tuple[int, int]]) -> bool:
    return any(first <= routing <= last for first, last in pairs)
