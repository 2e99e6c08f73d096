"""Rows about the daemon's inside: a move of a BAR, the first reconciliation, one step of the shadow.

Machines have segments of root ports with devices of eight functions, and a simulated Xen. The BAR of a
function that Xen has forgotten moves again and again. Measured is the time from the record of the write to
the call that maps the new range: the write is decoded, settled, read back, planned, guarded and in the ledger
by then. The ledger is on a disk, in the directory for temporary files. The peer alternates with the moves: a
bare loop of the same two synced writes and the same simulated calls, nothing else.
"""

import gc
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.timing import Row, ratios
from pcipt.daemon.heap import first
from pcipt.daemon.replay.player import TraceSource
from pcipt.daemon.replay.stand_in import StandIn
from pcipt.daemon.settings import Settings
from pcipt.daemon.store import FileStore
from pcipt.daemon.watcher import Watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.engine.queue import Reason
from pcipt.errors import NoSuchDeviceError
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Frames, Gfn, Ids, Range, RawFunction, Resource, Sbdf
from pcipt.pci.config import Register
from pcipt.pci.write import ConfigWrite
from pcipt.remap.writes.initial import shadow_from_raws
from pcipt.remap.writes.shadow import Shadow, step
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen

PORTS, ENDPOINTS = 31, 8
PER_SEGMENT = 1 + PORTS * (1 + ENDPOINTS)
BAR_SIZE = 0x4000
BELOW_4G, ABOVE_4G = 0x8000_0000, 1 << 40
PVH = XenIdentity("4.17.7", Dom0Kind.PVH)
SUBJECT = Sbdf(0, 1, 0, 0)


def machine(count: int) -> Iterator[RawFunction]:
    """Yield `count` functions as Linux would read them; each endpoint has one 64-bit BAR that decodes."""
    for number in range(count):
        segment, place = divmod(number, PER_SEGMENT)
        if place == 0:
            yield endpoint(Sbdf(segment, 0, 0, 0), 0, None)
            continue
        port, function = divmod(place - 1, 1 + ENDPOINTS)
        above = Sbdf(segment, 0, port + 1, 0)
        if function == 0:
            yield bridge(above, port + 1)
        else:
            yield endpoint(Sbdf(segment, port + 1, 0, function - 1), ABOVE_4G + number * BAR_SIZE, above)


def endpoint(sbdf: Sbdf, address: int, parent: Sbdf | None) -> RawFunction:
    """Return an endpoint with a 64-bit BAR at `address`; 0 is no BAR. `parent` is the bridge above it."""
    data = bytearray(256)
    struct.pack_into("<HHHHI", data, 0, 0x8086, 0x10C9, 2, 0x10, 0x020000 << 8)
    lines = [Resource(0, 0, 0)] * 7
    if address:
        struct.pack_into("<Q", data, 0x10, address | 0x4)
        lines[0] = Resource(address, BAR_SIZE, Resource.MEMORY | Resource.MEM_64)
    data[0x34] = 0x40
    struct.pack_into("<BBH", data, 0x40, 0x10, 0, 0x0002)
    root = sbdf.bus if parent is None else None
    ids = Ids(0x8086, 0x10C9, 0x020000)
    return RawFunction(sbdf, bytes(data), tuple(lines), ids, parent=parent, root_bus=root)


def bridge(sbdf: Sbdf, bus: int) -> RawFunction:
    """Return a root port that leads to `bus`."""
    data = bytearray(256)
    struct.pack_into("<HHHHI", data, 0, 0x8086, 0xA340, 6, 0, 0x060400 << 8)
    data[0x0E] = 1
    data[0x18:0x1B] = bytes((0, bus, bus))
    struct.pack_into("<HH", data, 0x24, 0x0001, 0xFFF1)
    struct.pack_into("<II", data, 0x28, ABOVE_4G >> 32, (ABOVE_4G >> 32) + 0xFF)
    struct.pack_into("<HH", data, 0x20, 0xFFF0, 0)
    ids = Ids(0x8086, 0xA340, 0x060400)
    return RawFunction(sbdf, bytes(data), (Resource(0, 0, 0),) * 7, ids, root_bus=0, secondary=bus)


class Files:
    """The files of dom0 on a generated machine."""

    boot_id = "bench"

    release = ""

    def __init__(self, count: int) -> None:
        self._raws = {raw.sbdf: raw for raw in machine(count)}

    def addresses(self) -> list[Sbdf]:
        return [raw.sbdf for raw in self.read_machine()]

    def read_machine(self) -> list[RawFunction]:
        return list(self._raws.values())

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        return self._raws.get(sbdf)

    def acpi_tables(self) -> list[bytes]:
        return []

    def memory(self) -> MemoryReading:
        ram = NamedRange(Range(Address(1 << 20), BELOW_4G - (1 << 20)), "System RAM")
        return MemoryReading((ram,), (), ())

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        raise NoSuchDeviceError(f"{sbdf} {register}")  # StandIn reads registers from the hardware instead

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        raise NoSuchDeviceError(f"{sbdf} {register} {value}")

    def probe(self, sbdf: Sbdf) -> None:
        """Do nothing: there are no drivers."""

    def guarded_ports(self) -> None:
        """Return None: there is no xen-pciback."""

    def is_usb4_port(self, _sbdf: Sbdf) -> bool:
        return False

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        raise NoSuchDeviceError(f"{sbdf} {on}")

    def quarantine(self, sbdf: Sbdf) -> None:
        raise NoSuchDeviceError(str(sbdf))

    def read_log(self) -> None:
        """Return None: there is no log."""


class TimedXen(SimulatedXen):
    """A simulated Xen that records when a range was last mapped, and keeps no list of calls."""

    mapped_at = 0.0

    def map_mmio(self, frames: Frames) -> None:
        self.mapped_at = time.perf_counter()
        super().map_mmio(frames)
        self.calls.clear()


class Bench:
    """An engine on a generated machine with `count` functions; its ledger is in the directory `state`."""

    def __init__(self, count: int, state: str) -> None:
        files = Files(count)
        hardware = BusHardware(files.read_machine())
        self.xen = TimedXen(hardware, PVH, memory=[Frames(Gfn(0x100), 0x7_FF00)])
        settings = Settings("enforce", {**Settings().actions, "add-device": False})
        host = StandIn(files, hardware, self.xen.write_config)
        self.source = TraceSource()
        self.watch = Watch(self.source, "bench", obeys=False)
        self.engine = Engine(host, self.xen, FileStore(state), settings, lambda: "2026-01-01T00:00:00.000Z")
        self.engine.memory.intents = self.watch.intents
        self.engine.memory.trapped = self.watch.trapped
        self.watch.on_written = lambda sbdf: self.engine.add(sbdf, Reason.WRITTEN)
        self.worker = Worker(self.engine, self.watch, lambda _scope, _report: None)
        self.xen.kernel_remove(SUBJECT)
        start = time.process_time()
        first(self.worker.work_off)  # as the daemon does
        self.reconciled = time.process_time() - start
        self.engine.news()

    def move(self, number: int) -> float:
        """Move the BAR; return the seconds from the record of the write to the mapping call."""
        address = ABOVE_4G + (1 << 36) + (number % 1000) * BAR_SIZE
        writes = [
            ConfigWrite(SUBJECT, 0x10, 4, address & 0xFFFF_FFF0 | 4),
            ConfigWrite(SUBJECT, 0x14, 4, address >> 32),
        ]
        for write in writes:
            self.xen.write_config(write.sbdf, write.offset, 4, write.value)
        before = self.xen.mapped_at
        start = time.perf_counter()
        for write in writes:
            self.source.push(write)
        self.watch.take()
        outcomes = self.worker.work_off()
        self.engine.news()
        assert self.xen.mapped_at > before, outcomes
        return self.xen.mapped_at - start


class Bare:
    """The peer: a bare loop of what a move costs at least.

    These are a synced write of the two intents, both simulated calls, and a synced write of the two results;
    nothing is decoded, read, planned or checked. The file is in `directory`.
    """

    STEPS = b"x" * 470  # two lines of the ledger's steps

    def __init__(self, directory: str) -> None:
        self._file = os.open(os.path.join(directory, "bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._xen = TimedXen(BusHardware(machine(100)), PVH, memory=[Frames(Gfn(0x100), 0x7_FF00)])
        self._held = self._frames(-1)
        self._xen.map_mmio(self._held)

    @staticmethod
    def _frames(number: int) -> Frames:
        """Return the pages of the BAR after a move."""
        pages = BAR_SIZE >> 12
        return Frames(Gfn((ABOVE_4G + (1 << 36) >> 12) + (number % 1000) * pages), pages)

    def move(self, number: int) -> float:
        """Do the writes and calls of a move; return the seconds until the mapping call."""
        before, self._held = self._held, self._frames(number)
        start = time.perf_counter()
        self._write()
        self._xen.unmap_mmio(before)
        self._xen.map_mmio(self._held)
        found = self._xen.mapped_at - start
        self._write()
        return found

    def _write(self) -> None:
        """Append two steps; they are on the disk then."""
        os.write(self._file, self.STEPS)
        os.fdatasync(self._file)


class Moves(NamedTuple):
    """The seconds from the write to the mapping call of one run's moves, sorted; `bare` are the peer's."""

    ours: list[float]
    bare: list[float]


def moves(bench: Bench, peer: Bare, count: int) -> Moves:
    """Measure so many moves, each beside one of the peer."""
    pairs = [(bench.move(number), peer.move(number)) for number in range(count)]
    return Moves(sorted(ours for ours, _ in pairs), sorted(bare for _, bare in pairs))


def reconciled(count: int, directory: str) -> tuple[Bench, float]:
    """Return an engine that knows its machine, and the seconds of the processor that this took."""
    state = os.path.join(directory, str(count))
    os.makedirs(state)
    gc.collect()
    bench = Bench(count, state)
    return bench, bench.reconciled


def rows(directory: str, sizes: tuple[int, int], count: int) -> Iterator[Row]:
    """Yield the rows. `sizes` are those of a small and a large machine, `count` are the moves of a run."""
    small, large = sizes
    reconciled(small, os.path.join(directory, "warm"))
    _, least = reconciled(small, directory)
    bench, most = reconciled(large, directory)
    yield Row(f"first reconciliation, {large:,}", "none", (most,), 3.0, " s")
    growth = most / large / (least / small)
    yield Row(f"the same, cost of a function, {large:,}", f"the same at {small:,}", (growth,), 1.2)
    peer = Bare(os.path.join(directory, str(large)))
    moves(bench, peer, 30)
    runs = [moves(bench, peer, count) for _ in range(3)]
    about = f"write to first map call, {large:,}, ledger on disk"
    for share, bound in ((0.5, 0.7), (0.99, 1.0)):
        found = tuple(1e3 * percentile(run.ours, share) for run in runs)
        bare = tuple(1e3 * percentile(run.bare, share) for run in runs)
        name = f"p{share * 100:.0f}"
        yield Row(
            f"{about}, {name}", f"below: the synced writes and calls alone, {name}", found, bound, " ms"
        )
        yield Row(f"the synced writes and calls alone, {name}", "none", bare, None, " ms")


def shadow_rows(sizes: Sequence[int], steps: int) -> Iterator[Row]:
    """Yield the rows about one step of the shadow, a BAR write, at each size against the first size."""
    shadows = [shadow_from_raws(machine(size)) for size in sizes]
    for large, size in zip(shadows[1:], sizes[1:], strict=True):
        found = ratios(lambda large=large: _steps(large, steps), lambda: _steps(shadows[0], steps), 5)  # type: ignore[misc]
        yield Row(f"step of the shadow, BAR write, {size:,}", f"the same at {sizes[0]:,}", found, 1.1)


def _steps(shadow: Shadow, count: int) -> float:
    """Return the seconds of the processor that so many writes to a BAR take, from this state on."""
    began = time.process_time()
    for number in range(count):
        shadow, _ = step(shadow, ConfigWrite(SUBJECT, 0x10, 4, number % 1000 * BAR_SIZE | 4))
    return time.process_time() - began


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at this share (0.5: the median) of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]
