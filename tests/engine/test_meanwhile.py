"""Functions come and go at two ports while the service is killed at any step, and while none runs (PVH).

vPCI unmaps nothing of a function that leaves. What nobody saw leave is found out at the next start: by what
is on disk, and by the kernel's log. What cannot be found out is told.
"""

import itertools
import random

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.store import FileStore
from pcipt.daemon.watcher import Watch
from pcipt.engine.queue import CONSOLE, Reason
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import decode_machine
from tests.engine.kernel_log import Log
from tests.engine.stage import BusStage, Killed, Messages, S, codes, compare, right, work_off
from tests.xen.devices import MEM32, device, port
from tests.xen.versions import EACH_RELEASE

CYCLES = 20
COMMAND = 0x04
SIZES = (0x2_0000, 0x4000)
#  function: its port, and where Linux puts its BARs
SLOTS = {
    "02:00.0": ("00:1c.0", [(0xFE20_0000, 0xFE24_0000), (0xFE28_0000, 0xFE2C_0000)]),
    "05:00.0": ("00:1d.0", [(0xFEA0_0000, 0xFEA4_0000), (0xFEA8_0000, 0xFEAC_0000)]),
}
ONE, TWO = SLOTS
HERE, THERE = SLOTS[ONE][1]
STEPS = ["found", "assigned", "decoding", "unbound", "left"]


class Dying(FileStore):
    """The service's real files; `die_at` kills it at the n-th writing, before or after it took effect."""

    saved = 0
    die_at = None
    die_after = False

    def _write(self, write, *values):
        type(self).saved += 1
        dies = self.saved == self.die_at
        if dies and not self.die_after:
            raise Killed
        write(*values)
        if dies:
            raise Killed

    def append(self, steps):
        self._write(super().append, steps)

    def save(self, ledger):
        self._write(super().save, ledger)

    def save_mappings(self, ledger):
        self._write(super().save_mappings, ledger)


class Scene(BusStage):
    """A PVH dom0 with two ports; Linux prints what it does, and the service may be dead at any time."""

    def __init__(self, directory, *, words="old", room=10_000, log=True, **more):
        raws = [
            device("00:00.0"),
            port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90), command=0),
            port("00:1d.0", 5, 7, window=(0xFEA0, 0xFEF0), command=0),
        ]
        super().__init__(raws, **more)
        self.directory = str(directory)
        FileStore(self.directory).save_snapshot(snapshot_from_machine("boot", decode_machine(raws)))
        self.files.log = self.log = Log(words, room) if log else None
        self.instances = itertools.count(1000)
        self.engine = None

    # The service.

    def begin(self):
        """Start the service; nobody has heard what was told meanwhile. It may be killed while it starts."""
        for _ in range(20):
            self.store = Dying(self.directory)
            self.xen.reconnect()
            self.source.read()
            self.hotplug = Messages()
            self.watch = Watch(self.source, "test", obeys=False)
            self.engine = None
            try:
                self.engine = self.start()
                compare(self.engine)
            except Killed:
                Dying.die_at = None
                continue
            return self.engine
        raise AssertionError("killed at every start")

    def die(self):
        self.engine = None
        Dying.die_at = None

    def look(self, seconds=1.0):
        if self.engine is None:
            return
        try:
            self.settle(self.engine)
            self.time += seconds
            work_off(self.engine)
        except Killed:
            self.die()

    def rest(self):
        for _ in range(6):
            self.look(30.0)

    # What happens: one step each.

    def found(self, nic, places=None, *, kept=False, msix=(1, 0, 0x1000), **more):
        where, addresses = SLOTS[nic]
        addresses = places or addresses[0]
        raw = device(nic, *((0, size) for size in SIZES), command=0, msix=msix, parent=where, **more)
        lines = list(raw.resources)
        for index, (start, size) in enumerate(zip(addresses, SIZES, strict=True)):
            lines[index] = attrs.evolve(lines[index], start=start, size=size, flags=MEM32)
        raw = attrs.evolve(raw, resources=tuple(lines), instance=next(self.instances))
        self.hardware.plug(raw)
        self.say(lambda log: log.found(nic_name(nic), SIZES, addresses if kept else None))
        self.xen.kernel_add(S(nic))
        self.files.raws[S(nic)] = raw
        self.tell("add", nic)

    def assigned(self, nic):
        for index, (offset, size) in enumerate(zip((0x10, 0x14), SIZES, strict=True)):
            start = self.files.raws[S(nic)].resources[index].start
            self.say(
                lambda log, at=index, first=start, length=size: log.assigned(nic_name(nic), at, first, length)
            )
            for value in (0xFFFF_FFFF, 0, start):
                self.write(nic, offset, 4, value)

    def decoding(self, nic):
        self.write(nic, COMMAND, 2, 2)
        self.say(lambda log: log.say("enabling device (0000 -> 0002)", nic_name(nic)))
        self.tell("bind", nic)

    def unbound(self, nic):
        self.tell("unbind", nic)

    def left(self, nic):
        del self.files.raws[S(nic)]
        self.hardware.pull(S(nic))
        self.xen.kernel_remove(S(nic))
        self.tell("remove", nic)

    def come(self, nic, places=None, **more):
        self.found(nic, places, **more)
        self.assigned(nic)
        self.decoding(nic)

    def go(self, nic):
        self.unbound(nic)
        self.left(nic)

    def say(self, what):
        if self.log is not None:
            what(self.log)

    def tell(self, word, nic):
        self.hotplug.push(word, S(nic))
        if self.log is not None:
            self.log.uevents += 1


def nic_name(nic):
    return str(S(nic))


@pytest.fixture(autouse=True)
def alive():
    yield
    Dying.saved, Dying.die_at = 0, None


def healthy(scene):
    right(scene)
    assert health_of(scene.engine) == "healthy"
    assert codes(scene.engine) == set()


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("words", ["old", "new"])
@pytest.mark.parametrize("places", [HERE, THERE])
def test_what_came_and_left_while_no_service_ran_is_unmapped(tmp_path, version, words, places):
    scene = Scene(tmp_path, version=version, words=words)
    scene.begin()
    scene.rest()
    scene.engine.save()
    scene.die()
    scene.come(ONE, places)
    scene.go(ONE)
    scene.begin()
    scene.rest()
    healthy(scene)


@pytest.mark.parametrize("version", EACH_RELEASE)
def test_what_came_and_left_before_the_first_start_is_unmapped(tmp_path, version):
    scene = Scene(tmp_path, version=version)
    scene.come(ONE)
    scene.go(ONE)
    scene.begin()
    scene.rest()
    healthy(scene)


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("killed", STEPS)
@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_a_kill_after_each_step_and_a_removal_while_it_is_down(tmp_path, version, killed, looks, kept):
    scene = Scene(tmp_path, version=version)
    scene.begin()
    scene.rest()
    for step in STEPS:
        if step == "found":
            scene.found(ONE, kept=kept)
        else:
            getattr(scene, step)(ONE)
        if looks:
            scene.look()
        if step == killed:
            scene.die()
    scene.begin()
    scene.rest()
    healthy(scene)


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("killed", range(1, 9))
@pytest.mark.parametrize("late", [False, True])
def test_a_kill_at_each_writing_and_a_removal_while_it_is_down(tmp_path, version, killed, late):
    scene = Scene(tmp_path, version=version)
    scene.begin()
    scene.rest()
    scene.found(ONE)
    Dying.die_at, Dying.die_after = Dying.saved + killed, late
    scene.look()
    for step in STEPS[1:4]:
        getattr(scene, step)(ONE)
        scene.look()
    scene.look(10.0)
    scene.die()
    scene.left(ONE)
    Dying.die_at, Dying.die_after = Dying.saved + killed, late
    scene.begin()
    scene.rest()
    if scene.engine is None:
        scene.begin()
        scene.rest()
    healthy(scene)


def test_the_line_is_noted_later_if_work_waits_when_the_files_are_written(tmp_path):
    scene = Scene(tmp_path)
    engine = scene.begin()
    scene.rest()
    scene.come(ONE)
    scene.look()
    scene.tell("bind", ONE)
    scene.time += 6.0
    work_off(engine)  # STORE is due; the message is taken with it and waits
    assert engine.ledger.roster.line < scene.log.read().last
    scene.rest()
    assert engine.ledger.roster.line == scene.log.read().last


def interleaved(ports, chance):
    """Yield (function, step) of one cycle at each port, the ports in any order."""
    waiting = {nic: list(STEPS) for nic in ports}
    while waiting:
        nic = chance.choice(sorted(waiting))
        yield nic, waiting[nic].pop(0)
        waiting = {each: steps for each, steps in waiting.items() if steps}


def live_or_die(scene, chance, deaths, looks):
    """Let the service look, be killed now or at one of its next writings, or start again."""
    if scene.engine is None:
        if chance.random() < 0.4:
            scene.begin()
    elif chance.random() < deaths:
        scene.die()
    elif chance.random() < looks:
        scene.look(chance.choice([0.01, 0.6, 2.0]))
    if chance.random() < deaths:
        Dying.die_at, Dying.die_after = Dying.saved + chance.randrange(1, 5), chance.random() < 0.5


BURSTS = list(itertools.product(EACH_RELEASE, (0.05, 0.2), (0.3, 1.0), ([ONE], [ONE, TWO])))


@pytest.mark.parametrize(("version", "deaths", "looks", "ports"), BURSTS)
def test_a_burst_with_kills_at_random_moments_leaves_nothing(tmp_path, version, deaths, looks, ports):
    chance = random.Random(f"{version} {deaths} {looks} {len(ports)}")
    scene = Scene(tmp_path, version=version, words=chance.choice(["old", "new"]))
    scene.begin()
    for _ in range(CYCLES):
        for nic, step in interleaved(ports, chance):
            getattr(scene, step)(nic, *([chance.choice(SLOTS[nic][1])] if step == "found" else []))
            live_or_die(scene, chance, deaths, looks)
    Dying.die_at = None
    if scene.engine is None:
        scene.begin()
    scene.rest()
    right(scene)
    assert codes(scene.engine) <= {"messages-lost"}
    assert (health_of(scene.engine) == "healthy") is (codes(scene.engine) == set())


def changed_meanwhile(scene, *, died):
    """Begin with a function that decodes, and stop; `died` tells whether it was a kill soon after."""
    scene.begin()
    scene.come(ONE, HERE, msix=None)
    scene.look()
    if not died:
        scene.rest()
        scene.engine.save()
    scene.die()


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("places", [HERE, THERE])
@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize("log", [False, True])
def test_another_device_in_its_place_is_a_removal(tmp_path, version, died, places, decodes, log):
    scene = Scene(tmp_path, version=version, log=log)
    changed_meanwhile(scene, died=died)
    scene.go(ONE)
    scene.found(ONE, places, msix=None)  # 4.21.0 hides a structure whose table has no address
    scene.assigned(ONE)
    if decodes:
        scene.decoding(ONE)
    scene.begin()
    scene.rest()
    healthy(scene)


@pytest.mark.parametrize("version", EACH_RELEASE)
def test_another_device_is_known_by_its_ids_where_sysfs_has_no_numbers(tmp_path, version):
    scene = Scene(tmp_path, version=version, log=False)
    changed_meanwhile(scene, died=False)
    (raw,) = [each for sbdf, each in scene.files.raws.items() if sbdf == S(ONE)]
    scene.files.raws[S(ONE)] = attrs.evolve(raw, instance=None)
    scene.go(ONE)
    scene.found(ONE, THERE, vendor=0x1AF4, msix=None)
    scene.assigned(ONE)
    scene.files.raws[S(ONE)] = attrs.evolve(scene.files.raws[S(ONE)], instance=None)
    scene.begin()
    scene.rest()
    healthy(scene)


# What nobody can know is told.


def after_a_restart(tmp_path, *, uevents, flood=0, readable=True, **more):
    """Restart with a log of 40 lines, of which `flood` are printed meanwhile, and with so many messages."""
    scene = Scene(tmp_path, room=40, **more)
    scene.log.readable = readable
    scene.begin()
    scene.rest()
    scene.engine.save()
    scene.die()
    for number in range(flood):
        scene.log.say(f"xenbr0: port {number}(vif{number}.0) entered forwarding state")
    scene.log.uevents += uevents
    scene.begin()
    scene.rest()
    return scene


@pytest.mark.parametrize(("flood", "uevents"), [(0, 0), (0, 50), (30, 50), (80, 0)])
def test_a_restart_while_interfaces_are_made_is_no_doubt(tmp_path, flood, uevents):
    healthy(after_a_restart(tmp_path, flood=flood, uevents=uevents))


@pytest.mark.parametrize("readable", [True, False])
def test_a_log_that_does_not_reach_back_is_a_doubt_if_any_device_came_or_went(tmp_path, readable):
    scene = after_a_restart(tmp_path, flood=80, uevents=1, readable=readable)
    assert codes(scene.engine) == {"messages-lost"}
    assert health_of(scene.engine) == "degraded"
    scene.engine.save()
    scene.begin()  # it stays until the next boot
    assert codes(scene.engine) == {"messages-lost"}


def test_a_pv_dom0_has_no_such_doubt(tmp_path):
    assert codes(after_a_restart(tmp_path, flood=80, uevents=1, dom0="pv").engine) == set()


def test_a_quiet_service_notes_how_far_it_followed_the_log(tmp_path):
    """The kernel prints much for days, and then the service is killed."""
    scene = Scene(tmp_path, room=600)
    scene.begin()
    scene.rest()
    for _ in range(10):
        for number in range(300):
            scene.log.say(f"xenbr0: port {number} entered forwarding state")
        scene.log.uevents += 10
        scene.engine.add(CONSOLE, Reason.LISTEN)
        scene.rest()
    scene.die()
    scene.log.uevents += 1
    scene.begin()
    healthy(scene)
