from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.cli.text.clock import age, readable, seconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(0, 10**10))
def test_the_calendar_is_the_standard_librarys(passed):
    when = (EPOCH + timedelta(seconds=passed)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert seconds(when) == passed


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (-1, ""),  # the clock was set back
        (0, "0s"),
        (59, "59s"),
        (60, "1min"),
        (3_725, "1h 2min"),  # the two largest units, as systemctl has it
        (90_000, "1d 1h"),
        (40_000_000, "1y 97d"),
    ],
)
def test_an_age(passed, shown):
    assert age("1970-01-01T00:00:00.000Z", now=passed) == shown


def test_what_is_no_time_stays_as_it_is():
    assert readable("2026-11-22T19:11:32.381Z") == "2026-11-22 19:11:32 UTC"
    for text in ("", "yesterday", "2026-11"):
        assert (readable(text), age(text, now=0)) == (text, "")
