"""Failures of calls to the simulated Xen that a test orders, and the log of calls."""

from collections.abc import Callable

from pcipt import values as attrs
from pcipt.pci import Frames, Sbdf
from pcipt.xen.mapping import Primitive
from pcipt.xen.outcome import Op


@attrs.frozen
class Call:
    """A call that was made: the functions or frames that it was about, and its result.

    `result` is 0 or -errno. None means that the call never returned, because it ended in a `Catastrophe`.
    `frames` is None except for map and unmap; for these `functions` is empty.
    """

    op: Op
    functions: tuple[Sbdf, ...]
    result: int | None
    frames: Frames | None = None


@attrs.define
class Fault:
    """A failure that a test ordered. It happens at the call of `op` that lowers `countdown` to 0.

    `performed` and `pages` are as in `SimulatedXen.fail`.
    """

    op: Op
    countdown: int
    errno: int
    performed: bool
    pages: int


class Faults:
    """The ordered failures that have not happened yet."""

    def __init__(self) -> None:
        self._ordered: list[Fault] = []

    def order(self, fault: Fault) -> None:
        """Add a failure."""
        self._ordered.append(fault)

    def clear(self) -> None:
        """Cancel all failures."""
        self._ordered.clear()

    def take(self, op: Op) -> Fault | None:
        """Subtract 1 from `countdown` of every ordered failure of `op`. Return the failure that happens now.

        A failure happens when its `countdown` is 0, and is then deleted. If several happen now, the one that
        was ordered first is returned. If none happens now, None is returned.
        """
        struck = None
        for fault in [fault for fault in self._ordered if fault.op is op]:
            fault.countdown -= 1
            if fault.countdown == 0:
                self._ordered.remove(fault)
                struck = struck or fault
        return struck


def failing_first_call(primitive: Callable[..., int], frames: Frames, fault: Fault | None) -> Primitive:
    """Return a function that calls `primitive`; the first such call has the ordered failure `fault`.

    If `fault.performed`, the first call fails after as many pages as `frames` has (the frames of the whole
    operation), else after `fault.pages` pages. Later calls have no ordered failure. If `fault` is None, the
    first call has none either.
    """
    waiting = [] if fault is None else [(frames.count if fault.performed else fault.pages, fault.errno)]

    def call(part: Frames) -> int:
        return primitive(part, failing=waiting.pop()) if waiting else primitive(part)

    return call
