import attrs
import pytest

from pcipt.remap.actions import AddDevice, Refusal
from pcipt.remap.guard.rules import check_action
from tests.engine.stage import S
from tests.remap.guard.test_devices import ADD, facts, nic


@pytest.mark.parametrize("pvh", [False, True])
def test_an_orphan_that_xen_cannot_name_is_not_added_again(pvh):
    """Nobody else than this function is meant, and the word is over when Xen has the function anew."""
    known = attrs.evolve(facts(nic(), known=[ADD], orphans=[ADD]), pvh=pvh)
    verdict = check_action(AddDevice(S(ADD), ""), attrs.evolve(known, untyped={S(ADD)}))
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, "reboot" in verdict.why) == ("record-usable", True)
    assert not isinstance(check_action(AddDevice(S(ADD), ""), known), Refusal)
    other = attrs.evolve(known, untyped={S("05:00.0")})
    assert not isinstance(check_action(AddDevice(S(ADD), ""), other), Refusal)
    unlisted = attrs.evolve(facts(nic()), pvh=pvh, untyped={S(ADD)})
    assert not isinstance(check_action(AddDevice(S(ADD), ""), unlisted), Refusal)
