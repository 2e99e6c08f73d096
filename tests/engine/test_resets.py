"""Resets that vPCI does not see: its picture changes by trapped writes only, whatever hardware shows."""

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import Reason
from pcipt.pci.write import ConfigWrite
from pcipt.remap.desired import By
from pcipt.remap.life import State
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.model import DOM0, Catastrophe
from tests.engine.stage import BusStage, S, codes, compare, look, reread, rests, right, work_off
from tests.engine.test_mapping import LOST, NIC, NO_ADD, machine
from tests.xen.devices import device
from tests.xen.truth import mapped_pages
from tests.xen.versions import EACH_RELEASE, VERSIONS

each_release = pytest.mark.parametrize("version", EACH_RELEASE)
BRIDGE, COMMAND, BARS = "00:1c.0", 0x04, {0x10: 0xFE20_0000, 0x14: 0xFE24_0000}
RUNS = [(0xFE200, 0x20), (0xFE242, 2)]  # the MSI-X table and the pending bits are in the first pages of BAR 1
PAGES = {page for start, count in RUNS for page in range(start, start + count)}
OWNERS = [Owner(OwnerKind.DOMAIN, 1), Owner(OwnerKind.QUARANTINE)]
AT_ONCE = 11  # Linux reads each word back and tries ten times more


class Scene:
    """A function of a PVH dom0 that decodes, with a driver or without, and Linux's way to reset it."""

    def __init__(self, version, driver=None, settings=None):
        raws = machine()
        raws[-1] = attrs.evolve(raws[-1], driver=driver)
        self.bars = BARS
        self.stage = BusStage(raws, version=version, settings=settings)
        self.engine = self.stage.start()
        assert compare(self.engine) == []
        assert self.holdings == RUNS

    @property
    def holdings(self):
        """What the ledger has as mapped by Xen for the function."""
        runs = [run for run in self.engine.ledger.mapped if str(run.sbdf)[5:] == NIC]
        assert {(run.by, run.state) for run in runs} <= {(By.XEN, State.HELD)}
        return [(run.frames.start, run.frames.count) for run in runs]

    @property
    def pages(self):
        """Which pages of the function Xen has mapped."""
        return mapped_pages(self.stage.xen) & PAGES

    @property
    def bar0(self):
        return int.from_bytes(self.stage.hardware.config(S(NIC))[0x10:0x14], "little")

    @property
    def calls(self):
        return [call.op for call in self.stage.xen.calls if call.op in (Op.MAP, Op.UNMAP)]

    def restore(self, times=1):
        """Write BARs and Command as pci_restore_config_space does: BARs first, each several times."""
        for offset, value in reversed(self.bars.items()):
            for _ in range(times):
                self.stage.write(NIC, offset, 4, value)
        self.stage.write(NIC, COMMAND, 2, 2)

    def unseen_reset(self, times=1):
        """Power off and on (D3cold), or a reset of which no write to configuration space tells."""
        self.stage.hardware.reset(S(NIC))
        self.restore(times)
        return self.stage.settle(self.engine)

    def secondary_bus_reset(self):
        """A bus reset by the bridge's control register, as AER recovery makes it."""
        for value in (0x40, 0):
            self.stage.write(BRIDGE, 0x3E, 2, value)
        self.restore()
        return self.stage.settle(self.engine)

    def cure(self):
        """Do what the finding says: decode off, BARs, decode on."""
        self.stage.write(NIC, COMMAND, 2, 0)
        self.restore()
        return self.stage.settle(self.engine)

    def unplug(self):
        self.stage.pull(NIC)
        outcomes = self.stage.settle(self.engine)
        return [(o.action.word, o.action.frames.start, o.result.value) for o in outcomes
                if o.action.word == "unmap-mmio"]  # fmt: skip


def words(outcomes):
    return [(o.action.word, o.result.value, o.rule) for o in outcomes]


RESETS = [
    pytest.param(Scene.unseen_reset, id="D3cold"),
    pytest.param(lambda scene: scene.unseen_reset(AT_ONCE), id="D3cold-retries"),
    pytest.param(Scene.secondary_bus_reset, id="secondary-bus"),
]


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_a_reset_is_told_at_once_with_the_cure_that_works(version, reset):
    scene = Scene(version, driver="nvme")
    outcomes = reset(scene)
    assert set(words(outcomes)) == {("rewrite-bar", "refused", "unbound")}
    assert scene.bar0 == 0
    (finding,) = [finding for about, finding in scene.engine.findings if about == S(NIC)]
    assert finding.code == "reset-behind-vpci"
    for part in ("BAR 0 (0xfe200000)", "BAR 1 (0xfe240000)", "decode must be switched off", "unbind nvme"):
        assert part in finding.text
    assert scene.holdings == RUNS
    compare(scene.engine)
    assert (scene.holdings, scene.pages, scene.calls) == (RUNS, PAGES, [])
    assert health_of(scene.engine) == "degraded"
    assert scene.cure() == []
    assert (scene.bar0, scene.calls, codes(scene.engine)) == (BARS[0x10], [], set())
    assert compare(scene.engine) == []
    right(scene.stage)
    assert health_of(scene.engine) == "healthy"


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_without_a_driver_the_bars_are_written_back(version, reset):
    scene = Scene(version)
    assert words(reset(scene)) == [("rewrite-bar", "done", "")] * 2
    assert scene.bar0 == BARS[0x10]
    assert (scene.holdings, scene.pages, scene.calls) == (RUNS, PAGES, [])
    assert scene.engine.findings == []
    assert compare(scene.engine) == []
    right(scene.stage)
    scene.stage.write(NIC, COMMAND, 2, 0)
    assert scene.stage.settle(scene.engine) == []
    assert (scene.holdings, scene.pages, scene.calls) == ([], set(), [])


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_what_is_written_back_is_the_address_that_linux_has_now(version, reset):
    """vPCI drops also what Linux writes after it has assigned another address; its own would be wrong."""
    scene, moved = Scene(version), 0xFE28_0000
    raw = scene.stage.files.raws[S(NIC)]
    lines = (attrs.evolve(raw.resources[0], start=moved), *raw.resources[1:])
    scene.stage.files.raws[S(NIC)] = attrs.evolve(raw, resources=lines)
    scene.bars = {**BARS, 0x10: moved}
    assert words(reset(scene)) == [("rewrite-bar", "done", "")] * 2
    assert scene.bar0 == moved
    assert scene.holdings == [(moved >> 12, 0x20), RUNS[1]]
    assert mapped_pages(scene.stage.xen) & {*PAGES, moved >> 12} == {moved >> 12, 0xFE242, 0xFE243}
    assert (scene.calls, scene.engine.findings) == ([], [])
    assert compare(scene.engine) == []
    right(scene.stage)


@each_release
@pytest.mark.parametrize("driver", [None, "nvme"])
@pytest.mark.parametrize("reset", RESETS)
def test_what_such_a_function_had_mapped_is_unmapped_when_it_leaves(version, driver, reset):
    scene = Scene(version, driver)
    reset(scene)
    compare(scene.engine)
    assert scene.unplug() == [("unmap-mmio", start, "done") for start, _ in RUNS]
    assert mapped_pages(scene.stage.xen).isdisjoint(PAGES)
    assert scene.engine.findings == []
    right(scene.stage)


@each_release
def test_the_writes_that_vpci_drops_after_a_seen_reset_are_ignored_writes(version):
    scene = Scene(version, driver="nvme")
    scene.secondary_bus_reset()
    assert len(scene.stage.watch.intents) == 2


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_what_xen_says_of_the_dropped_writes_is_no_finding_beside_that_of_the_reset(version, reset):
    scene = Scene(version, driver="nvme")
    reset(scene)
    scene.stage.write(NIC, 0x10, 4, 0)  # a second reset: Linux has saved what it read after the first one
    for _ in range(2):
        compare(scene.engine)
        assert codes(scene.engine) == {"reset-behind-vpci"}


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_lost_messages_do_not_take_pages_from_under_vpci(version, reset):
    scene = Scene(version, driver="nvme")
    reset(scene)
    scene.engine.add_everything(Reason.LOST)
    scene.stage.settle(scene.engine)
    assert (scene.holdings, scene.pages, scene.calls) == (RUNS, PAGES, [])
    scene.cure()
    assert scene.stage.xen.vpci.traps(S(NIC))
    right(scene.stage)


@each_release
def test_a_reset_while_nobody_restores_it(version):
    scene = Scene(version, driver="nvme")
    scene.stage.hardware.reset(S(NIC))
    reread(scene.engine, [S(NIC)])
    assert "reset-behind-vpci" in codes(scene.engine)
    assert scene.holdings == RUNS
    scene.restore()  # which vPCI drops
    scene.stage.settle(scene.engine)
    assert (scene.bar0, scene.holdings, scene.pages) == (0, RUNS, PAGES)


@each_release
@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_reset_after_decode_went_off_is_no_finding_once_it_is_restored(version, meanwhile):
    """As pci_reset_function makes it: Command first, so that vPCI unmaps."""
    scene = Scene(version, driver="nvme")
    scene.stage.write(NIC, COMMAND, 2, 0x400)
    scene.stage.hardware.reset(S(NIC))
    if meanwhile:
        assert scene.stage.settle(scene.engine) == []
        assert codes(scene.engine) == {"bar-drift"}  # nothing tells it from one that nobody restores
        assert scene.holdings == []
    scene.restore()
    assert scene.stage.settle(scene.engine) == []
    assert (scene.bar0, scene.holdings, scene.pages) == (BARS[0x10], RUNS, PAGES)
    assert scene.engine.findings == []


@each_release
def test_a_service_that_was_started_after_the_reset_knows_it_by_what_vpci_had_mapped(version):
    scene = Scene(version, driver="nvme")
    scene.engine.save()
    scene.stage.hardware.reset(S(NIC))
    scene.restore()
    scene.stage.source.read()  # nobody reads them
    scene.engine = scene.stage.start()
    compare(scene.engine)
    assert "reset-behind-vpci" in codes(scene.engine)
    assert (scene.holdings, scene.pages, scene.calls) == (RUNS, PAGES, [])
    scene.cure()
    assert scene.engine.findings == []
    right(scene.stage)


@each_release
def test_a_page_that_a_lost_bar_shares_stays_when_pcipt_unmaps_for_another_function(version):
    scene = Scene(version, driver="nvme", settings=NO_ADD)
    stage = scene.stage
    stage.xen.forget(S(LOST))
    stage.write(LOST, 0x10, 4, 0xFE21_F000)  # two pages: the first one is the last one of BAR 0
    stage.settle(scene.engine)
    scene.unseen_reset()
    stage.write(LOST, 0x10, 4, 0xFE00_0000)
    stage.settle(scene.engine)
    assert mapped_pages(stage.xen).isdisjoint({0xFE220})
    assert (scene.holdings, scene.pages) == (RUNS, PAGES)
    scene.cure()
    assert stage.xen.vpci.traps(S(NIC))
    right(stage)


# vPCI that is made anew: it unmaps nothing


def hand_over(scene, owner, driver):
    """Give the function to somebody as xl does, and let the service look."""
    scene.stage.files.raws[S(NIC)] = attrs.evolve(scene.stage.files.raws[S(NIC)], driver=driver)
    scene.stage.xen.give(S(NIC), owner)
    return look(scene.engine, [S(NIC)])


@pytest.mark.parametrize("version", [version for version in EACH_RELEASE if version >= (4, 19)])
@pytest.mark.parametrize("owner", OWNERS)
def test_a_bar_that_moved_while_a_guest_had_the_function_leaves_pages_that_are_found(version, owner):
    scene = Scene(version)
    assert hand_over(scene, owner, "pciback") == []
    scene.stage.hardware.write(S(NIC), 0x10, 4, 0xFE28_0000)
    unmapped = [outcome.action.frames.start for outcome in hand_over(scene, DOM0, None)]
    assert unmapped == [0xFE200]  # vPCI has mapped the new place and left the old one
    right(scene.stage)
    assert codes(scene.engine) == {"bar-drift"}  # of a Linux that has the old address


@each_release
@pytest.mark.parametrize("owner", OWNERS)
def test_a_function_that_comes_back_as_it_was_costs_no_call(version, owner):
    scene = Scene(version)
    assert hand_over(scene, owner, "pciback") == []
    assert hand_over(scene, DOM0, None) == []
    assert (scene.holdings, scene.pages, scene.calls) == (RUNS, PAGES, [])
    right(scene.stage)


# vPCI that fails: before Xen 4.19 it gives the function up


REFUSED = 0xFEE0_0000  # dom0 may not access it, which vPCI looks at from Xen 4.18 on


@pytest.mark.parametrize("version", [version for version in EACH_RELEASE if version >= (4, 18)])
def test_what_vpci_gave_up_is_mapped_by_pcipt(version):
    scene = Scene(version)
    stage = scene.stage
    given_up = version < (4, 19)
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x10, 4, REFUSED)
    stage.write(NIC, COMMAND, 2, 2)
    unmapped = {o.action.word for o in stage.settle(scene.engine)}
    assert unmapped <= {"unmap-mmio"}  # of what vPCI may have mapped before it failed
    assert stage.xen.vpci.traps(S(NIC)) is not given_up
    assert bool(scene.engine.memory.ledger.given_up) is given_up
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x10, 4, BARS[0x10])
    stage.write(NIC, COMMAND, 2, 2)
    done = {(o.action.word, o.result.value) for o in stage.settle(scene.engine)}
    assert done == ({("map-mmio", "done")} if given_up else set())
    assert mapped_pages(stage.xen) >= PAGES
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(scene.engine)
    assert mapped_pages(stage.xen).isdisjoint(PAGES)


GIVING_UP = [version for version in VERSIONS if version < (4, 19)]


def given_up(version, *others, msix=None):
    """A stage on which vPCI has given up the NIC: its BAR 0 was beyond what a map of four levels can name."""
    far = device(NIC, (0xFE20_0000, 0x4000, "64"), parent=BRIDGE, driver="nvme", msix=msix)
    stage = BusStage([*machine()[:-1], far, *others], version=version)
    stage.engine = stage.start()
    compare(stage.engine)
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x14, 4, 0xFFFF_0000)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(stage.engine)
    assert not stage.xen.vpci.traps(S(NIC))
    return stage


@pytest.mark.parametrize("version", GIVING_UP)
def test_a_restart_remembers_what_vpci_gave_up(version):
    stage = given_up(version)
    places = set(stage.engine.memory.ledger.given_up)
    stage.engine = stage.start()
    compare(stage.engine)
    assert stage.engine.memory.ledger.given_up == places != set()
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x14, 4, 0)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(stage.engine)
    compare(stage.engine)
    right(stage)
    assert "given-up" in codes(stage.engine)
    assert health_of(stage.engine) == "degraded"
    stage.pull(NIC)
    stage.settle(stage.engine)
    assert (stage.engine.memory.ledger.given_up, codes(stage.engine)) == (set(), set())
    right(stage)


def brought_back(version):
    """The NIC with MSI-X that vPCI has given up, at its former address again."""
    stage = given_up(version, msix=(0, 0x1000, 0x2000))
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x14, 4, 0)
    stage.write(NIC, COMMAND, 2, 2)
    assert ("map-mmio", "done", "") in words(stage.settle(stage.engine))
    return stage


@pytest.mark.parametrize("version", GIVING_UP)
def test_nobody_traps_the_msix_pages_of_what_vpci_gave_up(version):
    """With them, registers of the function that share a page with its MSI-X table would be away."""
    stage = brought_back(version)
    assert {0xFE200, 0xFE201, 0xFE202, 0xFE203} <= mapped_pages(stage.xen)
    right(stage)
    stage.engine = stage.start()
    assert compare(stage.engine) == []
    right(stage)
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(stage.engine)
    right(stage)


@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("decode", [0, 2])
@pytest.mark.parametrize("version", GIVING_UP)
def test_they_are_trapped_again_once_the_bus_was_rescanned(version, decode, coalesced):
    stage = brought_back(version)
    stage.write(NIC, COMMAND, 2, decode)
    stage.settle(stage.engine)
    raw = stage.files.raws.pop(S(NIC))
    stage.xen.kernel_remove(S(NIC))
    stage.hotplug.push("remove", S(NIC))
    if not coalesced:
        stage.settle(stage.engine)
    stage.files.raws[S(NIC)] = raw
    stage.xen.kernel_add(S(NIC))
    stage.hotplug.push("add", S(NIC))
    stage.settle(stage.engine)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(stage.engine)
    assert stage.xen.vpci.traps(S(NIC))
    assert compare(stage.engine) == []
    assert {0xFE201, 0xFE202}.isdisjoint(mapped_pages(stage.xen))
    right(stage)
    assert codes(stage.engine) == set()


@pytest.mark.parametrize("version", GIVING_UP)
def test_they_stay_trapped_if_the_bus_was_rescanned_while_the_service_was_stopped(version):
    """Nothing shows that vPCI has the function again; the finding stays until its cure is seen."""
    stage = brought_back(version)
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(stage.engine)
    stage.xen.kernel_remove(S(NIC))
    stage.xen.kernel_add(S(NIC))
    stage.engine = stage.start()
    compare(stage.engine)
    for command in (2, 0, 2):
        stage.write(NIC, COMMAND, 2, command)
        stage.settle(stage.engine)
        assert stage.xen.vpci.traps(S(NIC))
        assert {0xFE201, 0xFE202}.isdisjoint(mapped_pages(stage.xen))
        assert bool(command) is ({0xFE200, 0xFE203} <= mapped_pages(stage.xen))
    assert (codes(stage.engine), health_of(stage.engine)) == ({"given-up"}, "degraded")
    raw = stage.files.raws[S(NIC)]
    stage.pull(NIC)
    stage.settle(stage.engine)
    stage.plug(raw)
    stage.settle(stage.engine)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(stage.engine)
    assert codes(stage.engine) == set()
    right(stage)


def late_record(version):
    """A driver switches decode on and, before the function is read, off; that record has not arrived."""
    nic = device(
        NIC, (0xFE20_0000, 0x4000), parent=BRIDGE, driver="nvme", command=0, msix=(0, 0x1000, 0x2000)
    )
    stage = BusStage([*machine()[:-1], nic], version=version)
    stage.engine = stage.start()
    compare(stage.engine)
    stage.write(NIC, COMMAND, 2, 2)
    stage.intake.take_writes()
    return stage


@pytest.mark.parametrize("version", GIVING_UP)
def test_a_record_that_comes_late_does_not_look_like_a_failure(version):
    stage = late_record(version)
    stage.xen.write_config(S(NIC), COMMAND, 2, 0)
    assert stage.engine.worker.work_off() == []
    stage.source.push(ConfigWrite(S(NIC), COMMAND, 2, 0))
    stage.settle(stage.engine)
    stage.time += 60
    work_off(stage.engine)
    assert (stage.engine.memory.ledger.given_up, codes(stage.engine)) == (set(), set())
    stage.write(NIC, COMMAND, 2, 2)
    assert stage.settle(stage.engine) == []
    right(stage)


@pytest.mark.parametrize("version", GIVING_UP)
def test_a_failure_that_no_register_explains_is_known_a_moment_later(version):
    stage = late_record(version)
    stage.xen.vpci.remove(S(NIC))  # the map failed: Xen has switched decode off
    stage.hardware.write(S(NIC), COMMAND, 2, 0)
    stage.engine.worker.work_off()
    assert stage.engine.memory.ledger.given_up == set()
    stage.time += 0.2
    work_off(stage.engine)
    assert "given-up" in codes(stage.engine)
    stage.time += 60
    work_off(stage.engine)
    assert rests(stage.engine)
    stage.write(NIC, COMMAND, 2, 2)
    assert words(stage.settle(stage.engine)) == [("map-mmio", "done", "")]
    right(stage)


@pytest.mark.parametrize("version", GIVING_UP)
def test_decode_is_not_switched_while_that_would_panic(version):
    """Xen before 4.17.2 looks at the BARs of each function of dom0, also of one without vPCI."""
    panics = version < (4, 17, 2)
    stage = given_up(version, device("02:01.0", (0xFE40_0000, 0x4000), parent=BRIDGE))
    stage.hardware.reset(S("02:01.0"))
    done = words(reread(stage.engine, [S("02:01.0")]))
    assert done == [("rewrite-bar", "refused", "none-given-up") if panics else ("rewrite-bar", "done", "")]
    stage.plug(device("02:02.0", (0xFE50_0000, 0x4000), parent=BRIDGE), announced=False)
    outcomes = [o for o in stage.settle(stage.engine) if o.action.word == "add-device"]
    assert words(outcomes) == [("add-device", *(("refused", "none-given-up") if panics else ("done", "")))]
    assert stage.xen.catastrophe is None
    (text,) = [finding.text for _, finding in stage.engine.findings if finding.code == "given-up"]
    assert ("this Xen would panic" in text) == panics
    stage.pull(NIC)
    stage.settle(stage.engine)
    compare(stage.engine)
    assert stage.xen.catastrophe is None
    right(stage)
    assert health_of(stage.engine) == "healthy"


def test_the_simulated_xen_panics_as_the_real_one():
    stage = given_up((4, 17, 1), device("02:01.0", (0xFE40_0000, 0x4000), parent=BRIDGE))
    with pytest.raises(Catastrophe, match="has no vPCI"):
        stage.write("02:01.0", COMMAND, 2, 0)


@each_release
@pytest.mark.parametrize("driver", [None, "nvme"])
def test_a_rom_that_was_on_is_on_again(version, driver):
    """vPCI takes the ROM for mapped and drops its write, too: its enable bit is lost like its address."""
    there = device(NIC, (0xFE20_0000, 0x4000, "64"), rom=(0xFE30_0001, 0x8000), parent=BRIDGE, driver=driver)
    stage = BusStage([*machine()[:-1], there], version=version)
    engine = stage.start()
    compare(engine)
    before = bytes(stage.hardware.config(S(NIC))[:0x34])
    stage.hardware.reset(S(NIC))
    for offset, size in ((0x30, 4), (0x14, 4), (0x10, 4), (COMMAND, 2)):
        stage.write(NIC, offset, size, int.from_bytes(before[offset : offset + size], "little"))
    stage.settle(engine)
    if driver is not None:
        assert "reset-behind-vpci" in codes(engine)
        stage.files.raws[S(NIC)] = attrs.evolve(there, driver=None)
        reread(engine, [S(NIC)])
    compare(engine)
    assert stage.hardware.config(S(NIC))[:0x34] == before
    assert engine.findings == []
    right(stage)


@each_release
def test_what_vpci_traps_after_a_reset_is_mapped_for_no_other_function(version):
    """vPCI still has the MSI-X table where the BAR was, until a write switches memory decode off."""
    scene = Scene(version, driver="nvme", settings=NO_ADD)
    stage, table = scene.stage, BARS[0x14]
    stage.plug(device("00:09.0", (0xFE60_0000, 0x1000), command=0), announced=False)
    stage.settle(scene.engine)
    scene.secondary_bus_reset()
    stage.write("00:09.0", 0x10, 4, table)
    stage.write("00:09.0", COMMAND, 2, 2)
    outcomes = stage.settle(scene.engine)
    assert ("map-mmio", "refused", "msix-pages") in words(outcomes)
    assert stage.xen.catastrophe is None
    assert "not-mapped" in codes(scene.engine)
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(scene.engine)
    look(scene.engine, [S("00:09.0")], Reason.WRITTEN)
    assert table >> 12 in mapped_pages(stage.xen)


@each_release
@pytest.mark.parametrize("reset", RESETS)
def test_what_vpci_had_mapped_of_a_cleared_bar_is_unmapped_when_xen_forgets_the_function(version, reset):
    """Xen is told of the function in the round that hears of it; its new record knows no page."""
    scene = Scene(version, driver="nvme")
    reset(scene)
    scene.stage.xen.kernel_remove(S(NIC))
    scene.engine.add(S(NIC), Reason.OWNER)
    outcomes = words(scene.stage.settle(scene.engine))
    assert outcomes[0][0] == "add-device"  # done, or refused where this Xen would fail on the cleared BAR
    assert (scene.holdings, scene.pages) == ([], set())
    assert "reset-behind-vpci" not in codes(scene.engine)
    assert scene.stage.xen.catastrophe is None
