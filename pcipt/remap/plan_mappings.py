"""Mappings: what is desired minus what is held, for the functions that changed or for all. Pure.

Input: `Desired` of some places (`desired_of`, or `gone` if Linux has dropped the function), and the mapped
pages of all places. Unmaps come before maps; one run of pages of one BAR is one action. A page that another
BAR holds or now needs stays mapped, whoever leaves. What vPCI maps and unmaps itself is noted, never repeated
by pcipt.
"""

from collections.abc import Iterable, Sequence

import attrs

from pcipt.pci import Frames, Sbdf, frames_from_range
from pcipt.pci.bars import ROM_INDEX
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import By, Desired, DesiredBar
from pcipt.remap.intervals import Intervals, common, without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MAPPED, MappedPages, MappedRun

Owner = tuple[str, int]  # place, BAR


@attrs.frozen
class Run:
    """Pages of one BAR of one place; an empty `since` is now.

    What is DOUBTFUL is yet to be mapped by an action of the plan, what is STALE to be unmapped.
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
    """`left` and `taken` are pages that an owner no longer has, or has now, without any call to Xen; `moved`
    are places that answer at another address.

    `note` takes these in, before the actions are performed: they are facts, in observe mode as well.
    """

    actions: tuple[UnmapMmio | MapMmio, ...] = ()
    left: tuple[Run, ...] = ()
    taken: tuple[Run, ...] = ()
    moved: tuple[tuple[str, Sbdf], ...] = ()


def plan_mappings(
    desired: Iterable[Desired], mapped: MappedPages, bars: BarIndex | None = None, *, missed: bool = False
) -> MappingPlan:
    """Plan for these places; each place at most once. Same input, same plan, whatever the order.

    With the present `bars` an unmap is cut where another function's BAR begins or ends: the guard that keeps
    that BAR's pages then keeps no others. With `missed` a function may have left and another one come in its
    place without being seen: then nobody knows whether vPCI has unmapped what is no longer claimed.
    """
    return _Planner(sorted(desired, key=_place), mapped, bars or BarIndex(), missed=missed).plan()


def note(plan: MappingPlan, mapped: MappedPages, when: str) -> None:
    """Note in `mapped` what needs no call."""
    for place, sbdf in plan.moved:
        mapped.moved(place, sbdf)
    for run in plan.left:
        mapped.take(run.place, run.bar, run.frames)
    for run in plan.taken:
        since = run.since or when
        mapped.put(MappedRun(run.place, run.sbdf, run.bar, run.frames, run.by, since, run.state))


def name_of_bar(bar: int) -> str:
    return "ROM" if bar == ROM_INDEX else f"BAR {bar}"


def _place(desired: Desired) -> str:
    return desired.place


class _Planner:
    def __init__(
        self, desired: Sequence[Desired], mapped: MappedPages, bars: BarIndex, *, missed: bool
    ) -> None:
        self._missed = missed
        self._desired = desired
        self._mapped = mapped
        self._bars = bars
        self._by = {each.place: each.by for each in desired}
        self._claimed: Intervals[Owner] = Intervals(
            (span, (wanted.place, wanted.bar))
            for each in desired
            for wanted in each.bars
            for span in wanted.spans
        )
        self._losing: Intervals[Owner] = Intervals()  # pages that an owner has and does not claim
        self._dropped: Intervals[Owner] = Intervals()  # those of them that vPCI has unmapped
        self._unmapped: Intervals[Owner] = Intervals()
        self._lost: list[tuple[Desired, MappedRun, tuple[Frames, ...]]] = []
        self._unmaps: dict[Owner, tuple[Desired, list[Frames]]] = {}
        self._maps: dict[Owner, list[MapMmio]] = {}
        self._left: list[Run] = []
        self._taken: list[Run] = []
        self._moved: list[tuple[str, Sbdf]] = []

    def plan(self) -> MappingPlan:
        certain = [each for each in self._desired if each.hold_reason is None]
        held = [(each, self._mapped.of(each.place)) for each in certain]
        for each, runs in held:
            self._find_lost(each, runs)
        for each, run, pages in self._lost:
            self._leave(each, run, pages)
        for each, runs in held:
            for wanted in each.bars:
                self._take(each, wanted, [run for run in runs if run.bar == wanted.bar])
        self._restore_shared()
        unmaps = [action for _, action in sorted(self._unmap_actions())]
        maps = [action for owner in sorted(self._maps) for action in self._maps[owner]]
        return MappingPlan((*unmaps, *maps), tuple(self._left), tuple(self._taken), tuple(self._moved))

    def _find_lost(self, each: Desired, runs: list[MappedRun]) -> None:
        """Find what is held and no longer claimed, before anything is decided about it."""
        if any(run.sbdf != each.sbdf for run in runs):
            self._moved.append((each.place, each.sbdf))
        spans = {wanted.bar: wanted.spans for wanted in each.bars}
        for run in runs:
            claimed = spans.get(run.bar, ())
            pages = () if claimed == (run.frames,) else without((run.frames,), claimed)
            if not pages:
                continue
            self._lost.append((each, run, pages))
            owner = (run.place, run.bar)
            for page in pages:
                self._losing.add(page, owner)
                if _vpci_unmaps(each, run):
                    self._dropped.add(page, owner)

    def _leave(self, each: Desired, run: MappedRun, pages: tuple[Frames, ...]) -> None:
        """Decide who unmaps what an owner has lost: vPCI, we, or nobody because another needs it."""
        owner = (run.place, run.bar)
        needed: tuple[Frames, ...] = pages
        if self._missed or not _vpci_unmaps(each, run):
            needed = common(pages, self._needed(pages, owner))
            ours = without(pages, needed)
            if ours:
                self._unmaps.setdefault(owner, (each, []))[1].extend(ours)
            for page in ours:
                self._unmapped.add(page, owner)
                if run.state is State.HELD:  # until it is done, and if it is refused
                    self._taken.append(
                        Run(run.place, each.sbdf, run.bar, page, run.by, run.since, State.STALE)
                    )
        self._left += [Run(run.place, each.sbdf, run.bar, page, run.by) for page in needed]

    def _needed(self, pages: Iterable[Frames], owner: Owner) -> list[Frames]:
        """List pages that stay mapped for others, or that another action of this plan unmaps already."""
        found: list[Frames] = []
        for page in pages:
            found += [span for span, _ in self._claimed.over(page)]
            found += [span for span, _ in self._unmapped.over(page)]
            for held in self._mapped.over(page):
                other = (held.place, held.bar)
                if other != owner:
                    losing = [span for span, who in self._losing.over(held.frames) if who == other]
                    found += without((held.frames,), losing)
        return found

    def _take(self, each: Desired, wanted: DesiredBar, runs: list[MappedRun]) -> None:
        """Decide what a claim still needs: a map, or only a note."""
        if len(runs) == 1 and _is_satisfied(wanted, runs[0]):
            return
        certain = [run for run in runs if run.state in MAPPED]
        for run in certain:
            if run.by is not wanted.by or run.state is not State.HELD:
                self._taken += [
                    Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by, run.since)
                    for page in common((run.frames,), wanted.spans)
                ]
        missing = without(wanted.spans, [run.frames for run in certain])
        if wanted.by is By.XEN:  # vPCI has mapped it, but what a failed call of ours took from it
            unsure = [run.frames for run in runs if run.state not in MAPPED]
            needed = common(missing, unsure) if unsure else ()
        else:
            needed = without(missing, self._mapped_by_others(missing))
        self._taken += [
            Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by) for page in without(missing, needed)
        ]
        reason = f"{name_of_bar(wanted.bar)} decodes here, and {each.untrapped}"
        if wanted.by is By.XEN:
            reason = f"{name_of_bar(wanted.bar)} decodes here, and a call that failed may have unmapped it"
        if wanted.unsure:
            reason = f"{name_of_bar(wanted.bar)} came while it decoded from where vPCI maps none"
            self._taken += [
                Run(wanted.place, wanted.sbdf, wanted.bar, page, wanted.by, state=State.DOUBTFUL)
                for page in needed
            ]
        for page in needed:
            self._map(wanted, page, reason)
            # What another leaves behind without knowing whether it is mapped must not be forgotten meanwhile.
            for lost in self._doubtful_lost(page):
                self._taken.append(
                    Run(wanted.place, wanted.sbdf, wanted.bar, lost, wanted.by, state=State.DOUBTFUL)
                )

    def _doubtful_lost(self, page: Frames) -> tuple[Frames, ...]:
        unsure = [held.frames for held in self._mapped.over(page) if held.state not in MAPPED]
        return common((page,), unsure) if unsure else ()

    def _mapped_by_others(self, pages: Iterable[Frames]) -> tuple[Frames, ...]:
        """List pages that are mapped already and stay so."""
        held: list[Frames] = []
        dropped: list[Frames] = []
        for page in pages:
            held += [other.frames for other in self._mapped.over(page) if other.state in MAPPED]
            dropped += [span for span, _ in self._dropped.over(page)]
        return without(held, dropped) if held else ()

    def _restore_shared(self) -> None:
        """Map again what vPCI unmapped with a BAR of its own although one that pcipt maps shares the page."""
        for each, run, pages in self._lost:
            if not _vpci_unmaps(each, run):
                continue
            for page in pages:
                for held in self._mapped.over(page):
                    owner = (held.place, held.bar)
                    by = self._by.get(held.place, held.by)
                    if by is By.XEN or held.state not in MAPPED or owner == (run.place, run.bar):
                        continue
                    losing = [span for span, who in self._losing.over(page) if who == owner]
                    reason = (
                        f"{name_of_bar(held.bar)} shares the page with {run.sbdf}, whose BAR vPCI unmapped"
                    )
                    for part in without(common((held.frames,), (page,)), losing):
                        self._map(held, part, reason)
                        self._taken.append(
                            Run(held.place, held.sbdf, held.bar, part, By.US, held.since, State.DOUBTFUL)
                        )

    def _map(self, owner: DesiredBar | MappedRun, frames: Frames, reason: str) -> None:
        planned = self._maps.setdefault((owner.place, owner.bar), [])
        for part in without((frames,), [action.frames for action in planned]):
            planned.append(MapMmio(owner.sbdf, reason, owner.place, owner.bar, part))

    def _unmap_actions(self) -> Iterable[tuple[tuple[str, int, int], UnmapMmio]]:
        for (place, bar), (each, pages) in self._unmaps.items():
            reason = _reason_for_unmap(each, bar)
            for page in pages:
                others = [other for other in self._bars.over(page) if other.place != place]
                kept = common((page,), [frames_from_range(other.range) for other in others])
                for part in (*kept, *without((page,), kept)):
                    yield (place, bar, part.start), UnmapMmio(each.sbdf, reason, place, bar, part)


def _is_satisfied(wanted: DesiredBar, run: MappedRun) -> bool:
    return wanted.spans == (run.frames,) and run.state is State.HELD and run.by is wanted.by


def _vpci_unmaps(each: Desired, run: MappedRun) -> bool:
    """Whether vPCI has taken down a run that it had mapped itself; what was seen to leave it never unmaps."""
    return each.by is By.XEN and run.by is By.XEN and run.state is State.HELD


def _reason_for_unmap(each: Desired, bar: int) -> str:
    name = name_of_bar(bar)
    if each.gone:
        return f"the function has left the machine, and its {name} is still mapped"
    spans = next((wanted.spans for wanted in each.bars if wanted.bar == bar), ())
    if spans:
        return f"{name} is now at {spans[0].range.start:#x}: nothing decodes here any more"
    return f"{name} decodes nothing now, and {each.untrapped or 'pcipt had mapped it'}"
