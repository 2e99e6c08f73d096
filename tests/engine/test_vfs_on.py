"""Physical functions that Xen is told of while virtual functions are on: no sizes, no MSI-X in guests."""

import struct

import attrs
import pytest

from pcipt.engine.queue import Reason
from pcipt.pci import Resource
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, codes, compare, look, settled, told
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.versions import BUILDS, EACH_RELEASE

RELEASES = [*EACH_RELEASE, *BUILDS]
PF, VF, MOVED = "02:00.0", "02:00.1", "04:00.0"
VFE, MSE, SIZE = 0x1, 0x8, 0x4000
BUSES = Coverage(buses=frozenset((0, bus) for bus in range(10)))


def physical(address=PF, *, control=VFE | MSE, **more):
    raw = device(
        address, (0xC010_0000, 0x4000), sriov=(2, 1, 1, [(0xC020_0000, SIZE, "64"), (0xC030_0000, 0x2000)]),
        parent="00:1c.0", **more,
    )  # fmt: skip
    data = bytearray(raw.config)
    struct.pack_into("<H", data, SRIOV_AT + 8, control)
    struct.pack_into("<H", data, SRIOV_AT + 0x10, 1 if control else 0)
    return attrs.evolve(raw, config=bytes(data))


def virtual(address=VF, of=PF):
    raw = device(address, command=0, parent="00:1c.0")
    config = b"\xff\xff\xff\xff" + raw.config[4:]
    lines = tuple(Resource(0, 0, 0) for _ in range(13))
    return attrs.evolve(raw, config=config, physfn=S(of), resources=lines)


def begun(version, dom0, *, control=VFE | MSE, known=("00:1c.0",), **more):
    raws = [port("00:1c.0", 2, 9), physical(control=control, **more)]
    raws += [virtual()] if control & VFE else []
    return BusStage(raws, known=known, version=version, dom0=dom0, coverage=BUSES)


def switch(stage, engine, *, on):
    """Switch the virtual functions as sriov_numvfs does."""
    at = PF
    if on:
        stage.write(at, SRIOV_AT + 0x10, 2, 1)
    stage.write(at, SRIOV_AT + 8, 2, VFE | MSE if on else 0)
    if on:
        stage.files.raws[S(VF)] = virtual()
        stage.xen.kernel_add(S(VF))
    else:
        del stage.files.raws[S(VF)]
        stage.xen.kernel_remove(S(VF))
    stage.hotplug.push("add" if on else "remove", S(VF))
    return told(stage.settle(engine))


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_it_is_announced_told_and_cured(version, dom0):
    stage = begun(version, dom0)
    engine = settled(stage)
    assert stage.xen.devices[S(PF)].owner.domain == 0
    assert stage.xen.devices[S(PF)].vf_sizes == {}
    ((sbdf, finding),) = [each for each in engine.findings if each[1].code == "vfs-unsized"]
    assert str(sbdf)[5:] == PF
    assert "sriov_numvfs" in finding.text
    assert ("add-device", f"0000:{PF}", "done") in switch(stage, engine, on=False)
    assert stage.xen.devices[S(PF)].vf_sizes == {0: SIZE, 2: 0x2000}
    assert "vfs-unsized" not in codes(engine)
    switch(stage, engine, on=True)
    compare(engine)
    assert "vfs-unsized" not in codes(engine)
    assert [call.functions for call in stage.xen.calls if call.op is Op.ADD].count((S(PF),)) == 2


@pytest.mark.parametrize("control", [VFE, MSE, VFE | MSE])
def test_either_bit_keeps_xen_from_sizing(control):
    stage = begun((4, 20, 4), "pv", control=control)
    engine = settled(stage)
    assert stage.xen.devices[S(PF)].vf_sizes == {}
    assert "vfs-unsized" in codes(engine)


def test_with_virtual_functions_off_there_is_nothing_to_tell():
    stage = begun((4, 20, 4), "pv", control=0)
    engine = settled(stage)
    assert stage.xen.devices[S(PF)].vf_sizes == {0: SIZE, 2: 0x2000}
    assert codes(engine) == set()


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_what_xen_knew_at_boot_is_sized(dom0):
    stage = begun((4, 17, 7), dom0, known=("00:1c.0", PF, VF))
    engine = settled(stage)
    assert stage.xen.devices[S(PF)].vf_sizes == {0: SIZE, 2: 0x2000}
    assert codes(engine) == set()


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_it_is_known_after_a_restart(version, dom0):
    stage = begun(version, dom0)
    settled(stage)
    engine = settled(stage)
    assert "vfs-unsized" in codes(engine)
    stage.write(PF, SRIOV_AT + 8, 2, 0)  # while the daemon is down
    stage.source.read()
    compare(stage.start())
    assert stage.xen.devices[S(PF)].vf_sizes == {0: SIZE, 2: 0x2000}


@pytest.mark.parametrize("version", [(4, 17, 7), (4, 20, 1), (4, 22, 0)])
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_renumbered_physical_function_is_told_too(version, dom0):
    stage = begun(version, dom0, known=("00:1c.0", PF, VF))
    engine = settled(stage)
    stage.write("00:1c.0", 0x18, 4, 0x09_04_00)
    stage.settle(engine)
    assert S(MOVED) in stage.xen.devices
    assert stage.xen.devices[S(MOVED)].vf_sizes == {}
    found = {str(sbdf): finding.text for sbdf, finding in engine.findings if finding.code == "vfs-unsized"}
    assert list(found) == [f"0000:{PF}"]
    assert "rescan" in found[f"0000:{PF}"]
    # Linux drops it, and finds it at its new address with VFs switched off: the kernel announces it again.
    for address in (VF, PF):
        del stage.files.raws[S(address)]
        stage.xen.kernel_remove(S(address))
        stage.hotplug.push("remove", S(address))
    stage.settle(engine)
    stage.hardware.write(S(MOVED), SRIOV_AT + 8, 2, 0)
    stage.files.raws[S(MOVED)] = physical(MOVED, control=0)
    stage.xen.kernel_add(S(MOVED))
    stage.hotplug.push("add", S(MOVED))
    stage.settle(engine)
    compare(engine)
    assert "vfs-unsized" not in codes(engine)


def test_virtual_functions_that_are_switched_on_meanwhile_are_noticed():
    stage = begun((4, 20, 4), "pv", control=0)
    engine = stage.start()
    compare(engine)
    stage.xen.forget(S(PF))
    engine.views.ask([S(PF)])
    stage.hardware.write(S(PF), SRIOV_AT + 0x10, 2, 1)
    stage.hardware.write(S(PF), SRIOV_AT + 8, 2, VFE | MSE)
    plan = engine.views.remembered()
    assert plan.machine.functions[S(PF)].sriov.vf_enable is False
    look(engine, [S(PF)], Reason.DIFFERENT)
    stage.time += 60
    look(engine, [S(PF)], Reason.DIFFERENT)
    assert stage.xen.devices[S(PF)].vf_sizes == {}
    assert "vfs-unsized" in codes(engine)


def test_a_failed_second_announcement_is_not_taken_for_a_cure():
    stage = begun((4, 17, 7), "pv")
    engine = settled(stage)
    stage.xen.fail(Op.ADD, 1)
    switch(stage, engine, on=False)
    assert "vfs-unsized" in codes(engine)
    stage.time += 3600
    engine.worker.work_off()
    assert stage.xen.devices[S(PF)].vf_sizes == {0: SIZE, 2: 0x2000}
    assert "vfs-unsized" not in codes(engine)
