"""The hypervisor as pcipt sees it: one interface that the real and the simulated Xen implement.

Nothing here decides whether a call is allowed: guards do that before the call. A failed call raises
`HypervisorError` with a Linux errno. `UnsupportedError` means that this Xen or its libraries cannot perform
the call.
"""

import enum
from collections.abc import Mapping, Sequence

from pcipt import values as attrs
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.hints import Protocol
from pcipt.pci import Frames, Range, Sbdf
from pcipt.xen.releases import Version, parse_version


class Dom0Kind(enum.Enum):
    """The kind of dom0. A PV dom0 has no map of its own (p2m) that Xen could change; a PVH dom0 has one."""

    PV = "pv"
    PVH = "pvh"


class Custody(enum.Enum):
    """Who has a function, as Xen answers test_assign_device. This call has no side effects.

    HARDWARE_DOMAIN: dom0 has it, or it is quarantined (dom_io). Xen gives both the same answer. ELSEWHERE: a
    guest has it, Xen itself has it (hidden), nobody has it (an orphan), or Xen does not know it. Xen gives
    all four the same answer. UNTOLD: this Xen or its libraries cannot answer the question.
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
    """The owner of a function in Xen's list. A function whose owner is NOBODY is called an orphan.

    `domain` is the domain's number if `kind` is DOMAIN, else None.
    """

    kind: OwnerKind
    domain: int | None = None


@attrs.frozen
class XenIdentity:
    """The version of Xen and the kind of dom0. `full` is the version as Xen prints it, for example 4.17.7.

    `version` has the three numbers of `full` (`parse_version`).
    """

    full: str
    dom0: Dom0Kind
    version: Version = attrs.field(init=False)

    @version.default
    def _parse(self) -> Version:
        return parse_version(self.full)


@attrs.frozen
class DeviceFlags:
    """What dom0 tells Xen about a function, besides its address, when it announces the function to Xen.

    `extended` is Xen's flag EXTFN: an ARI function whose device number bits are not 0. `physfn` is the
    physical function if this is a virtual function, else None. The proximity domain (ACPI's number of the
    NUMA node) is never sent, because Linux numbers the nodes differently.
    Source: Xen public/physdev.h, XEN_PCI_DEV_*; linux drivers/xen/pci.c.
    """

    extended: bool = False
    physfn: Sbdf | None = None


@attrs.frozen
class Permissions:
    """The memory and the I/O ports that a domain may access, from Xen's rangesets (debug key q).

    Units:  `memory` in frames, `ports` in port numbers. Both are in ascending order.
    """

    memory: tuple[Frames, ...]
    ports: tuple[Range, ...]


@attrs.frozen
class Abilities:
    """What this Xen can do (XEN_SYSCTL_physinfo): run PV and HVM guests, and does it use an IOMMU."""

    pv: bool
    hvm: bool
    iommu: bool


class Hypervisor(Protocol):
    """Xen, real or simulated. An object is used by one thread, in the process that opened it.

    Raises: HypervisorError if Xen returns an error; UnsupportedError if this Xen or its libraries cannot
            perform a call, or if the segment of a function is above ffff; StateError after `close`. This is
            true of every method that calls Xen and does not say otherwise.
    """

    @property
    def identity(self) -> XenIdentity:
        """The version of Xen and the kind of dom0."""

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        """Return one bool for each function, in order: True if Xen lists it (XEN_SYSCTL_pcitopoinfo).

        One call of Xen asks about many functions. A function whose segment is above ffff gives False, and Xen
        is not asked about it. True does not mean that the function has an owner.
        """

    def custody(self, function: Sbdf) -> Custody:
        """Return who has a function (XEN_DOMCTL_test_assign_device with DOMID_INVALID).

        Return UNTOLD if Xen has no IOMMU (EOPNOTSUPP), if libxenctrl is missing, or if Xen refuses the
        toolstack's interface (EACCES, ENOSYS). These cases raise nothing. EINVAL is Xen's answer for
        ELSEWHERE.
        Raises: UnsupportedError if the segment is above ffff; HypervisorError if Xen returns an errno that is
                not named here.
        """

    def owners(self) -> Mapping[Sbdf, Owner]:
        """Return all functions in Xen's list with their owners, in Xen's order (debug key Q).

        This is slow and prints on Xen's console: call it on demand only, never in a loop.
        Raises: UnsupportedError also if Xen's console does not hold a complete list.
        """

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        """Add a function to Xen's list (PHYSDEVOP_pci_device_add).

        If Xen lists the function already, `flags` replace those in its record. Its owner does not change, but
        a function without an owner (an orphan) is given to dom0. After a failure Xen may list the function as
        an orphan.
        Raises: HypervisorError if Xen refuses, for example with ENODEV if no IOMMU unit serves the function;
                UnsupportedError if the segment is above ffff; StateError if `flags.physfn` is on another
                segment.
        """

    def remove_device(self, function: Sbdf) -> None:
        """Remove a function from Xen's list (PHYSDEVOP_pci_device_remove).

        Xen before 4.19 panics if the function is an orphan (a function without an owner). Guards must prevent
        that. Xen from 4.19 on removes the orphan, and HypervisorError with EINVAL is raised all the same.
        Raises: HypervisorError if Xen returns an error, with ENODEV if Xen does not list the function;
                UnsupportedError if the segment is above ffff.
        """

    def map_mmio(self, frames: Frames) -> None:
        """Map frames 1:1 for dom0 (domain 0): each guest frame number equals its machine frame number.

        The call is XEN_DOMCTL_memory_mapping with DPCI_ADD_MAPPING. After EPERM, EACCES or ENOSYS nothing has
        changed, because Xen returns these before it maps the first frame. After any other error `frames` are
        unmapped again, also those that were mapped before the call. But if the mapped frames are scattered in
        many pieces, some of them stay mapped. The errno that is raised may be that of the unmapping.

        If `frames` contain RAM, the call succeeds and dom0 loses the RAM. If they contain frames that are
        mapped to other MMIO, Xen kills dom0. Guards must prevent both.
        Raises: HypervisorError if Xen refuses; UnsupportedError without libxenctrl; StateError on a PV dom0,
                where Xen would do nothing and report success.
        """

    def unmap_mmio(self, frames: Frames) -> None:
        """Unmap frames for dom0 (XEN_DOMCTL_memory_mapping, DPCI_REMOVE_MAPPING).

        If some frames are not mapped, the other frames are unmapped and HypervisorError with EINVAL is
        raised. But if the mapped frames are scattered in many pieces, some of them stay mapped.
        Raises: HypervisorError if Xen refuses; UnsupportedError without libxenctrl; StateError on a PV dom0,
                where Xen would do nothing and report success.
        """

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        """Return the reserved memory regions of `function`, or of the whole machine if `function` is None.

        The result is empty if there are no such regions. The call is XENMEM_reserved_device_memory_map.
        """

    def permissions(self) -> Mapping[int, Permissions]:
        """Return for each domain number what the domain may access, from Xen's debug key q.

        This is slow and prints on Xen's console: call it on demand only, never in a loop.
        Raises: UnsupportedError also if Xen's console does not hold a complete list.
        """

    def console(self) -> str:
        """Return what Xen has printed on its console since the last call of this method; no key is pressed.

        The first call returns all that the console ring still holds. Text that Xen has overwritten is
        missing, and of a longer text only the last 1 MiB is returned. Guests' lines may be in it, and text of
        dom0 if Xen has console_to_ring. The text has whole lines only: a line that is not finished is
        returned by a later call, a line whose beginning or end was overwritten is left out.
        """

    def command_line(self) -> str:
        """Return Xen's command line, as the boot loader gave it (XENVER_commandline).

        Xen keeps 1023 characters, and cuts what is longer. Options that were built into Xen are not in it.
        Raises: UnsupportedError also if a security policy of Xen (XSM) hides the command line.
        """

    def abilities(self) -> Abilities:
        """Return what this Xen can do. It does not change while Xen runs.

        The answer about the IOMMU is Xen's own (iommu_enabled), whatever the firmware's tables promise.
        """

    def close(self) -> None:
        """Close the connection. Every later call of Xen raises StateError. A second `close` does nothing."""


def command_line_of(xen: Hypervisor) -> str | None:
    """Return Xen's command line (`Hypervisor.command_line`), None if Xen does not tell it."""
    try:
        return xen.command_line()
    except (HypervisorError, UnsupportedError):
        return None
