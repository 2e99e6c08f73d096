"""Xen's list of PCI devices as a machine: what add and remove do to it, per release.

Results are 0 or -errno, as Xen gives them. What panics a real Xen raises `Catastrophe`.
Not modelled: bridges, which need no unit on VT-d and so are never orphaned there; I/O-space VF BARs; phantom
functions. vPCI and reserved memory are machines of their own, which are told here of what comes and goes.

Source: Xen xen/drivers/passthrough/pci.c (pci_add_device, pci_remove_device, alloc_pdev), vtd/iommu.c
(domain_context_mapping), xen/drivers/vpci/header.c (init_bars, vpci_process_pending), 4.17 to 4.20.
"""

import enum
from collections.abc import Iterable
from errno import EBUSY, EINVAL, ENODEV, EOPNOTSUPP
from typing import Protocol

import attrs

from pcipt.pci import Sbdf
from pcipt.xen.interface import DeviceFlags, Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.simulated.coverage import Coverage, requester

DOM0 = Owner(OwnerKind.DOMAIN, 0)
NOBODY = Owner(OwnerKind.NOBODY)
NO_FLAGS = DeviceFlags()


class Catastrophe(BaseException):  # no handler of errors may outlive a dead host
    """The host is down: Xen has panicked. `why` says by what."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@attrs.frozen
class Presence:
    """A function that answers on the bus: whether it decodes memory, what the kernel would say of it."""

    decodes_memory: bool = False
    flags: DeviceFlags = NO_FLAGS
    node: int | None = None


class Hardware(Protocol):
    """The machine below Xen, asked whenever Xen would look at it."""

    def functions(self) -> Iterable[Sbdf]: ...

    def presence(self, function: Sbdf) -> Presence | None:
        """Give None where nothing answers."""


class Trapping(Protocol):
    """vPCI, on a PVH dom0: handlers are set up before the IOMMU and map what decodes after it."""

    def begin(self, function: Sbdf) -> int: ...

    def finish(self, function: Sbdf) -> None: ...

    def remove(self, function: Sbdf) -> None: ...


class Counting(Protocol):
    """Reserved memory, which counts the devices that need it."""

    def added(self, function: Sbdf) -> None: ...

    def removed(self, function: Sbdf) -> None: ...


class VfWithoutPf(enum.Enum):
    """What adding a VF does whose physical function Xen does not know."""

    ADDS_IT = "the physical function is added as well, its failure is passed over"
    NEEDS_IT = "the physical function is added first, its failure is the VF's"
    REFUSES = "ENODEV"


@attrs.frozen
class Release:
    """How a release line differs; each as of its last stable version."""

    since: tuple[int, int]
    orphan_removal_panics: bool  # vpci_remove_device looks into the owner that is not there
    unfinished_map_panics: bool  # vpci_process_pending finds vPCI gone after a failed add
    vf_without_pf: VfWithoutPf
    keeps_pf_with_vfs: bool  # removal of the PF is EBUSY, and the PF and its VFs are broken from then on


# since, orphan removal, failed PVH add, VF alone, PF with VFs
RELEASES = (
    Release((4, 17), True, True, VfWithoutPf.ADDS_IT, False),  # both panics measured
    Release((4, 18), True, True, VfWithoutPf.ADDS_IT, False),  # the code is 4.17's
    Release((4, 19), False, False, VfWithoutPf.NEEDS_IT, True),  # 635dd1120a; stable-4.19 has the PF-VF links
    Release((4, 20), False, False, VfWithoutPf.REFUSES, True),  # 8fe330a4da; no panic, measured
)


def release_of(identity: XenIdentity) -> Release:
    """Choose the newest row that is not newer than this Xen; an older Xen is taken for 4.17."""
    fitting = [row for row in RELEASES if identity.at_least(*row.since)]
    return fitting[-1] if fitting else RELEASES[0]


@attrs.define
class Device:
    """Xen's record of a function. `recognised` is False if nothing answered when the record was made."""

    owner: Owner
    flags: DeviceFlags
    node: int | None
    recognised: bool = True
    broken: bool = False


class DeviceList:
    """All records of one Xen; `iommu` is None where the IOMMU is off, which a PVH dom0 does not allow."""

    def __init__(self, hardware: Hardware, dom0: Dom0Kind, release: Release, iommu: Coverage | None) -> None:
        self.devices: dict[Sbdf, Device] = {}
        self.iommu = iommu
        self.trapping: Trapping | None = None
        self.counting: Counting | None = None
        self._hardware = hardware
        self._pvh = dom0 is Dom0Kind.PVH
        self._release = release

    def boot(self, functions: Iterable[Sbdf]) -> None:
        """Take functions in as the boot does: scanned, dom0's, and announced by its kernel."""
        for function in functions:
            seen = self._hardware.presence(function) or Presence()
            self.devices[function] = Device(DOM0, seen.flags, seen.node)
            # A function whose handlers cannot be set up is dom0's all the same, only not trapped.
            if self.trapping is not None and not self.trapping.begin(function):
                self.trapping.finish(function)

    def add(self, function: Sbdf, flags: DeviceFlags, node: int | None = None) -> int:
        if flags.physfn is not None and flags.physfn not in self.devices:
            result = self._add_physfn(flags.physfn, node)
            if result:
                self.devices.pop(function, None)
                return result
        device = self._record(function)
        device.node, device.flags = node, flags
        if device.owner.kind is not OwnerKind.NOBODY:
            return 0
        return self._attach(function, device)

    def remove(self, function: Sbdf) -> int:
        device = self.devices.get(function)
        if device is None:
            return -ENODEV
        vfs = [vf for vf in self.devices.values() if vf.flags.physfn == function]
        if self._release.keeps_pf_with_vfs and vfs:
            for part in (device, *vfs):
                part.broken = True
            return -EBUSY
        orphan = device.owner.kind is OwnerKind.NOBODY
        if orphan and self._release.orphan_removal_panics:
            raise Catastrophe(f"removal of {function}, which nobody owns: vpci_remove_device, NULL")
        del self.devices[function]
        if self.trapping is not None:
            self.trapping.remove(function)
        if self.counting is not None and not orphan:
            self.counting.removed(function)
        return -EINVAL if orphan else 0

    def _add_physfn(self, physfn: Sbdf, node: int | None) -> int:
        match self._release.vf_without_pf:
            case VfWithoutPf.ADDS_IT:
                self.add(physfn, NO_FLAGS, node)
                return 0
            case VfWithoutPf.NEEDS_IT:
                return self.add(physfn, NO_FLAGS, node)
            case VfWithoutPf.REFUSES:
                return -ENODEV

    def _record(self, function: Sbdf) -> Device:
        """Find the record or make one; what the function is, is read from hardware at that moment only."""
        if function not in self.devices:
            recognised = self._hardware.presence(function) is not None
            self.devices[function] = Device(NOBODY, NO_FLAGS, None, recognised)
        return self.devices[function]

    def _attach(self, function: Sbdf, device: Device) -> int:
        """Give it to dom0, set up vPCI, add it to the IOMMU; a failure leaves it without an owner."""
        present = self._hardware.presence(function)
        if self._pvh and present is None:
            return -EOPNOTSUPP  # all ones are no header type that vPCI knows
        if self.trapping is not None and (result := self.trapping.begin(function)):
            return result
        result = self._context(function, device)
        queued = self._pvh and present is not None and present.decodes_memory
        if result and queued and self._release.unfinished_map_panics:
            raise Catastrophe(f"failing add of {function}, which decodes memory: vpci_process_pending, NULL")
        if result:
            if self.trapping is not None:
                self.trapping.remove(function)
            return result
        device.owner = DOM0
        if self.counting is not None:
            self.counting.added(function)
        if self.trapping is not None:
            self.trapping.finish(function)
        return 0

    def _context(self, function: Sbdf, device: Device) -> int:
        if self.iommu is None:
            return 0
        if not device.recognised:
            return -EINVAL
        physfn = self.devices.get(device.flags.physfn) if device.flags.physfn is not None else None
        extended = physfn is not None and physfn.flags.extended
        source = requester(function, device.flags, physfn_extended=extended)
        return 0 if self.iommu.covers(source) else -ENODEV
