"""The ledger: what pcipt did to Xen in this boot, and what it was about to do.

Pure; daemon/store.py keeps the file.

Announcements, rewrites of BARs and reserved regions are entries. The table LIFE says how an entry changes:
INTENDED before the call to Xen, HELD after the call succeeded, DOUBTFUL after a failure or a crash in
between. Pages that pcipt mapped are in `mapped` and have the same states. Xen forgets everything at a reboot,
so a ledger belongs to one boot id. The owner of a ledger changes it in place, so that a step costs the same
for any number of entries.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import get_args

import attrs

from pcipt.errors import StateError
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    CheckUnmapped,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.desired import By
from pcipt.remap.kinds.ports import Ports
from pcipt.remap.life import LIFE, Event, State
from pcipt.remap.mapped_pages import MappedPages, MappedRun, mapped_to_json
from pcipt.remap.vpci.roster import Roster
from pcipt.remap.vpci.sizes import Sizes

__all__ = ["LIFE", "Entry", "Event", "Key", "Ledger", "State"]

# The word of an action; the function and BAR it is about, or None and the first frame of a reserved region.
Key = tuple[str, Sbdf | None, int | None]

WITH_FRAMES = (WithdrawReserved, RestoreReserved, CheckUnmapped)
_ANNOUNCEMENTS = (AddDevice.word, RemoveDevice.word)
# The actions whose entries stay in this state. What became of a rewrite is read back, a check has no record.
_STAYING: Mapping[State, tuple[type[Action], ...]] = {
    State.INTENDED: get_args(Action),
    State.HELD: (AddDevice, WithdrawReserved, RestoreReserved),
    State.DOUBTFUL: (AddDevice, RemoveDevice, WithdrawReserved, RestoreReserved),
}


@attrs.frozen
class Entry:
    """The record of one action that was taken or is about to be taken. Maps and unmaps have no entries.

    `word` is the word of the action, for example "add-device". `bar` is set for a rewrite only, `frames` for
    a reserved region only. `moved_from` is set only for an AddDevice action at the new address of a
    renumbered function: Linux has the function at `moved_from`, and Xen is told of it at `sbdf`. `late` is
    that of the AddDevice action, until the driver has been bound anew or Linux was asked to find one.
    `counted` is False only for a reserved region of which Xen listed no device then (`RestoreReserved`).
    `vfs_on` is that of the AddDevice action.
    """

    word: str
    sbdf: Sbdf
    state: State
    reason: str
    bar: int | None = None
    frames: Frames | None = None
    moved_from: Sbdf | None = None
    late: str | None = None
    vfs_on: bool = False
    counted: bool = True

    @property
    def key(self) -> Key:
        """The key of the entry: (word, None, first frame) for a reserved region, else (word, sbdf, bar)."""
        if self.frames is not None:
            return self.word, None, self.frames.start
        return self.word, self.sbdf, self.bar


class Ledger:
    """All entries and mapped pages (`mapped`) of the boot `boot_id`. `step` changes the ledger in place.

    `mapped` also holds the pages that vPCI was seen to map. The HELD runs of these pages (`theirs`) are
    stored in a file of their own, because pcipt can see them again as long as the function is there.
    `messages_lost` is when hot-plug messages were lost on a PVH dom0, when a start did not know what had come
    and left, or since when an earlier service could not write, else None: pages may be mapped unknown.
    `sizes` are by place the sizes that vPCI has of Resizable BARs (`remap.vpci.sizes`). `given_up` are the
    places of functions that vPCI does not handle any more, because it could not map a page (Xen 4.17 and
    4.18) or could not be set up when the function returned to dom0 (from 4.19 on), `faulty` those of
    functions whose MSI-X structure this Xen does not take, as they were when they answered last, `severed`
    those of conventional bridges whose shared entry of the IOMMU Xen has removed. `complaints`
    are those of Xen's console that last (`words_of`). `roster`: only on PVH.
    `ports`: what the settings police.
    """

    def __init__(
        self,
        boot_id: str,
        entries: tuple[Entry, ...] = (),
        mapped: MappedPages | None = None,
        messages_lost: str | None = None,
        sizes: Mapping[str, Sizes] = MappingProxyType({}),
        given_up: Iterable[str] = (),
        faulty: Iterable[str] = (),
        severed: Iterable[str] = (),
        complaints: Iterable[str] = (),
        roster: Roster | None = None,
        ports: Ports | None = None,
    ) -> None:
        self.boot_id, self.messages_lost = boot_id, messages_lost
        self.sizes = dict(sizes)
        self.given_up, self.faulty = set(given_up), set(faulty)
        self.severed, self.complaints = set(severed), set(complaints)
        self.roster, self.ports = roster or Roster(), ports or Ports()
        self.mapped = mapped if mapped is not None else MappedPages()
        self._entries: dict[Key, Entry] = {}
        self._followed: dict[Sbdf, tuple[Sbdf, ...]] = {}
        self._unsized: set[Sbdf] = set()
        for entry in entries:
            self._put(entry)

    def __eq__(self, other: object) -> bool:
        """Return True if boot id, entries and `ours` are equal. The rest is not compared."""
        return (
            isinstance(other, Ledger)
            and (self.boot_id, self._entries) == (other.boot_id, other._entries)
            and mapped_to_json(self.ours()) == mapped_to_json(other.ours())
        )

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries. The entry that was changed last is the last one."""
        return tuple(self._entries.values())

    def ours(self) -> list[MappedRun]:
        """Return the mapped runs of the ledger's own document: all except the HELD runs that vPCI mapped.

        These are the pages that pcipt mapped, is about to change, or must still change. Sorted by place, BAR
        number and first page.
        """
        return [run for run in self.mapped if _is_ours(run)]

    def theirs(self) -> list[MappedRun]:
        """Return the HELD runs that vPCI mapped, sorted as in `ours`; they have a document of their own."""
        return [run for run in self.mapped if not _is_ours(run)]

    def find(self, word: str, sbdf: Sbdf | None, about: int | None = None) -> Entry | None:
        """Return the entry with this key, or None. `word` is the word of its action.

        For a rewrite, `about` is the BAR number. For a reserved region, `sbdf` is None and `about` is the
        first frame. Else `about` is None.
        """
        return self._entries.get((word, sbdf, about))

    def added(self, known: AbstractSet[Sbdf]) -> list[Sbdf]:
        """Return the addresses in `known` that have an entry of an AddDevice action, in any state, sorted.

        `known` is what Xen lists.
        """
        return sorted(e.sbdf for e in self._entries.values() if e.word == AddDevice.word and e.sbdf in known)

    def late(self) -> dict[Sbdf, str]:
        """Return `Entry.late` of all functions that were added and have it, by address."""
        return {e.sbdf: e.late for e in self._entries.values() if e.late is not None and _is_held(e)}

    def late_at(self, sbdf: Sbdf) -> str | None:
        """Return `Entry.late` of the function that was added at an address, None if there is none."""
        entry = self._entries.get((AddDevice.word, sbdf, None))
        return entry.late if entry is not None and _is_held(entry) else None

    def set_late(self, sbdf: Sbdf, driver: str | None) -> None:
        """Replace `Entry.late` of the function that was added at an address; it must have an entry."""
        key = (AddDevice.word, sbdf, None)
        self._entries[key] = attrs.evolve(self._entries[key], late=driver)

    def announced(self) -> set[Sbdf]:
        """Return the addresses of all entries of AddDevice and RemoveDevice actions, in any state.

        Xen may list functions at these addresses.
        """
        return {e.sbdf for e in self._entries.values() if e.word in _ANNOUNCEMENTS}

    def followed(self) -> dict[Sbdf, tuple[Sbdf, ...]]:
        """Return the addresses at which pcipt told Xen of renumbered functions, by Linux's address.

        Xen may list a function at several such addresses; the one whose entry changed last is the last.
        Entries of AddDevice actions count in any state, also if the action is only intended or failed.
        Functions that were not renumbered are left out.

        Shape:  each step updates the returned dict; a caller must not change it.
        """
        return self._followed

    def unsized(self) -> frozenset[Sbdf]:
        """Return the addresses of the entries, in any state, whose `vfs_on` is True (`kinds.virtual`)."""
        return frozenset(self._unsized)

    def sized(self, sbdf: Sbdf) -> None:
        """Record that dom0's kernel told Xen of this function: the kernel switches VFs off before."""
        entry = self._entries.get((AddDevice.word, sbdf, None))
        if entry is not None and entry.vfs_on:
            self._put(attrs.evolve(entry, vfs_on=False))

    def step(self, action: Action, event: Event, when: str = "") -> "Ledger":
        """Record that an action is intended, succeeded or failed, and return this ledger.

        `when` (UTC, RFC 3339) is kept for maps and unmaps only. An action that failed is DOUBTFUL. When a
        removal succeeds, its entry is deleted. That of a rewrite is deleted when it succeeds or fails: the
        register shows the result. So is that of a check: it changes no record. A removal that succeeds also
        deletes the entry of the AddDevice action for the same address. A withdrawal that succeeds deletes the
        RestoreReserved entry of the same region, and vice versa. Pages of a map that succeeds become HELD.
        Pages of an unmap that succeeds are removed from the record.

        Raises: StateError if LIFE has no such change, for example if the action succeeded or failed without
                having been intended; the ledger is then unchanged.
        """
        if isinstance(action, MapMmio | UnmapMmio):
            self._step_pages(action, event, when)
            return self
        key = _key(action)
        before = self._entries.get(key)
        after = _after(action, before.state if before is not None else None, event)
        self._drop(key)
        if isinstance(action, _STAYING[after]):
            self._put(_entry(action, after, before))
        if after is State.HELD and isinstance(action, RemoveDevice):
            self._drop((AddDevice.word, action.sbdf, None))
        elif after is State.HELD and isinstance(action, WithdrawReserved | RestoreReserved):
            reverse = RestoreReserved if isinstance(action, WithdrawReserved) else WithdrawReserved
            self._drop((reverse.word, None, action.frames.start))
        return self

    def copy(self) -> "Ledger":
        """Return a ledger with the same content. Changes of the copy do not change this ledger."""
        return self._with(self.entries, self.mapped.copy())

    def noted(self, action: Action, when: str = "") -> None:
        """Record an action that is not applicable as done, so that it is not planned and reported again."""
        self.step(action, Event.INTEND, when)
        self.step(action, Event.PERFORMED, when)

    def reconciled(self, known: AbstractSet[Sbdf]) -> "Ledger":
        """Return a ledger in which the steps that a crash left open are settled. This ledger is unchanged.

        `known` is what Xen lists now. The entry of an AddDevice action becomes HELD if Xen lists the
        function; else it is deleted, and the action is planned again if it is still needed. The entry of a
        RemoveDevice action is deleted if Xen does not list the function, else it becomes DOUBTFUL. The entry
        of a rewrite is deleted: the register shows the result. That of a check is deleted: it changes no
        record. Regions and pages cannot be read back: INTENDED ones become DOUBTFUL. A DOUBTFUL page is later
        mapped again if it is still desired, else it is unmapped.
        """
        staying = {kind.word for kind in _STAYING[State.DOUBTFUL]}
        settled = []
        for entry in self._entries.values():
            if entry.word in _ANNOUNCEMENTS:
                settled += [_settled(entry)] if entry.sbdf in known else []
            elif entry.word in staying:
                open_now = entry.state is State.INTENDED
                settled.append(attrs.evolve(entry, state=State.DOUBTFUL) if open_now else entry)
        mapped = self.mapped.copy()
        mapped.settle()
        return self._with(tuple(settled), mapped)

    def settle(self, functions: AbstractSet[Sbdf], known: AbstractSet[Sbdf]) -> bool:
        """Correct the entries of AddDevice and RemoveDevice actions by what Xen lists (rule: `reconciled`).

        Only entries for the addresses `functions` are settled. `known` is what Xen lists now. Return True if
        an entry was changed or deleted.
        """
        keys = ((word, sbdf, None) for sbdf in functions for word in _ANNOUNCEMENTS)
        found = [entry for key in keys if (entry := self._entries.get(key)) is not None]
        changed = [entry for entry in found if entry.sbdf not in known or _settled(entry) != entry]
        for entry in changed:
            if entry.sbdf in known:
                self._put(_settled(entry))
            else:
                self._drop(entry.key)
        return bool(changed)

    def forget_count(self, frames: Frames) -> bool:
        """Note that Xen lists no device of a withdrawn region any more; return True if that was not known."""
        entry = self._entries.get((WithdrawReserved.word, None, frames.start))
        if entry is None or not entry.counted:
            return False
        self._put(attrs.evolve(entry, counted=False))
        return True

    def doubt_restored(self, frames: Frames) -> bool:
        """Note that Xen may have unmapped a region that pcipt restored; return True if that is new."""
        entry = self._entries.get((RestoreReserved.word, None, frames.start))
        if entry is None or entry.state is not State.HELD:
            return False
        self._put(attrs.evolve(entry, state=State.DOUBTFUL))
        return True

    def _with(self, entries: tuple[Entry, ...], mapped: MappedPages) -> "Ledger":
        """Return a ledger with these entries and mapped pages, and the rest of this ledger."""
        rest = (self.messages_lost, self.sizes, self.given_up, self.faulty, self.severed, self.complaints)
        return Ledger(self.boot_id, entries, mapped, *rest, self.roster.copy(), self.ports.copy())

    def _put(self, entry: Entry) -> None:
        """Add an entry as the last one, or replace the entry with the same key, and update `_followed`."""
        self._drop(entry.key)
        self._entries[entry.key] = entry
        if entry.vfs_on:
            self._unsized.add(entry.sbdf)
        if entry.moved_from is not None:
            self._followed[entry.moved_from] = (*self._followed.get(entry.moved_from, ()), entry.sbdf)

    def _drop(self, key: Key) -> None:
        """Remove the entry with this key, if there is one, and update `_followed`."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.vfs_on:
            self._unsized.discard(entry.sbdf)
        if entry is None or entry.moved_from is None:
            return
        others = tuple(sbdf for sbdf in self._followed.pop(entry.moved_from) if sbdf != entry.sbdf)
        if others:
            self._followed[entry.moved_from] = others

    def _step_pages(self, action: MapMmio | UnmapMmio, event: Event, when: str) -> None:
        """Record a step of a map or unmap in `mapped`.
        Raises: StateError if the call succeeded or failed and none of its pages is INTENDED.
        """
        runs = [
            run
            for run in self.mapped.of(action.place)
            if run.bar == action.bar and run.frames.overlaps(action.frames)
        ]
        open_now = any(run.state is State.INTENDED for run in runs)
        _after(action, State.INTENDED if open_now else None, event)
        if event is Event.INTEND:
            self.mapped.intend(action, when)
        elif event is Event.PERFORMED:
            self.mapped.performed(action, when)
        else:
            self.mapped.failed(action, when)


def _settled(entry: Entry) -> Entry:
    """Return the entry with another state, because Xen lists its function.

    An entry of an AddDevice action becomes HELD, and an entry of a RemoveDevice action becomes DOUBTFUL,
    whatever the state was.
    """
    return attrs.evolve(entry, state=State.HELD if entry.word == AddDevice.word else State.DOUBTFUL)


def _is_held(entry: Entry) -> bool:
    """Return True if an entry is HELD."""
    return entry.state is State.HELD


def _is_ours(run: MappedRun) -> bool:
    """Return True if a run is stored in the ledger's own document (`Ledger.ours`)."""
    return run.by is By.US or run.state is not State.HELD


def _after(action: Action, before: State | None, event: Event) -> State:
    """Return the state after an event. `before` is None if there is no entry.

    Raises: StateError if LIFE has no such change.
    """
    if (before, event) not in LIFE:
        raise StateError(f"ledger: {action.word} {action.sbdf}: {event.value} does not follow {before}")
    return LIFE[before, event]


def _key(action: Action) -> Key:
    """Return the key that the entry of an action has, whether the ledger has such an entry or not."""
    return _entry(action, State.INTENDED).key


def _entry(action: Action, state: State, before: Entry | None = None) -> Entry:
    """Return a new entry for an action, with this state. It is not put into a ledger.

    `before` is the entry that it replaces. Xen is told of a function again only to size its VF BARs: until
    that is done they are not sized, and what else the entry says stays.
    """
    again = before if before is not None and before.vfs_on else None
    return Entry(
        action.word,
        action.sbdf,
        state,
        action.reason,
        bar=action.bar if isinstance(action, RewriteBar) else None,
        frames=action.frames if isinstance(action, WITH_FRAMES) else None,
        moved_from=action.moved_from if isinstance(action, AddDevice) else None,
        late=again.late if again is not None else action.late if isinstance(action, AddDevice) else None,
        counted=action.counted if isinstance(action, WithdrawReserved | RestoreReserved) else True,
        vfs_on=isinstance(action, AddDevice)
        and (action.vfs_on or (again is not None and state is not State.HELD)),
    )
