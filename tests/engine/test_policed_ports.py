"""What appears below a policed port never stays with dom0, until an administrator admits it."""

import struct

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine.queue import Reason
from pcipt.engine.views.policy.ports import admit
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.releases import DEVICE_RESET
from tests.engine.stage import BusStage, S, codes, compare, dry_run, look, told, work_off
from tests.machines import function
from tests.xen.devices import device, port
from tests.xen.versions import VERSIONS

PORT, OTHER, DISK = "00:1c.0", "00:1d.0", "06:00.0"
NIC, SWITCH, DEEP = "02:00.0", "02:00.0", "03:00.0"
PATH = "00_1c.0"
DOM0, QUARANTINE, GUEST = (
    Owner(OwnerKind.DOMAIN, 0), Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 3),
)  # fmt: skip
PV = {"dom0": "pv", "version": (4, 20)}


class Policed(BusStage):
    """A host with a policed port and another one; Linux does what the list of xen-pciback says."""

    def __init__(self, *, below=(PATH,), loaded=True, raws=(), **more):
        settings = Settings(list_s=0, faults_s=0, below=below, **more.pop("settings", {}))
        ports = [
            port(PORT, 2, 4, window=(0xFE20, 0xFE90)),
            port(OTHER, 5, 8, window=(0xFD20, 0xFD90)),
        ]
        super().__init__([*ports, *raws], settings=settings, **{**PV, **more})
        self.files.guarded = set() if loaded else None
        self.restart()

    def restart(self):
        self.engine = self.start()
        self.outcomes = compare(self.engine)

    def appear(self, raw, *, first=None, announced=True):
        """A function appears; `first` is the driver that was registered before xen-pciback and fits."""
        above = raw.parent
        while first is None and above is not None and self.files.guarded is not None:
            first = "pciback" if above in self.files.guarded else None
            above = self.files.raws[above].parent
        self.plug(attrs.evolve(raw, driver=first), announced=announced)

    def rest(self):
        """Let the daemon do what is due, and time pass until it has looked again."""
        self.outcomes = [*self.settle(self.engine)]
        for _ in range(4):
            self.time += 2
            self.outcomes += work_off(self.engine)
        return told(self.outcomes)

    def owner(self, address):
        return self.engine.view.owner(S(address))

    def driver(self, address):
        return self.files.raws[S(address)].driver


def nic(address=NIC, parent=PORT, at=0xFE20_0000, **more):
    return device(address, (at, 0x2_0000), parent=parent, command=0, **more)


def switch():
    return port(SWITCH, 3, 3, window=(0xFE20, 0xFE50), parent=PORT)


QUARANTINED = ("quarantine", "0000:02:00.0", "done")


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_port_is_guarded_before_anything_appears_unless_an_orphan_would_take_down_the_host(dom0, version):
    stage = Policed(dom0=dom0, version=version)
    safe = dom0 == "pv" or not DEVICE_RESET.of(stage.xen.identity.version)
    assert stage.files.guarded == ({S(PORT)} if safe else set())
    assert ("port-unguarded" in codes(stage.engine)) is not safe
    assert stage.xen.catastrophe is None


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", [None, "e1000e"])
def test_what_appears_is_announced_and_quarantined_and_waits(dom0, version, first):
    stage = Policed(dom0=dom0, version=version)
    stage.appear(nic(), first=first)
    assert QUARANTINED in stage.rest()
    assert (stage.owner(NIC), stage.driver(NIC)) == ("quarantine", "pciback")
    assert "waits-for-admit" in codes(stage.engine)
    assert S(NIC) in stage.engine.view.known
    assert stage.files.quarantined == [str(S(NIC))]
    assert stage.xen.catastrophe is None


def test_the_reason_says_which_driver_had_it_first():
    stage = Policed()
    stage.appear(nic(), first="e1000e")
    stage.rest()
    reasons = [outcome.action.reason for outcome in stage.outcomes if outcome.action.word == "quarantine"]
    assert reasons == [f"it appeared below the policed port {PATH}; the driver e1000e had it first"]


def test_with_the_port_in_its_list_xen_pciback_has_it_before_the_service_knows_of_it():
    stage = Policed()
    stage.appear(nic())
    assert stage.driver(NIC) == "pciback"


def test_what_is_behind_a_switch_below_the_port_is_quarantined_and_the_switch_is_not():
    stage = Policed()
    stage.appear(switch(), first="pcieport")
    stage.rest()
    stage.appear(nic(DEEP, SWITCH))
    assert ("quarantine", "0000:03:00.0", "done") in stage.rest()
    assert (stage.owner(DEEP), stage.owner(SWITCH)) == ("quarantine", "dom0")
    assert stage.files.quarantined == [str(S(DEEP))]


def test_what_xen_does_not_know_is_announced_first():
    stage = Policed()
    stage.appear(nic(), announced=False)
    words = [word for word, _, _ in stage.rest()]
    assert words[:2] == ["add-device", "quarantine"]
    assert stage.files.probed == []  # no driver of dom0 is looked for
    assert stage.owner(NIC) == "quarantine"


def test_below_a_port_that_is_not_policed_dom0_has_what_appears():
    stage = Policed()
    stage.appear(nic(DISK, OTHER, 0xFD20_0000), first="nvme")
    assert stage.rest() == []
    assert (stage.owner(DISK), stage.driver(DISK)) == ("dom0", "nvme")


def test_without_policy_nothing_is_asked_for_and_nothing_is_done():
    stage = Policed(below=())
    stage.appear(nic(), first="e1000e")
    assert stage.rest() == []
    assert stage.files.guarded == set()


@pytest.mark.parametrize(
    ("driver", "owner"), [("e1000e", "dom0"), (None, "quarantine"), ("pciback", "quarantine")]
)
def test_what_dom0_uses_when_the_policy_begins_stays_and_what_nobody_uses_does_not(driver, owner):
    """With the port in xen-pciback's option hide= it has at boot already what is there."""
    stage = Policed(raws=[nic(driver=driver)])
    stage.rest()
    assert stage.owner(NIC) == owner
    stage.restart()
    assert stage.owner(NIC) == owner


def test_what_appeared_while_no_service_ran_is_quarantined_at_the_start():
    stage = Policed()
    stage.engine.save()
    stage.appear(nic(), first="e1000e")
    stage.restart()
    stage.rest()
    assert (stage.owner(NIC), stage.driver(NIC)) == ("quarantine", "pciback")


def test_a_service_that_ends_between_appearing_and_quarantine_goes_on_at_the_next_start():
    stage = Policed()
    stage.files.xl_says = "it was killed"
    stage.appear(nic())
    assert ("quarantine", "0000:02:00.0", "failed") in stage.rest()
    assert codes(stage.engine) == {"not-quarantined"}
    stage.files.xl_says = None
    stage.restart()
    stage.rest()
    assert stage.owner(NIC) == "quarantine"
    assert codes(stage.engine) == {"waits-for-admit"}


def test_a_failure_is_told_once_and_tried_again_without_end():
    stage = Policed()
    stage.files.xl_says = "no"
    stage.appear(nic())
    assert stage.rest().count(("quarantine", "0000:02:00.0", "failed")) == 1
    stage.time += 3600
    work_off(stage.engine)
    stage.files.xl_says = None
    for _ in range(2):  # it is tried again, then looked at
        stage.time += 61
        work_off(stage.engine)
    assert stage.owner(NIC) == "quarantine"


def allow(stage, address, *, admitted=True):
    admit(stage.engine.views, stage.engine.machine.functions[S(address)], admitted=admitted)
    stage.engine.save()


def give_back(stage, address, driver):
    """Do what `pcipt admit` does with xl and sysfs."""
    allow(stage, address)
    stage.xen.give(S(address), DOM0)
    stage.files.raws[S(address)] = attrs.evolve(stage.files.raws[S(address)], driver=driver)
    stage.hotplug.push("bind", S(address))


def test_what_was_admitted_stays_with_dom0_and_its_driver_over_a_restart():
    stage = Policed()
    stage.appear(nic())
    stage.rest()
    give_back(stage, NIC, "e1000e")
    stage.rest()
    for _ in range(2):
        assert (stage.owner(NIC), stage.driver(NIC)) == ("dom0", "e1000e")
        assert codes(stage.engine) == set()
        stage.restart()
        stage.rest()


def test_an_admission_that_is_taken_back_quarantines_again():
    stage = Policed()
    stage.appear(nic())
    stage.rest()
    give_back(stage, NIC, "e1000e")
    stage.rest()
    allow(stage, NIC, admitted=False)
    look(stage.engine, [S(NIC)], Reason.REQUESTED)
    stage.rest()
    assert stage.owner(NIC) == "quarantine"


@pytest.mark.parametrize("restarted", [False, True])
def test_another_device_in_the_place_of_one_that_was_admitted_waits_again(restarted):
    stage = Policed()
    stage.appear(attrs.evolve(nic(), instance=1001))
    stage.rest()
    give_back(stage, NIC, "e1000e")
    stage.rest()
    stage.pull(NIC)
    stage.appear(attrs.evolve(nic(), instance=1002))  # equal but for its directory in sysfs
    if restarted:
        stage.restart()
    stage.rest()
    assert stage.owner(NIC) == "quarantine"
    assert "waits-for-admit" in codes(stage.engine)


def test_what_somebody_gives_back_to_dom0_without_admit_is_quarantined_again_and_told():
    stage = Policed()
    stage.appear(nic())
    stage.rest()
    stage.xen.give(S(NIC), DOM0)
    stage.files.raws[S(NIC)] = attrs.evolve(stage.files.raws[S(NIC)], driver="e1000e")
    stage.hotplug.push("bind", S(NIC))
    assert QUARANTINED in stage.rest()
    assert stage.owner(NIC) == "quarantine"


def test_what_a_guest_has_is_left_with_it():
    stage = Policed()
    stage.appear(nic())
    stage.rest()
    stage.xen.give(S(NIC), GUEST)
    look(stage.engine, [S(NIC)])
    assert stage.rest() == []
    assert stage.owner(NIC) == "guest 3"
    assert "waits-for-admit" not in codes(stage.engine)


@pytest.mark.parametrize(
    "settings",
    [{"mode": "observe"}, {"actions": {"quarantine": False, "guard-port": False}}, {"action": "tell"}],
    ids=["observe", "actions", "tell"],
)
def test_where_the_settings_forbid_it_it_is_only_told(settings):
    stage = Policed(settings=settings)
    stage.appear(nic(), first="e1000e")
    assert ("quarantine", "0000:02:00.0", "planned") in stage.rest()
    assert (stage.files.guarded, stage.files.quarantined) == (set(), [])
    assert {"not-quarantined", "port-unguarded"} <= codes(stage.engine)


def test_a_dry_run_plans_it_and_does_nothing():
    stage = Policed(settings={"mode": "observe"})
    stage.appear(nic(), first="e1000e")
    stage.settle(stage.engine)
    planned = told(dry_run(stage.engine))
    assert ("quarantine", "0000:02:00.0", "planned") in planned
    assert ("guard-port", "0000:00:1c.0", "planned") in planned
    assert stage.files.quarantined == []


def test_a_path_at_which_no_bridge_is_is_told_and_the_others_are_policed():
    stage = Policed(below=("00_1f.7", PATH))
    told_of = [finding.text for _, finding in stage.engine.findings if finding.code == "port-absent"]
    assert told_of == [
        "hotplug.below names 00_1f.7, but no bridge is at this path: pcipt polices nothing below it"
    ]
    assert stage.files.guarded == {S(PORT)}


def test_without_xen_pciback_the_open_port_is_told_and_what_appears_is_tried_all_the_same():
    stage = Policed(loaded=False)
    assert codes(stage.engine) == {"port-unguarded"}
    stage.files.guarded = set()
    compare(stage.engine)
    assert codes(stage.engine) == set()
    assert stage.files.guarded == {S(PORT)}


def test_a_port_that_is_policed_no_more_is_taken_out_of_the_list_and_only_what_pcipt_put_there():
    stage = Policed()
    stage.files.guarded.add(S(OTHER))  # by somebody else
    stage.engine.use(attrs.evolve(stage.settings, below=()))
    stage.engine.add_everything(Reason.SETTINGS)
    assert told(work_off(stage.engine)) == [("guard-port", "0000:00:1c.0", "done")]
    assert stage.files.guarded == {S(OTHER)}


def test_a_port_that_was_renumbered_is_guarded_at_its_new_address_only():
    """Another bridge may have the old address: what appears below it is not the policy's."""
    stage = Policed(below=("00_1c.0-00_00.0",), raws=[switch()])
    assert stage.files.guarded == {S(SWITCH)}
    stage.pull(SWITCH)
    raw = port("03:00.0", 4, 4, window=(0xFE20, 0xFE50), parent=PORT)
    stage.files.raws[S(PORT)] = port(PORT, 3, 4, window=(0xFE20, 0xFE90))
    stage.hardware.pull(S(PORT))
    stage.hardware.plug(stage.files.raws[S(PORT)])
    stage.plug(raw)
    stage.rest()
    compare(stage.engine)
    assert stage.files.guarded == {S("03:00.0")}


def test_virtual_functions_follow_their_physical_function():
    stage = Policed()
    stage.appear(nic())
    stage.rest()
    give_back(stage, NIC, "e1000e")
    stage.rest()
    stage.plug(function("02:00.1", parent=PORT, physfn=NIC, vendor=0xFFFF, device=0xFFFF))
    stage.rest()
    assert S("02:00.1") in stage.engine.machine.functions
    assert str(S("02:00.1")) not in stage.files.quarantined


def with_thunderbolt(raw):
    """Give a bridge the vendor-specific structure of a Thunderbolt controller."""
    data = bytearray(raw.config) + bytes(4096 - len(raw.config))
    struct.pack_into("<II", data, 0x100, 0x0001_000B, 0x0100_1234)
    return attrs.evolve(raw, config=bytes(data), ids=attrs.evolve(raw.ids, vendor=0x8086))


def waits(stage):
    return [finding.text for _, finding in stage.engine.findings if finding.code == "waits-for-admit"]


def test_a_thunderbolt_port_is_named_as_such():
    stage = Policed(raws=[with_thunderbolt(switch())])
    stage.appear(nic(DEEP, SWITCH))
    stage.rest()
    assert [text.partition(" and ")[0] for text in waits(stage)] == [
        f"it appeared below the policed Thunderbolt port {PATH}"
    ]


def test_a_usb4_port_is_named_as_such():
    stage = Policed()
    stage.files.usb4.append(str(S(PORT)))
    stage.appear(nic())
    stage.rest()
    assert [text.partition(" and ")[0] for text in waits(stage)] == [
        f"it appeared below the policed USB4 port {PATH}"
    ]


def test_any_other_port_is_just_a_port():
    stage = Policed(raws=[switch()])
    stage.appear(nic(DEEP, SWITCH))
    stage.rest()
    assert [text.partition(" and ")[0] for text in waits(stage)] == [
        f"it appeared below the policed port {PATH}"
    ]
