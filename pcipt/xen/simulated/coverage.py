"""Model which functions an IOMMU unit serves, as Xen decided it at boot from the firmware's tables.

Source: Xen drivers/passthrough/vtd/dmar.c (acpi_find_matched_drhd_unit): listed functions, buses below listed
        bridges with the numbers they had at boot, and units that take all of a segment (INCLUDE_PCI_ALL);
        amd/pci_amd_iommu.c (find_iommu_for_device, amd_iommu_add_device): listed functions, and those whose
        function 0 is listed.
"""

from collections.abc import Container, Iterable, Mapping
from errno import EINVAL, ENODEV

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.pci.requester import Requester, Role, Vendor


@attrs.frozen
class Coverage:
    """The functions that IOMMU units serve.

    They are the listed `functions`, all functions on the listed `buses` (segment, bus), and all functions of
    the listed `segments`. With AMD-Vi, `buses` and `segments` stand for entries of IVRS that list all their
    functions. `aliases` has the requester id of each function for which IVRS names another one.
    """

    functions: frozenset[Sbdf] = frozenset()
    buses: frozenset[tuple[int, int]] = frozenset()
    segments: Container[int] = ()
    vendor: Vendor = Vendor.INTEL
    aliases: Mapping[Sbdf, Sbdf] = attrs.field(factory=dict, hash=False)

    def answer(self, requester: Requester) -> int:
        """Return what adding a function to the IOMMU gives: 0, -ENODEV or -EINVAL.

        -EINVAL: a bridge of a kind that VT-d does not know.
        """
        intel = self.vendor is Vendor.INTEL
        if intel and requester.role is Role.REVERSE_BRIDGE:
            return -EINVAL
        if not requester.needs_unit(self.vendor):
            return 0
        if intel:
            return 0 if self.covers(requester.by_vtd) else -ENODEV
        first = requester.sbdf._replace(function=0)
        return 0 if self.covers(requester.sbdf) or self.covers(first) else -ENODEV

    def covers(self, function: Sbdf) -> bool:
        """Return True if an IOMMU unit serves the function."""
        return (
            function in self.functions
            or (function.segment, function.bus) in self.buses
            or function.segment in self.segments
        )


EVERYTHING = Coverage(segments=range(0x10000))


def coverage_from_boot(functions: Iterable[Sbdf]) -> Coverage:
    """Return a coverage of every bus on which at least one of `functions` is. It covers the whole bus.

    `functions` are those that were found at boot. Firmware's device scopes that name bridges cover whole
    buses in the same way.
    """
    return Coverage(buses=frozenset((f.segment, f.bus) for f in functions))
