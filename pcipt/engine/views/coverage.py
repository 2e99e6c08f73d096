"""Which functions the IOMMU units serve, by the tables; whether Xen runs without an IOMMU, by its answers."""

import attrs

from pcipt.engine.interfaces import Host
from pcipt.engine.views.protection import memory_map
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci import Machine
from pcipt.pci.requester import vendor_of
from pcipt.remap.view import XenView
from pcipt.xen.releases import Version


def read_scope(host: Host, machine: Machine, boot: BootSnapshot, version: Version) -> IommuScope:
    """Return which functions the IOMMU units serve, by the tables that dom0 can read and the boot."""
    scope = IommuScope(boot, vendor=vendor_of(machine))
    return scope.with_tables(host.acpi_tables(), memory_map(host), version)


def with_absence(scope: IommuScope, xen: XenView, *, pvh: bool) -> IommuScope:
    """Return the coverage with `absent` updated: True if Xen runs without an IOMMU.

    On a PV dom0, Xen runs without an IOMMU if it lists functions and does not tell who owns them. A PVH dom0
    does not boot without an IOMMU.
    """
    absent = not pvh and bool(xen.known) and not xen.custody_told
    return scope if scope.absent is absent else attrs.evolve(scope, absent=absent)
