"""A recording ready to be played: a recorded host and the simulated Xen on the hardware that the host shows.

    DIR/sys, steps/, sequence.jsonl, xen.json   see host/recorded.py
    DIR/writes.jsonl            configuration writes as `pcipt decode` reads them, one a line: {"n": 1,
                                "sbdf": …, "offset": …, "size": …, "value": …, "when": seconds, "own": false}
    DIR/expected-actions.jsonl  what `replayed` should give: {"n", "action", "sbdf", "start", "size",
                                "reason", "result"} a line

With writes the hardware has registers: each write goes through the simulated Xen, as in dom0, and a step only
plugs and pulls. Without them each step's registers are those recorded. A function that leaves the machine
leaves it for Linux and for Xen.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pcipt.daemon.replay.stand_in import StandIn
from pcipt.engine.interfaces import Host
from pcipt.errors import InputError
from pcipt.firmware.acpi.mcfg import regions_from_mcfg
from pcipt.firmware.memory_map import MemoryType, entries_from_names
from pcipt.host.recorded import RecordedHost, Step, read_steps, read_xen_start
from pcipt.host.uevents import HostEvent, HotplugEvent
from pcipt.pci import Address, Frames, Range, Sbdf, decode_function, frames_from_range
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch.recording import Damaged, Options, Reader
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import Call, SimulatedXen
from pcipt.xen.simulated.model import Catastrophe, Presence

_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(\.\S*)?")
DEFAULT_VERSION = "4.17.7"
WRITES = "writes.jsonl"


class RecordedHardware:
    """The recorded host's functions as the simulated Xen finds them on the bus."""

    def __init__(self, host: RecordedHost) -> None:
        self._host = host

    def functions(self) -> Iterable[Sbdf]:
        return [raw.sbdf for raw in self._host.read_machine()]

    def presence(self, function: Sbdf) -> Presence | None:
        raw = self._host.read_function(function)
        seen = decode_function(raw) if raw is not None else None
        if seen is None or not seen.answers:
            return None
        return Presence(decodes_memory=bool(seen.decodes_memory))


class RecordedHotplug:
    """Hot-plug messages that come when the replay says so; the descriptor is there to be waited for."""

    overruns = gaps = forged = 0

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pending: list[HostEvent] = []

    def push(self, events: Iterable[HostEvent]) -> None:
        self._pending += events

    def read(self) -> list[HostEvent]:
        taken, self._pending = self._pending, []
        return taken

    def events(self) -> list[HotplugEvent]:
        """Take what has come, but for wishes to compare everything."""
        return [event for event in self.read() if isinstance(event, HotplugEvent)]

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class _NoLog(list[Call]):
    """The simulated Xen's log of calls, which nobody reads here and which would grow without end."""

    def append(self, call: Call) -> None:
        """Leave it out."""


class Replay:
    """One recording; `dom0` overrides what it says, `trace` its writes."""

    def __init__(self, directory: str, dom0: str | None = None, trace: str | None = None) -> None:
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
            memory=_ram(self._files), trapped=_mmcfg(self._files),
        )  # fmt: skip
        self.xen.calls = _NoLog()
        self.host: Host = self._files
        if self._hardware is not None:
            self.host = StandIn(self._files, self._hardware, self.xen.write_config)
        self.steps = list(read_steps(directory))
        self.hotplug = RecordedHotplug()

    def play(self, settle: Callable[[], None], announce: Callable[[str], None]) -> None:
        """Play all writes and steps; `settle` makes the daemon act on what each step brought.

        Raises: InputError where the simulated host dies of it, or the trace cannot be read.
        """
        with self.surviving():
            for event in self.events():
                if isinstance(event, ConfigWrite):
                    self.write(event)
                elif isinstance(event, Step):
                    self.take(event)
                    announce(event.about)
                    settle()

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """Make an InputError of the simulated host's death: what is played does not fit the machine."""
        try:
            yield
        except Catastrophe as catastrophe:
            why = f"played on, the simulated host dies: {catastrophe.why}"
            raise InputError(self._directory, why) from catastrophe

    def events(self) -> Iterator[ConfigWrite | Lost | Step]:
        """Merge writes and steps: a step comes after the writes up to its number."""
        later = [step for step in self.steps if step.number is None]
        waiting = deque(step for step in self.steps if step.number is not None)
        for write in self.writes():
            number = write.number if isinstance(write, ConfigWrite) else None
            while waiting and number is not None and (waiting[0].number or 0) < number:
                yield waiting.popleft()
            yield write
        yield from (*waiting, *later)

    def write(self, write: ConfigWrite) -> None:
        self.xen.write_config(write.sbdf, write.offset, write.size or 4, write.value)

    def take(self, step: Step) -> None:
        """Make the machine and Xen what they were after a step, and let hot-plug messages tell of it."""
        before = {raw.sbdf for raw in self._files.read_machine()} if step.tree is not None else set()
        self._files.move_to(step)
        if self._hardware is not None and step.tree is not None:
            self._replug(self._hardware, before)
        for sbdf in step.forget:
            if sbdf in self.xen.devices:
                self.xen.kernel_remove(sbdf)
        self.hotplug.push(_events(step))

    def writes(self) -> Iterator[ConfigWrite | Lost]:
        """Walk the writes of the trace, but those that pcipt made itself, and what it says was lost.

        ECAM accesses are understood by the machine's MCFG table, as `pcipt decode --root` does.

        Raises: InputError for a trace that cannot be read, or of which a record is damaged.
        """
        if self._trace is None:
            return
        regions = tuple(each for table in self._files.acpi_tables() for each in regions_from_mcfg(table))
        for item in Reader(Options(reads=False, regions=regions)).read(self._trace):
            if isinstance(item, Damaged):
                raise InputError(self._trace, str(item))
            if isinstance(item, Lost) or (isinstance(item, ConfigWrite) and not item.own):
                yield item

    def _replug(self, hardware: BusHardware, before: set[Sbdf]) -> None:
        now = {raw.sbdf: raw for raw in self._files.read_machine()}
        for sbdf in sorted(before - now.keys(), reverse=True):
            hardware.pull(sbdf)
            if self._announces and sbdf in self.xen.devices:
                self.xen.kernel_remove(sbdf)
        for sbdf in sorted(now.keys() - before):
            hardware.plug(now[sbdf])
            if self._announces:
                self.xen.kernel_add(sbdf)


def _ram(files: RecordedHost) -> list[Frames]:
    """List the recorded machine's RAM; none where its memory map was not recorded."""
    try:
        lines = files.memory().iomem or ()
    except InputError:
        return []
    entries = entries_from_names((line.range, line.name) for line in lines)
    return [frames_from_range(each.range) for each in entries if each.type is MemoryType.RAM]


def _mmcfg(files: RecordedHost) -> list[Frames]:
    regions = (region for table in files.acpi_tables() for region in regions_from_mcfg(table))
    return [frames_from_range(Range(Address(each.first), each.end - each.first)) for each in regions]


def _events(step: Step) -> list[HostEvent]:
    return [HotplugEvent("change", sbdf, number, synthetic=False) for number, sbdf in enumerate(step.changed)]


def _identity(directory: str, version: str, dom0: str) -> XenIdentity:
    path = os.path.join(directory, "xen.json")
    match = _VERSION.fullmatch(version)
    if match is None:
        raise InputError(path, f"version {version!r} is not like 4.17.7")
    if dom0 not in {kind.value for kind in Dom0Kind}:
        raise InputError(path, f"dom0 {dom0!r} is neither pv nor pvh")
    return XenIdentity(int(match[1]), int(match[2]), version, Dom0Kind(dom0))
