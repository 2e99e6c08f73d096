"""The states of what pcipt did to Xen, and the table of their changes (`LIFE`). Pure."""

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """The state of an entry of the ledger, or of a run of pages in `MappedPages`.

    INTENDED: a call to Xen is about to be made. HELD: the call succeeded, or vPCI mapped the pages. DOUBTFUL:
    the call failed, or pcipt was interrupted before the result was recorded, so nobody knows what Xen did.
    STALE, for pages only: the pages are mapped, and nobody needs them.
    """

    __hash__ = object.__hash__  # Enum's own runs in Python, at each step of the ledger

    INTENDED = "intended"
    HELD = "held"
    DOUBTFUL = "doubtful"
    STALE = "stale"


class Event(enum.Enum):
    """What happens to an action: its call to Xen is about to be made (INTEND), succeeded, or failed."""

    __hash__ = object.__hash__

    INTEND = "intend"
    PERFORMED = "performed"
    FAILED = "failed"


# (state before, or None without an entry; event): state after. Any other pair is refused.
LIFE: Mapping[tuple[State | None, Event], State] = {
    (None, Event.INTEND): State.INTENDED,
    (State.HELD, Event.INTEND): State.INTENDED,  # Xen forgot the function and is told of it again
    (State.DOUBTFUL, Event.INTEND): State.INTENDED,
    (State.INTENDED, Event.INTEND): State.INTENDED,  # pcipt was killed in between and starts over
    (State.INTENDED, Event.PERFORMED): State.HELD,
    (State.INTENDED, Event.FAILED): State.DOUBTFUL,
}
