"""A bus that is renumbered there and back, while the Command registers behind it are written.

vPCI traps such a write by the former address, and maps or unmaps pages for it, but the hardware does not get
it: afterwards the registers look right, and pages are missing or left. So it was on a real Xen 4.20.
"""

import pytest

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import Reason
from pcipt.errors import NoSuchDeviceError
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.registers import BRIDGE_CONTROL
from tests.engine.stage import BusStage, S, codes, compare, look, right, told, work_off
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
