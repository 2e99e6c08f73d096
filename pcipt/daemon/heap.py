"""Keeps the collector of garbage away from what the daemon reads first, which lives as long as the daemon."""

import gc
import linecache
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def first(work: Callable[[], Result]) -> Result:
    """Do the first work of a process, and return its result. No garbage is collected before it ends.

    Most of what it makes stays: collecting would walk thousands of new functions again and again, for a
    fifth of the time. What is left then counts as permanent (`gc.freeze`). The text of the methods that attrs
    has generated is dropped before: attrs keeps it for debuggers only, 1 MB of it.
    """
    linecache.clearcache()
    gc.disable()
    try:
        return work()
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
