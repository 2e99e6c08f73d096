"""A bus that is renumbered there and back, while the Command registers behind it are written.

vPCI traps such a write by the former address, and maps or unmaps pages for it, but the hardware does not get
it: afterwards the registers look right, and pages are missing or left. So it was on a real Xen 4.20.
"""

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import Reason
from pcipt.errors import NoSuchDeviceError
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.registers import BRIDGE_CONTROL
from tests.engine.stage import QUIET, BusStage, S, codes, compare, look, right, told, work_off
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages, p2m_truth
from tests.xen.versions import VERSIONS

PORT, NIC = "00:1c.0", "02:00.0"


def begun(version, command, driver=None, **more):
    raws = [
        port(PORT, 2, 9, command=0),
        device(
            NIC, (0xC010_0000, 0x4000), msix=(0, 0x1000, 0x1800), parent=PORT, command=command, driver=driver
        ),
    ]
    coverage = Coverage(buses=frozenset((0, bus) for bus in range(10)))
    stage = BusStage(raws, version=version, coverage=coverage, **more)
    engine = stage.start()
    compare(engine)
    return stage, engine


def renumber(stage, secondary):
    stage.write(PORT, 0x18, 4, secondary << 8 | 9 << 16)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("driver", [None, "e1000e"])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize(("command", "written"), [(2, 0), (2, 4), (0, 2), (0, 6), (2, 2), (0, 0)])
def test_what_vpci_did_for_a_write_that_did_not_reach_hardware_is_mended(
    version, driver, seen, command, written
):
    """With `seen` pcipt looks at the machine in between; with a driver it does not follow."""
    stage, engine = begun(version, command, driver)
    renumber(stage, 3)
    if seen:
        stage.settle(engine)
    stage.write(NIC, 4, 2, written)
    if seen:
        stage.settle(engine)
    renumber(stage, 2)
    stage.settle(engine)
    stage.time += 60
    work_off(engine)
    assert stage.hardware.decodes_memory(S(NIC)) == bool(command)
    right(stage)
    assert health_of(engine) == "healthy"
    assert compare(engine) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rewrite_that_fails_is_a_finding_and_tried_again(version):
    stage, engine = begun(version, 2, "e1000e")
    renumber(stage, 3)
    stage.write(NIC, 4, 2, 0)
    renumber(stage, 2)
    works = stage.host.write_register
    stage.host.write_register = _failing
    stage.settle(engine)
    assert "mapping-in-doubt" in codes(engine)
    missing, _ = p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen))
    assert missing
    stage.host.write_register = works
    stage.time += 60
    work_off(engine)
    look(engine, [S(NIC)], Reason.REQUESTED)
    right(stage)
    assert codes(engine) == set()


BAR, MOVED, PAGES = 0x10, 0xC020_0000, 4
MSIX = {1}  # pages of the table and the pending bits


def pages(address):
    return {(address >> 12) + page for page in range(PAGES) if page not in MSIX}


def moved_there(version, driver, switches):
    """Write another address at the old bus number, with decode off before or on after it; come back."""
    stage, engine = begun(version, 2, driver)
    raw = stage.files.raws[S(NIC)]
    lines = (attrs.evolve(raw.resources[0], start=MOVED), *raw.resources[1:])
    stage.files.raws[S(NIC)] = attrs.evolve(raw, resources=lines)  # Linux believes what it wrote
    renumber(stage, 3)
    stage.settle(engine)
    for command, offset, value in (("off", 4, 0), ("move", BAR, MOVED), ("on", 4, 2)):
        if command in ("move", *switches):
            stage.write(NIC, offset, 4 if offset == BAR else 2, value)
    stage.settle(engine)
    renumber(stage, 2)
    stage.settle(engine)
    stage.time += 60
    work_off(engine)
    return stage, engine


each_switch = pytest.mark.parametrize("switches", [[], ["off"], ["off", "on"]], ids=str)


@pytest.mark.parametrize("version", VERSIONS)
@each_switch
def test_a_bar_that_was_written_there_is_rewritten(version, switches):
    stage, engine = moved_there(version, None, switches)
    assert stage.hardware.memory_bars(S(NIC))[0][1].start == MOVED
    right(stage)
    assert (health_of(engine), codes(engine)) == ("healthy", set())
    assert compare(engine) == []


@pytest.mark.parametrize("version", VERSIONS)
@each_switch
def test_under_a_driver_its_pages_stay_and_the_cure_is_told(version, switches):
    stage, engine = moved_there(version, "e1000e", switches)
    there = stage.hardware.memory_bars(S(NIC))[0][1].start
    assert pages(there) <= mapped_pages(stage.xen)
    (text,) = [finding.text for _, finding in engine.findings if finding.code == "bar-write-ignored"]
    for part in (f"BAR 0 is at {there:#x}, but {MOVED:#x} was written", "renumbered", "unbind the driver"):
        assert part in text
    assert health_of(engine) == "degraded"
    stage.files.raws[S(NIC)] = attrs.evolve(stage.files.raws[S(NIC)], driver=None)
    look(engine, [S(NIC)], Reason.REQUESTED)
    assert stage.hardware.memory_bars(S(NIC))[0][1].start == MOVED
    right(stage)
    assert codes(engine) == set()
    assert compare(engine) == []
    stage.write(NIC, 4, 2, 0)
    stage.settle(engine)
    right(stage)


def test_the_address_that_it_has_and_a_sizing_write_there_are_no_moves():
    for value in (0xC010_0000, 0xFFFF_FFFF):
        stage, engine = begun((4, 20), 2, "e1000e")
        renumber(stage, 3)
        stage.settle(engine)
        stage.write(NIC, BAR, 4, value)
        renumber(stage, 2)
        assert told(stage.settle(engine)) == []
        assert (codes(engine), health_of(engine)) == (set(), "healthy")
        right(stage)


def _failing(sbdf, *_what):
    raise NoSuchDeviceError(str(sbdf))


def test_on_pv_nothing_is_mapped_and_nothing_is_written():
    stage, engine = begun((4, 20), 2, "e1000e", dom0="pv")
    renumber(stage, 3)
    stage.write(NIC, 4, 2, 0)
    renumber(stage, 2)
    assert [word for word, _, _ in told(stage.settle(engine))] == []


def test_a_function_that_does_not_come_back_is_not_written_to():
    stage, engine = begun((4, 20), 2, "e1000e")
    renumber(stage, 3)
    stage.write(NIC, 4, 2, 0)
    assert all(word != "rewrite-command" for word, _, _ in told(stage.settle(engine)))
    assert engine.memory.intents.unreached == {S(NIC)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reset_of_the_bus_meanwhile_is_seen_where_linux_has_the_function(version):
    """The write goes to the bridge only; the watch knows what is behind it."""
    stage, engine = begun(version, 2)
    renumber(stage, 3)
    for control in (0x40, 0):
        stage.write(PORT, BRIDGE_CONTROL, 2, control)
    renumber(stage, 2)
    assert [(word, of) for word, of, _ in told(stage.settle(engine))] == [("rewrite-bar", f"0000:{NIC}")]
    assert compare(engine) == []


def test_the_explanation_has_the_write_that_is_to_be_repeated():
    stage, engine = begun((4, 20), 2, "e1000e")
    engine.settings = attrs.evolve(QUIET, actions=QUIET.actions | {"rewrite-command": False})
    renumber(stage, 3)
    stage.write(NIC, 4, 2, 0)
    renumber(stage, 2)
    stage.settle(engine)
    assert "rewrite-command" in [step.action.word for step in engine.explain(S(NIC)).steps]
