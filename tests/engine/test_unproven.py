"""A function that came back from xen-pciback, and that vPCI may have forgotten: its BARs are mapped once."""

from errno import EBADF

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import CONSOLE, Reason
from pcipt.remap.desired import By
from pcipt.remap.life import State
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, codes, compare, dry_run, rests, right, told, work_off
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages

NIC, BAR = "02:00.0", 0xFE20_0000
COMMAND, ON = 0x04, 0x6
BUILT = [(4, 19, 0), (4, 19, 6), (4, 20, 0), (4, 20, 4), (4, 21, 2), (4, 22, 0)]
KEPT = [(4, 17, 7), (4, 18, 6)]
DOM0, QUARANTINE = Owner(OwnerKind.DOMAIN, 0), Owner(OwnerKind.QUARANTINE)
MAPPED = ("map-mmio", f"0000:{NIC}", "done")


class Away(BusStage):
    """A NIC that was bound to its driver, and is given to xen-pciback now."""

    def __init__(self, version, dom0="pvh", msix=None):
        raws = [
            device("00:00.0"),
            device(
                "00:02.0", (0xFD00_0000, 0x2000), driver="i915"
            ),  # with pages that a later service inherits
            port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90)),
            device(NIC, (BAR, 0x2_0000), parent="00:1c.0", driver="e1000e", command=ON, msix=msix),
        ]
        super().__init__(raws, version=version, dom0=dom0)
        self.engine = self.start()
        compare(self.engine)
        self.driver("pciback")
        self.rest()
        self.write(NIC, COMMAND, 2, 0)  # xen-pciback disables the function
        self.settle(self.engine)

    def driver(self, name):
        self.files.raws[S(NIC)] = attrs.evolve(self.files.raws[S(NIC)], driver=name)
        self.hotplug.push("bind" if name else "unbind", S(NIC))
        return self.settle(self.engine)

    def rest(self):
        outcomes = []
        while not rests(self.engine):
            self.time += self.engine.next_due()
            outcomes += work_off(self.engine)
        return outcomes

    def come_back(self):
        """Let Linux unbind xen-pciback, and the driver switch decode on while it is bound."""
        outcomes = self.driver(None) + self.rest()
        self.write(NIC, COMMAND, 2, ON)
        return told(outcomes + self.driver("e1000e") + self.rest())


@pytest.mark.parametrize("version", BUILT)
def test_after_a_failed_assignment_pcipt_maps_what_vpci_does_not(version):
    """assign_device has called vpci_deassign_device; its error path does not build vPCI anew."""
    stage = Away(version)
    stage.xen.vpci.remove(S(NIC))
    assert stage.come_back() == [MAPPED]
    right(stage)
    assert [run.by for run in stage.engine.ledger.mapped.of("00_1c.0-00_00.0")] == [By.XEN]
    assert codes(stage.engine) == set()


@pytest.mark.parametrize("version", BUILT)
def test_after_a_good_assignment_the_call_changes_nothing(version):
    stage = Away(version)
    stage.xen.give(S(NIC), QUARANTINE)
    stage.xen.give(S(NIC), DOM0)
    assert stage.come_back() == [MAPPED]
    right(stage)
    stage.write(NIC, COMMAND, 2, 0)  # vPCI unmaps it
    assert told(stage.settle(stage.engine)) == []
    right(stage)
    stage.write(NIC, COMMAND, 2, ON)
    assert told(stage.settle(stage.engine)) == []  # once
    right(stage)


@pytest.mark.parametrize("version", KEPT)
def test_where_vpci_is_kept_nothing_is_mapped(version):
    stage = Away(version)
    assert stage.come_back() == []
    right(stage)


def test_a_pv_dom0_has_no_vpci():
    stage = Away((4, 20, 4), "pv")
    assert {result for _, _, result in stage.come_back()} == {"not-applicable"}
    assert stage.engine.memory.unproven == set()


def test_it_waits_for_a_driver_that_switches_decode_on():
    stage = Away((4, 20, 4))
    stage.xen.vpci.remove(S(NIC))
    assert told(stage.driver(None) + stage.rest()) == []
    assert told(stage.driver("e1000e") + stage.rest()) == []
    stage.write(NIC, COMMAND, 2, ON)
    assert told(stage.settle(stage.engine)) == [MAPPED]
    right(stage)


def test_a_dry_run_leaves_it_to_be_done():
    stage = Away((4, 20, 4))
    stage.xen.vpci.remove(S(NIC))
    stage.driver(None)
    stage.rest()
    stage.write(NIC, COMMAND, 2, ON)
    stage.files.raws[S(NIC)] = attrs.evolve(stage.files.raws[S(NIC)], driver="e1000e")
    assert ("map-mmio", f"0000:{NIC}", "planned") in told(dry_run(stage.engine))
    stage.hotplug.push("bind", S(NIC))
    assert MAPPED in told(stage.settle(stage.engine))
    right(stage)


def test_a_map_that_fails_is_tried_again():
    stage = Away((4, 20, 4))
    stage.xen.vpci.remove(S(NIC))
    stage.xen.fail(Op.MAP, 16)
    assert stage.come_back() == [(*MAPPED[:2], "failed"), MAPPED]
    right(stage)


@pytest.mark.parametrize("version", [*KEPT, *BUILT])
def test_pages_of_a_function_that_a_guest_has_are_stale_where_vpci_has_forgotten_them(version):
    """Only a comparison of everything shows that the function was given away."""
    stage = Away(version)
    stage.write(NIC, COMMAND, 2, ON)  # xen-pciback leaves it decoding
    stage.settle(stage.engine)
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 3))
    compare(stage.engine)
    states = {run.state for run in stage.engine.ledger.mapped.of("00_1c.0-00_00.0")}
    assert states == {State.HELD if version in KEPT else State.STALE}


MSIX = (0, 0x1000, 0x2000)  # BAR, table, pending bits
PAGES = set(range(BAR >> 12, (BAR + 0x2_0000) >> 12))
TABLES = {(BAR >> 12) + 1, (BAR >> 12) + 2}


@pytest.mark.parametrize("version", BUILT)
def test_a_service_that_starts_before_the_driver_is_bound_maps_it_as_well(version):
    """Nothing shows that the function was away: so is each function without a driver."""
    stage = Away(version)
    stage.xen.vpci.remove(S(NIC))
    stage.driver(None)
    stage.rest()
    stage.engine = stage.start()
    compare(stage.engine)
    stage.write(NIC, COMMAND, 2, ON)
    assert told(stage.driver("e1000e") + stage.rest()) == [MAPPED]
    right(stage)


HEARD = ["at once", "on its return", "by a service that starts"]


@pytest.mark.parametrize("version", BUILT)
@pytest.mark.parametrize("heard", HEARD)
def test_a_function_that_could_not_be_given_away_may_have_no_vpci(version, heard):
    """Xen's console says that the assignment failed. pcipt maps the BARs, not the MSI-X pages: if vPCI was
    built anew since, it would trap nothing there any more.
    """
    stage = Away(version, msix=MSIX)
    stage.xen.vpci.not_assigned(S(NIC))
    if heard == HEARD[0]:
        stage.engine.add(CONSOLE, Reason.LISTEN)
        stage.time += 3600
        work_off(stage.engine)
    if heard == HEARD[2]:
        stage.engine = stage.start()
        compare(stage.engine)
    elif heard == HEARD[0]:
        assert codes(stage.engine) == {"assign-failed"}
    assert stage.come_back() == [MAPPED, MAPPED]
    for _ in range(2):
        assert mapped_pages(stage.xen) & PAGES == PAGES - TABLES
        ((text),) = [f.text for _, f in stage.engine.findings if f.code == "assign-failed"]
        assert "MSI and MSI-X fail; remove the function in sysfs" in text
        assert health_of(stage.engine) == "degraded"
        compare(stage.engine)


@pytest.mark.parametrize("version", BUILT)
@pytest.mark.parametrize("end", ["removed and added", "given away and back"])
def test_the_doubt_is_over_when_vpci_is_built_anew(version, end):
    stage = Away(version, msix=MSIX)
    stage.xen.vpci.not_assigned(S(NIC))
    stage.come_back()
    assert "assign-failed" in codes(stage.engine)
    if end == "removed and added":
        stage.write(NIC, COMMAND, 2, 0)
        stage.xen.kernel_remove(S(NIC))
        stage.driver(None)
        stage.rest()
    else:
        stage.driver("pciback")
        stage.rest()
        for owner in (Owner(OwnerKind.DOMAIN, 3), DOM0):
            stage.xen.give(S(NIC), owner)
            stage.hotplug.push("change", S(NIC))
            stage.settle(stage.engine)
            stage.rest()
        stage.driver(None)
    stage.rest()
    assert stage.xen.vpci.traps(S(NIC))
    assert "assign-failed" not in codes(stage.engine)
    assert not TABLES & mapped_pages(stage.xen)


@pytest.mark.parametrize("version", BUILT)
def test_a_broken_function_was_not_forgotten(version):
    stage = Away(version, msix=MSIX)
    stage.xen.prints(f"d4: assign (0000:{NIC}) failed ({-EBADF})")
    stage.come_back()
    assert stage.xen.vpci.traps(S(NIC))
    assert codes(stage.engine) == set()
    right(stage)


@pytest.mark.parametrize("version", KEPT)
def test_where_vpci_is_kept_a_failed_assignment_changes_nothing(version):
    stage = Away(version, msix=MSIX)
    stage.xen.vpci.not_assigned(S(NIC))
    assert stage.come_back() == []
    assert codes(stage.engine) == set()
    right(stage)


@pytest.mark.parametrize("version", [*KEPT, *BUILT])
@pytest.mark.parametrize("register", [(0x10, BAR + 0x10_0000), (COMMAND, 0)])
def test_what_left_and_returned_between_two_readings_keeps_no_page_that_it_does_not_need(version, register):
    """vPCI's new record has no page of the former one, which stay mapped."""
    nic = device(NIC, (BAR, 0x2_0000), parent="00:1c.0", command=2)
    stage = BusStage(
        [device("00:00.0"), port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90)), nic], version=version
    )
    stage.engine = stage.start()
    compare(stage.engine)
    (at, value), keeps = register, version in KEPT
    for owner, driver, word in ((Owner(OwnerKind.DOMAIN, 5), "pciback", "bind"), (DOM0, None, "unbind")):
        stage.xen.give(S(NIC), owner)
        if owner != DOM0 and not keeps:
            stage.hardware.write(S(NIC), COMMAND, 2, 0)
            stage.hardware.write(S(NIC), at, 4, value)
        stage.files.raws[S(NIC)] = attrs.evolve(stage.files.raws[S(NIC)], driver=driver)
        stage.hotplug.push(word, S(NIC))
    for _ in range(4):
        stage.settle(stage.engine)
        stage.time += 30.0
    right(stage)
    assert codes(stage.engine) == ({"bar-drift"} if at == 0x10 and not keeps else set())
