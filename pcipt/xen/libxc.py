"""The real hypervisor: calls through libxencall and, for the toolstack's interface, through libxenctrl.

libxencall is enough to add and remove functions. libxenctrl is opened when it is first needed. If it is
missing, or belongs to another Xen release, a call that needs it raises UnsupportedError (`custody` returns
UNTOLD), and all other calls work.
"""

import errno
import os
import types
import warnings
from collections.abc import Callable, Mapping, Sequence

from pcipt.errors import HypervisorError, NotPermittedError, StateError, UnsupportedError
from pcipt.hints import Self, TypeVar
from pcipt.pci import Frames, Sbdf
from pcipt.xen import loading
from pcipt.xen.binding import NODE_UNKNOWN, CallHandle, ControlHandle, LoadError
from pcipt.xen.console import Dump, parse_devices
from pcipt.xen.interface import (
    Abilities,
    Custody,
    DeviceFlags,
    Owner,
    Permissions,
    XenIdentity,
)
from pcipt.xen.mapping import map_frames, read_regions, unmap_frames
from pcipt.xen.outcome import (
    Op,
    check,
    checked_flags,
    custody_from_result,
    readable_line,
    require_translated,
    xen_address,
)
from pcipt.xen.rangesets import RangesetDump, parse_permissions

BATCH = 4096  # functions in one pcitopoinfo: 2 x 16 KiB of hypercall buffer, well below any driver's limit
CHUNK = 65536
RING_LIMIT = 64 << 20  # no console ring is larger; reading ends even if Xen prints without pause
KEPT = 1 << 20
KEY_ATTEMPTS = 2
_LIST_OF_OWNERS = "Xen's list of owners"
_LIST_OF_PERMISSIONS = "Xen's list of permissions"

D = TypeVar("D", Dump, RangesetDump)


def open_libxc(root: str = "/") -> "LibXc":
    """Connect to the running Xen. All files and libraries are looked for below the directory `root`.

    Raises: UnsupportedError if there is no Xen, this domain is not the control domain or is of an unknown
            kind, /dev/xen/privcmd and /proc/xen/privcmd are both missing, or no libxencall can be loaded;
            NotPermittedError if the process may not open Xen's device; HypervisorError if opening the device
            fails with another errno; MalformedError if /sys/hypervisor/version gives no number for the major
            or minor version.
    """
    identity = loading.read_identity(root)
    loading.require_privcmd(root)
    refusal = "no libxencall is installed"
    for name in loading.xencall_names(root):
        try:
            return LibXc(identity, CallHandle(name), loading.xenctrl_names(identity, root))
        except LoadError as exc:
            if exc.errno in {errno.EACCES, errno.EPERM}:
                raise NotPermittedError("opening /dev/xen/privcmd", "run as root in dom0") from exc
            if exc.errno not in {errno.ELIBACC, errno.ELIBBAD}:
                raise HypervisorError("xencall_open", exc.errno) from exc
            refusal = exc.reason
    raise UnsupportedError("Xen", f"libxencall cannot be loaded: {refusal}")


class LibXc:
    """The running Xen; the methods are described in `Hypervisor`.

    An object is used by one thread, in the process that opened it.
    Raises: HypervisorError if Xen returns an error; UnsupportedError if this Xen or its libraries cannot
            perform a call, or if the segment of a function is above ffff; StateError after `close`, and in
            another process. This is true of every method that calls Xen and does not say otherwise.
    """

    def __init__(self, identity: XenIdentity, call: CallHandle, control_names: Sequence[str]) -> None:
        self._identity = identity
        self._call = call
        self._control_names = tuple(control_names)
        self._control: ControlHandle | None = None
        self._control_refusal: UnsupportedError | None = None
        self._console_index = 0
        self._printed_text = ""  # read with the console, and not yet returned by `console`
        self._inside_line = False  # what is read next begins inside a line whose beginning was overwritten
        self._process = os.getpid()
        self._closed = False

    @property
    def identity(self) -> XenIdentity:
        """The version of Xen and the kind of dom0."""
        return self._identity

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        """Return one bool for each function, in order: True if Xen lists it.

        A function whose segment is above ffff gives False, and Xen is not asked about it. Xen is not called
        if no function is left to ask about.
        Raises: UnsupportedError without libxenctrl, or if Xen refuses this operation altogether;
                HypervisorError if Xen returns another error.
        """
        self._require_open()
        asked = [function for function in functions if function.fits_xen]
        if not asked:
            return [False] * len(functions)
        control = self._require_control()
        nodes: dict[Sbdf, int] = {}
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            result, answers = control.nodes(batch)
            check(Op.KNOWN, result, f"{len(batch)} functions from {batch[0]} on")
            nodes.update(zip(batch, answers, strict=True))
        return [nodes.get(function, NODE_UNKNOWN) != NODE_UNKNOWN for function in functions]

    def custody(self, function: Sbdf) -> Custody:
        """Return who has a function, as `Hypervisor.custody` describes. Without libxenctrl return UNTOLD.

        Raises: UnsupportedError if the segment is above ffff; HypervisorError if Xen returns another error
                than `Hypervisor.custody` names.
        """
        self._require_open()
        xen_address(function)
        try:
            control = self._require_control()
        except UnsupportedError:
            return Custody.UNTOLD
        return custody_from_result(function, control.test(function))

    def owners(self) -> Mapping[Sbdf, Owner]:
        """Return all functions in Xen's list with their owners, in Xen's order (debug key Q).

        Raises: UnsupportedError without libxenctrl, if the console ring is too small for the list, or if in
                both of two attempts the list was missing or its lines were interrupted; HypervisorError if
                Xen returns an error.
        """
        nothing = "key Q printed no list of PCI devices"
        owners = self._dump("Q", _LIST_OF_OWNERS, parse_devices, lambda dump: dump.begun, nothing).owners
        # Text of dom0 names a function that Xen does not list, or the function has left since.
        listed = dict(zip(owners, self.known(tuple(owners)), strict=True))
        return {sbdf: owner for sbdf, owner in owners.items() if listed[sbdf]}

    def permissions(self) -> Mapping[int, Permissions]:
        """Return for each domain number what the domain may access, from Xen's debug key q.

        Raises: UnsupportedError without libxenctrl, if the console ring is too small for the list, or if in
                both of two attempts the list was missing or its lines were interrupted; HypervisorError if
                Xen returns an error.
        """
        nothing = "key q printed no rangesets"
        told = self._dump(
            "q", _LIST_OF_PERMISSIONS, parse_permissions, lambda dump: bool(dump.domains), nothing
        )
        return told.domains

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        """Add a function to Xen's list. If Xen lists it already, `flags` replace those in its record.

        After a failure Xen may list the function without an owner (an orphan).
        Raises: HypervisorError if Xen refuses; UnsupportedError if the function's segment is above ffff;
                StateError if `flags.physfn` is on another segment.
        """
        self._require_open()
        result = self._call.add(xen_address(function), checked_flags(function, flags))
        check(Op.ADD, result, str(function))

    def remove_device(self, function: Sbdf) -> None:
        """Remove a function from Xen's list. Xen before 4.19 panics if the function has no owner.

        Raises: HypervisorError if Xen refuses, with ENODEV if Xen does not list the function;
                UnsupportedError if the function's segment is above ffff.
        """
        self._require_open()
        check(Op.REMOVE, self._call.remove(xen_address(function)), str(function))

    def map_mmio(self, frames: Frames) -> None:
        """Map frames 1:1 for dom0.

        `Hypervisor.map_mmio` describes which frames are mapped after a failure.
        Raises: HypervisorError if Xen refuses; StateError on a PV dom0; UnsupportedError without libxenctrl.
        """
        control = self._require_mapping()
        check(Op.MAP, map_frames(control.map, control.unmap, frames), str(frames))

    def unmap_mmio(self, frames: Frames) -> None:
        """Unmap frames for dom0.

        If some frames are not mapped, the other frames are unmapped and HypervisorError with EINVAL is
        raised.
        Raises: HypervisorError if Xen refuses; StateError on a PV dom0; UnsupportedError without libxenctrl.
        """
        control = self._require_mapping()
        check(Op.UNMAP, unmap_frames(control.unmap, frames), str(frames))

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        """Return the reserved memory regions of `function`, or of the whole machine if `function` is None.

        The result is empty if there are no such regions.
        Raises: HypervisorError if Xen returns an error; UnsupportedError if this Xen does not have the call,
                or if the function's segment is above ffff.
        """
        self._require_open()
        subject = function if function is None else xen_address(function)
        result, regions = read_regions(lambda room: self._call.reserved(subject, room))
        check(Op.RESERVED, result, "" if subject is None else str(subject))
        return regions

    def console(self) -> str:
        """Return what Xen has printed since the last call of this method; at most the last KEPT characters.

        The text has whole lines only (`Hypervisor.console`).
        Raises: UnsupportedError without libxenctrl; HypervisorError if Xen returns an error.
        """
        self._require_open()
        self._read_console(self._require_control())
        lines, _, self._printed_text = self._printed_text.rpartition("\n")
        return f"{lines}\n" if lines else ""  # a line that is not finished waits for its end

    def command_line(self) -> str:
        """Return Xen's command line, as the boot loader gave it; at most 1023 characters.

        Raises: HypervisorError if Xen returns an error; UnsupportedError if Xen hides it.
        """
        self._require_open()
        result, line = self._call.command_line()
        check(Op.COMMAND_LINE, result)
        return readable_line(line)

    def abilities(self) -> Abilities:
        """Return what this Xen can do.

        Raises: UnsupportedError without libxenctrl; HypervisorError if Xen returns an error.
        """
        self._require_open()
        result, found = self._require_control().abilities()
        check(Op.ABILITIES, result)
        return found

    def close(self) -> None:
        """Close the connection. Every later call of Xen raises StateError. A second `close` does nothing."""
        self._closed = True
        if self._control is not None:
            self._control.close()
        self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        """Emit a ResourceWarning if the connection was not closed."""
        if not getattr(self, "_closed", True):
            what = f"unclosed connection to Xen {self._identity.full}"
            warnings.warn(what, ResourceWarning, stacklevel=2, source=self)

    def _require_open(self) -> None:
        """Raise StateError if the connection is closed or belongs to another process."""
        if self._closed:
            raise StateError("the connection to Xen is closed")
        if self._process != os.getpid():
            raise StateError("the connection to Xen was opened in another process; open one here")

    def _require_mapping(self) -> ControlHandle:
        """Return the handle of libxenctrl, for a mapping call. It is opened when it is first needed.

        Raises: StateError on a PV dom0, after `close` and in another process; UnsupportedError without
                libxenctrl; HypervisorError if opening Xen's device fails.
        """
        self._require_open()
        require_translated(self._identity)
        return self._require_control()

    def _require_control(self) -> ControlHandle:
        """Return the handle of libxenctrl. It is opened when it is first needed.

        Raises: UnsupportedError if no libxenctrl works with this Xen; every later call raises the same error
                without a new attempt. HypervisorError if opening Xen's device fails (no memory, no
                descriptors); the next call tries again.
        """
        if self._control is None and self._control_refusal is None:
            try:
                self._control = self._open_control()
            except UnsupportedError as exc:
                self._control_refusal = exc
        if self._control is None:
            raise self._control_refusal or UnsupportedError("Xen's toolstack interface", "not open")
        return self._control

    def _open_control(self) -> ControlHandle:
        """Open the first libxenctrl that works with the running Xen and return its handle.

        A library works if Xen does not answer EACCES to a test call (sysctl) that is made through it.
        Raises: UnsupportedError if no library works; HypervisorError if opening Xen's device fails.
        """
        feature = "Xen's toolstack interface"
        refusal = UnsupportedError(feature, f"no libxenctrl of Xen {self._identity.full} is installed")
        for name in self._control_names:
            try:
                control = ControlHandle(name)
            except LoadError as exc:
                if exc.errno not in {errno.ELIBACC, errno.ELIBBAD}:
                    raise HypervisorError("xc_interface_open", exc.errno) from exc
                if name == self._control_names[0]:
                    refusal = UnsupportedError(feature, f"{name} cannot be used: {exc.reason}")
                continue
            result, _ = control.nodes([Sbdf(0, 0, 0, 0)])
            if result != -errno.EACCES:
                return control
            control.close()
            why = f"{name} belongs to another release than the running Xen {self._identity.full}"
            refusal = UnsupportedError(feature, why)
        raise refusal

    def _dump(
        self, key: str, feature: str, parse: Callable[[str], D], complete: Callable[[D], bool], nothing: str
    ) -> D:
        """Press a debug key and return the parsed dump. If the dump is not complete, press the key once more.

        A dump is complete if `complete(dump)` is True and `dump.broken` is empty. `dump.broken` holds what
        could not be parsed, because lines of another processor interrupted it. `nothing` is the reason in the
        error if `broken` is empty in the second dump.
        Raises: UnsupportedError, which names `feature`, if neither dump is complete; the errors of
                `_printed`.
        """
        for _ in range(KEY_ATTEMPTS):
            dump = parse(self._printed(key, feature))
            if complete(dump) and not dump.broken:
                return dump
        raise UnsupportedError(
            feature, (f"a line of Xen's console is damaged: {dump.broken[0]}") if dump.broken else nothing
        )

    def _printed(self, key: str, feature: str) -> str:
        """Press a debug key and return what Xen printed after that.

        Xen handles the key before the call returns.
        Raises: UnsupportedError, which names `feature`, if a part of the text was overwritten;
                UnsupportedError without libxenctrl; HypervisorError if Xen returns an error.
        """
        self._require_open()
        control = self._require_control()
        self._read_console(control)
        check(Op.KEY, control.press(key), key)
        return self._read_console(control, kept_for=feature)

    def _read_console(self, control: ControlHandle, kept_for: str = "") -> str:
        """Read Xen's console ring from where the last reading ended to the end of the ring, at most 64 MiB.

        The text is kept for `console`. If `kept_for` names a feature that needs all of it, it is returned,
        too.
        Raises: UnsupportedError if `kept_for` is not empty and a part of the text was overwritten;
                HypervisorError if Xen returns an error.
        """
        pieces: list[str] = []
        for _ in range(RING_LIMIT // CHUNK):
            result, data, index = control.read(self._console_index, CHUNK)
            check(Op.CONSOLE, result)
            lost = (index - len(data) - self._console_index) & 0xFFFF_FFFF
            self._console_index = index
            piece = data.decode("ascii", "replace")
            self._keep(piece, cut=bool(lost))
            if kept_for and lost:
                why = "Xen's console ring is too small for it; boot Xen with conring_size=1M"
                raise UnsupportedError(kept_for, why)
            pieces += [piece] if kept_for else []
            if len(data) < CHUNK:
                break
        return "".join(pieces)

    def _keep(self, text: str, *, cut: bool) -> None:
        """Keep text for `console`, at most KEPT characters. `cut`: what stood before it was overwritten.

        A line of which a part is missing is left out: it may be the end of a line that a guest printed, and
        look like one of Xen's.
        """
        kept = self._printed_text
        if cut:
            kept, self._inside_line = kept[: kept.rfind("\n") + 1], True
        if self._inside_line:
            _, ends, text = text.partition("\n")
            self._inside_line = not ends
        kept += text
        if len(kept) > KEPT:
            _, ends, kept = kept[-KEPT:].partition("\n")
            self._inside_line = not ends
        self._printed_text = kept
