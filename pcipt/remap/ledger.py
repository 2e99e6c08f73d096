"""The ledger: what pcipt did to Xen in this boot, and was about to do. Pure; `service` keeps the file.

An entry lives by the table LIFE: intended before the hypercall, held once it is read back, doubtful after a
failure or a crash in between. Xen forgets everything at a reboot, so entries belong to one boot id.
"""

import enum
from collections.abc import Mapping

import attrs

from pcipt.errors import AddressError, MalformedError, StateError
from pcipt.pci import Sbdf, parse_sbdf
from pcipt.remap.actions import Action, AddDevice, RemoveDevice


class State(enum.Enum):
    INTENDED = "intended"
    HELD = "held"
    DOUBTFUL = "doubtful"


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


@attrs.frozen
class Entry:
    """One action taken (or about to be) on one function."""

    word: str
    sbdf: Sbdf
    state: State
    reason: str


@attrs.frozen
class Ledger:
    boot_id: str
    entries: tuple[Entry, ...] = ()

    def find(self, word: str, sbdf: Sbdf) -> Entry | None:
        return next((e for e in self.entries if e.word == word and e.sbdf == sbdf), None)

    def added(self, known: frozenset[Sbdf]) -> list[Sbdf]:
        """List the functions that Xen knows because pcipt told it."""
        return sorted(e.sbdf for e in self.entries if e.word == AddDevice.word and e.sbdf in known)

    def step(self, action: Action, event: Event) -> "Ledger":
        """Record what is intended or what came of it.

        A removal done leaves nothing to hold: it takes the entry of the addition with it.
        Raises: StateError for a pair that LIFE does not have; the ledger is unchanged.
        """
        before = self.find(action.word, action.sbdf)
        state = before.state if before is not None else None
        if (state, event) not in LIFE:
            raise StateError(f"ledger: {action.word} {action.sbdf}: {event.value} does not follow {state}")
        after = LIFE[state, event]
        rest = tuple(e for e in self.entries if e is not before)
        if isinstance(action, RemoveDevice) and event is Event.PERFORMED:
            return attrs.evolve(self, entries=tuple(e for e in rest if e.sbdf != action.sbdf))
        return attrs.evolve(self, entries=(*rest, Entry(action.word, action.sbdf, after, action.reason)))

    def reconciled(self, known: frozenset[Sbdf]) -> "Ledger":
        """Settle what a crash left open, by what Xen knows now.

        An addition that Xen knows is held, one that it does not know was never made or was undone: it goes,
        and is planned afresh if it is still wanted. A removal is over once Xen has forgotten the function.
        """
        settled = []
        for entry in self.entries:
            if entry.word == AddDevice.word and entry.sbdf in known:
                settled.append(attrs.evolve(entry, state=State.HELD))
            elif entry.word == RemoveDevice.word and entry.sbdf in known:
                settled.append(attrs.evolve(entry, state=State.DOUBTFUL))
        return attrs.evolve(self, entries=tuple(settled))


def ledger_to_json(ledger: Ledger) -> dict[str, object]:
    return {
        "boot_id": ledger.boot_id,
        "entries": [
            {"action": e.word, "sbdf": str(e.sbdf), "state": e.state.value, "reason": e.reason}
            for e in ledger.entries
        ],
    }


def ledger_from_json(value: object) -> Ledger:
    """Read a ledger back.

    Raises: MalformedError for anything that `ledger_to_json` does not write.
    """
    if not isinstance(value, dict):
        raise MalformedError("ledger", 0, "not a ledger: no object")
    try:
        entries = tuple(
            Entry(str(e["action"]), parse_sbdf(str(e["sbdf"])), State(e["state"]), str(e["reason"]))
            for e in value["entries"]
        )
        return Ledger(str(value["boot_id"]), entries)
    except (KeyError, TypeError, ValueError, AddressError) as error:
        raise MalformedError("ledger", 0, f"not a ledger: {error!r}") from error
