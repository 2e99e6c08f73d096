"""Decide whether an IOMMU unit serves a function.

If no unit serves it, adding the function to Xen fails and leaves an orphan (a function that Xen has without
an owner). Xen decides by what it read at boot: the bus ranges below the bridges that DMAR's bridge scopes
name, and the routing ids in IVRS. So the bus ranges come from a snapshot that pcipt takes at its first run
after the boot, and not from the present registers of the bridges.
Source: xen/drivers/passthrough/vtd/dmar.c, acpi_find_matched_drhd_unit, acpi_parse_dev_scope.
"""

import enum
from collections.abc import Mapping, Sequence

import attrs

from pcipt.firmware.acpi.dmar import SCOPE_BRIDGE, SCOPE_ENDPOINT, Dmar, Scope
from pcipt.firmware.acpi.ivrs import Ivrs
from pcipt.pci import Machine, Sbdf


class Coverage(enum.Enum):
    """How sure it is that an IOMMU unit serves a function.

    CERTAIN: the firmware's table alone shows it, or there is no IOMMU. AT_BOOT: it follows from the boot
    snapshot. NONE: neither the table nor the snapshot shows that a unit serves it.
    """

    CERTAIN = "certain"
    AT_BOOT = "at-boot"
    NONE = "none"


@attrs.frozen
class BootSnapshot:
    """The functions and the bridges of the machine at pcipt's first reading in this boot.

    `bridges` maps each bridge that has a bus below it to its (secondary, subordinate) bus numbers.
    """

    boot_id: str
    functions: frozenset[Sbdf]
    bridges: Mapping[Sbdf, tuple[int, int]]


def snapshot_from_machine(boot_id: str, machine: Machine) -> BootSnapshot:
    """Return the snapshot of a machine as it is now.

    `functions` has all functions. `bridges` lacks the bridges whose secondary bus number is 0, because they
    have no bus below them.
    """
    bridges = {
        f.sbdf: (f.bridge.secondary, f.bridge.subordinate)
        for f in machine.functions.values()
        if f.bridge is not None and f.bridge.secondary
    }
    return BootSnapshot(boot_id, frozenset(machine.functions), bridges)


@attrs.frozen
class IommuScope:
    """The IOMMU units of a machine: the firmware's tables and the boot snapshot.

    `dmar` and `ivrs` are None if the machine has no such table or dom0 cannot read it. `absent` is True if
    the machine has no IOMMU.
    """

    snapshot: BootSnapshot
    dmar: Dmar | None = None
    ivrs: Ivrs | None = None
    absent: bool = False

    def covers(self, function: Sbdf, physfn: Sbdf | None = None) -> Coverage:
        """Return how sure it is that an IOMMU unit serves `function`.

        If `function` is a virtual function, `physfn` must be its physical function. The result is then that
        of `physfn`, because Xen decides by the physical function.
        If `absent` is True, the result is CERTAIN: there is no unit that could be missing. Else, if `dmar`
        has units, the DMAR table decides. Else, if `ivrs` has units, the IVRS table decides.
        If neither table has units (as on a PVH dom0), the boot snapshot decides. The result is AT_BOOT if the
        snapshot has the function, or has a bridge with the function's bus below it. Else it is NONE.
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
        """Return how sure the DMAR table makes it that a unit serves the function `at`.

        Only units of the function's segment count. The result is CERTAIN if one of them has `include_all`.
        Else it is the highest result of `_by_scope` for their scopes. It is NONE if there is no such unit, or
        if none has a scope.
        """
        answer = Coverage.NONE
        for unit in dmar.units:
            if unit.segment != at.segment:
                continue
            if unit.include_all:
                return Coverage.CERTAIN
            answer = max((answer, *(self._by_scope(at, scope) for scope in unit.scopes)), key=_RANK.index)
        return answer

    def _by_scope(self, at: Sbdf, scope: Scope) -> Coverage:
        """Return how sure it is that a device scope names the function `at` or a bridge above it.

        CERTAIN: the scope names `at`, and its path has one hop. AT_BOOT: the scope names `at`, and its path
        has several hops. AT_BOOT too: the scope is a bridge scope, and in the snapshot the bus of `at` is
        below the bridge that the scope names. NONE: any other case. A scope that is neither endpoint nor
        bridge always gives NONE.
        """
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
        """Return the address of the function that a device scope names; None if its path leads to no address.

        The path is followed through the bridges of the boot snapshot. None is returned if a bridge on the
        path is not in the snapshot, if the path is empty, or if a hop has a device above 1F or a function
        above 7. The last hop is not looked up: an address is returned whether or not the machine has a
        function there.
        """
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
        """Return CERTAIN if a unit of the IVRS table selects the routing id of `at`, else NONE."""
        routing = at.bus << 8 | at.devfn
        for unit in ivrs.units:
            if unit.segment == at.segment and _within(routing, unit.selected):
                return Coverage.CERTAIN
        return Coverage.NONE


_RANK = [Coverage.NONE, Coverage.AT_BOOT, Coverage.CERTAIN]


def _within(routing: int, pairs: Sequence[tuple[int, int]]) -> bool:
    """Return True if one of the pairs (first, last), both inclusive, contains the routing id."""
    return any(first <= routing <= last for first, last in pairs)
