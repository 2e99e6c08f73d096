"""Model reserved device memory as Xen keeps it for dom0: regions mapped 1:1, each with a count of devices.

With VT-d the count at boot is the number of scope devices, present or not, and a region none of whose devices
answers is dropped. With AMD-Vi it is the number of those present, and no region is dropped: one whose devices
are all absent is mapped when the first is added. Adding a device to Xen adds one, removing it subtracts one;
at 0 the pages are unmapped. So with VT-d a scope device that is plugged in after boot is counted twice.
Assignment to a guest or to quarantine changes nothing.
Source: Xen xen/drivers/passthrough/vtd/iommu.c (setup_hwdom_rmrr, intel_iommu_add_device,
        intel_iommu_remove_device), passthrough/x86/iommu.c (iommu_identity_mapping), vtd/dmar.c
        (register_one_rmrr), passthrough/amd/pci_amd_iommu.c (amd_iommu_add_device, amd_iommu_remove_device).
"""

from collections.abc import Collection, Iterable
from errno import ENOBUFS
from typing import Protocol

import attrs

from pcipt.pci import Frames, Sbdf
from pcipt.pci.requester import Vendor
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.p2m import P2m


@attrs.frozen
class ReservedRegion:
    """A reserved region of the firmware's tables; `scope` are the devices that need it."""

    frames: Frames
    scope: tuple[Sbdf, ...]


class Answering(Protocol):
    """Hardware of which it is known what answers."""

    def presence(self, function: Sbdf) -> object | None:
        """Return None if nothing answers at this address."""


class ReservedMemory:
    """The reserved regions of one Xen, as it found them at boot. `p2m` is None on a PV dom0.

    `hardware` knows which devices answer. `iommu` tells the vendor of the IOMMU; None is VT-d. `listed`
    are the functions that Xen found at boot.
    """

    def __init__(
        self,
        regions: Iterable[ReservedRegion],
        hardware: Answering,
        p2m: P2m | None,
        iommu: Coverage | None = None,
        listed: Collection[Sbdf] = (),
    ) -> None:
        self._p2m = p2m
        if iommu is not None and iommu.vendor is Vendor.AMD:
            there = {region: sum(each in listed for each in region.scope) for region in regions}
        else:  # it drops a region for ever
            there = {
                region: len(region.scope)
                for region in regions
                if any(hardware.presence(each) is not None for each in region.scope)
            }
        self.regions = tuple(there)
        self._references = there
        for region, count in there.items():
            if count:
                self._map(region)

    def added(self, function: Sbdf) -> None:
        """Add 1 to the count of each region that has the added device in its scope.

        A region whose count was 0 is mapped.
        """
        for region in self._of(function):
            self._references[region] += 1
            if self._references[region] == 1:
                self._map(region)

    def removed(self, function: Sbdf) -> None:
        """Subtract 1 from the count of each region that has the removed device in its scope.

        A region whose count becomes 0 is unmapped. A count that is 0 stays 0.
        """
        for region in self._of(function):
            if self._references[region]:
                self._references[region] -= 1
                if not self._references[region] and self._p2m is not None:
                    self._p2m.clear_identity(region.frames)

    def _map(self, region: ReservedRegion) -> None:
        """Map the region 1:1 if dom0 has a p2m."""
        if self._p2m is not None:
            self._p2m.set_identity(region.frames)

    def references(self, region: ReservedRegion) -> int:
        """Return the current count of a region. Raises KeyError for a region that was dropped at boot."""
        return self._references[region]

    def touching(self, frames: Frames) -> list[ReservedRegion]:
        """Return the regions that overlap the frames."""
        return [region for region in self.regions if region.frames.overlaps(frames)]

    def query(self, function: Sbdf | None, room: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Answer XENMEM_reserved_device_memory_map for `function`, or for the machine if `function` is None.

        Shape:  (0 or -ENOBUFS, number of regions, regions as (first frame, number of frames)). -ENOBUFS means
                that the number of regions is greater than `room`; then the list is empty.
        """
        regions = self.regions if function is None else self._of(function)
        found = [(int(region.frames.start), region.frames.count) for region in regions]
        return (0, len(found), found) if len(found) <= room else (-ENOBUFS, len(found), [])

    def _of(self, function: Sbdf) -> list[ReservedRegion]:
        """Return the regions that have the function in their scope."""
        return [region for region in self.regions if function in region.scope]
