"""One reconciliation: EVERYTHING in slices, what is held back, what is written to the store and when."""

import errno
import itertools

import attrs
import pytest

import pcipt.engine.round
from pcipt.daemon.settings import Settings
from pcipt.engine.queue import EVERYTHING, STORE, Reason
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from tests.engine.stage import (
    BusStage,
    S,
    Stage,
    codes,
    compare,
    dry_run,
    look,
    reports,
    right,
    settled,
    told,
    usual_raws,
    work_off,
)
from tests.engine.views.test_reserved import HOT, IN, LATE, ONE, OTHER, OUT, Scene
from tests.machines import function
from tests.xen.devices import device
from tests.xen.truth import mapped_pages

HOST, PORT, NIC, VF = map(S, ("00:00.0", "00:1c.0", "01:00.0", "01:00.1"))
FULL = OSError(errno.ENOSPC, "No space left on device")
NO_ADD = Settings(actions={"add-device": False})


@pytest.fixture(name="_small")
def small_slices(monkeypatch):
    monkeypatch.setattr(pcipt.engine.round, "SLICE", 2)


@pytest.fixture(name="_single")
def slices_of_one(monkeypatch):
    monkeypatch.setattr(pcipt.engine.round, "SLICE", 1)


def turn(engine):
    """Take what is due and do it; give the keys and the report."""
    scope = engine.take()
    return [work.key for work in scope.work], engine.reconcile(scope)


def readings(stage):
    """Have the host note which functions it is asked for."""
    read, noted = stage.host.read_function, []
    stage.host.read_function = lambda sbdf: (noted.append(sbdf), read(sbdf))[1]
    return noted


# EVERYTHING in slices


def test_a_slice_has_as_many_functions_as_take_some_milliseconds():
    assert pcipt.engine.round.SLICE == 256


@pytest.mark.usefixtures("_small")
def test_everything_is_read_and_planned_for_in_slices():
    stage = Stage([*usual_raws(), function("02:00.0")])
    engine = settled(stage)
    noted = readings(stage)
    engine.add_everything(Reason.REQUESTED)
    read, parts = [], []
    while not parts or not parts[-1].finished:
        keys, report = turn(engine)
        assert keys == [EVERYTHING]
        read.append(sorted(noted))
        noted.clear()
        parts.append(report)
    assert read == [[HOST, PORT], [NIC, VF], [S("02:00.0")], *[[]] * 3, []]
    assert [report.finished for report in parts] == [*[False] * 6, True]
    assert parts[-1].read == set(engine.machine.functions)
    assert (parts[-1].shape_changed, engine.next_due()) == (True, None)


@pytest.mark.usefixtures("_small")
def test_each_outcome_of_everything_is_told_by_one_slice():
    raws = [function(f"00:{number:02x}.0") for number in range(5)]
    engine = Stage(raws, known=[], settings=NO_ADD).start()
    parts = reports(engine)
    assert len(parts) > 3
    outcomes = [outcome for report in parts for outcome in report.outcomes]
    assert told(outcomes) == [("add-device", f"0000:00:{number:02x}.0", "planned") for number in range(5)]
    assert [len(report.outcomes) for report in parts[:5]] == [1] * 5
    assert parts[-1].finished


@pytest.mark.usefixtures("_small")
def test_a_write_that_comes_between_two_slices_comes_first():
    stage = Stage()
    engine = settled(stage)
    engine.add_everything(Reason.REQUESTED)
    assert turn(engine)[0] == [EVERYTHING]
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    engine.add(NIC, Reason.WRITTEN)
    keys, report = turn(engine)
    assert (keys, report.read, report.changed) == ([NIC], {NIC}, {NIC})
    assert engine.machine.functions[NIC].command == 0x2
    noted = readings(stage)
    keys, report = turn(engine)  # goes on where it was
    assert (keys, sorted(noted), report.finished) == ([EVERYTHING], [NIC, VF], False)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_was_found_alone_between_two_slices_is_newer_than_the_slices_before(turns):
    stage = Stage(settings=NO_ADD)
    engine = settled(stage)
    engine.add_everything(Reason.REQUESTED)
    for _ in range(turns):
        assert turn(engine)[0] == [EVERYTHING]
    stage.xen.forget(NIC)
    engine.add(NIC, Reason.OWNER)
    keys, report = turn(engine)
    assert (keys, told(report.outcomes)) == ([NIC], [("add-device", str(NIC), "planned")])
    while not turn(engine)[1].finished or engine.queue.reasons_of(EVERYTHING):
        pass
    assert engine._reconciler.open_actions.subjects == [NIC]


@pytest.mark.usefixtures("_small")
def test_everything_that_is_wanted_again_meanwhile_is_done_from_the_beginning():
    stage = Stage()
    engine = settled(stage)
    noted = readings(stage)
    engine.add_everything(Reason.REQUESTED)
    turn(engine)
    engine.add_everything(Reason.SETTINGS)
    parts = reports(engine)
    assert [report.finished for report in parts].count(True) == 2
    assert [sorted(noted[:4]), sorted(noted[4:])] == [[HOST, PORT, NIC, VF]] * 2


@pytest.mark.usefixtures("_single")
def test_a_page_of_functions_in_different_slices_ends_right():
    first = device("00:08.0", (0xFE00_0000, 0x800))
    second = device("00:09.0", (0xFE00_0800, 0x800))
    stage = BusStage([device("00:00.0"), first, second], known=["00:00.0"], settings=NO_ADD)
    engine = settled(stage)
    assert mapped_pages(stage.xen) == {0xFE000}
    for addresses in ((0xFE10_0000, 0xFE10_0800), (0xFE20_0000, 0xFE10_0800), (0xFE10_0000, 0xFE30_0800)):
        for number, address in zip(("00:08.0", "00:09.0"), addresses, strict=True):
            stage.hardware.write(S(number), 0x10, 4, address)
        compare(engine)
        right(stage)
        assert {outcome.action.word for outcome in compare(engine)} == {"add-device"}  # which is forbidden


@pytest.mark.usefixtures("_single")
def test_an_interrupted_comparison_begins_no_further_action():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    engine.interrupted = lambda: len(stage.changes) == 2
    parts = reports(engine)
    assert len(stage.changes) == 2
    assert sum(len(report.outcomes) for report in parts) == 2


def test_an_interrupted_engine_reads_everything_and_does_nothing():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    engine.interrupted = lambda: True
    parts = reports(engine)
    assert parts[-1].finished
    assert not stage.changes
    assert not any(report.outcomes for report in parts)


# After messages were lost nothing is taken away before everything was read


def pulled_from_xen():
    stage = Stage()
    engine = settled(stage)
    stage.pull("01:00.1")
    return stage, engine, VF, Op.REMOVE


def pulled_with_pages():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    del stage.files.raws[S("00:06.0")]
    stage.hardware.pull(S("00:06.0"))
    stage.xen.kernel_remove(S("00:06.0"))
    return stage, engine, S("00:06.0"), Op.UNMAP


def given_with_region():
    scene = Scene()
    scene.time += 60
    work_off(scene.engine)
    scene.give_away("02:00.0")
    return scene, scene.engine, S("02:00.0"), Op.UNMAP


SCENES = [pulled_from_xen, pulled_with_pages, given_with_region]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.usefixtures("_small")
def test_what_a_single_function_left_stays_until_everything_was_read(scene):
    stage, engine, left, op = scene()
    engine.queue.finished(0.0)
    before = len(stage.xen.changes)
    engine.add_everything(Reason.LOST)
    keys = []
    engine.add(left, Reason.DISAPPEARED)
    keys += [turn(engine)[0]]
    assert len(stage.xen.changes) == before
    keys += [turn(engine)[0]]  # a slice of the reading
    engine.add(left, Reason.REQUESTED)
    keys += [turn(engine)[0]]
    assert keys == [[left], [EVERYTHING], [left]]
    assert len(stage.xen.changes) == before
    work_off(engine)
    assert [call.op for call in stage.xen.changes[before:]] == [op]


@pytest.mark.usefixtures("_single")
def test_once_everything_was_read_single_functions_are_taken_away_again():
    stage, engine, left, _ = pulled_from_xen()
    engine.add_everything(Reason.LOST)
    for _ in range(5):  # four functions, and what follows the reading
        assert turn(engine)[0] == [EVERYTHING]
    assert stage.changes == [("REMOVE", "0000:01:00.1", 0)]
    stage.pull("01:00.0")
    engine.add(NIC, Reason.DISAPPEARED)
    keys, report = turn(engine)
    assert (keys, told(report.outcomes)) == ([NIC], [("remove-device", str(NIC), "done")])
    assert left not in stage.xen.devices


@pytest.mark.usefixtures("_single")
@pytest.mark.parametrize("reason", [Reason.REQUESTED, Reason.SETTINGS, Reason.WRITTEN])
def test_without_a_loss_nothing_is_held_back_while_everything_is_read(reason):
    stage, engine, left, _ = pulled_from_xen()
    engine.add_everything(reason)
    assert turn(engine)[0] == [EVERYTHING]
    engine.add(left, Reason.DISAPPEARED)
    keys, report = turn(engine)
    assert (keys, told(report.outcomes)) == ([left], [("remove-device", str(left), "done")])
    assert stage.changes == [("REMOVE", "0000:01:00.1", 0)]


def test_a_second_loss_while_everything_is_read_holds_back_again():
    stage, engine, left, _ = pulled_from_xen()
    engine.add_everything(Reason.LOST)
    turn(engine)
    engine.add_everything(Reason.LOST)
    engine.add(left, Reason.DISAPPEARED)
    keys, _ = turn(engine)
    assert (keys, stage.changes) == ([left], [])


def test_what_is_not_taken_away_may_be_added_after_a_loss():
    stage = Stage()
    engine = settled(stage)
    stage.plug(function("02:00.0", parent="00:1c.0"))
    engine.add_everything(Reason.LOST)
    engine.add(S("02:00.0"), Reason.APPEARED)
    _, report = turn(engine)
    assert told(report.outcomes) == [("add-device", "0000:02:00.0", "done")]


# Lost messages


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("reason", [Reason.LOST, Reason.WRITTEN, Reason.REQUESTED])
def test_only_lost_messages_of_a_pvh_dom0_leave_a_doubt(dom0, reason):
    stage = Stage(dom0=dom0)
    engine = settled(stage)
    engine.add_everything(reason)
    work_off(engine)
    doubts = reason is Reason.LOST and dom0 == "pvh"
    assert engine.ledger.messages_lost == ("2026-01-01T00:00:00Z" if doubts else None)
    assert ("messages-lost" in codes(engine)) is doubts
    assert engine.next_due() is None


def test_the_first_loss_is_kept_across_later_ones_and_restarts():
    stage = Stage(dom0="pvh")
    engine = settled(stage)
    clock = iter("abcdefghijklmnopqrstuvwxyz")
    engine._clock = lambda: next(clock)
    for _ in range(2):
        engine.add_everything(Reason.LOST)
        work_off(engine)
        stage.time += 5
        work_off(engine)
        assert engine.ledger.messages_lost == "a"
    again = settled(stage)
    assert again.ledger.messages_lost == "a"
    assert "messages-lost" in codes(again)


# The store


def test_the_ledger_is_written_whole_five_seconds_after_an_action():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    engine = stage.start()
    compare(engine)
    assert engine.next_due() == 5.0
    saved = []
    stage.store.save = saved.append
    stage.time += 4.9
    work_off(engine)
    assert saved == []
    stage.time += 0.1
    work_off(engine)
    assert saved == [engine.ledger]
    assert engine.next_due() is None


@pytest.mark.parametrize("op", [Op.ADD, None])
def test_an_action_of_one_function_is_followed_by_a_write_whether_it_failed_or_not(op):
    stage = Stage(dom0="pvh")
    engine = settled(stage)
    stage.plug(function("02:00.0", parent="00:1c.0"))
    if op is not None:
        stage.xen.fail(op, errno.ENOMEM)
    look(engine, [S("02:00.0")])
    assert engine.queue.holds(STORE, Reason.TIMER)


@pytest.mark.parametrize("settings", [Settings("observe"), None])
def test_nothing_is_written_where_nothing_was_done(settings):
    """On PV; on PVH each function that was read is noted, for the time after a kill (decision 0020)."""
    stage = Stage(settings=settings)
    engine = settled(stage)
    saved = stage.store.saved
    stage.plug(function("09:00.0", command=2))
    look(engine, [S("09:00.0")])  # refused, or only planned
    assert not engine.queue.holds(STORE, Reason.TIMER)
    assert stage.store.saved == saved


def test_pages_that_vpci_mapped_are_written_as_well():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    stage.write("00:06.0", 0x04, 2, 0)
    stage.settle(engine)
    assert engine.next_due() == 5.0


def test_a_store_that_fails_is_tried_again_each_minute():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    engine = stage.start()
    compare(engine)
    stage.store.fails = FULL
    stage.time += 5
    work_off(engine)
    for _ in range(3):
        assert (codes(engine), engine.next_due()) == ({"ledger-unsaved"}, 60.0)
        stage.time += 60
        work_off(engine)
    stage.store.fails = None
    stage.time += 60
    work_off(engine)
    assert (codes(engine), engine.next_due()) == (set(), None)


def test_a_boot_snapshot_that_cannot_be_written_is_tried_again_after_a_minute():
    stage = Stage()
    stage.store.snapshot = None
    stage.store.fails = FULL
    engine = stage.start()
    work_off(engine)
    assert (codes(engine), engine.next_due()) == ({"boot-snapshot-unsaved"}, 60.0)
    stage.store.fails = None
    stage.time += 60
    work_off(engine)
    assert (codes(engine), engine.next_due()) == (set(), None)
    assert stage.store.snapshot == engine.memory.boot


def failing_store():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"], dom0="pvh")
    engine = stage.start()
    compare(engine)
    stage.store.fails = FULL
    stage.time += 5
    work_off(engine)
    stage.store.fails = None
    return stage, engine


def test_a_resync_writes_at_once_what_could_not_be_written():
    _, engine = failing_store()
    compare(engine)
    assert codes(engine) == set()


def test_another_comparison_does_not_write_before_its_time():
    _, engine = failing_store()
    engine.add_everything(Reason.SETTINGS)
    work_off(engine)
    assert (codes(engine), engine.next_due()) == ({"ledger-unsaved"}, 60.0)


def test_a_resync_with_nothing_unwritten_writes_nothing():
    stage = Stage(dom0="pvh")
    engine = settled(stage)
    saved = stage.store.saved
    compare(engine)
    assert (stage.store.saved, len(engine.queue)) == (saved, 0)


def test_a_request_about_one_function_does_not_write_what_could_not_be_written():
    _, engine = failing_store()
    look(engine, [NIC], Reason.REQUESTED)
    assert codes(engine) == {"ledger-unsaved"}


# What Xen has forgotten


def test_an_entry_ends_with_the_function_that_xen_has_forgotten():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"], dom0="pvh")
    engine = settled(stage)
    assert engine.ledger.find("add-device", VF) is not None
    stage.pull("01:00.1")
    stage.xen.kernel_remove(VF)
    assert look(engine, [VF], Reason.DISAPPEARED) == []
    assert engine.ledger.find("add-device", VF) is None
    assert engine.queue.holds(STORE, Reason.TIMER)


def test_an_entry_of_another_function_stays_when_one_is_looked_at():
    stage = Stage(known=["00:00.0", "00:1c.0"], dom0="pvh")
    engine = settled(stage)
    stage.xen.forget(NIC)
    look(engine, [VF], Reason.DISAPPEARED)
    assert engine.ledger.find("add-device", NIC) is not None


def test_the_doubt_after_lost_messages_is_on_disk_at_once():
    stage = Stage(dom0="pvh")
    engine = settled(stage)
    engine.add_everything(Reason.LOST)
    work_off(engine)
    assert stage.start().ledger.messages_lost == engine.ledger.messages_lost is not None


# Functions that come meanwhile


@pytest.mark.parametrize("at", [1, 2])
def test_a_function_that_comes_after_the_announcements_of_a_round_is_announced_by_the_next(at):
    stage = Stage()
    engine = settled(stage)
    looks = itertools.count(1)

    def take_messages():
        if next(looks) == at:
            stage.plug(function("02:00.0", parent="00:1c.0"))
            engine.add(S("02:00.0"), Reason.APPEARED)

    engine.take_messages = take_messages
    engine.add(HOST, Reason.REQUESTED)
    assert told(work_off(engine)) == [("add-device", "0000:02:00.0", "done")]
    assert engine.findings == []


def coming(scene, address, at):
    """Have a function come with the n-th look for messages."""
    looks = itertools.count(1)

    def take_messages():
        if next(looks) == at:
            scene.plug(device(address, (0xFE00_0000, 0x2000) if address != LATE else (0xFE60_0000, 0x1000)))
            scene.engine.add(S(address), Reason.APPEARED, quiet=0.1)

    scene.engine.take_messages = take_messages


@pytest.mark.parametrize(("at", "mapped"), [(1, IN), (2, IN), (4, OUT)])
def test_a_device_that_comes_before_a_withdrawal_keeps_its_region(at, mapped):
    scene = Scene()
    scene.give_away(OTHER)
    coming(scene, LATE, at)
    scene.engine.add(S(OTHER), Reason.OWNER)
    _, report = turn(scene.engine)
    assert scene.mapped() == (IN, IN, mapped)
    assert ((S(LATE) in report.read), (S(LATE) in scene.engine.machine.functions)) == (at < 2, at < 4)
    assert (S(LATE) in report.changed) is (at < 4)
    assert [o.action.frames for o in report.outcomes] == ([HOT] if mapped is OUT else [])
    scene.engine.take_messages()
    scene.time += 1
    work_off(scene.engine)
    assert scene.mapped() == (IN, IN, IN)


def test_a_function_that_comes_is_announced_and_planned_for_with_what_is_due():
    stage = Stage()
    engine = settled(stage)
    looks = itertools.count(1)

    def take_messages():
        if next(looks) == 1:
            stage.plug(function("02:00.0", parent="00:1c.0"))
            engine.add(S("02:00.0"), Reason.APPEARED, quiet=0.1)

    engine.take_messages = take_messages
    engine.add(NIC, Reason.REQUESTED)
    keys, report = turn(engine)
    assert keys == [NIC]
    assert report.read == {NIC, S("02:00.0")}
    assert told(report.outcomes) == [("add-device", "0000:02:00.0", "done")]
    assert len(engine.queue.keys_with(Reason.APPEARED)) == 0


@pytest.mark.parametrize(("at", "results"), [(1, []), (2, ["refused"])])
def test_pages_of_a_function_that_comes_meanwhile_are_not_unmapped(at, results):
    """Its BAR decodes where the removed BAR was: the plan leaves the pages out, or a guard refuses."""
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    stage.engine = engine
    stage.pull("00:06.0")
    stage.hotplug.read()
    coming(stage, "00:08.0", at)
    engine.add(S("00:06.0"), Reason.DISAPPEARED)
    _, report = turn(engine)
    assert [outcome.result.value for outcome in report.outcomes] == results
    assert mapped_pages(stage.xen) == {0xFE000, 0xFE001}
    right(stage)


def test_the_pages_of_a_removed_function_are_stale_though_another_one_has_come():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    stage.pull("00:06.0")
    stage.plug(device("00:06.0", (0xFE10_0000, 0x2000)))
    stage.hotplug.read()
    engine.add(S("00:06.0"), Reason.DISAPPEARED, quiet=1.0)
    engine.add(S("00:00.0"), Reason.REQUESTED)
    _, report = turn(engine)  # it is marked, though it is not due
    assert report.read == {S("00:00.0")}
    assert [run.state.value for run in engine.ledger.mapped] == ["stale"]
    stage.time += 1
    work_off(engine)
    right(stage)


def test_a_message_of_a_removal_that_comes_while_xen_is_told_marks_the_pages_at_once():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    looks = itertools.count(1)

    def take_messages():
        if next(looks) == 2:
            stage.pull("00:06.0")
            stage.plug(device("00:06.0", (0xFE10_0000, 0x2000)))
            engine.add(S("00:06.0"), Reason.DISAPPEARED, quiet=1.0)

    engine.take_messages = take_messages
    engine.add(S("00:00.0"), Reason.REQUESTED)
    turn(engine)
    assert [run.state.value for run in engine.ledger.mapped] == ["stale"]
    stage.time += 1
    work_off(engine)
    right(stage)


def test_pages_that_a_silent_function_kept_from_being_unmapped_are_unmapped_when_it_moves_away():
    silent = device("00:09.0", (0xFE00_1000, 0x1000), command=0)
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000)), silent])
    engine = settled(stage)
    stage.pull("00:06.0")
    assert sorted(o.result.value for o in stage.settle(engine)) == ["done", "refused"]
    stage.write("00:09.0", 0x10, 4, 0xFE70_0000)
    (outcome,) = look(engine, [S("00:09.0")], Reason.WRITTEN)
    assert (outcome.action.word, outcome.result.value) == ("unmap-mmio", "done")
    assert mapped_pages(stage.xen) == set()


# Failures


def test_what_failed_for_a_function_that_has_left_is_tried_again():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = settled(stage)
    stage.pull("00:06.0")
    stage.xen.fail(Op.UNMAP, errno.EBUSY)
    (outcome,) = stage.settle(engine)
    assert (outcome.result.value, engine.next_due()) == ("failed", 1.0)
    stage.time += 1
    (outcome,) = work_off(engine)
    assert outcome.result.value == "done"
    right(stage)


def test_a_refused_removal_is_tried_again_when_what_stood_against_it_has_gone():
    stage = Stage(dom0="pvh")
    engine = settled(stage)
    stage.pull("01:00.0")
    (outcome,) = look(engine, [NIC], Reason.DISAPPEARED)
    assert (outcome.result.value, outcome.rule) == ("refused", "virtual-functions")
    stage.pull("01:00.1")
    done = look(engine, [VF], Reason.DISAPPEARED)
    assert told(done) == [("remove-device", str(VF), "done"), ("remove-device", str(NIC), "done")]


# When Xen cannot be asked


def test_work_that_xen_could_not_be_asked_for_goes_back_with_its_reasons():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    engine.add(NIC, Reason.OWNER)
    _, report = turn(engine)
    assert (report.outcomes, report.read, report.shape_changed) == ((), {NIC}, True)
    assert engine.queue.reasons_of(NIC) == {Reason.OWNER, Reason.NOT_ASKED}
    assert (engine.next_due(), codes(engine)) == (1.0, {"xen-not-asked"})


def test_a_function_that_xen_could_not_be_asked_about_is_held_until_it_is_looked_at_again():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    look(engine, [NIC])
    engine.add(HOST, Reason.REQUESTED)
    assert turn(engine)[0] == [HOST]
    assert engine.views.not_asked == {NIC}
    assert turn(engine)[0] == [NIC]
    assert engine.views.not_asked == set()


def test_everything_that_xen_could_not_be_asked_about_holds_no_function():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    compare(engine)
    assert engine.queue.holds(EVERYTHING, Reason.NOT_ASKED)
    engine.add(HOST, Reason.REQUESTED)
    assert turn(engine)[0] == [HOST]
    assert engine.views.not_asked == set()


@pytest.mark.parametrize("times", [1, 2])
def test_a_given_function_is_looked_at_again_unless_its_owner_has_changed(times):
    raws = [attrs.evolve(raw, driver="pciback") if raw.sbdf == NIC else raw for raw in usual_raws()]
    stage = Stage(raws, dom0="pvh")
    engine = stage.start()
    compare(engine)
    stage.time += 60
    engine.queue.take(stage.time)
    stage.xen.give(NIC, Owner(OwnerKind.QUARANTINE))
    for _ in range(times):
        assert not engine.queue.holds(NIC, Reason.OWNER)
        look(engine, [NIC])
    assert engine.queue.holds(NIC, Reason.OWNER) is (times == 2)


def test_an_answer_of_xen_hastens_what_it_could_not_be_asked_about():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    look(engine, [NIC])
    stage.time += 0.5
    engine.add(HOST, Reason.OWNER)
    assert turn(engine)[0] == [HOST]
    assert engine.next_due() == 0.0
    assert turn(engine)[0] == [NIC]


def test_a_write_that_changed_nothing_asks_xen_nothing_and_changes_no_shape():
    stage = Stage()
    engine = settled(stage)
    asked = len(stage.xen.calls)
    engine.add(NIC, Reason.WRITTEN)
    _, report = turn(engine)
    assert (report.read, report.changed, report.shape_changed) == ({NIC}, frozenset(), False)
    assert len(stage.xen.calls) == asked


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (Reason.APPEARED, True),
        (Reason.DISAPPEARED, True),
        (Reason.OWNER, True),
        (Reason.WRITTEN, False),
        (Reason.REQUESTED, False),
        (Reason.FAILED, False),
    ],
)
def test_messages_about_functions_may_change_the_shape(reason, changes):
    engine = settled(Stage())
    engine.add(NIC, reason)
    engine.queue.hasten(reason, 0.0)
    scope = engine.take() if engine.next_due() == 0.0 else None
    if scope is None:
        engine._monotonic = lambda: 1000.0
        scope = engine.take()
    assert engine.reconcile(scope).shape_changed is changes


# A dry run


def test_a_dry_run_changes_neither_the_ledger_nor_the_queue():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))], known=["00:00.0"])
    engine = settled(stage)
    stage.xen.forget(S("00:06.0"))
    ledger, mapped = engine.ledger, list(engine.ledger.mapped)
    assert {o.result.value for o in dry_run(engine)} == {"planned"}
    assert engine.ledger is ledger
    assert list(engine.ledger.mapped) == mapped
    assert not engine.queue.holds(STORE, Reason.TIMER)
    assert attrs.asdict(engine.memory, recurse=False)["vacated"] == {}


def test_a_region_of_its_own_is_withdrawn_when_its_only_device_is_given_away():
    scene = Scene()
    scene.give_away("02:00.0")
    scene.engine.add(S("02:00.0"), Reason.REQUESTED)
    _, report = turn(scene.engine)
    assert [o.action.frames for o in report.outcomes] == [ONE]
    assert report.read >= {S("02:00.0")}
