"""The hypervisor: one interface, two implementations.

`pcipt.xen.libxc.open_libxc` connects to the Xen this runs on, `pcipt.xen.simulated.SimulatedXen` needs none;
they are not imported here, so that each is loaded only where it is used.
"""

from pcipt.xen.interface import (
    Custody,
    DeviceFlags,
    Dom0Kind,
    Hypervisor,
    Owner,
    OwnerKind,
    XenIdentity,
)

__all__ = ["Custody", "DeviceFlags", "Dom0Kind", "Hypervisor", "Owner", "OwnerKind", "XenIdentity"]
