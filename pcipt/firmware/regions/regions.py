"""Memory that firmware reserved for devices, and these devices.

One `Region` describes an RMRR, an IVMD block or a region that only Xen lists. A region keeps the table's
numbers, even if they are wrong. Its devices are given twice: `scopes` as in the table, `devices` as
functions. `regions.tables` makes regions of DMAR and IVRS.
Source: xen/drivers/passthrough/vtd/dmar.c, intel_iommu_get_reserved_device_memory; AMD IOMMU 3.07 §5.2.2.7.
"""

import enum

from pcipt import values as attrs
from pcipt.pci import (
    Address,
    Finding,
    Frames,
    Range,
    Sbdf,
    frames_from_range,
    range_from_inclusive,
)
from pcipt.pci.units import PAGE_SIZE

_COUNTED = ("endpoint", "bridge", "ioapic", "hpet")  # Xen counts these: dmar.c, scope_device_count
UNKNOWN_OWNER = "unknown"
DROPPED = "region-dropped"  # the code of the finding about a region that Xen does not take


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
    region, False if not, None if Xen was not asked or the region is empty. `dropped` says why Xen does not
    keep the region, by the table and the functions that are there; it is empty if Xen keeps it, and if that
    is not known. `misread` are the devices for which Xen does not have the region, because it could not read
    the bridges above them.
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
    dropped: str = ""
    misread: tuple[Sbdf, ...] = ()

    @property
    def range(self) -> Range | None:
        """The bytes of the region; None if it is empty (`limit` is below `base`)."""
        return range_from_inclusive(self.base, self.limit)

    @property
    def frames(self) -> Frames | None:
        """The pages that Xen takes for the region; None if there are none.

        They are the whole pages that it touches. Of an RMRR Xen leaves out the last page if `limit` is its
        first byte, because it takes `limit` for the end (dmar.c, PFN_UP; iommu_identity_mapping).
        """
        span = self.range
        if span is None:
            return None
        frames = frames_from_range(span)
        if self.kind is not RegionKind.RMRR or self.limit % PAGE_SIZE:
            return frames
        return Frames(frames.start, frames.count - 1) if frames.count > 1 else None

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


def _count(scope: RegionScope) -> int:
    """Return the number of functions that a scope names: 1, or the length of its range.

    A range whose last function is below its first has the length 0.
    """
    if scope.sbdf is None or scope.last is None:
        return 1
    return max((scope.last.bus << 8 | scope.last.devfn) - (scope.sbdf.bus << 8 | scope.sbdf.devfn) + 1, 0)
