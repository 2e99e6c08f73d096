"""A Command register is written as it is, where that is harmless."""

import attrs
import pytest

from pcipt.pci import Bar, BarKind
from pcipt.remap.actions import Refusal, RewriteCommand
from pcipt.remap.guard.command import COMMAND_RULES
from pcipt.remap.guard.facts import Precaution
from pcipt.remap.guard.rules import check_action
from tests.remap.guard.test_devices import ADD, S, away, facts, nic

WRITE = RewriteCommand(S(ADD), "")

REFUSED = [
    ("hardware-answers", facts(), "does not answer"),
    ("hardware-answers", facts(away(), known=[ADD]), "does not answer"),
    ("owned-by-dom0", facts(nic()), "unknown to Xen"),
    ("owned-by-dom0", facts(nic(), known=[ADD], orphans=[ADD]), "orphan"),
    ("owned-by-dom0", facts(nic(), known=[ADD], elsewhere={ADD: "guest 3"}), "guest 3"),
    ("owned-by-dom0", facts(nic(), known=[ADD], quarantined=[ADD]), "quarantine"),
]


@pytest.mark.parametrize(("rule", "situation", "words"), REFUSED)
def test_refused(rule, situation, words):
    verdict = check_action(WRITE, situation)
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, words in verdict.why) == (rule, True)


def impossible():
    there = facts(nic(command=2), known=[ADD])
    function = there.machine.functions[S(ADD)]
    bar = Bar(0, BarKind.MEM64, 0xFFFF_FFFF_FFFF_C000, 0x4000, False, True)
    functions = {**there.machine.functions, S(ADD): attrs.evolve(function, bars=(bar,))}
    return attrs.evolve(there, machine=attrs.evolve(there.machine, functions=functions))


def test_an_impossible_address_is_never_given_to_vpci():
    verdict = check_action(WRITE, impossible())
    assert isinstance(verdict, Refusal)
    assert verdict.rule == "possible-address"


@pytest.mark.parametrize("more", [{}, {"driver": "e1000e", "command": 6}])
def test_allowed_also_with_a_driver(more):
    assert check_action(WRITE, facts(nic(**more), known=[ADD])) is Precaution.NONE


def test_every_rule_has_a_row():
    assert {name for name, _, _ in COMMAND_RULES} == {row[0] for row in REFUSED} | {"possible-address"}
