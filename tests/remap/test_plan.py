import pytest

from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.plan import expected_view, plan_announcements
from pcipt.remap.view import XenView, disagreements, ghosts, missing
from tests.machines import ari_port, bridge, function, machine
from tests.remap.devices import map_of

S = parse_sbdf


def known(*addresses, **more):
    return XenView(frozenset(map(S, addresses)), **more)


MACHINE = machine(
    function("00:00.0"),
    bridge("00:1c.0", 1, 2),
    function("01:00.0", parent="00:1c.0"),
    function("01:00.1", parent="00:1c.0", physfn="01:00.0"),
)


def test_views_that_agree_need_nothing():
    assert plan_announcements(MACHINE, known(*map(str, MACHINE.functions))) == ()


def test_bridges_and_physical_functions_come_first():
    plan = plan_announcements(MACHINE, known("00:00.0"))
    assert [str(action.sbdf) for action in plan] == ["0000:00:1c.0", "0000:01:00.0", "0000:01:00.1"]
    assert all(isinstance(action, AddDevice) and action.reason for action in plan)
    assert plan[2].physfn == S("01:00.0")
    assert [action.extended for action in plan] == [False, False, False]


def test_an_orphan_is_announced_again_with_another_reason():
    view = known(*map(str, MACHINE.functions), orphans=frozenset({S("01:00.0")}))
    (action,) = plan_announcements(MACHINE, view)
    assert action.sbdf == S("01:00.0")
    assert "without an owner" in action.reason


def test_ghosts_leave_before_anything_comes_children_first():
    removed = {S("05:00.0"), S("04:00.0")}
    plan = plan_announcements(MACHINE, known("00:00.0", "04:00.0", "05:00.0"), removed=removed)
    assert [(type(a), str(a.sbdf)) for a in plan[:2]] == [
        (RemoveDevice, "0000:05:00.0"),
        (RemoveDevice, "0000:04:00.0"),
    ]
    assert all(isinstance(action, AddDevice) for action in plan[2:])


def test_a_ghost_that_nobody_saw_leaving_stays():
    view = known(*map(str, MACHINE.functions), "04:00.0")
    assert ghosts(MACHINE, view) == [S("04:00.0")]
    assert plan_announcements(MACHINE, view) == ()


def test_the_view_that_is_expected_after_a_plan():
    view = known("00:00.0", "04:00.0")
    plan = plan_announcements(MACHINE, view, removed={S("04:00.0")})
    assert expected_view(view, plan).known == frozenset(MACHINE.functions)
    assert expected_view(view, ()) == view


def test_only_limits_the_plan():
    assert [str(a.sbdf) for a in plan_announcements(MACHINE, known(), only={S("00:1c.0")})] == [
        "0000:00:1c.0"
    ]


def test_only_limits_removals_and_moves_as_well():
    gone, moved = {S("04:00.0"), S("05:00.0")}, {S("01:00.0"): S("07:00.0")}
    view = known(*map(str, MACHINE.functions), "04:00.0", "05:00.0", "08:00.0")
    told = {S("06:00.0"): (S("08:00.0"),)}
    plan = plan_announcements(MACHINE, view, removed=gone, only={S("04:00.0")}, moves=moved, followed=told)
    assert [(type(action), str(action.sbdf)) for action in plan] == [(RemoveDevice, "0000:04:00.0")]
    whole = plan_announcements(MACHINE, view, removed=gone, moves=moved, followed=told)
    assert {str(action.sbdf) for action in whole} == {
        "0000:05:00.0", "0000:04:00.0", "0000:08:00.0", "0000:07:00.0", "0000:01:00.0",
    }  # fmt: skip


def test_an_address_to_which_buses_lead_is_no_ghost():
    """Xen lists 07:00.0 and 08:00.0 for functions that Linux has elsewhere."""
    view = known(*map(str, MACHINE.functions), "07:00.0", "08:00.0")
    gone = {S("07:00.0"), S("08:00.0")}
    moves, told = {S("01:00.0"): S("07:00.0")}, {S("01:00.1"): (S("08:00.0"),)}
    plan = plan_announcements(MACHINE, view, removed=gone, moves=moves, followed=told)
    assert all("left the machine" not in action.reason for action in plan)


def test_other_actions_do_not_change_the_view_that_is_expected():
    view = known("00:00.0")
    assert expected_view(view, [map_of("00_00.0", 0xE000_0000, 1, sbdf="00:00.0")]) == view


def test_a_segment_xen_cannot_name_is_never_wanted():
    vmd = machine(function("10000:00:00.0"))
    assert missing(vmd, known()) == []


@pytest.mark.parametrize(
    ("port", "address", "extended"),
    [
        (ari_port("00:1c.0", 1, 1), "01:01.0", True),  # slot bits set behind a forwarding port
        (ari_port("00:1c.0", 1, 1), "01:00.1", False),  # below 8 it is an ordinary function
        (bridge("00:1c.0", 1, 1), "01:01.0", False),  # an ordinary bridge: a real second device
    ],
)
def test_extended_functions(port, address, extended):
    there = machine(port, function(address, parent="00:1c.0"))
    (action,) = plan_announcements(there, known("00:1c.0"))
    assert action.extended is extended


def test_disagreements_name_each_kind():
    view = known("00:00.0", "01:00.0", "04:00.0", "05:00.0", orphans=frozenset({S("01:00.0")}),
                 elsewhere={S("05:00.0"): "domain 3"})  # fmt: skip
    found = [(str(sbdf), finding.code) for sbdf, finding in disagreements(MACHINE, view)]
    assert found == [
        ("0000:00:1c.0", "unknown-to-xen"),
        ("0000:01:00.0", "orphan"),
        ("0000:01:00.1", "unknown-to-xen"),
        ("0000:04:00.0", "ghost"),
        ("0000:05:00.0", "ghost"),
    ]
    assert "domain 3" in disagreements(MACHINE, view)[-1][1].text


def test_a_ghost_without_an_owner_is_told_with_its_danger():
    view = known("00:00.0", "00:1c.0", "01:00.0", "01:00.1", "04:00.0", "05:00.0", orphans={S("05:00.0")})
    plain, orphan = (finding.text for _, finding in disagreements(MACHINE, view))
    assert "orphan" not in plain
    assert "without an owner (orphan). Under Xen before 4.19.0 do not plug a device in" in orphan
