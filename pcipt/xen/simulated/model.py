"""Model Xen's list of PCI devices: what add and remove do to it, for each release of Xen.

Results are 0 or -errno, as Xen returns them. A call that would panic a real Xen raises `Catastrophe`. Not
modelled: VF BARs in I/O space; phantom functions. vPCI, reserved memory, the sizing of VF BARs and the
entries by which DMA passes are models of their own; this model tells them which functions are added and
removed.
Source: Xen xen/drivers/passthrough/pci.c (pci_add_device, pci_remove_device, alloc_pdev), vtd/iommu.c
        (domain_context_mapping), xen/drivers/vpci/header.c (init_bars, vpci_process_pending), 4.17 to 4.22.
"""

from collections.abc import Callable, Iterable, Mapping
from errno import EBUSY, EINVAL, ENODEV, ENOSYS, EOPNOTSUPP
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.pci.requester import Requester, Role, Vendor
from pcipt.xen.interface import DeviceFlags, Dom0Kind, Owner, OwnerKind
from pcipt.xen.releases import (
    DEVICE_RESET,
    ORPHAN_REMOVAL_PANICS,
    PF_WITH_VFS_STAYS,
    UNFINISHED_MAP_PANICS,
    VF_NEEDS_PF_ADDED,
    VF_WITHOUT_PF_REFUSED,
    Version,
)
from pcipt.xen.simulated.coverage import Coverage

DOM0 = Owner(OwnerKind.DOMAIN, 0)
NOBODY = Owner(OwnerKind.NOBODY)
NO_FLAGS = DeviceFlags()
NO_VF_SIZES: Mapping[int, int] = MappingProxyType({})


class Catastrophe(BaseException):  # no `except Exception` may catch it
    """Xen has panicked, or dom0 was killed or lost memory: the host is down. `why` tells the cause."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@attrs.frozen
class Presence:
    """What Xen sees of a function that answers on the bus.

    `flags` and `node` (its NUMA node, None if unknown) are those that dom0's kernel would announce. `role` is
    what Xen takes the function for. `port_type` is that of PCI Express, None without such a capability;
    `buses` are the secondary and the subordinate bus of a bridge.
    """

    decodes_memory: bool = False
    flags: DeviceFlags = NO_FLAGS
    node: int | None = None
    role: Role = Role.ENDPOINT
    port_type: int | None = None
    buses: tuple[int, int] = (0, 0)


class Hardware(Protocol):
    """The machine below Xen. The model asks it whenever a real Xen would look at the hardware."""

    def functions(self) -> Iterable[Sbdf]:
        """Return the addresses of all functions. It is called only when the simulation starts."""

    def presence(self, function: Sbdf) -> Presence | None:
        """Return what Xen sees of a function on the bus; None if no function answers at this address."""


@runtime_checkable
class Placed(Protocol):
    """Hardware whose buses can be renumbered."""

    def place(self, function: Sbdf) -> tuple[int, ...]:
        """Return a name of the place at an address, which stays the same when buses are renumbered."""


def place_in(hardware: Hardware, function: Sbdf) -> tuple[int, ...]:
    """Return a name of the place at an address; the address itself if the hardware has no bridges."""
    return hardware.place(function) if isinstance(hardware, Placed) else tuple(function)


class Trapping(Protocol):
    """vPCI on a PVH dom0. `begin` is called before a function is added to the IOMMU, `finish` after that."""

    def begin(self, function: Sbdf, *, boot: bool = False) -> int:
        """Set up the handlers of a function. Return 0, or -errno if they cannot be set up.

        With `boot` the BARs are mapped at once, as while Xen builds dom0.
        """

    def finish(self, function: Sbdf) -> None:
        """Map the BARs of a function if memory decode was on when `begin` was called."""

    def remove(self, function: Sbdf) -> None:
        """Remove the handlers of a function. The pages that they mapped stay mapped."""


class Counting(Protocol):
    """Reserved memory. Each reserved region has a count of the devices that need it."""

    def added(self, function: Sbdf) -> None:
        """Add 1 to the count of each region that this newly added function needs."""

    def removed(self, function: Sbdf) -> None:
        """Subtract 1 from the count of each region that this function needed, which was removed from dom0."""


class Translating(Protocol):
    """The entries of the IOMMU's tables by which DMA of functions passes."""

    def recorded(self, function: Sbdf, seen: "Presence | None") -> None:
        """Note what a function is, when Xen makes its record; `seen` is None if it does not answer."""

    def forgotten(self, function: Sbdf) -> None:
        """Forget a function whose record Xen deletes."""

    def mapped(self, function: Sbdf) -> None:
        """Make the entries of a function that was given to dom0."""

    def unmapped(self, function: Sbdf) -> None:
        """Remove the entries of a function that is removed."""


class Sizing(Protocol):
    """The sizing of VF BARs, which Xen does when it is told of a physical function."""

    def of(self, function: Sbdf, *, boot: bool = False) -> dict[int, int]:
        """Return the sizes of the VF BARs of a function by number; empty while virtual functions are on."""


@attrs.define
class Device:
    """Xen's record of a function.

    `recognised` is False if no function answered when the record was made. VT-d does not take such a
    function. `broken` is True after a removal that left the record unusable. `vf_sizes` are the sizes of VF
    BARs of one virtual function; without them MSI-X of the virtual functions fails in guests.
    """

    owner: Owner
    flags: DeviceFlags
    node: int | None
    recognised: bool = True
    broken: bool = False
    vf_sizes: Mapping[int, int] = NO_VF_SIZES


class SimulatedHardware:
    """Hardware without registers: a set of functions that tests add (plug) and remove (pull)."""

    def __init__(self, functions: Iterable[Sbdf] = ()) -> None:
        self._present = dict.fromkeys(functions, Presence())

    def functions(self) -> Iterable[Sbdf]:
        """Return the addresses of all functions, in the order in which they were added."""
        return tuple(self._present)

    def presence(self, function: Sbdf) -> Presence | None:
        """Return the `Presence` of a function; None if the function is not there."""
        return self._present.get(function)

    def plug(self, function: Sbdf, presence: Presence | None = None) -> None:
        """Add a function, or replace its `Presence`. The default has memory decode off and no flags."""
        self._present[function] = presence or Presence()

    def pull(self, function: Sbdf) -> None:
        """Remove a function; nothing happens if it is not there."""
        self._present.pop(function, None)


class DeviceList:
    """All device records of one Xen, by function.

    `iommu` None means that the IOMMU is off, which a PVH dom0 does not allow. `trapping` (vPCI), `counting`
    (reserved memory) and `translating` (DMA) are told which functions are added and removed; None means that
    there is none. `says` gets each line that Xen prints.
    """

    def __init__(self, hardware: Hardware, dom0: Dom0Kind, version: Version, iommu: Coverage | None) -> None:
        self.devices: dict[Sbdf, Device] = {}
        self.iommu = iommu
        self.trapping: Trapping | None = None
        self.counting: Counting | None = None
        self.translating: Translating | None = None
        self.says: Callable[[str], object] = lambda _line: None
        self.sizing: Sizing | None = None
        self._hardware = hardware
        self._pvh = dom0 is Dom0Kind.PVH
        self._version = version

    def boot(self, functions: Iterable[Sbdf]) -> None:
        """Add functions as Xen's boot does: Xen finds them, dom0 owns them, and its kernel announces them.

        A function that no IOMMU unit serves, or that vPCI cannot set up, is dom0's all the same, without
        vPCI; for the former vPCI is not even tried.
        Source: xen/drivers/passthrough/pci.c (setup_one_hwdom_device), 4.17 to 4.22.
        """
        booted = {function: self._hardware.presence(function) for function in functions}
        for function, seen in booted.items():
            flags, node = (seen.flags, seen.node) if seen is not None else (NO_FLAGS, None)
            self.devices[function] = Device(DOM0, flags, node)
            self._size_vfs(function, boot=True)
            if self.translating is not None:
                self.translating.recorded(function, seen)
        for function, seen in booted.items():
            if result := self._context(function, self.devices[function], seen):
                self.says(f"setup {function} for d0 failed ({result})")
                continue
            if self.translating is not None:
                self.translating.mapped(function)
            if self.trapping is not None and (result := self.trapping.begin(function, boot=True)):
                self.says(f"setup of vPCI for d0 failed: {result}")
            if self.counting is not None and self._is_amd:
                self.counting.added(function)

    def add(self, function: Sbdf, flags: DeviceFlags, node: int | None = None) -> int:
        """Add a function with owner dom0, or update the record of a function that has an owner.

        Return 0 or -errno. A listed function without an owner (an orphan) is given to dom0. If `function` is
        a virtual function and Xen does not list its physical function, `_add_physfn` is done
        first; if that fails, the virtual function is not added, and a record of it is deleted. After any
        other failure the function is listed without an owner.
        Raises: Catastrophe if the add fails and Xen panics because of that (see `_attach`).
        """
        if flags.physfn is not None and flags.physfn not in self.devices:
            result = self._add_physfn(flags.physfn, node)
            if result:
                self.devices.pop(function, None)
                return result
        device = self._record(function)
        device.node, device.flags = node, flags
        self._size_vfs(function)
        if device.owner.kind is not OwnerKind.NOBODY:
            return 0
        return self._attach(function, device)

    def remove(self, function: Sbdf) -> int:
        """Remove a function. Return 0 or -errno.

        -ENODEV: Xen does not list it. -EBUSY: it is a physical function whose virtual functions are listed,
        and the release keeps it; its record and those of its virtual functions become `broken`. -EINVAL: it
        was an orphan (a function without an owner); it is removed all the same.
        Raises: Catastrophe if it is an orphan and the release panics in that case.
        """
        device = self.devices.get(function)
        if device is None:
            return -ENODEV
        vfs = [vf for vf in self.devices.values() if vf.flags.physfn == function]
        if vfs and PF_WITH_VFS_STAYS.of(self._version):
            for part in (device, *vfs):
                part.broken = True
            return -EBUSY
        orphan = device.owner.kind is OwnerKind.NOBODY
        if orphan and ORPHAN_REMOVAL_PANICS.of(self._version):
            raise Catastrophe(f"removal of {function}, which nobody owns: vpci_remove_device, NULL")
        if self.translating is not None:
            if not orphan:
                self.translating.unmapped(function)
            self.translating.forgotten(function)
        del self.devices[function]
        if self.trapping is not None:
            self.trapping.remove(function)
        if self.counting is not None and self.iommu is not None and device.owner == DOM0:
            self.counting.removed(function)
        return -EINVAL if orphan else 0

    def reset(self, function: Sbdf) -> int:
        """Set vPCI of a function up anew, because the function was reset. Return 0 or -errno.

        -ENOSYS: this Xen has no such call; -ENODEV: it does not list the function. On a PV dom0 nothing
        changes. Pages that the former handlers had mapped stay mapped.
        Raises: Catastrophe if the function has no owner.
        """
        if not DEVICE_RESET.of(self._version):
            return -ENOSYS
        device = self.devices.get(function)
        if device is None:
            return -ENODEV
        if device.owner.kind is OwnerKind.NOBODY:
            raise Catastrophe(f"reset of {function}, which nobody owns: pci_physdev_op, NULL")
        if self.trapping is None or device.owner != DOM0:
            return 0
        self.trapping.remove(function)
        result = self.trapping.begin(function)
        self.trapping.finish(function)
        return result

    @property
    def _is_amd(self) -> bool:
        """True if the IOMMU units are AMD-Vi's."""
        return self.iommu is not None and self.iommu.vendor is Vendor.AMD

    def _add_physfn(self, physfn: Sbdf, node: int | None) -> int:
        """Do what this Xen does with an unlisted physical function of a new virtual one. Return 0 or -errno.

        -ENODEV: it refuses the virtual function. Another error: the physical function could not be added, and
        that matters to this Xen.
        Raises: Catastrophe if the add of the physical function ends in a panic.
        """
        if VF_WITHOUT_PF_REFUSED.of(self._version):
            return -ENODEV
        result = self.add(physfn, NO_FLAGS, node)
        return result if VF_NEEDS_PF_ADDED.of(self._version) else 0

    def _size_vfs(self, function: Sbdf, *, boot: bool = False) -> None:
        """Size the VF BARs of a function that is not virtual, if VF BAR 0 has no size yet."""
        device = self.devices[function]
        if self.sizing is not None and device.flags.physfn is None and not device.vf_sizes.get(0):
            device.vf_sizes = {**device.vf_sizes, **self.sizing.of(function, boot=boot)} or NO_VF_SIZES

    def _record(self, function: Sbdf) -> Device:
        """Return the record of a function. If there is none, make one without an owner.

        For a new record the hardware is asked whether the function answers.
        """
        if function not in self.devices:
            seen = self._hardware.presence(function)
            self.devices[function] = Device(NOBODY, NO_FLAGS, None, recognised=seen is not None)
            if self.translating is not None:
                self.translating.recorded(function, seen)
        return self.devices[function]

    def _attach(self, function: Sbdf, device: Device) -> int:
        """Give a function to dom0: set up vPCI, then add it to the IOMMU. Return 0 or -errno.

        -EOPNOTSUPP: dom0 is PVH, and no function answers or vPCI cannot handle its header type. Other errors
        are those of `_context`. After a failure the function has no owner and no vPCI handlers.
        Raises: Catastrophe if dom0 is PVH, the function decodes memory, adding it to the IOMMU fails, and the
                release panics in that case (`UNFINISHED_MAP_PANICS`).
        """
        present = self._hardware.presence(function)
        if self._pvh and present is None:  # the header type reads ff, which vPCI does not know
            self.says(f"Setup of vPCI failed: {-EOPNOTSUPP}")
            return -EOPNOTSUPP
        if self.trapping is not None and (result := self.trapping.begin(function)):
            self.says(f"Setup of vPCI failed: {result}")
            return result
        if self.counting is not None and self.iommu is not None and not self._is_amd:
            self.counting.added(function)  # before the context, and it stays if that fails
        result = self._context(function, device, present)
        queued = self._pvh and present is not None and present.decodes_memory
        if result and queued and UNFINISHED_MAP_PANICS.of(self._version):
            raise Catastrophe(f"failing add of {function}, which decodes memory: vpci_process_pending, NULL")
        if result:
            if self.trapping is not None:
                self.trapping.remove(function)
            return result
        device.owner = DOM0
        if self.translating is not None:
            self.translating.mapped(function)
        if self.counting is not None and self._is_amd:
            self.counting.added(function)
        if self.trapping is not None:
            self.trapping.finish(function)
        return 0

    def _context(self, function: Sbdf, device: Device, seen: Presence | None) -> int:
        """Add the function, which is seen as `seen`, to the IOMMU. Return 0 or -errno.

        Return 0 if the IOMMU is off, -EINVAL if VT-d does not know such a bridge, or does not know what the
        function is because it did not answer when its record was made, and -ENODEV if no IOMMU unit serves
        it. AMD-Vi looks at the address only, and at the record for what is a host bridge.
        Source: xen/drivers/passthrough/vtd/iommu.c (domain_context_mapping), amd/pci_amd_iommu.c
                (amd_iommu_add_device).
        """
        if self.iommu is None:
            return 0
        if not device.recognised and not self._is_amd:
            return -EINVAL
        physfn = self.devices.get(device.flags.physfn) if device.flags.physfn is not None else None
        extended = physfn.flags.extended if physfn is not None else device.flags.extended
        role = seen.role if seen is not None and device.recognised else Role.ENDPOINT
        return self.iommu.answer(Requester(function, device.flags.physfn, extended, role))
