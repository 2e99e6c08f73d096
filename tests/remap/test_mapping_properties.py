"""The plan of mappings against a p2m of pages: whatever happens, what is needed is mapped and nothing else.

A small world: functions with BARs on a few pages, some handled by vPCI, some by pcipt; vPCI plays its part as
Xen does, pcipt performs its plan, and some of its calls fail with libxc's rollback.
"""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.remap.actions import MapMmio
from pcipt.remap.desired import By, Desired, DesiredBar, gone
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MAPPED, MappedPages, MappedRun, mapped_from_json, mapped_to_json
from pcipt.remap.plan_mappings import MappingPlan, note, plan_mappings

PAGES = 12
PLACES = [f"00_{number:02x}.0" for number in range(4)]
WHEN = "2026-01-01T00:00:00Z"


def pages_of(runs):
    return {page for run in runs for page in range(run.start, run.end)}


@attrs.frozen
class Need:
    """What a function asks for: by whom it is mapped, and the pages of each of its BARs."""

    by: By
    bars: tuple[tuple[int, int] | None, ...]  # first page and count
    held: bool = False

    def desired(self, place):
        sbdf = Sbdf(0, 0, PLACES.index(place), 0)
        if self.held:
            return Desired(place, sbdf, hold_reason="it belongs to domain 3", untrapped=self.untrapped)
        claims = tuple(
            DesiredBar(place, sbdf, index, (Frames(Gfn(bar[0]), bar[1]),), self.by)
            for index, bar in enumerate(self.bars)
            if bar is not None
        )
        return Desired(place, sbdf, claims, untrapped=self.untrapped)

    @property
    def untrapped(self):
        return None if self.by is By.XEN else "Xen does not know it"

    @property
    def pages(self):
        return {page for bar in self.bars if bar for page in range(bar[0], bar[0] + bar[1])}


GONE = None
BAR = st.one_of(
    st.none(),
    st.tuples(st.integers(0, PAGES - 1), st.integers(1, 4)).map(lambda b: (b[0], min(b[1], PAGES - b[0]))),
)
NEED = st.builds(Need, by=st.sampled_from(By), bars=st.tuples(BAR, BAR))
CHANGE = st.tuples(st.sampled_from(PLACES), st.one_of(st.just(GONE), NEED))


class World:
    """`p2m` is the truth, `mapped` what pcipt believes. vPCI acts as soon as a function changes."""

    def __init__(self):
        self.p2m = set()
        self.needs = {}
        self.mapped = MappedPages()

    def change(self, place, need):
        """Let a function change; vPCI unmaps and maps for those that it handles before and after."""
        before = self.needs.pop(place, None)
        if need is GONE:
            self.mapped.forsake(place)  # the uevent is seen; vPCI unmaps nothing for what leaves
        else:
            self.needs[place] = need
            if need.by is By.XEN and before is not None and before.by is By.XEN:
                others = {p for n in self.needs.values() if n is not need and n.by is By.XEN for p in n.pages}
                self.p2m -= before.pages - need.pages - others
            if need.by is By.XEN:
                self.p2m |= need.pages
        return before

    def desired(self, places):
        return [
            self.needs[place].desired(place) if place in self.needs else gone_desired(place)
            for place in places
        ]

    def needed(self):
        return {page for need in self.needs.values() for page in need.pages}

    def perform(self, plan, fails=lambda _: False, *, guarded=False):
        """Do what was planned; `guarded` refuses, as the guards do, to unmap what another function needs."""
        note(plan, self.mapped, WHEN)
        for action in plan.actions:
            pages = set(range(action.frames.start, action.frames.end))
            if guarded and not isinstance(action, MapMmio) and pages & self.needed():
                continue
            self.mapped.intend(action, WHEN)
            if isinstance(action, MapMmio):
                if fails(action):
                    self.p2m -= pages  # libxc unmaps the whole range, also what was mapped before
                    self.mapped.failed(action, WHEN)
                    continue
                self.p2m |= pages
            elif fails(action):
                self.mapped.failed(action, WHEN)
                continue
            else:
                assert not pages & self.needed(), "a page that somebody needs was unmapped"
                self.p2m -= pages
            self.mapped.performed(action, WHEN)


def gone_desired(place):
    return gone(place, Sbdf(0, 0, PLACES.index(place), 0))


def check_beliefs(world):
    held = [run for run in world.mapped if run.state in MAPPED]
    assert pages_of(run.frames for run in held) == world.p2m
    for place in PLACES:
        for bar in range(2):
            runs = [run.frames for run in world.mapped.of(place) if run.bar == bar]
            assert len(pages_of(runs)) == sum(run.count for run in runs), "runs of one BAR overlap"


@given(st.lists(CHANGE, max_size=25))
def test_each_change_ends_mapped_exactly(changes):
    world = World()
    for place, need in changes:
        world.change(place, need)
        world.perform(plan_mappings(world.desired([place]), world.mapped))
        assert world.p2m == world.needed()
        check_beliefs(world)


@given(st.lists(st.lists(CHANGE, max_size=6), max_size=8))
def test_several_changes_at_once_end_mapped_exactly(batches):
    world = World()
    for batch in batches:
        changed = dict(batch)
        for place, need in changed.items():
            world.change(place, need)
        world.perform(plan_mappings(world.desired(changed), world.mapped))
        assert world.p2m == world.needed()
        check_beliefs(world)


@given(st.lists(CHANGE, max_size=15), st.data())
def test_failures_heal_once_calls_succeed(changes, data):
    world = World()
    for place, need in changes:
        world.change(place, need)
        fails = data.draw(st.sampled_from([lambda _: True, lambda _: False]))
        world.perform(plan_mappings(world.desired([place]), world.mapped), fails, guarded=True)
    for _ in range(2):
        world.perform(plan_mappings(world.desired(PLACES), world.mapped))
    assert world.p2m == world.needed()
    assert plan_mappings(world.desired(PLACES), world.mapped).actions == ()


@given(st.lists(CHANGE, max_size=15), st.data())
def test_a_crash_anywhere_heals(changes, data):
    """Killed between intent and outcome, with the call made or not; what was held is read back from disk."""
    world = World()
    for place, need in changes:
        world.change(place, need)
        plan = plan_mappings(world.desired([place]), world.mapped)
        note(plan, world.mapped, WHEN)
        done = data.draw(st.integers(0, len(plan.actions)))
        world.perform(MappingPlan(plan.actions[:done]), guarded=True)
        if done < len(plan.actions):
            action = plan.actions[done]
            world.mapped.intend(action, WHEN)
            if data.draw(st.booleans()):
                pages = set(range(action.frames.start, action.frames.end))
                world.p2m = world.p2m | pages if isinstance(action, MapMmio) else world.p2m - pages
            world.mapped = mapped_from_json(mapped_to_json(world.mapped))
            world.mapped.settle()
    for _ in range(2):
        world.perform(plan_mappings(world.desired(PLACES), world.mapped))
    assert world.p2m == world.needed()
    assert plan_mappings(world.desired(PLACES), world.mapped).actions == ()


def test_a_page_that_vpci_may_have_unmapped_is_mapped_again_for_its_other_bar():
    """vPCI maps a page for one function, pcipt maps it for another, and a call of pcipt was cut off."""
    world = World()
    ours, vpci = PLACES[0], PLACES[1]
    page = ((0, 1), None)
    world.change(ours, Need(By.US, page))
    world.perform(plan_mappings(world.desired([ours]), world.mapped))
    world.change(vpci, Need(By.XEN, page))
    world.mapped.put(MappedRun(vpci, Sbdf(0, 0, 1, 0), 0, Frames(Gfn(0), 1), By.XEN, WHEN, State.DOUBTFUL))
    world.change(vpci, Need(By.XEN, (None, None)))
    plan = plan_mappings(world.desired([vpci]), world.mapped)
    assert [action.reason for action in plan.actions] == [
        "BAR 0 shares the page with 0000:00:01.0, whose BAR vPCI may have unmapped"
    ]
    world.perform(plan)
    assert world.p2m == world.needed() == {0}


@given(st.lists(CHANGE, max_size=15), st.lists(CHANGE, max_size=4))
def test_a_plan_depends_on_nothing_but_what_it_is_given(changes, last):
    world = World()
    for place, need in changes:
        world.change(place, need)
        world.perform(plan_mappings(world.desired([place]), world.mapped))
    changed = dict(last)
    for place, need in changed.items():
        world.change(place, need)
    desired = world.desired(changed)
    plan = plan_mappings(desired, world.mapped)
    assert plan == plan_mappings(reversed(desired), world.mapped)
    kinds = [isinstance(action, MapMmio) for action in plan.actions]
    assert kinds == sorted(kinds), "unmaps come first"
    assert all(action.reason for action in plan.actions)


@given(st.lists(CHANGE, max_size=15), st.sampled_from(PLACES))
def test_what_is_kept_stays_as_it_is(changes, place):
    world = World()
    for changed, need in changes:
        world.change(changed, need)
        world.perform(plan_mappings(world.desired([changed]), world.mapped))
    kept = Need(By.XEN, (None, None), held=True).desired(place)
    plan = plan_mappings([kept], world.mapped)
    assert (plan.actions, plan.left, plan.taken) == ((), (), ())
