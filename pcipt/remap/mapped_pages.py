"""Held state: which pages are mapped into dom0 for which BAR, by us or by vPCI, and since when. Pure.

Changed in place by one owner, so that a change costs the same whether ten functions are held or ten thousand.
A page may have several owners; it is mapped once. What vPCI does is only noted here; what pcipt does goes by
`intend`, then `performed` or `failed`, as in the table LIFE.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

import attrs

from pcipt.errors import AddressError, MalformedError
from pcipt.pci import Address, Frames, Range, Sbdf, frames_from_range, parse_sbdf
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.desired import ADDRESS_BITS, By
from pcipt.remap.intervals import Intervals, common, without
from pcipt.remap.life import State

MAPPED = (State.HELD, State.STALE)  # states in which the pages are certainly mapped


@attrs.frozen
class MappedRun:
    """One run of pages of one BAR. `since` is when it was mapped or first seen (UTC, RFC 3339).

    STALE is mapped and not wanted; INTENDED and DOUBTFUL may or may not be mapped.
    """

    place: str
    sbdf: Sbdf
    bar: int
    frames: Frames
    by: By
    since: str
    state: State = State.HELD


class MappedPages:
    """All runs that are held; those of one place and BAR never overlap."""

    def __init__(self, mapped: Iterable[MappedRun] = ()) -> None:
        self._places: dict[str, tuple[MappedRun, ...]] = {}  # each in order of BAR and frame
        self._index: Intervals[str] = Intervals()  # says which places to look at
        self._count = 0
        for holding in mapped:
            self.put(holding)

    def __iter__(self) -> Iterator[MappedRun]:
        """Yield them in order of place, BAR and frame."""
        for place in sorted(self._places):
            yield from self.of(place)

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MappedPages) and self._places == other._places

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    @property
    def places(self) -> Iterable[str]:
        return self._places.keys()

    def of(self, place: str) -> list[MappedRun]:
        """List what is held for one place, in order of BAR and frame."""
        return list(self._places.get(place, ()))

    def over(self, frames: Frames) -> list[MappedRun]:
        """List the runs of any owner that share pages with these."""
        places = dict.fromkeys(place for _, place in self._index.over(frames))
        return [held for place in places for held in self._places[place] if held.frames.overlaps(frames)]

    def put(self, holding: MappedRun) -> None:
        """Hold a run; what the same BAR held of these pages before is replaced."""
        held = self._places.get(holding.place, ())
        if any(one.bar == holding.bar and one.frames == holding.frames for one in held):
            self._places[holding.place] = tuple(
                holding if (one.bar, one.frames) == (holding.bar, holding.frames) else one for one in held
            )
            return
        self.take(holding.place, holding.bar, holding.frames)
        self._add(holding)

    def take(self, place: str, bar: int, frames: Frames) -> None:
        """Let go of these pages for one BAR; a run that reaches beyond them is cut."""
        for held in self._places.get(place, ()):
            if held.bar == bar and held.frames.overlaps(frames):
                self._remove(held)
                for rest in without((held.frames,), (frames,)):
                    self._add(attrs.evolve(held, frames=rest))

    def mark(self, place: str, bar: int, frames: Frames, state: State) -> None:
        """Give these pages of one BAR, as far as they are held, another state."""
        for held in self._places.get(place, ()):
            if held.bar == bar and held.frames.overlaps(frames):
                for part in common((held.frames,), (frames,)):
                    self.put(attrs.evolve(held, frames=part, state=state))

    def moved(self, place: str, sbdf: Sbdf) -> None:
        """Follow a renumbering: the place answers at another address."""
        for held in self.of(place):
            if held.sbdf != sbdf:
                self._remove(held)
                self._add(attrs.evolve(held, sbdf=sbdf))

    def intend(self, action: MapMmio | UnmapMmio, when: str) -> None:
        """Note what is about to be done: from now on nobody knows whether these pages are mapped."""
        self._cover(action, when, State.INTENDED)

    def performed(self, action: MapMmio | UnmapMmio, when: str) -> None:
        if isinstance(action, MapMmio):
            self._cover(action, when, State.HELD)
        else:
            self.take(action.place, action.bar, action.frames)

    def failed(self, action: MapMmio | UnmapMmio, when: str) -> None:
        """Note a failure. After a failed map nothing of its range is certain, whoever it belonged to.

        Source: tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping: it undoes by unmapping the whole range,
                and that ends at the first page that is not mapped; the errno is the undoing's.
        """
        self._cover(action, when, State.DOUBTFUL)
        if isinstance(action, MapMmio):
            for held in self.over(action.frames):
                self.mark(held.place, held.bar, action.frames, State.DOUBTFUL)

    def forsake(self, place: str) -> None:
        """Note that the function of a place was seen to leave: nobody unmaps for it, whatever comes next."""
        for held in self.of(place):
            if held.state is State.HELD:
                self.mark(place, held.bar, held.frames, State.STALE)

    def settle(self) -> bool:
        """Turn what a crash left intended into doubt, so that it is planned anew; tells whether any was."""
        open_ones = [held for held in self if held.state is State.INTENDED]
        for held in open_ones:
            self.mark(held.place, held.bar, held.frames, State.DOUBTFUL)
        return bool(open_ones)

    def copy(self) -> "MappedPages":
        return MappedPages(self)

    def _cover(self, action: MapMmio | UnmapMmio, when: str, state: State) -> None:
        """Hold the pages of an action; vPCI's stay vPCI's also where a call of ours concerns them."""
        before = (held for held in self.of(action.place) if held.bar == action.bar)
        by = next((held.by for held in before if held.frames.overlaps(action.frames)), By.US)
        self.put(MappedRun(action.place, action.sbdf, action.bar, action.frames, by, when, state))

    def _add(self, holding: MappedRun) -> None:
        held = (*self._places.get(holding.place, ()), holding)
        self._places[holding.place] = tuple(sorted(held, key=_order)) if len(held) > 1 else held
        self._index.add(holding.frames, holding.place)
        self._count += 1

    def _remove(self, holding: MappedRun) -> None:
        left = tuple(held for held in self._places[holding.place] if _order(held) != _order(holding))
        if left:
            self._places[holding.place] = left
        else:
            del self._places[holding.place]
        self._index.discard(holding.frames, holding.place)
        self._count -= 1


_order = attrgetter("bar", "frames.start")


def mapped_to_json(mapped: Iterable[MappedRun]) -> list[dict[str, object]]:
    return [
        {
            "place": held.place,
            "sbdf": str(held.sbdf),
            "bar": held.bar,
            "start": hex(held.frames.range.start),
            "size": held.frames.range.size,
            "by": held.by.value,
            "since": held.since,
            "state": held.state.value,
        }
        for held in mapped
    ]


def mapped_from_json(value: object, source: str = "mappings") -> MappedPages:
    """Read them back.

    Raises: MalformedError for anything that `mapped_to_json` does not write.
    """
    if not isinstance(value, list):
        raise MalformedError(source, 0, "not a list of mappings")
    try:
        return MappedPages(_holding(entry) for entry in value)
    except (KeyError, TypeError, ValueError, AttributeError, AddressError) as error:
        raise MalformedError(source, 0, f"not a list of mappings: {error!r}") from error


def _holding(entry: Any) -> MappedRun:
    span = Range(Address(int(str(entry["start"]), 16)), int(entry["size"]))
    frames = frames_from_range(span)
    if span.start < 0 or span.size < 1 or span.last >> ADDRESS_BITS or frames.range != span:
        raise ValueError(f"no whole pages: {entry['start']}, {span.size} bytes")
    return MappedRun(
        str(entry["place"]), parse_sbdf(str(entry["sbdf"])), int(entry["bar"]), frames,
        By(entry["by"]), str(entry["since"]), State(entry["state"]),
    )  # fmt: skip
