"""Renumbered buses below nested bridges, and what fails on the way: no orphan, no ghost, nothing lost."""

import errno

import pytest

from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, S, compare, right, told, work_off
from tests.xen.devices import device, port

PORT, NIC, SWITCH, BELOW = "00:1c.0", "02:00.0", "02:01.0", "03:00.0"
VERSIONS = [(4, 17), (4, 20)]


def begun(version=(4, 17), *, driver=None, last=9):
    raws = [
        port(PORT, 2, last, command=0),
        device(NIC, (0xC010_0000, 0x4000), msix=(0, 0x1000, 0x1800), parent=PORT),
        port(SWITCH, 3, 3, command=2, parent=PORT),
        device(BELOW, (0xC011_0000, 0x1000), parent=SWITCH, driver=driver),
    ]
    stage = BusStage(raws, version=version, coverage=Coverage(buses=frozenset((0, bus) for bus in range(10))))
    engine = stage.start()
    compare(engine)
    return stage, engine


def renumber(stage, engine, bridge, secondary, subordinate):
    numbers = S(bridge).bus | secondary << 8 | subordinate << 16
    stage.write(bridge, 0x18, 4, numbers)
    outcomes = stage.settle(engine)
    assert stage.hardware.config(S(bridge))[0x18:0x1B] == numbers.to_bytes(3, "little")
    return told(outcomes)


def listed(stage):
    return {str(sbdf)[5:] for sbdf in stage.xen.devices}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_function_is_announced_on_a_bus_that_a_bridge_above_does_not_pass_on(version):
    stage, engine = begun(version)
    renumber(stage, engine, PORT, 2, 5)
    assert renumber(stage, engine, SWITCH, 7, 7) == []
    assert not any(call.op in (Op.ADD, Op.REMOVE) for call in stage.xen.calls)
    assert any("no bus number leads to the function" in finding.text for _, finding in engine.findings)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_function_below_two_renumbered_bridges_is_followed_and_comes_back(version):
    stage, engine = begun(version)
    renumber(stage, engine, PORT, 2, 5)
    renumber(stage, engine, SWITCH, 7, 7)
    renumber(stage, engine, PORT, 4, 7)
    assert listed(stage) == {PORT, "04:00.0", "04:01.0", "07:00.0"}
    assert stage.hardware.decodes_memory(S("07:00.0"))
    right(stage)
    renumber(stage, engine, PORT, 2, 9)
    renumber(stage, engine, SWITCH, 3, 3)
    assert listed(stage) == {PORT, NIC, SWITCH, BELOW}
    assert all(stage.hardware.decodes_memory(S(address)) for address in (NIC, SWITCH, BELOW))
    right(stage)
    assert engine.findings == []


def test_a_bridge_that_decodes_comes_back_as_it_went():
    stage, engine = begun()
    renumber(stage, engine, PORT, 4, 9)
    assert {SWITCH, BELOW} <= listed(stage)  # no bus leads behind it: children leave before their bridge
    renumber(stage, engine, PORT, 2, 9)
    assert listed(stage) == {PORT, NIC, SWITCH, BELOW}
    assert stage.hardware.decodes_memory(S(SWITCH))
    right(stage)


def test_pages_that_xen_traps_at_an_address_of_before_stay_unmapped():
    stage, engine = begun()
    renumber(stage, engine, PORT, 4, 5)
    stage.xen.fail(Op.ADD, errno.ENOMEM)
    renumber(stage, engine, PORT, 2, 9)
    assert "04:00.0" in listed(stage)
    assert stage.xen.catastrophe is None
    stage.time += 30
    work_off(engine)
    compare(engine)
    assert listed(stage) == {PORT, NIC, SWITCH, BELOW}
    right(stage)


def test_where_another_bridge_has_the_old_numbers_now_nothing_is_added():
    stage, engine = begun()
    stage.plug(port("00:1d.0", 0, 0, command=0), announced=True)
    stage.settle(engine)
    renumber(stage, engine, PORT, 5, 9)
    before = listed(stage)
    stage.write("00:1d.0", 0x18, 4, 0x3_0200)
    stage.write(PORT, 0x18, 4, 0x9_0700)
    outcomes = stage.settle(engine)
    assert {outcome.result.value for outcome in outcomes} <= {"failed", "refused"}
    assert "07:00.0" not in listed(stage)
    assert before - {"00:1d.0"} <= listed(stage)


def test_what_was_pulled_on_a_renumbered_bus_is_not_announced():
    stage, engine = begun((4, 20))
    stage.hardware.pull(S(NIC))
    done = renumber(stage, engine, PORT, 4, 9)
    assert ("add-device", "0000:04:00.0", "failed") in done
    assert not any(call.functions == (S("04:00.0"),) for call in stage.xen.changes)


def test_a_driver_that_needs_a_bridge_above_it_keeps_everything_as_it_is():
    stage, engine = begun(driver="nvme")
    assert {result for _, _, result in renumber(stage, engine, PORT, 4, 9)} == {"refused"}
    assert not any(call.op in (Op.ADD, Op.REMOVE) for call in stage.xen.calls)


def test_what_was_refused_at_one_number_ends_when_the_function_is_back_at_another():
    """Xen knows the functions at bus 04, where they return: what could not follow to bus 06 is over."""
    stage, engine = begun(last=4)
    renumber(stage, engine, PORT, 4, 6)
    before = engine.findings
    assert "refused" in {result for _, _, result in renumber(stage, engine, PORT, 6, 8)}
    assert "ghost" in {finding.code for _, finding in engine.findings}
    renumber(stage, engine, PORT, 4, 6)
    assert engine.findings == before
    assert engine._reconciler.open_actions.subjects == [S(SWITCH)]
    assert "ghost" not in {finding.code for _, finding in before}
