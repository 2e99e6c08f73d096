"""Mapped pages: which pages are mapped into dom0, for which BAR, by pcipt or by vPCI, and since when. Pure.

One owner changes them in place, so that a change costs the same for ten functions and for ten thousand. A
page may be mapped for several BARs; in hardware it is mapped once. A call of pcipt to Xen is followed in two
steps, as in the table `LIFE`: `intend` before the call, then `performed` or `failed`. Pages that vPCI maps
and unmaps itself are only recorded (`put`, `take`).
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter

import attrs

from pcipt.errors import MalformedError
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.desired import By
from pcipt.remap.intervals import Intervals, common, without
from pcipt.remap.json_fields import Fields, bar_number, function, items, member, take_frames, text
from pcipt.remap.life import State

MAPPED = (State.HELD, State.STALE)  # states in which the pages are certainly mapped


@attrs.frozen
class MappedRun:
    """One run of pages that is recorded for one BAR.

    `place` and `bar` mean the same as in `DesiredBar`. `by` is who mapped the pages, pcipt or vPCI. `since`
    is when the pages were mapped or first seen, or when a call for them was last recorded (UTC, RFC 3339).
    HELD pages are mapped. STALE pages are mapped, and nobody needs them. INTENDED and DOUBTFUL pages may or
    may not be mapped.
    """

    place: str
    sbdf: Sbdf
    bar: int
    frames: Frames
    by: By
    since: str
    state: State = State.HELD


class MappedPages:
    """The mapped runs of all BARs. Two runs of the same place and BAR never overlap.

    Methods change it in place.
    """

    def __init__(self, mapped: Iterable[MappedRun] = ()) -> None:
        self._places: dict[str, tuple[MappedRun, ...]] = {}  # each in order of BAR and first page
        self._index: Intervals[str] = Intervals()  # page runs of all places
        self._count = 0
        for run in mapped:
            self.put(run)

    def __iter__(self) -> Iterator[MappedRun]:
        """Yield the runs sorted by place (as text), BAR number and first page."""
        for place in sorted(self._places):
            yield from self.of(place)

    def __len__(self) -> int:
        """Return the number of runs."""
        return self._count

    def __eq__(self, other: object) -> bool:
        """Return True if both have equal runs, their states and times included."""
        return isinstance(other, MappedPages) and self._places == other._places

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    @property
    def places(self) -> Iterable[str]:
        """The places that have at least one run, in no particular order."""
        return self._places.keys()

    def of(self, place: str) -> list[MappedRun]:
        """Return the runs of one place, sorted by BAR number and first page; empty if the place has none."""
        return list(self._places.get(place, ()))

    def over(self, frames: Frames) -> list[MappedRun]:
        """Return the runs, of any place and BAR, that share at least one page with `frames`.

        Runs are not cut to `frames`. The runs of one place are together, sorted by BAR number and first page;
        the places have no particular order.
        """
        places = dict.fromkeys(place for _, place in self._index.over(frames))
        return [run for place in places for run in self._places[place] if run.frames.overlaps(frames)]

    def put(self, run: MappedRun) -> None:
        """Record a run. It replaces what was recorded for the same pages of the same place and BAR.

        Pages of older runs that are not in the new run stay recorded.
        """
        runs = self._places.get(run.place, ())
        if any(one.bar == run.bar and one.frames == run.frames for one in runs):
            self._places[run.place] = tuple(
                run if (one.bar, one.frames) == (run.bar, run.frames) else one for one in runs
            )
            return
        self.take(run.place, run.bar, run.frames)
        self._add(run)

    def take(self, place: str, bar: int, frames: Frames) -> None:
        """Remove the pages `frames` from the runs of one BAR. The other pages of these runs stay recorded.

        Pages that are in no run are ignored.
        """
        for run in self._places.get(place, ()):
            if run.bar == bar and run.frames.overlaps(frames):
                self._remove(run)
                for rest in without((run.frames,), (frames,)):
                    self._add(attrs.evolve(run, frames=rest))

    def mark(self, place: str, bar: int, frames: Frames, state: State) -> None:
        """Set the state of the pages `frames` in the runs of one BAR. Pages that are in no run are ignored.

        If only a part of a run is in `frames`, the run is split, and the other part keeps its state.
        """
        for run in self._places.get(place, ()):
            if run.bar == bar and run.frames.overlaps(frames):
                for part in common((run.frames,), (frames,)):
                    self.put(attrs.evolve(run, frames=part, state=state))

    def moved(self, place: str, sbdf: Sbdf) -> None:
        """Set the address of all runs of a place to `sbdf`, because bus renumbering moved the function."""
        for run in self.of(place):
            if run.sbdf != sbdf:
                self._remove(run)
                self._add(attrs.evolve(run, sbdf=sbdf))

    def intend(self, action: MapMmio | UnmapMmio, when: str) -> None:
        """Record the pages of a call that is about to be made as INTENDED: they may or may not be mapped.

        `when` is the present time (UTC, RFC 3339) and becomes `since` of the run.
        """
        self._cover(action, when, State.INTENDED)

    def performed(self, action: MapMmio | UnmapMmio, when: str) -> None:
        """Record that a call succeeded: the pages of a map become HELD, the pages of an unmap are removed.

        `when` is as in `intend`.
        """
        if isinstance(action, MapMmio):
            self._cover(action, when, State.HELD)
        else:
            self.take(action.place, action.bar, action.frames)

    def failed(self, action: MapMmio | UnmapMmio, when: str) -> None:
        """Record that a call failed: its pages become DOUBTFUL. `when` is as in `intend`.

        If the call was a map, its pages also become DOUBTFUL for each other BAR that has a run with them,
        because libxc unmaps the whole range after a failed map. INTENDED ones stay: their own call follows.

        Source: tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping: the unmapping ends at the first page
                that is not mapped; the errno is then that of the unmapping.
        """
        self._cover(action, when, State.DOUBTFUL)
        if isinstance(action, MapMmio):
            others = [run for run in self.over(action.frames) if run.state is not State.INTENDED]
            for run in others:
                for part in common((run.frames,), (action.frames,)):
                    self.put(attrs.evolve(run, frames=part, state=State.DOUBTFUL))

    def forsake(self, place: str) -> None:
        """Record that the function of a place was removed: its HELD pages become STALE. Other states stay.

        Cause: vPCI does not unmap pages of a removed function, whether or not another function appears in its
        place.
        """
        for run in self.of(place):
            if run.state is State.HELD:
                self.mark(place, run.bar, run.frames, State.STALE)

    def settle(self) -> bool:
        """Change the state of all INTENDED pages to DOUBTFUL, after a crash.

        Return True if there were any.
        """
        open_ones = [run for run in self if run.state is State.INTENDED]
        for run in open_ones:
            self.mark(run.place, run.bar, run.frames, State.DOUBTFUL)
        return bool(open_ones)

    def copy(self) -> "MappedPages":
        """Return a copy. Changes of the copy do not change this object."""
        return MappedPages(self)

    def _cover(self, action: MapMmio | UnmapMmio, when: str, state: State) -> None:
        """Record the pages of an action in this state.

        If the BAR has runs that overlap these pages, the new record has the `by` of the first of them, else
        US.
        """
        before = (run for run in self.of(action.place) if run.bar == action.bar)
        by = next((run.by for run in before if run.frames.overlaps(action.frames)), By.US)
        self.put(MappedRun(action.place, action.sbdf, action.bar, action.frames, by, when, state))

    def _add(self, run: MappedRun) -> None:
        """Add a run, which must not overlap a run of the same place and BAR."""
        runs = (*self._places.get(run.place, ()), run)
        self._places[run.place] = tuple(sorted(runs, key=_order)) if len(runs) > 1 else runs
        self._index.add(run.frames, run.place)
        self._count += 1

    def _remove(self, run: MappedRun) -> None:
        """Remove a run, which must be there."""
        left = tuple(one for one in self._places[run.place] if _order(one) != _order(run))
        if left:
            self._places[run.place] = left
        else:
            del self._places[run.place]
        self._index.discard(run.frames, run.place)
        self._count -= 1


_order = attrgetter("bar", "frames.start")


def mapped_to_json(mapped: Iterable[MappedRun]) -> list[dict[str, object]]:
    """Return mapped runs as JSON values, in the given order, for the daemon's files and for `--json`.
    Units:  `size` in bytes; `start` is a byte address in hexadecimal.
    """
    return [
        {
            "place": run.place,
            "sbdf": str(run.sbdf),
            "bar": run.bar,
            "start": hex(run.frames.range.start),
            "size": run.frames.range.size,
            "by": run.by.value,
            "since": run.since,
            "state": run.state.value,
        }
        for run in mapped
    ]


def mapped_from_json(value: object, source: str = "mappings") -> MappedPages:
    """Return the mapped pages from the list that `mapped_to_json` wrote.

    `source` names the document in an error.
    Raises: MalformedError, which names item and field, if `value` is not a list, or if an item lacks a field,
            has an unknown one, or has one without a valid value.
    """
    try:
        return MappedPages(items(value, run_from_json))
    except ValueError as error:
        raise MalformedError(source, 0, f"not a list of mappings: {error}") from error


def run_from_json(entry: object) -> MappedRun:
    """Return one mapped run from its JSON object.
    Raises: ValueError, which names the field, if a field is missing, not known, or has no valid value.
    """
    fields = Fields(entry)
    run = MappedRun(
        fields.take("place", text), fields.take("sbdf", function), fields.take("bar", bar_number),
        take_frames(fields), fields.take("by", member(By)), fields.take("since", text),
        fields.take("state", member(State)),
    )  # fmt: skip
    fields.end()
    return run
