import os
import selectors
import signal
import socket

import pytest

from pcipt.daemon.loop import Loop, Signals


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_a_deadline_that_is_moved_fires_once_and_in_order(loop):
    seen = []
    loop.after("a", 60, lambda: seen.append("late"))
    loop.after("a", 0, lambda: seen.append("a"))
    loop.after("b", 0.01, lambda: (seen.append("b"), loop.stop()))
    loop.after("c", 0, lambda: seen.append("never"))
    loop.cancel("c")
    loop.run()
    assert seen == ["a", "b"]


def test_without_deadlines_it_waits_for_ever(loop):
    assert loop._timeout() is None
    loop.after("a", 5, loop.stop)
    assert 4 < loop._timeout() <= 5


def test_descriptors_call_back_and_can_be_forgotten(loop):
    here, there = socket.socketpair()
    seen = []

    def ready(events):
        seen.append((events, here.recv(10)))
        loop.forget(here.fileno())
        loop.stop()

    with here, there:
        loop.watch(here.fileno(), selectors.EVENT_READ, ready)
        there.send(b"x")
        loop.run()
        assert seen == [(selectors.EVENT_READ, b"x")]
        loop.forget(here.fileno())


def test_signals_arrive_in_the_loop_and_handlers_come_back(loop):
    before = signal.getsignal(signal.SIGHUP)
    seen = []
    signals = Signals(loop, {signal.SIGHUP: lambda: seen.append("hup"), signal.SIGTERM: loop.stop})
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    loop.run()
    signals.close()
    assert seen == ["hup"]
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_signal_is_pending_until_the_loop_has_handled_it(loop):
    signals = Signals(loop, {signal.SIGTERM: loop.stop})
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.pending == {signal.SIGTERM}
    loop.run()
    assert signals.pending == set()
    signals.close()


def test_before_each_wait_it_is_asked_what_to_wait_for(loop):
    seen = []

    def before():
        seen.append("before")
        if len(seen) == 1:
            loop.after("a", 0, lambda: seen.append("a"))
        elif len(seen) == 3:
            loop.after("b", 0, lambda: (seen.append("b"), loop.stop()))

    loop.before_waiting = before
    loop.run()
    assert seen == ["before", "a", "before", "b"]


def test_a_deadline_that_is_moved_before_a_wait_is_the_one_of_that_wait(loop):
    here, there = socket.socketpair()
    seen = []

    def ready(_events):
        here.recv(10)
        seen.append("ready")

    loop.before_waiting = lambda: loop.after("work", 0 if "ready" in seen else 60, loop.stop)
    with here, there:
        loop.watch(here.fileno(), selectors.EVENT_READ, ready)
        there.send(b"x")
        loop.run()
        loop.forget(here.fileno())
    assert seen == ["ready"]


def test_work_that_is_always_due_holds_up_no_descriptor(loop):
    here, there = socket.socketpair()
    turns = []

    def turn():
        turns.append(len(turns))
        if turns == [0, 1, 2]:
            there.send(b"x")

    loop.before_waiting = lambda: loop.after("work", 0, turn)
    with here, there:
        loop.watch(here.fileno(), selectors.EVENT_READ, lambda _: loop.stop())
        loop.run()
        loop.forget(here.fileno())
    assert turns == [0, 1, 2]
