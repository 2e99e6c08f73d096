"""The ledger: what pcipt did to Xen in this boot, and was about to do. Pure; daemon/store.py keeps the file.

Announcements, rewrites and reserved regions are entries, by the table LIFE: intended before the hypercall,
held once it is read back, doubtful after a failure or a crash in between. Pages that pcipt mapped are
`mapped` and live by the same states. Xen forgets everything at a reboot, so a ledger belongs to one boot
id. One owner changes it in place: a step costs the same however much is held.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import attrs

from pcipt.errors import AddressError, MalformedError, StateError
from pcipt.pci import Address, Frames, Range, Sbdf, frames_from_range, parse_sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.desired import By
from pcipt.remap.life import LIFE, Event, State
from pcipt.remap.mapped_pages import MappedPages, MappedRun, mapped_from_json, mapped_to_json

__all__ = ["LIFE", "Entry", "Event", "Key", "Ledger", "State", "ledger_from_json", "ledger_to_json"]

# The word of an action; the function and BAR it is about, or None and the first frame of a reserved region.
Key = tuple[str, Sbdf | None, int | None]


@attrs.frozen
class Entry:
    """One action taken (or about to be). `moved_from` is Linux's address of a renumbered function."""

    word: str
    sbdf: Sbdf
    state: State
    reason: str
    bar: int | None = None
    frames: Frames | None = None
    moved_from: Sbdf | None = None

    @property
    def key(self) -> Key:
        if self.frames is not None:
            return self.word, None, self.frames.start
        return self.word, self.sbdf, self.bar


class Ledger:
    """Changed in place by `step`; equal where entries and what pcipt mapped are equal.

    `mapped` also holds the pages that vPCI was seen to map. They are kept in a file of their own (`theirs`),
    because they can be seen again as long as the function is there. `messages_lost` is the time at which
    hot-plug messages were lost on a PVH dom0, else None: a function that was added and removed meanwhile may
    have left mapped pages that nobody can find.
    """

    def __init__(
        self,
        boot_id: str,
        entries: tuple[Entry, ...] = (),
        mapped: MappedPages | None = None,
        messages_lost: str | None = None,
    ) -> None:
        self.boot_id = boot_id
        self.messages_lost = messages_lost
        self.mapped = mapped if mapped is not None else MappedPages()
        self._entries: dict[Key, Entry] = {}
        self._followed: dict[Sbdf, tuple[Sbdf, ...]] = {}
        for entry in entries:
            self._put(entry)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ledger)
            and (self.boot_id, self._entries) == (other.boot_id, other._entries)
            and mapped_to_json(self.ours()) == mapped_to_json(other.ours())
        )

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, the latest step last."""
        return tuple(self._entries.values())

    def ours(self) -> list[MappedRun]:
        """List what pcipt mapped, is about to change or has to: what the ledger's own document has."""
        return [held for held in self.mapped if _is_ours(held)]

    def theirs(self) -> list[MappedRun]:
        """List what vPCI was seen to map, for the other document."""
        return [held for held in self.mapped if not _is_ours(held)]

    def find(self, word: str, sbdf: Sbdf | None, about: int | None = None) -> Entry | None:
        """Find an entry by its key."""
        return self._entries.get((word, sbdf, about))

    def added(self, known: AbstractSet[Sbdf]) -> list[Sbdf]:
        """List the functions that Xen knows because pcipt told it."""
        return sorted(e.sbdf for e in self._entries.values() if e.word == AddDevice.word and e.sbdf in known)

    def announced(self) -> set[Sbdf]:
        """List the addresses that Xen was told of, or was to forget: it may list them wherever they are."""
        return {e.sbdf for e in self._entries.values() if e.word in (AddDevice.word, RemoveDevice.word)}

    def followed(self) -> dict[Sbdf, tuple[Sbdf, ...]]:
        """Return at which addresses Xen was told of a renumbered function and may list it, by Linux's
        address.

        Shape:  kept up with each step: a caller must not change it.
        """
        return self._followed

    def step(self, action: Action, event: Event, when: str = "") -> "Ledger":
        """Record what is intended or what came of it, and give this ledger. `when` is kept of mappings.

        What is done and leaves nothing to hold has no entry: a removal takes that of the addition with it.
        Withdrawing and restoring a region take each other's. Pages are held, or no longer.
        Raises: StateError for a pair that LIFE does not have; the ledger is unchanged.
        """
        if isinstance(action, MapMmio | UnmapMmio):
            self._step_pages(action, event, when)
            return self
        key = _key(action)
        before = self._entries.get(key)
        after = _after(action, before.state if before is not None else None, event)
        self._drop(key)
        if after is not State.HELD or isinstance(action, AddDevice | WithdrawReserved | RestoreReserved):
            self._put(_entry(action, after))
        if after is State.HELD and isinstance(action, RemoveDevice):
            self._drop((AddDevice.word, action.sbdf, None))
        elif after is State.HELD and isinstance(action, WithdrawReserved | RestoreReserved):
            reverse = RestoreReserved if isinstance(action, WithdrawReserved) else WithdrawReserved
            self._drop((reverse.word, None, action.frames.start))
        return self

    def copy(self) -> "Ledger":
        """Return a ledger with the same entries and mapped pages, which may change alone."""
        return Ledger(self.boot_id, self.entries, self.mapped.copy(), self.messages_lost)

    def noted(self, action: Action, when: str = "") -> None:
        """Follow an action that is not applicable as if it were done, so that it is said once."""
        self.step(action, Event.INTEND, when)
        self.step(action, Event.PERFORMED, when)

    def reconciled(self, known: AbstractSet[Sbdf]) -> "Ledger":
        """Make the ledger in which is settled what a crash left open, by what Xen knows now.

        An addition that Xen knows is held, one that it does not know was never made or was undone: it goes,
        and is planned afresh if it is still wanted. A removal is over once Xen has forgotten the function.
        A rewrite is over: the register tells. Pages and regions have no read-back: what was intended is
        doubtful, and a doubtful page is mapped again where its claim still holds, unmapped where it is gone.
        """
        settled = []
        for entry in self._entries.values():
            if entry.word == AddDevice.word:
                settled += [attrs.evolve(entry, state=State.HELD)] if entry.sbdf in known else []
            elif entry.word == RemoveDevice.word:
                settled += [attrs.evolve(entry, state=State.DOUBTFUL)] if entry.sbdf in known else []
            elif entry.word != RewriteBar.word:
                state = State.DOUBTFUL if entry.state is State.INTENDED else entry.state
                settled.append(attrs.evolve(entry, state=state))
        mapped = self.mapped.copy()
        mapped.settle()
        return Ledger(self.boot_id, tuple(settled), mapped, self.messages_lost)

    def _put(self, entry: Entry) -> None:
        self._drop(entry.key)
        self._entries[entry.key] = entry
        if entry.word == AddDevice.word and entry.moved_from is not None:
            self._followed[entry.moved_from] = (*self._followed.get(entry.moved_from, ()), entry.sbdf)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None or entry.word != AddDevice.word or entry.moved_from is None:
            return
        others = tuple(sbdf for sbdf in self._followed[entry.moved_from] if sbdf != entry.sbdf)
        if others:
            self._followed[entry.moved_from] = others
        else:
            del self._followed[entry.moved_from]

    def _step_pages(self, action: MapMmio | UnmapMmio, event: Event, when: str) -> None:
        held = [
            run
            for run in self.mapped.of(action.place)
            if run.bar == action.bar and run.frames.overlaps(action.frames)
        ]
        open_now = any(run.state is State.INTENDED for run in held)
        _after(action, State.INTENDED if open_now else None, event)
        if event is Event.INTEND:
            self.mapped.intend(action, when)
        elif event is Event.PERFORMED:
            self.mapped.performed(action, when)
        else:
            self.mapped.failed(action, when)


def _is_ours(held: MappedRun) -> bool:
    return held.by is By.US or held.state is not State.HELD


def _after(action: Action, before: State | None, event: Event) -> State:
    if (before, event) not in LIFE:
        raise StateError(f"ledger: {action.word} {action.sbdf}: {event.value} does not follow {before}")
    return LIFE[before, event]


def _key(action: Action) -> Key:
    return _entry(action, State.INTENDED).key


def _entry(action: Action, state: State) -> Entry:
    return Entry(
        action.word,
        action.sbdf,
        state,
        action.reason,
        bar=action.bar if isinstance(action, RewriteBar) else None,
        frames=action.frames if isinstance(action, WithdrawReserved | RestoreReserved) else None,
        moved_from=action.moved_from if isinstance(action, AddDevice) else None,
    )


def ledger_to_json(ledger: Ledger) -> dict[str, object]:
    return {
        "boot_id": ledger.boot_id,
        "entries": [_entry_to_json(entry) for entry in ledger.entries],
        "mappings": mapped_to_json(ledger.ours()),
    }


def _entry_to_json(entry: Entry) -> dict[str, object]:
    body: dict[str, object] = {
        "action": entry.word,
        "sbdf": str(entry.sbdf),
        "state": entry.state.value,
        "reason": entry.reason,
    }
    if entry.bar is not None:
        body["bar"] = entry.bar
    if entry.frames is not None:
        body |= {"start": hex(entry.frames.range.start), "size": entry.frames.range.size}
    if entry.moved_from is not None:
        body["moved_from"] = str(entry.moved_from)
    return body


def ledger_from_json(value: object) -> Ledger:
    """Read a ledger back; one of the first format has no `mappings`.

    Raises: MalformedError for anything that `ledger_to_json` does not write.
    """
    if not isinstance(value, dict):
        raise MalformedError("ledger", 0, "not a ledger: no object")
    try:
        entries = tuple(_entry_from_json(entry) for entry in value["entries"])
        return Ledger(str(value["boot_id"]), entries, mapped_from_json(value.get("mappings", []), "ledger"))
    except (KeyError, TypeError, ValueError, AddressError) as error:
        raise MalformedError("ledger", 0, f"not a ledger: {error!r}") from error


def _entry_from_json(entry: Mapping[str, object]) -> Entry:
    frames = None
    if "start" in entry:
        span = Range(Address(int(str(entry["start"]), 16)), int(str(entry["size"])))
        frames = frames_from_range(span)
        if span.start < 0 or span.size < 1 or frames.range != span:
            raise ValueError(f"no whole pages: {entry['start']}, {span.size} bytes")
    return Entry(
        str(entry["action"]),
        parse_sbdf(str(entry["sbdf"])),
        State(entry["state"]),
        str(entry["reason"]),
        bar=int(str(entry["bar"])) if "bar" in entry else None,
        frames=frames,
        moved_from=parse_sbdf(str(entry["moved_from"])) if "moved_from" in entry else None,
    )
