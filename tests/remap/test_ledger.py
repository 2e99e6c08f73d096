import itertools

import pytest

from pcipt.errors import MalformedError, StateError
from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.ledger import LIFE, Event, Ledger, State, ledger_from_json, ledger_to_json

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


def test_added_counts_what_xen_still_knows():
    ledger = after(ADD, REACH[State.HELD])
    assert ledger.added(frozenset({SBDF})) == [SBDF]
    assert ledger.added(frozenset()) == []


@pytest.mark.parametrize("state", [state for state in REACH if state])
def test_json_round_trip(state):
    ledger = after(ADD, REACH[state])
    assert ledger_from_json(ledger_to_json(ledger)) == ledger


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
    ],
)
def test_what_is_no_ledger_is_said(value):
    with pytest.raises(MalformedError):
        ledger_from_json(value)
