"""Functions of which Xen is told late: drivers with dead interrupts, drivers that gave up, what ends it."""

import errno

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.errors import InputError
from pcipt.pci import Resource
from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.releases import NEWEST
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage
from tests.engine.stage import BusStage, S, codes, compare, dry_run, rests, told, work_off
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.versions import BUILDS

NIC = "02:00.0"
RELEASES = [*(tuple(map(int, branch.split("."))) for branch in NEWEST), *BUILDS]
SAFE = (4, 19)  # before, a failed add would panic the host (UNFINISHED_MAP_PANICS)
DOM0, NOBODY = Owner(OwnerKind.DOMAIN, 0), Owner(OwnerKind.NOBODY)


def host_bridge(vendor):
    """Give the function by which the vendor of the machine's IOMMU is known."""
    raw = device("00:00.0", vendor={Vendor.INTEL: 0x8086, Vendor.AMD: 0x1022}[vendor])
    config = raw.config[:0x0A] + b"\x00\x06" + raw.config[0x0C:]
    return attrs.evolve(raw, config=config, ids=attrs.evolve(raw.ids, class_code=0x06_0000))


class Plugged(BusStage):
    """A stage into which a NIC is plugged; its add by the kernel was in vain, and a driver may be bound."""

    def __init__(
        self, driver, *, orphan=True, vendor=Vendor.INTEL, coverage=EVERYTHING, version=(4, 20), **more
    ):
        raws = [host_bridge(vendor), port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90))]
        super().__init__(raws, version=version, coverage=attrs.evolve(coverage, vendor=vendor), **more)
        self.engine = self.start()
        compare(self.engine)
        assert codes(self.engine) == set()
        self.plug(device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0", driver=driver), announced=False)
        if orphan:
            self.xen.give(S(NIC), NOBODY)
        self.outcomes = self.settle(self.engine)

    def bind(self, driver):
        self.files.raws[S(NIC)] = attrs.evolve(self.files.raws[S(NIC)], driver=driver)

    def message(self, word, driver):
        self.bind(driver)
        self.hotplug.push(word, S(NIC))
        return self.settle(self.engine)

    def rebind(self, driver="nvme"):
        """Unbind and bind as a user does: both messages have come before the service looks."""
        self.hotplug.push("unbind", S(NIC))
        self.message("bind", driver)
        self.rest()

    def rest(self):
        while not rests(self.engine):
            self.time += self.engine.next_due()
            work_off(self.engine)

    def restart(self):
        self.engine = self.start()
        compare(self.engine)


@pytest.fixture(params=["pv", "pvh"])
def dom0(request):
    return request.param


@pytest.mark.parametrize(
    ("vendor", "orphan"), [(Vendor.INTEL, True), (Vendor.INTEL, False), (Vendor.AMD, True)]
)
@pytest.mark.parametrize("version", RELEASES)
def test_a_bound_driver_is_told_to_be_bound_anew(version, vendor, dom0, orphan):
    stage = Plugged("nvme", orphan=orphan, version=version, dom0=dom0, vendor=vendor)
    if dom0 == "pvh" and version < SAFE:  # it is not added as long as its driver is bound
        assert told(stage.outcomes)[0] == ("add-device", f"0000:{NIC}", "refused")
        assert codes(stage.engine) == {"orphan" if orphan else "unknown-to-xen"}
        stage.message("unbind", None)
        stage.rest()
        assert stage.xen.devices[S(NIC)].owner == DOM0
        assert stage.files.probed == [f"0000:{NIC}"]  # which binds the driver anew
        assert codes(stage.engine) == set()
        return
    assert ("add-device", f"0000:{NIC}", "done") in told(stage.outcomes)
    assert stage.xen.devices[S(NIC)].owner == DOM0
    ((sbdf, finding),) = stage.engine.findings
    assert (sbdf, finding.code) == (S(NIC), "late-add")
    assert "its driver nvme started before Xen knew the function" in finding.text
    assert "its driver nvme started before" in finding.text
    assert health_of(stage.engine) == "degraded"
    stage.rest()
    assert codes(stage.engine) == {"late-add"}
    assert stage.files.probed == []
    stage.rebind()
    assert codes(stage.engine) == set()
    assert health_of(stage.engine) == "healthy"


@pytest.mark.parametrize("owner", [Owner(OwnerKind.DOMAIN, 1), Owner(OwnerKind.QUARANTINE)])
@pytest.mark.parametrize("whole", [False, True])
def test_a_late_driver_is_forgotten_when_xen_pciback_has_the_function(owner, whole):
    stage = Plugged("nvme", dom0="pv")
    assert codes(stage.engine) == {"late-add"}
    stage.xen.give(S(NIC), owner)
    if whole:
        stage.bind("pciback")
        compare(stage.engine)
    else:
        stage.message("bind", "pciback")
    assert stage.engine.ledger.late() == {}


@pytest.mark.parametrize("version", RELEASES)
def test_a_function_without_a_driver_is_probed_again(version, dom0):
    """The driver's probe failed, because the kernel's add was answered with an error."""
    stage = Plugged(None, version=version, dom0=dom0)
    assert stage.files.probed == [f"0000:{NIC}"]
    stage.rest()
    stage.message("bind", "nvme")
    assert stage.files.probed == [f"0000:{NIC}"]  # once
    assert codes(stage.engine) == set()


def test_xen_has_it_before_it_is_probed(dom0):
    stage = Plugged("nvme", dom0=dom0)
    owners = []
    stage.pull(NIC, announced=False)
    stage.settle(stage.engine)
    stage.xen.forget(S(NIC))
    stage.files.probe = lambda sbdf: owners.append(stage.xen.devices[sbdf].owner)
    stage.engine = stage.start()
    compare(stage.engine)
    stage.plug(device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0"), announced=False)
    stage.settle(stage.engine)
    assert owners == [DOM0]


def test_the_setting_switches_probing_off():
    assert Plugged(None, settings=Settings(probe=False)).files.probed == []


def test_observing_nothing_is_added_and_nothing_probed():
    stage = Plugged(None, settings=Settings("observe"))
    assert stage.files.probed == []
    assert "orphan" in codes(stage.engine)


def test_a_dry_run_probes_nothing():
    stage = Plugged(None, settings=Settings("observe"))
    stage.settings = stage.engine.settings = Settings()
    assert "add-device" in {word for word, _, _ in told(dry_run(stage.engine))}
    assert stage.files.probed == []


def test_what_the_kernel_announced_itself_is_not_late(dom0):
    stage = BusStage([device("00:00.0"), port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90))], dom0=dom0)
    engine = stage.start()
    compare(engine)
    stage.plug(device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0", driver="nvme"))
    stage.settle(engine)
    assert codes(engine) == set()
    assert stage.files.probed == []


def test_a_failed_add_is_not_late(dom0):
    stage = Plugged(None, dom0=dom0, version=(4, 20), coverage=Coverage(buses=frozenset({(0, 0)})))
    stage.rest()
    assert stage.xen.devices[S(NIC)].owner == NOBODY
    assert stage.files.probed == []
    assert "late-add" not in codes(stage.engine)


def test_a_driver_that_gives_up_later_is_asked_for_again():
    """Linux shows the driver while its probe is going on, and sends no message if the probe fails."""
    stage = Plugged("nvme")
    assert stage.engine.next_due() == 1.0
    stage.bind(None)
    stage.time += 1.0
    work_off(stage.engine)
    assert stage.files.probed == [f"0000:{NIC}"]
    assert codes(stage.engine) == set()
    stage.rest()
    assert stage.files.probed == [f"0000:{NIC}"]


def test_what_its_user_unbound_is_not_probed():
    stage = Plugged("nvme")
    stage.message("unbind", None)
    stage.rest()
    assert codes(stage.engine) == set()
    assert stage.files.probed == []


def test_another_driver_was_bound_later():
    stage = Plugged("nvme")
    stage.bind("vfio-pci")
    compare(stage.engine)
    assert codes(stage.engine) == set()


def test_xen_pciback_has_no_interrupts_and_is_not_replaced(dom0):
    stage = Plugged("pciback", dom0=dom0, orphan=False)
    assert stage.xen.devices[S(NIC)].owner == DOM0
    assert "late-add" not in codes(stage.engine)
    assert stage.files.probed == []


def test_a_restart_remembers_it():
    stage = Plugged("nvme")
    stage.restart()
    assert codes(stage.engine) == {"late-add"}
    stage.rebind()
    assert codes(stage.engine) == set()
    stage.time += 10
    work_off(stage.engine)  # the ledger is written
    stage.restart()
    assert codes(stage.engine) == set()


def test_a_service_that_was_killed_before_it_asked_linux_asks_at_its_next_start():
    def killed(_sbdf):
        raise KeyboardInterrupt

    stage = Plugged("nvme")
    stage.pull(NIC, announced=False)
    stage.settle(stage.engine)
    stage.xen.forget(S(NIC))
    compare(stage.engine)
    stage.files.probe, probe = killed, stage.files.probe
    stage.plug(device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0"), announced=False)
    with pytest.raises(KeyboardInterrupt):
        stage.settle(stage.engine)
    stage.files.probe = probe
    stage.restart()
    assert stage.files.probed == [f"0000:{NIC}"]


def test_it_ends_with_the_function(dom0):
    stage = Plugged("nvme", dom0=dom0)
    stage.pull(NIC)
    stage.settle(stage.engine)
    stage.rest()
    assert codes(stage.engine) == set()


def test_a_driver_that_was_bound_right_before_the_add_is_late():
    """The plan was made without it; the guards read the function again right before the add."""
    stage = Plugged(None, settings=Settings("observe"))
    read = stage.host.read_function

    def reading(sbdf):
        if len(reads) == 1:
            stage.bind("nvme")
        reads.append(sbdf)
        return read(sbdf)

    reads = []
    stage.engine.settings = Settings()
    stage.host.read_function = reading
    stage.hotplug.push("change", S(NIC))
    stage.settle(stage.engine)
    assert codes(stage.engine) == {"late-add"}


def test_linux_that_cannot_be_asked_is_told():
    stage = Plugged("nvme")
    stage.pull(NIC, announced=False)
    stage.settle(stage.engine)
    stage.xen.forget(S(NIC))
    compare(stage.engine)

    def failing(_sbdf):
        raise InputError("drivers_probe", "no such file")

    stage.files.probe = failing
    stage.plug(device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0"), announced=False)
    (outcome,) = [each for each in stage.settle(stage.engine) if each.action.word == "add-device"]
    assert outcome.detail == "Linux cannot find a driver: drivers_probe: no such file"


def test_only_the_add_says_that_linux_cannot_be_asked():
    """pcipt also maps the BAR of this virtual function, in the same round."""
    physfn = device("00:05.0", (0xFE10_0000, 0x1000), sriov=(3, 0x80, 1, [(0xFE14_0000, 0x2000)]))
    stage = BusStage([device("00:00.0"), physfn], dom0="pvh")
    engine = stage.start()
    stage.write("00:05.0", SRIOV_AT + 0x10, 2, 1)  # NumVFs
    stage.write("00:05.0", SRIOV_AT + 8, 2, 0x9)  # VF Enable, VF Memory Enable
    compare(engine)

    def failing(_sbdf):
        raise InputError("drivers_probe", "no such file")

    stage.files.probe = failing
    virtual = S("00:15.0")
    lines = (Resource(0, 0, 0),) * 13
    stage.files.raws[virtual] = attrs.evolve(physfn, sbdf=virtual, resources=lines, physfn=S("00:05.0"))
    stage.hotplug.push("add", virtual)
    assert [(each.action.word, each.detail) for each in stage.settle(engine)] == [
        ("add-device", "Linux cannot find a driver: drivers_probe: no such file"),
        ("map-mmio", ""),
    ]


def test_an_add_that_fails_once_is_followed_when_it_holds(dom0):
    stage = Plugged(None, dom0=dom0, settings=Settings("observe"))
    stage.engine.settings = Settings()
    stage.xen.fail(Op.ADD, errno.ENOMEM)
    stage.hotplug.push("change", S(NIC))
    stage.settle(stage.engine)
    assert stage.files.probed == []
    stage.rest()
    assert stage.files.probed == [f"0000:{NIC}"]
