"""Functions that a release of Xen cannot take: not tried again and again, told, not counted as added."""

from errno import ENODEV

import attrs
import pytest

from pcipt.daemon.control.status import health_of, status_to_json
from pcipt.engine.performer import _read_back
from pcipt.pci import Ids, Resource
from pcipt.remap.actions import AddDevice, Outcome, Result
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, compare, told, work_off
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.versions import VERSIONS

PHYSFN, VF, NIC = "02:00.0", "02:00.4", "02:01.0"
REFUSING = [(4, 19, 4), (4, 19, 5), (4, 19, 6), (4, 20, 2), (4, 20, 3), (4, 20, 4)]
TAKING = [(4, 17, 7), (4, 18, 6), (4, 19, 3), (4, 20, 1), (4, 21, 0), (4, 21, 2), (4, 22, 0)]
BUS = 0xFE20_0000


def stage_with(*raws, known=None, **more):
    machine = [device("00:00.0"), port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90)), *raws]
    stage = BusStage(machine, known=known, **more)
    stage.engine = stage.start()
    compare(stage.engine)
    return stage


def physical():
    sriov = (2, 4, 1, [(BUS + 0x10_0000, 0x4000)])
    return device(PHYSFN, (BUS, 0x4000), sriov=sriov, parent="00:1c.0")


def virtual(stage):
    """Switch the VFs of the physical function on, and give the first as Linux has it: MSI-X in BAR 0."""
    raw = device(VF, command=0, msix=(0, 0x1000, 0x2000), parent="00:1c.0")
    raw = attrs.evolve(raw, physfn=S(PHYSFN))
    stage.hardware.plug(raw)
    stage.hardware.write(S(PHYSFN), SRIOV_AT + 0x10, 2, 1)
    stage.hardware.write(S(PHYSFN), SRIOV_AT + 8, 2, 0x9)
    return raw


def counts(stage):
    told = status_to_json(stage.engine, stage.xen.identity, "enforce", {}, {})
    return told["counts"]["added_by_us"], told["counts"]["orphans"]


def wait(stage, seconds=3600):
    """Let time pass, with everything compared now and then."""
    outcomes = []
    for _ in range(6):
        stage.time += seconds / 6
        outcomes += work_off(stage.engine) + compare(stage.engine)
    return outcomes


def adds(stage):
    return [call for call in stage.xen.changes if call.op is Op.ADD]


def findings(stage, address):
    return {finding.code: finding.text for sbdf, finding in stage.engine.findings if sbdf == S(address)}


def with_virtual(version, dom0="pvh", *, orphan=False):
    stage = stage_with(physical(), version=version, dom0=dom0)
    stage.files.raws[S(VF)] = virtual(stage)
    if orphan:
        stage.xen.give(S(VF), Owner(OwnerKind.NOBODY))
    stage.hotplug.push("change", S(VF))
    stage.settle(stage.engine)
    return stage


@pytest.mark.parametrize("orphan", [False, True])
@pytest.mark.parametrize("version", REFUSING)
def test_a_virtual_function_with_msix_is_refused_and_told(version, orphan):
    """The kernel's own add has left an orphan, or none was made."""
    stage = with_virtual(version, orphan=orphan)
    wait(stage)
    assert adds(stage) == []
    text = findings(stage, VF)["orphan" if orphan else "unknown-to-xen"]
    assert "this Xen cannot handle a virtual function with MSI-X (Xen 4.21.0 adds it, without MSI-X)" in text
    assert counts(stage) == (0, int(orphan))
    assert health_of(stage.engine) == "degraded"


@pytest.mark.parametrize("version", TAKING)
def test_other_versions_take_it(version):
    stage = with_virtual(version)
    assert [call.result for call in adds(stage)] == [0]
    assert counts(stage) == (1, 0)


@pytest.mark.parametrize("version", REFUSING)
def test_a_pv_dom0_takes_it(version):
    stage = with_virtual(version, "pv")
    assert [call.result for call in adds(stage)] == [0]
    assert counts(stage) == (1, 0)


@pytest.mark.parametrize("version", REFUSING)
def test_msix_in_a_bar_without_an_address_is_added_when_it_has_one(version):
    """Linux announces a hot-plugged function before it gives it addresses: Xen answers EEXIST."""
    stage = stage_with(version=version)
    raw = device(NIC, (0, 0x4000), command=0, msix=(0, 0x1000, 0x2000), parent="00:1c.0")
    stage.plug(raw)
    assert stage.xen.devices[S(NIC)].owner.kind is OwnerKind.NOBODY
    stage.settle(stage.engine)
    assert adds(stage) == []
    assert "fixed in Xen 4.21.1 and 4.22.0" in findings(stage, NIC)["orphan"]
    stage.write(NIC, 0x10, 4, BUS)
    outcomes = stage.settle(stage.engine)
    assert ("add-device", f"0000:{NIC}", "done") in told([*outcomes, *wait(stage, 6)])
    assert counts(stage) == (1, 0)
    assert findings(stage, NIC) == {}


@pytest.mark.parametrize("version", [(4, 19, 0), (4, 20, 0), (4, 20, 4), (4, 21, 2), (4, 22, 0)])
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_adds_that_failed_are_not_counted(version, dom0):
    """Xen lists what a failed add has left, without an owner."""
    nobody = Owner(OwnerKind.NOBODY)
    stage = stage_with(version=version, dom0=dom0, coverage=Coverage(buses=frozenset({(0, 0)})))
    for address in ("02:00.0", "02:01.0"):
        stage.plug(device(address, (BUS, 0x4000), command=0, parent="00:1c.0"))
        assert stage.xen.devices[S(address)].owner == nobody
    stage.settle(stage.engine)
    wait(stage)
    assert len(adds(stage)) >= 2
    assert counts(stage) == (0, 2)
    assert "orphan" in findings(stage, "02:00.0")


@pytest.mark.parametrize("version", REFUSING)
def test_an_msix_table_over_ram_is_not_added(version):
    """A BAR that was not assigned yet holds whatever firmware left there."""
    stage = stage_with(version=version)
    raw = device(NIC, (0x20_0000, 0x4000), command=0, msix=(0, 0x1000, 0x2000), parent="00:1c.0")
    stage.plug(raw, announced=False)
    stage.settle(stage.engine)
    wait(stage, 60)
    assert adds(stage) == []
    assert "lies over RAM" in findings(stage, NIC)["unknown-to-xen"]
    stage.write(NIC, 0x10, 4, BUS)
    stage.settle(stage.engine)
    wait(stage, 6)
    assert [call.result for call in adds(stage)] == [0]


# Behind a bridge whose buses are renumbered nothing can be read: what Xen cannot take is known from before.


def renumbered(version, raw, dom0="pvh", *, restarted=False):
    """A function that Xen has, or not, at 02:xx.x, and the same after its bus got number 3."""
    coverage = Coverage(buses=frozenset((0, bus) for bus in range(5)))
    port_ = port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90), command=0)
    stage = BusStage(
        [device("00:00.0"), port_, attrs.evolve(physical(), config=asleep())],
        version=version, dom0=dom0, coverage=coverage,
    )  # fmt: skip
    if raw is None:
        stage.files.raws[S(VF)] = virtual(stage)
        stage.hotplug.push("change", S(VF))
    else:
        stage = BusStage([device("00:00.0"), port_, raw], version=version, dom0=dom0, coverage=coverage)
    stage.engine = stage.start()
    if raw is not None or not restarted:
        compare(stage.engine)
        wait(stage, 60)  # the store is written
    done = len(stage.xen.changes)
    stage.write("00:1c.0", 0x18, 4, 0x4_0300)
    if restarted:
        stage.engine = stage.start()
    stage.settle(stage.engine)
    wait(stage, 60)
    assert stage.xen.catastrophe is None
    orphans = [str(sbdf) for sbdf, each in stage.xen.devices.items() if each.owner.kind is OwnerKind.NOBODY]
    return orphans, [str(call.functions[0])[5:] for call in stage.xen.changes[done:] if call.op is Op.ADD]


def asleep():
    return physical().config[:4] + b"\0\0" + physical().config[6:]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("version", REFUSING)
def test_a_renumbered_virtual_function_with_msix_is_not_added(version, restarted):
    orphans, added = renumbered(version, None, restarted=restarted)
    assert orphans == []
    assert "03:00.4" not in added
    assert "03:00.0" in added


@pytest.mark.parametrize("version", [(4, 19, 3), (4, 20, 1), (4, 21, 2), (4, 22, 0)])
def test_other_versions_take_a_renumbered_virtual_function(version):
    orphans, added = renumbered(version, None)
    assert (orphans, "03:00.4" in added) == ([], True)


@pytest.mark.parametrize("version", REFUSING)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_renumbered_function_whose_msix_is_in_no_bar_is_not_added(version, restarted):
    raw = device("02:00.0", (BUS, 0x4000), msix=(3, 0, 0x800), parent="00:1c.0", command=0)
    assert renumbered(version, raw, restarted=restarted) == ([], [])


@pytest.mark.parametrize("version", [*REFUSING, *TAKING])
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_renumbered_cardbus_bridge_is_added_where_there_is_no_vpci(version, dom0, restarted):
    raw = device("02:01.0", header=2, command=0, class_code=0x060700, parent="00:1c.0")
    raw = attrs.evolve(raw, ids=Ids(class_code=0x060700))
    orphans, added = renumbered(version, raw, dom0, restarted=restarted)
    assert (orphans, added) == ([], ["03:01.0"] if dom0 == "pv" else [])


# ENODEV is the IOMMU's word, but not only


def enodev(version, *, sized, coverage=None):
    """Plug a NIC whose MSI-X table lies beyond the end of its BAR. pcipt knows that if Linux has sized it."""
    more = {} if coverage is None else {"coverage": coverage}
    stage = stage_with(version=version, **more)
    raw = device(NIC, (BUS, 0x1000), command=0, msix=(0, 0x1000, 0x2000), parent="00:1c.0")
    stage.plug(raw)
    if not sized:
        stage.files.raws[S(NIC)] = attrs.evolve(raw, resources=(Resource(0, 0, 0),) * 13)
    stage.settle(stage.engine)
    wait(stage, 60)
    return stage


@pytest.mark.parametrize("version", [*REFUSING, (4, 19, "4-qubes"), (4, 20, "2.1")])
def test_what_vpci_does_not_take_is_not_what_no_unit_serves(version):
    stage = enodev(version, sized=False)
    assert {call.result for call in adds(stage)} == {-ENODEV}
    assert stage.engine.memory.unserved == set()
    assert "no IOMMU unit" not in findings(stage, NIC)["orphan"]
    stage.files.raws[S(NIC)] = device(NIC, (BUS, 0x1000), command=0, msix=(0, 0, 0x800), parent="00:1c.0")
    stage.hardware.slot(S(NIC)).registers.data[0x44:0x4C] = stage.files.raws[S(NIC)].config[0x44:0x4C]
    compare(stage.engine)  # firmware of the device was mended: it is taken as soon as it can be
    assert counts(stage) == (1, 0)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version not in REFUSING])
def test_where_vpci_takes_all_structures_enodev_is_the_iommus_word(version):
    stage = enodev(version, sized=False, coverage=Coverage(buses=frozenset({(0, 0)})))
    assert stage.engine.memory.unserved == {S(NIC)}
    assert "no IOMMU unit serves it" in findings(stage, NIC)["orphan"]


@pytest.mark.parametrize("version", [(4, 20, 0), (4, 20, 4), (4, 21, 2), (4, 22, 0)])
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_virtual_function_without_its_physical_function_is_not_unserved(version, dom0):
    """Xen answers ENODEV and lists nothing: somebody has removed the physical function meanwhile."""
    stage = with_virtual((4, 20, 0) if dom0 == "pvh" else version, dom0)
    stage.xen.kernel_remove(S(VF))
    add = AddDevice(S(VF), "test", physfn=S(PHYSFN))
    outcome = Outcome(add, Result.FAILED, "ENODEV", errno=ENODEV)
    _read_back(outcome, stage.engine.views)
    assert stage.engine.memory.unserved == set()
