from pcipt.daemon import limits
from pcipt.daemon.limits import Limits


def test_so_many_at_once_then_so_many_a_second():
    bucket = Limits(burst=2, per_second=1)
    told = [bucket.take("a", now) for now in (0, 0, 0, 0.5, 1, 1, 9, 9, 9)]
    assert told == [
        (True, 0), (True, 0),
        (False, 1), (False, 2),
        (True, 2),  # one second later there is room for one, which tells how many were held back
        (False, 1),
        (True, 1), (True, 0), (False, 1),  # long after there is room for the burst again, not for more
    ]  # fmt: skip


def test_keys_have_their_own_buckets():
    bucket = Limits(burst=1, per_second=0)
    assert [bucket.take(key, 0)[0] for key in "abab"] == [True, True, False, False]


def test_a_clock_that_goes_back_refills_nothing():
    bucket = Limits(burst=1, per_second=1)
    assert [bucket.take("a", now)[0] for now in (100, 50, 51)] == [True, False, True]


def test_a_bounded_number_of_keys_is_kept(monkeypatch):
    monkeypatch.setattr(limits, "KEYS", 2)
    bucket = Limits(burst=1, per_second=0)
    assert all(bucket.take(key, 0)[0] for key in "abc")
    assert not bucket.take("c", 0)[0]
    assert bucket.take("a", 0)[0]  # the one that was quiet longest was forgotten
