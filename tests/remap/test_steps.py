"""Steps go to JSON and back; replayed in order they make the ledger that they made the first time."""

import json

import attrs
import pytest

from pcipt.errors import MalformedError
from pcipt.pci import Address, Frames, Gfn, parse_sbdf
from pcipt.remap.actions import (
    AddDevice,
    CheckUnmapped,
    MapMmio,
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
from pcipt.remap.steps import KINDS, Noted, Step, step_from_json, step_to_json

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
]


def test_every_kind_of_action_is_tried():
    assert {type(action) for action in ACTIONS} == set(KINDS.values())


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.word)
@pytest.mark.parametrize("event", Event)
def test_what_is_written_is_read_back(action, event):
    step = Step(action, event, "2026-01-01T00:00:00Z")
    assert step_from_json(json.loads(json.dumps(step_to_json(step)))) == step


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
