"""Say in words why the add of a function is refused that no IOMMU unit is known to serve. Pure."""

from pcipt.firmware.coverage import Coverage
from pcipt.pci.requester import Requester, Vendor
from pcipt.remap.actions import AddDevice
from pcipt.remap.guard.facts import Facts
from pcipt.xen.releases import SEGMENTS_READ_FOR_IOMMU

_MAY = "the add may fail and leave an orphan"
_WOULD = "the add would fail and leave an orphan"


def why_uncovered(action: AddDevice, requester: Requester, facts: Facts) -> str:
    """Return why an add is refused whose coverage is UNKNOWN or NONE, and what helps."""
    scope = facts.iommu
    amd = scope.vendor_in_use is Vendor.AMD
    coverage, bridge = scope.covers(requester), None if amd else scope.lost_below(requester)
    if coverage is Coverage.UNKNOWN and scope.snapshot.late:
        return (
            "pcipt has lost its record of the machine at boot, so nobody knows whether an IOMMU unit serves "
            f"the function: {_MAY}; reboot with the function in place"
        )
    if bridge is not None:
        could, then = ("could", _WOULD) if coverage is Coverage.NONE else ("perhaps could", _MAY)
        return (
            f"this Xen {could} not read the bridge {bridge} above the function when it read the table of "
            f"the IOMMU: {then}; use Xen {SEGMENTS_READ_FOR_IOMMU.begins} or newer, with firmware that "
            "reserves MMCFG"
        )
    if coverage is Coverage.UNKNOWN:
        return (
            "it was not there at boot, and a PVH dom0 cannot read which functions AMD's IOMMU units serve "
            f"(IVRS): {_MAY}; reboot with the function in place"
        )
    back = (
        (f"give its bus the old number {action.moved_from.bus:02x} again")
        if action.moved_from is not None
        else ""
    )
    if amd:
        return (
            "no IOMMU unit serves it, because firmware's table (IVRS) names neither it nor function 0 of its "
            f"device: {_WOULD}; {back or 'ask the vendor for firmware'}"
        )
    cure = back or "give its bus a number that was covered at boot"
    return f"no IOMMU unit covered bus {action.sbdf.bus:02x} at boot: {_WOULD}; {cure}, or reboot"
