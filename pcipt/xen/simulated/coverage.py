"""Which functions an IOMMU unit serves, as Xen sees it: what the firmware said at boot, frozen since.

Source: Xen xen/drivers/passthrough/vtd/dmar.c, acpi_find_matched_drhd_unit: listed functions, buses below
listed bridges with the numbers they had at boot, and units that take all of a segment (INCLUDE_PCI_ALL).
"""

from collections.abc import Container, Iterable

import attrs

from pcipt.pci import Sbdf, sbdf_from_devfn
from pcipt.xen.interface import DeviceFlags


@attrs.frozen
class Coverage:
    """Buses are (segment, bus); `segments` are those with a unit for all that no other unit takes."""

    functions: frozenset[Sbdf] = frozenset()
    buses: frozenset[tuple[int, int]] = frozenset()
    segments: Container[int] = ()

    def covers(self, function: Sbdf) -> bool:
        return (
            function in self.functions
            or (function.segment, function.bus) in self.buses
            or function.segment in self.segments
        )


EVERYTHING = Coverage(segments=range(0x10000))


def coverage_from_boot(functions: Iterable[Sbdf]) -> Coverage:
    """Cover the buses on which something was found at boot, as scopes made of bridges do."""
    return Coverage(buses=frozenset((f.segment, f.bus) for f in functions))


def requester(function: Sbdf, flags: DeviceFlags, *, physfn_extended: bool) -> Sbdf:
    """Tell whose place in the scopes counts: a VF's is its physical function's, an ARI function's is 0."""
    if flags.physfn is not None:
        physfn = flags.physfn
        return sbdf_from_devfn(function.segment, physfn.bus, 0 if physfn_extended else physfn.devfn)
    return sbdf_from_devfn(function.segment, function.bus, 0) if flags.extended else function
