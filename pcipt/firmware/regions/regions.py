"""Memory that firmware reserved for devices (RMRR, IVMD, or as Xen lists it), and which devices it is for.

One model for every source. A region is as the table writes it, oddities included; what it is for is told
twice: `scopes` as written, `devices` as resolved through the machine's bridges. Without a machine only scopes
of one hop can be resolved, and nobody is known to be present.
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
_COUNTED = ("endpoint", "bridge", "ioapic", "hpet")  # as Xen does: dmar.c, scope_device_count
UNKNOWN_OWNER = "unknown"
_EMPTY_SNAPSHOT = BootSnapshot("", frozenset(), {})


class RegionKind(enum.Enum):
    RMRR = "rmrr"
    UNITY = "ivmd-unity"
    EXCLUSION = "ivmd-exclusion"
    NEITHER = "ivmd"  # neither flag is set
    LISTED = "rdm"  # Xen lists it, no table tells more

    @property
    def title(self) -> str:
        return self.value.partition("-")[0].upper()


class Mapped(enum.Enum):
    """Whether dom0 has the region mapped and by whom; NOT_APPLICABLE is a PV dom0."""

    BY_XEN = "by-xen"
    BY_PCIPT = "by-pcipt"
    WITHDRAWN = "withdrawn"
    NO = "no"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"


@attrs.frozen
class RegionScope:
    """A scope as the table writes it and where it leads; IVMD ranges go from `sbdf` to `last` (inclusive)."""

    kind: str
    bus: int
    path: tuple[tuple[int, int], ...]
    sbdf: Sbdf | None
    last: Sbdf | None = None


@attrs.frozen
class RegionDevice:
    """A function that the region is for; `present` None is unknown, `owner` is dom0, dom_io, a guest, …"""

    sbdf: Sbdf
    present: bool | None
    owner: str = UNKNOWN_OWNER


@attrs.frozen
class Region:
    """One reserved region; `limit` is inclusive and lies below `base` where the table is wrong.

    `listed` tells whether Xen lists it; None where Xen was not asked.
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
        return range_from_inclusive(self.base, self.limit)

    @property
    def frames(self) -> Frames | None:
        span = self.range
        return frames_from_range(span) if span is not None else None

    @property
    def present(self) -> tuple[Sbdf, ...]:
        """The functions of the machine that it is for."""
        return tuple(device.sbdf for device in self.devices if device.present)

    @property
    def named(self) -> int:
        """How many functions the firmware named, as Xen counts; what only ACPI knows by name is none."""
        return sum(_count(scope) for scope in self.scopes if scope.kind in _COUNTED)

    @property
    def shared(self) -> bool:
        return len(self.devices) > 1 or self.named > 1

    @property
    def needs_relaxed(self) -> bool:
        """Whether Xen refuses to assign its devices under a strict policy: on VT-d, if there are several.

        Where no table tells the IOMMU's maker the answer is yes: relaxed is right with either.
        Source: xen/drivers/passthrough/vtd/iommu.c, intel_iommu_assign_device.
        """
        return self.kind in (RegionKind.RMRR, RegionKind.LISTED) and self.shared

    def __str__(self) -> str:
        return f"{self.base:#x}-{self.limit:#x}"


@attrs.frozen
class Regions:
    """All regions of a machine, in table order, and what was wrong with the tables as a whole."""

    regions: tuple[Region, ...] = ()
    findings: tuple[Finding, ...] = ()
    signatures: tuple[str, ...] = ()

    def of(self, sbdf: Sbdf) -> tuple[Region, ...]:
        return tuple(
            region for region in self.regions if any(device.sbdf == sbdf for device in region.devices)
        )

    def sharers(self, region: Region) -> tuple[Sbdf, ...]:
        """Give the functions that need its pages, by its own entry or by another over the same ones."""
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
    """Take the regions out of DMAR and IVRS tables; other tables are passed over.

    Scopes are resolved through the bridges as they are now; those of the boot `snapshot`, where there is one,
    only tell that buses were renumbered since.
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
    machine: Machine | None
    now: IommuScope
    boot: IommuScope | None

    def rmrr(self, region: ReservedRegion) -> Region:
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
        functions = self.machine.functions if self.machine is not None else None
        return tuple(
            RegionDevice(sbdf, None if functions is None else sbdf in functions)
            for sbdf in dict.fromkeys(named)
        )

    def _moved(self, segment: int, scope: Scope, leads_to: Sbdf | None) -> Iterator[Finding]:
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
    if scope.sbdf is None or scope.last is None:
        return 1
    return max((scope.last.bus << 8 | scope.last.devfn) - (scope.sbdf.bus << 8 | scope.sbdf.devfn) + 1, 0)
