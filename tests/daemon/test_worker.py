"""The worker takes what is due, one piece a turn, and the watcher hears what was read."""

import pytest

from pcipt.daemon.worker import Worker
from pcipt.engine import round as rounds
from pcipt.engine.queue import EVERYTHING, Reason
from tests.engine.stage import S, Stage, told
from tests.machines import function

ADDRESSES = [f"00:{number:02x}.0" for number in range(5)]
ONE, OTHER, THIRD, *_ = map(S, ADDRESSES)


class Scene:
    """A worker whose engine and watcher note what they are asked, in one list."""

    def __init__(self, known=ADDRESSES, *, rested=True):
        self.stage = Stage([function(address) for address in ADDRESSES], known=known)
        self.engine = self.stage.start()
        self.worker = Worker(self.engine, self, lambda scope, report: self.told.append((scope, report)))
        self.at_settle = lambda: None
        self.log, self.told = [], []
        if rested:
            self.worker.work_off()
            self.stage.time += 10.0
            self.worker.work_off()  # the files of the store
            self.log.clear()
            self.told.clear()

    def add(self, *functions, reason=Reason.WRITTEN, **more):
        for sbdf in functions:
            self.engine.add(sbdf, reason, **more)

    def settle(self):
        self.log.append("settle")
        self.at_settle()

    def begin(self, machine, raws):
        assert machine is self.engine.machine
        self.log.append(("begin", sorted(raws)))

    def refresh(self, raws):
        self.log.append(("refresh", [raw.sbdf for raw in raws]))


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(rounds, "SLICE", 2)


@pytest.mark.parametrize("quiet", [None, 0.05])
def test_a_turn_does_nothing_if_nothing_is_due(quiet):
    scene = Scene()
    if quiet is not None:
        scene.add(ONE, quiet=quiet)
    calls = len(scene.stage.xen.calls)
    assert scene.worker.turn() is None
    assert (scene.log, scene.told, len(scene.stage.xen.calls)) == ([], [], calls)
    assert scene.engine.next_due() == (None if quiet is None else pytest.approx(quiet))


def test_a_turn_without_everything_leaves_it_in_the_queue():
    scene = Scene()
    scene.engine.add_everything(Reason.REQUESTED)
    assert scene.worker.turn(whole=False) is None
    assert scene.told == []
    assert scene.engine.queue.reasons_of(EVERYTHING) == {Reason.REQUESTED}


def test_the_watcher_is_settled_before_the_work_is_taken():
    """What it decides about half a 64-bit BAR is work, and belongs to this turn."""
    scene = Scene()
    scene.at_settle = lambda: scene.add(OTHER)
    scene.add(ONE)
    scene.worker.turn()
    ((scope, _),) = scene.told
    assert scope.functions == {ONE, OTHER}
    assert scene.log == ["settle", ("refresh", [ONE, OTHER])]


def test_the_watcher_gets_the_functions_that_were_written_to():
    scene = Scene()
    scene.add(THIRD, ONE)
    scene.add(OTHER, reason=Reason.FAILED)
    scene.worker.turn()
    assert scene.log == ["settle", ("refresh", [ONE, THIRD])]


def test_a_function_that_was_written_to_and_is_gone_is_not_given_to_the_watcher():
    scene = Scene()
    scene.stage.pull(ADDRESSES[0])
    scene.add(ONE, OTHER)
    scene.worker.turn()
    assert scene.log == ["settle", ("refresh", [OTHER])]


SHAPE = {Reason.APPEARED, Reason.DISAPPEARED, Reason.OWNER}  # functions may have come, gone or changed hands


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_the_watcher_begins_anew_if_functions_may_have_come_or_gone(reason):
    scene = Scene()
    scene.add(ONE)
    scene.add(OTHER, reason=reason)
    scene.stage.time += 1.0
    scene.worker.turn()
    _, heard = scene.log
    written = [ONE, OTHER] if reason is Reason.WRITTEN else [ONE]
    everything = ("begin", sorted(map(S, ADDRESSES)))
    assert heard == (everything if reason in SHAPE | {Reason.LOST} else ("refresh", written))


def test_the_watcher_learns_of_everything_with_its_last_slice_only(small_slices):
    scene = Scene(rested=False)
    reports = [scene.worker.turn()]
    while not reports[-1].finished:
        assert scene.log == ["settle"] * len(reports)
        reports.append(scene.worker.turn())
    assert len(reports) > len(ADDRESSES) / rounds.SLICE
    assert scene.log == ["settle"] * len(reports) + [("begin", sorted(map(S, ADDRESSES)))]


def test_a_function_is_done_between_two_slices_of_everything(small_slices):
    scene = Scene()
    scene.engine.add_everything(Reason.REQUESTED)
    assert not scene.worker.turn().finished
    scene.add(ONE)
    assert scene.worker.turn().finished
    assert scene.log == ["settle", "settle", ("refresh", [ONE])]
    assert not scene.worker.turn().finished
    assert [scope.everything is not None for scope, _ in scene.told] == [True, False, True]


def test_what_was_done_is_told_once_after_the_watcher_knows_it():
    scene = Scene()
    heard = []
    scene.worker = Worker(scene.engine, scene, lambda *_told: heard.append(list(scene.log)))
    scene.add(ONE)
    report = scene.worker.turn()
    assert report.read == {ONE}
    assert heard == [["settle", ("refresh", [ONE])]]


def test_to_work_off_returns_the_outcomes_of_all_slices_and_functions_in_their_order(small_slices):
    scene = Scene(known=[], rested=False)
    outcomes = scene.worker.work_off()
    assert told(outcomes) == [("add-device", f"0000:{address}", "done") for address in ADDRESSES]
    assert outcomes == [outcome for _, report in scene.told for outcome in report.outcomes]
    assert scene.worker.work_off() == []


def test_to_work_off_leaves_what_is_not_due_yet():
    scene = Scene()
    scene.add(ONE, quiet=0.05)
    scene.engine.add(OTHER, Reason.REQUESTED)
    scene.worker.work_off()
    assert [scope.functions for scope, _ in scene.told] == [{OTHER}]
    assert scene.engine.next_due() == pytest.approx(0.05)


@pytest.mark.parametrize("interrupted", [False, True])
def test_to_work_off_stops_after_the_piece_that_was_interrupted(interrupted):
    scene = Scene()
    scene.engine.interrupted = lambda: interrupted
    scene.add(ONE)
    scene.engine.add_everything(Reason.REQUESTED)
    scene.worker.work_off()
    assert scene.told[0][0].functions == {ONE}
    assert (len(scene.told) == 1) is interrupted
    assert scene.engine.queue.reasons_of(EVERYTHING) == ({Reason.REQUESTED} if interrupted else set())


def test_everything_is_finished_although_it_was_interrupted(small_slices):
    """Else the next start of a slice would go on with what was planned before the interruption."""
    scene = Scene(known=[], rested=False)
    scene.engine.interrupted = lambda: True
    assert scene.worker.work_off() == []
    assert scene.told[-1][1].finished
    assert scene.stage.changes == []
    assert scene.engine.queue.reasons_of(EVERYTHING) == frozenset()
