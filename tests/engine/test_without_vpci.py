"""Functions that dom0 has without vPCI, by what Xen says of them: pcipt maps their BARs."""

import pytest

from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, codes, compare, right, told
from tests.xen.devices import device
from tests.xen.versions import VERSIONS

NIC, DISK = "00:06.0", "00:07.0"
BAR, ELSEWHERE = 0xFE00_0000, 0xFE40_0000
COMMAND, ON, OFF = 0x04, 0x2, 0x0
VENDORS = [Vendor.INTEL, Vendor.AMD]
each_version = pytest.mark.parametrize("version", VERSIONS)
gives_up = pytest.mark.parametrize("version", [version for version in VERSIONS if version < (4, 19)])
survives = pytest.mark.parametrize("version", [version for version in VERSIONS if version >= (4, 19)])


class Uncovered(BusStage):
    """A machine on which no IOMMU unit serves the NIC at boot."""

    def __init__(self, version, vendor=Vendor.INTEL, dom0="pvh", command=ON, msix=None):
        raws = [
            device("00:00.0"),
            device(NIC, (BAR, 0x2000), driver="e1000e", command=command, msix=msix),
            device(DISK, (0xFE10_0000, 0x1000), driver="ahci", command=ON),
        ]
        served = Coverage(functions=frozenset({S("00:00.0"), S(DISK)}), vendor=vendor)
        super().__init__(raws, version=version, dom0=dom0, coverage=served)
        self.engine = self.start()

    def does(self, *writes):
        for offset, value in writes:
            self.write(NIC, offset, 4 if offset >= 0x10 else 2, value)
        return [each for each in told(self.settle(self.engine)) if each[0] != "check-unmapped"]


@each_version
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_the_iommu_did_not_take_at_boot_is_mapped_by_pcipt(version, vendor):
    stage = Uncovered(version, vendor)
    assert stage.xen.devices[S(NIC)].owner == Owner(OwnerKind.DOMAIN, 0)
    assert not stage.xen.vpci.traps(S(NIC))
    assert stage.xen.vpci.traps(S(DISK))
    done = told(compare(stage.engine))
    assert done == [("map-mmio", f"0000:{NIC}", "done")]
    assert "setup-failed" in codes(stage.engine)
    right(stage)
    assert stage.does((0x10, ELSEWHERE)) == [
        ("unmap-mmio", f"0000:{NIC}", "done"), ("map-mmio", f"0000:{NIC}", "done"),
    ]  # fmt: skip
    right(stage)
    assert stage.does((COMMAND, OFF)) == [("unmap-mmio", f"0000:{NIC}", "done")]
    right(stage)


@each_version
@pytest.mark.parametrize("vendor", VENDORS)
def test_its_msix_pages_are_mapped_as_well(version, vendor):
    """Xen has no record of the tables, and traps no access to them."""
    stage = Uncovered(version, vendor, msix=(0, 0x1000, 0x1800))
    assert told(compare(stage.engine)) == [("map-mmio", f"0000:{NIC}", "done")]
    right(stage)


def test_a_restarted_service_knows_it_again():
    stage = Uncovered((4, 20, 0))
    compare(stage.engine)
    stage.xen.prints(f"setup 0000:{NIC} for d0 failed (-19)")  # the console is read from its beginning
    stage.engine = stage.start()
    assert compare(stage.engine) == []
    assert stage.does((COMMAND, OFF)) == [("unmap-mmio", f"0000:{NIC}", "done")]
    right(stage)


def test_a_pv_dom0_has_no_map_and_is_told_all_the_same():
    stage = Uncovered((4, 20, 0), dom0="pv")
    assert compare(stage.engine) == []
    assert "setup-failed" in codes(stage.engine)


def test_a_function_that_comes_back_is_set_up_anew():
    stage = Uncovered((4, 20, 0), command=OFF)
    compare(stage.engine)
    assert stage.engine.memory.given_up
    raw = stage.files.raws[S(NIC)]
    stage.xen._list.iommu = Coverage(segments=range(1))  # the firmware's table cannot change; the test's can
    stage.pull(NIC)
    stage.settle(stage.engine)
    stage.plug(raw)
    stage.settle(stage.engine)
    compare(stage.engine)
    assert not stage.engine.memory.given_up
    assert "setup-failed" not in codes(stage.engine)


def unmap_fails(stage):
    """Let vPCI fail to unmap the NIC's pages: it does not trap the function any more (4.17, 4.18)."""
    stage.does((COMMAND, OFF))
    stage.xen.vpci.remove(S(NIC))
    stage.xen.prints("Failed to identity unmap [fe000, fe001] for d0: -22")
    compare(stage.engine)


def everything_served(version):
    stage = Uncovered(version)
    stage.xen.vpci.begin(S(NIC))
    stage.xen.vpci.finish(S(NIC))
    stage.xen.console()
    compare(stage.engine)
    assert not stage.engine.memory.given_up
    return stage


@gives_up
def test_what_vpci_gave_up_after_a_failed_unmap_is_mapped_by_pcipt(version):
    stage = everything_served(version)
    unmap_fails(stage)
    assert stage.does((COMMAND, ON)) == [("map-mmio", f"0000:{NIC}", "done")]
    right(stage)


@survives
def test_where_vpci_survives_a_failed_unmap_it_maps_again(version):
    stage = everything_served(version)
    stage.does((COMMAND, OFF))
    stage.xen.prints("Failed to unmap [fe000 fe001] -> [fe000 fe001] for d0: -22")
    compare(stage.engine)
    assert stage.does((COMMAND, ON)) == []
    right(stage)
