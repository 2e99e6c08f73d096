import itertools

import attrs
import pytest

from pcipt.errors import MalformedError, StateError
from pcipt.pci import Address, Range, frames_from_range, parse_sbdf
from pcipt.remap.actions import (
    AddDevice,
    CheckUnmapped,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
    WithdrawReserved,
)
from pcipt.remap.desired import By
from pcipt.remap.ledger import LIFE, Event, Ledger, State
from pcipt.remap.ledger_json import ledger_from_json, ledger_to_json
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.steps import Step, step_from_json, step_to_json
from tests.remap.devices import frames, holding, map_of, unmap_of

SBDF = parse_sbdf("01:00.0")
ADD, REMOVE = AddDevice(SBDF, "why"), RemoveDevice(SBDF, "gone")

REACH = {  # events that lead to each state of an entry
    None: [],
    State.INTENDED: [Event.INTEND],
    State.HELD: [Event.INTEND, Event.PERFORMED],
    State.DOUBTFUL: [Event.INTEND, Event.FAILED],
}


def after(action, events, ledger=None):
    ledger = ledger or Ledger("boot")
    for event in events:
        ledger = ledger.step(action, event)
    return ledger


@pytest.mark.parametrize(("state", "event"), list(itertools.product(REACH, Event)))
def test_the_table_is_the_law(state, event):
    ledger = after(ADD, REACH[state])
    if (state, event) in LIFE:
        assert ledger.step(ADD, event).find("add-device", SBDF).state is LIFE[state, event]
    else:
        with pytest.raises(StateError):
            ledger.step(ADD, event)
        assert ledger == after(ADD, REACH[state])


def test_a_removal_done_takes_the_addition_with_it():
    held = after(ADD, REACH[State.HELD])
    assert after(REMOVE, [Event.INTEND, Event.PERFORMED], held).entries == ()


def test_a_removal_failed_stays_doubtful_and_leaves_the_addition():
    ledger = after(REMOVE, [Event.INTEND, Event.FAILED], after(ADD, REACH[State.HELD]))
    assert {(e.word, e.state) for e in ledger.entries} == {
        ("add-device", State.HELD),
        ("remove-device", State.DOUBTFUL),
    }


@pytest.mark.parametrize(
    ("action", "state", "known", "expected"),
    [
        (ADD, State.INTENDED, True, State.HELD),  # killed after the hypercall
        (ADD, State.INTENDED, False, None),  # killed before it
        (ADD, State.HELD, False, None),  # Xen was made to forget it
        (ADD, State.DOUBTFUL, True, State.HELD),
        (REMOVE, State.INTENDED, False, None),  # killed after the hypercall
        (REMOVE, State.INTENDED, True, State.DOUBTFUL),  # killed before it
    ],
)
def test_after_a_crash_xen_decides(action, state, known, expected):
    ledger = after(action, REACH[state]).reconciled(frozenset({SBDF}) if known else frozenset())
    entry = ledger.find(action.word, SBDF)
    assert (entry.state if entry else None) is expected
    assert ledger.reconciled(frozenset({SBDF}) if known else frozenset()) == ledger


@pytest.mark.parametrize("state", [State.INTENDED, State.HELD, State.DOUBTFUL])
@pytest.mark.parametrize("known", [frozenset(), frozenset({SBDF})])
@pytest.mark.parametrize("action", [ADD, REMOVE])
def test_single_functions_are_settled_as_all_are(action, known, state):
    reach = REACH[state] if (action, state) != (REMOVE, State.HELD) else REACH[State.DOUBTFUL]
    ledger, elsewhere = after(action, reach), after(action, reach)
    expected = ledger.reconciled(known)
    assert not elsewhere.settle({parse_sbdf("02:00.0")}, known)
    assert ledger.settle({SBDF}, known) is (expected != elsewhere)
    assert ledger == expected
    assert not ledger.settle({SBDF}, known)


def test_added_counts_what_xen_still_knows():
    ledger = after(ADD, REACH[State.HELD])
    assert ledger.added(frozenset({SBDF})) == [SBDF]
    assert ledger.added(frozenset()) == []


@pytest.mark.parametrize("state", [state for state in REACH if state])
def test_json_round_trip(state):
    ledger = after(ADD, REACH[state])
    assert ledger_from_json(ledger_to_json(ledger)) == ledger


PLACE, AT = "00_1c.0-00_00.0", 0xE000_0000
REGION = frames(0x7D00_0000, 4)
MAP, UNMAP = map_of(PLACE, AT, 4), unmap_of(PLACE, AT, 4)
WITHDRAW, RESTORE = WithdrawReserved(SBDF, "gone", REGION), RestoreReserved(SBDF, "back", REGION)
REWRITE = RewriteBar(SBDF, "ignored", 2, Address(AT), Address(AT + 0x1000))
FOLLOW = AddDevice(parse_sbdf("05:00.0"), "moved", moved_from=SBDF)
KNOWN = frozenset({SBDF})


def test_pages_live_by_the_same_table():
    ledger = Ledger("boot")
    for event in (Event.PERFORMED, Event.FAILED):
        with pytest.raises(StateError):
            ledger.step(MAP, event)
    ledger.step(MAP, Event.INTEND, "then").step(MAP, Event.PERFORMED, "now")
    assert [(run.frames, run.state, run.since) for run in ledger.mapped] == [(MAP.frames, State.HELD, "now")]
    after(UNMAP, [Event.INTEND, Event.FAILED], ledger)
    assert [run.state for run in ledger.mapped] == [State.DOUBTFUL]
    after(UNMAP, [Event.INTEND, Event.PERFORMED], ledger)
    assert len(ledger.mapped) == 0
    assert ledger.entries == ()


def test_a_region_is_withdrawn_until_it_is_restored_for_whichever_device():
    ledger = after(WITHDRAW, REACH[State.HELD])
    other = attrs.evolve(RESTORE, sbdf=parse_sbdf("00:1f.3"))
    after(other, [Event.INTEND, Event.FAILED], ledger)
    assert [entry.word for entry in ledger.entries] == ["withdraw-reserved", "restore-reserved"]
    after(other, [Event.INTEND, Event.PERFORMED], ledger)
    assert [entry.word for entry in ledger.entries] == ["restore-reserved"]
    after(WITHDRAW, REACH[State.HELD], ledger)
    assert [entry.word for entry in ledger.entries] == ["withdraw-reserved"]


def test_a_rewrite_done_leaves_nothing_and_two_bars_are_apart():
    ledger = after(ADD, REACH[State.HELD])
    other = attrs.evolve(REWRITE, bar=0)
    after(other, [Event.INTEND], after(REWRITE, [Event.INTEND], ledger))
    after(REWRITE, [Event.PERFORMED], ledger)
    assert [(entry.word, entry.bar) for entry in ledger.entries] == [("add-device", None), ("rewrite-bar", 0)]


@pytest.mark.parametrize("event", [Event.PERFORMED, Event.FAILED])
@pytest.mark.parametrize(
    "action", [REWRITE, RewriteCommand(SBDF, "unreached"), CheckUnmapped(SBDF, "holes", REGION, region=False)]
)
def test_a_rewrite_and_a_check_leave_no_entry_whatever_came_of_them(action, event):
    ledger = after(action, [Event.INTEND])
    assert [entry.state for entry in ledger.entries] == [State.INTENDED]
    assert ledger.step(action, event).entries == ()


def test_a_followed_function_is_known_by_linuxs_address():
    ledger = after(FOLLOW, REACH[State.HELD])
    assert ledger.followed() == {SBDF: (FOLLOW.sbdf,)}
    assert ledger.announced() == {FOLLOW.sbdf}
    assert ledger.reconciled(frozenset()).followed() == {}
    after(RemoveDevice(FOLLOW.sbdf, "", moved_to=SBDF), [Event.INTEND, Event.PERFORMED], ledger)
    assert ledger.entries == ()


@pytest.mark.parametrize("action", [MAP, WITHDRAW, ADD])
def test_what_is_not_applicable_is_followed_as_if_done(action):
    noted, done = Ledger("boot"), after(action, REACH[State.HELD])
    noted.noted(action)
    assert noted == done


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (MAP, [State.DOUBTFUL]),  # mapped again or unmapped, as its claim is then
        (UNMAP, [State.DOUBTFUL]),
        (WITHDRAW, [State.DOUBTFUL]),
        (RESTORE, [State.DOUBTFUL]),
        (REWRITE, []),  # the register tells
        (FOLLOW, []),
    ],
)
def test_after_a_crash_what_cannot_be_read_back_is_doubtful(action, expected):
    ledger = after(action, [Event.INTEND])
    settled = ledger.reconciled(KNOWN)
    states = [entry.state for entry in settled.entries] + [run.state for run in settled.mapped]
    assert states == expected
    assert settled.reconciled(KNOWN) == settled
    assert ledger == after(action, [Event.INTEND])  # the old one is as it was


def test_what_vpci_mapped_is_in_another_document():
    theirs = holding(PLACE, AT, 4, by=By.XEN)
    stale = holding(PLACE, AT, 4, bar=1, by=By.XEN, state=State.STALE)
    ledger = Ledger("boot", mapped=MappedPages([theirs, stale]))
    assert ledger.theirs() == [theirs]
    assert ledger.ours() == [stale]  # it has to be unmapped by us
    assert ledger_from_json(ledger_to_json(ledger)) == ledger
    assert ledger_from_json(ledger_to_json(ledger)).theirs() == []


@pytest.mark.parametrize("action", [MAP, UNMAP, WITHDRAW, RESTORE, REWRITE, FOLLOW])
@pytest.mark.parametrize("state", [state for state in REACH if state])
def test_json_round_trip_of_every_action(action, state):
    ledger = after(action, REACH[state])
    assert ledger_from_json(ledger_to_json(ledger)) == ledger


def test_a_ledger_of_the_first_format_is_read():
    entry = {"action": "add-device", "sbdf": "0000:01:00.0", "state": "held", "reason": "why"}
    ledger = ledger_from_json({"boot_id": "boot", "entries": [entry]})
    assert ledger == after(ADD, REACH[State.HELD])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"boot_id": "b", "entries": [{}]},
        {"boot_id": "b", "entries": 5},
        {"boot_id": "b", "entries": [{"action": "a", "sbdf": "0:0.0", "state": "x", "reason": ""}]},
        {"boot_id": "b", "entries": [{"action": "a", "sbdf": "zz", "state": "held", "reason": ""}]},
        {"boot_id": "b", "entries": [], "mappings": [5]},
    ],
)
def test_what_is_no_ledger_is_said(value):
    with pytest.raises(MalformedError, match="ledger: at 0x0: "):
        ledger_from_json(value)


def with_region(start, size):
    entry = {"action": "withdraw-reserved", "sbdf": "0:0.0", "state": "held", "reason": ""}
    return {"boot_id": "b", "entries": [{**entry, "start": start, "size": size}]}


@pytest.mark.parametrize(
    ("start", "size"), [("0x1", 5), ("0x1", 4096), ("0x1000", 0), ("0x1000", -4096), ("-0x1000", 4096)]
)
def test_a_region_that_is_not_whole_pages_is_said(start, size):
    with pytest.raises(MalformedError, match="no whole pages"):
        ledger_from_json(with_region(start, size))


@pytest.mark.parametrize("start", [0, 0x1000])
def test_a_ledger_with_a_region_of_one_page_is_read(start):
    (read,) = ledger_from_json(with_region(hex(start), 4096)).entries
    assert read.frames == frames_from_range(Range(Address(start), 4096))


def test_functions_that_were_removed_count_as_announced():
    assert Ledger("boot").step(REMOVE, Event.INTEND).announced() == {REMOVE.sbdf}


@pytest.mark.parametrize("value", [None, [], "ledger"])
def test_what_is_no_object_is_said(value):
    with pytest.raises(MalformedError, match="no object"):
        ledger_from_json(value)


SECOND = AddDevice(parse_sbdf("06:00.0"), "moved again", moved_from=SBDF)


def test_the_addresses_of_a_renumbered_function_are_those_of_its_entries():
    ledger = after(ADD, REACH[State.HELD])
    assert ledger.followed() == {}
    ledger = after(SECOND, REACH[State.HELD], after(FOLLOW, REACH[State.HELD], ledger))
    assert ledger.followed() == {SBDF: (FOLLOW.sbdf, SECOND.sbdf)}
    ledger = after(FOLLOW, [Event.INTEND], ledger)  # the one that changed last is the last
    assert ledger.followed() == {SBDF: (SECOND.sbdf, FOLLOW.sbdf)}
    assert [entry.sbdf for entry in ledger.entries] == [SBDF, SECOND.sbdf, FOLLOW.sbdf]
    gone = after(RemoveDevice(SECOND.sbdf, "left"), [Event.INTEND, Event.PERFORMED], ledger)
    assert gone.followed() == {SBDF: (FOLLOW.sbdf,)}
    gone = after(RemoveDevice(FOLLOW.sbdf, "left"), [Event.INTEND, Event.PERFORMED], gone)
    assert gone.followed() == {}


@pytest.mark.parametrize(
    "other", [attrs.evolve(MAP, bar=1), attrs.evolve(MAP, frames=frames(AT + 0x8000, 4))]
)
def test_a_result_of_pages_that_were_not_intended_is_an_error(other):
    ledger = Ledger("boot").step(MAP, Event.INTEND)
    with pytest.raises(StateError):
        ledger.step(other, Event.PERFORMED)


LATE = AddDevice(parse_sbdf("0000:02:00.0"), "why", late="nvme")


def test_a_late_driver_is_remembered_until_it_was_bound_anew():
    ledger = Ledger("boot")
    ledger.step(LATE, Event.INTEND)
    assert (ledger.late(), ledger.late_at(LATE.sbdf)) == ({}, None)  # Xen may not have it
    ledger.step(LATE, Event.PERFORMED)
    assert ledger.late() == {LATE.sbdf: "nvme"}
    again = ledger_from_json(ledger_to_json(ledger))
    assert (again.late_at(LATE.sbdf), again) == ("nvme", ledger)
    assert Ledger("boot").late_at(LATE.sbdf) is None
    ledger.set_late(LATE.sbdf, None)
    assert (ledger.late(), ledger.late_at(LATE.sbdf)) == ({}, None)
    assert ledger.added({LATE.sbdf}) == [LATE.sbdf]
    assert "late" not in ledger_to_json(ledger)["entries"][0]


@pytest.mark.parametrize("late", ["", "nvme"])
def test_steps_hold_the_late_driver(late):
    action = attrs.evolve(LATE, late=late)
    step = step_from_json(step_to_json(Step(action, Event.PERFORMED, "now")))
    assert step.action.late == late
    ledger = Ledger("boot").step(action, Event.INTEND)
    step.apply(ledger)
    assert ledger.late_at(LATE.sbdf) == late


ENTRY = {"action": "add-device", "sbdf": "0000:01:00.0", "state": "held", "reason": "why"}
REGION_ENTRY = {**ENTRY, "action": "withdraw-reserved", "start": "0x1000", "size": 4096}
REWRITE_ENTRY = {**ENTRY, "action": "rewrite-bar", "state": "intended", "bar": 0}
#  an entry, what is changed in it (None: the field is missing) -> the field that is named
WRONG_ENTRIES = [
    (ENTRY, {"action": "a"}, "action"),
    (ENTRY, {"action": "map-mmio"}, "action"),  # pages are no entries
    (ENTRY, {"sbdf": 5}, "sbdf"),
    (ENTRY, {"state": 5}, "state"),
    (ENTRY, {"reason": 5}, "reason"),
    (ENTRY, {"moved_from": 5}, "moved_from"),
    (ENTRY, {"late": 5}, "late"),
    (ENTRY, {"vfs_on": "yes"}, "vfs_on"),
    (ENTRY, {"colour": 1}, "colour"),
    (ENTRY, {"bar": 0}, "bar"),
    (ENTRY, {"counted": False}, "counted"),
    (REGION_ENTRY, {"start": None}, "start"),  # forget_count and the plan of regions need it
    (REGION_ENTRY, {"size": None}, "size"),
    (REGION_ENTRY, {"start": hex(1 << 52)}, "52 address bits"),
    (REGION_ENTRY, {"counted": 1}, "counted"),
    (REWRITE_ENTRY, {"bar": None}, "bar"),
    (REWRITE_ENTRY, {"bar": -1}, "bar"),
    (REWRITE_ENTRY, {"bar": True}, "bar"),
]


@pytest.mark.parametrize(("entry", "damage", "named"), WRONG_ENTRIES)
def test_a_wrong_field_of_an_entry_is_named(entry, damage, named):
    assert len(ledger_from_json({"boot_id": "b", "entries": [entry]}).entries) == 1
    changed = {name: value for name, value in {**entry, **damage}.items() if value is not None}
    with pytest.raises(MalformedError, match=f'not a ledger: "entries": item 1: .*{named}'):
        ledger_from_json({"boot_id": "b", "entries": [entry, changed]})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"boot_id": 5}, "boot_id"),
        ({"entries": {}}, "entries"),
        ({"mappings": {}}, "mappings"),
        ({"more": 1}, "more"),
    ],
)
def test_a_wrong_field_of_a_ledger_is_named(damage, named):
    with pytest.raises(MalformedError, match=f'not a ledger: "{named}"'):
        ledger_from_json({"boot_id": "b", "entries": [], **damage})
