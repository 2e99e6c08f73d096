"""The hypervisor as pcipt sees it: what it can be asked and told, one interface for every implementation.

No policy stands here: guards decide before a call is made. Errors are values of Linux errno in
`HypervisorError`; what this Xen or its libraries cannot do is `UnsupportedError`.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from pcipt.pci import Sbdf


class Dom0Kind(enum.Enum):
    PV = "pv"
    PVH = "pvh"


class Custody(enum.Enum):
    """Who has a function that Xen knows, as far as one silent question tells.

    HARDWARE_DOMAIN is dom0's, or quarantined (dom_io): Xen answers both alike. ELSEWHERE is a guest's, Xen's
    own (hidden), nobody's (an orphan) or unknown to Xen: it answers all four alike.
    """

    HARDWARE_DOMAIN = "dom0"
    ELSEWHERE = "elsewhere"
    UNTOLD = "untold"


class OwnerKind(enum.Enum):
    DOMAIN = "domain"
    QUARANTINE = "quarantine"
    XEN = "xen"
    NOBODY = "nobody"


@attrs.frozen
class Owner:
    """The owner of a function in Xen's own list; `domain` is set for DOMAIN. NOBODY makes it an orphan."""

    kind: OwnerKind
    domain: int | None = None


@attrs.frozen
class XenIdentity:
    """Which Xen this is; `full` is the version as Xen prints it, e.g. 4.17.7."""

    major: int
    minor: int
    full: str
    dom0: Dom0Kind

    def at_least(self, major: int, minor: int) -> bool:
        return (self.major, self.minor) >= (major, minor)


@attrs.frozen
class DeviceFlags:
    """What an announcement says beside the address, as dom0's kernel would say it.

    `extended` is EXTFN (an ARI function whose slot bits are not 0); `physfn` makes it a virtual function.
    The proximity domain is never sent: Linux's node numbers are not ACPI's.
    Source: Xen public/physdev.h, XEN_PCI_DEV_*; linux drivers/xen/pci.c.
    """

    extended: bool = False
    physfn: Sbdf | None = None


class Hypervisor(Protocol):
    """Xen, real or simulated. One object is used by one thread in the process that opened it."""

    @property
    def identity(self) -> XenIdentity: ...

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        """Tell for each function whether Xen lists it (XEN_SYSCTL_pcitopoinfo), all in one batch.

        A segment above ffff is answered False without asking. Membership is not ownership.
        """

    def custody(self, function: Sbdf) -> Custody:
        """Ask who has a function that Xen knows (XEN_DOMCTL_test_assign_device with DOMID_INVALID).

        UNTOLD where there is no IOMMU (EOPNOTSUPP) or the toolstack interface is refused.
        """

    def owners(self) -> Mapping[Sbdf, Owner]:
        """List Xen's devices and owners by its debug key Q.

        Slow and loud: on demand only, never in a loop.
        """

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        """PHYSDEVOP_pci_device_add. Overwrites what Xen knew of a known function."""

    def remove_device(self, function: Sbdf) -> None:
        """PHYSDEVOP_pci_device_remove. Panics Xen before 4.19 if the function is an orphan."""

    def close(self) -> None: ...
