"""A simulated hypervisor: it implements `Hypervisor` with models of Xen's device list, p2m, vPCI and
reserved memory.

Every call that reaches the simulated Xen is logged in `calls`. A test can make any call fail. A call that
would panic a real host or kill dom0 raises `Catastrophe`, and every later call raises the same. What dom0's
kernel does (kernel_add, kernel_remove, write_config) is not logged.
"""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EINVAL, EOPNOTSUPP
from functools import partial
from typing import Self

from pcipt.errors import StateError
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, Owner, OwnerKind, Permissions, XenIdentity
from pcipt.xen.mapping import read_regions
from pcipt.xen.outcome import Op, check, checked_flags, custody_from_result, require_translated, xen_address
from pcipt.xen.pf_fixup import pf_fixup_of
from pcipt.xen.releases import SEGMENTS_READ_FOR_IOMMU
from pcipt.xen.simulated.contexts import Contexts
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage
from pcipt.xen.simulated.dma import DirectAccess
from pcipt.xen.simulated.faults import Call, Fault
from pcipt.xen.simulated.fixup import Fixup
from pcipt.xen.simulated.memory_calls import MemoryCalls
from pcipt.xen.simulated.model import DOM0, Catastrophe, Device, DeviceList, Hardware, Presence, place_in
from pcipt.xen.simulated.overlaps import all_but
from pcipt.xen.simulated.p2m import LOW_1MIB, LOW_RAM, P2m
from pcipt.xen.simulated.reserved import ReservedMemory, ReservedRegion
from pcipt.xen.simulated.second_caller import SecondCaller
from pcipt.xen.simulated.speaking import Speaking
from pcipt.xen.simulated.vf_sizes import sizing_of
from pcipt.xen.simulated.vpci import Vpci
from pcipt.xen.simulated.vpci_state import ConfigHardware

XEN_4_17_PV = XenIdentity("4.17.7", Dom0Kind.PV)
DENIED = (Frames(Gfn(0xFEC00), 1), Frames(Gfn(0xFEE00), 0x100))  # IO-APIC; APIC and MSI


class SimulatedXen(Speaking):
    """A simulated Xen; see `Hypervisor`. Its calls raise the same errors, and `Catastrophe` (see the module).

    `known` are the functions that Xen lists at the start, with owner dom0. None means all functions of
    `hardware`. Functions whose segment is above ffff are left out. `iommu` is what the IOMMU units serve by
    the tables at boot; None means that the IOMMU is off. `memory` is dom0's RAM. `trapped` are frames that
    Xen emulates and that must not be mapped (MMCFG). `reserved` are the reserved regions of the firmware's
    tables; with `firmware` they are the reserved memory of the machine's memory map. A PVH dom0 gets all of
    that mapped 1:1 at boot, unless `map_reserved` is False (Xen's dom0-iommu=no-map-reserved). `command_line`
    is Xen's. MCFG names all segments, and Xen uses all of its areas. With `cuts_segments`, dom0's kernel is
    older than Linux 6.15: it cuts segments above ffff to 16 bits. The attribute `p2m` is None on a PV dom0;
    `vpci` is None too, and also if the hardware has no config space.
    Raises: StateError for a PVH dom0 without an IOMMU.
    """

    def __init__(
        self,
        hardware: Hardware,
        identity: XenIdentity = XEN_4_17_PV,
        *,
        iommu: Coverage | None = EVERYTHING,
        known: Iterable[Sbdf] | None = None,
        memory: Iterable[Frames] = (),
        trapped: Iterable[Frames] = (),
        reserved: Iterable[ReservedRegion] = (),
        firmware: Iterable[Frames] = (),
        map_reserved: bool = True,
        command_line: str = "",
        cuts_segments: bool = False,
    ) -> None:
        super().__init__(command_line, iommu=iommu is not None)
        if identity.dom0 is Dom0Kind.PVH and iommu is None:
            raise StateError("a PVH dom0 does not boot without an IOMMU")
        self._identity = identity
        self._list = DeviceList(hardware, identity.dom0, identity.version, iommu)
        memory, trapped, reserved = tuple(memory), tuple(trapped), tuple(reserved)
        reserved_memory = [*firmware, *(region.frames for region in reserved)]
        pvh = identity.dom0 is Dom0Kind.PVH
        self.p2m = P2m([*memory, LOW_RAM], [LOW_1MIB], trapped, DENIED) if pvh else None
        vendor = iommu.vendor if iommu is not None else Vendor.INTEL
        place = partial(place_in, hardware)
        early = SEGMENTS_READ_FOR_IOMMU.of(identity.version)
        self.reserved = ReservedMemory(
            reserved, lambda f: hardware.presence(f) is not None, self.p2m, vendor=vendor, place=place,
            segments=range(0x10000) if early else (0,),
        )  # fmt: skip
        if self.p2m is not None and map_reserved:  # after VT-d's regions, before those of AMD-Vi
            for frames in reserved_memory:
                self.p2m.set_identity(frames)
        self.vpci: Vpci | None = None
        e820 = [LOW_1MIB, *memory, *trapped, *reserved_memory]
        if self.p2m is not None and isinstance(hardware, ConfigHardware):
            self.vpci = Vpci(hardware, self.p2m, e820, identity.version, self.prints)
        how = pf_fixup_of(identity, command_line)
        self._fixup = Fixup(how, self.p2m, e820, self._trapped_in) if self.p2m is not None else None
        self._list.trapping, self._list.counting, self._list.says = self.vpci, self.reserved, self.prints
        self._list.sizing = sizing_of(hardware, identity.version)
        listed = hardware.functions() if known is None else known
        aliases = iommu.aliases if iommu is not None else {}
        self.contexts = self._list.translating = Contexts(hardware, vendor, aliases)
        self._list.boot(function for function in listed if function.fits_xen)
        tables = (self._list, self.contexts, self.reserved, self.p2m)
        self.dma = DirectAccess(*tables, hardware, [*memory, *reserved_memory], command_line, self.prints)
        self._memory = MemoryCalls(hardware, self._list, self.reserved, self.p2m, self.vpci)
        self._hardware = hardware
        self._closed = False
        self._cuts_segments = cuts_segments
        self.grants: dict[int, Permissions] = {}  # of guests, by domain number
        self.catastrophe: Catastrophe | None = None
        self.second = SecondCaller()

    @property
    def identity(self) -> XenIdentity:
        """The version of Xen and the kind of dom0."""
        return self._identity

    @property
    def changes(self) -> tuple[Call, ...]:
        """The logged calls that change the state of Xen (`Op.changes`), whether or not they failed."""
        return tuple(call for call in self.calls if call.op.changes)

    @property
    def devices(self) -> Mapping[Sbdf, Device]:
        """Xen's records by function, for tests. Reading them is not logged as a call and never fails.

        The mapping is read-only and shows later changes.
        """
        return types.MappingProxyType(self._list.devices)

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        """Return one bool for each function, in order: True if Xen lists it.

        A function whose segment is above ffff gives False. No call is logged if all functions are such.
        Raises: HypervisorError or UnsupportedError if a test ordered a failure.
        """
        self._require_alive()
        if asked := tuple(sbdf for sbdf in functions if sbdf.fits_xen):
            fault = self._faults.take(Op.KNOWN)
            check(Op.KNOWN, self._log(Op.KNOWN, asked, -fault.errno if fault else 0))
        listed = self._list.devices
        return [function in listed for function in functions]

    def custody(self, function: Sbdf) -> Custody:
        """Return who has a function, as `Hypervisor.custody` describes. Return UNTOLD if the IOMMU is off.

        The errno of an ordered failure is treated as Xen's answer: EINVAL gives ELSEWHERE, for example.
        Raises: UnsupportedError if the segment is above ffff; HypervisorError if an ordered failure has an
                errno that is not the answer for any `Custody`.
        """
        self._require_alive()
        xen_address(function)
        fault = self._faults.take(Op.CUSTODY)
        result = -fault.errno if fault else self._test_assign(function)
        return custody_from_result(function, self._log(Op.CUSTODY, (function,), result))

    def owners(self) -> Mapping[Sbdf, Owner]:
        """Return all functions in Xen's list with their owners.

        The function that was added last comes first.
        Raises: HypervisorError or UnsupportedError if a test ordered a failure of KEY or CONSOLE.
        """
        self._press_key()
        return {function: device.owner for function, device in reversed(self._list.devices.items())}

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        """Add a function to Xen's list. After a failure Xen may list the function without an owner.

        Raises: HypervisorError if Xen refuses; UnsupportedError if the segment is above ffff; StateError if
                `flags.physfn` is on another segment; Catastrophe if Xen would panic.
        """
        self._change(Op.ADD, xen_address(function), checked_flags(function, flags))

    def remove_device(self, function: Sbdf) -> None:
        """Remove a function from Xen's list.

        Raises: HypervisorError if Xen refuses, with ENODEV if Xen does not list the function;
                UnsupportedError if the segment is above ffff; Catastrophe if Xen would panic (an orphan, Xen
                before 4.19).
        """
        self._change(Op.REMOVE, xen_address(function), DeviceFlags())

    def map_mmio(self, frames: Frames) -> None:
        """Map frames 1:1 for dom0.

        Raises: HypervisorError if Xen refuses; StateError on a PV dom0; Catastrophe if the call would kill
                dom0, take RAM from it, or map frames that Xen traps.
        """
        self._remap(Op.MAP, frames)

    def unmap_mmio(self, frames: Frames) -> None:
        """Unmap frames for dom0.

        Raises: HypervisorError if Xen refuses, with EINVAL if some frames were not mapped; StateError on a PV
                dom0; Catastrophe if the call would kill dom0 or unmap reserved memory that a present device
                of dom0 needs.
        """
        self._remap(Op.UNMAP, frames)

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        """Return the reserved memory regions of `function`, or of the whole machine if `function` is None.

        The result is empty if there are no such regions.
        Raises: UnsupportedError if the segment is above ffff; HypervisorError or UnsupportedError if a test
                ordered a failure.
        """
        self._require_alive()
        asked = () if function is None else (xen_address(function),)
        fault = self._faults.take(Op.RESERVED)
        result, regions = read_regions(lambda room: self.reserved.query(function, room))
        result = self._log(Op.RESERVED, asked, -fault.errno if fault else result)
        check(Op.RESERVED, result, "".join(map(str, asked)))
        return regions

    def permissions(self) -> Mapping[int, Permissions]:
        """Return for each domain number what the domain may access.

        dom0 may access all memory except the APICs, and no port is listed for it. Guests have what a test put
        into `grants`.
        Raises: HypervisorError or UnsupportedError if a test ordered a failure of KEY or CONSOLE.
        """
        self._press_key()
        return {0: Permissions(all_but(DENIED), ()), **self.grants}

    def close(self) -> None:
        """Close the connection. Every later call of Xen raises StateError."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    # Methods for tests and replays; they are not part of the interface.

    def fail(self, op: Op, errno: int, *, call: int = 1, performed: bool = False, pages: int = 0) -> None:
        """Make one later call of `op` fail with `errno`.

        `call` 1 means the next call, 2 the call after it, … With `performed`, Xen performs the call and then
        returns the error, as a failing removal from the IOMMU does. Without it, a mapping call (MAP, UNMAP)
        changes the first `pages` pages before it fails; any other call changes nothing and ignores `pages`.
        Pages that a failing MAP has mapped are unmapped again, also with `performed`, as libxc does.
        """
        self._faults.order(Fault(op, call, errno, performed, pages))

    def write_config(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register as dom0 does: through vPCI on a PVH dom0, else directly.

        Nothing happens if the hardware has no config space. The write is not logged as a call.
        Raises: Catastrophe if vPCI then maps or unmaps pages and that would kill dom0 or take memory from it;
                StateError after `close`.
        """
        self._require_alive()
        with self._remembering_catastrophe():
            if self.vpci is not None:
                self.vpci.write(function, offset, size, value)
            elif isinstance(self._hardware, ConfigHardware):
                self._hardware.write(function, offset, size, value)

    def access(self, frames: Frames) -> int:
        """Let a processor of dom0 access these frames; return how many pages that has mapped (`Fixup`)."""
        self._require_alive()
        return self._fixup.access(frames) if self._fixup is not None else 0

    def _trapped_in(self, frames: Frames) -> list[Sbdf]:
        """Return the functions whose MSI-X structures vPCI traps in these frames."""
        return self.vpci.holes(frames) if self.vpci is not None else []

    def give(self, function: Sbdf, owner: Owner) -> None:
        """Give a function to another owner: a guest, quarantine, Xen itself, or nobody.

        If Xen does not list the function, it is first added as at boot. If the new owner is nobody, the
        function's vPCI handlers are removed.
        """
        if function not in self._list.devices:
            self._list.boot((function,))
        before, self._list.devices[function].owner = self._list.devices[function].owner, owner
        if self.vpci is not None and (before == DOM0) != (owner == DOM0):
            orphan = owner.kind is OwnerKind.NOBODY
            self.vpci.hand_over(function, before, to_dom0=owner == DOM0, orphan=orphan)

    def forget(self, function: Sbdf) -> None:
        """Delete a function from Xen's list and remove its vPCI handlers, without the checks of a removal.

        Nothing happens if Xen does not list the function.
        """
        self._list.devices.pop(function, None)
        if self.vpci is not None:
            self.vpci.remove(function)

    def heal(self) -> None:
        """Cancel all ordered failures that have not happened yet."""
        self._faults.clear()

    def kernel_add(self, function: Sbdf) -> int:
        """Announce a function as dom0's kernel does at hot-plug. Return Xen's answer: 0 or -errno.

        It is -EINVAL if the segment is above ffff and the kernel does not cut it (Linux 5ccf1b8ae76d).
        Raises: Catastrophe if Xen would panic; StateError after `close`.
        """
        self._require_alive()
        if not function.fits_xen and not self._cuts_segments:
            return -EINVAL
        seen = self._hardware.presence(function) or Presence()
        with self._remembering_catastrophe():
            return self._list.add(function.cut, seen.flags, seen.node)

    def kernel_remove(self, function: Sbdf) -> int:
        """Report that a function is gone, as dom0's kernel does after hot-unplug.

        Return Xen's answer: 0 or -errno; -EINVAL as for `kernel_add`.
        Raises: Catastrophe if Xen would panic; StateError after `close`.
        """
        self._require_alive()
        if not function.fits_xen and not self._cuts_segments:
            return -EINVAL
        with self._remembering_catastrophe():
            return self._list.remove(function.cut)

    def kernel_reset(self, function: Sbdf) -> int:
        """Tell Xen of a reset, as pciback does (PHYSDEVOP_pci_device_reset); like `kernel_remove`."""
        self._require_alive()
        with self._remembering_catastrophe():
            return self._list.reset(function)

    def _change(self, op: Op, function: Sbdf, flags: DeviceFlags) -> None:
        """Perform and log an add or remove, with an ordered failure if there is one.

        Raises: HypervisorError if the result is an error; Catastrophe if Xen would panic.
        """
        self._require_alive()
        fault = self._faults.take(op)
        result = 0
        if fault is None or fault.performed:
            try:
                with self._remembering_catastrophe():
                    devices = self._list
                    result = devices.add(function, flags) if op is Op.ADD else devices.remove(function)
            except Catastrophe:
                self.calls.append(Call(op, (function,), None))
                raise
        if fault is not None:
            result = -fault.errno
        check(op, self._log(op, (function,), result), str(function))

    def _remap(self, op: Op, frames: Frames) -> None:
        """Perform and log a map or unmap, with an ordered failure if there is one.

        Raises: HypervisorError if the result is an error; StateError on a PV dom0; Catastrophe if dom0 or a
                device would be harmed.
        """
        self._require_alive()
        require_translated(self._identity)
        fault = self._faults.take(op)
        try:
            with self._remembering_catastrophe():
                result = self._memory.perform(op, frames, fault)
        except Catastrophe:
            self.calls.append(Call(op, (), None, frames))
            raise
        check(op, self._log(op, (), result, frames), str(frames))

    def _test_assign(self, function: Sbdf) -> int:
        """Return Xen's answer to test_assign_device.

        It is 0 if dom0 or quarantine has the function, -EOPNOTSUPP if the IOMMU is off, else -EINVAL.
        """
        if self._list.iommu is None:
            return -EOPNOTSUPP
        device = self._list.devices.get(function)
        mine = device is not None and (device.owner == DOM0 or device.owner.kind is OwnerKind.QUARANTINE)
        return 0 if mine else -EINVAL

    def _log(self, op: Op, functions: tuple[Sbdf, ...], result: int, frames: Frames | None = None) -> int:
        """Append a call to the log, let the second caller act, and return the call's result."""
        self.calls.append(Call(op, functions, result, frames))
        with self._remembering_catastrophe():
            self.second.called()
        return result

    def _require_alive(self) -> None:
        """Raise Catastrophe if the host has panicked, StateError if the connection is closed."""
        if self.catastrophe is not None:
            raise self.catastrophe
        if self._closed:
            raise StateError("the connection to Xen is closed")

    @contextmanager
    def _remembering_catastrophe(self) -> Iterator[None]:
        """Remember a Catastrophe that is raised inside, so that every later call raises it too."""
        try:
            yield
        except Catastrophe as exc:
            self.catastrophe = exc
            raise
