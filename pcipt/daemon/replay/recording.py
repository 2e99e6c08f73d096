"""A recording that can be played: a recorded host, and a simulated Xen on the hardware of that host.

    DIR/sys, steps/, sequence.jsonl, xen.json   see host/recorded.py
    DIR/writes.jsonl            configuration writes as `pcipt decode` reads them, one a line: {"n": 1,
                                "sbdf": …, "offset": …, "size": …, "value": …, "when": seconds, "own": false}
    DIR/expected-actions.jsonl  the actions that `replayed` must yield, one a line: {"n", "action", "sbdf",
                                "start", "size", "reason", "result"}

With writes.jsonl the hardware has registers: writes change them through the simulated Xen, and a step only
plugs and unplugs functions. Without it, registers are as recorded in each step.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from pcipt.daemon.replay.stand_in import StandIn
from pcipt.engine.interfaces import Host
from pcipt.engine.views.protection import read_mmcfg
from pcipt.errors import InputError
from pcipt.firmware.memory_map import MemoryType, entries_from_names
from pcipt.host.recorded import RecordedHost, Step, read_steps, read_xen_start
from pcipt.host.uevents import HostEvent, HotplugEvent
from pcipt.pci import Address, Frames, Range, Sbdf, decode_function, frames_from_range
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch.recording import Damaged, Options, Reader
from pcipt.xen.interface import DeviceFlags, Dom0Kind, XenIdentity
from pcipt.xen.simulated.faults import Call
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe, Presence
from pcipt.xen.simulated.reserved import ReservedRegion

_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})([.-]\S*)?")
DEFAULT_VERSION = "4.17.7"
WRITES = "writes.jsonl"


class RecordedHardware:
    """The hardware below the simulated Xen if there is no file of writes: functions as they were recorded."""

    def __init__(self, host: RecordedHost) -> None:
        self._host = host

    def functions(self) -> Iterable[Sbdf]:
        """Return the addresses of all functions at the present step."""
        return [raw.sbdf for raw in self._host.read_machine()]

    def presence(self, function: Sbdf) -> Presence | None:
        """Return whether the function decodes memory, and its physical function if it is virtual.

        Return None if no function answers at this address.
        """
        raw = self._host.read_function(function)
        seen = decode_function(raw) if raw is not None else None
        if seen is None or not seen.answers:
            return None
        return _presence(bool(seen.decodes_memory), seen.physfn)


@lru_cache(maxsize=64)  # the simulated Xen keeps one for each function, and most of them are equal
def _presence(decodes_memory: bool, physfn: Sbdf | None) -> Presence:
    """Return what Xen sees of a function; equal ones are the same object."""
    return Presence(decodes_memory, DeviceFlags(physfn=physfn))


class RecordedHotplug:
    """A source of hot-plug messages that the replay fills.

    Its descriptor exists only because the daemon polls it; it is never readable.
    """

    overruns = gaps = forged = 0

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pending: list[HostEvent] = []

    def push(self, events: Iterable[HostEvent]) -> None:
        """Add messages, to be returned by the next `read` or `events`."""
        self._pending += events

    def read(self) -> list[HostEvent]:
        """Return the messages that were added since the last call of `read` or `events`, in their order."""
        taken, self._pending = self._pending, []
        return taken

    def events(self) -> list[HotplugEvent]:
        """Take all waiting messages, as `read` does; return those about single functions, drop the others."""
        return [event for event in self.read() if isinstance(event, HotplugEvent)]

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class _NoLog(list[Call]):
    """The simulated Xen's list of calls, which stays empty, because a replay does not read it."""

    def append(self, call: Call) -> None:
        """Drop the call."""


class Replay:
    """A recording in `directory`, ready to be played.

    `dom0` replaces the recorded kind of dom0, `trace` the recorded file of writes. `reserved` are the
    reserved regions of the simulated Xen, because a recording has none. `host` and `xen` are the recorded
    host and the simulated Xen, `hotplug` gives the messages of the steps.

    Raises: InputError if the recording cannot be read, or if the version of Xen or the kind of dom0 is wrong;
            MalformedError if a file of the recording is malformed.
    """

    def __init__(
        self, directory: str, dom0: str | None = None, trace: str | None = None,
        reserved: Iterable[ReservedRegion] = (),
    ) -> None:  # fmt: skip
        self._directory = directory
        start = read_xen_start(directory)
        self._files = RecordedHost(directory)
        self._announces = start.announces
        identity = _identity(directory, start.version or DEFAULT_VERSION, dom0 or start.dom0 or "pv")
        own = os.path.join(directory, WRITES)
        if os.path.exists(own) and not os.path.isfile(own):
            raise InputError(own, "is no regular file")
        self._trace = trace or (own if os.path.exists(own) else None)
        self._hardware = BusHardware(self._files.read_machine()) if self._trace is not None else None
        self.xen = SimulatedXen(
            self._hardware or RecordedHardware(self._files), identity, known=start.known,
            memory=_ram(self._files), trapped=_mmcfg(self._files), reserved=reserved,
        )  # fmt: skip
        self.xen.calls = _NoLog()
        self.host: Host = self._files
        if self._hardware is not None:
            self.host = StandIn(self._files, self.xen.vpci or self._hardware, self.xen.write_config)
        self.steps = list(read_steps(directory))
        self.hotplug = RecordedHotplug()

    def play(
        self,
        settle: Callable[[], None],
        announce: Callable[[str], None],
        lose: Callable[[int], None],
    ) -> None:
        """Play all writes, losses and steps of the recording, in its order.

        After each step, `announce` is called with the text of the step, then `settle`. At each loss, `lose`
        is called with the number of lost records (1 if the number is not known), then `settle`.

        `settle` must make the daemon act on the hot-plug messages, writes and losses so far.

        Raises: InputError if a write or step kills the simulated host, or if the trace or a step's tree
                cannot be read; every error of `announce`, `lose` and `settle`.
        """
        with self.surviving():
            for event in self.events():
                if isinstance(event, ConfigWrite):
                    self.write(event)
                    continue
                if isinstance(event, Step):
                    self.take(event)
                    announce(event.about)
                else:
                    lose(event.count or 1)
                settle()

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """Run the with-block; turn the death of the simulated host into an error about the recording.

        Raises: InputError if the with-block kills the simulated host (Catastrophe): the trace does not fit
                the machine.
        """
        try:
            yield
        except Catastrophe as catastrophe:
            why = f"when this recording is played, the simulated host dies: {catastrophe.why}"
            raise InputError(self._directory, why) from catastrophe

    def events(self) -> Iterator[ConfigWrite | Lost | Step]:
        """Yield writes, losses and steps in the order in which they happened.

        A step with a number stands before the first write that has a greater number. If there is no such
        write, it stands after all writes. A step without a number stands at the end.

        Raises: InputError if the trace cannot be read, or if a record is damaged.
        """
        later = [step for step in self.steps if step.number is None]
        waiting = deque(step for step in self.steps if step.number is not None)
        for write in self.writes():
            number = write.number if isinstance(write, ConfigWrite) else None
            while waiting and number is not None and (waiting[0].number or 0) < number:
                yield waiting.popleft()
            yield write
        yield from (*waiting, *later)

    def write(self, write: ConfigWrite) -> None:
        """Perform one write of the trace through the simulated Xen. A write of unknown size has 4 bytes.

        Raises: Catastrophe if it kills the simulated host.
        """
        self.xen.write_config(write.sbdf, write.offset, write.size or 4, write.value)

    def take(self, step: Step) -> None:
        """Change machine and Xen as the step says, and add the hot-plug messages of the step to `hotplug`.

        Raises: InputError if the recording does not have the step's tree; Catastrophe if the step kills the
                simulated host.
        """
        before = {raw.sbdf for raw in self._files.read_machine()} if step.tree is not None else set()
        self._files.move_to(step)
        if step.tree is not None:
            self._replug(before)
        for sbdf in step.forget:
            if sbdf in self.xen.devices:
                self.xen.kernel_remove(sbdf)
        self.hotplug.push(_events(step))

    def writes(self) -> Iterator[ConfigWrite | Lost]:
        """Yield the writes of the trace in their order, except pcipt's own writes, and a Lost for each loss.

        There are none if the recording has no trace. ECAM accesses are decoded by the machine's MCFG table,
        as `pcipt decode --root` does.

        Raises: InputError if the trace cannot be read, or if a record is damaged.
        """
        if self._trace is None:
            return
        regions = read_mmcfg(self._files)
        for item in Reader(Options(reads=False, regions=regions)).read(self._trace):
            if isinstance(item, Damaged):
                raise InputError(self._trace, str(item))
            if isinstance(item, Lost) or (isinstance(item, ConfigWrite) and not item.own):
                yield item

    def _replug(self, before: set[Sbdf]) -> None:
        """Unplug the functions of `before` that the files do not have now, then plug the new functions.

        If `announces` is set in the recording, the simulated kernel also reports to Xen each function that is
        plugged, and each unplugged function that Xen knows.
        """
        now = {raw.sbdf: raw for raw in self._files.read_machine()}
        for sbdf in sorted(before - now.keys(), reverse=True):
            if self._hardware is not None:
                self._hardware.pull(sbdf)
            if self._announces and sbdf in self.xen.devices:
                self.xen.kernel_remove(sbdf)
        for sbdf in sorted(now.keys() - before):
            if self._hardware is not None:
                self._hardware.plug(now[sbdf])
            if self._announces:
                self.xen.kernel_add(sbdf)


def _ram(files: RecordedHost) -> list[Frames]:
    """Return the RAM of the recorded machine; an empty list if its memory map is missing or unreadable."""
    try:
        lines = files.memory().iomem or ()
    except InputError:
        return []
    entries = entries_from_names((line.range, line.name) for line in lines)
    return [frames_from_range(each.range) for each in entries if each.type is MemoryType.RAM]


def _mmcfg(files: RecordedHost) -> list[Frames]:
    """Return the pages of MMCFG that are taken; an empty list if there is no MCFG table."""
    regions = read_mmcfg(files)
    return [frames_from_range(Range(Address(each.first), each.end - each.first)) for each in regions]


def _events(step: Step) -> list[HostEvent]:
    """Return the hot-plug messages of a step: one "change" message for each function in `step.changed`."""
    return [HotplugEvent("change", sbdf, number, synthetic=False) for number, sbdf in enumerate(step.changed)]


def _identity(directory: str, version: str, dom0: str) -> XenIdentity:
    """Return the identity of the simulated Xen: version and kind of dom0.

    Raises: InputError about xen.json in `directory` if either is malformed.
    """
    path = os.path.join(directory, "xen.json")
    match = _VERSION.fullmatch(version)
    if match is None:
        raise InputError(path, f"version {version!r} is not like 4.17.7")
    if dom0 not in {kind.value for kind in Dom0Kind}:
        raise InputError(path, f"dom0 {dom0!r} is neither pv nor pvh")
    return XenIdentity(version, Dom0Kind(dom0))
