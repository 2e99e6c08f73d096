import contextlib
import os
import pty
import select
import signal
import sys

import pytest

from pcipt.cli.text import progress as module
from pcipt.cli.text.progress import progress

NO_TIMER = (0, 0)


@contextlib.contextmanager
def a_terminal(monkeypatch, term="xterm"):
    """Make stderr a terminal and give what reads it."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setenv("TERM", term)
        yield ours
    os.close(ours)


def is_silent(terminal):
    return select.select([terminal], [], [], 0)[0] == []


def test_what_takes_long_is_told_and_wiped_away(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with a_terminal(monkeypatch) as terminal:
        with progress("decoding", lambda: "40%"):
            assert select.select([terminal], [], [], 60)[0]
        shown = b""
        while not shown.endswith(b" s\r\033[K"):  # a terminal hands on in pieces
            assert select.select([terminal], [], [], 60)[0]
            shown += os.read(terminal, 4096)
    assert shown.startswith(b"\r\033[Kpcipt: decoding: 40%, 0 s")
    assert signal.getitimer(signal.ITIMER_REAL) == NO_TIMER


def test_what_is_quick_says_nothing(monkeypatch):
    with a_terminal(monkeypatch) as terminal:
        with progress("decoding", lambda: "40%"):
            assert signal.getitimer(signal.ITIMER_REAL) != NO_TIMER
        assert is_silent(terminal)
    assert signal.getitimer(signal.ITIMER_REAL) == NO_TIMER


@pytest.mark.parametrize(
    ("term", "beside"),
    [
        ("dumb", False),
        ("xterm", True),  # lines appear on the same terminal
    ],
)
def test_where_it_would_disturb_no_timer_runs(term, beside, monkeypatch):
    signal.setitimer(signal.ITIMER_REAL, 0)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with a_terminal(monkeypatch, term), progress("decoding", lambda: "40%", beside_output=beside):
        assert signal.getitimer(signal.ITIMER_REAL) == NO_TIMER


def test_without_a_terminal_no_timer_runs(monkeypatch):
    signal.setitimer(signal.ITIMER_REAL, 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with progress("decoding", lambda: "40%"):
        assert signal.getitimer(signal.ITIMER_REAL) == NO_TIMER
