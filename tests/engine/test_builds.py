"""Vendors' builds with faulty MSI-X structures: the real Xen is on either side of what nobody knows of it."""

import pytest

from tests.engine import stage as stages
from tests.engine.stage import S, compare, right, work_off
from tests.engine.world import MortalXen
from tests.xen.devices import device
from tests.xen.versions import VERSIONS

NIC, BAR, COMMAND, OFF, ON = "00:06.0", 0xFE00_0000, 0x04, 0, 2
IN_NO_BAR, BEYOND = (3, 0, 0x800), (0, 0x1800, 0x3000)


class Build(MortalXen):
    build = True


@pytest.mark.parametrize("msix", [IN_NO_BAR, BEYOND])
@pytest.mark.parametrize("driver", [None, "ahci"])
@pytest.mark.parametrize("command", [OFF, ON])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_decodes_is_mapped_and_nothing_else(version, command, driver, msix, monkeypatch):
    """Firmware has left decode on or off; the driver switches it, and moves the BAR."""
    monkeypatch.setattr(stages, "SimulatedXen", Build)
    raw = device(NIC, (BAR, 0x2000), command=command, driver=driver, msix=msix)
    stage = stages.BusStage([device("00:00.0"), raw], version=version)
    said = stage.xen.console()

    def start():
        stage.xen.prints(said)  # the console is read from its beginning
        stage.engine = stage.start()
        compare(stage.engine)
        right(stage)
        assert compare(stage.engine) == []

    def write(offset, size, value):
        stage.write(NIC, offset, size, value)
        stage.settle(stage.engine)
        stage.time += 5
        work_off(stage.engine)
        right(stage)

    start()
    assert stage.engine.views.version.patch is None
    for value in (ON, OFF, ON, OFF):
        write(COMMAND, 2, value)
        start()
    write(0x10, 4, BAR + 0x10_0000)
    write(COMMAND, 2, ON)
    stage.pull(NIC)
    stage.settle(stage.engine)
    assert S(NIC) not in stage.engine.machine.functions
    right(stage)
