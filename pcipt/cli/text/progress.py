"""Tells on the terminal that something takes long, and how far it is; anywhere else it says nothing.

A timer of the kernel calls, so that what is being done pays nothing for it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds of silence
INTERVAL = 0.5
CLEAR = "\r\033[K"


@contextmanager
def progress(what: str, far: Callable[[], str], *, beside_output: bool = False) -> Iterator[None]:
    """Show `what` and `far()` on stderr while this lasts, from the third second on.

    With `beside_output` lines appear on stdout meanwhile; where that is a terminal they say enough.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or (beside_output and sys.stdout.isatty()):
        yield
        return
    began, shown, terminal = time.monotonic(), False, sys.stderr.fileno()

    def show(_number: int, _frame: object) -> None:
        nonlocal shown
        shown = True
        seconds = int(time.monotonic() - began)
        # Not through sys.stderr: the program may be interrupted in the middle of a write to it.
        os.write(terminal, f"{CLEAR}pcipt: {what}: {far()}, {seconds} s".encode())

    before = signal.signal(signal.SIGALRM, show)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if shown:
            os.write(terminal, CLEAR.encode())
