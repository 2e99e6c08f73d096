"""Runs one seed, and looks for the shortest run that breaks in the same way."""

import re
import traceback

import attrs

from pcipt.xen.simulated.model import Catastrophe
from tests.simulation.simulation import Simulation


@attrs.frozen
class Outcome:
    """`step` is the last one; `why` is None if everything held."""

    step: int
    why: str | None = None

    @property
    def kind(self):
        """Tell it apart from others, whatever the addresses are."""
        return re.sub(r"0x[0-9a-f]+|\d+", "0", self.why or "")[:40]


def run(seed, steps, tell, only=None):
    simulation = Simulation(seed, steps, tell, only)
    try:
        simulation.run()
    except (Exception, Catastrophe) as error:  # noqa: BLE001 - whatever ends the daemon is found here
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, AssertionError) and last.name == "_hold" else f" in {last.name}"
        return Outcome(simulation.step, f"{type(error).__name__}{where}: {error}")
    return Outcome(simulation.step)


def shortest(seed, outcome):
    """Give the arguments of a run that is as short as can be: a prefix, then only the steps that it needs.

    Each prefix ends by coming to rest, so an invariant that was broken long before the end shows early.
    """

    def breaks(steps, only=None):
        return run(seed, steps, lambda _line: None, only).kind == outcome.kind

    low, high = 0, outcome.step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if breaks(middle) else (middle, high)
    if not breaks(high):
        return f"{seed} --steps {outcome.step}"
    only = list(range(1, high + 1))
    size = high // 2
    while size:
        place = 0
        while place < len(only):
            fewer = only[:place] + only[place + size :]
            if breaks(high, frozenset(fewer or [0])):
                only = fewer
            else:
                place += size
        size //= 2
    return f"{seed} --steps {high} --only {','.join(map(str, only)) or '0'}"
