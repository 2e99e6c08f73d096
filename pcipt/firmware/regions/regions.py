"""Read from DMAR and IVRS tables the memory that firmware reserved for devices, and find these devices.

One `Region` describes an RMRR, an IVMD block or a region that only Xen lists. A region keeps the table's
numbers, even if they are wrong. Its devices are given twice: `scopes` as in the table, `devices` as found by
following the paths through the machine's bridges. Without a machine only scopes of one hop are found, and it
is not known which devices are present.
Source: xen/drivers/passthrough/vtd/dmar.c, register_one_rmrr; AMD IOMMU 3.07 §5.2.2.7 (IVMD).
"""

import enum
from collections.abc import Iterable, Iterator

import attrs

from pcipt.firmware.acpi.dmar import (
    SCOPE_BRIDGE,
    SCOPE_ENDPOINT,
    SIGNATURES,
    ReservedRegion,
    Scope,
    parse_dmar,
)
from pcipt.firmware.acpi.ivrs import IVMD_EXCLUSION, IVMD_UNITY, SIGNATURE, MemoryBlock, parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope, snapshot_from_machine
from pcipt.pci import (
    Address,
    Finding,
    Frames,
    Machine,
    Range,
    Sbdf,
    frames_from_range,
    range_from_inclusive,
    sbdf_from_devfn,
)

SCOPE_WORDS = {1: "endpoint", 2: "bridge", 3: "ioapic", 4: "hpet", 5: "namespace"}
_COUNTED = ("endpoint", "bridge", "ioapic", "hpet")  # Xen counts these: dmar.c, scope_device_count
UNKNOWN_OWNER = "unknown"
_EMPTY_SNAPSHOT = BootSnapshot("", frozenset(), {})


class RegionKind(enum.Enum):
    """Which kind of table entry the region comes from."""

    RMRR = "rmrr"
    UNITY = "ivmd-unity"
    EXCLUSION = "ivmd-exclusion"
    NEITHER = "ivmd"  # an IVMD block with neither flag
    LISTED = "rdm"  # Xen lists it, and no table was read

    @property
    def title(self) -> str:
        """The kind as a word for reports: RMRR, IVMD or RDM."""
        return self.value.partition("-")[0].upper()


class Mapped(enum.Enum):
    """Whether the region is mapped in dom0, and who mapped it.

    WITHDRAWN: pcipt unmapped it after the last device of the region had left dom0. NOT_APPLICABLE: dom0 is a
    PV domain, in which nothing is mapped in this way.
    """

    BY_XEN = "by-xen"
    BY_PCIPT = "by-pcipt"
    WITHDRAWN = "withdrawn"
    NO = "no"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"


@attrs.frozen
class RegionScope:
    """One device scope as in the table, and the function that it names.

    `kind` is a word: endpoint, bridge, ioapic, hpet, namespace, or "type-N". `sbdf` is the function; None if
    the path leads to none. If `last` is not None (IVMD only), the scope names the functions from `sbdf` to
    `last` (inclusive).
    """

    kind: str
    bus: int
    path: tuple[tuple[int, int], ...]
    sbdf: Sbdf | None
    last: Sbdf | None = None


@attrs.frozen
class RegionDevice:
    """A function for which the region is reserved.

    `present` is True if the machine has the function, False if not, None if that is not known. `owner` is a
    word for a report: dom0, dom_io, a guest, or unknown.
    """

    sbdf: Sbdf
    present: bool | None
    owner: str = UNKNOWN_OWNER


@attrs.frozen
class Region:
    """One reserved region, from the byte address `base` to `limit` (inclusive).

    `limit` is below `base` if the table is wrong; the region is then empty. `listed` is True if Xen lists the
    region, False if not, None if Xen was not asked or the region is empty.
    """

    kind: RegionKind
    segment: int
    base: Address
    limit: Address
    scopes: tuple[RegionScope, ...]
    devices: tuple[RegionDevice, ...]
    mapped: Mapped = Mapped.UNKNOWN
    listed: bool | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def range(self) -> Range | None:
        """The bytes of the region; None if it is empty (`limit` is below `base`)."""
        return range_from_inclusive(self.base, self.limit)

    @property
    def frames(self) -> Frames | None:
        """The whole pages that the region touches; None if it is empty (`limit` is below `base`)."""
        span = self.range
        return frames_from_range(span) if span is not None else None

    @property
    def present(self) -> tuple[Sbdf, ...]:
        """The functions of `devices` that the machine is known to have, in the order of `devices`."""
        return tuple(device.sbdf for device in self.devices if device.present)

    @property
    def named(self) -> int:
        """The number of functions that the firmware names for this region, counted as Xen counts them.

        Namespace scopes (devices that only ACPI names) and scopes of unknown types are left out. A scope
        whose path leads to no function adds 1.
        """
        return sum(_count(scope) for scope in self.scopes if scope.kind in _COUNTED)

    @property
    def shared(self) -> bool:
        """True if the region has more than one device, or firmware names more than one function for it."""
        return len(self.devices) > 1 or self.named > 1

    @property
    def needs_relaxed(self) -> bool:
        """True if xl needs rdm_policy=relaxed: under a strict policy Xen refuses to assign these devices.

        It is False if the region is not shared. A shared region needs it on VT-d, and does not need it on
        AMD. If no table shows whether the IOMMU is Intel's or AMD's, it is True for a shared region: relaxed
        works with both.
        Source: xen/drivers/passthrough/vtd/iommu.c, intel_iommu_assign_device.
        """
        return self.kind in (RegionKind.RMRR, RegionKind.LISTED) and self.shared

    def __str__(self) -> str:
        return f"{self.base:#x}-{self.limit:#x}"


@attrs.frozen
class Regions:
    """All regions of a machine in table order, and the findings about the tables as a whole.

    Regions that only Xen lists follow those of the tables. `signatures` are those of the DMAR and IVRS tables
    that were read.
    """

    regions: tuple[Region, ...] = ()
    findings: tuple[Finding, ...] = ()
    signatures: tuple[str, ...] = ()

    def of(self, sbdf: Sbdf) -> tuple[Region, ...]:
        """Return the regions that have the function among their devices, in the order of `regions`."""
        return tuple(
            region for region in self.regions if any(device.sbdf == sbdf for device in region.devices)
        )

    def sharers(self, region: Region) -> tuple[Sbdf, ...]:
        """Return the functions that need pages of `region`, without repetitions.

        These are the devices of `region`, and the devices of regions that share a page with it, in the order
        of `regions`. `region` must be one of `regions`.
        """
        frames = region.frames
        holders = (
            each
            for each in self.regions
            if each is region
            or (frames is not None and each.frames is not None and each.frames.overlaps(frames))
        )
        return tuple(dict.fromkeys(device.sbdf for each in holders for device in each.devices))


def regions_from_tables(
    tables: Iterable[bytes], machine: Machine | None, snapshot: BootSnapshot | None = None
) -> Regions:
    """Return the regions of all DMAR and IVRS tables, in the order of the tables.

    Other tables, and bytes too short for a table, are ignored. An IVMD block whose size is 0 or that runs
    past 2^64 is left out with a finding. Devices are found through the bridges as they are now in `machine`.
    If `machine` is None, only devices whose path has one hop are found, and it is not known which are
    present. The boot `snapshot` only serves to find paths that led elsewhere at boot; each such path gives a
    finding of its region.
    """
    now = snapshot_from_machine("", machine) if machine is not None else _EMPTY_SNAPSHOT
    resolver = _Resolver(machine, IommuScope(now), IommuScope(snapshot) if snapshot is not None else None)
    regions: list[Region] = []
    findings: list[Finding] = []
    signatures: list[str] = []
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            dmar = parse_dmar(table)
            regions += map(resolver.rmrr, dmar.regions)
            findings += dmar.findings
        elif table.signature == SIGNATURE:
            ivrs = parse_ivrs(table)
            findings += ivrs.findings
            for block in ivrs.blocks:
                if 0 < block.size <= (1 << 64) - block.start:
                    regions.append(resolver.ivmd(block))
                else:
                    what = f"at {block.offset:#x}: {block.size:#x} bytes from {block.start:#x} are no range"
                    findings.append(Finding("acpi-entry", what))
        else:
            continue
        signatures.append(table.signature)
    return Regions(tuple(regions), tuple(findings), tuple(signatures))


@attrs.frozen
class _Resolver:
    """Converts table entries into regions.

    `now` follows paths through the present bridges, `boot` through the bridges of the boot snapshot. `boot`
    None means that there is no snapshot.
    """

    machine: Machine | None
    now: IommuScope
    boot: IommuScope | None

    def rmrr(self, region: ReservedRegion) -> Region:
        """Return the region of an RMRR. Its devices are the functions of its endpoint and bridge scopes."""
        scopes: list[RegionScope] = []
        findings: list[Finding] = []
        for scope in region.scopes:
            word = SCOPE_WORDS.get(scope.kind, f"type-{scope.kind:x}")
            leads_to = self.now.resolve(region.segment, scope)
            scopes.append(RegionScope(word, scope.bus, scope.path, leads_to))
            if scope.kind in (SCOPE_ENDPOINT, SCOPE_BRIDGE):
                findings += self._moved(region.segment, scope, leads_to)
        named = (each.sbdf for each in scopes if each.kind in ("endpoint", "bridge"))
        return Region(
            RegionKind.RMRR,
            region.segment,
            region.base,
            region.limit,
            tuple(scopes),
            self._devices(sbdf for sbdf in named if sbdf is not None),
            findings=tuple(findings),
        )

    def ivmd(self, block: MemoryBlock) -> Region:
        """Return the region of an IVMD block, whose `size` must not be 0.

        If the block names one function, the region has this device, whether or not the machine has it. If it
        names a range of functions, the devices are those functions of the machine that are in the range;
        there are none without a machine. The kind is EXCLUSION if the exclusion flag is set, else UNITY if
        the unity flag is set, else NEITHER, with a finding.
        """
        first, last = (
            sbdf_from_devfn(block.segment, number >> 8, number & 0xFF) for number in (block.first, block.last)
        )
        kind = RegionKind.NEITHER
        findings: tuple[Finding, ...] = ()
        if block.flags & IVMD_EXCLUSION:
            kind = RegionKind.EXCLUSION
        elif block.flags & IVMD_UNITY:
            kind = RegionKind.UNITY
        else:
            why = f"its flags {block.flags:#04x} make it neither a unity map nor an exclusion range"
            findings = (Finding("ivmd-flags", f"{why}: Xen refuses the table"),)
        ends = None if first == last else last
        scope = RegionScope("endpoint", first.bus, ((first.device, first.function),), first, ends)
        named: Iterable[Sbdf] = (first,)
        if ends is not None:
            named = [sbdf for sbdf in self.machine.functions if first <= sbdf <= last] if self.machine else ()
        limit = Address(block.start + block.size - 1)
        return Region(
            kind, block.segment, block.start, limit, (scope,), self._devices(named), findings=findings
        )

    def _devices(self, named: Iterable[Sbdf]) -> tuple[RegionDevice, ...]:
        """Return the devices without repetitions, in the order of `named`.

        `present` is None if there is no machine.
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
            where = f", at boot it led to {at_boot}" if at_boot is not None else "; or a bridge on it is gone"
        elif at_boot is not None and at_boot != leads_to:
            why = f"the path {hops} from bus {scope.bus:02x} leads to {leads_to} now"
            where = f", at boot it led to {at_boot}, which is where Xen looks for the device"
        else:
            return
        yield Finding("buses-renumbered", f"buses renumbered since boot: {why}{where}")


def _count(scope: RegionScope) -> int:
    """Return the number of functions that a scope names: 1, or the length of its range.

    A range whose last function is below its first has the length 0.
    """
    if scope.sbdf is None or scope.last is None:
        return 1
    return max((scope.last.bus << 8 | scope.last.devfn) - (scope.sbdf.bus << 8 | scope.sbdf.devfn) + 1, 0)
