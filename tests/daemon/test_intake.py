"""What arrives becomes work: for which reason, when it is due, and what is told of it."""

import attrs
import pytest

from pcipt.daemon.intake import LEAVING, Intake
from pcipt.engine.queue import EVERYTHING, REGIONS, Reason
from pcipt.host.uevents import GuestsChanged, HotplugEvent, Rescan
from pcipt.pci.write import ConfigWrite, Lost
from tests.engine.stage import BusStage, S, rests, work_off
from tests.xen.devices import device, port

NIC, DISK, PORT, BEHIND, NOWHERE = map(S, ("00:02.0", "00:06.0", "00:1c.0", "02:00.0", "00:0a.0"))
COMMAND, BAR, BUSES = 0x04, 0x10, 0x18
QUIET = 0.05


class Heard:
    """A daemon's intake on an engine that has compared everything once and is at rest."""

    def __init__(self, *, quiet=QUIET, pciback=()):
        raws = [
            device("00:02.0", (0xC000_0000, 0x1000)),
            device("00:06.0", (0xC001_0000, 0x1000)),
            port("00:1c.0", 2, 2),
            device("02:00.0", parent="00:1c.0"),
        ]
        given = [attrs.evolve(raw, driver="pciback") if raw.sbdf in pciback else raw for raw in raws]
        self.stage = BusStage(given, dom0="pv")
        self.quiet = quiet
        self.messages, self.losses, self.waiting = [], [], []
        self.engine = self.stage.start()
        self.intake = Intake(
            self.engine, self, self.stage.watch, lambda: self.quiet,
            lambda *told: self.messages.append(told), lambda *told: self.losses.append(told),
        )  # fmt: skip
        for _ in range(10):  # whose owner is as before is looked at several times
            work_off(self.engine)
            self.stage.time += 10.0
        assert rests(self.engine)

    def read(self):
        taken, self.waiting = self.waiting, []
        return taken

    def message(self, word, sbdf=NIC):
        self.hear(HotplugEvent(word, sbdf, 1, synthetic=False))

    def hear(self, *events):
        self.waiting += events
        self.intake.take_messages()

    def write(self, *events):
        for event in events:
            self.stage.source.push(event)
        self.intake.take_writes()

    def reasons(self):
        keys = (*self.engine.machine.functions, NOWHERE, EVERYTHING)
        return {key: reasons for key in keys if (reasons := self.engine.queue.reasons_of(key))}


WORDS = [
    ("add", QUIET, Reason.APPEARED, QUIET),
    ("remove", QUIET, Reason.DISAPPEARED, QUIET),
    ("change", QUIET, Reason.OWNER, QUIET),
    ("bind", QUIET, Reason.OWNER, QUIET),
    ("online", QUIET, Reason.OWNER, QUIET),
    ("a word of a later kernel", QUIET, Reason.OWNER, QUIET),
    ("unbind", 0.0, Reason.OWNER, LEAVING),
    ("unbind", QUIET, Reason.OWNER, LEAVING),
    ("unbind", LEAVING, Reason.OWNER, LEAVING),
    ("unbind", 0.8, Reason.OWNER, 0.8),
    ("add", 0.0, Reason.APPEARED, 0.0),
    ("remove", 0.8, Reason.DISAPPEARED, 0.8),
]


@pytest.mark.parametrize(("word", "quiet", "reason", "due"), WORDS)
def test_a_message_is_work_for_a_reason_and_is_due_after_a_quiet_time(word, quiet, reason, due):
    heard = Heard(quiet=quiet)
    heard.message(word)
    assert heard.reasons() == {NIC: {reason}}
    assert heard.engine.next_due() == pytest.approx(due)


@pytest.mark.parametrize(("pciback", "due"), [((NIC,), 0.0), ((DISK,), LEAVING)])
def test_a_function_that_leaves_xen_pciback_is_work_for_reserved_regions_at_once(pciback, due):
    heard = Heard(pciback=pciback)
    heard.message("unbind")
    assert heard.engine.queue.holds(REGIONS, Reason.UNBOUND) is (due == 0.0)
    assert heard.engine.next_due() == pytest.approx(due)
    assert heard.reasons() == {NIC: {Reason.OWNER}}


def test_a_message_does_nothing_but_add_work():
    heard = Heard()
    calls, machine = len(heard.stage.xen.calls), dict(heard.engine.machine.functions)
    del heard.stage.files.raws[NIC]
    heard.message("remove")
    assert len(heard.stage.xen.calls) == calls
    assert heard.engine.machine.functions == machine


@pytest.mark.parametrize("word", ["remove", "add", "bind"])
def test_a_message_that_follows_an_unbind_is_waited_for_no_longer(word):
    heard = Heard()
    heard.message("unbind")
    heard.stage.time += 0.1
    heard.message(word)
    assert heard.engine.next_due() == pytest.approx(QUIET)


def test_an_unbind_of_another_function_holds_up_what_was_added_before():
    heard = Heard()
    heard.message("add", DISK)
    heard.message("unbind", NIC)
    assert heard.reasons() == {DISK: {Reason.APPEARED}, NIC: {Reason.OWNER}}
    assert heard.engine.next_due() == pytest.approx(LEAVING)


def test_the_setting_is_asked_for_at_each_message():
    heard = Heard()
    heard.message("add", DISK)
    heard.quiet = 0.2
    heard.message("add", NIC)
    assert heard.engine.next_due() == pytest.approx(0.2)


@pytest.mark.parametrize("before", [[], [DISK]])
def test_lost_messages_are_a_reason_to_compare_everything(before):
    heard = Heard()
    heard.hear(*(HotplugEvent("add", sbdf, 1, synthetic=False) for sbdf in before), Rescan("a gap in SEQNUM"))
    assert heard.reasons() == {sbdf: {Reason.APPEARED} for sbdf in before} | {EVERYTHING: {Reason.LOST}}
    assert heard.losses == [("a gap in SEQNUM", None)]
    assert heard.engine.must_read_everything
    assert heard.engine.next_due() == pytest.approx(QUIET)


def test_a_change_of_guests_is_work_for_each_function_of_xen_pciback():
    heard = Heard(pciback=(NIC, BEHIND))
    heard.hear(GuestsChanged(1))
    assert heard.reasons() == {NIC: {Reason.OWNER}, BEHIND: {Reason.OWNER}}
    assert [(sbdf, word) for sbdf, word, _ in heard.messages] == [(NIC, "owner"), (BEHIND, "owner")]
    assert heard.engine.next_due() == pytest.approx(QUIET)


def test_a_change_of_guests_is_no_work_if_no_function_is_bound_to_xen_pciback():
    heard = Heard()
    heard.hear(GuestsChanged(1))
    assert (heard.reasons(), heard.messages, heard.losses) == ({}, [], [])


@pytest.mark.parametrize(
    ("sbdf", "place"), [(NIC, "00_02.0"), (BEHIND, "00_1c.0-00_00.0"), (NOWHERE, NOWHERE)], ids=str
)
def test_a_message_is_told_with_the_place_of_its_function_or_its_address(sbdf, place):
    heard = Heard()
    heard.message("add", sbdf)
    assert heard.messages == [(sbdf, "add", place)]
    assert heard.reasons() == {sbdf: {Reason.APPEARED}}


def test_a_removal_is_told_with_the_place_that_the_function_had():
    """The history of the function is kept under its place, and Linux does not have it any more."""
    heard = Heard()
    del heard.stage.files.raws[NIC]
    heard.message("remove")
    assert heard.messages == [(NIC, "remove", "00_02.0")]


#  writes, the functions that are looked at
WRITES = [
    ([(NIC, BAR, 4, 0xC020_0000)], {NIC}),
    ([(NIC, COMMAND, 2, 0), (DISK, COMMAND, 2, 0)], {NIC, DISK}),
    ([(NIC, BAR, 4, 0xFFFF_FFFF), (NIC, BAR, 4, 0xC000_0000)], set()),  # sizing
    ([(NIC, 0x3C, 1, 11)], set()),  # the interrupt line
    ([(PORT, BUSES, 4, 0x0003_0300)], {PORT, BEHIND}),
]


@pytest.mark.parametrize(("writes", "functions"), WRITES)
def test_writes_are_work_for_the_functions_that_they_change(writes, functions):
    heard = Heard()
    heard.write(*(ConfigWrite(*write) for write in writes))
    assert heard.reasons() == {sbdf: {Reason.WRITTEN} for sbdf in functions}
    assert heard.engine.next_due() == (pytest.approx(QUIET) if functions else None)
    assert (heard.messages, heard.losses) == ([], [])


@pytest.mark.parametrize(("record", "count"), [(Lost(3), 3), (Lost(), 1)])
def test_lost_records_of_writes_are_a_reason_to_compare_everything(record, count):
    heard = Heard()
    heard.write(record)
    assert heard.reasons() == {EVERYTHING: {Reason.WRITTEN}}
    assert heard.losses == [("records of configuration writes were lost", count)]
    assert heard.engine.next_due() == pytest.approx(QUIET)
    assert not heard.engine.must_read_everything  # no hot-plug message was lost


def test_writes_and_messages_that_follow_each_other_are_due_together():
    heard = Heard()
    heard.write(ConfigWrite(NIC, BAR, 4, 0xC020_0000))
    heard.stage.time += 0.03
    heard.message("add", DISK)
    heard.stage.time += 0.03
    assert heard.engine.take().work == ()
    heard.stage.time += 0.03
    assert heard.engine.take().functions == {NIC, DISK}
