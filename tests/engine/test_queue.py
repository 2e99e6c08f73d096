"""The queue of work, on a clock of the test."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.daemon.intake import LEAVING
from pcipt.engine.queue import (
    CONSOLE,
    DELAYS,
    EVERYTHING,
    MESSAGES,
    OWNERS,
    PLACE,
    REGIONS,
    REST,
    STORE,
    Delay,
    Queue,
    Reason,
    Whole,
    Work,
    delay_of,
)
from pcipt.engine.report import keys_of
from pcipt.pci import parse_sbdf
from tests.engine.stage import begun

ONE, OTHER, THIRD = map(parse_sbdf, ("01:00.0", "02:00.0", "03:00.0"))
QUIET = 0.05


def taken(queue, now, **more):
    return {work.key: work.reasons for work in queue.take(now, **more)}


def test_an_empty_queue_has_nothing_due():
    queue = Queue()
    assert (queue.next_due(), queue.take(9.0), len(queue), queue.has_change(9.0)) == (None, (), 0, False)


def test_the_same_key_joins_its_reasons_and_keeps_the_earlier_time():
    queue = begun()
    queue.repeat(ONE, Reason.FAILED, 0.0, 1)
    queue.repeat(ONE, Reason.NOT_ASKED, 0.0, 0)
    assert len(queue) == 1
    assert queue.reasons_of(ONE) == {Reason.FAILED, Reason.NOT_ASKED}
    assert queue.next_due() == 1.0
    assert queue.take(0.9) == ()
    (work,) = queue.take(1.0)
    assert (work.key, work.reasons, work.attempts) == (ONE, {Reason.FAILED, Reason.NOT_ASKED}, 1)
    assert (len(queue), queue.reasons_of(ONE)) == (0, frozenset())


def test_what_is_taken_comes_in_the_order_in_which_it_was_added():
    queue = begun()
    for sbdf in (OTHER, THIRD, ONE, OTHER):
        queue.add(sbdf, Reason.REQUESTED, 0.0)
    assert [work.key for work in queue.take(0.0)] == [OTHER, THIRD, ONE]


@pytest.mark.parametrize("reason", sorted(MESSAGES - {Reason.LOST}, key=lambda reason: reason.name))
def test_work_for_messages_waits_until_no_more_arrive(reason):
    queue = begun()
    queue.add(ONE, reason, 1.0, quiet=QUIET)
    assert queue.next_due() == 1.0 + QUIET
    queue.add(OTHER, reason, 1.03, quiet=QUIET)
    assert queue.take(1.0 + QUIET) == ()  # all are taken together
    assert taken(queue, 1.03 + QUIET) == {ONE: {reason}, OTHER: {reason}}


def test_messages_that_never_stop_postpone_the_work_for_a_second_at_most():
    queue = begun()
    for number in range(100):
        queue.add(ONE if number else OTHER, Reason.WRITTEN, 5.0 + number / 50, quiet=QUIET)
        if queue.next_due() <= 5.0 + number / 50:
            break
    assert number == 50
    assert taken(queue, 6.0) == {OTHER: {Reason.WRITTEN}, ONE: {Reason.WRITTEN}}


def test_the_last_message_about_a_function_decides_how_long_it_must_be_quiet():
    queue = begun()
    queue.add(ONE, Reason.OWNER, 0.0, quiet=LEAVING)
    assert queue.next_due() == LEAVING
    queue.add(ONE, Reason.DISAPPEARED, 0.1, quiet=QUIET)
    assert queue.next_due() == pytest.approx(0.1 + QUIET)
    queue.add(OTHER, Reason.OWNER, 0.1, quiet=LEAVING)
    assert queue.next_due() == 0.1 + LEAVING


def test_a_request_does_not_wait_for_messages():
    queue = begun()
    queue.add(ONE, Reason.WRITTEN, 0.0, quiet=QUIET)
    queue.add(OTHER, Reason.WRITTEN, 0.0, quiet=QUIET)
    queue.add(ONE, Reason.REQUESTED, 0.0)
    assert taken(queue, 0.0) == {ONE: {Reason.WRITTEN, Reason.REQUESTED}}
    assert queue.next_due() == QUIET


#  key, reason, pauses before the attempts, whether the last pause comes again and again
REPEATED = [
    (ONE, Reason.FAILED, (1.0, 5.0, 25.0), False),
    (ONE, Reason.OWNER, (0.2, 0.5, 1.0), False),
    (ONE, Reason.TIMER, (0.2, 0.5, 1.0, 4.0, 10.0, 20.0), False),
    (ONE, Reason.DIFFERENT, (0.0, 0.0, 0.0, 1.0, 5.0, 25.0), False),
    (ONE, Reason.NOT_ASKED, (1.0, 5.0, 25.0, 60.0), True),
    (EVERYTHING, Reason.NOT_ASKED, (1.0, 5.0, 25.0, 60.0), True),
    (STORE, Reason.FAILED, (60.0,), True),
]


@pytest.mark.parametrize(("key", "reason", "pauses", "endless"), REPEATED)
def test_repeated_work_waits_longer_each_time(key, reason, pauses, endless):
    queue, now, attempts = begun(), 10.0, 0
    for pause in pauses + pauses[-1:] * (3 if endless else 0):
        assert queue.repeat(key, reason, now, attempts)
        assert queue.next_due() == now + pause
        now += pause
        (work,) = queue.take(now)
        queue.finished(now)
        attempts = work.attempts
        assert attempts >= 1
    assert queue.repeat(key, reason, now, attempts) is endless
    assert len(queue) == endless


def test_work_that_is_never_postponed_is_not_repeated():
    queue = begun()
    assert not queue.repeat(ONE, Reason.SETTINGS, 0.0, 0)
    assert len(queue) == 0


def test_work_is_put_back_with_reasons_that_still_hold():
    queue = begun()
    assert queue.repeat(EVERYTHING, Reason.NOT_ASKED, 0.0, 0, frozenset({Reason.LOST}))
    assert queue.holds(EVERYTHING, Reason.LOST)
    assert queue.next_due() == 1.0


def test_a_message_begins_the_attempts_anew():
    queue = begun()
    queue.repeat(ONE, Reason.FAILED, 0.0, 2)
    queue.add(ONE, Reason.WRITTEN, 1.0, quiet=QUIET)
    (work,) = queue.take(1.0 + QUIET)
    assert (work.attempts, work.reasons, work.first) == (0, {Reason.FAILED, Reason.WRITTEN}, 0.0)


def test_an_answer_makes_open_questions_due():
    queue = begun()
    queue.repeat(ONE, Reason.NOT_ASKED, 0.0, 3)
    queue.repeat(OTHER, Reason.FAILED, 0.0, 2)
    queue.repeat(EVERYTHING, Reason.NOT_ASKED, 0.0, 3)
    queue.hasten(Reason.NOT_ASKED, 10.0)
    assert taken(queue, 10.0) == {ONE: {Reason.NOT_ASKED}}
    assert queue.next_due() == 11.0  # EVERYTHING, after the shortest of its pauses
    queue.hasten(Reason.NOT_ASKED, 10.9)
    assert queue.next_due() == 11.0  # and is not postponed by further answers


def test_a_message_that_waits_is_not_made_due_by_an_answer():
    queue = begun()
    queue.add(ONE, Reason.WRITTEN, 0.0, quiet=QUIET)
    queue.hasten(Reason.WRITTEN, 0.0)
    assert queue.next_due() == QUIET


def test_everything_is_taken_again_until_it_is_finished():
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 0.0)
    (first,) = queue.take(0.0)
    assert (queue.next_due(), len(queue), queue.reasons_of(EVERYTHING)) == (0.0, 1, {Reason.LOST})
    assert not queue.holds(EVERYTHING, Reason.LOST)
    assert queue.take(0.0) == (first,)
    queue.add(EVERYTHING, Reason.REQUESTED, 0.0)
    assert queue.take(0.0) == (first,)  # what was added meanwhile begins when this one is finished
    assert queue.reasons_of(EVERYTHING) == {Reason.LOST, Reason.REQUESTED}
    queue.finished(0.0)
    assert taken(queue, 0.0) == {EVERYTHING: {Reason.REQUESTED}}
    queue.finished(0.0)
    assert (queue.next_due(), len(queue)) == (None, 0)


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (4.0, 4.0), (REST, REST), (3 * REST, REST)])
def test_messages_that_are_lost_again_and_again_leave_half_the_time_to_others(took, rest):
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 10.0)
    queue.take(10.0)
    end = 10.0 + took
    queue.take(end)  # its last slice
    queue.add(EVERYTHING, Reason.LOST, end)
    queue.finished(end)
    assert queue.next_due() == end + rest
    assert rest == 0.0 or queue.take(end + rest - 0.01) == ()
    queue.add(ONE, Reason.APPEARED, end)
    assert ONE in taken(queue, end)
    assert taken(queue, end + rest) == {EVERYTHING: {Reason.LOST}}


def test_the_first_loss_after_a_comparison_that_a_user_asked_for_does_not_wait():
    queue = begun()
    queue.add(EVERYTHING, Reason.REQUESTED, 0.0)
    queue.take(0.0)
    queue.finished(8.0)
    queue.add(EVERYTHING, Reason.LOST, 8.0)
    assert queue.next_due() == 8.0


@pytest.mark.parametrize("reason", [Reason.REQUESTED, Reason.SETTINGS, Reason.TIMER])
def test_what_a_user_asks_for_does_not_wait_after_a_comparison(reason):
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 0.0)
    queue.take(0.0)
    queue.finished(8.0)
    queue.add(EVERYTHING, Reason.LOST, 8.0)
    queue.add(EVERYTHING, reason, 8.0)
    assert taken(queue, 8.0) == {EVERYTHING: {Reason.LOST, reason}}


def test_functions_come_before_everything_and_do_not_keep_it_waiting():
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 0.0)
    for sbdf in (ONE, OTHER):
        queue.add(sbdf, Reason.REQUESTED, 0.0)
    order = []
    for _ in range(4):
        order.append([work.key for work in queue.take(0.0)])
        queue.add(THIRD, Reason.REQUESTED, 0.0)
    assert order == [[ONE, OTHER], [EVERYTHING], [THIRD], [EVERYTHING]]


def test_without_whole_everything_waits():
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 0.0)
    assert queue.take(0.0, whole=False) == ()
    queue.add(ONE, Reason.REQUESTED, 0.0)
    assert taken(queue, 0.0, whole=False) == {ONE: {Reason.REQUESTED}}
    assert taken(queue, 0.0) == {EVERYTHING: {Reason.LOST}}
    assert queue.take(0.0, whole=False) == ()


def test_before_anything_else_everything_is_done_once():
    queue = Queue()
    queue.add(ONE, Reason.REQUESTED, 0.0)
    queue.add(EVERYTHING, Reason.TIMER, 0.0)
    assert taken(queue, 0.0) == {EVERYTHING: {Reason.TIMER}}


def test_the_store_is_due_some_seconds_after_the_first_action():
    queue = begun()
    for now in (0.0, 1.0, 4.9):
        queue.add(STORE, Reason.TIMER, now)
    assert queue.next_due() == 5.0
    assert taken(queue, 5.0) == {STORE: {Reason.TIMER}}


#  what the kernel told of a function, in order: whether it is taken before the messages have stopped
ARRIVED = [
    (["add"], True),
    (["add", "bind"], True),
    (["unbind"], False),
    (["bind"], False),
    (["remove", "add"], False),
    (["add", "remove"], False),
    (["add", "unbind"], False),
    (["add", "bind", "unbind"], False),
]
WORDS = {"add": Reason.APPEARED, "remove": Reason.DISAPPEARED}


#  what the kernel told of a function, in order: whether it may return to dom0
UNBOUND = [(["unbind"], True), (["unbind", "bind"], True), (["bind"], False), (["unbind", "remove"], False)]


@pytest.mark.parametrize(("told", "expected"), UNBOUND)
def test_what_lost_its_driver_and_stays_may_return(told, expected):
    queue = begun()
    queue.add(REGIONS, Reason.UNBOUND, 0.0)
    for word in told:
        queue.add(ONE, WORDS.get(word, Reason.OWNER), 0.0, quiet=QUIET, leaves=word == "unbind")
    assert queue.unbound() == ({ONE} if expected else set())
    assert taken(queue, 0.0) == {REGIONS: {Reason.UNBOUND}}  # at once, whatever waits
    queue.take(9.0)
    assert queue.unbound() == set()


@pytest.mark.parametrize("quiet", [QUIET, 2.0])
@pytest.mark.parametrize(("told", "expected"), ARRIVED)
def test_a_function_that_was_added_and_does_not_leave_may_be_seen_at_once(told, expected, quiet):
    queue = begun()
    for word in told:
        queue.add(ONE, WORDS.get(word, Reason.OWNER), 0.0, quiet=quiet, leaves=word == "unbind")
    queue.add(OTHER, Reason.WRITTEN, 0.0, quiet=QUIET)
    assert [work.key for work in queue.take_arrived()] == [ONE] * expected
    assert len(queue) == 2 - expected


def test_keys_are_found_by_reason():
    queue = begun()
    queue.add(ONE, Reason.WRITTEN, 0.0)
    queue.add(OTHER, Reason.OWNER, 0.0)
    queue.add(EVERYTHING, Reason.WRITTEN, 0.0)
    assert queue.keys_with(Reason.WRITTEN) == {ONE, EVERYTHING}
    assert queue.keys_with(Reason.LOST) == set()
    assert queue.holds(OTHER, Reason.OWNER)
    assert not queue.holds(OTHER, Reason.WRITTEN)
    assert not queue.holds(THIRD, Reason.OWNER)


def test_files_that_wait_to_be_written_are_no_change():
    queue = Queue()
    queue.add(STORE, Reason.TIMER, 0.0)
    assert queue.take(4.0) == ()
    assert not queue.has_change(9.0, frozenset())
    queue.add(ONE, Reason.FAILED, 9.0)
    assert queue.has_change(99.0, frozenset())


def test_only_addresses_are_functions():
    work = [Work(key, frozenset(), 0.0, 0.0) for key in (ONE, *Whole)]
    assert keys_of(work) == {ONE}


def test_the_table_says_what_is_bounded():
    for (key, reason), delay in DELAYS.items():
        set_by_user = {(OWNERS, Reason.TIMER), (CONSOLE, Reason.LISTEN)}
        slow = reason is Reason.UNMAPPED or (key, reason) in set_by_user
        assert 0.0 <= delay.shortest <= delay.longest <= (3600.0 if slow else 60.0), (key, reason)
        assert all(delay.shortest <= pause <= delay.longest for pause in delay.pauses), (key, reason)
        assert list(delay.pauses) == sorted(delay.pauses)
    assert any(delay.pauses for delay in DELAYS.values())
    assert delay_of(ONE, Reason.FAILED) == DELAYS[PLACE, Reason.FAILED] != Delay(0.0, 0.0)
    assert delay_of(STORE, Reason.REQUESTED) == Delay(0.0, 0.0)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([ONE, OTHER, EVERYTHING, OWNERS, STORE]),
        st.sampled_from(list(Reason)),
        st.sampled_from([0.0, 0.01, 0.3, 1.0]),
        st.integers(0, 7),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(events=EVENTS)
def test_no_postponement_is_longer_than_its_row_of_the_table_says(events):
    """Whatever is added and whenever: a key is due at most as late as the latest of its reasons may be."""
    queue, now, latest = begun(), 0.0, {}
    for key, reason, wait, attempts, repeats in events:
        now += wait
        if repeats and not queue.repeat(key, reason, now, attempts):
            continue
        if not repeats:
            queue.add(key, reason, now, quiet=min(wait, LEAVING))
        bound = now + max(delay_of(key, reason).longest, 0.0)
        latest[key] = min(latest.get(key, bound), bound)
        if isinstance(key, Whole) and reason in MESSAGES and (key, reason) not in DELAYS:
            latest.pop(key)  # nobody adds it
    for key, bound in sorted(latest.items(), key=lambda pair: pair[1]):
        found = [work.key for _ in range(3) for work in queue.take(max(bound, now))]
        queue.finished(max(bound, now))
        latest_seen = set(found)
        for other in latest_seen:
            latest[other] = None
        assert latest[key] is None, f"{key} is not due at {bound}"


def test_reasons_and_keys_are_told_apart():
    for kind in (Reason, Whole):  # two names with one value would be one member
        assert list(kind.__members__.values()) == list(kind)


def test_a_request_and_a_timer_are_no_change():
    queue = begun()
    queue.add(ONE, Reason.REQUESTED, 0.0)
    queue.add(STORE, Reason.TIMER, 0.0)
    queue.add(EVERYTHING, Reason.REQUESTED, 0.0)
    assert not queue.has_change(9.0)
    queue.add(OTHER, Reason.WRITTEN, 9.0, quiet=QUIET)
    assert not queue.has_change(9.0)
    assert queue.has_change(9.0 + QUIET)


def test_everything_that_is_not_finished_is_a_change_if_messages_were_lost():
    queue = begun()
    queue.add(EVERYTHING, Reason.LOST, 0.0)
    queue.take(0.0)
    assert queue.has_change(0.0)
    queue.finished(0.0)
    assert not queue.has_change(0.0)
