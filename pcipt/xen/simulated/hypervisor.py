"""The hypervisor without a Xen: the same interface over models of its devices, p2m, vPCI and reserved memory.

Every call is logged, any call can be told to fail, and what would panic the host raises `Catastrophe`, then
and at every call after it. dom0's kernel, which announces functions on its own, is played by kernel_add and
kernel_remove, its config writes by write_config; these are not calls of ours and are not logged.
"""

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EINVAL, EOPNOTSUPP
from typing import Self

import attrs

from pcipt.errors import StateError
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, Owner, OwnerKind, Permissions, XenIdentity
from pcipt.xen.mapping import UNTOUCHED, Primitive, map_frames, read_regions, unmap_frames
from pcipt.xen.outcome import Op, check, checked_flags, custody_from_result, require_translated, xen_address
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage
from pcipt.xen.simulated.model import DOM0, Catastrophe, Device, DeviceList, Hardware, Presence, release_of
from pcipt.xen.simulated.overlaps import without
from pcipt.xen.simulated.p2m import P2m
from pcipt.xen.simulated.reserved import ReservedMemory, ReservedRegion
from pcipt.xen.simulated.vpci import ConfigHardware, Vpci

XEN_4_17_PV = XenIdentity(4, 17, "4.17.7", Dom0Kind.PV)
LOW_1MIB = Frames(Gfn(0), 0x100)
IO_APIC, APIC_AND_MSI = Frames(Gfn(0xFEC00), 1), Frames(Gfn(0xFEE00), 0x100)
EVERY_FRAME = Frames(Gfn(0), 1 << 40)


class SimulatedHardware:
    """A machine made by hand; tests and demonstrations plug and pull."""

    def __init__(self, functions: Iterable[Sbdf] = ()) -> None:
        self._present = dict.fromkeys(functions, Presence())

    def functions(self) -> Iterable[Sbdf]:
        return tuple(self._present)

    def presence(self, function: Sbdf) -> Presence | None:
        return self._present.get(function)

    def plug(self, function: Sbdf, presence: Presence | None = None) -> None:
        self._present[function] = presence or Presence()

    def pull(self, function: Sbdf) -> None:
        self._present.pop(function, None)


@attrs.frozen
class Call:
    """A call that was made: what it was about and what it answered, 0 or -errno; None: it never returned."""

    op: Op
    functions: tuple[Sbdf, ...]
    result: int | None
    frames: Frames | None = None


@attrs.define
class _Fault:
    op: Op
    countdown: int
    errno: int
    performed: bool
    pages: int


class SimulatedXen:
    """A modelled Xen; see `Hypervisor`.

    At the start it knows `known`, by default all that is present and that Xen can name, as dom0's. `iommu` is
    what the firmware said at boot; None is an IOMMU that is off. `memory` is dom0's RAM, `trapped` what Xen
    emulates and must not be mapped (MMCFG). vPCI is there on a PVH dom0 if the hardware has config space.
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
    ) -> None:
        if identity.dom0 is Dom0Kind.PVH and iommu is None:
            raise StateError("a PVH dom0 does not boot without an IOMMU")
        self._identity = identity
        self._list = DeviceList(hardware, identity.dom0, release_of(identity), iommu)
        memory, trapped = tuple(memory), tuple(trapped)
        pvh = identity.dom0 is Dom0Kind.PVH
        self.p2m = P2m(memory, [LOW_1MIB], trapped, [IO_APIC, APIC_AND_MSI]) if pvh else None
        self.reserved = ReservedMemory(reserved, lambda f: hardware.presence(f) is not None, self.p2m)
        self.vpci: Vpci | None = None
        if self.p2m is not None and isinstance(hardware, ConfigHardware):
            e820 = [LOW_1MIB, *memory, *trapped, *(region.frames for region in self.reserved.regions)]
            self.vpci = Vpci(hardware, self.p2m, e820)
        self._list.trapping, self._list.counting = self.vpci, self.reserved
        at_boot = hardware.functions() if known is None else known
        self._list.boot(function for function in at_boot if function.fits_xen)
        self._hardware = hardware
        self._faults: list[_Fault] = []
        self._closed = False
        self.grants: dict[int, Permissions] = {}  # of guests
        self.calls: list[Call] = []
        self.catastrophe: Catastrophe | None = None

    @property
    def identity(self) -> XenIdentity:
        return self._identity

    @property
    def changes(self) -> tuple[Call, ...]:
        """The calls that change what Xen holds, failed ones too."""
        return tuple(call for call in self.calls if call.op.changes)

    @property
    def devices(self) -> Mapping[Sbdf, Device]:
        """What Xen holds, unasked; for looking at only."""
        return types.MappingProxyType(self._list.devices)

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        self._require_alive()
        asked = tuple(function for function in functions if function.fits_xen)
        if asked:
            fault = self._fault(Op.KNOWN)
            check(Op.KNOWN, self._log(Op.KNOWN, asked, -fault.errno if fault else 0))
        return [function.fits_xen and function in self._list.devices for function in functions]

    def custody(self, function: Sbdf) -> Custody:
        self._require_alive()
        xen_address(function)
        fault = self._fault(Op.CUSTODY)
        result = -fault.errno if fault else self._test_assign(function)
        return custody_from_result(function, self._log(Op.CUSTODY, (function,), result))

    def owners(self) -> Mapping[Sbdf, Owner]:
        self._press_key()
        return {function: device.owner for function, device in reversed(self._list.devices.items())}

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        self._change(Op.ADD, xen_address(function), checked_flags(function, flags))

    def remove_device(self, function: Sbdf) -> None:
        self._change(Op.REMOVE, xen_address(function), DeviceFlags())

    def map_mmio(self, frames: Frames) -> None:
        self._remap(Op.MAP, frames)

    def unmap_mmio(self, frames: Frames) -> None:
        self._remap(Op.UNMAP, frames)

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        self._require_alive()
        asked = () if function is None else (xen_address(function),)
        fault = self._fault(Op.RESERVED)
        result, regions = read_regions(lambda room: self.reserved.query(function, room))
        result = self._log(Op.RESERVED, asked, -fault.errno if fault else result)
        check(Op.RESERVED, result, "".join(map(str, asked)))
        return regions

    def permissions(self) -> Mapping[int, Permissions]:
        self._press_key()
        return {0: Permissions(_all_but([IO_APIC, APIC_AND_MSI]), ()), **self.grants}

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    # What follows arranges a scene; it is not part of the interface.

    def fail(self, op: Op, errno: int, *, call: int = 1, performed: bool = False, pages: int = 0) -> None:
        """Make one call of `op` fail: the next for 1, the one after it for 2, ...

        With `performed` Xen does it all the same and then answers the error, as a failing IOMMU removal does.
        A mapping does so many `pages` first.
        """
        self._faults.append(_Fault(op, call, errno, performed, pages))

    def write_config(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register as dom0 does: through vPCI on a PVH dom0, where it traps the function."""
        self._require_alive()
        with self._dying():
            if self.vpci is not None:
                self.vpci.write(function, offset, size, value)
            elif isinstance(self._hardware, ConfigHardware):
                self._hardware.write(function, offset, size, value)

    def give(self, function: Sbdf, owner: Owner) -> None:
        """Put a function into other hands: a guest's, quarantine, Xen's own, or nobody's."""
        if function not in self._list.devices:
            self._list.boot((function,))
        self._list.devices[function].owner = owner
        if owner.kind is OwnerKind.NOBODY and self.vpci is not None:
            self.vpci.remove(function)

    def forget(self, function: Sbdf) -> None:
        """Strike a function from the list, whatever a removal would do."""
        self._list.devices.pop(function, None)
        if self.vpci is not None:
            self.vpci.remove(function)

    def heal(self) -> None:
        """Forget all faults that have not struck yet."""
        self._faults.clear()

    def kernel_add(self, function: Sbdf) -> int:
        """Announce as dom0's kernel does at hot-plug.

        Shape:  what Xen answered, which the kernel only logs.
        """
        self._require_alive()
        if not function.fits_xen:
            return -EINVAL
        seen = self._hardware.presence(function) or Presence()
        with self._dying():
            return self._list.add(function, seen.flags, seen.node)

    def kernel_remove(self, function: Sbdf) -> int:
        """Report a function gone, as dom0's kernel does after hot-unplug."""
        self._require_alive()
        with self._dying():
            return self._list.remove(function)

    def _change(self, op: Op, function: Sbdf, flags: DeviceFlags) -> None:
        self._require_alive()
        fault = self._fault(op)
        result = 0
        if fault is None or fault.performed:
            try:
                with self._dying():
                    result = self._perform(op, function, flags)
            except Catastrophe:
                self.calls.append(Call(op, (function,), None))
                raise
        if fault is not None:
            result = -fault.errno
        check(op, self._log(op, (function,), result), str(function))

    def _remap(self, op: Op, frames: Frames) -> None:
        self._require_alive()
        require_translated(self._identity)
        fault = self._fault(op)
        try:
            with self._dying():
                result = self._perform_mapping(op, frames, fault)
        except Catastrophe:
            self.calls.append(Call(op, (), None, frames))
            raise
        check(op, self._log(op, (), result, frames), str(frames))

    def _perform_mapping(self, op: Op, frames: Frames, fault: _Fault | None) -> int:
        p2m = self.p2m
        assert p2m is not None  # a PV dom0 was refused
        if fault is not None and not fault.performed and not fault.pages and -fault.errno in UNTOUCHED:
            return -fault.errno
        if op is Op.UNMAP:
            self._require_unneeded(frames)
            return unmap_frames(_struck(p2m.unmap, frames, fault), frames)
        holes = self.vpci.holes(frames) if self.vpci is not None else []
        if holes:
            raise Catastrophe(f"mapping {frames}: Xen traps the MSI-X tables of {holes[0]} no more")
        return map_frames(_struck(p2m.map, frames, fault), p2m.unmap, frames)

    def _require_unneeded(self, frames: Frames) -> None:
        """See to it that no device of dom0 needs what is to be unmapped: its DMA would fault."""
        for region in self.reserved.touching(frames):
            for function in region.scope:
                device = self._list.devices.get(function)
                here = self._hardware.presence(function) is not None
                if here and device is not None and device.owner == DOM0:
                    raise Catastrophe(f"unmapping reserved memory {region.frames}, which {function} needs")

    def _perform(self, op: Op, function: Sbdf, flags: DeviceFlags) -> int:
        return self._list.add(function, flags) if op is Op.ADD else self._list.remove(function)

    def _test_assign(self, function: Sbdf) -> int:
        if self._list.iommu is None:
            return -EOPNOTSUPP
        device = self._list.devices.get(function)
        mine = device is not None and (device.owner == DOM0 or device.owner.kind is OwnerKind.QUARANTINE)
        return 0 if mine else -EINVAL

    def _press_key(self) -> None:
        self._require_alive()
        for op in (Op.KEY, Op.CONSOLE):
            fault = self._fault(op)
            check(op, self._log(op, (), -fault.errno if fault else 0))

    def _log(self, op: Op, functions: tuple[Sbdf, ...], result: int, frames: Frames | None = None) -> int:
        self.calls.append(Call(op, functions, result, frames))
        return result

    def _fault(self, op: Op) -> _Fault | None:
        """Count this call down in every fault of its kind; give the one that strikes now."""
        struck = None
        for fault in [fault for fault in self._faults if fault.op is op]:
            fault.countdown -= 1
            if fault.countdown == 0:
                self._faults.remove(fault)
                struck = struck or fault
        return struck

    def _require_alive(self) -> None:
        if self.catastrophe is not None:
            raise self.catastrophe
        if self._closed:
            raise StateError("the connection to Xen is closed")

    @contextmanager
    def _dying(self) -> Iterator[None]:
        try:
            yield
        except Catastrophe as exc:
            self.catastrophe = exc
            raise


def _struck(primitive: Callable[..., int], frames: Frames, fault: _Fault | None) -> Primitive:
    """Let the first call end early with the fault's errno; those after it go through."""
    waiting = [] if fault is None else [(frames.count if fault.performed else fault.pages, fault.errno)]

    def call(part: Frames) -> int:
        return primitive(part, failing=waiting.pop()) if waiting else primitive(part)

    return call


def _all_but(denied: Iterable[Frames]) -> tuple[Frames, ...]:
    spans = [EVERY_FRAME]
    for cut in denied:
        spans = without(spans, cut)
    return tuple(spans)
