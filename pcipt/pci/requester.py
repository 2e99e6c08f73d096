"""What a function is to an IOMMU: under which address its unit is looked up, and whether it needs one at all.

Pure. Source: Xen drivers/passthrough/pci.c (pdev_type), vtd/dmar.c (acpi_find_matched_drhd_unit), vtd/iommu.c
        (domain_context_mapping), amd/pci_amd_iommu.c (find_iommu_for_device, amd_iommu_add_device).
"""

import enum

from pcipt import values as attrs
from pcipt.pci.address import Sbdf, sbdf_from_devfn
from pcipt.pci.function import Function
from pcipt.pci.machine import Machine

_HOST_BRIDGE, _PCI_BRIDGE, _IOMMU = 0x0600, 0x0604, 0x0806
PCIE_TO_PCI = 0x7  # a bridge from PCI Express to PCI or PCI-X
_TO_EXPRESS = 0x8  # a bridge from PCI or PCI-X to PCI Express
_AMD = (0x1022, 0x1D94)  # AMD, Hygon


class Role(enum.Enum):
    """What a function does on its bus, as Xen tells functions apart (pdev_type).

    REVERSE_BRIDGE is a bridge from conventional PCI to PCI Express, which no version of Xen knows.
    """

    ENDPOINT = "endpoint"
    BRIDGE = "bridge"
    REVERSE_BRIDGE = "reverse bridge"
    HOST_BRIDGE = "host bridge"
    IOMMU = "IOMMU"


class Vendor(enum.Enum):
    """The vendor of the machine's IOMMU units: Intel's VT-d or AMD-Vi."""

    INTEL = "VT-d"
    AMD = "AMD-Vi"


@attrs.frozen
class Requester:
    """A function as an IOMMU sees it.

    `physfn` is the physical function of a virtual one, else None. `extended` is True if the function is an
    ARI function with a device number above 0; of a virtual function, if its physical function is one.
    """

    sbdf: Sbdf
    physfn: Sbdf | None = None
    extended: bool = False
    role: Role = Role.ENDPOINT

    @property
    def by_vtd(self) -> Sbdf:
        """The address for which VT-d looks: that of the physical function; device 0 of the bus with ARI."""
        at = self.physfn or self.sbdf
        return sbdf_from_devfn(at.segment, at.bus, 0) if self.extended else at

    def needs_unit(self, vendor: Vendor) -> bool:
        """Return False if Xen adds such a function whether or not a unit serves it.

        VT-d needs no unit for bridges and host bridges, AMD-Vi none for host bridges and its own function.
        """
        free = {Role.HOST_BRIDGE, Role.BRIDGE} if vendor is Vendor.INTEL else {Role.HOST_BRIDGE, Role.IOMMU}
        return self.role not in free


def role_of(class_code: int | None, port_type: int | None) -> Role:
    """Return the role of a function with this class code (24 bits) and PCI Express port type, if known."""
    base = (class_code or 0) >> 8
    if base == _PCI_BRIDGE:
        return Role.REVERSE_BRIDGE if port_type == _TO_EXPRESS else Role.BRIDGE
    return {_HOST_BRIDGE: Role.HOST_BRIDGE, _IOMMU: Role.IOMMU}.get(base, Role.ENDPOINT)


def requester_of(function: Function, machine: Machine, at: Sbdf | None = None) -> Requester:
    """Return a function as an IOMMU sees it at `at`, its present address; None means Linux's address."""
    sbdf = at or function.sbdf
    port = function.express.port_type if function.express is not None else None
    role = role_of(function.ids.class_code, port)
    physfn = machine.functions.get(function.physfn) if function.physfn is not None else None
    if physfn is not None:
        extended = is_extended(physfn, machine, physfn.sbdf.device)
    else:
        extended = is_extended(function, machine, sbdf.device)
    return Requester(sbdf, function.physfn, extended, role)


def is_extended(function: Function, machine: Machine, device: int) -> bool:
    """Return True if dom0's kernel would set EXTFN: device number above 0, behind a port that forwards ARI.

    `device` is the device number of the function's address. The port is the bridge directly above the
    function. The answer is False for a virtual function, and if the bridge or its ARI bit is not known.
    Source: linux drivers/xen/pci.c (pci_ari_enabled and PCI_SLOT != 0); PCIe 6.0 §7.5.3.15 bit 5.
    """
    if function.physfn is not None or device == 0:
        return False
    port = machine.parent_of(function)
    return port is not None and port.express is not None and bool(port.express.ari_forwarding)


def vendor_of(machine: Machine) -> Vendor:
    """Return the vendor of a machine's IOMMU units, by its functions: AMD-Vi units are PCI functions.

    A machine whose first host bridge is AMD's has AMD-Vi as well.
    """
    for function in machine.functions.values():
        role = role_of(function.ids.class_code, None)
        first = role is Role.HOST_BRIDGE and function.sbdf.bus == 0 and function.sbdf.device == 0
        if (role is Role.IOMMU or first) and function.ids.vendor in _AMD:
            return Vendor.AMD
    return Vendor.INTEL
