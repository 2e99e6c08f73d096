"""A line on the terminal that shows that work takes long, and how much of it is done.

It is printed only if stderr is a terminal. A kernel timer triggers it, so the work itself has no overhead.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds before the line appears
INTERVAL = 0.5  # seconds between two updates
CLEAR = "\r\033[K"


@contextmanager
def progress(what: str, far: Callable[[], str], *, beside_output: bool = False) -> Iterator[None]:
    """Show `what`, the text from `far()` and the elapsed seconds as one line on stderr during the with-block.

    The line appears after two seconds, is updated every half second, and is erased at the end. No line is
    shown if stderr is not a terminal or $TERM is "dumb". With `beside_output` the with-block prints lines on
    stdout: no progress line is then shown if stdout is a terminal.

    `far` is called in a handler of SIGALRM, between two instructions of the with-block. So the with-block
    must run in the main thread and must not use SIGALRM.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or (beside_output and sys.stdout.isatty()):
        yield
        return
    import signal  # it makes enums of all signals, which only a terminal needs

    began, shown, terminal = time.monotonic(), False, sys.stderr.fileno()

    def show(_number: int, _frame: object) -> None:
        nonlocal shown
        shown = True
        seconds = int(time.monotonic() - began)
        # Not through sys.stderr: the signal may have interrupted a write to it.
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
