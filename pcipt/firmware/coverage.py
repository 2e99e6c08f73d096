"""Decide whether an IOMMU unit serves a function.

If no unit serves it, adding the function to Xen fails and leaves an orphan (a function that Xen has without
an owner). Xen decides by what it read at boot: the bus ranges below the bridges that DMAR's bridge scopes
name, and the routing ids in IVRS. So the bus ranges come from a snapshot that pcipt takes at its first run
after the boot, and not from the present registers of the bridges. Above segment 0 some versions cannot read
bridges while they read the DMAR (`firmware.mmcfg`): there a bridge scope stands for bus ff.
AMD-Vi has no bridge scopes: IVRS names functions.
Source: xen/drivers/passthrough/vtd/dmar.c, acpi_find_matched_drhd_unit, acpi_parse_dev_scope.
"""

import enum
import functools
from collections.abc import Iterable, Mapping, Sequence

from pcipt import values as attrs
from pcipt.firmware.acpi.dmar import (
    SCOPE_BRIDGE,
    SCOPES_OF_XEN,
    SIGNATURES,
    Dmar,
    RemappingUnit,
    Scope,
    parse_dmar,
)
from pcipt.firmware.acpi.ivrs import SIGNATURE, Ivrs, parse_ivrs
from pcipt.firmware.acpi.mcfg import SIGNATURE as MCFG
from pcipt.firmware.acpi.mcfg import parse_mcfg
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.amd import find_unit
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.mmcfg import Mmcfg, is_found_early, is_read_early, mmcfg_of
from pcipt.pci import Machine, PciPath, Sbdf, sbdf_from_devfn
from pcipt.pci.requester import Requester, Role, Vendor
from pcipt.xen.releases import Version

_LAST_BUS, _LONGEST = 0xFF, 0x100


class Coverage(enum.Enum):
    """How sure it is that an IOMMU unit serves a function.

    CERTAIN: the firmware's table alone shows it, no unit is needed, or there is no IOMMU. AT_BOOT: it follows
    from the boot snapshot. UNKNOWN: dom0 cannot read the table that says it, or it is not known whether Xen
    could read the bridge that the table names. NONE: neither the table nor the
    snapshot shows that a unit serves it.
    """

    CERTAIN = "certain"
    AT_BOOT = "at-boot"
    UNKNOWN = "unknown"
    NONE = "none"


@attrs.frozen(slots=False)
class BootSnapshot:
    """The functions and the bridges of the machine at pcipt's first reading in this boot.

    `bridges` maps each bridge that has a bus below it to its (secondary, subordinate) bus numbers. `late` is
    True if the first snapshot of this boot was lost: then this one shows what a later machine had, and proves
    nothing about the boot. A late one without functions is still to be made.
    """

    boot_id: str
    functions: frozenset[Sbdf]
    bridges: Mapping[Sbdf, tuple[int, int]]
    late: bool = False

    @property
    def is_lost(self) -> bool:
        """Return True if the snapshot was lost and not made anew yet."""
        return self.late and not self.functions

    def path_of(self, sbdf: Sbdf) -> PciPath | None:
        """Return the path of the function that was at an address at boot, whether or not one was there.

        Return None if the bridges above it form a loop.
        """
        hops: list[tuple[int, int, int]] = []
        bus, device, function = sbdf.bus, sbdf.device, sbdf.function
        while (above := self.bridge_above(sbdf.segment, bus)) is not None:
            hops.append((bus - self.bridges[above][0], device, function))
            if above.bus >= bus or len(hops) > _LONGEST:
                return None
            bus, device, function = above.bus, above.device, above.function
        return PciPath(sbdf.segment, ((bus, device, function), *reversed(hops)))

    def address_of(self, path: PciPath) -> Sbdf | None:
        """Return the address that the function with this path had at boot.

        Return None if a bridge on the path was not there, or had no bus below it.
        """
        base = 0
        for bus, device, function in path.hops[:-1]:
            numbers = self.bridges.get(Sbdf(path.segment, base + bus, device, function))
            if numbers is None:
                return None
            base = numbers[0]
        bus, device, function = path.hops[-1]
        return Sbdf(path.segment, base + bus, device, function) if base + bus <= _LAST_BUS else None

    def bridge_above(self, segment: int, bus: int) -> Sbdf | None:
        """Return the nearest of the bridges that passed a bus on at boot; None if no bridge did."""
        return self._above.get((segment, bus))

    @functools.cached_property
    def _above(self) -> Mapping[tuple[int, int], Sbdf]:
        """For each (segment, bus) below a bridge, the bridge with the highest secondary bus number."""
        found: dict[tuple[int, int], Sbdf] = {}
        for bridge, (secondary, subordinate) in sorted(self.bridges.items(), key=lambda item: item[1][0]):
            found.update({(bridge.segment, bus): bridge for bus in range(secondary, subordinate + 1)})
        return found


def snapshot_from_machine(boot_id: str, machine: Machine, *, late: bool = False) -> BootSnapshot:
    """Return the snapshot of a machine as it is now. `late`: an earlier one of this boot was lost.

    `functions` has all functions. `bridges` lacks the bridges whose secondary bus number is 0, because they
    have no bus below them.
    """
    bridges = {
        f.sbdf: (f.bridge.secondary, f.bridge.subordinate)
        for f in machine.functions.values()
        if f.bridge is not None and f.bridge.secondary
    }
    return BootSnapshot(boot_id, frozenset(machine.functions), bridges, late)


def snapshot_of_boot(before: BootSnapshot | None, boot_id: str, machine: Machine) -> BootSnapshot:
    """Return the snapshot that there is. If there is none or it was lost, make one; a lost one is late."""
    if before is not None and not before.is_lost:
        return before
    return snapshot_from_machine(boot_id, machine, late=before is not None)


@attrs.frozen
class IommuScope:
    """The IOMMU units of a machine: the firmware's tables and the boot snapshot.

    `dmar` and `ivrs` are None if the machine has no such table or dom0 cannot read it. `absent` is True if
    the machine has no IOMMU. `vendor` counts if neither table has units. `areas` are the areas of MMCFG, None
    if no table names them, and `version` is Xen's, None if it is not known: they decide which bridges above
    segment 0 Xen could read at boot.
    """

    snapshot: BootSnapshot
    dmar: Dmar | None = None
    ivrs: Ivrs | None = None
    absent: bool = False
    vendor: Vendor = Vendor.INTEL
    areas: tuple[Mmcfg, ...] | None = None
    version: Version | None = None

    def with_tables(
        self,
        tables: Iterable[bytes],
        memory: Sequence[MemoryEntry] | None = None,
        version: Version | None = None,
    ) -> "IommuScope":
        """Return the scope with DMAR, IVRS and MCFG among ACPI tables, and Xen's version.

        Other data is passed over. `memory` is the memory map. It or `version` is None if it is not known.
        """
        scope = attrs.evolve(self, version=version)
        for table in map(parse_table, tables):
            if table is not None and table.signature in SIGNATURES:
                scope = attrs.evolve(scope, dmar=parse_dmar(table))
            elif table is not None and table.signature == SIGNATURE:
                scope = attrs.evolve(scope, ivrs=parse_ivrs(table))
            elif table is not None and table.signature == MCFG and scope.areas is None:
                scope = attrs.evolve(scope, areas=mmcfg_of(parse_mcfg(table).regions, memory))
        return scope

    def covers(self, requester: Requester) -> Coverage:
        """Return how sure it is that Xen finds an IOMMU unit for a function, or needs none.

        If `absent` is True, the result is CERTAIN: there is no unit that could be missing. It is NONE for a
        reverse bridge, which Xen does not know on VT-d. It is CERTAIN for a function that needs no unit
        (`Requester.needs_unit`), but AT_BOOT if no table says whose units they are. Else, if `dmar` has
        units, the DMAR table decides; else, if `ivrs` has units, the IVRS table; else, as on a PVH dom0, the
        boot snapshot (`_by_snapshot`). What only a late snapshot shows is UNKNOWN.
        """
        vendor = self.vendor_in_use
        if self.absent:
            return Coverage.CERTAIN
        if requester.role is Role.REVERSE_BRIDGE and vendor is Vendor.INTEL:
            return Coverage.NONE
        dmar = self.dmar if self.dmar is not None and self.dmar.units else None
        ivrs = self.ivrs if self.ivrs is not None and self.ivrs.units else None
        if not requester.needs_unit(vendor):
            return Coverage.CERTAIN if dmar or ivrs else Coverage.AT_BOOT
        if dmar is not None:
            shown = self._by_dmar(requester.by_vtd, dmar)
        elif ivrs is not None:
            shown = self._by_ivrs(requester.sbdf, ivrs)
        else:
            shown = self._by_snapshot(requester, vendor)
        return Coverage.UNKNOWN if shown is Coverage.AT_BOOT and self.snapshot.late else shown

    @property
    def vendor_in_use(self) -> Vendor:
        """The vendor of the IOMMU: by the table that dom0 can read, else by the machine (`vendor`)."""
        if self.dmar is not None and self.dmar.units:
            return Vendor.INTEL
        return Vendor.AMD if self.ivrs is not None and self.ivrs.units else self.vendor

    def unit_of(self, requester: Requester) -> str | None:
        """Return the name of the IOMMU unit that serves a function.

        It is the address of the unit's registers (DMAR), or the address of the unit's own function (IVRS).
        Return None if no unit serves the function or the table that would tell cannot be read. A unit whose
        scopes name the function or a bridge above it goes before one with `include_all`.
        """
        if self.dmar is not None and self.dmar.units:
            unit = self.drhd_of(requester)
            return f"DRHD at {unit.base:#x}" if unit is not None else None
        if self.ivrs is not None and self.ivrs.units:
            at = requester.sbdf
            blocks = [block for block in self.ivrs.used if block.segment == at.segment]
            block = find_unit(blocks, at.bus << 8 | at.devfn)
            if block is not None:
                return f"IVHD of {sbdf_from_devfn(at.segment, block.device >> 8, block.device & 0xFF)}"
        return None

    def drhd_of(self, requester: Requester) -> RemappingUnit | None:
        """Return the unit of the DMAR that serves a function, as `unit_of` has it; None if there is none."""
        at = requester.by_vtd
        units = [unit for unit in (self.dmar.units if self.dmar else ()) if unit.segment == at.segment]
        for unit in units:
            if any(self._by_scope(at, scope) is not Coverage.NONE for scope in unit.scopes):
                return unit
        return next((unit for unit in units if unit.include_all), None)

    def lost_below(self, requester: Requester) -> Sbdf | None:
        """Return the bridge above a function that Xen could not read at boot, as far as is known.

        Return None if there is none, or if no unit would serve the function with the bridge read either.
        """
        bridge = self.snapshot.bridge_above(requester.sbdf.segment, requester.sbdf.bus)
        if bridge is None or self.reads(bridge):
            return None
        in_doubt = attrs.evolve(self, areas=None, version=None).covers(requester) is Coverage.UNKNOWN
        return bridge if in_doubt else None

    def reads(self, bridge: Sbdf) -> bool | None:
        """Return True if Xen could read a bridge while it read the tables; None if that is not known."""
        return is_read_early(bridge, self.areas, self.version)

    def finds(self, segment: int, functions: Iterable[Sbdf | None]) -> bool:
        """Return True if Xen found one of the functions when it read the tables (`is_found_early`)."""
        there = (sbdf for sbdf in functions if sbdf is not None and sbdf in self.snapshot.functions)
        return is_found_early(segment, there, self.areas, self.version)

    def _by_snapshot(self, requester: Requester, vendor: Vendor) -> Coverage:
        """Return AT_BOOT if the boot snapshot shows that a unit serves a function, else NONE or UNKNOWN.

        It shows that for VT-d if it has the function that VT-d looks for, or a bridge with the function's bus
        below it that Xen could read; if nobody knows whether it could, it is UNKNOWN. For AMD-Vi it shows
        that if it has the function itself or function 0 of its device: IVRS names functions, and says nothing
        about buses; so any other function is UNKNOWN.
        """
        functions = self.snapshot.functions
        if vendor is Vendor.AMD:
            at_boot = requester.sbdf in functions or requester.sbdf._replace(function=0) in functions
            return Coverage.AT_BOOT if at_boot else Coverage.UNKNOWN
        at = requester.by_vtd
        if at in functions:
            return Coverage.AT_BOOT
        above = [
            bridge
            for bridge, (secondary, subordinate) in self.snapshot.bridges.items()
            if bridge.segment == at.segment and secondary <= at.bus <= subordinate
        ]
        if any(map(self.reads, above)):
            return Coverage.AT_BOOT
        return Coverage.UNKNOWN if above else Coverage.NONE

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
        below the bridge that the scope names. UNKNOWN: it would be AT_BOOT, but nobody knows whether Xen
        could read the bridge. NONE: any other case, and a scope of a kind that Xen passes over. A function at
        the address that the firmware has for an IO-APIC or a HPET is named, too.
        """
        if scope.kind not in SCOPES_OF_XEN:
            return Coverage.NONE
        target = self.resolve(at.segment, scope)
        if target == at and len(scope.path) == 1:
            return Coverage.CERTAIN
        numbers = self._numbers(target) if target is not None else None
        below = scope.kind == SCOPE_BRIDGE and numbers is not None and numbers[0] <= at.bus <= numbers[1]
        if target is None or not (below or target == at):
            return Coverage.NONE
        return Coverage.UNKNOWN if self.reads(target) is None else Coverage.AT_BOOT

    def resolve(self, segment: int, scope: Scope) -> Sbdf | None:
        """Return the address of the function that a device scope names; None if its path leads to no address.

        The path is followed through the bridges of the boot snapshot; a bridge that Xen could not read leads
        to bus ff. None is returned if a bridge on the path is not in the snapshot, or if the path is empty.
        Of device and function numbers that do not exist only the low bits count, as in Xen (PCI_BDF). The
        last hop is not looked up: an address is returned whether or not the machine has a function there.
        """
        if not scope.path:
            return None
        bus = scope.bus
        path = [(device & 0x1F, function & 7) for device, function in scope.path]
        for device, function in path[:-1]:
            numbers = self._numbers(Sbdf(segment, bus, device, function))
            if numbers is None:
                return None
            bus = numbers[0]
        return Sbdf(segment, bus, *path[-1])

    def _numbers(self, bridge: Sbdf) -> tuple[int, int] | None:
        """Return the (secondary, subordinate) bus numbers that Xen has read at boot; None if none was there.

        Where Xen could not read, each register is ff.
        """
        return (_LAST_BUS, _LAST_BUS) if self.reads(bridge) is False else self.snapshot.bridges.get(bridge)

    @staticmethod
    def _by_ivrs(at: Sbdf, ivrs: Ivrs) -> Coverage:
        """Return CERTAIN if a unit of the IVRS table selects the function `at`, else NONE.

        A function that no unit selects has the unit of function 0 of its device. A virtual function counts by
        its own address. Only the blocks that Xen reads count (`Ivrs.used`).
        """
        units = [unit for unit in ivrs.used if unit.segment == at.segment]
        return Coverage.CERTAIN if find_unit(units, at.bus << 8 | at.devfn) is not None else Coverage.NONE


_RANK = [Coverage.NONE, Coverage.UNKNOWN, Coverage.AT_BOOT, Coverage.CERTAIN]
