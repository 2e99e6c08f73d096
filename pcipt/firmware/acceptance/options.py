"""Xen's boot options that change how Xen reads the tables of an IOMMU.

Source: Xen drivers/passthrough/iommu.c (parse_iommu_param), vtd/dmar.c (parse_rmrr_param), amd/iommu_acpi.c
        (parse_ivmd_param, parse_ivrs_ioapic).
"""

from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Sbdf

if TYPE_CHECKING:
    from pcipt.firmware.acpi.ivrs import AddedBlock


@attrs.frozen
class Options:
    """The values of these options; the defaults are those of Xen.

    `interrupts` is False with iommu=no-intremap, `per_device` with iommu=no-amd-iommu-perdev-intremap.
    `rmrr` and `ivmd` are the regions that options of these names add: (first page, last page, functions) and
    (first page, last page, first routing id, last routing id); the last id is None for one function, both are
    None for all functions. `faults` says what is wrong with these options.
    `io_apics` maps ids of IO-APICs to the places (segment << 16 | bus << 8 | devfn) that ivrs_ioapic[] gives.
    """

    interrupts: bool = True
    per_device: bool = True
    io_apics: Mapping[int, int] = attrs.field(factory=dict)
    rmrr: tuple[tuple[int, int, tuple[Sbdf, ...]], ...] = ()
    ivmd: "tuple[AddedBlock, ...]" = ()
    faults: tuple[str, ...] = ()
