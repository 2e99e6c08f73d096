"""Model the entries of the IOMMU's tables by which DMA of functions passes, and whose DMA does not.

VT-d: adding a function with an Express capability makes its entry. Adding a conventional one also makes the
entry of the uppermost conventional bridge above it, by the bus numbers that this bridge had when Xen made its
record, and behind a bridge from PCI Express to PCI that of device 0 on its secondary bus. Removing any
conventional function removes all of these, whoever else needs them. Bridges need no entry.
AMD-Vi: each function has the entry of its requester id, which is its own address, or the alias of IVRS; a
removal disables that entry, whoever else uses it. Xen does not look for bridges.
Source: Xen xen/drivers/passthrough/vtd/iommu.c (domain_context_mapping, domain_context_unmap), pci.c
        (alloc_pdev, free_pdev, pdev_type, find_upstream_bridge), amd/pci_amd_iommu.c
        (amd_iommu_setup_domain_device, amd_iommu_disable_domain_device), 4.17 to 4.22.
"""

from collections.abc import Iterator, Mapping

from pcipt.pci import Sbdf, sbdf_from_devfn
from pcipt.pci.requester import PCIE_TO_PCI, Role, Vendor
from pcipt.xen.simulated.model import Hardware, Presence

Bus = tuple[int, int]  # segment, bus number


class Contexts:
    """The present entries, by requester id; and the bridges that Xen has above buses (`bus2bridge`).

    `aliases` are those of IVRS: function and requester id.
    """

    def __init__(self, hardware: Hardware, vendor: Vendor, aliases: Mapping[Sbdf, Sbdf]) -> None:
        self.present: set[Sbdf] = set()
        self._hardware = hardware
        self._vendor = vendor
        self._aliases = aliases
        self._seen: dict[Sbdf, Presence] = {}
        self._bridges: dict[Bus, Sbdf] = {}

    def recorded(self, function: Sbdf, seen: Presence | None) -> None:
        """Note what a function is when Xen makes its record, and to which buses it leads.

        `seen` is None if the function does not answer.
        """
        if seen is None:
            return
        self._seen[function] = seen
        if _is_conventional(seen):
            for bus in range(seen.buses[0], seen.buses[1] + 1):
                self._bridges[function.segment, bus] = function

    def forgotten(self, function: Sbdf) -> None:
        """Forget which buses a removed conventional bridge leads to: by its bus numbers of this moment.

        Where nothing answers any more, they read ff, and what Xen noted of the bridge's buses stays.
        """
        seen = self._seen.pop(function, None)
        if seen is None or not _is_conventional(seen):
            return
        now = self._hardware.presence(function)
        first, last = now.buses if now is not None else (0xFF, 0xFF)
        above = self._bridges.get((function.segment, function.bus))
        for bus in range(first, last + 1):
            if above is None:
                self._bridges.pop((function.segment, bus), None)
            else:
                self._bridges[function.segment, bus] = above

    def mapped(self, function: Sbdf) -> None:
        """Make the entries of a function that was given to dom0."""
        self.present |= set(self._entries(function))

    def unmapped(self, function: Sbdf) -> None:
        """Remove the entries of a removed function."""
        self.present -= set(self._entries(function))

    def passes(self, function: Sbdf, requesters: tuple[Sbdf, ...]) -> bool:
        """Return True if DMA of a function passes; `requesters` are the ids that the hardware may give it."""
        seen = self._hardware.presence(function)
        if seen is None or seen.role in (Role.BRIDGE, Role.HOST_BRIDGE, Role.REVERSE_BRIDGE):
            return True
        return self.present.issuperset(self._aliases.get(each, each) for each in requesters)

    def _entries(self, function: Sbdf) -> Iterator[Sbdf]:
        """Yield the requester ids whose entries an addition makes and a removal removes."""
        if self._vendor is Vendor.AMD:
            yield self._aliases.get(function, function)
            return
        seen = self._seen.get(function)
        if seen is None or seen.role in (Role.BRIDGE, Role.HOST_BRIDGE):
            return
        yield function
        if seen.port_type is not None:
            return
        top, below = None, function.bus
        above = self._bridges.get((function.segment, below))
        while above is not None and above != top:
            top, secondary = above, below
            below = above.bus
            above = self._bridges.get((function.segment, below))
        if top is not None:
            yield top
            at = self._hardware.presence(top)
            if at is not None and at.port_type == PCIE_TO_PCI:
                yield sbdf_from_devfn(function.segment, secondary, 0)


def _is_conventional(seen: Presence) -> bool:
    """Return True for a bridge to conventional PCI."""
    return seen.role is Role.BRIDGE and seen.port_type in (None, PCIE_TO_PCI)
