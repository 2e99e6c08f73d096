"""The hypervisor as pcipt sees it: one interface that the real and the simulated Xen implement.

Nothing here decides whether a call is allowed: guards do that before the call. A failed call raises
`HypervisorError` with a Linux errno; `UnsupportedError` means that this Xen or its libraries cannot do it.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from pcipt.pci import Frames, Range, Sbdf


class Dom0Kind(enum.Enum):
    """The kind of dom0. A PV dom0 has no map of its own (p2m) that Xen could change; a PVH dom0 has one."""

    PV = "pv"
    PVH = "pvh"


class Custody(enum.Enum):
    """Who has a function that Xen knows, as far as one question without side effects can tell.

    HARDWARE_DOMAIN: dom0 has it, or it is quarantined (dom_io); Xen gives both the same answer. ELSEWHERE: a
    guest has it, Xen itself has it (hidden), nobody has it (an orphan), or Xen does not know it; Xen gives
    all four the same answer. UNTOLD: the question could not be answered.
    """

    HARDWARE_DOMAIN = "dom0"
    ELSEWHERE = "elsewhere"
    UNTOLD = "untold"


class OwnerKind(enum.Enum):
    """Who owns a function in Xen's list.

    DOMAIN: dom0 or a guest. QUARANTINE: the domain dom_io. XEN: Xen itself. NOBODY: the function is an
    orphan.
    """

    DOMAIN = "domain"
    QUARANTINE = "quarantine"
    XEN = "xen"
    NOBODY = "nobody"


@attrs.frozen
class Owner:
    """The owner of a function in Xen's list.

    `domain` is the domain's number if `kind` is DOMAIN, else None.

    A function with owner NOBODY is called an orphan.
    """

    kind: OwnerKind
    domain: int | None = None


@attrs.frozen
class XenIdentity:
    """The version of Xen and the kind of dom0. `full` is the version as Xen prints it, e.g. 4.17.7."""

    major: int
    minor: int
    full: str
    dom0: Dom0Kind

    def at_least(self, major: int, minor: int) -> bool:
        """Return True if this is release `major`.`minor` or a later one."""
        return (self.major, self.minor) >= (major, minor)


@attrs.frozen
class DeviceFlags:
    """What an announcement to Xen says about a function besides its address, as dom0's kernel says it.

    `extended` is EXTFN: an ARI function whose device number bits are not 0. `physfn` is the physical function
    if this is a virtual function, else None. The proximity domain is never sent, because Linux's node numbers
    are not ACPI's.
    Source: Xen public/physdev.h, XEN_PCI_DEV_*; linux drivers/xen/pci.c.
    """

    extended: bool = False
    physfn: Sbdf | None = None


@attrs.frozen
class Permissions:
    """The memory and the I/O ports that a domain may access, from Xen's rangesets (debug key q)."""

    memory: tuple[Frames, ...]
    ports: tuple[Range, ...]


class Hypervisor(Protocol):
    """Xen, real or simulated. An object is used by one thread, in the process that opened it.

    Raises: HypervisorError if Xen returns an error; UnsupportedError if this Xen or its libraries cannot
            perform a call; StateError after `close`. This is true of every method that calls Xen and does
            not say otherwise.
    """

    @property
    def identity(self) -> XenIdentity:
        """The version of Xen and the kind of dom0."""

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        """Return one bool for each function: True if Xen lists it (XEN_SYSCTL_pcitopoinfo).

        One call of Xen asks about many functions. A function whose segment is above ffff gives False; Xen is
        not asked about it. A function that Xen lists may still have no owner.
        """

    def custody(self, function: Sbdf) -> Custody:
        """Return who has a function that Xen knows (XEN_DOMCTL_test_assign_device with DOMID_INVALID).

        UNTOLD if there is no IOMMU (EOPNOTSUPP) or the toolstack interface is refused.
        """

    def owners(self) -> Mapping[Sbdf, Owner]:
        """Return all functions in Xen's list with their owners, by Xen's debug key Q.

        This is slow and prints on Xen's console: call it on demand only, never in a loop.
        """

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        """Add a function to Xen's list (PHYSDEVOP_pci_device_add).

        If Xen lists the function already, what Xen knew of it is overwritten.
        """

    def remove_device(self, function: Sbdf) -> None:
        """Remove a function from Xen's list (PHYSDEVOP_pci_device_remove).

        Xen before 4.19 panics if the function is an orphan (a function without an owner).
        """

    def map_mmio(self, frames: Frames) -> None:
        """Map frames 1:1 for dom0, domain 0 (XEN_DOMCTL_memory_mapping, DPCI_ADD_MAPPING): gfn equals mfn.

        After a failure none of `frames` is mapped, not even frames that were mapped before the call: libxc
        unmaps all of them to undo the call. The errno may then be the errno of that unmapping. With the errno
        EPERM, EACCES or ENOSYS nothing has changed: Xen returns these before it maps the first frame.
        If `frames` contain RAM, the call succeeds and dom0 loses the RAM. If they contain frames that are
        mapped to other MMIO, Xen kills dom0. Guards must prevent both.
        Raises: HypervisorError if Xen refuses; StateError on a PV dom0, where Xen would do nothing and report
                success.
        """

    def unmap_mmio(self, frames: Frames) -> None:
        """Unmap frames for dom0.

        Raises: HypervisorError if Xen refuses; its errno is EINVAL if some frames were not mapped (the other
                frames are then unmapped). StateError on a PV dom0, as `map_mmio` does.
        """

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        """Return the reserved memory regions of one function, or of the whole machine if `function` is None.

        The call is XENMEM_reserved_device_memory_map.
        """

    def permissions(self) -> Mapping[int, Permissions]:
        """Return what each domain may access, by Xen's debug key q.

        This is slow and prints on Xen's console: call it on demand only, never in a loop.
        """

    def close(self) -> None:
        """Close the connection. Every later call raises StateError."""
