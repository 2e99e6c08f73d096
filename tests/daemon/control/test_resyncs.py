"""A comparison that a client asked for: when its answer comes, and what is in it."""

import errno

import attrs
import pytest

from pcipt.daemon.control.resyncs import Resyncs
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import no_watch
from pcipt.daemon.worker import Worker
from pcipt.engine import performer
from pcipt.engine import round as rounds
from pcipt.engine.queue import EVERYTHING, Reason
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, Stage
from tests.engine.test_mapping import LOST, machine
from tests.machines import function
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth

ADDRESSES = [f"0000:00:{number:02x}.0" for number in range(6)]
OBSERVE = Settings(mode="observe")


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch):
    """Let a comparison of six functions and what is done for them take several slices."""
    monkeypatch.setattr(rounds, "SLICE", 2)
    monkeypatch.setattr(performer, "BATCH", 2)


class Turns:
    """A loop whose turns the test takes."""

    def __init__(self):
        self._waiting = []

    def last(self, callback):
        assert callback not in self._waiting
        self._waiting.append(callback)

    def turn(self):
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
        return bool(waiting)


class Service:
    """The part of a daemon that compares, at rest; `answers` has what each client was told, by its name."""

    def __init__(self, stage):
        self.stage, self.loop = stage, Turns()
        self.engine = stage.start()
        self.worker = Worker(self.engine, getattr(stage, "watch", no_watch()), self._tell)
        self.resyncs = Resyncs(self.engine, self.loop, self.worker.work_off)
        self.answers, self.scopes, self.comparisons = [], [], 0
        self.at_last_slice = lambda: None
        self.worker.work_off()
        self.pass_time()
        self.scopes.clear()
        self.comparisons = 0

    def _tell(self, scope, report):
        self.scopes.append(scope)
        if scope.everything is not None and report.finished:
            self.comparisons += 1
            self.at_last_slice()
        self.resyncs.take(scope, report)

    def pass_time(self, seconds=10.0):
        self.stage.time += seconds
        self.worker.work_off()

    def ask(self, client, *, dry_run=False):
        later = self.resyncs.begin(dry_run)
        later.when_given(lambda message: self.answers.append((client, message)))

    def until_answered(self, number=1):
        """Take turns of both kinds until so many answers were given; return how many turns that took."""
        turns = 0
        while len(self.answers) < number:
            busy = self.loop.turn()
            assert self.worker.turn() is not None or busy, "nothing is left to do, and no answer was given"
            turns += 1
        return turns

    def told(self):
        """Return the clients that were answered, with health and actions."""
        return [
            (client, told["health"], [(a["action"], a["sbdf"], a["result"]) for a in told["actions"]])
            for client, told in self.answers
        ]


def calm(*, settings=None, forgotten=()):
    """Give a service at rest; then Xen forgets some functions, and nobody tells."""
    service = Service(Stage([function(address) for address in ADDRESSES], settings=settings))
    for address in forgotten:
        service.stage.xen.forget(S(address))
    return service


def added(addresses, result="done"):
    return [("add-device", address, result) for address in addresses]


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_answer_comes_with_the_last_slice(dry_run):
    service = calm()
    service.ask("one", dry_run=dry_run)
    assert service.until_answered() > len(ADDRESSES) / rounds.SLICE
    assert service.told() == [("one", "healthy", [])]
    assert service.answers[0][1]["version"] == 1
    assert service.comparisons == (0 if dry_run else 1)
    assert service.engine.queue.reasons_of(EVERYTHING) == frozenset()


def test_the_answer_has_the_outcomes_of_all_slices_once_and_in_their_order():
    service = calm(forgotten=ADDRESSES)
    service.ask("one")
    service.until_answered()
    assert service.told() == [("one", "healthy", added(ADDRESSES))]


def test_a_dry_run_tells_the_same_and_does_nothing():
    service = calm(forgotten=ADDRESSES)
    before = list(service.stage.changes)
    service.ask("one", dry_run=True)
    service.until_answered()
    ((client, _, actions),) = service.told()
    assert (client, actions) == ("one", added(ADDRESSES, "planned"))
    assert service.stage.changes == before
    assert len(service.engine.records) == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_answer_says_that_a_finding_remains(dry_run):
    service = calm(settings=OBSERVE, forgotten=ADDRESSES[:1])
    service.ask("one", dry_run=dry_run)
    service.until_answered()
    assert service.told() == [("one", "degraded", added(ADDRESSES[:1], "planned"))]


def test_two_clients_that_ask_together_share_one_comparison():
    service = calm(forgotten=ADDRESSES[:3])
    service.ask("one")
    service.ask("two")
    service.until_answered(2)
    service.worker.work_off()
    assert service.told() == [(client, "healthy", added(ADDRESSES[:3])) for client in ("one", "two")]
    assert service.comparisons == 1


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_a_client_that_asks_meanwhile_is_answered_once_and_so_is_the_first(turns):
    service = calm(forgotten=ADDRESSES)
    service.ask("one")
    for _ in range(turns):
        assert not service.worker.turn().finished
    service.ask("two")
    service.until_answered(2)
    service.worker.work_off()
    assert sorted(client for client, *_ in service.told()) == ["one", "two"]
    assert service.told()[0][2] == added(ADDRESSES)
    assert service.comparisons == 2


def test_a_client_that_asks_after_an_answer_gets_a_comparison_of_its_own():
    service = calm(forgotten=ADDRESSES[:2])
    service.ask("one")
    service.until_answered()
    service.stage.xen.forget(S(ADDRESSES[5]))
    service.ask("two")
    service.until_answered(2)
    assert service.told() == [
        ("one", "healthy", added(ADDRESSES[:2])),
        ("two", "healthy", added(ADDRESSES[5:])),
    ]


def test_a_comparison_that_had_begun_for_another_reason_answers_nobody():
    service = calm()
    service.engine.add_everything(Reason.LOST)
    for _ in range(3):
        service.worker.turn()
    service.ask("one")
    while not service.worker.turn().finished:
        assert service.answers == []
    assert (service.answers, service.comparisons) == ([], 1)
    service.until_answered()
    assert service.told() == [("one", "healthy", [])]
    assert service.comparisons == 2


def test_functions_are_looked_at_between_two_slices():
    service = calm()
    service.ask("one")
    service.worker.turn()
    service.engine.add(S(ADDRESSES[3]), Reason.WRITTEN)
    service.until_answered()
    kinds = [scope.everything is not None for scope in service.scopes]
    assert kinds.index(False) == 1
    assert service.scopes[1].functions == {S(ADDRESSES[3])}
    assert service.told() == [("one", "healthy", [])]


def test_work_that_is_due_with_the_last_slice_is_done_before_the_answer():
    service = calm(forgotten=ADDRESSES[:1])

    def arrives():
        service.stage.xen.forget(S(ADDRESSES[4]))
        service.engine.add(S(ADDRESSES[4]), Reason.OWNER)

    service.at_last_slice = arrives
    service.ask("one")
    service.until_answered()
    assert service.told() == [("one", "healthy", added([ADDRESSES[0], ADDRESSES[4]]))]


def test_another_comparison_is_not_waited_for():
    """It is done in slices as well, and other clients are served between them."""
    service = calm()
    service.ask("one")
    service.worker.turn()
    service.engine.add_everything(Reason.TIMER)
    service.until_answered()
    assert service.comparisons == 1
    assert service.engine.queue.reasons_of(EVERYTHING) == {Reason.TIMER}


def test_what_was_found_different_while_acting_is_in_the_answer():
    """The BAR moves after its function was read; the guards of another action see it."""
    bound = [attrs.evolve(raw, driver="e1000e") if raw.sbdf == S(LOST) else raw for raw in machine()]
    stage = BusStage(bound)
    stage.xen.forget(S(LOST))  # it cannot be added while its driver needs it to decode
    stage.xen.vpci.remove(S(LOST))
    service = Service(stage)
    service.ask("one")
    service.worker.turn()
    stage.xen.write_config(S(LOST), 0x10, 4, 0xFE10_0000)  # nobody sees it
    service.until_answered()
    ((_, _, actions),) = service.told()
    assert [(action, result) for action, _, result in actions] == [
        ("add-device", "refused"),
        ("unmap-mmio", "done"),
        ("map-mmio", "done"),
    ]
    assert p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen)) == ([], [])


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_client_is_answered_although_xen_cannot_be_asked(dry_run):
    service = calm(forgotten=ADDRESSES)
    service.stage.xen.fail(Op.KNOWN, errno.EBUSY)
    service.ask("one", dry_run=dry_run)
    service.until_answered()
    assert service.told() == [("one", "degraded", [])]


def test_a_comparison_that_is_made_up_for_answers_nobody_again():
    """And what it did is not in the answer to the next client."""
    service = calm(forgotten=ADDRESSES)
    service.stage.xen.fail(Op.KNOWN, errno.EBUSY)
    service.ask("one")
    service.until_answered()
    service.pass_time()
    assert set(service.stage.xen.devices) >= set(map(S, ADDRESSES))
    assert len(service.answers) == 1
    service.ask("two")
    service.until_answered(2)
    assert service.told()[1] == ("two", "healthy", [])


# Dry runs


def test_a_dry_run_takes_one_slice_in_a_turn_of_the_loop_and_no_work_of_the_service():
    service = calm()
    service.ask("one", dry_run=True)
    turns = 0
    while not service.answers:
        assert service.engine.queue.reasons_of(EVERYTHING) == frozenset()
        assert service.worker.turn() is None
        assert service.loop.turn()
        turns += 1
    assert turns > len(ADDRESSES) / rounds.SLICE
    assert not service.loop.turn()


@pytest.mark.parametrize("address", [ADDRESSES[0], ADDRESSES[5]])  # one is read already, one is not
def test_other_work_goes_on_during_a_dry_run(address):
    service = calm()
    service.ask("one", dry_run=True)
    service.loop.turn()
    service.stage.xen.forget(S(address))
    service.engine.add(S(address), Reason.OWNER)
    assert [outcome.action.sbdf for outcome in service.worker.work_off()] == [S(address)]
    service.until_answered()
    assert service.told() == [("one", "healthy", [])]
    assert S(address) in service.stage.xen.devices


def test_what_leaves_during_a_dry_run_is_in_no_plan():
    service = calm(forgotten=[ADDRESSES[0]])
    service.ask("one", dry_run=True)
    service.loop.turn()
    service.stage.pull(ADDRESSES[0])
    service.engine.add(S(ADDRESSES[0]), Reason.DISAPPEARED)
    service.until_answered()
    assert service.told() == [("one", "healthy", [])]


def test_each_client_has_a_dry_run_of_its_own():
    service = calm(forgotten=ADDRESSES[:1])
    service.ask("one", dry_run=True)
    service.loop.turn()
    service.ask("two", dry_run=True)
    service.until_answered(2)
    assert [(client, actions) for client, _, actions in service.told()] == [
        ("one", added(ADDRESSES[:1], "planned")),
        ("two", added(ADDRESSES[:1], "planned")),
    ]


def test_a_dry_run_and_a_comparison_do_not_disturb_each_other():
    service = calm(forgotten=ADDRESSES)
    service.ask("dry", dry_run=True)
    service.ask("wet")
    service.until_answered(2)
    told = {client: actions for client, _, actions in service.told()}
    assert told["wet"] == added(ADDRESSES)
    assert {result for _, _, result in told["dry"]} <= {"planned"}
    assert len(service.stage.changes) == len(ADDRESSES)


def test_what_a_dry_run_finds_different_becomes_work():
    stage = BusStage([device(address[5:], (0xC000_0000, 0x1000)) for address in ADDRESSES[:1]])
    service = Service(stage)
    stage.write(ADDRESSES[0], 0x04, 2, 0)
    stage.source.read()  # the record of it is gone
    service.ask("one", dry_run=True)
    while not service.answers:
        service.loop.turn()
    assert service.told() == [("one", "degraded", [])]
    assert service.engine.queue.reasons_of(S(ADDRESSES[0])) == {Reason.DIFFERENT}
    service.worker.work_off()
    assert not service.engine.unsettled()
    assert len(service.engine.ledger.mapped) == 0
