"""Nothing is done about a function whose registers have changed under Xen, nor where its BARs lay."""

import attrs
import pytest

from pcipt.pci import Frames, Gfn
from pcipt.remap.actions import (
    AddDevice,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
)
from pcipt.remap.guard.altered import ALTERED_RULES
from pcipt.remap.guard.rules import judge_action
from pcipt.remap.vpci.shape import Altered
from tests.machines import function
from tests.remap.guard.test_devices import ADD, S, facts, nic

VF = "01:00.1"
PAGES, BESIDE = Frames(Gfn(0xFE600), 4), Frames(Gfn(0xFE604), 4)
CHANGED = {S(ADD): Altered("header 2 instead of 0", (PAGES,))}
ACTIONS = [
    AddDevice(S(ADD), ""),
    RemoveDevice(S(ADD), "", anew=True),
    MapMmio(S("00:1f.7"), "", "00_1f.7", 0, PAGES),
    RestoreReserved(S("00:1f.7"), "", PAGES),
    RewriteBar(S(ADD), "", 0, 0x1000, 0x2000),
    RewriteCommand(S(ADD), ""),
]
OTHERS = [
    RemoveDevice(S(ADD), ""),
    MapMmio(S("00:1f.7"), "", "00_1f.7", 0, BESIDE),
    RestoreReserved(S("00:1f.7"), "", BESIDE),
    RewriteCommand(S("00:1f.7"), ""),
]


def answer(action, situation):
    return dict(judge_action(action, situation))["unaltered"]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.word)
def test_refused(action):
    there = facts(nic(), known=[ADD])
    assert answer(action, there) is None
    why = answer(action, attrs.evolve(there, altered=CHANGED))
    assert "changed since Xen read them" in why


@pytest.mark.parametrize("action", OTHERS, ids=lambda action: action.word)
def test_what_is_not_about_it_is_not_refused(action):
    assert answer(action, attrs.evolve(facts(nic(), known=[ADD]), altered=CHANGED)) is None


def test_a_virtual_function_of_it_is_not_believed_either():
    there = facts(nic(), function(VF, parent="00:1c.0", physfn=ADD), known=[ADD, VF])
    changed = attrs.evolve(there, altered=CHANGED)
    assert "physical function" in answer(AddDevice(S(VF), ""), changed)
    assert "physical function" in changed.desired(S(VF)).hold_reason


def test_every_kind_has_a_row():
    assert {kind for _, kind, _ in ALTERED_RULES} == {type(action) for action in ACTIONS}
