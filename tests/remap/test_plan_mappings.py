"""What is planned, in examples; that it is right whatever comes, test_mapping_properties shows."""

import attrs
import pytest

from pcipt.pci import Frames, decode_machine
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import By, Desired, DesiredBar, desired_of, gone
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.plan_mappings import note, plan_mappings
from tests.remap.devices import WHEN, S, device, frames, holding, known, port
from tests.xen.versions import version_of

PVH = {"pvh": True, "version": version_of(4, 17)}

AT, NEW = 0xE000_0000, 0xE100_0000
PLACE, NEXT = "00_1c.0-00_00.0", "00_1c.0-00_01.0"
XEN_HAS_IT = None
FORGOTTEN = "Xen does not handle it for dom0"


def wants(*bars, place=PLACE, untrapped=FORGOTTEN, sbdf="01:00.0"):
    """Claim (BAR, first byte, pages) for one function."""
    by = By.XEN if untrapped is None else By.US
    spans: dict[int, list[Frames]] = {}
    for bar, start, count in bars:
        spans.setdefault(bar, []).append(frames(start, count))
    claims = tuple(DesiredBar(place, S(sbdf), bar, tuple(pages), by) for bar, pages in spans.items())
    return Desired(place, S(sbdf), claims, untrapped=untrapped)


def shown(plan):
    return [
        (action.word, action.place, action.bar, action.frames.range.start, action.frames.count)
        for action in plan.actions
    ]


#   desired, held, expected actions
CASES = [
    # a function that Xen does not handle begins to decode
    ([wants((0, AT, 4))], [], [("map-mmio", PLACE, 0, AT, 4)]),
    # it is mapped already
    ([wants((0, AT, 4))], [holding(PLACE, AT, 4)], []),
    # its BAR moves: the old place is left first
    ([wants((0, NEW, 4))], [holding(PLACE, AT, 4)],
     [("unmap-mmio", PLACE, 0, AT, 4), ("map-mmio", PLACE, 0, NEW, 4)]),
    # it moves by less than its size: only what differs
    ([wants((0, AT + 0x1000, 4))], [holding(PLACE, AT, 4)],
     [("unmap-mmio", PLACE, 0, AT, 1), ("map-mmio", PLACE, 0, AT + 0x4000, 1)]),
    # two BARs are two calls
    ([wants((0, AT, 4), (1, AT + 0x4000, 4))], [],
     [("map-mmio", PLACE, 0, AT, 4), ("map-mmio", PLACE, 1, AT + 0x4000, 4)]),
    # an MSI-X page in the middle
    ([wants((0, AT, 2), (0, AT + 0x3000, 1))], [],
     [("map-mmio", PLACE, 0, AT, 2), ("map-mmio", PLACE, 0, AT + 0x3000, 1)]),
    # vPCI maps, moves and unmaps what it handles
    ([wants((0, AT, 4), untrapped=XEN_HAS_IT)], [], []),
    ([wants((0, NEW, 4), untrapped=XEN_HAS_IT)], [holding(PLACE, AT, 4, by=By.XEN)], []),
    ([wants(untrapped=XEN_HAS_IT)], [holding(PLACE, AT, 4, by=By.XEN)], []),
    # hot unplug: vPCI leaves its map behind
    ([gone(PLACE, S("01:00.0"))], [holding(PLACE, AT, 4, by=By.XEN)], [("unmap-mmio", PLACE, 0, AT, 4)]),
    # unplugged and plugged again elsewhere, both seen at once
    ([wants((0, NEW, 4), untrapped=XEN_HAS_IT)], [holding(PLACE, AT, 4, by=By.XEN, state=State.STALE)],
     [("unmap-mmio", PLACE, 0, AT, 4)]),
    # Xen forgets it: what vPCI had mapped is there, only the MSI-X page is missing
    ([wants((0, AT, 4))], [holding(PLACE, AT, 3, by=By.XEN)], [("map-mmio", PLACE, 0, AT + 0x3000, 1)]),
    # Xen is told of it: what we mapped is vPCI's now, but the MSI-X page must go
    ([wants((0, AT, 3), untrapped=XEN_HAS_IT)], [holding(PLACE, AT, 4)],
     [("unmap-mmio", PLACE, 0, AT + 0x3000, 1)]),
    # a page shared by two functions stays while one of them needs it
    ([gone(PLACE, S("01:00.0"))], [holding(PLACE, AT, 2), holding(NEXT, AT + 0x1000, 2, sbdf="01:01.0")],
     [("unmap-mmio", PLACE, 0, AT, 1)]),
    # the other one needs it only from now on
    ([gone(PLACE, S("01:00.0")), wants((0, AT + 0x1000, 2), place=NEXT, sbdf="01:01.0")],
     [holding(PLACE, AT, 2)],
     [("unmap-mmio", PLACE, 0, AT, 1), ("map-mmio", NEXT, 0, AT + 0x2000, 1)]),
    # both leave: one call takes the page
    ([gone(PLACE, S("01:00.0")), gone(NEXT, S("01:01.0"))],
     [holding(PLACE, AT, 1), holding(NEXT, AT, 1, sbdf="01:01.0")], [("unmap-mmio", PLACE, 0, AT, 1)]),
    # vPCI unmaps its BAR and with it a page that a virtual function shares
    ([wants(untrapped=XEN_HAS_IT)],
     [holding(PLACE, AT, 1, by=By.XEN), holding(NEXT, AT, 1, sbdf="01:01.0")],
     [("map-mmio", NEXT, 0, AT, 1)]),
    # what failed or was cut short is done again as long as it is wanted
    ([wants((0, AT, 4))], [holding(PLACE, AT, 4, state=State.DOUBTFUL)], [("map-mmio", PLACE, 0, AT, 4)]),
    ([wants()], [holding(PLACE, AT, 4, state=State.DOUBTFUL)], [("unmap-mmio", PLACE, 0, AT, 4)]),
    # a failed call of ours took pages that vPCI believes mapped
    ([wants((0, AT, 4), untrapped=XEN_HAS_IT)],
     [holding(PLACE, AT, 4, by=By.XEN, state=State.DOUBTFUL)], [("map-mmio", PLACE, 0, AT, 4)]),
]  # fmt: skip


@pytest.mark.parametrize(("desired", "held", "expected"), CASES)
def test_planned(desired, held, expected):
    plan = plan_mappings(desired, MappedPages(held))
    assert shown(plan) == expected
    assert all(action.reason for action in plan.actions)


@pytest.mark.parametrize(("desired", "held", "expected"), CASES)
def test_planning_again_after_performing_gives_nothing(desired, held, expected):
    mapped = MappedPages(held)
    plan = plan_mappings(desired, mapped)
    note(plan, mapped, WHEN)
    for action in plan.actions:
        mapped.intend(action, WHEN)
        mapped.performed(action, WHEN)
    again = plan_mappings(desired, mapped)
    assert (again.actions, again.left, again.taken, again.moved) == ((), (), (), ())


REASONS = [
    (gone(PLACE, S("01:00.0")), UnmapMmio, "has left the machine"),
    (wants((0, NEW, 4)), UnmapMmio, "BAR 0 is now at 0xe1000000"),
    (wants((1, NEW, 4)), UnmapMmio, "BAR 0 decodes nothing now"),
    (wants((0, NEW, 4)), MapMmio, "BAR 0 decodes here, and Xen does not handle it"),
    (wants((6, NEW, 4)), MapMmio, "ROM decodes here"),
]


@pytest.mark.parametrize(("desired", "kind", "words"), REASONS)
def test_reasons(desired, kind, words):
    plan = plan_mappings([desired], MappedPages([holding(PLACE, AT, 4)]))
    (reason,) = [action.reason for action in plan.actions if isinstance(action, kind)]
    assert words in reason


def test_a_renumbered_function_keeps_its_mappings_and_takes_its_new_address():
    mapped = MappedPages([holding(PLACE, AT, 4)])
    plan = plan_mappings([wants((0, AT, 4), sbdf="05:00.0")], mapped)
    note(plan, mapped, "later")
    assert plan.actions == ()
    assert list(mapped) == [holding(PLACE, AT, 4, sbdf="05:00.0")]


def test_what_is_refused_stays_stale_and_is_planned_again():
    mapped = MappedPages([holding(PLACE, AT, 4, by=By.XEN)])
    desired = [gone(PLACE, S("01:00.0"))]
    note(plan_mappings(desired, mapped), mapped, WHEN)
    assert [held.state for held in mapped] == [State.STALE]
    assert shown(plan_mappings(desired, mapped)) == [("unmap-mmio", PLACE, 0, AT, 4)]


@pytest.mark.parametrize("by", list(By))
def test_what_vpci_unmaps_with_a_shared_page_is_not_mapped_for_what_has_left(by):
    stale = holding(NEXT, AT, 1, by=by, state=State.STALE, sbdf="01:01.0")
    mapped = MappedPages([holding(PLACE, AT, 1, by=By.XEN), stale])
    plan = plan_mappings([wants(untrapped=XEN_HAS_IT)], mapped)
    note(plan, mapped, WHEN)
    assert plan.actions == ()
    assert list(mapped) == [attrs.evolve(stale, state=State.DOUBTFUL)]
    other = wants((0, AT, 1), place="00_1c.0-00_02.0", sbdf="01:02.0")  # nobody may count on that page now
    assert [action.word for action in plan_mappings([other], mapped).actions] == ["map-mmio"]


def test_a_page_that_vpci_unmaps_is_mapped_for_a_bar_that_shares_it_or_comes_to_it():
    """vPCI spares only pages of its own BARs: a neighbour of pcipt's, old or new, has lost the page."""
    left = holding(PLACE, AT, 1, by=By.XEN)
    neighbour = wants((0, AT, 1), place=NEXT, sbdf="01:01.0")
    for held in ([], [holding(NEXT, AT, 1, sbdf="01:01.0")]):
        plan = plan_mappings([wants(untrapped=XEN_HAS_IT), neighbour], MappedPages([left, *held]))
        assert shown(plan) == [("map-mmio", NEXT, 0, AT, 1)]


def test_two_functions_that_need_the_same_page_are_mapped_both():
    neighbour = wants((0, AT, 1), place=NEXT, sbdf="01:01.0")
    plan = plan_mappings([wants((0, AT, 1)), neighbour], MappedPages([]))
    assert shown(plan) == [("map-mmio", PLACE, 0, AT, 1), ("map-mmio", NEXT, 0, AT, 1)]


@pytest.mark.parametrize(
    "before", [holding(PLACE, AT, 4, state=State.STALE), holding(PLACE, AT, 4, by=By.XEN)]
)
def test_mapped_pages_that_pcipt_needs_again_are_held_by_pcipt(before):
    mapped = MappedPages([before])
    plan = plan_mappings([wants((0, AT, 4))], mapped)
    note(plan, mapped, WHEN)
    assert (plan.actions, list(mapped)) == ((), [holding(PLACE, AT, 4)])


def test_a_shared_page_is_not_mapped_for_a_place_that_is_held():
    """A guest has the neighbour: what dom0 had mapped of it stays as Xen left it."""
    neighbour = holding(NEXT, AT, 1, by=By.XEN, sbdf="01:01.0")
    away = attrs.evolve(wants(place=NEXT, sbdf="01:01.0"), hold_reason="a guest has it")
    plan = plan_mappings(
        [wants(untrapped=XEN_HAS_IT), away], MappedPages([holding(PLACE, AT, 1, by=By.XEN), neighbour])
    )
    assert (plan.actions, plan.taken) == ((), ())


def test_the_time_of_a_mapping_stays_when_it_is_taken_over():
    mapped = MappedPages([holding(PLACE, AT, 4, by=By.XEN)])
    note(plan_mappings([wants((0, AT, 4))], mapped), mapped, "later")
    assert [run.since for run in mapped] == [WHEN]
    mapped = MappedPages([])
    note(plan_mappings([wants((0, AT, 4), untrapped=XEN_HAS_IT)], mapped), mapped, "later")
    assert [run.since for run in mapped] == ["later"]


@pytest.mark.parametrize("state", [State.STALE, State.DOUBTFUL])
def test_lost_pages_that_may_not_be_mapped_stay_as_doubtful_as_they_were(state):
    mapped = MappedPages([holding(PLACE, AT, 4, state=state)])
    plan = plan_mappings([wants()], mapped)
    note(plan, mapped, WHEN)
    assert [run.state for run in mapped] == [state]
    assert shown(plan) == [("unmap-mmio", PLACE, 0, AT, 4)]


def test_what_vpci_may_have_lost_by_a_failed_call_is_mapped_again():
    doubtful = holding(PLACE, AT, 2, by=By.XEN, state=State.DOUBTFUL)
    plan = plan_mappings([wants((0, AT, 4), untrapped=XEN_HAS_IT)], MappedPages([doubtful]))
    assert shown(plan) == [("map-mmio", PLACE, 0, AT, 2)]
    assert "nobody knows whether it is mapped" in plan.actions[0].reason
    assert [(run.frames, run.by, run.state) for run in plan.taken] == [
        (frames(AT + 0x2000, 2), By.XEN, State.HELD),
        (frames(AT, 2), By.XEN, State.DOUBTFUL),  # until the call is made
    ]


def test_a_bar_that_came_from_where_vpci_maps_nothing_is_doubtful_until_it_is_mapped():
    came = DesiredBar(PLACE, S("01:00.0"), 0, (frames(AT, 4),), By.US, unsure=True)
    plan = plan_mappings([Desired(PLACE, S("01:00.0"), (came,))], MappedPages([]))
    assert shown(plan) == [("map-mmio", PLACE, 0, AT, 4)]
    assert "vPCI maps no BAR" in plan.actions[0].reason
    assert [(run.frames, run.state) for run in plan.taken] == [(frames(AT, 4), State.DOUBTFUL)]


@pytest.mark.parametrize("state", [State.INTENDED, State.DOUBTFUL, State.HELD])
def test_pages_of_another_bar_that_may_be_mapped_stay_known_where_a_map_may_fail(state):
    """If the new map fails, libxc unmaps it: what another BAR has lost there must not be forgotten."""
    other = holding(NEXT, AT + 0x1000, 1, state=state, sbdf="01:01.0")
    gone_one = gone(NEXT, S("01:01.0"))
    plan = plan_mappings([wants((0, AT, 4)), gone_one], MappedPages([other]))
    doubtful = [(run.place, run.frames) for run in plan.taken if run.state is State.DOUBTFUL]
    assert doubtful == ([] if state is State.HELD else [(PLACE, frames(AT + 0x1000, 1))])


def test_two_functions_of_vpci_that_share_a_page_leave_it_to_vpci():
    mapped = MappedPages([holding(PLACE, AT, 1, by=By.XEN), holding(NEXT, AT, 1, by=By.XEN, sbdf="01:01.0")])
    still = wants((0, AT, 1), untrapped=XEN_HAS_IT, place=NEXT, sbdf="01:01.0")
    plan = plan_mappings([wants(untrapped=XEN_HAS_IT), still], mapped)
    note(plan, mapped, WHEN)
    assert (plan.actions, [run.place for run in mapped]) == ((), [NEXT])


@pytest.mark.parametrize("first", [By.XEN, By.US])
def test_each_of_several_lost_bars_is_restored_for_its_neighbour(first):
    """The first lost BAR is pcipt's or shares nothing; the second one is vPCI's and shares a page."""
    third = "00_1c.0-00_02.0"
    mapped = MappedPages(
        [
            holding(PLACE, AT, 1, by=first),
            holding(PLACE, AT + 0x4000, 1, bar=1, by=By.XEN),
            holding(NEXT, AT + 0x4000, 1, state=State.DOUBTFUL, sbdf="01:01.0"),
            holding(third, AT + 0x4000, 1, bar=1, sbdf="01:02.0"),
        ]
    )
    neighbour = wants((1, AT + 0x4000, 1), place=third, sbdf="01:02.0")
    plan = plan_mappings([wants(untrapped=XEN_HAS_IT), neighbour], mapped)
    assert ("map-mmio", third, 1, AT + 0x4000, 1) in shown(plan)
    assert [action.word for action in plan.actions if action.place == PLACE] == (
        ["unmap-mmio"] if first is By.US else []
    )


def test_unmaps_are_in_the_order_of_places_bars_and_pages():
    mapped = MappedPages(
        [
            holding(PLACE, AT + 0x8000, 1),
            holding(PLACE, AT, 1, bar=1),
            holding(NEXT, AT - 0x8000, 1, sbdf="01:01.0"),
            holding(NEXT, AT + 0x4000, 1, sbdf="01:01.0"),
        ]
    )
    plan = plan_mappings([wants(), gone(NEXT, S("01:01.0"))], mapped)
    assert shown(plan) == [
        ("unmap-mmio", PLACE, 0, AT + 0x8000, 1),
        ("unmap-mmio", PLACE, 1, AT, 1),
        ("unmap-mmio", NEXT, 0, AT - 0x8000, 1),
        ("unmap-mmio", NEXT, 0, AT + 0x4000, 1),
    ]


def test_from_registers_to_actions():
    """A forgotten e1000e whose BAR moved, MSI-X page and all."""
    raw = device("01:00.0", [(NEW, 0x4000)], parent="00:1c.0", msix=(0, 0x1000))
    there = decode_machine([port(), raw])
    desired = desired_of(there.functions[raw.sbdf], there.functions, known("00:1c.0"), **PVH)
    held = MappedPages([holding(PLACE, AT, 1, by=By.XEN), holding(PLACE, AT + 0x2000, 2, by=By.XEN)])
    assert shown(plan_mappings([desired], held)) == [
        ("unmap-mmio", PLACE, 0, AT, 1),
        ("unmap-mmio", PLACE, 0, AT + 0x2000, 2),
        ("map-mmio", PLACE, 0, NEW, 4),
    ]


def test_an_unmap_is_cut_at_other_functions_bars():
    raw = device("01:01.0", [(AT + 0x1000, 0x1000)], parent="00:1c.0", command=0)
    bars = BarIndex(decode_machine([port(), raw]).functions.values())
    plan = plan_mappings([gone(PLACE, S("01:00.0"))], MappedPages([holding(PLACE, AT, 4)]), bars)
    assert shown(plan) == [
        ("unmap-mmio", PLACE, 0, AT, 1),
        ("unmap-mmio", PLACE, 0, AT + 0x1000, 1),  # the guard keeps this one
        ("unmap-mmio", PLACE, 0, AT + 0x2000, 2),
    ]


def test_a_doubt_plans_nothing():
    kept = attrs.evolve(wants(), hold_reason="it does not answer now")
    assert plan_mappings([kept], MappedPages([holding(PLACE, AT, 4)])).actions == ()
