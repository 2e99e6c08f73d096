"""Functions that a release of Xen cannot take: not tried again and again, told, not counted as added."""

import attrs
import pytest

from pcipt.daemon.control.status import health_of, status_to_json
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, compare, told, work_off
from tests.xen.devices import SRIOV_AT, device, port

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
    assert "this Xen cannot take a virtual function with MSI-X (Xen 4.21.0 adds it, without MSI-X)" in text
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
    assert "mended in Xen 4.21.1 and 4.22.0" in findings(stage, NIC)["orphan"]
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
