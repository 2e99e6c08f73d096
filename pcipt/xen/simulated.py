"""The hypervisor without a Xen: the same interface over a model of Xen's device list.

Every call is logged, any call can be told to fail, and what would panic the host raises `Catastrophe`, then
and at every call after it. dom0's kernel, which announces functions on its own, is played by kernel_add and
kernel_remove; these are not calls of ours and are not logged.
"""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EINVAL, EOPNOTSUPP
from typing import Self

import attrs

from pcipt.errors import StateError
from pcipt.pci import Sbdf
from pcipt.xen.coverage import EVERYTHING, Coverage
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.model import DOM0, Catastrophe, Device, DeviceList, Hardware, Presence, release_of
from pcipt.xen.outcome import Op, check, checked_flags, custody_from_result, xen_address

XEN_4_17_PV = XenIdentity(4, 17, "4.17.7", Dom0Kind.PV)


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


@attrs.define
class _Fault:
    op: Op
    countdown: int
    errno: int
    performed: bool


class SimulatedXen:
    """A modelled Xen; see `Hypervisor`.

    At the start it knows `known`, by default all that is present and that Xen can name, as dom0's. `iommu` is
    what the firmware said at boot; None is an IOMMU that is off.
    """

    def __init__(
        self,
        hardware: Hardware,
        identity: XenIdentity = XEN_4_17_PV,
        *,
        iommu: Coverage | None = EVERYTHING,
        known: Iterable[Sbdf] | None = None,
    ) -> None:
        if identity.dom0 is Dom0Kind.PVH and iommu is None:
            raise StateError("a PVH dom0 does not boot without an IOMMU")
        self._identity = identity
        self._list = DeviceList(hardware, identity.dom0, release_of(identity), iommu)
        at_boot = hardware.functions() if known is None else known
        self._list.boot(function for function in at_boot if function.fits_xen)
        self._hardware = hardware
        self._faults: list[_Fault] = []
        self._closed = False
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
        self._require_alive()
        for op in (Op.KEY, Op.CONSOLE):
            fault = self._fault(op)
            check(op, self._log(op, (), -fault.errno if fault else 0))
        return {function: device.owner for function, device in reversed(self._list.devices.items())}

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        self._change(Op.ADD, xen_address(function), checked_flags(function, flags))

    def remove_device(self, function: Sbdf) -> None:
        self._change(Op.REMOVE, xen_address(function), DeviceFlags())

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    # What follows arranges a scene; it is not part of the interface.

    def fail(self, op: Op, errno: int, *, call: int = 1, performed: bool = False) -> None:
        """Make one call of `op` fail: the next for 1, the one after it for 2, ...

        With `performed` Xen does it all the same and then answers the error, as a failing IOMMU removal does.
        """
        self._faults.append(_Fault(op, call, errno, performed))

    def give(self, function: Sbdf, owner: Owner) -> None:
        """Put a function into other hands: a guest's, quarantine, Xen's own, or nobody's."""
        if function not in self._list.devices:
            self._list.boot((function,))
        self._list.devices[function].owner = owner

    def forget(self, function: Sbdf) -> None:
        """Strike a function from the list, whatever a removal would do."""
        self._list.devices.pop(function, None)

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

    def _perform(self, op: Op, function: Sbdf, flags: DeviceFlags) -> int:
        return self._list.add(function, flags) if op is Op.ADD else self._list.remove(function)

    def _test_assign(self, function: Sbdf) -> int:
        if self._list.iommu is None:
            return -EOPNOTSUPP
        device = self._list.devices.get(function)
        mine = device is not None and (device.owner == DOM0 or device.owner.kind is OwnerKind.QUARANTINE)
        return 0 if mine else -EINVAL

    def _log(self, op: Op, functions: tuple[Sbdf, ...], result: int) -> int:
        self.calls.append(Call(op, functions, result))
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
