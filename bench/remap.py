"""Measure the time from a configuration write to the mapping call, planning from nothing, and memory.

    bench/remap.py [--moves 300] [--disk DIR]

Machines have 100, 1,000 and 10,000 functions (segments of root ports with devices of eight functions) and a
simulated Xen. The BAR of a function that Xen has forgotten moves again and again. Measured is the time from
the record of the write to the call that maps the new range: the write is decoded, settled, read back,
planned, guarded and in the ledger by then. The ledger is in memory (/dev/shm), and in a second run on a disk
(below DIR, default: the directory for temporary files). A move is disturbed if the kernel gave the processor
to another process meanwhile; the limit is for the other moves. The peer alternates with the moves in the same
run: a bare loop of the same two synced writes and the same simulated calls, nothing else.

Memory is that of `pcipt daemon --replay`, with the simulated Xen in it, on a recorded machine whose functions
have BARs of their own and 4 KiB of config space. Exit 1 if a limit is missed.
"""

import argparse
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from list import build  # bench/list.py: builds a sysfs tree

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
from pcipt.pci import Address, Frames, Gfn, Ids, Range, RawFunction, Resource, Sbdf, decode_machine
from pcipt.pci.config import Register
from pcipt.pci.write import ConfigWrite
from pcipt.remap.desired import desired_of
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.plan import plan_announcements
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.view import XenView
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware

SIZES = (100, 1_000, 10_000)
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


class Latencies(NamedTuple):
    """The sorted seconds from the write to the mapping call of a machine's moves.

    `every` are those of all moves, `calm` those of the moves that nobody disturbed, `bare` those of the peer,
    whose moves alternate with these. `reconciled` are the seconds of the processor that the first
    reconciliation took, which reads the machine.
    """

    every: list[float]
    calm: list[float]
    bare: list[float]
    reconciled: float


def latencies(count: int, moves: int, directory: str) -> Latencies:
    """Measure the moves on a machine with `count` functions; the ledger is in `directory`."""
    state = os.path.join(directory, str(count))
    os.makedirs(state)
    bench, peer = Bench(count, state), Bare(state)
    for number in range(30):
        bench.move(number)
        peer.move(number)
    every: list[float] = []
    calm: list[float] = []
    bare: list[float] = []
    for number in range(30, 30 + moves):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        every.append(bench.move(number))
        if resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == before:
            calm.append(every[-1])
        bare.append(peer.move(number))
    return Latencies(sorted(every), sorted(calm), sorted(bare), bench.reconciled)


def scratch(count: int) -> tuple[float, float]:
    """Measure planning from nothing: all announcements, and the mappings of all functions.

    Shape:  elapsed seconds; seconds of the processor, which do not include time taken by other processes.
    """
    decoded = decode_machine(machine(count))
    start, used = time.perf_counter(), time.process_time()
    announced = plan_announcements(decoded, XenView())
    desired = [
        desired_of(f, decoded.functions, XenView(), pvh=True, version=PVH.version)
        for f in decoded.functions.values()
    ]
    planned = plan_mappings(desired, MappedPages()).actions
    taken = time.perf_counter() - start, time.process_time() - used
    assert len(announced) == count
    assert planned
    return taken


def recorded_machine(root: str, count: int) -> None:
    """Write a recorded machine: bench/list.py's with separate BARs, 4 KiB of config space, a memory map."""
    build(root, count)
    os.makedirs(os.path.join(root, "proc"))
    with open(os.path.join(root, "proc/iomem"), "w", encoding="ascii") as iomem:
        iomem.write("00100000-7fffffff : System RAM\n")
    for raw in machine(count):
        home = os.path.join(root, "sys/bus/pci/devices", str(raw.sbdf))
        line = raw.resources[0]
        if not line.size:
            continue
        with open(os.path.join(home, "config"), "r+b") as config:
            data = bytearray(config.read()).ljust(4096, b"\0")
            struct.pack_into("<Q", data, 0x10, line.start | 0x4)
            # Advanced Error Reporting, serial number, ARI: most devices have these.
            for at, capability, following in ((0x100, 0x1, 0x148), (0x148, 0x3, 0x158), (0x158, 0xE, 0)):
                struct.pack_into("<II", data, at, capability | 1 << 16 | following << 20, raw.sbdf.devfn)
            config.seek(0)
            config.write(data)
        with open(os.path.join(home, "resource"), "r+", encoding="ascii") as lines:
            rest = lines.read().partition("\n")[2]
            lines.seek(0)
            lines.write(f"{line.start:#018x} {line.start + line.size - 1:#018x} 0x0000000000140204\n{rest}")


def memory(root: str, dom0: Dom0Kind, directory: str) -> float:
    """Run `pcipt daemon` on a recorded machine; return its PSS in MiB once it is ready."""
    state = os.path.join(directory, f"state-{dom0.value}")
    os.makedirs(state)
    control = os.path.join(state, "control")
    command = ["daemon", "--replay", root, "--dom0", dom0.value, "--state", state, "--socket", control]
    daemon = subprocess.Popen([sys.executable, "-m", "pcipt.cli.main", *command], stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(control):
            if daemon.poll() is not None:
                raise SystemExit("the daemon does not start")
            time.sleep(0.2)
        with open(f"/proc/{daemon.pid}/smaps_rollup", encoding="ascii") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
    finally:
        daemon.terminate()
        daemon.wait()


def simulated_share(count: int) -> float:
    """Return the MiB that the simulated Xen needs for its records; on a real machine they are in Xen."""
    tracemalloc.start()
    xen = SimulatedXen(SimulatedHardware(), known=[raw.sbdf for raw in machine(count)])
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(xen.devices) == count
    return size / (1 << 20)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at this share (0.5: the median) of sorted values; infinity if there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("inf")


def row(what: str, seconds: Sequence[float], note: str = "") -> None:
    """Print one row: p10, p50 and p99 of sorted seconds, in milliseconds, and how many there are."""
    p10, p50, p99 = (percentile(seconds, share) * 1e3 for share in (0.1, 0.5, 0.99))
    print(f"{what:<44} {p10:9.3f} {p50:9.3f} {p99:9.3f} {len(seconds):6}  {note}")


def verdict(what: str, found: float, limit: float, unit: str) -> bool:
    """Print whether a value is below its limit; return True if it is."""
    print(f"{'OK' if found < limit else 'MISSED':<7} {what}: {found:.2f}{unit} (below {limit:g}{unit})")
    return found < limit


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=300)
    parser.add_argument("--disk", metavar="DIR", help="where the ledger is, when it is on a disk")
    args = parser.parse_args()
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="pcipt-bench-", dir=home) as directory,
        tempfile.TemporaryDirectory(prefix="pcipt-bench-", dir=args.disk) as disk,
    ):
        return report(args.moves, directory, disk)


def report(moves: int, directory: str, disk: str) -> int:
    """Run all measurements and print them; return 0 if all limits are met, else 1."""
    print(f"{'from a write to the mapping call, in ms':<44} {'p10':>9} {'p50':>9} {'p99':>9} {'n':>6}")
    medians = {}
    largest = SIZES[-1]
    for count in SIZES:
        found = latencies(count, moves, directory)
        medians[count] = percentile(found.calm, 0.5)
        row(
            f"{count} functions, ledger in memory",
            found.every,
            f"first reconcile: processor {found.reconciled:.2f} s",
        )
        row("  moves that nobody disturbed", found.calm)
        row("  the bare loop", found.bare)
    tail = percentile(found.calm, 0.99) * 1e3
    found = latencies(largest, moves, disk)
    row(f"{largest} functions, ledger on disk", found.every)
    row("  the bare loop", found.bare)
    on_clock, planned = scratch(largest)
    recording = os.path.join(directory, "machine")
    recorded_machine(recording, largest)
    held = {kind: memory(recording, kind, directory) for kind in Dom0Kind}
    share = simulated_share(largest)
    about = f"daemon at {largest} functions"
    good = [
        verdict(f"p99 at {largest} functions, ledger in memory, undisturbed", tail, 1.0, " ms"),
        verdict(f"ratio {SIZES[0]} -> {largest} functions", medians[largest] / medians[SIZES[0]], 1.5, ""),
        verdict(f"planning from scratch, {largest} functions, processor", planned, 1.0, " s"),
        *(verdict(f"{about}, {kind.value} dom0, PSS", size, 60.0, " MB") for kind, size in held.items()),
    ]
    print(f"        planning from scratch by the clock: {on_clock:.2f} s")
    print(f"        of the daemon's memory the simulated hypervisor's records: {share:.1f} MB")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
