"""What Xen has of an accepted table: the unit and the reserved memory of each function."""

import pytest

from pcipt.firmware.acceptance.amd_state import Record, Runs
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Sbdf, parse_sbdf
from pcipt.pci.requester import Requester
from pcipt.xen.releases import parse_version
from tests.firmware.acceptance.cases import HOLE, MEMORY, TAKEN, amd, block, unit
from tests.firmware.reserved_tables import dmar, drhd, ivhd, madt, rmrr, scope, select, span, special

NIC, PORT = parse_sbdf("00:19.0"), parse_sbdf("00:1c.0")
BEHIND = parse_sbdf("02:00.0")
BOOT = BootSnapshot("", frozenset({NIC, PORT, BEHIND}), {PORT: (2, 3)})
BRIDGE = scope(0, (0x1C, 0), kind=2)


def vtd_state(*entries):
    found = judge([dmar(*entries), madt()], MEMORY, parse_version("4.20.4"), BOOT)
    assert found.said == ()
    return found.state


@pytest.mark.parametrize(
    ("requester", "base"),
    [
        (Requester(NIC), 0x2000),  # two units name it: the later one in the table is looked at first
        (Requester(PORT), 0x3000),  # a bridge scope names the bridge itself
        (Requester(BEHIND), 0x3000),
        (Requester(Sbdf(0, 3, 0x1F, 7)), 0x3000),  # up to the subordinate bus
        (Requester(Sbdf(0, 4, 0, 0)), 0x1000),
        (Requester(Sbdf(0, 9, 0x10, 0), NIC), 0x2000),  # a virtual function as its physical one
        (Requester(Sbdf(0, 0, 0x1B, 1), extended=True), 0x1000),  # ARI: device 0, function 0 of its bus
        (Requester(Sbdf(1, 0, 0x19, 0)), None),  # no unit in its segment
    ],
)
def test_the_unit_of_a_function_by_vtd(requester, base):
    named = scope(0, (0x19, 0))
    state = vtd_state(
        drhd(base=0x1000),
        drhd(named, base=0x4000, flags=0),
        drhd(named, base=0x2000, flags=0),
        drhd(BRIDGE, base=0x3000, flags=0),
    )
    unit_found = state.unit_of(requester)
    assert (unit_found.base if unit_found is not None else None) == base


def test_a_path_is_followed_through_the_bridges_and_masked():
    state = vtd_state(
        drhd(),
        rmrr(TAKEN, TAKEN + 0xFFF, scope(0, (0x1C, 0), (0, 0))),
        rmrr(HOLE, HOLE + 0xFFF, scope(0, (0x39, 8))),
    )
    assert [(region.served, region.base) for region in state.regions] == [((BEHIND,), TAKEN), ((NIC,), HOLE)]
    assert [int(frames.start) for frames in state.regions_of(NIC)] == [HOLE >> 12]


@pytest.mark.parametrize(
    ("base", "limit", "count"),
    [(TAKEN, TAKEN + 0xFFF, 1), (TAKEN, TAKEN + 0x1000, 1), (TAKEN, TAKEN + 0x1001, 2), (TAKEN, TAKEN, 0)],
)
def test_the_last_page_of_a_region(base, limit, count):
    found = vtd_state(drhd(), rmrr(base, limit, scope(0, (0x19, 0)))).regions_of(NIC)
    assert sum(frames.count for frames in found) == count


def test_what_is_not_kept_has_nobody():
    state = vtd_state(drhd(), rmrr(TAKEN, TAKEN + 0xFFF, scope(0, (5, 0))), rmrr(HOLE, HOLE + 0xFFF))
    assert state.regions == ()


def test_host_bridge_ends_the_list_of_a_region():
    first = scope(0, (0, 0))
    boot = BootSnapshot("", frozenset({Sbdf(0, 0, 0, 0), NIC}), {})
    table = dmar(drhd(), rmrr(TAKEN, TAKEN + 0xFFF, first, scope(0, (0x19, 0))))
    state = judge([table, madt()], MEMORY, parse_version("4.20.4"), boot).state
    assert state.regions[0].served == ()
    assert state.regions_of(NIC) == ()


def amd_state(*blocks, units):
    found = judge(amd(*blocks, units=units).tables, MEMORY, parse_version("4.20.4"))
    assert found.said == ()
    return found.state


def test_units_of_functions_by_amd():
    units = [unit(span(0x10, 0x18)), ivhd(select(0x18), select(0x101), device=3)]
    state = amd_state(units=units)
    found = {
        name: state.unit_of(parse_sbdf(name))
        for name in ("00:02.0", "00:02.7", "00:03.0", "00:03.1", "01:00.1", "01:00.0", "00:00.2", "7f:00.0")
    }
    devices = {name: each.device if each is not None else None for name, each in found.items()}
    assert devices == {
        "00:02.0": 2, "00:02.7": 2, "00:03.0": 3,  # the last block counts
        "00:03.1": 3,  # as function 0
        "01:00.1": 3, "01:00.0": None, "00:00.2": None, "7f:00.0": None,
    }  # fmt: skip


def test_memory_of_a_function_that_takes_over_function_0():
    state = amd_state(block(first=0x18), units=[unit(select(0x18), special(0x28, variety=2))])
    both = [state.regions_of(parse_sbdf(name)) for name in ("00:03.0", "00:03.5")]
    assert both[0] == both[1] != ()
    assert state.blocks_of(0x18) == state.kept
    assert state.regions_of(parse_sbdf("00:05.0")) == ()


def test_runs_split_and_keep_their_records():
    runs = Runs(0x20)
    mark = Record(unit=7)
    runs.update(4, 0x1F, lambda _: mark)
    runs.update(8, 8, lambda _: Record())
    assert list(runs.runs(3, 9)) == [(3, 3, Record()), (4, 7, mark), (8, 8, Record()), (9, 9, mark)]
    assert [runs.at(routing).unit for routing in (0, 4, 8, 9, 0x1F)] == [None, 7, None, 7, 7]
    assert list(runs.runs(0x1F, 0x1F)) == [(0x1F, 0x1F, mark)]
