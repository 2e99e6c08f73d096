"""Runs the daemon on a recording: a recorded host, the simulated Xen, hot-plug as it was recorded.

The simulated Xen finds the hardware that the recorded host has at each step, so a function that leaves the
machine leaves it for both.
"""

import os
import re
from collections.abc import Callable, Iterable

from pcipt.errors import InputError
from pcipt.host.recorded import RecordedHost, Step, read_steps, read_xen_start
from pcipt.host.uevents import HotplugEvent, Rescan
from pcipt.pci import Sbdf, decode_function
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.model import Presence
from pcipt.xen.simulated import SimulatedXen

_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(\.\S*)?")
DEFAULT_VERSION = "4.17.7"


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
        self._pending: list[HotplugEvent | Rescan] = []

    def push(self, events: Iterable[HotplugEvent | Rescan]) -> None:
        self._pending += events

    def read(self) -> list[HotplugEvent | Rescan]:
        taken, self._pending = self._pending, []
        return taken

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Replay:
    """One recording, ready to be run by a daemon; `dom0` overrides what the recording says."""

    def __init__(self, directory: str, dom0: str | None = None) -> None:
        start = read_xen_start(directory)
        self.host = RecordedHost(directory)
        identity = _identity(directory, start.version or DEFAULT_VERSION, dom0 or start.dom0 or "pv")
        self.xen = SimulatedXen(RecordedHardware(self.host), identity, known=start.known)
        self._steps = list(read_steps(directory))
        self.hotplug = RecordedHotplug()

    def play(self, settle: Callable[[], None], announce: Callable[[str], None]) -> None:
        """Play all steps; `settle` makes the daemon act on what each brought."""
        for step in self._steps:
            self.host.move_to(step)
            announce(step.about)
            self.hotplug.push(_events(step))
            settle()


def _events(step: Step) -> list[HotplugEvent | Rescan]:
    return [HotplugEvent("change", sbdf, number, synthetic=False) for number, sbdf in enumerate(step.changed)]


def _identity(directory: str, version: str, dom0: str) -> XenIdentity:
    path = os.path.join(directory, "xen.json")
    match = _VERSION.fullmatch(version)
    if match is None:
        raise InputError(path, f"version {version!r} is not like 4.17.7")
    if dom0 not in {kind.value for kind in Dom0Kind}:
        raise InputError(path, f"dom0 {dom0!r} is neither pv nor pvh")
    return XenIdentity(int(match[1]), int(match[2]), version, Dom0Kind(dom0))
