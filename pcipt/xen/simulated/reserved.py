"""Model reserved device memory as VT-d keeps it for dom0: regions mapped 1:1, each with a count of devices.

At boot the count is the number of scope devices, present or not. Adding a device to Xen adds one, removing it
subtracts one; at 0 the pages are unmapped. So a scope device that is plugged in after boot is counted twice.
Assignment to a guest or to quarantine changes nothing.
Source: Xen xen/drivers/passthrough/vtd/iommu.c (setup_hwdom_rmrr, intel_iommu_add_device,
        intel_iommu_remove_device), passthrough/x86/iommu.c (iommu_identity_mapping), vtd/dmar.c
        (register_one_rmrr).
"""

from collections.abc import Callable, Iterable
from errno import ENOBUFS

import attrs

from pcipt.pci import Frames, Sbdf
from pcipt.xen.simulated.p2m import P2m


@attrs.frozen
class ReservedRegion:
    """A reserved region of the firmware's tables; `scope` are the devices that need it."""

    frames: Frames
    scope: tuple[Sbdf, ...]


class ReservedMemory:
    """The reserved regions of one Xen, as it found them at boot. `p2m` is None on a PV dom0.

    `present` returns whether a device answers. If none of the devices of a region answers at boot, the region
    is dropped.
    """

    def __init__(
        self, regions: Iterable[ReservedRegion], present: Callable[[Sbdf], bool], p2m: P2m | None
    ) -> None:
        # Xen drops a region for ever if none of its devices answers at boot.
        self.regions = tuple(region for region in regions if any(map(present, region.scope)))
        self._p2m = p2m
        self._references = {region: len(region.scope) for region in self.regions}
        for region in self.regions:
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
