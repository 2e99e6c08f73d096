"""Machines recorded while pcipt worked on them: the replay takes the actions that were taken live."""

from pathlib import Path

import pytest

from pcipt.daemon.replay.player import differences, replayed

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sysfs"
MACHINES = sorted(path.parent for path in FIXTURES.glob("*/expected-actions.jsonl"))


def test_both_kinds_of_dom0_are_recorded():
    assert {path.name for path in MACHINES} >= {"lab-remap-pv", "lab-remap-pvh"}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda path: path.name)
def test_the_actions_are_those_of_the_live_service(machine):
    expected = machine / "expected-actions.jsonl"
    assert differences(str(expected), replayed(str(machine))) == []
