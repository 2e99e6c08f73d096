"""Whether Xen runs without an IOMMU, as Xen's answers show it."""

import attrs

from pcipt.firmware.coverage import IommuScope
from pcipt.remap.view import XenView


def with_absence(scope: IommuScope, xen: XenView, *, pvh: bool) -> IommuScope:
    """Return the coverage with `absent` updated: True if Xen runs without an IOMMU.

    On a PV dom0, Xen runs without an IOMMU if it lists functions and does not tell who owns them. A PVH dom0
    does not boot without an IOMMU.
    """
    absent = not pvh and bool(xen.known) and not xen.custody_told
    return scope if scope.absent is absent else attrs.evolve(scope, absent=absent)
