"""What Xen has of an accepted DMAR table: units and reserved regions, and which of them a function gets.

Source: Xen drivers/passthrough/vtd/dmar.c (acpi_find_matched_drhd_unit, for_each_rmrr_device), vtd/iommu.c
        (intel_iommu_get_reserved_device_memory).
"""

from pcipt import values as attrs
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.pci.requester import Requester
from pcipt.pci.units import PAGE_SIZE

_MASK = (1 << 64) - 1


@attrs.frozen
class VtdUnit:
    """An IOMMU unit (DRHD).

    `devices` are the functions that its scopes name, `buses` the buses below its bridges. `io_apics`
    are the ids of its IO-APICs. `offset` is the entry's byte offset in the table.
    """

    segment: int
    base: int
    include_all: bool
    devices: tuple[Sbdf | None, ...]
    buses: frozenset[int]
    io_apics: tuple[int, ...]
    offset: int


@attrs.frozen
class VtdRegion:
    """A reserved region (RMRR) that Xen keeps: addresses of its first and last byte; None: leads nowhere."""

    segment: int
    base: int
    limit: int
    devices: tuple[Sbdf | None, ...]
    offset: int

    @property
    def served(self) -> tuple[Sbdf, ...]:
        """The functions that get the region. Xen takes bus 0, device 0, function 0 for the list's end."""
        found: list[Sbdf] = []
        for device in self.devices:
            if device is not None and not device.bus and not device.devfn:
                break
            found += [device] if device is not None else []
        return tuple(found)

    @property
    def frames(self) -> Frames | None:
        """The pages that Xen takes: it takes the limit for the end, rounded up to a page."""
        first, end = self.base // PAGE_SIZE, ((self.limit + PAGE_SIZE - 1) & _MASK) // PAGE_SIZE
        return Frames(Gfn(first), end - first) if end > first else None


@attrs.frozen
class VtdState:
    """`units` in the order in which Xen looks through them, `regions` in table order."""

    units: tuple[VtdUnit, ...]
    regions: tuple[VtdRegion, ...]

    def unit_of(self, requester: Requester) -> VtdUnit | None:
        """Return the unit that Xen finds for a function; None if there is none."""
        at, for_all = requester.by_vtd, None
        for unit in self.units:
            if unit.segment != at.segment:
                continue
            if at in unit.devices or at.bus in unit.buses:
                return unit
            for_all = unit if unit.include_all else for_all
        return for_all

    def regions_of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the reserved pages that Xen lists for a function, in table order."""
        held = (each for each in self.regions if sbdf in each.served)
        return tuple(frames for each in held if (frames := each.frames) is not None)
