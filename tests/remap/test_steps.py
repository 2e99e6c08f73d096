"""Steps go to JSON and back; replayed in order they make the ledger that they made the first time."""

import json

import attrs
import pytest

from pcipt.errors import MalformedError
from pcipt.pci import Address, Frames, Gfn, parse_sbdf
from pcipt.remap.actions import (
    AddDevice,
    CheckUnmapped,
    GuardPort,
    MapMmio,
    Quarantine,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.desired import By
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun, mapped_to_json
from pcipt.remap.steps import CODED, KINDS, Noted, Read, Step, step_from_json, step_to_json
from pcipt.remap.vpci.roster import Listed

NIC, PORT = parse_sbdf("01:00.0"), parse_sbdf("00:1c.0")
PAGES = Frames(Gfn(0xFE000), 32)
ACTIONS = [
    AddDevice(NIC, "why"),
    AddDevice(NIC, "why", extended=True, physfn=PORT, moved_from=PORT),
    RemoveDevice(NIC, "why"),
    RemoveDevice(NIC, "why", moved_to=PORT),
    MapMmio(NIC, "why", "00_1c.0-00_00.0", 0, PAGES),
    UnmapMmio(NIC, "why", "00_1c.0-00_00.0", 6, PAGES),
    RewriteBar(NIC, "why", 0, Address(0xFE00_0000), Address(0xFE10_0000), 0x20000),
    RewriteCommand(NIC, "why"),
    WithdrawReserved(NIC, "why", PAGES),
    RestoreReserved(NIC, "why", PAGES),
    CheckUnmapped(NIC, "why", PAGES, region=True),
    GuardPort(PORT, "why", on=False),
    Quarantine(NIC, "why"),
]


def test_every_kind_of_action_is_tried():
    assert {type(action) for action in ACTIONS} == set(KINDS.values())


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.word)
@pytest.mark.parametrize("event", Event)
def test_what_is_written_is_read_back(action, event):
    step = Step(action, event, "2026-01-01T00:00:00Z")
    assert step_from_json(json.loads(json.dumps(step_to_json(step)))) == step


@pytest.mark.parametrize(
    "listed",
    [None, Listed(NIC, "8086:10d3:?:?"), Listed(NIC, "8086:10d3:0:0", 4711, ((0, PAGES), (3, PAGES)))],
)
def test_what_was_read_of_a_place_is_read_back(listed):
    step, ledger = Read("00_1c.0-00_00.0", listed), Ledger("boot")
    again = step_from_json(json.loads(json.dumps(step_to_json(step))))
    assert again == step
    ledger.roster.functions["00_1c.0-00_00.0"] = Listed(NIC, "1af4:1041:?:?")
    again.apply(ledger)
    assert ledger.roster.functions == ({} if listed is None else {"00_1c.0-00_00.0": listed})


def test_replayed_steps_make_the_same_ledger():
    one, other = Ledger("boot"), Ledger("boot")
    for action in ACTIONS[:1] + ACTIONS[4:5]:
        for event in (Event.INTEND, Event.PERFORMED):
            step = Step(action, event, "now")
            step.apply(one)
            step_from_json(step_to_json(step)).apply(other)
    assert one == other
    assert len(other.entries) + len(other.mapped) == 2


RUN = MappedRun("00_1c.0-00_00.0", NIC, 0, PAGES, By.XEN, "now", State.STALE)


@pytest.mark.parametrize("held", [True, False])
def test_what_vpci_did_is_written_and_read_back(held):
    step = Noted(RUN, held)
    assert step_from_json(json.loads(json.dumps(step_to_json(step)))) == step
    ledger = Ledger("boot")
    ledger.mapped.put(attrs.evolve(RUN, state=State.HELD))
    step.apply(ledger)
    assert list(ledger.mapped) == ([RUN] if held else [])


@pytest.mark.parametrize(
    "damage", [{"run": None}, {"run": {}}, {"run": {**mapped_to_json([RUN])[0], "size": 1}}]
)
def test_a_damaged_record_of_what_vpci_did_is_no_step(damage):
    with pytest.raises(MalformedError):
        step_from_json({**step_to_json(Noted(RUN, held=True)), **damage})


GOOD = step_to_json(Step(ACTIONS[4], Event.INTEND, "now"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {**GOOD, "event": "wish"},
        {**GOOD, "action": "explode"},
        {**GOOD, "sbdf": "zz"},
        {**GOOD, "frames": [1]},
        {**GOOD, "frames": "1-2"},
        {**GOOD, "unknown": 1},
        {key: held for key, held in GOOD.items() if key != "reason"},
    ],
)
def test_anything_else_is_malformed(value):
    with pytest.raises(MalformedError, match="not a step"):
        step_from_json(value)


#  a value that no field takes, by the kind of field; a number is never a text, and true is no number
WRONG = {
    "sbdf": [None, 5, "zz", "0000:00:20.0"], "physfn": [5], "moved_from": [True], "moved_to": [[]],
    "frames": [[1], [1, 2, 3], [-1, 2], [1, 0], [1, -1], ["1", 2], [1.5, 2], [1 << 40, 1], {}, "12"],
    "before": [5, "-0x1000", "zz", hex(1 << 64)], "address": ["-1", None],
    "reason": [5], "place": [5, None], "late": [False], "bar": [-1, 7, "0", True, 1.0], "size": [0, -4, "8"],
    "extended": [1, "yes"], "vfs_on": [0], "anew": ["false"], "counted": [1], "region": [None], "on": [1],
    "when": [5], "event": [5, "wish"], "action": [5, "explode", ["map-mmio"]],
}  # fmt: skip
FULL = [
    AddDevice(NIC, "why", True, PORT, PORT, "igb", True),
    RemoveDevice(NIC, "why", PORT, True),
    *ACTIONS[4:],
]


def test_every_field_of_every_action_is_verified():
    fields = {field.name for kind in KINDS.values() for field in attrs.fields(kind)}
    assert set(CODED) == fields
    assert fields <= set(WRONG)


@pytest.mark.parametrize("action", FULL, ids=lambda action: action.word)
def test_a_field_of_a_step_with_a_wrong_value_is_named(action):
    good = step_to_json(Step(action, Event.INTEND, "now"))
    assert step_from_json(good) == Step(action, Event.INTEND, "now")
    for name in good:
        for value in WRONG[name]:
            with pytest.raises(MalformedError, match=f'not a step: "{name}": '):
                step_from_json({**good, name: value})
    for damage, why in ((good | {"colour": 1}, '"colour" is not known'), (good | {"bus": 1}, '"bus" is not')):
        with pytest.raises(MalformedError, match=why):
            step_from_json(damage)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ({"held": 1}, '"held": expected true or false'),
        ({"held": None}, '"held"'),
        ({"more": 1}, '"more" is not known'),
        ({"run": {**mapped_to_json([RUN])[0], "bar": -1}}, '"run": "bar": expected a number from 0 to 6'),
    ],
)
def test_a_wrong_field_of_what_vpci_did_is_named(damage, why):
    with pytest.raises(MalformedError, match=why):
        step_from_json({**step_to_json(Noted(RUN, held=True)), **damage})
