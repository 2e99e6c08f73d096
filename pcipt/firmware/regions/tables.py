"""Make reserved regions of DMAR and IVRS tables, with the functions for which Xen keeps them.

The devices of an RMRR are found by following the paths of its scopes through the machine's bridges; without a
machine only scopes of one hop are found. For which functions Xen keeps an IVMD block: firmware/amd.py.
Above segment 0 some versions of Xen cannot read bridges or functions while they read the table
(`firmware.mmcfg`).
Source: xen/drivers/passthrough/vtd/dmar.c, acpi_parse_dev_scope, register_one_rmrr, for_each_rmrr_device.
"""

from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.acceptance.amd_state import AmdState
from pcipt.firmware.acceptance.judge import state_of
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acpi.dmar import (
    SCOPE_BRIDGE,
    SCOPE_ENDPOINT,
    SCOPES_OF_XEN,
    SIGNATURES,
    ReservedRegion,
    Scope,
    parse_dmar,
)
from pcipt.firmware.acpi.ivrs import (
    IVMD_EXCLUSION,
    IVMD_ONE,
    IVMD_UNITY,
    SIGNATURE,
    MemoryBlock,
    parse_added,
    parse_ivrs,
)
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope, snapshot_from_machine
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.regions.added import BY_IVMD, OPTION, added_rmrrs
from pcipt.firmware.regions.regions import Region, RegionDevice, RegionKind, Regions, RegionScope
from pcipt.pci import Address, Finding, Machine, Sbdf, sbdf_from_devfn
from pcipt.xen.releases import IVMD_WITHOUT_UNIT_ENDS_AMD_VI, SEGMENTS_READ_FOR_IOMMU, Version

SCOPE_WORDS = {1: "endpoint", 2: "bridge", 3: "ioapic", 4: "hpet", 5: "namespace"}
_ABSENT = (
    "the machine has none of its devices: Xen drops the region at boot, and does not add it when such a "
    "device is plugged in"
)
_UNREADABLE = (
    "this Xen cannot read the segment of its devices when it reads the table, because the memory map does "
    "not reserve the segment's MMCFG. Xen therefore takes the devices for absent and drops the region at "
    "boot"
)
_BEYOND = "it lies above the addresses that the table lets the IOMMUs use (IVinfo): Xen ignores the region"
_UNSERVED = (
    "in the table no IOMMU unit for its functions comes before it: Xen ignores the region, and Xen before "
    f"{IVMD_WITHOUT_UNIT_ENDS_AMD_VI.ends} refuses the table"
)
_DEFAULTS = Options()
_EMPTY_SNAPSHOT = BootSnapshot("", frozenset(), {})


def have_regions(tables: Iterable[bytes]) -> bool:
    """Return True if `regions_from_tables` would look for regions in one of the tables, by its signature."""
    return any(data[:4].decode("latin-1") in (*SIGNATURES, SIGNATURE) for data in tables)


def regions_from_tables(
    tables: Iterable[bytes],
    machine: Machine | None,
    snapshot: BootSnapshot | None = None,
    options: Options = _DEFAULTS,
    memory: Sequence[MemoryEntry] | None = None,
    version: Version | None = None,
) -> Regions:
    """Return the regions of all DMAR and IVRS tables, in the order of the tables.

    Other tables, and bytes too short for a table, are ignored. An IVMD block whose size is 0 or that runs
    past 2^64 is left out with a finding. Devices are found through the bridges as they are now in `machine`.
    If `machine` is None, only devices whose path has one hop are found, and it is not known which are
    present. The boot `snapshot` only serves to find paths that led elsewhere at boot; each such path gives a
    finding of its region. `options` are those of Xen's command line: regions that rmrr= adds follow those of
    a DMAR, those that ivmd= adds follow those of an IVRS. `memory` is the flat memory map (`added_rmrrs`).
    `version` is Xen's, None if it is not known; with MCFG among `tables` it decides what Xen could read of
    segments above 0.
    """
    tables = list(tables)
    now = snapshot_from_machine("", machine) if machine is not None else _EMPTY_SNAPSHOT
    boot = IommuScope(snapshot) if snapshot is not None else None
    by_xen = (boot or IommuScope(now)).with_tables(tables, memory, version)
    resolver = _Resolver(machine, IommuScope(now), boot, by_xen)
    regions: list[Region] = []
    findings: list[Finding] = []
    signatures: list[str] = []
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            dmar = parse_dmar(table)
            own = list(map(resolver.rmrr, dmar.regions))
            more, passed_over = added_rmrrs(options.rmrr, own, machine, memory)
            regions += (*own, *more)
            findings += (*dmar.findings, *passed_over)
        elif table.signature == SIGNATURE:
            ivrs = parse_ivrs(table)
            findings += ivrs.findings
            state = state_of(data, options.ivmd)
            added = parse_added(options.ivmd, len(table.data))
            for block in (*ivrs.blocks, *added):
                if 0 < block.size <= (1 << 64) - block.start:
                    region = resolver.ivmd(block, state)
                    note = (BY_IVMD,) if block in added else ()
                    regions.append(attrs.evolve(region, findings=(*region.findings, *note)))
                else:
                    what = f"at {block.offset:#x}: {block.size:#x} bytes from {block.start:#x} are no range"
                    findings.append(Finding("acpi-entry", what))
        else:
            continue
        signatures.append(table.signature)
    if signatures:
        findings += (Finding(OPTION, each) for each in options.faults)
    return Regions(tuple(regions), tuple(findings), tuple(signatures))


def _other_function(meant: Sbdf, by_xen: Sbdf | None) -> str:
    """Return the text of the finding that Xen has a region for another function than firmware means."""
    return (
        f"Xen could not read the bridges above {meant} when it read the table, and has the region for "
        f"{by_xen}. dom0 keeps the region, and DMA of {meant} to the region is refused in a guest; use Xen "
        f"{SEGMENTS_READ_FOR_IOMMU.begins} or newer, with firmware that reserves MMCFG"
    )


@attrs.frozen
class _Resolver:
    """Converts table entries into regions.

    `now` follows paths through the present bridges, `boot` through the bridges of the boot snapshot, `by_xen`
    as Xen did. `boot` None means that there is no snapshot.
    """

    machine: Machine | None
    now: IommuScope
    boot: IommuScope | None
    by_xen: IommuScope

    def rmrr(self, region: ReservedRegion) -> Region:
        """Return the region of an RMRR. Its devices are the functions of its endpoint and bridge scopes."""
        scopes: list[RegionScope] = []
        findings: list[Finding] = []
        dropped, misread = self._dropped(region), dict[Sbdf, Sbdf | None]()
        for scope in region.scopes:
            word = SCOPE_WORDS.get(scope.kind, f"type-{scope.kind:x}")
            leads_to = self.now.resolve(region.segment, scope)
            scopes.append(RegionScope(word, scope.bus, scope.path, leads_to))
            if scope.kind in (SCOPE_ENDPOINT, SCOPE_BRIDGE):
                findings += self._moved(region.segment, scope, leads_to)
                misread |= {} if dropped else self._misread(region.segment, scope)
        findings += (Finding("region-misread", _other_function(*each)) for each in misread.items())
        named: list[Sbdf] = []
        counted = [each for each, raw in zip(scopes, region.scopes, strict=True) if raw.kind in SCOPES_OF_XEN]
        for each in counted:
            if each.sbdf is not None and not (each.sbdf.bus or each.sbdf.devfn):
                break  # Xen takes bus 0, device 0, function 0 for the end of its list
            if each.sbdf is not None and (each.kind in ("endpoint", "bridge") or self._there(each.sbdf)):
                named.append(each.sbdf)
        return Region(
            RegionKind.RMRR,
            region.segment,
            region.base,
            region.limit,
            tuple(scopes),
            self._devices(named),
            findings=tuple(findings),
            dropped=dropped,
            misread=tuple(misread),
        )

    def _dropped(self, region: ReservedRegion) -> str:
        """Return why Xen has dropped an RMRR; empty if it has not, and if that is not known.

        Xen drops it if it found none of the functions that it names. A scope whose path leads nowhere names
        nothing that answers.
        """
        scopes = [scope for scope in region.scopes if scope.kind in SCOPES_OF_XEN]
        if self.machine is None or not scopes:
            return ""
        named = [self.by_xen.resolve(region.segment, scope) for scope in scopes]
        if self.by_xen.finds(region.segment, named):
            return ""
        meant = ((self.boot or self.now).resolve(region.segment, scope) for scope in scopes)
        there = any(sbdf in self.by_xen.snapshot.functions for sbdf in meant if sbdf is not None)
        return _UNREADABLE if there else _ABSENT

    def _misread(self, segment: int, scope: Scope) -> dict[Sbdf, Sbdf | None]:
        """Return the function that a scope named at boot, with the other one that Xen took it for.

        Return nothing if Xen could read the bridges on the path, and if that is not known.
        """
        meant = (self.boot or self.now).resolve(segment, scope)
        by_xen = self.by_xen.resolve(segment, scope)
        return {meant: by_xen} if meant is not None and meant != by_xen else {}

    def _there(self, sbdf: Sbdf) -> bool:
        """Return True if the machine is known and has a function at this address."""
        return self.machine is not None and sbdf in self.machine.functions

    def ivmd(self, block: MemoryBlock, state: AmdState | None) -> Region:
        """Return the region of an IVMD block; its `size` must not be 0.

        The devices are the functions of the machine for which Xen applies the block. If the block names one
        function, the region has this device, whether or not the machine has it. Without a machine there are
        no others. A block that Xen applies to no function has no devices. The kind is EXCLUSION if the
        exclusion flag is set, else UNITY if the unity flag is set, else NEITHER. `state` is what Xen has of
        the table, None if it refuses the table: then the devices are the functions that the block names.
        """
        first, last = (
            sbdf_from_devfn(block.segment, number >> 8, number & 0xFF) for number in (block.first, block.last)
        )
        kind = RegionKind.NEITHER
        if block.flags & IVMD_EXCLUSION:
            kind = RegionKind.EXCLUSION
        elif block.flags & IVMD_UNITY:
            kind = RegionKind.UNITY
        ends = None if first == last else last
        scope = RegionScope("endpoint", first.bus, ((first.device, first.function),), first, ends)
        dropped = ""
        if state is not None and block.offset not in state.kept:
            dropped = _BEYOND if block.offset in state.beyond else _UNSERVED
        limit = Address(block.start + block.size - 1)
        return Region(
            kind,
            block.segment,
            block.start,
            limit,
            (scope,),
            self._devices(self._users(block, state)),
            dropped=dropped,
        )

    def _users(self, block: MemoryBlock, state: AmdState | None) -> Iterator[Sbdf]:
        """Yield the functions for which an IVMD block counts: the one that it names, then others."""
        named = {block.first} if block.kind == IVMD_ONE else set()
        here = self.machine.functions if self.machine is not None else ()
        for routing in (*named, *(sbdf.bus << 8 | sbdf.devfn for sbdf in here if not sbdf.segment)):
            inside = (
                block.first <= routing <= block.last
                if state is None
                else block.offset in state.blocks_of(routing)
            )
            if inside:
                yield sbdf_from_devfn(0, routing >> 8, routing & 0xFF)

    def _devices(self, named: Iterable[Sbdf]) -> tuple[RegionDevice, ...]:
        """Return a `RegionDevice` for each address in `named`, in this order, without repetitions.

        Its `present` is True if the machine has a function at the address; None if no machine is known.
        """
        functions = self.machine.functions if self.machine is not None else None
        return tuple(
            RegionDevice(sbdf, None if functions is None else sbdf in functions)
            for sbdf in dict.fromkeys(named)
        )

    def _moved(self, segment: int, scope: Scope, leads_to: Sbdf | None) -> Iterator[Finding]:
        """Yield one finding if the path of a scope leads nowhere now, or elsewhere than at boot.

        `leads_to` is the function to which the path leads now; None if it leads nowhere. If there is no boot
        snapshot, or the path led nowhere at boot, only a path that leads nowhere now gives the finding. Yield
        nothing without a machine. Yield nothing for a path of fewer than two hops.
        """
        if self.machine is None or len(scope.path) < 2:
            return
        hops = ", ".join(f"{device:02x}.{function:x}" for device, function in scope.path)
        at_boot = self.boot.resolve(segment, scope) if self.boot is not None else None
        if leads_to is None:
            why = f"the path {hops} from bus {scope.bus:02x} leads nowhere now"
            where = (
                f", at boot it led to {at_boot}"
                if at_boot is not None
                else ("; or a bridge on this path has left")
            )
        elif at_boot is not None and at_boot != leads_to:
            why = f"the path {hops} from bus {scope.bus:02x} leads to {leads_to} now"
            where = f", at boot it led to {at_boot}, which is where Xen looks for the device"
        else:
            return
        yield Finding("buses-renumbered", f"buses renumbered since boot: {why}{where}")
