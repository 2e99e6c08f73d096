"""Model which functions an IOMMU unit serves, as Xen decided it at boot from the firmware's tables.

Source: Xen xen/drivers/passthrough/vtd/dmar.c, acpi_find_matched_drhd_unit: listed functions, buses below
        listed bridges with the numbers they had at boot, and units that take all of a segment
        (INCLUDE_PCI_ALL).
"""

from collections.abc import Container, Iterable

import attrs

from pcipt.pci import Sbdf, sbdf_from_devfn
from pcipt.xen.interface import DeviceFlags


@attrs.frozen
class Coverage:
    """The functions that IOMMU units serve.

    They are the listed `functions`, all functions on the listed `buses` (segment, bus), and all functions of
    the listed `segments`.
    """

    functions: frozenset[Sbdf] = frozenset()
    buses: frozenset[tuple[int, int]] = frozenset()
    segments: Container[int] = ()

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


def requester(function: Sbdf, flags: DeviceFlags, *, physfn_extended: bool) -> Sbdf:
    """Return the function whose address Xen looks for in the device scopes when it adds `function`.

    For a virtual function (`flags.physfn` is given) it is the physical function, or devfn 0 on the physical
    function's bus if the physical function is an ARI function (`physfn_extended`). For an ARI function
    (`flags.extended`) it is devfn 0 on its own bus. For any other function it is the function itself.
    """
    if flags.physfn is not None:
        physfn = flags.physfn
        return sbdf_from_devfn(function.segment, physfn.bus, 0 if physfn_extended else physfn.devfn)
    return sbdf_from_devfn(function.segment, function.bus, 0) if flags.extended else function
