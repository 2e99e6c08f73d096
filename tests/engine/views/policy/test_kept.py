"""What the policy keeps for guests, beside the machine: another device in its place is told at once."""

import attrs
import pytest

from pcipt.engine.queue import Reason
from pcipt.engine.views.policy.kept import Kept
from pcipt.pci import Ids, PciPath
from pcipt.pci.identity import Identity
from pcipt.pci.policy.entries import Entry
from tests.engine.stage import S, Stage

NIC = S("01:00.0")
PATH = PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))
ENTRY = Entry(Identity(PATH, ids=Ids(0x8086, 0x10D3)), "web")


def told(engine):
    return [
        (subject, finding.code) for subject, finding in engine.findings if finding.code == "policy-mismatch"
    ]


@pytest.fixture
def started():
    def start(*entries, bridges=None):
        stage = Stage()
        engine = stage.start()
        engine.views.state.kept = Kept(entries, bridges or {})
        engine.worker.work_off()
        return stage, engine

    return start


def test_the_expected_device_is_no_finding(started):
    assert told(started(ENTRY)[1]) == []


def test_another_device_is_told_with_both_identities_and_no_other_function_is(started):
    entry = attrs.evolve(ENTRY, expected=attrs.evolve(ENTRY.expected, ids=Ids(0x8086, 0x1533, revision=3)))
    _, engine = started(entry)
    assert told(engine) == [(NIC, "policy-mismatch")]
    (text,) = [finding.text for _, finding in engine.findings if finding.code == "policy-mismatch"]
    assert "8086:1533, revision 03" in text
    assert "8086:10d3" in text
    assert "does not keep or release" in text


def test_it_is_told_when_the_device_is_exchanged_and_ends_when_it_returns(started):
    stage, engine = started(ENTRY)
    before = stage.host.raws[NIC]
    stage.plug(attrs.evolve(before, ids=Ids(0x1AF4, 0x1000)))
    engine.add(NIC, Reason.APPEARED)
    engine.worker.work_off()
    assert told(engine) == [(NIC, "policy-mismatch")]
    stage.plug(before)
    engine.add(NIC, Reason.APPEARED)
    engine.worker.work_off()
    assert told(engine) == []


def test_the_name_of_the_host_bridge_counts_where_the_entry_has_it(started):
    entry = attrs.evolve(ENTRY, expected=attrs.evolve(ENTRY.expected, root="\\_SB_.PC01", ids=Ids(1, 2)))
    assert told(started(entry, bridges={(0, 0): "\\_SB_.PCI0"})[1]) == []
    assert told(started(entry, bridges={(0, 0): "\\_SB_.PC01"})[1]) == [(NIC, "policy-mismatch")]


def test_a_device_that_does_not_answer_is_not_judged(started):
    stage, engine = started(attrs.evolve(ENTRY, expected=attrs.evolve(ENTRY.expected, serial=5)))
    assert told(engine) == [(NIC, "policy-mismatch")]
    stage.plug(attrs.evolve(stage.host.raws[NIC], config=b"\xff" * 64))
    engine.add(NIC, Reason.APPEARED)
    engine.worker.work_off()
    assert told(engine) == []
