"""Failed actions: a few more attempts, each after a longer pause, then none until somebody asks."""

from pcipt.engine.attempts import PAUSES, Attempts


def test_what_never_failed_may_be_done():
    attempts = Attempts()
    assert attempts.may("a", 0)
    assert attempts.due is None


def test_pauses_grow_and_end():
    attempts, now = Attempts(), 100.0
    for pause in PAUSES:
        assert attempts.failed("a", now)
        assert attempts.due == now + pause
        assert not attempts.may("a", now + pause - 0.1)
        assert attempts.ripe(now + pause - 0.1) == []
        now += pause
        assert attempts.may("a", now)
        assert attempts.ripe(now) == ["a"]
    assert not attempts.failed("a", now)
    assert attempts.given_up("a")
    assert attempts.due is None
    assert not attempts.may("a", now + 1e9)


def test_success_and_a_reset_begin_anew():
    attempts = Attempts()
    attempts.failed("a", 0)
    attempts.failed("b", 0)
    attempts.over("a")
    assert attempts.may("a", 0)
    assert not attempts.may("b", 0)
    attempts.reset()
    assert attempts.may("b", 0)
    attempts.over("never heard of")


def test_one_does_not_hold_up_another():
    attempts = Attempts()
    attempts.failed("a", 0)
    attempts.failed("b", 5)
    assert attempts.due == PAUSES[0]
    assert attempts.ripe(PAUSES[0]) == ["a"]
