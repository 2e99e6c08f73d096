"""Which IOMMU unit Xen's AMD driver has for a routing id, by the IVRS table, whether or not Xen accepts it.

What Xen makes of the whole table, reserved memory included: firmware/acceptance/.
Source: Xen drivers/passthrough/amd/iommu_acpi.c (parse_ivrs_table, add_ivrs_mapping_entry), pci_amd_iommu.c
        (find_iommu_for_device).
"""

from collections.abc import Iterable

from pcipt.firmware.acpi.ivrs import Unit

_FIRST_FUNCTION = 0xFFF8


def find_unit(units: Iterable[Unit], routing: int) -> Unit | None:
    """Return the unit that serves a routing id, among the used units of its segment; None if there is none.

    The last block that selects an id counts. An id that no block selects has the unit of function 0 of its
    device, unless the id is that unit's own.
    """
    units = tuple(units)
    own = _selecting(units, routing)
    if own is not None:
        return own
    first = _selecting(units, routing & _FIRST_FUNCTION)
    return first if first is not None and first.device != routing else None


def _selecting(units: Iterable[Unit], routing: int) -> Unit | None:
    """Return the last unit with an entry for a routing id; the unit's own id is not its function."""
    found = None
    for unit in units:
        named = routing in unit.sources or any(first <= routing <= last for first, last in unit.selected)
        if named and unit.device != routing:
            found = unit
    return found
