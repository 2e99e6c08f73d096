"""Which functions an IOMMU unit covers, by the boot snapshot and the ACPI tables that dom0 can see."""

from collections.abc import Iterable

import attrs

from pcipt.firmware.acpi.dmar import SIGNATURES, parse_dmar
from pcipt.firmware.acpi.ivrs import SIGNATURE as IVRS
from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci.requester import Vendor
from pcipt.remap.view import XenView


def coverage_at_boot(
    boot: BootSnapshot, tables: Iterable[bytes], vendor: Vendor = Vendor.INTEL
) -> IommuScope:
    """Return which functions IOMMU units cover, by a boot snapshot and the DMAR or IVRS among the tables.

    `vendor` is that of the machine (`vendor_of`); a table that dom0 can read decides before it.
    """
    scope = IommuScope(boot, vendor=vendor)
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            scope = attrs.evolve(scope, dmar=parse_dmar(table))
        elif table.signature == IVRS:
            scope = attrs.evolve(scope, ivrs=parse_ivrs(table))
    return scope


def with_absence(scope: IommuScope, xen: XenView, *, pvh: bool) -> IommuScope:
    """Return the coverage with `absent` updated: True if Xen runs without an IOMMU.

    That is so on a PV dom0 if Xen lists functions and does not tell who owns them. A PVH dom0 does not boot
    without an IOMMU.
    """
    absent = not pvh and bool(xen.known) and not xen.custody_told
    return scope if scope.absent is absent else attrs.evolve(scope, absent=absent)
