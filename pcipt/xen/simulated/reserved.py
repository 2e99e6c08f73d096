"""Reserved device memory as VT-d keeps it for dom0: identity maps counted per region and scope device.

Every scope device counts once at boot, present or not, and once more when it is added anew; a removal takes
one away, and at 0 the pages go. So a device that was plugged in later leaves one too many. Assignment to
a guest or to quarantine changes nothing.

Source: Xen xen/drivers/passthrough/vtd/iommu.c (setup_hwdom_rmrr, intel_iommu_add_device,
intel_iommu_remove_device), passthrough/x86/iommu.c (iommu_identity_mapping), vtd/dmar.c (register_one_rmrr).
"""

from collections.abc import Callable, Iterable
from errno import ENOBUFS

import attrs

from pcipt.pci import Frames, Sbdf
from pcipt.xen.simulated.p2m import P2m


@attrs.frozen
class ReservedRegion:
    """A region of the firmware's tables and the devices that need it."""

    frames: Frames
    scope: tuple[Sbdf, ...]


class ReservedMemory:
    """The regions of one Xen, as it found them at boot; `p2m` is None on a PV dom0."""

    def __init__(
        self, regions: Iterable[ReservedRegion], present: Callable[[Sbdf], bool], p2m: P2m | None
    ) -> None:
        # A region none of whose devices answers at boot is dropped for good.
        self.regions = tuple(region for region in regions if any(map(present, region.scope)))
        self._p2m = p2m
        self._references = {region: len(region.scope) for region in self.regions}
        for region in self.regions:
            self._map(region)

    def added(self, function: Sbdf) -> None:
        """Count a device that is new to Xen."""
        for region in self._of(function):
            self._references[region] += 1
            if self._references[region] == 1:
                self._map(region)

    def removed(self, function: Sbdf) -> None:
        for region in self._of(function):
            if self._references[region]:
                self._references[region] -= 1
                if not self._references[region] and self._p2m is not None:
                    self._p2m.clear_identity(region.frames)

    def _map(self, region: ReservedRegion) -> None:
        if self._p2m is not None:
            self._p2m.set_identity(region.frames)

    def references(self, region: ReservedRegion) -> int:
        return self._references[region]

    def touching(self, frames: Frames) -> list[ReservedRegion]:
        return [region for region in self.regions if region.frames.overlaps(frames)]

    def query(self, function: Sbdf | None, room: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Answer XENMEM_reserved_device_memory_map: result, how many there are, first frame and pages."""
        regions = self.regions if function is None else self._of(function)
        found = [(int(region.frames.start), region.frames.count) for region in regions]
        return (0, len(found), found) if len(found) <= room else (-ENOBUFS, len(found), [])

    def _of(self, function: Sbdf) -> list[ReservedRegion]:
        return [region for region in self.regions if function in region.scope]
