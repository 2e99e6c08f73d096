"""Functions behind VMD controllers: segments that Xen cannot name, and Linux that cuts them to 16 bits."""

import attrs
import pytest

from pcipt.daemon.control.status import cut_to_json
from pcipt.firmware.passthrough import function as rules
from pcipt.firmware.passthrough.verdict import CutSegment
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.remap.desired import By
from pcipt.remap.mapped_pages import MappedRun
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.engine.stage import BusStage, compare, right, settled, told
from tests.firmware.passthrough_cases import evidence_of, said_by
from tests.vmd import MEMORY, controller, disk, port, vmd_machine
from tests.xen.versions import BUILDS, EACH_RELEASE

RELEASES = [*EACH_RELEASE, *BUILDS]
DISK, PORT, VMD, CUT = "10000:e1:00.0", "10000:e0:06.0", "0000:00:0e.0", "0000:e1:00.0"
S = parse_sbdf


def pages(engine, place=None):
    return {(str(run.sbdf), run.bar, run.by) for run in engine.ledger.mapped if place in (None, run.place)}


def stage_of(raws, version, dom0="pvh", *, cuts=False):
    """Give a machine whose VMD driver was bound after boot: only then Linux announces the functions."""
    stage = BusStage(raws, version=version, dom0=dom0, cuts_segments=cuts)
    for raw in raws:
        if not raw.sbdf.fits_xen:
            stage.xen.kernel_add(raw.sbdf)
    return stage


def findings(engine, code="orphan"):
    return [(str(sbdf), finding.text) for sbdf, finding in engine.findings if finding.code == code]


# Mappings.


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("segment", ["10000", "10001", "2ffff", "fffffff0"])
def test_no_page_inside_a_controller_has_a_second_owner(version, segment):
    raws = [attrs.evolve(raw, sbdf=S(str(raw.sbdf).replace("10000", segment)),
                         parent=S(str(raw.parent).replace("10000", segment)) if raw.parent else None)
            for raw in vmd_machine()]  # fmt: skip
    stage = stage_of(raws, version)
    engine = settled(stage)
    assert stage.changes == []
    assert pages(engine) == {(VMD, bar, By.XEN) for bar in (0, 2, 4)}
    right(stage)
    assert list(engine.findings) == []


@pytest.mark.parametrize("version", RELEASES)
def test_functions_are_plugged_and_unplugged_without_a_call(version):
    raws = vmd_machine()
    stage = stage_of(raws[:-1], version)
    engine = settled(stage)
    for _ in range(2):
        stage.plug(disk(at=MEMORY + 0x4_0000))
        stage.settle(engine)
        stage.pull(DISK)
        stage.settle(engine)
    assert stage.changes == []
    assert pages(engine) == {(VMD, bar, By.XEN) for bar in (0, 2, 4)}
    right(stage)


def test_several_controllers_and_a_bar_outside_of_them():
    other = 0xD800_0000
    raws = [*vmd_machine(), controller("80:00.5", at=other),
            port("10001:80:05.0", 0x8A, at=other, below="80:00.5"),
            disk("10001:8a:00.0", "10001:80:05.0", at=other),
            disk("10001:8a:00.1", "10001:80:05.0", at=0xDF00_0000)]  # fmt: skip
    stage = stage_of(raws, (4, 17, 7))
    engine = settled(stage)
    assert stage.changes == []
    assert {sbdf for sbdf, _, _ in pages(engine)} == {VMD, "0000:80:00.5"}
    assert [(domain.segment, str(domain.controller)) for domain in engine.views.state.domains()] == [
        (0x10000, VMD), (0x10001, "0000:80:00.5"),
    ]  # fmt: skip


def test_a_controller_that_vpci_does_not_handle_is_mapped_whole_by_pcipt():
    stage = BusStage(vmd_machine(), known=["00:00.0"], version=(4, 17, 7))
    engine = settled(stage)  # vmd needs memory decode: this Xen cannot be told of the controller now
    assert pages(engine) == {(VMD, bar, By.US) for bar in (0, 2, 4)}
    right(stage)
    assert engine.explain(S(DISK)).mapped_by is By.US


def test_a_page_that_was_recorded_for_a_function_inside_is_the_controllers_alone():
    stage = stage_of(vmd_machine(), (4, 17, 7))
    engine = stage.start()
    path, inside = "10000_e0_06.0-00_00.0", Frames(Gfn(MEMORY >> 12), 0x40)
    engine.ledger.mapped.put(MappedRun(path, S(DISK), 0, inside, By.US, "2026-01-01T00:00:00Z"))
    assert told(compare(engine)) == []
    assert stage.changes == []
    assert pages(engine, path) == set()
    right(stage)


@pytest.mark.parametrize("below", ["00:0e.0", None])
def test_the_explanation_names_the_controller_and_who_maps_it(below):
    stage = stage_of(vmd_machine(below=below), (4, 17, 7))
    engine = settled(stage)
    found = engine.explain(S(DISK))
    assert (str(found.inside), found.mapped_by, found.steps) == (VMD, By.XEN, ())
    assert "VMD" in found.desired.untrapped


# Linux that cuts segments.


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_orphans_of_cut_segments_are_told_of_the_controller(version, dom0):
    stage = stage_of(vmd_machine(), version, dom0, cuts=True)
    engine = settled(stage)
    ((subject, text),) = findings(engine)
    assert subject == VMD
    assert "0000:e0:06.0" in text
    assert VMD in text
    assert ("panics" in text) is (version < (4, 19))
    assert findings(engine, "ghost") == []
    assert engine.ghosts == []
    assert stage.changes == []
    assert [each.panics for each in engine.views.cut_orphans()] == [version < (4, 19)]


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_check_refuses_the_controller_where_its_release_would_panic(version, dom0):
    """By what `pcipt status` tells, as `pcipt check` and `pcipt release` read it."""
    engine = settled(stage_of(vmd_machine(), version, dom0, cuts=True))
    (told_of,) = [cut_to_json(each) for each in engine.views.cut_orphans()]
    assert told_of["sbdf"] == VMD
    cut = {S(told_of["sbdf"]): CutSegment(told_of["text"], told_of["panics"])}
    evidence = evidence_of(*vmd_machine(), cut_segments=cut)
    verdict = "refuse" if version < (4, 19) else "warn"
    assert said_by(rules.cut_segments, VMD, evidence) == ({"vmd-orphans": verdict}, [])


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_the_host_dies_when_the_driver_is_unbound_and_only_then(version, dom0):
    """What the refusal of a release keeps the administrator from."""
    stage = stage_of(vmd_machine(), version, dom0, cuts=True)
    engine = settled(stage)
    if version < (4, 19):
        with pytest.raises(Catastrophe):
            stage.pull(DISK)
        return
    for address in (DISK, PORT):
        stage.pull(address)
        stage.settle(engine)
    assert S(CUT) not in stage.xen.devices
    assert findings(engine) == []
    assert findings(engine, "ghost") == []


@pytest.mark.parametrize("version", RELEASES)
def test_an_orphan_that_linux_left_behind_is_removed_where_that_is_safe(version):
    stage = stage_of(vmd_machine(), version, cuts=True)
    engine = settled(stage)
    stage.pull(DISK, announced=False)
    stage.settle(engine)
    compare(engine)
    left = S(CUT) in stage.xen.devices
    assert left is (version < (4, 19))
    assert stage.xen.catastrophe is None
    assert [change[:2] for change in stage.changes] == ([] if left else [("REMOVE", CUT)])


@pytest.mark.parametrize("version", RELEASES)
def test_it_is_not_removed_while_linux_has_the_function(version):
    stage = stage_of(vmd_machine(), version, cuts=True)
    engine = settled(stage)
    engine.memory.removed.add(S(CUT))
    assert told(compare(engine)) == [("remove-device", CUT, "refused")]
    assert stage.changes == []


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_a_function_plugged_behind_the_controller_is_told_at_once(version, dom0):
    stage = stage_of(vmd_machine()[:-1], version, dom0, cuts=True)
    engine = settled(stage)
    ((_, before),) = findings(engine)
    stage.plug(disk())
    stage.settle(engine)
    ((subject, text),) = findings(engine)
    assert subject == VMD
    assert "1 more" in text
    assert "more" not in before


@pytest.mark.parametrize("version", RELEASES)
def test_a_real_function_at_the_cut_address_is_announced_again(version):
    real = attrs.evolve(disk("0000:e1:00.0", None, at=0xF000_0000), driver=None)
    stage = stage_of([*vmd_machine(), real], version, cuts=True)
    engine = settled(stage)
    assert [subject for subject, _ in findings(engine)] == [VMD]  # of the port alone
    stage.pull(DISK)  # Linux tells Xen that 0000:e1:00.0 has left
    assert real.sbdf not in stage.xen.devices
    stage.settle(engine)
    assert stage.xen.devices[real.sbdf].owner.domain == 0
    right(stage)


def test_a_kernel_that_cuts_nothing_announces_nothing():
    stage = stage_of(vmd_machine(), (4, 17, 7))
    assert {str(sbdf) for sbdf in stage.xen.devices} == {"0000:00:00.0", VMD}
    identity = XenIdentity("4.17.7", Dom0Kind.PV)
    assert SimulatedXen(stage.hardware, identity).kernel_remove(S(DISK)) == -22
