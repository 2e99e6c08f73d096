"""The hypervisor: one interface (`Hypervisor`) and two implementations of it.

`pcipt.xen.libxc.open_libxc` connects to the running Xen. `pcipt.xen.simulated` holds a simulated Xen for
tests and replays. Nothing is imported here, so that each is loaded only if it is used.
"""

import pcipt.hints
import pcipt.lazy

if pcipt.hints.TYPE_CHECKING:
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

__getattr__ = pcipt.lazy.loader(__name__, {"interface": tuple(__all__)})
