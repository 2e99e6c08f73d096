"""Plug and unplug, twenty times below one port, faster than anybody looks, with the service killed or not.

vPCI unmaps nothing when a function leaves. So each cycle leaves pages, also a cycle that nobody saw.
"""

import random

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.watcher import Watch
from pcipt.engine.queue import STORE, Reason
from pcipt.pci import RawFunction
from tests.engine.kernel_log import Log
from tests.engine.stage import BusStage, Messages, S, compare, right, work_off
from tests.engine.test_mapping import NIC, machine
from tests.xen.devices import MEM32, device
from tests.xen.versions import EACH_RELEASE

CYCLES, SEEDS = 20, 2
COMMAND = 0x04
PLACES = [(0xFE20_0000, 0xFE24_0000), (0xFE28_0000, 0xFE2C_0000), (0xFE40_0000, 0xFE30_0000)]
SIZES = (0x2_0000, 0x4000)


def placed(addresses, msix=(1, 0, 0x1000)):
    """Give a NIC whose registers have no addresses yet, and to which Linux gives these."""
    raw = device(NIC, *((0, size) for size in SIZES), command=0, msix=msix, parent="00:1c.0")
    lines = list(raw.resources)
    for index, (start, size) in enumerate(zip(addresses, SIZES, strict=True)):
        lines[index] = attrs.evolve(lines[index], start=start, size=size, flags=MEM32)
    return attrs.evolve(raw, resources=tuple(lines))


class Burst:
    """A PVH dom0 with an empty slot below a port; Linux's steps of each cycle, and looks at any time."""

    def __init__(self, version, seed, *, deaths=0.0, looks=0.3, places=PLACES, late=False, log=None):
        self.random = random.Random(seed)
        self.stage = BusStage(machine()[:-1], version=version)
        self.log = self.stage.files.log = log
        self.deaths, self.looks, self.places, self.late = deaths, looks, places, late
        self.engine = self.stage.start()
        compare(self.engine)
        self.killed = 0

    def cycle(self):
        stage, addresses = self.stage, self.random.choice(self.places)
        raw = placed(addresses)
        stage.hardware.plug(raw)
        stage.xen.kernel_add(S(NIC))
        stage.files.raws[S(NIC)] = raw
        if self.log is not None:
            self.log.found(S(NIC), SIZES)
            for index, start in enumerate(addresses):
                self.log.assigned(S(NIC), index, start, SIZES[index])
        stage.hotplug.push("add", S(NIC))
        self.perhaps_look()
        for offset, start in zip((0x10, 0x14), addresses, strict=True):
            for value in (0xFFFF_FFFF, 0, start):
                stage.write(NIC, offset, 4, value)
        self.perhaps_look()
        stage.write(NIC, COMMAND, 2, 2)
        stage.hotplug.push("bind", S(NIC))
        self.perhaps_look()
        stage.hotplug.push("unbind", S(NIC))
        self.perhaps_look()
        del stage.files.raws[S(NIC)]
        stage.hardware.pull(S(NIC))
        stage.xen.kernel_remove(S(NIC))
        if self.late and self.random.random() < self.looks:
            if self.random.random() < 0.5:  # its directory is there and empty
                stage.files.raws[S(NIC)] = RawFunction(S(NIC), parent=raw.parent)
                self.look(NIC)
                del stage.files.raws[S(NIC)]
            self.look(NIC)  # the kernel sends the message after it has taken the function out of sysfs
        stage.hotplug.push("remove", S(NIC))
        self.perhaps_look()

    def perhaps_look(self):
        if self.random.random() < self.deaths:
            self.kill()
        elif self.random.random() < self.looks:
            self.look()
        self.healthy_only_if_right()

    @property
    def waiting(self):
        """Tell whether something has happened that the service has not heard of, or waits to look at."""
        unheard = self.stage.hotplug._waiting or self.stage.source._waiting
        return bool(unheard or any(key is not STORE for key in self.engine.queue._work))

    def healthy_only_if_right(self):
        """While the service waits for nothing and says "healthy", exactly what decodes is mapped."""
        if health_of(self.engine) == "healthy" and not self.waiting:
            right(self.stage)

    def look(self, also=None):
        if also is not None:
            self.engine.add(S(also), Reason.WRITTEN)
        self.stage.settle(self.engine)
        self.stage.time += self.random.choice([0.01, 0.6, 2.0])
        work_off(self.engine)

    def kill(self):
        """Kill the service; what was in its sockets and pipes is lost."""
        stage = self.stage
        stage.source.read()
        stage.hotplug = Messages()
        stage.watch = Watch(stage.source, "test", obeys=False)
        self.killed += 1
        self.engine = stage.start()
        compare(self.engine)

    def end(self):
        for _ in range(6):
            self.look()
            self.stage.time += 30


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("looks", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("places", [PLACES[:1], PLACES])
@pytest.mark.parametrize("late", [False, True])
def test_a_burst_leaves_nothing(version, looks, places, late):
    for seed in range(SEEDS):
        burst = Burst(version, seed, looks=looks, places=places, late=late)
        for _ in range(CYCLES):
            burst.cycle()
        burst.end()
        if looks >= 0.5 or len(places) == 1:  # else nobody has read how large the BARs were
            right(burst.stage)
            assert health_of(burst.engine) == "healthy"


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("words", ["old", "new"])
def test_a_burst_that_nobody_sees_leaves_nothing_where_the_log_tells_the_sizes(version, words):
    """The largest size that the second address may have has more pages than an unmap searches."""
    for seed in range(SEEDS):
        burst = Burst(version, seed, looks=0.0, places=[(0xFE20_0000, 0xFE28_0000)], log=Log(words))
        for _ in range(CYCLES):
            burst.cycle()
        burst.end()
        right(burst.stage)
        assert health_of(burst.engine) == "healthy"


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("deaths", [0.05, 0.2])
@pytest.mark.parametrize("places", [PLACES[:1], PLACES])
def test_a_burst_in_which_the_service_is_killed_leaves_nothing(version, deaths, places):
    for seed in range(SEEDS):
        burst = Burst(version, seed, looks=1.0, deaths=deaths, places=places)
        for _ in range(CYCLES):
            burst.cycle()
        burst.end()
        assert burst.killed
        right(burst.stage)
        assert health_of(burst.engine) == "healthy"


@pytest.mark.parametrize("version", EACH_RELEASE)
def test_what_linux_does_not_have_yet_has_not_left(version):
    stage, (first, second), raw = (
        BusStage(machine()[:-1], version=version),
        PLACES[0],
        placed(PLACES[0], None),
    )
    engine = stage.start()
    compare(engine)
    stage.hardware.plug(raw)
    stage.xen.kernel_add(S(NIC))
    for offset, value in ((0x10, first), (0x14, second), (COMMAND, 2)):
        stage.write(NIC, offset, 4 if offset >= 0x10 else 2, value)
    stage.time += 2
    assert stage.settle(engine) == []
    stage.files.raws[S(NIC)] = raw
    stage.hotplug.push("add", S(NIC))
    stage.time += 2
    assert stage.settle(engine) == []
    right(stage)
    assert health_of(engine) == "healthy"


@pytest.mark.parametrize("version", EACH_RELEASE)
def test_writes_that_are_heard_of_after_the_removal_are_looked_at_soon(version):
    stage = BusStage(machine()[:-1], version=version)
    engine = stage.start()
    compare(engine)
    raw = placed(PLACES[0], None)
    stage.hardware.plug(raw)
    stage.xen.kernel_add(S(NIC))
    stage.files.raws[S(NIC)] = raw
    stage.hotplug.push("add", S(NIC))
    stage.settle(engine)
    for offset, value in zip((0x10, 0x14), PLACES[0], strict=True):
        stage.write(NIC, offset, 4, value)
    stage.write(NIC, COMMAND, 2, 2)
    heard = list(stage.source._waiting)
    stage.source._waiting.clear()
    del stage.files.raws[S(NIC)]
    stage.hardware.pull(S(NIC))
    stage.xen.kernel_remove(S(NIC))
    stage.hotplug.push("remove", S(NIC))
    stage.time += 2
    stage.settle(engine)
    stage.source._waiting.extend(heard)
    stage.settle(engine)
    assert health_of(engine) == "degraded"
    stage.time += 1
    stage.settle(engine)
    right(stage)
    assert health_of(engine) == "healthy"
