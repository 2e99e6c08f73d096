"""A stage for the engine: a made-up host, a simulated Xen on the same hardware, a keeper in memory."""

import attrs

from pcipt.daemon.intake import Intake
from pcipt.daemon.replay.stand_in import StandIn
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import Watch, no_watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.engine.queue import CONSOLE, OWNERS, Queue, Reason
from pcipt.engine.queue import EVERYTHING as WHOLE
from pcipt.errors import InputError, NoSuchDeviceError
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.host.uevents import HotplugEvent, Rescan
from pcipt.pci import Address, Frames, Gfn, Range, decode_function, decode_machine, parse_sbdf
from pcipt.pci.write import ConfigWrite
from pcipt.remap.ledger import Ledger
from pcipt.xen.interface import Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Presence
from tests.machines import bridge, function
from tests.xen.truth import mapped_pages, p2m_truth
from tests.xen.versions import full_version

S = parse_sbdf
QUIET = Settings(list_s=0, faults_s=0)  # no timer reads Xen's console: the queue gets empty


class Killed(BaseException):
    """The daemon was killed at this point."""


class FakeHost:
    """Functions in memory; `commands` logs every write of a register."""

    def __init__(self, raws):
        self.boot_id = "boot"
        self.raws = {raw.sbdf: raw for raw in raws}
        self.commands = []
        self.tables = []
        self.stubborn = False
        self.probed = []
        self.drivers = {}
        self.guarded = None  # the list of xen-pciback; None while it is not loaded
        self.quarantined = []
        self.usb4 = []
        self.xl_says = None
        self.xen = None
        self.log = None

    release = "6.1.0-18-amd64"

    def addresses(self):
        return list(self.raws)

    def read_machine(self):
        return list(self.raws.values())

    def read_function(self, sbdf):
        return self.raws.get(sbdf)

    def acpi_tables(self):
        return self.tables

    def memory(self):
        return MemoryReading((NamedRange(Range(Address(0x10_0000), 0x4000_0000), "System RAM"),), (), ())

    def read_register(self, sbdf, register):
        if sbdf not in self.raws:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(self.raws[sbdf].config[register.offset :][: register.size], "little")

    def write_register(self, sbdf, register, value):
        self.commands.append((str(sbdf), value))
        if not self.stubborn:
            raw = self.raws[sbdf]
            data = bytearray(raw.config)
            data[register.offset : register.offset + register.size] = value.to_bytes(register.size, "little")
            self.raws[sbdf] = attrs.evolve(raw, config=bytes(data))

    def probe(self, sbdf):
        """Bind the driver that the test has for the function, as Linux would."""
        self.probed.append(str(sbdf))
        if sbdf in self.drivers:
            self.raws[sbdf] = attrs.evolve(self.raws[sbdf], driver=self.drivers[sbdf])

    def guarded_ports(self):
        return None if self.guarded is None else frozenset(self.guarded)

    def is_usb4_port(self, sbdf):
        return str(sbdf) in self.usb4

    def guard_port(self, sbdf, *, on):
        if self.guarded is None:
            raise InputError("pciback", "it is not loaded")
        (self.guarded.add if on else self.guarded.discard)(sbdf)

    def quarantine(self, sbdf):
        """Do what xl pci-assignable-add does; `xl_says` is an error with which it fails."""
        self.quarantined.append(str(sbdf))
        if self.xl_says is not None:
            raise InputError(f"xl pci-assignable-add {sbdf}", self.xl_says)
        self.raws[sbdf] = attrs.evolve(self.raws[sbdf], driver="pciback")
        self.xen.give(sbdf, Owner(OwnerKind.QUARANTINE))

    def read_log(self):
        return None if self.log is None else self.log.read()

    # what SimulatedXen finds on the bus

    def functions(self):
        return list(self.raws)

    def presence(self, sbdf):
        raw = self.raws.get(sbdf)
        seen = decode_function(raw) if raw is not None else None
        return Presence(decodes_memory=bool(seen.decodes_memory)) if seen and seen.answers else None


class MemoryStore:
    """Keeps what was saved last; `die_at` kills at the n-th saving, before or after it took effect."""

    def __init__(self):
        self.ledger = None
        self.snapshot = None
        self.saved = 0
        self.die_at = None
        self.die_after = False
        self.fails = None
        self.findings = []
        self.is_long = False

    def load(self, boot_id):
        if self.ledger is None or self.ledger.boot_id != boot_id:
            self.ledger = Ledger(boot_id)
        return self.ledger.copy(), self.snapshot, list(self.findings)

    def append(self, steps):
        self._write(lambda: [step.apply(self.ledger) for step in steps])

    def save(self, ledger):
        self._write(lambda: setattr(self, "ledger", ledger.copy()))

    def save_mappings(self, ledger):
        """The whole ledger is kept already."""

    def save_snapshot(self, snapshot):
        if self.fails is not None:
            raise self.fails
        self.snapshot = snapshot

    def close(self):
        """Nothing is open."""

    def _write(self, change):
        if self.fails is not None:
            raise self.fails
        self.saved += 1
        if self.saved == self.die_at and not self.die_after:
            raise Killed
        change()
        if self.saved == self.die_at:
            raise Killed


def usual_raws():
    return [
        function("00:00.0"),
        bridge("00:1c.0", 1, 4),
        function("01:00.0", parent="00:1c.0", command=0x6),
        function("01:00.1", parent="00:1c.0", physfn="01:00.0", vendor=0xFFFF, device=0xFFFF),
    ]


class Stage:
    """Everything an engine needs; `start` makes one, as a (re)started daemon would."""

    def __init__(self, raws=None, *, known=None, dom0="pv", version=(4, 17), settings=None, coverage=None):
        self.host = FakeHost(usual_raws() if raws is None else raws)
        identity = XenIdentity(full_version(version), Dom0Kind(dom0))
        if coverage is None:
            buses = {(s.segment, s.bus) for s in self.host.raws} | {(0, bus) for bus in range(1, 5)}
            coverage = Coverage(buses=frozenset(buses))
        self.xen = SimulatedXen(
            self.host, identity, iommu=coverage, known=None if known is None else [S(a) for a in known]
        )
        self.host.xen = self.xen
        self.store = MemoryStore()
        self.store.snapshot = snapshot_from_machine("boot", decode_machine(self.host.raws.values()))
        self.settings = settings or QUIET
        self.time = 0.0

    def start(self, watch=None):
        log = getattr(self, "files", self.host).log
        if log is not None:
            log.open_anew()
        engine = Engine(
            self.host, self.xen, self.store, self.settings, lambda: "2026-01-01T00:00:00Z", lambda: self.time
        )
        engine.worker = Worker(engine, watch or no_watch(), lambda _scope, _report: None)
        return engine

    def plug(self, raw):
        self.host.raws[raw.sbdf] = raw

    def pull(self, address):
        del self.host.raws[S(address)]

    @property
    def changes(self):
        return [(call.op.name, str(call.functions[0]), call.result) for call in self.xen.changes]


class ListSource:
    """A write source fed by the test."""

    def __init__(self):
        self._waiting = []

    def push(self, event):
        self._waiting.append(event)

    def fileno(self):
        return 0

    def read(self):
        taken, self._waiting = self._waiting, []
        return taken

    def overrun(self):
        return None

    def blind(self):
        return None

    def close(self):
        """Nothing is open."""


class BusStage(Stage):
    """A stage on hardware with registers: writes reach it through the simulated Xen and are watched."""

    def __init__(
        self, raws, *, known=None, dom0="pvh", version=(4, 17), settings=None, coverage=EVERYTHING, **xen
    ):
        self.files = FakeHost(raws)
        self.hardware = BusHardware(raws)
        identity = XenIdentity(full_version(version), Dom0Kind(dom0))
        known = None if known is None else [S(address) for address in known]
        ram = Frames(Gfn(0x100), 0x4_0000)
        self.xen = SimulatedXen(self.hardware, identity, iommu=coverage, known=known, memory=[ram], **xen)
        self.files.xen = self.xen
        self.host = StandIn(self.files, self.xen.vpci or self.hardware, self.xen.write_config)
        self.store = MemoryStore()
        self.settings = settings or QUIET
        self.time = 0.0
        self.source = ListSource()
        self.watch = Watch(self.source, "test", obeys=dom0 == "pv")
        self.hotplug = Messages()

    def start(self):
        engine = super().start(self.watch)
        engine.memory.intents = self.watch.intents
        engine.memory.trapped = self.watch.trapped
        self.intake = Intake(
            engine, self.hotplug, self.watch, lambda: 0.0, lambda *_what: None, lambda *_what: None
        )
        engine.take_messages = self.intake.take_messages
        return engine

    def write(self, address, offset, size, value):
        """Write a register as a program of dom0 does."""
        self.xen.write_config(S(address), offset, size, value)
        self.source.push(ConfigWrite(S(address), offset, size, value))

    def plug(self, raw, *, announced=True):
        self.files.raws[raw.sbdf] = raw
        self.hardware.plug(raw)
        if announced:
            self.xen.kernel_add(raw.sbdf)
        self.hotplug.push("change", raw.sbdf)

    def pull(self, address, *, announced=True):
        del self.files.raws[S(address)]
        self.hardware.pull(S(address))
        if announced:
            self.xen.kernel_remove(S(address))
        self.hotplug.push("change", S(address))

    def settle(self, engine):
        """Let the daemon take what has arrived and do what is due now."""
        self.intake.take_writes()
        self.intake.take_messages()
        return engine.worker.work_off()


class Messages:
    """Hot-plug messages that the test sends."""

    overruns = gaps = forged = 0

    def __init__(self):
        self._waiting = []

    def push(self, action, sbdf):
        self._waiting.append(HotplugEvent(action, sbdf, 0, synthetic=False))

    def lose(self, why="the test lost them"):
        self._waiting = [Rescan(why)]

    def fileno(self):
        return 0

    def read(self):
        taken, self._waiting = self._waiting, []
        return taken

    def close(self):
        """Nothing is open."""


class Liar:
    """A Xen that reports success and does nothing."""

    def __init__(self, xen):
        self._xen = xen

    def __getattr__(self, name):
        return getattr(self._xen, name)

    def add_device(self, _function, _flags):
        return None

    def remove_device(self, _function):
        return None


def begun():
    """Give a queue in which EVERYTHING was done once, as after the start of the service."""
    queue = Queue()
    queue.add(WHOLE, Reason.SETTINGS, 0.0)
    queue.take(0.0)
    queue.finished(0.0)
    return queue


def work_off(engine):
    """Do what is due now."""
    return engine.worker.work_off()


def reports(engine, *, whole=True):
    """Do what is due now; give the report of each piece of work."""
    found = []
    while (report := engine.worker.turn(whole=whole)) is not None:
        found.append(report)
        if report.finished and engine.stopping():
            break
    return found


def compare(engine):
    """Compare everything, as `pcipt resync` does."""
    engine.add_everything(Reason.REQUESTED)
    return work_off(engine)


def look(engine, functions, reason=Reason.OWNER):
    """Look at functions that came, left or changed hands."""
    for sbdf in functions:
        engine.add(sbdf, reason)
    return work_off(engine)


def reread(engine, functions):
    """Look at functions that were written to."""
    return look(engine, functions, Reason.WRITTEN)


def dry_run(engine):
    """Compare everything and do nothing, as `pcipt resync --dry-run` does."""
    one_slice, outcomes = engine.rehearse(), []
    while True:
        report = one_slice()
        outcomes += report.outcomes
        if report.finished:
            return outcomes


def told(outcomes):
    return [(o.action.word, str(o.action.sbdf), o.result.value) for o in outcomes]


def settled(stage):
    """Give an engine that has compared everything and has nothing left to do."""
    engine = stage.start()
    compare(engine)
    stage.time += 60
    work_off(engine)
    assert rests(engine)
    return engine


def rests(engine):
    """Tell whether nothing waits but the slow looks for other owners and for refused DMA."""
    return {key for reason in Reason for key in engine.queue.keys_with(reason)} <= {OWNERS, CONSOLE}


def right(stage):
    """Check that Xen lives, and that exactly the pages are mapped that BARs decode."""
    assert stage.xen.catastrophe is None
    assert p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen)) == ([], [])


def codes(engine):
    return {finding.code for _, finding in engine.findings}
