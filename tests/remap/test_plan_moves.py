"""Renumbered buses: where functions are, and how Xen follows."""

import attrs
import pytest

from pcipt.pci import decode_machine
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.plan import plan_announcements
from pcipt.remap.plan_moves import find_moves, parents_first, plan_moves, subtree, top_of_move
from pcipt.remap.view import disagreements
from tests.machines import ari_port, bridge, function
from tests.remap.devices import S, gone, known

NIC = function("02:00.0", parent="00:1c.0")


def renumbered(secondary, linux=2, last=0x0A, **more):
    """A root port whose registers pass on from `secondary` while Linux counts from `linux`."""
    return attrs.evolve(bridge("00:1c.0", secondary, last, **more), secondary=linux)


def shown(moves):
    return {str(linux): now and str(now) for linux, now in moves.items()}


def steps(plan):
    found = []
    for action in plan:
        other = action.moved_from if isinstance(action, AddDevice) else action.moved_to
        found.append((action.word, str(action.sbdf), str(other or "")))
    return found


MOVED = decode_machine([renumbered(5), gone(NIC)])
SWITCH = bridge("02:00.0", 3, 4, parent="00:1c.0")
BELOW = function("03:00.0", parent="02:00.0")
SWITCH_AT_7 = attrs.evolve(bridge("02:00.0", 7, 7, parent="00:1c.0"), secondary=3)
NESTED = decode_machine([renumbered(5), gone(attrs.evolve(SWITCH, secondary=3)), gone(BELOW)])

FOUND = [
    (decode_machine([bridge("00:1c.0", 2, 2), NIC]), {}, {}),  # all is where Linux has it
    (MOVED, {}, {"0000:02:00.0": "0000:05:00.0"}),
    # it answers at Linux's number, whatever the register says
    (decode_machine([renumbered(5), NIC]), {}, {}),
    # it cannot be read at all: nobody knows
    (decode_machine([renumbered(5), attrs.evolve(NIC, config=None)]), {}, {}),
    # it does not answer, and the numbers are Linux's: it is leaving
    (decode_machine([renumbered(2), gone(NIC)]), {}, {}),
    # the bridge passes nothing on
    (decode_machine([renumbered(0), gone(NIC)]), {}, {"0000:02:00.0": None}),
    # the second bus behind the bridge would be above ff
    (decode_machine([renumbered(0xFF, last=0xFF), gone(function("03:00.0", parent="00:1c.0"))]), {},
     {"0000:03:00.0": None}),
    # behind a moved switch nothing is known of its own register, unless it was seen
    (NESTED, {}, {"0000:02:00.0": "0000:05:00.0", "0000:03:00.0": None}),
    (NESTED, {"00_1c.0-00_00.0": (6, 6)},
     {"0000:02:00.0": "0000:05:00.0", "0000:03:00.0": "0000:06:00.0"}),
    # no bridge above passes the bus on: hardware is not reached there
    (decode_machine([renumbered(2, last=5), SWITCH_AT_7, gone(BELOW)]), {}, {"0000:03:00.0": None}),
    (decode_machine([renumbered(4, last=5), gone(SWITCH_AT_7), gone(BELOW)]), {"00_1c.0-00_00.0": (7, 7)},
     {"0000:02:00.0": "0000:04:00.0", "0000:03:00.0": None}),
    (decode_machine([renumbered(2, last=7), SWITCH_AT_7, gone(BELOW)]), {},
     {"0000:03:00.0": "0000:07:00.0"}),
    # the numbers are Linux's, but the port above has closed itself for them
    (decode_machine([renumbered(2, last=2), SWITCH, gone(BELOW)]), {}, {"0000:03:00.0": None}),
    # its bus is not below the bridge's own
    (decode_machine([renumbered(5), gone(SWITCH), gone(BELOW)]), {"00_1c.0-00_00.0": (5, 5)},
     {"0000:02:00.0": "0000:05:00.0", "0000:03:00.0": None}),
    # the second bus behind the bridge is not passed on
    (decode_machine([renumbered(5, last=5), gone(function("03:00.0", parent="00:1c.0"))]), {},
     {"0000:03:00.0": None}),
    # the same, where the other one begins with this bus
    (decode_machine([renumbered(5), gone(NIC), bridge("00:1d.0", 5, 6)]), {}, {"0000:02:00.0": None}),
    # a bridge beside it whose numbers nobody knows claims nothing
    (decode_machine([renumbered(5), gone(NIC), gone(bridge("00:1d.0", 3, 9))]), {},
     {"0000:02:00.0": "0000:05:00.0"}),
    # two bridges claim the bus: which of them answers nobody can tell
    (decode_machine([renumbered(5), gone(NIC), bridge("00:1d.0", 4, 6)]), {}, {"0000:02:00.0": None}),
    # a bridge that leads nowhere takes with it what is behind it
    (decode_machine([renumbered(0), gone(attrs.evolve(SWITCH, secondary=3)), gone(BELOW)]),
     {"00_1c.0-00_00.0": (3, 4)}, {"0000:02:00.0": None, "0000:03:00.0": None}),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "numbers", "expected"), FOUND)
def test_find_moves(machine, numbers, expected):
    assert shown(find_moves(machine, numbers)) == expected
    assert shown(find_moves(machine, numbers, bridges=[S("00:1c.0")])) == expected


def test_only_what_is_below_the_bridges_asked_for_is_looked_at():
    assert find_moves(MOVED, bridges=[S("00:1d.0")]) == {}


TO_05 = ("add-device", "0000:05:00.0", "0000:02:00.0")
FROM_02 = ("remove-device", "0000:02:00.0", "0000:05:00.0")

SWAPPED = decode_machine([
    renumbered(5), gone(NIC), attrs.evolve(bridge("00:1d.0", 2, 2), secondary=6),
    gone(function("06:00.0", parent="00:1d.0")),
])  # fmt: skip

#   machine, what Xen lists, what was followed before, expected
PLANNED = [
    (MOVED, ["02:00.0"], {}, [TO_05, FROM_02]),
    (MOVED, ["02:00.0", "05:00.0"], {"02:00.0": "05:00.0"}, [FROM_02]),  # cut short in between
    (MOVED, ["05:00.0"], {"02:00.0": "05:00.0"}, []),  # done
    (MOVED, ["05:00.0"], {}, []),  # done, and the ledger was lost
    # moved once more: from where Xen was told, not from where Linux has it
    (decode_machine([renumbered(7), gone(NIC)]), ["05:00.0"], {"02:00.0": "05:00.0"},
     [("add-device", "0000:07:00.0", "0000:02:00.0"), ("remove-device", "0000:05:00.0", "0000:07:00.0")]),
    # back where Linux has it
    (decode_machine([bridge("00:1c.0", 2, 2), NIC]), ["05:00.0"], {"02:00.0": "05:00.0"},
     [("add-device", "0000:02:00.0", ""), ("remove-device", "0000:05:00.0", "0000:02:00.0")]),
    # back again, and one of its numbers on the way was not forgotten
    (decode_machine([bridge("00:1c.0", 2, 2), NIC]), ["02:00.0", "05:00.0", "07:00.0"],
     {"02:00.0": "05:00.0 07:00.0"},
     [("remove-device", "0000:07:00.0", "0000:02:00.0"), ("remove-device", "0000:05:00.0", "0000:02:00.0")]),
    # leaving while it was followed: nothing is known
    (decode_machine([bridge("00:1c.0", 2, 2), gone(NIC)]), ["05:00.0"], {"02:00.0": "05:00.0"}, []),
    # no bus leads to it
    (decode_machine([renumbered(0), gone(NIC)]), ["02:00.0"], {}, []),
    # another function is known under the new number: its record is not this one's
    (decode_machine([renumbered(5), gone(NIC), function("05:00.0")]), ["02:00.0", "05:00.0"], {}, []),
    # Linux has another function that answers under the new number, and Xen is yet to be told of that one
    (decode_machine([renumbered(5), gone(NIC), function("05:00.0")]), ["02:00.0"], {}, []),
    # Xen was told of another renumbered function under the new number
    (decode_machine([renumbered(5, last=7), gone(NIC), attrs.evolve(bridge("00:1d.0", 8, 8), secondary=3),
                     gone(function("03:00.0", parent="00:1d.0"))]),
     ["02:00.0", "05:00.0"], {"03:00.0": "05:00.0"}, [("add-device", "0000:08:00.0", "0000:03:00.0")]),
    # another function moved to the old number: Xen's record is taken for neither's
    (SWAPPED, ["02:00.0", "06:00.0"], {}, [TO_05]),
    # a subtree: parents are added first, children removed first
    (NESTED, ["02:00.0", "03:00.0"], {},
     [TO_05, ("add-device", "0000:06:00.0", "0000:03:00.0"),
      ("remove-device", "0000:03:00.0", "0000:06:00.0"), FROM_02]),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "listed", "followed", "expected"), PLANNED)
def test_plan_moves(machine, listed, followed, expected):
    moves = find_moves(machine, {"00_1c.0-00_00.0": (6, 6)})
    told = {S(linux): tuple(map(S, now.split())) for linux, now in followed.items()}
    plan = plan_moves(machine, known("00:1c.0", *listed), moves, told)
    assert steps(plan) == expected
    assert all(action.reason for action in plan)


def test_physical_functions_lead_their_virtual_ones_to_the_new_bus():
    vf = gone(function("02:00.1", parent="00:1c.0", physfn="02:00.0"))
    machine = decode_machine([renumbered(5), gone(NIC), vf])
    plan = plan_moves(machine, known("02:00.0", "02:00.1"), find_moves(machine))
    assert [(action.word, str(action.sbdf)) for action in plan] == [
        ("add-device", "0000:05:00.0"), ("add-device", "0000:05:00.1"),
        ("remove-device", "0000:02:00.1"), ("remove-device", "0000:02:00.0"),
    ]  # fmt: skip
    assert plan[1].physfn == S("05:00.0")


@pytest.mark.parametrize(("to", "expected"), [("05:00.0", 2), (None, 0)])
def test_a_virtual_function_does_not_move_to_a_physical_one_that_no_bus_leads_to(to, expected):
    """Told without its physical function, Xen would take it for an ordinary one."""
    vf = gone(function("02:00.1", parent="00:1c.0", physfn="02:00.0"))
    machine = decode_machine([renumbered(5), gone(NIC), vf])
    moves = {S("02:00.0"): S(to) if to else None, S("02:00.1"): S("05:00.1")}
    plan = plan_moves(machine, known("02:00.0", "02:00.1"), moves)
    assert sum(action.word == "add-device" for action in plan) == expected
    assert (plan == ()) == (expected == 0)


def test_an_extended_function_keeps_its_flag():
    port = attrs.evolve(ari_port("00:1c.0", 5, 5), secondary=2)
    machine = decode_machine([port, gone(function("02:01.0", parent="00:1c.0"))])
    add = plan_moves(machine, known("02:01.0"), find_moves(machine))[0]
    assert isinstance(add, AddDevice)
    assert add.extended


def test_the_plan_of_announcements_has_moves_last_and_does_not_announce_them_twice():
    machine = decode_machine([renumbered(5), gone(NIC), function("00:02.0")])
    moves = find_moves(machine)
    view = known("00:1c.0", "02:00.0", "08:00.0")
    plan = plan_announcements(machine, view, removed={S("08:00.0")}, moves=moves)
    assert steps(plan) == [
        ("remove-device", "0000:08:00.0", ""), ("add-device", "0000:00:02.0", ""), TO_05, FROM_02,
    ]  # fmt: skip
    only = plan_announcements(machine, view, moves=moves, only={S("02:00.0")})
    assert steps(only) == [TO_05, FROM_02]
    assert isinstance(only[1], RemoveDevice)


def test_what_leaves_after_it_was_followed_is_removed_where_it_was():
    machine, view = decode_machine([bridge("00:1c.0", 2, 2)]), known("00:1c.0", "05:00.0")
    told = {S("02:00.0"): (S("05:00.0"),)}
    assert plan_announcements(machine, view) == ()
    for only in (None, {S("02:00.0")}):
        plan = plan_announcements(machine, view, removed={S("02:00.0")}, followed=told, only=only)
        assert steps(plan) == [("remove-device", "0000:05:00.0", "")]
    still = plan_announcements(MOVED, view, removed={S("05:00.0")}, moves=find_moves(MOVED), followed=told)
    assert still == ()


@pytest.mark.parametrize(
    ("machine", "listed", "words"),
    [
        (MOVED, ["02:00.0"], "Xen does not know this address"),
        (MOVED, ["05:00.0"], "Xen knows this address"),
        (decode_machine([renumbered(0), gone(NIC)]), ["02:00.0"], "no bus number leads to the function"),
    ],
)
def test_a_moved_function_is_one_finding(machine, listed, words):
    found = disagreements(machine, known("00:1c.0", *listed), find_moves(machine))
    assert [(str(sbdf), finding.code) for sbdf, finding in found] == [("0000:02:00.0", "moved")]
    assert words in found[0][1].text


def test_a_number_that_linux_gives_to_another_is_said():
    found = disagreements(SWAPPED, known("00:1c.0", "00:1d.0", "02:00.0", "06:00.0"), find_moves(SWAPPED))
    assert "another function" in {str(sbdf): finding.text for sbdf, finding in found}["0000:06:00.0"]


def test_functions_that_do_not_move_do_not_hide_those_that_do():
    """The first one has no bus, the second one is another's number, the third one moves."""
    machine = decode_machine(
        [
            renumbered(5),
            gone(NIC),
            gone(function("02:01.0", parent="00:1c.0")),
            gone(function("02:02.0", parent="00:1c.0")),
            function("06:01.0"),
        ]
    )
    moves = {S("02:00.0"): None, S("02:01.0"): S("06:01.0"), S("02:02.0"): S("05:02.0")}
    plan = plan_moves(machine, known("00:1c.0"), moves)
    assert steps(plan) == [("add-device", "0000:05:02.0", "0000:02:02.0")]


def test_an_address_that_is_listed_for_another_function_is_not_used():
    moves = {S("02:00.0"): S("05:00.0")}
    told = {S("03:00.0"): (S("09:00.0"), S("05:00.0"))}
    listed, unlisted = known("00:1c.0", "05:00.0"), known("00:1c.0")
    assert plan_moves(MOVED, listed, moves, told) == ()
    assert steps(plan_moves(MOVED, unlisted, moves, told))[0] == TO_05
    assert plan_moves(MOVED, listed, moves) == ()  # nobody knows why Xen lists it: it is taken for this one


def test_physical_functions_come_before_virtual_ones_with_lower_addresses():
    machine = decode_machine(
        [
            bridge("00:1c.0", 2, 2),
            function("02:00.0", parent="00:1c.0", physfn="02:01.0"),
            function("02:01.0", parent="00:1c.0"),
            function("7f:00.0"),
        ]
    )
    lost = attrs.evolve(machine.functions[S("7f:00.0")], path=None)
    machine = attrs.evolve(machine, functions={**machine.functions, lost.sbdf: lost})
    ordered = parents_first(machine, [S("02:00.0"), S("02:01.0"), S("7f:00.0")])
    assert ordered == [S("7f:00.0"), S("02:01.0"), S("02:00.0")]


def test_the_top_of_a_move_and_what_is_behind_it():
    moves = find_moves(NESTED)
    top = top_of_move(NESTED, moves, S("03:00.0"))
    assert top is not None
    assert str(top.sbdf) == "0000:00:1c.0"
    assert sorted(str(each.sbdf) for each in subtree(NESTED, top.sbdf)) == ["0000:02:00.0", "0000:03:00.0"]
    assert top_of_move(NESTED, moves, S("00:1c.0")) is None


def test_parents_come_first_and_equals_by_address():
    addresses = ["00:1c.0", "00:1d.0", "01:00.0", "02:00.0", "02:00.1"]
    machine = decode_machine(
        [
            bridge("00:1c.0", 2, 2),
            bridge("00:1d.0", 1, 1),
            function("02:00.0", parent="00:1c.0"),
            function("02:00.1", parent="00:1c.0", physfn="02:00.0"),
            function("01:00.0", parent="00:1d.0"),
        ]
    )
    assert parents_first(machine, list(map(S, reversed(addresses)))) == list(map(S, addresses))
