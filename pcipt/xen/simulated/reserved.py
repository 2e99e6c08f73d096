"""Model reserved device memory as Xen keeps it for dom0: regions mapped 1:1, each with a count of devices.

The scope of a region is fixed at boot, by address: it does not follow a device to another address. With VT-d
the count is at boot the number of scope devices, present or not; with AMD-Vi it is the number of those that
are added. Adding a device adds one, removing it subtracts one; at 0 the pages are unmapped. So with VT-d, a
scope device that is plugged in after boot is counted twice. Assignment to a guest or to quarantine changes
nothing; a device that is removed while it is not dom0's leaves dom0's count as it is. Xen maps a region only
where its first page is a hole: over pages that somebody else has mapped, it keeps no count.
Source: Xen xen/drivers/passthrough/vtd/iommu.c (setup_hwdom_rmrr, intel_iommu_add_device,
        intel_iommu_remove_device), amd/pci_amd_iommu.c (amd_iommu_add_device, amd_iommu_remove_device),
        x86/iommu.c (iommu_identity_mapping), vtd/dmar.c (register_one_rmrr), xen/arch/x86/mm/p2m.c
        (p2m_add_identity_entry), 4.17 to 4.22.
"""

from collections.abc import Callable, Container, Iterable
from errno import ENOBUFS

from pcipt import values as attrs
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.pci.requester import Vendor
from pcipt.xen.simulated.p2m import P2m


@attrs.frozen
class ReservedRegion:
    """A reserved region of the firmware's tables; `scope` are the devices that need it."""

    frames: Frames
    scope: tuple[Sbdf, ...]


class ReservedMemory:
    """The reserved regions of one Xen, as it found them at boot. `p2m` is None on a PV dom0.

    `present` returns whether a device answers. VT-d drops a region for ever if none of its devices answers at
    boot, except in segments that Xen does not know when it reads the table; `segments` are those it knows.
    `place` names the place at an address; it stays the same when buses are renumbered.
    """

    def __init__(
        self,
        regions: Iterable[ReservedRegion],
        present: Callable[[Sbdf], bool],
        p2m: P2m | None,
        *,
        vendor: Vendor = Vendor.INTEL,
        segments: Container[int] = (0,),
        place: Callable[[Sbdf], tuple[int, ...]] = tuple,
    ) -> None:
        self.vendor = vendor
        self.regions = tuple(
            region for region in regions if vendor is Vendor.AMD or _is_kept(region, present, segments)
        )
        self._homes = {device: place(device) for region in self.regions for device in region.scope}
        self._p2m = p2m
        self._references = dict.fromkeys((region.frames for region in self.regions), 0)
        self.mapped: set[Frames] = set()  # also on a PV dom0: in its IOMMU tables
        if vendor is Vendor.INTEL:
            for region in self.regions:
                for _ in region.scope:
                    self._count(region)

    def added(self, function: Sbdf) -> None:
        """Add 1 to the count of each region that has the added device in its scope.

        A region whose count was 0 is mapped.
        """
        for region in self._of(function):
            self._count(region)

    def removed(self, function: Sbdf) -> None:
        """Subtract 1 from the count of each region that has in its scope a device that was removed from dom0.

        A region whose count becomes 0 is unmapped, whoever mapped its pages. A count that is 0 stays 0.
        """
        for region in self._of(function):
            if self._references[region.frames]:
                self._references[region.frames] -= 1
                if not self._references[region.frames]:
                    self.mapped.discard(region.frames)
                    if self._p2m is not None:
                        self._p2m.clear_identity(region.frames)

    def _count(self, region: ReservedRegion) -> None:
        """Add 1 to the count of a region; map it 1:1 if the count was 0.

        If its first page is not a hole, Xen maps nothing and the count stays 0. If another page is none, the
        pages before that page are mapped.
        """
        if not self._references[region.frames] and self._p2m is not None:
            for page in range(region.frames.start, region.frames.end):
                frame = Frames(Gfn(page), 1)
                if self._p2m.touched(frame) or self._p2m.is_memory(frame):
                    if page == region.frames.start:
                        return
                    break
                self._p2m.set_identity(frame)
        self._references[region.frames] += 1
        self.mapped.add(region.frames)

    def references(self, region: ReservedRegion) -> int:
        """Return the current count of a region. Raises KeyError for a region that was dropped at boot."""
        return self._references[region.frames]

    def touching(self, frames: Frames) -> list[ReservedRegion]:
        """Return the regions that overlap the frames."""
        return [region for region in self.regions if region.frames.overlaps(frames)]

    def homes(self, frames: Frames) -> set[tuple[int, ...]]:
        """Return the places of the devices that need the regions that overlap the frames."""
        return {self._homes[device] for region in self.touching(frames) for device in region.scope}

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


def _is_kept(region: ReservedRegion, present: Callable[[Sbdf], bool], segments: Container[int]) -> bool:
    """Return True if VT-d keeps a region: a device answers, or Xen does not know its segment yet."""
    return any(device.segment not in segments or present(device) for device in region.scope)
