"""Functions that dom0 has without vPCI, by what Xen says of them: pcipt maps their BARs."""

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.pci.notation.next_steps import next_step
from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, codes, compare, dry_run, rests, right, told, work_off
from tests.xen.devices import device, port
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


@each_version
def test_where_only_a_phantom_function_failed_vpci_handles_the_function(version):
    """AMD-Vi without an entry for the phantom's id: Xen prints the function's address, and goes on."""
    stage = Uncovered(version, Vendor.AMD)
    stage.xen.prints(f"setup 0000:{DISK} for d0 failed (-1)")
    assert S(DISK) in stage.xen.devices
    assert told(compare(stage.engine)) == [("map-mmio", f"0000:{NIC}", "done")]
    texts = {str(sbdf)[5:]: each.text for sbdf, each in stage.engine.findings if each.code == "setup-failed"}
    assert "phantom" in texts[DISK]
    assert "phantom" not in texts[NIC]
    right(stage)


@each_version
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_nobody_is_told_to_remove_what_xen_would_not_take_again(version, dom0):
    """Who does it all the same gets a function without an owner, whose removal makes an old Xen panic."""
    stage = Uncovered(version, dom0=dom0, command=OFF)
    compare(stage.engine)
    (text,) = [each.text for _, each in stage.engine.findings if each.code == "setup-failed"]
    assert "do not remove the function" in text
    assert "rescan" not in next_step("setup-failed", NIC)
    raw = stage.files.raws[S(NIC)]
    stage.pull(NIC)
    stage.plug(raw)
    assert stage.xen.devices[S(NIC)].owner == Owner(OwnerKind.NOBODY)


def test_a_restarted_service_knows_it_again():
    stage = Uncovered((4, 20, 0))
    compare(stage.engine)
    stage.xen.prints(f"setup 0000:{NIC} for d0 failed (-19)")  # the console is read from its beginning
    stage.engine = stage.start()
    assert compare(stage.engine) == []
    assert stage.does((COMMAND, OFF)) == [("unmap-mmio", f"0000:{NIC}", "done")]
    right(stage)


@each_version
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_restarted_service_knows_it_when_the_console_has_lost_it(version, vendor, dom0):
    """pcipt's own questions do that: each prints a line for every function."""
    stage = Uncovered(version, vendor, dom0=dom0)
    compare(stage.engine)
    for _ in range(2):
        stage.engine = stage.start()  # the console has nothing that was read before
        assert compare(stage.engine) == []
        assert "setup-failed" in codes(stage.engine)
        assert S(NIC) in stage.engine.memory.unserved
    if dom0 == "pvh":
        assert stage.does((COMMAND, OFF)) == [("unmap-mmio", f"0000:{NIC}", "done")]
        assert stage.does((COMMAND, ON)) == [("map-mmio", f"0000:{NIC}", "done")]
        right(stage)
    stage.pull(NIC)
    stage.settle(stage.engine)
    assert not stage.engine.ledger.complaints
    assert "setup-failed" not in codes(stage.engine)


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


@gives_up
@pytest.mark.parametrize("decodes", [False, True])
def test_what_vpci_gave_up_is_known_when_the_console_has_lost_it(version, decodes):
    stage = everything_served(version)
    unmap_fails(stage)
    if decodes:
        stage.does((COMMAND, ON))
    for _ in range(2):
        stage.engine = stage.start()  # the console has nothing that was read before
        assert compare(stage.engine) == []
        assert "given-up" in codes(stage.engine)
    (done,) = stage.does((COMMAND, OFF if decodes else ON))
    assert done == ("unmap-mmio" if decodes else "map-mmio", f"0000:{NIC}", "done")
    right(stage)


@survives
def test_where_vpci_survives_a_failed_unmap_it_maps_again(version):
    stage = everything_served(version)
    stage.does((COMMAND, OFF))
    stage.xen.prints("Failed to unmap [fe000 fe001] -> [fe000 fe001] for d0: -22")
    compare(stage.engine)
    assert stage.does((COMMAND, ON)) == []
    right(stage)


PORT, CARD, CARD_BAR = "00:1c.0", "02:00.0", 0xC010_0000
DOM0, GUEST, QUARANTINE = Owner(OwnerKind.DOMAIN, 0), Owner(OwnerKind.DOMAIN, 1), Owner(OwnerKind.QUARANTINE)


class Returned(BusStage):
    """A machine on which a card returned to dom0 while nothing answered, because its bus was renumbered."""

    def __init__(
        self, version, owner=GUEST, dom0="pvh", settings=None, message=True, driver=None, returns=True
    ):
        raws = [port(PORT, 2, 9, command=0), device(CARD, (CARD_BAR, 0x4000), parent=PORT, command=ON)]
        super().__init__(raws, version=version, dom0=dom0, settings=settings)
        self.engine = self.start()
        compare(self.engine)
        self.number(3)
        self.hands(owner, "pciback")
        self.settle(self.engine)
        if returns:
            self.hands(DOM0, driver, message=message)
            self.number(2)

    @property
    def readings(self):
        return [call.op for call in self.xen.calls].count(Op.CONSOLE)

    def number(self, secondary):
        self.write(PORT, 0x18, 4, secondary << 8 | 9 << 16)

    def hands(self, owner, driver, *, message=True):
        self.xen.give(S(CARD), owner)
        self.files.raws[S(CARD)] = attrs.evolve(self.files.raws[S(CARD)], driver=driver)
        if message:
            self.hotplug.push("bind" if driver else "unbind", S(CARD))

    def rest(self):
        outcomes = self.settle(self.engine)
        while not rests(self.engine):
            self.time += self.engine.next_due()
            outcomes += work_off(self.engine)
        return told(outcomes)

    def switches(self, command):
        self.write(CARD, COMMAND, 2, command)
        return [word for word, _, _ in self.rest()]


@survives
@pytest.mark.parametrize("owner", [GUEST, QUARANTINE])
def test_what_vpci_could_not_be_set_up_for_on_its_return_is_mapped_by_pcipt(version, owner):
    stage = Returned(version, owner)
    assert not stage.xen.vpci.traps(S(CARD))
    stage.rest()
    assert codes(stage.engine) == {"given-up"}
    assert health_of(stage.engine) == "degraded"
    right(stage)
    assert compare(stage.engine) == []
    assert codes(stage.engine) == {"given-up"}
    assert stage.switches(OFF) == ["unmap-mmio"]
    right(stage)
    stage.engine = stage.start()  # Xen says it only once
    compare(stage.engine)
    assert stage.switches(ON) == ["map-mmio"]
    right(stage)
    assert codes(stage.engine) == {"given-up"}


@survives
def test_it_is_over_when_the_function_returns_as_it_should(version):
    stage = Returned(version)
    stage.rest()
    stage.hands(GUEST, "pciback")
    stage.rest()
    stage.hands(DOM0, None)
    stage.rest()
    assert stage.xen.vpci.traps(S(CARD))
    assert (codes(stage.engine), health_of(stage.engine)) == (set(), "healthy")
    assert stage.switches(OFF) == stage.switches(ON) == []
    right(stage)


@survives
def test_it_is_over_when_linux_finds_the_function_anew(version):
    stage = Returned(version)
    stage.rest()
    raw = stage.files.raws[S(CARD)]
    stage.pull(CARD)
    stage.rest()
    stage.plug(raw)
    stage.rest()
    assert (codes(stage.engine), health_of(stage.engine)) == (set(), "healthy")
    right(stage)


@survives
def test_a_dry_run_leaves_what_xen_has_said_to_the_service(version):
    stage = Returned(version)
    before = stage.readings
    dry_run(stage.engine)
    assert stage.readings == before
    stage.rest()
    assert codes(stage.engine) == {"given-up"}
    right(stage)


@survives
@pytest.mark.parametrize("owner", [GUEST, QUARANTINE])
@pytest.mark.parametrize("driver", [None, "pciback"])
def test_what_the_timer_hears_before_any_message_is_kept_until_the_owner_is_asked(version, owner, driver):
    """The line is newer than the last answer about the owner."""
    timer = Settings(list_s=0, faults_s=10, owners_s=3600)
    stage = Returned(version, owner, settings=timer, message=False, driver=driver)
    assert not stage.engine.view.in_dom0(S(CARD))
    stage.time += 10
    work_off(stage.engine)
    assert stage.engine.view.in_dom0(S(CARD))
    assert "given-up" in codes(stage.engine)
    right(stage)


@survives
def test_what_is_said_while_pcipt_acts_for_another_function_is_kept_as_well(version):
    """The console is read after the action, and tells of a function that has no message yet."""
    stage = Returned(
        version, settings=Settings(list_s=0, faults_s=0, owners_s=3600), message=False, driver="pciback"
    )
    stage.xen.forget(S(PORT))
    stage.write(PORT, COMMAND, 2, ON)
    assert ("add-device", f"0000:{PORT}", "done") in told(stage.settle(stage.engine))
    assert stage.engine.view.in_dom0(S(CARD))
    assert "given-up" in codes(stage.engine)
    right(stage)


@survives
def test_a_service_that_starts_before_the_line_was_read_has_the_doubt(version):
    stage = Returned(version)
    stage.source.read()
    stage.hotplug.read()
    stage.engine = stage.start()
    compare(stage.engine)
    stage.rest()
    assert (codes(stage.engine), health_of(stage.engine)) == ({"given-up"}, "degraded")
    right(stage)
    assert stage.engine.memory.told_given_up  # so no MSI-X page would be mapped


@survives
def test_what_is_said_right_after_the_answer_about_the_owner_is_kept(version):
    stage = Returned(version, message=False, driver="pciback", returns=False)
    console = stage.xen.console

    def meanwhile():
        stage.xen.console = console
        stage.xen.give(S(CARD), DOM0)
        return console()

    stage.xen.console = meanwhile
    stage.hotplug.push("change", S(CARD))
    stage.settle(stage.engine)
    assert stage.engine.view.in_dom0(S(CARD))
    stage.number(2)
    stage.rest()
    assert "given-up" in codes(stage.engine)
    right(stage)


@survives
def test_a_return_that_the_iommu_refused_leaves_the_function_to_the_guest(version):
    """What the line says of vPCI is over when the guest has the function, and returns it as it should."""
    stage = Returned(
        version, settings=Settings(list_s=0, faults_s=10, owners_s=3600), message=False, returns=False
    )
    stage.number(2)
    stage.xen.prints(f"d1: deassign (0000:{CARD}) failed (-22)")
    stage.time += 10
    work_off(stage.engine)
    assert not stage.engine.memory.ledger.given_up
    stage.hands(DOM0, None)
    stage.rest()
    assert stage.xen.vpci.traps(S(CARD))
    assert "given-up" not in codes(stage.engine)
    right(stage)


@gives_up
def test_where_vpci_keeps_its_record_nothing_is_to_be_done(version):
    stage = Returned(version)
    stage.rest()
    assert stage.xen.vpci.traps(S(CARD))
    assert (codes(stage.engine), health_of(stage.engine)) == (set(), "healthy")
    right(stage)


def test_on_pv_nothing_is_given_up():
    stage = Returned((4, 20, 0), dom0="pv")
    stage.xen.prints(f"d1: deassign (0000:{CARD}) failed (-19)")
    stage.rest()
    assert not stage.engine.memory.ledger.given_up
    assert "given-up" not in codes(stage.engine)


@survives
def test_the_simulated_xen_prints_what_it_could_not_set_up(version):
    stage = Returned(version, QUARANTINE)
    assert stage.xen.console().endswith(f"d[IO]: deassign (0000:{CARD}) failed (-95)\n")
