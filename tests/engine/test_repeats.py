"""What a reconciliation leaves open comes again: for which reason, after which pause, how often."""

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine.queue import CONSOLE, EVERYTHING, OWNERS, STORE, Reason, Work
from pcipt.engine.repeats import repeat, repeat_not_asked
from pcipt.engine.report import Scope
from pcipt.engine.round import Round
from pcipt.pci import Finding, Frames, Gfn
from pcipt.remap.actions import AddDevice, Outcome, RemoveDevice, Result, WithdrawReserved
from pcipt.xen.interface import Owner, OwnerKind
from tests.engine.stage import QUIET, S, Stage, begun, compare, usual_raws

NIC, VF, HOST, GONE = S("01:00.0"), S("01:00.1"), S("00:00.0"), S("05:00.0")
NOW = 100.0


def engine_with(driver=None, owner=None):
    raws = [attrs.evolve(raw, driver=driver) if raw.sbdf == NIC else raw for raw in usual_raws()]
    stage = Stage(raws)
    if owner is not None:
        stage.xen.give(NIC, owner)
    engine = stage.start()
    compare(engine)
    return engine


def work(key, *reasons, attempts=0):
    return Work(key, frozenset(reasons), 0.0, attempts=attempts)


def round_of(engine, *works):
    return Round(Scope(works), engine.views)


def repeated(now, waiting=None, settings=QUIET):
    """Give what comes again, except OWNERS: (key, reasons, attempts, in how many seconds)."""
    waiting = waiting or begun()
    repeat(waiting, now, NOW, settings)
    left = []
    while (at := waiting.next_due()) is not None:
        left += [
            (each.key, set(each.reasons), each.attempts, pytest.approx(at - NOW))
            for each in waiting.take(at)
            if each.key is not OWNERS
        ]
        waiting.finished(at)
    return left


def test_what_leaves_nothing_open_does_not_come_again():
    engine = engine_with()
    for each in (work(NIC, *Reason), work(EVERYTHING, Reason.LOST)):
        assert repeated(round_of(engine, each)) == []


@pytest.mark.parametrize("result", list(Result))
def test_only_what_failed_comes_again(result):
    now = round_of(engine_with(), work(NIC, Reason.WRITTEN))
    now.outcomes = [Outcome(AddDevice(NIC, ""), result)]
    expected = [(NIC, {Reason.FAILED}, 1, 1.0)] if result is Result.FAILED else []
    assert repeated(now) == expected


@pytest.mark.parametrize(
    "action", [AddDevice(GONE, "", moved_from=NIC), RemoveDevice(GONE, "", moved_to=NIC)]
)
def test_what_failed_comes_again_at_each_address_that_it_names(action):
    now = round_of(engine_with(), work(NIC, Reason.WRITTEN, attempts=1))
    now.outcomes = [Outcome(action, Result.FAILED)]
    assert repeated(now) == [(NIC, {Reason.FAILED}, 2, 5.0), (GONE, {Reason.FAILED}, 2, 5.0)]


@pytest.mark.parametrize(
    ("works", "attempts", "pause"),
    [
        ([work(NIC, Reason.FAILED, attempts=2), work(HOST, Reason.FAILED)], 3, 25.0),
        ([work(HOST, Reason.FAILED, attempts=1)], 2, 5.0),  # the most of the round
        ([work(EVERYTHING, Reason.TIMER)], 1, 1.0),
        ([work(NIC, Reason.FAILED, attempts=3)], None, None),
    ],
)
def test_attempts_are_handed_on_until_there_were_enough(works, attempts, pause):
    now = round_of(engine_with(), *works)
    now.outcomes = [Outcome(AddDevice(NIC, ""), Result.FAILED)]
    assert repeated(now) == ([] if attempts is None else [(NIC, {Reason.FAILED}, attempts, pause)])


def test_what_was_found_different_while_acting_comes_again_at_once_and_is_taken():
    engine = engine_with()
    engine.views.different = {VF, NIC}
    now = round_of(engine, work(HOST, Reason.WRITTEN, attempts=1))
    expected = [(NIC, {Reason.DIFFERENT}, 2, 0.0), (VF, {Reason.DIFFERENT}, 2, 0.0)]  # in order
    assert repeated(now) == expected
    assert engine.views.different == set()


def test_what_xen_could_not_be_asked_about_comes_again_unless_it_waits_already():
    engine, waiting = engine_with(), begun()
    engine.views.not_asked = frozenset({NIC, VF})
    waiting.repeat(VF, Reason.NOT_ASKED, NOW, 3)
    now = round_of(engine, work(HOST, Reason.WRITTEN))
    assert repeated(now, waiting) == [(NIC, {Reason.NOT_ASKED}, 1, 1.0), (VF, {Reason.NOT_ASKED}, 4, 60.0)]


QUARANTINE, GUEST = Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 3)
OWNER_AGAIN = [(NIC, {Reason.OWNER}, 1, 0.2)]
MAY_CHANGE = {
    Reason.APPEARED, Reason.DISAPPEARED, Reason.OWNER, Reason.LOST, Reason.REQUESTED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "before", "again"),
    [
        (None, {}, True),  # dom0's: as nobody said otherwise
        (None, {NIC: "dom0"}, True),
        (None, {NIC: "quarantine"}, False),
        (QUARANTINE, {}, False),
        (QUARANTINE, {NIC: "quarantine"}, True),
        (GUEST, {NIC: "guest 3"}, True),
        (GUEST, {NIC: "guest 4"}, False),
        (GUEST, {VF: "guest 3"}, False),
    ],
)
def test_a_function_given_away_whose_owner_has_not_changed_is_looked_at_again(owner, before, again):
    now = round_of(engine_with("pciback", owner), work(NIC, Reason.OWNER))
    now.owners = before
    assert repeated(now) == (OWNER_AGAIN if again else [])


def test_the_owner_of_a_function_that_is_not_given_away_is_not_looked_at_again():
    assert repeated(round_of(engine_with("e1000e"), work(NIC, Reason.OWNER))) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_the_owner_is_looked_at_again_only_where_it_may_change(reason):
    engine = engine_with("pciback")
    assert repeated(round_of(engine, work(NIC, reason))) == (OWNER_AGAIN if reason in MAY_CHANGE else [])


def test_after_everything_the_owners_of_all_functions_are_looked_at_again():
    assert repeated(round_of(engine_with("pciback"), work(EVERYTHING, Reason.TIMER))) == OWNER_AGAIN
    assert repeated(round_of(engine_with("pciback"), work(HOST, Reason.OWNER))) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_what_a_guest_keeps_is_looked_at_again(reason):
    engine = engine_with()
    engine.views.guests.findings[NIC] = (Finding("guest-leftover", "kept"),)
    again = reason in MAY_CHANGE | {Reason.TIMER}
    expected = [(NIC, {Reason.TIMER}, 1, 0.2)] if again else []
    assert repeated(round_of(engine, work(NIC, reason))) == expected
    assert repeated(round_of(engine, work(HOST, reason))) == []


def test_after_everything_what_guests_keep_is_looked_at_again():
    engine = engine_with()
    engine.views.guests.findings |= {NIC: (Finding("guest-leftover", "kept"),), GONE: ()}
    assert repeated(round_of(engine, work(EVERYTHING, Reason.TIMER))) == [(NIC, {Reason.TIMER}, 1, 0.2)]


@pytest.mark.parametrize(
    ("each", "attempts", "pause"),
    [
        (work(EVERYTHING, Reason.TIMER), 1, 1.0),
        (work(EVERYTHING, Reason.TIMER, attempts=2), 3, 25.0),
        (work(NIC, Reason.WRITTEN, attempts=2), 1, 1.0),
    ],
)
def test_while_a_region_may_be_anybodys_everything_comes_again(each, attempts, pause):
    engine = engine_with()
    engine.views.reserved._open = {NIC}
    assert repeated(round_of(engine, each)) == [(EVERYTHING, {Reason.NOT_ASKED}, attempts, pause)]


def test_the_reasons_of_a_function_come_again_together():
    engine = engine_with()
    engine.views.different = {NIC}
    now = round_of(engine, work(NIC, Reason.WRITTEN))
    now.outcomes = [Outcome(AddDevice(NIC, ""), Result.FAILED)]
    assert repeated(now) == [(NIC, {Reason.FAILED, Reason.DIFFERENT}, 1, 0.0)]


def test_work_that_xen_could_not_be_asked_for_comes_again_with_its_reasons():
    engine, waiting = engine_with(), begun()
    works = [work(NIC, Reason.OWNER, attempts=1), work(EVERYTHING, Reason.LOST), work(STORE, Reason.FAILED)]
    repeat_not_asked(waiting, round_of(engine, *works), NOW)
    assert len(waiting) == 2  # the store does not depend on Xen
    assert waiting.reasons_of(NIC) == {Reason.OWNER, Reason.NOT_ASKED}
    assert waiting.reasons_of(EVERYTHING) == {Reason.LOST, Reason.NOT_ASKED}
    assert [(each.key, each.attempts) for each in waiting.take(NOW + 1)] == [(EVERYTHING, 1)]
    assert [(each.key, each.attempts) for each in waiting.take(NOW + 5)] == [(NIC, 2)]


LISTENING = Settings(list_s=0, faults_s=90)
WITHDRAWN = Outcome(WithdrawReserved(NIC, "", Frames(Gfn(0x7FFF0), 4)), Result.DONE)
#  the round's work, what it did, whether the console is readable: when the console is read next, and why
LOOKS = [
    ([work(NIC, Reason.WRITTEN)], [], True, (Reason.LISTEN, 90.0)),
    ([work(NIC, Reason.WRITTEN)], [], False, None),
    ([work(NIC, Reason.OWNER)], [WITHDRAWN], True, (Reason.WITHDRAWN, 1.0)),
    ([work(NIC, Reason.OWNER)], [attrs.evolve(WITHDRAWN, result=Result.PLANNED)], True,
     (Reason.LISTEN, 90.0)),
    ([work(NIC, Reason.OWNER)], [attrs.evolve(WITHDRAWN, result=Result.NOT_APPLICABLE)], True,
     (Reason.LISTEN, 90.0)),
    ([work(CONSOLE, Reason.LISTEN)], [], True, (Reason.LISTEN, 90.0)),
    ([work(CONSOLE, Reason.WITHDRAWN, attempts=1)], [], True, (Reason.WITHDRAWN, 5.0)),
    ([work(CONSOLE, Reason.WITHDRAWN, Reason.LISTEN)], [], True, (Reason.WITHDRAWN, 5.0)),  # a timer joined
    ([work(CONSOLE, Reason.WITHDRAWN, attempts=2)], [], True, (Reason.WITHDRAWN, 25.0)),
    ([work(CONSOLE, Reason.WITHDRAWN, attempts=3)], [], True, (Reason.LISTEN, 90.0)),
    ([work(CONSOLE, Reason.WITHDRAWN, attempts=3)], [WITHDRAWN], True, (Reason.WITHDRAWN, 1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("works", "outcomes", "readable", "expected"), LOOKS)
def test_when_the_console_is_read_next(works, outcomes, readable, expected):
    engine = engine_with()
    engine.views.complaints.readable = readable
    now = round_of(engine, *works)
    now.outcomes = outcomes
    found = [(*reasons, at) for key, reasons, _, at in repeated(now, settings=LISTENING) if key is CONSOLE]
    assert found == ([] if expected is None else [(expected[0], pytest.approx(expected[1]))])


def test_a_reading_that_waits_is_not_postponed():
    waiting = begun()
    for at in (NOW - 60, NOW):
        repeat(waiting, round_of(engine_with(), work(NIC, Reason.WRITTEN)), at, LISTENING)
    assert waiting.next_due() == NOW + 30
