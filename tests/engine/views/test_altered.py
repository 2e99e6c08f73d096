"""A device that changes read-only registers under Xen: nothing of it is believed, on every release."""

import attrs
import pytest

from pcipt.engine.queue import Reason
from tests.engine.stage import BusStage, S, codes, compare, settled
from tests.xen.devices import device
from tests.xen.truth import mapped_pages
from tests.xen.versions import EACH_RELEASE

NIC, OTHER, BRIDGE = "00:05.0", "00:06.0", "00:1c.0"
BAR0, BAR1 = 0xC000_0000, 0xC010_0000
HEADER, CLASS, POINTER, FIRST_BAR = 0x0E, 0x0B, 0x34, 0x10
BOTH = pytest.mark.parametrize("dom0", ["pv", "pvh"])
ALL = pytest.mark.parametrize("version", EACH_RELEASE)

#  what the device does: (offset, the byte that is read from then on), and the word of the finding
CHANGES = {
    "header": ([(HEADER, 2)], "header 2 instead of 0"),
    "unknown header": ([(HEADER, 0x7E)], "header 126 instead of 0"),
    "class": ([(CLASS, 0x06)], "class 060000 instead of 020000"),
    "no capabilities": ([(POINTER, 0)], "capabilities none instead of 11@"),
    "BAR kind": ([(FIRST_BAR, 1)], "BARs io/"),
}


def nic(**more):
    """Return the NIC, in a directory of sysfs whose number is known: another device has another one."""
    raw = device(NIC, (BAR0, 0x4000), (BAR1, 0x1000), msix=(0, 0x2000, 0x3000), **more)
    return attrs.evolve(raw, instance=7)


def change(stage, changes):
    data = stage.hardware.slot(S(NIC)).registers.data
    before = [(offset, data[offset]) for offset, _ in changes]
    for offset, value in changes:
        data[offset] = value
    return before


def pages(stage):
    """Give what is mapped; a PV dom0 has no such map."""
    return mapped_pages(stage.xen) if stage.xen.vpci is not None else None


def looked_at(stage, engine):
    """Let the service read the function for each reason that it may have, and everything."""
    for reason in (Reason.WRITTEN, Reason.TIMER, Reason.OWNER, Reason.APPEARED):
        engine.add(S(NIC), reason)
        stage.settle(engine)
    compare(engine)
    stage.settle(engine)


def text_of(engine):
    return next(finding.text for _, finding in engine.findings if finding.code == "header-changed")


@BOTH
@ALL
@pytest.mark.parametrize("what", CHANGES)
def test_what_a_device_shows_under_xen_is_not_believed(dom0, version, what):
    stage = BusStage([nic(), device(OTHER, (0xC020_0000, 0x1000))], version=version, dom0=dom0)
    engine = settled(stage)
    before, done = pages(stage), stage.xen.changes
    changes, words = CHANGES[what]
    change(stage, changes)
    looked_at(stage, engine)
    assert "header-changed" in codes(engine)
    assert words in text_of(engine)
    assert "rescan its bus" in text_of(engine)
    assert stage.xen.changes == done
    assert pages(stage) == before


@ALL
def test_no_page_of_another_function_is_mapped_where_xen_traps_what_is_not_shown_any_more(version):
    vf_like = device(OTHER, (BAR0 + 0x2000, 0x1000), header=0x7F, class_code=0x020000)
    stage = BusStage([nic()], version=version, dom0="pvh")
    engine = settled(stage)
    change(stage, CHANGES["header"][0])
    looked_at(stage, engine)
    before = pages(stage)
    stage.plug(vf_like)  # a header that vPCI does not map: pcipt would
    stage.settle(engine)
    compare(engine)
    assert pages(stage) == before


@BOTH
@ALL
def test_the_doubt_ends_when_the_registers_are_as_before(dom0, version):
    stage = BusStage([nic()], version=version, dom0=dom0)
    engine = settled(stage)
    before = change(stage, CHANGES["header"][0])
    looked_at(stage, engine)
    change(stage, before)
    looked_at(stage, engine)
    assert codes(engine).isdisjoint({"header-changed"})
    assert engine.memory.altered == {}


@BOTH
@ALL
def test_another_device_in_the_place_is_not_a_change(dom0, version):
    stage = BusStage([attrs.evolve(nic(), instance=7)], version=version, dom0=dom0)
    engine = settled(stage)
    stage.pull(NIC)
    stage.plug(attrs.evolve(device(NIC, (BAR0, 0x4000), class_code=0x010802), instance=8))
    stage.settle(engine)
    compare(engine)
    assert "header-changed" not in codes(engine)


@ALL
def test_a_restart_does_not_make_the_new_registers_true(version):
    stage = BusStage([attrs.evolve(nic(), instance=7)], version=version, dom0="pvh")
    settled(stage)
    change(stage, CHANGES["header"][0])
    before, done = pages(stage), stage.xen.changes
    engine = settled(stage)
    looked_at(stage, engine)
    assert "header-changed" in codes(engine)
    assert (pages(stage), stage.xen.changes) == (before, done)
    engine = settled(stage)
    assert "header-changed" in codes(engine)


@ALL
def test_what_is_hidden_when_xen_is_told_is_no_change(version):
    """From 4.21 on vPCI hides what it could not set up: the list is another one after the add."""
    faulty = device(NIC, (BAR0, 0x1000), msix=(0, 0x8000, 0x9000), command=0)
    stage = BusStage([device(OTHER, (BAR1, 0x1000))], version=version, dom0="pvh")
    engine = settled(stage)
    stage.plug(faulty, announced=False)
    stage.settle(engine)
    compare(engine)
    assert "header-changed" not in codes(engine)
