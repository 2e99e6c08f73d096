"""How an intention becomes a fact: the states of what pcipt did, and the table of their changes."""

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """DOUBTFUL: it failed, or a crash came between, so nobody knows. STALE: mapped, and nobody wants it."""

    INTENDED = "intended"
    HELD = "held"
    DOUBTFUL = "doubtful"
    STALE = "stale"


class Event(enum.Enum):
    INTEND = "intend"
    PERFORMED = "performed"
    FAILED = "failed"


# (state before, None being no entry; event): state after. A pair that is not here is refused.
LIFE: Mapping[tuple[State | None, Event], State] = {
    (None, Event.INTEND): State.INTENDED,
    (State.HELD, Event.INTEND): State.INTENDED,  # Xen was made to forget it, and it is told again
    (State.DOUBTFUL, Event.INTEND): State.INTENDED,
    (State.INTENDED, Event.INTEND): State.INTENDED,  # we were killed in between, and start over
    (State.INTENDED, Event.PERFORMED): State.HELD,
    (State.INTENDED, Event.FAILED): State.DOUBTFUL,
}
