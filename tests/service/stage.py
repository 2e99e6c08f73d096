"""A stage for the engine: a made-up host, a simulated Xen on the same hardware, a keeper in memory."""

import copy

import attrs

from pcipt.errors import NoSuchDeviceError
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import decode_function, decode_machine, parse_sbdf
from pcipt.remap.ledger import Ledger
from pcipt.service.engine import Engine
from pcipt.service.settings import Settings
from pcipt.xen.coverage import Coverage
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.model import Presence
from pcipt.xen.simulated import SimulatedXen
from tests.machines import bridge, function

S = parse_sbdf


class Killed(BaseException):
    """The daemon was killed at this point."""


class FakeHost:
    """Functions in memory; `commands` logs every write of a command register."""

    def __init__(self, raws):
        self.boot_id = "boot"
        self.raws = {raw.sbdf: raw for raw in raws}
        self.commands = []
        self.tables = []
        self.stubborn = False

    def read_machine(self):
        return list(self.raws.values())

    def read_function(self, sbdf):
        return self.raws.get(sbdf)

    def iommu_tables(self):
        return self.tables

    def read_command(self, sbdf):
        if sbdf not in self.raws:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(self.raws[sbdf].config[4:6], "little")

    def write_command(self, sbdf, value):
        self.commands.append((str(sbdf), value))
        if not self.stubborn:
            raw = self.raws[sbdf]
            config = raw.config[:4] + value.to_bytes(2, "little") + raw.config[6:]
            self.raws[sbdf] = attrs.evolve(raw, config=config)

    # what SimulatedXen finds on the bus

    def functions(self):
        return list(self.raws)

    def presence(self, sbdf):
        raw = self.raws.get(sbdf)
        seen = decode_function(raw) if raw is not None else None
        return Presence(decodes_memory=bool(seen.decodes_memory)) if seen and seen.answers else None


class MemoryKeeper:
    """Keeps what was saved last; `die_at` kills at the n-th saving, before or after it took effect."""

    def __init__(self):
        self.ledger = None
        self.snapshot = None
        self.saved = 0
        self.die_at = None
        self.die_after = False
        self.fails = None
        self.findings = []

    def load(self, boot_id):
        ledger = self.ledger if self.ledger and self.ledger.boot_id == boot_id else Ledger(boot_id)
        return ledger, self.snapshot, list(self.findings)

    def save(self, ledger):
        if self.fails is not None:
            raise self.fails
        self.saved += 1
        if self.saved == self.die_at and not self.die_after:
            raise Killed
        self.ledger = copy.deepcopy(ledger)
        if self.saved == self.die_at:
            raise Killed

    def save_snapshot(self, snapshot):
        if self.fails is not None:
            raise self.fails
        self.snapshot = snapshot


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
        identity = XenIdentity(*version, f"{version[0]}.{version[1]}.0", Dom0Kind(dom0))
        if coverage is None:
            buses = {(s.segment, s.bus) for s in self.host.raws} | {(0, bus) for bus in range(1, 5)}
            coverage = Coverage(buses=frozenset(buses))
        self.xen = SimulatedXen(
            self.host, identity, iommu=coverage, known=None if known is None else [S(a) for a in known]
        )
        self.keeper = MemoryKeeper()
        self.keeper.snapshot = snapshot_from_machine("boot", decode_machine(self.host.raws.values()))
        self.settings = settings or Settings()

    def start(self):
        return Engine(self.host, self.xen, self.keeper, self.settings, lambda: "2026-01-01T00:00:00Z")

    def plug(self, raw):
        self.host.raws[raw.sbdf] = raw

    def pull(self, address):
        del self.host.raws[S(address)]

    @property
    def changes(self):
        return [(call.op.name, str(call.functions[0]), call.result) for call in self.xen.changes]


def told(outcomes):
    return [(o.action.word, str(o.action.sbdf), o.result.value) for o in outcomes]
