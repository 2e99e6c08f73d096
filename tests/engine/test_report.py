"""The scope of a reconciliation, and what a round has found so far."""

import pytest

from pcipt.engine.memory import Memory
from pcipt.engine.queue import EVERYTHING, STORE, Reason, Work
from pcipt.engine.report import ASKED_IN_FULL, HANDED_OVER, Report, Scope
from pcipt.engine.round import Round
from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice, Outcome, Result
from pcipt.remap.ledger import Ledger

ONE, OTHER, THIRD = map(parse_sbdf, ("01:00.0", "02:00.0", "03:00.0"))


def work(key, *reasons, attempts=0):
    return Work(key, frozenset(reasons), 0.0, attempts=attempts)


WRITTEN, OWNER = work(ONE, Reason.WRITTEN, attempts=2), work(OTHER, Reason.OWNER, Reason.FAILED, attempts=5)
WHOLE, FILES = work(EVERYTHING, Reason.LOST, attempts=3), work(STORE, Reason.TIMER, attempts=1)


def test_an_empty_scope_is_about_nothing():
    scope = Scope()
    assert (scope.everything, scope.store, scope.functions) == (None, None, set())
    assert (scope.attempts_of(ONE), scope.has(Reason.LOST)) == (0, False)


#   work, what of it is for everything, what for the store, which functions it names
PARTS = [
    ((WRITTEN, OWNER), None, None, {ONE, OTHER}),
    ((WHOLE,), WHOLE, None, set()),
    ((FILES,), None, FILES, set()),
    ((WRITTEN, FILES), None, FILES, {ONE}),
    ((WHOLE, OWNER), WHOLE, None, {OTHER}),
]


@pytest.mark.parametrize(("given", "everything", "store", "functions"), PARTS)
def test_a_scope_tells_functions_everything_and_the_store_apart(given, everything, store, functions):
    scope = Scope(given)
    assert (scope.everything, scope.store, scope.functions) == (everything, store, functions)


@pytest.mark.parametrize(
    ("reasons", "functions"),
    [
        ([Reason.WRITTEN], {ONE}),
        ([Reason.FAILED], {OTHER}),
        ([Reason.WRITTEN, Reason.OWNER], {ONE, OTHER}),
        ([Reason.LOST, Reason.TIMER], set()),  # only work for functions counts
        ([], set()),
    ],
)
def test_functions_are_found_by_any_of_their_reasons(reasons, functions):
    assert Scope((WRITTEN, OWNER, WHOLE, FILES)).with_reason(reasons) == functions


@pytest.mark.parametrize(
    ("given", "sbdf", "attempts"),
    [
        ((WRITTEN, OWNER), ONE, 2),
        ((WRITTEN, OWNER), OTHER, 5),
        ((WRITTEN, OWNER), THIRD, 5),  # outside of the scope: the most in it
        ((WRITTEN, WHOLE), OTHER, 3),
        ((WHOLE,), ONE, 3),
        ((), ONE, 0),
    ],
)
def test_attempts_are_those_of_the_function_or_the_most_of_the_scope(given, sbdf, attempts):
    assert Scope(given).attempts_of(sbdf) == attempts


def test_a_scope_has_the_reasons_of_all_its_work():
    scope = Scope((WRITTEN, WHOLE))
    assert [reason for reason in Reason if scope.has(reason)] == [Reason.WRITTEN, Reason.LOST]


def test_two_scopes_of_the_same_work_are_equal():
    assert Scope((WRITTEN,)) == Scope((WRITTEN,))
    assert Scope((WRITTEN,)) != Scope((OWNER,))
    assert repr(Scope((WRITTEN,))) == f"Scope(work=({WRITTEN!r},))"


def test_the_attempts_of_a_scope_come_from_its_work_alone():
    with pytest.raises(TypeError):
        Scope((WRITTEN,), {ONE: 7})


def test_only_a_write_leaves_the_owner_and_xens_list_as_they_are():
    assert frozenset(Reason) - ASKED_IN_FULL == {Reason.WRITTEN}
    assert frozenset(Reason) - HANDED_OVER == {
        Reason.WRITTEN, Reason.FAILED, Reason.DIFFERENT, Reason.LATE, Reason.UNMAPPED, Reason.FAULTED,
    }  # fmt: skip


def test_a_report_is_finished_and_empty_unless_it_says_otherwise():
    report = Report()
    assert (report.outcomes, report.changed, report.read) == ((), frozenset(), frozenset())
    assert (report.finished, report.shape_changed) == (True, False)


class NoViews:
    memory = Memory(Ledger("boot"))


def test_a_round_gives_each_outcome_to_one_report():
    now = Round(Scope((WHOLE,)), NoViews())
    first, second, third = (Outcome(AddDevice(ONE, text), Result.DONE) for text in ("a", "b", "c"))
    assert now.fresh() == ()
    now.outcomes += [first, second]
    assert now.fresh() == (first, second)
    assert now.fresh() == ()
    now.outcomes.append(third)
    assert (now.fresh(), now.fresh()) == ((third,), ())
    assert now.outcomes == [first, second, third]


def test_a_round_begins_with_nothing_and_shares_nothing_with_another():
    one, other = Round(Scope((WHOLE,)), NoViews()), Round(Scope((WRITTEN,)), NoViews())
    for held in (one.changed, one.listed, one.subjects, one.relatives):
        held.add(ONE)
    one.planned.append(AddDevice(ONE, ""))
    assert (other.changed, other.listed, other.subjects, other.relatives) == (set(), set(), set(), set())
    assert (other.planned, other.outcomes, other.owners, other.pages) == ([], [], {}, set())
    assert (other.touched, other.told) == (False, 0)
    assert (one.everything, other.everything) == (WHOLE, None)
