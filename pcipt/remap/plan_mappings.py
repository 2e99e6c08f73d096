"""Plan the mappings: desired pages minus mapped pages, for the functions that changed or for all. Pure.

Input: `Desired` of some places (`desired_of`, or `gone` if Linux has dropped the function), and the mapped
pages of all places. Unmaps come before maps; one action has one run of pages of one BAR. A page that another
BAR needs, or has mapped and does not lose too, is not unmapped. Pages that vPCI maps and unmaps itself are
only recorded.
"""

from collections.abc import Collection, Iterable, Sequence

import attrs

from pcipt.pci import Frames, Sbdf, frames_from_range
from pcipt.pci.bars import ROM_INDEX, name_of_bar
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import CAME_FROM_OUTSIDE, By, Desired, DesiredBar
from pcipt.remap.intervals import Intervals, common, without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MAPPED, MappedPages, MappedRun
from pcipt.remap.steps import Noted

Owner = tuple[str, int]  # place, BAR


@attrs.frozen
class Run:
    """Pages of one BAR whose record changes without a call to Xen.

    If `since` is empty, the time of recording is used. `state` HELD: the pages are mapped. STALE: an action
    of the plan unmaps them. DOUBTFUL: an action of the plan maps them, or it is unknown whether they are
    mapped.
    """

    place: str
    sbdf: Sbdf
    bar: int
    frames: Frames
    by: By
    since: str = ""
    state: State = State.HELD


@attrs.frozen
class MappingPlan:
    """The calls to Xen (`actions`), and the changes of the record of mapped pages that need no call.

    `left` are pages to remove from the record of a BAR, `taken` are pages to record for a BAR, `moved` are
    places with the new addresses of their functions. `note` records these three before the actions are
    performed, whether or not the settings allow any action, because they are facts.
    """

    actions: tuple[UnmapMmio | MapMmio, ...] = ()
    left: tuple[Run, ...] = ()
    taken: tuple[Run, ...] = ()
    moved: tuple[tuple[str, Sbdf], ...] = ()


def plan_mappings(
    desired: Iterable[Desired],
    mapped: MappedPages,
    bars: BarIndex | None = None,
    *,
    messages_lost: bool = False,
    given: Collection[str] = (),
) -> MappingPlan:
    """Return the plan for the places in `desired`, which must not have a place twice.

    Their order does not matter. Nothing is planned for a place with a `hold_reason`. An unmap is cut where a
    BAR of another function in `bars` begins or ends, so that a guard that refuses to unmap the pages of that
    BAR refuses no other pages. If `messages_lost` is True, one function may have taken the place of another
    unnoticed. Then nobody knows whether vPCI has unmapped the pages that are not desired any more, and pcipt
    unmaps them. `given` are places of functions that dom0 does not own now: vPCI does not spare pages that
    their BARs share with a BAR that it unmaps.

    Shape:  `actions`: unmaps sorted by place (as text), BAR number and first page; then maps sorted by place
            and BAR number.
    """
    return _Planner(
        sorted(desired, key=_place), mapped, bars or BarIndex(), messages_lost=messages_lost, given=given
    ).plan()


def note(plan: MappingPlan, mapped: MappedPages, when: str) -> list[Noted]:
    """Record in `mapped` the changes of a plan that need no call: `moved`, then `left`, then `taken`.

    `when` is the present time (UTC, RFC 3339). Return the steps that record `left` and `taken` on disk; not
    those of pages that pcipt mapped and that the plan unmaps: the intent of the unmap records them.
    """
    for place, sbdf in plan.moved:
        mapped.moved(place, sbdf)
    steps = [Noted(_recorded(run, when), held=False) for run in plan.left]
    steps += [Noted(_recorded(run, when), held=True) for run in plan.taken]
    for step in steps:
        step.record(mapped)
    return [step for step in steps if (step.run.by, step.run.state) != (By.US, State.STALE)]


def _recorded(run: Run, when: str) -> MappedRun:
    """Return a run of a plan as it is recorded at the time `when`."""
    return MappedRun(run.place, run.sbdf, run.bar, run.frames, run.by, run.since or when, run.state)


def _place(desired: Desired) -> str:
    """Return the place of desired pages, as a sort key."""
    return desired.place


class _Planner:
    """The working state of one call of `plan_mappings`.

    Pages that are mapped and not desired any more (lost pages) are collected for all places before any
    decision.
    """

    def __init__(
        self,
        desired: Sequence[Desired],
        mapped: MappedPages,
        bars: BarIndex,
        *,
        messages_lost: bool,
        given: Collection[str],
    ) -> None:
        self._given = given
        self._messages_lost = messages_lost
        self._desired = desired
        self._mapped = mapped
        self._bars = bars
        self._by = {each.place: each.by for each in desired}
        self._held = {each.place for each in desired if each.hold_reason is not None}
        self._wanted: Intervals[DesiredBar] = Intervals(
            (span, wanted) for each in desired for wanted in each.bars for span in wanted.spans
        )
        self._losing: Intervals[Owner] = Intervals()  # pages that an owner has mapped and does not need
        self._dropped: Intervals[Owner] = Intervals()  # pages of `_losing` that vPCI may have unmapped
        self._unmapped: Intervals[Owner] = Intervals()
        self._lost: list[tuple[Desired, MappedRun, tuple[Frames, ...]]] = []
        self._unmaps: dict[Owner, tuple[Desired, list[Frames]]] = {}
        self._maps: dict[Owner, list[MapMmio]] = {}
        self._left: list[Run] = []
        self._taken: list[Run] = []
        self._moved: list[tuple[str, Sbdf]] = []

    def plan(self) -> MappingPlan:
        """Return the plan. Call it only once for an object."""
        certain = [each for each in self._desired if each.hold_reason is None]
        places = [(each, self._mapped.of(each.place)) for each in certain]
        for each, runs in places:
            self._find_lost(each, runs)
        for each, run, pages in self._lost:
            self._decide_lost(each, run, pages)
        for each, runs in places:
            for wanted in each.bars:
                self._decide_desired(each, wanted, [run for run in runs if run.bar == wanted.bar])
        self._restore_shared()
        unmaps = [action for _, action in sorted(self._unmap_actions())]
        maps = [action for owner in sorted(self._maps) for action in self._maps[owner]]
        return MappingPlan((*unmaps, *maps), tuple(self._left), tuple(self._taken), tuple(self._moved))

    def _find_lost(self, each: Desired, runs: list[MappedRun]) -> None:
        """Collect the pages of a place that are mapped and not desired; note its address if it changed."""
        if any(run.sbdf != each.sbdf for run in runs):
            self._moved.append((each.place, each.sbdf))
        for run in runs:
            pages = without((run.frames,), each.spans(run.bar))
            self._lost.append((each, run, pages))
            owner = (run.place, run.bar)
            for page in pages:
                self._losing.add(page, owner)
                if _vpci_may_have_unmapped(each, run):
                    self._dropped.add(page, owner)

    def _decide_lost(self, each: Desired, run: MappedRun, pages: tuple[Frames, ...]) -> None:
        """Add to the plan what becomes of pages that a BAR has lost: an unmap, or only the record's removal.

        `pages` are the lost pages of `run`. They are unmapped, except these, of which only the record for
        this BAR is removed: all pages if vPCI has unmapped them itself and no messages were lost; a page that
        any BAR needs; a page that another BAR has mapped and does not lose too; a page that the plan unmaps
        for another BAR already. HELD pages that the plan unmaps are recorded as STALE.
        """
        owner = (run.place, run.bar)
        needed: tuple[Frames, ...] = pages
        if self._messages_lost or not _vpci_unmaps(each, run):
            needed = common(pages, self._needed(pages))
            ours = without(pages, needed)
            self._unmaps.setdefault(owner, (each, []))[1].extend(ours)
            for page in ours:
                self._unmapped.add(page, owner)
                if run.state is State.HELD:  # until the unmap is done, and if it is refused
                    self._taken.append(
                        Run(run.place, each.sbdf, run.bar, page, run.by, run.since, State.STALE)
                    )
        self._left += [Run(run.place, each.sbdf, run.bar, page, run.by) for page in needed]

    def _needed(self, pages: Iterable[Frames]) -> list[Frames]:
        """Return runs, in no particular order, that overlap `pages`, which a BAR loses, and must stay mapped.

        These are pages that any BAR desires, pages that a BAR has mapped and does not lose, and pages that
        the plan already unmaps for another BAR. A run is not cut to `pages`.
        """
        found: list[Frames] = []
        for page in pages:
            found += [span for span, _ in self._wanted.over(page)]
            found += [span for span, _ in self._unmapped.over(page)]
            for run in self._mapped.over(page):
                losing = [span for span, who in self._losing.over(run.frames) if who == (run.place, run.bar)]
                found += without((run.frames,), losing)
        return found

    def _decide_desired(self, each: Desired, wanted: DesiredBar, runs: list[MappedRun]) -> None:
        """Add to the plan what the desired pages of one BAR still need: a map by pcipt, or only a record.

        `runs` are the mapped runs of this BAR.
        """
        certain = [run for run in runs if _is_certain(wanted, run)]
        for run in certain:
            if run.by is not wanted.by or run.state is not State.HELD:
                self._taken += [
                    Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by, run.since)
                    for page in common((run.frames,), wanted.spans)
                ]
        missing = without(wanted.spans, [run.frames for run in certain])
        if wanted.by is By.XEN:  # vPCI has mapped all pages except those of which nobody knows
            needed = common(missing, [run.frames for run in runs if run.state not in MAPPED])
        else:
            needed = without(missing, self._mapped_by_others(missing))
        self._taken += [
            Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by) for page in without(missing, needed)
        ]
        reason = f"{name_of_bar(wanted.bar)} decodes here, and {each.untrapped}"
        if wanted.by is By.XEN:
            reason = f"{name_of_bar(wanted.bar)} decodes here, and nobody knows whether it is mapped"
        if wanted.unsure:
            reason = f"{name_of_bar(wanted.bar)} {wanted.because or CAME_FROM_OUTSIDE}"
            self._taken += [
                Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by, state=State.DOUBTFUL)
                for page in needed
            ]
        for page in needed:
            self._map(wanted, page, reason)
            # If this map fails, pages that another BAR loses and that may be mapped must not be forgotten.
            for lost in self._doubtful_lost(page):
                self._taken.append(
                    Run(wanted.place, wanted.sbdf, wanted.bar, lost, wanted.by, state=State.DOUBTFUL)
                )

    def _doubtful_lost(self, page: Frames) -> tuple[Frames, ...]:
        """Return the parts of `page` that are INTENDED or DOUBTFUL for any BAR; empty if there are none."""
        return common((page,), [run.frames for run in self._mapped.over(page) if run.state not in MAPPED])

    def _mapped_by_others(self, pages: Iterable[Frames]) -> tuple[Frames, ...]:
        """Return the HELD and STALE runs of any BAR that overlap `pages`, sorted by start.

        Pages that vPCI may have unmapped are cut out. A run is not cut to `pages`.
        """
        mapped: list[Frames] = []
        dropped: list[Frames] = []
        for page in pages:
            mapped += [other.frames for other in self._mapped.over(page) if other.state in MAPPED]
            dropped += [span for span, _ in self._dropped.over(page)]
        return without(mapped, dropped)

    def _restore_shared(self) -> None:
        """Plan to map pages again that vPCI may have unmapped for one BAR and that pcipt maps for another.

        The pages are also recorded as DOUBTFUL for the other BAR. If they are STALE for it and its place is
        not in the plan, nobody needs them: they are only recorded, and not mapped. So are those of a function
        that dom0 does not own: it needs them when it is back. Other places that are held stay as they are.
        Source: xen/drivers/vpci/header.c (modify_bars: it looks at the functions of the same domain).
        """
        for each, run, pages in self._lost:
            if not _vpci_may_have_unmapped(each, run):
                continue
            for page in pages:
                for other in self._mapped.over(page):
                    owner = (other.place, other.bar)
                    given = other.place in self._given
                    if other.state not in MAPPED or (other.place in self._held and not given):
                        continue
                    losing = [span for span, who in self._losing.over(page) if who == owner]
                    parts = without(common((other.frames,), (page,)), losing)
                    unneeded = given or (other.state is State.STALE and other.place not in self._by)
                    by = self._mapper_of(other, page)
                    own_rom = each.rom_unmaps and run.bar == ROM_INDEX and run.place == other.place
                    if by is By.XEN and not unneeded and not own_rom:
                        continue  # vPCI spares pages that another BAR of its own needs
                    unmapped = "unmapped" if _vpci_unmaps(each, run) else "may have unmapped"
                    reason = (
                        f"{name_of_bar(other.bar)} shares the page with {run.sbdf}, whose BAR vPCI {unmapped}"
                    )
                    for part in parts:
                        if not unneeded:
                            self._map(other, part, reason)
                        self._taken.append(
                            Run(other.place, other.sbdf, other.bar, part, by, other.since, State.DOUBTFUL)
                        )

    def _mapper_of(self, run: MappedRun, page: Frames) -> By:
        """Return who maps the pages of a run that overlap `page`: pcipt, if it maps any of them.

        A BAR that has grown behind vPCI has pages of both.
        """
        owner, mappers = (run.place, run.bar), set()
        for part in common((run.frames,), (page,)):
            over = (wanted for _, wanted in self._wanted.over(part))
            mappers |= {wanted.by for wanted in over if (wanted.place, wanted.bar) == owner}
        return By.US if By.US in mappers else self._by.get(run.place, run.by)

    def _map(self, owner: DesiredBar | MappedRun, frames: Frames, reason: str) -> None:
        """Plan to map pages of one BAR, except pages that the plan maps for this BAR already."""
        planned = self._maps.setdefault((owner.place, owner.bar), [])
        for part in without((frames,), [action.frames for action in planned]):
            planned.append(MapMmio(owner.sbdf, reason, owner.place, owner.bar, part))

    def _unmap_actions(self) -> Iterable[tuple[tuple[str, int, int], UnmapMmio]]:
        """Yield the unmaps, each with its sort key, cut where BARs of other functions begin and end.

        They are not sorted.
        """
        for (place, bar), (each, pages) in self._unmaps.items():
            reason = _reason_for_unmap(each, bar)
            for page in pages:
                others = [other for other in self._bars.over(page) if other.place != place]
                kept = common((page,), [frames_from_range(other.range) for other in others])
                for part in (*kept, *without((page,), kept)):
                    yield (place, bar, part.start), UnmapMmio(each.sbdf, reason, place, bar, part)


def _is_certain(wanted: DesiredBar, run: MappedRun) -> bool:
    """Return True if the pages of a run are certainly mapped.

    Pages that are recorded as vPCI's are not, if nobody knows whether vPCI maps them.
    """
    return run.state in MAPPED and not (wanted.unsure and run.by is By.XEN)


def _vpci_unmaps(each: Desired, run: MappedRun) -> bool:
    """Return True if vPCI itself has unmapped those pages of a run that are not desired any more.

    That is so if vPCI handles the function, mapped the run itself, and the run is HELD. When Linux removes a
    function, the runs of this function become STALE, because vPCI does not unmap them.
    """
    return each.by is By.XEN and run.by is By.XEN and run.state is State.HELD


def _vpci_may_have_unmapped(each: Desired, run: MappedRun) -> bool:
    """Return True if vPCI itself may have unmapped those pages of a run that are not desired any more.

    That is so if vPCI handles the function, except for STALE pages. vPCI may have mapped pages that pcipt
    mapped as well, and it may have unmapped pages of which a call of pcipt failed.
    """
    return each.by is By.XEN and run.state is not State.STALE


def _reason_for_unmap(each: Desired, bar: int) -> str:
    """Return the reason for unmapping pages of a BAR, in words for the user."""
    name = name_of_bar(bar)
    if each.gone:
        return f"the function has left the machine, and its {name} is still mapped"
    spans = each.spans(bar)
    if spans:
        return f"{name} is now at {spans[0].range.start:#x}: nothing decodes here any more"
    return f"{name} decodes nothing now, and {each.untrapped or 'pcipt had mapped it'}"
