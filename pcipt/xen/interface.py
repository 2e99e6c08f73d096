"""The hypervisor as pcipt sees it: what it can be asked and told, one interface for every implementation.

No policy stands here: guards decide before a call is made. Errors are values of Linux errno in
`HypervisorError`; what this Xen or its libraries cannot do is `UnsupportedError`.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from pcipt.pci import Frames, Range, Sbdf


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


@attrs.frozen
class Permissions:
    """What a domain may reach by Xen's rangesets (debug key q)."""

    memory: tuple[Frames, ...]
    ports: tuple[Range, ...]


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

    def map_mmio(self, frames: Frames) -> None:
        """Identity map frames for dom0 (XEN_DOMCTL_memory_mapping, add): gfn and mfn are equal, domain 0.

        After a failure none of these frames is mapped, also those that were before (libxc unmaps to undo,
        and the errno may be the undoing's). EPERM and EACCES come before anything is done.
        Over RAM it succeeds and the RAM is lost; over other MMIO dom0 is killed: guards decide, not this.

        Raises: StateError on a PV dom0, where Xen would do nothing and report success.
        """

    def unmap_mmio(self, frames: Frames) -> None:
        """Take frames out of dom0's map; EINVAL tells that some were not mapped, the others are out then.

        Raises: StateError on a PV dom0, as `map_mmio` does.
        """

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        """List reserved device memory (XENMEM_reserved_device_memory_map): all, or one function's."""

    def permissions(self) -> Mapping[int, Permissions]:
        """List what each domain may reach, by debug key q. Slow and loud: on demand only, never in a loop."""

    def close(self) -> None: ...
