"""What is held, changed in place; JSON both ways."""

import attrs
import pytest

from pcipt.errors import MalformedError
from pcipt.remap.desired import By
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages, mapped_from_json, mapped_to_json
from tests.remap.devices import WHEN, S, frames, holding, map_of, unmap_of

AT = 0xE000_0000
PLACE, NEXT = "00_1c.0-00_00.0", "00_1c.0-00_01.0"
TWO = [holding(PLACE, AT, 4), holding(NEXT, AT + 0x3000, 4, by=By.XEN, sbdf="01:01.0")]


def shown(mapped):
    return [(run.place, run.bar, str(run.frames), run.by.value, run.state.value) for run in mapped]


def test_runs_are_found_by_place_and_by_page():
    mapped = MappedPages(TWO)
    assert len(mapped) == 2
    assert sorted(mapped.places) == [PLACE, NEXT]
    assert mapped.of(PLACE) == TWO[:1]
    assert mapped.of("elsewhere") == []
    assert sorted(mapped.over(frames(AT + 0x3000, 1)), key=lambda run: run.place) == TWO
    assert mapped.over(frames(AT + 0x7000, 1)) == []


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ((AT, 4), []),
        ((AT, 1), ["0xe0001000-0xe0003fff"]),
        ((AT + 0x1000, 2), ["0xe0000000-0xe0000fff", "0xe0003000-0xe0003fff"]),  # out of the middle
        ((AT + 0x4000, 4), ["0xe0000000-0xe0003fff"]),
    ],
)
def test_taking_cuts_runs(taken, left):
    mapped = MappedPages(TWO)
    mapped.take(PLACE, 0, frames(*taken))
    assert [str(run.frames) for run in mapped.of(PLACE)] == left
    assert mapped.of(NEXT) == TWO[1:]  # another owner's pages stay
    assert len(mapped) == len(left) + 1


def test_putting_replaces_what_the_same_bar_held():
    mapped = MappedPages(TWO)
    mapped.put(holding(PLACE, AT + 0x1000, 1, by=By.XEN))
    assert [(str(run.frames), run.by) for run in mapped.of(PLACE)] == [
        ("0xe0000000-0xe0000fff", By.US),
        ("0xe0001000-0xe0001fff", By.XEN),
        ("0xe0002000-0xe0003fff", By.US),
    ]


def test_a_map_lives():
    mapped = MappedPages()
    action = map_of(PLACE, AT, 4)
    mapped.intend(action, "then")
    assert shown(mapped) == [(PLACE, 0, "0xe0000000-0xe0003fff", "us", "intended")]
    mapped.performed(action, "now")
    assert list(mapped) == [attrs.evolve(holding(PLACE, AT, 4), since="now")]


def test_an_unmap_lives_and_leaves_others():
    mapped = MappedPages(TWO)
    action = unmap_of(PLACE, AT, 4)
    mapped.intend(action, WHEN)
    assert mapped.of(PLACE)[0].state is State.INTENDED
    mapped.performed(action, WHEN)
    assert list(mapped) == TWO[1:]


def test_a_failed_map_takes_down_what_others_had_in_its_range():
    mapped = MappedPages(TWO)
    action = map_of(PLACE, AT, 4)
    mapped.intend(action, WHEN)
    mapped.failed(action, WHEN)
    assert shown(mapped) == [
        (PLACE, 0, "0xe0000000-0xe0003fff", "us", "doubtful"),
        (NEXT, 0, "0xe0003000-0xe0003fff", "xen", "doubtful"),
        (NEXT, 0, "0xe0004000-0xe0006fff", "xen", "held"),
    ]


def test_a_failed_map_leaves_alone_what_is_about_to_be_mapped_for_others():
    """Two functions decode on one page, and both calls are in one batch: the second decides about its own."""
    mapped = MappedPages()
    first, second = map_of(PLACE, AT, 4), map_of(NEXT, AT, 4, sbdf="01:01.0")
    for action in (first, second):
        mapped.intend(action, WHEN)
    mapped.failed(first, WHEN)
    assert [mapped.of(place)[0].state for place in (PLACE, NEXT)] == [State.DOUBTFUL, State.INTENDED]
    mapped.performed(second, WHEN)
    assert [mapped.of(place)[0].state for place in (PLACE, NEXT)] == [State.DOUBTFUL, State.HELD]


def test_a_failed_unmap_leaves_a_doubt_about_its_own_pages_only():
    mapped = MappedPages(TWO)
    mapped.failed(unmap_of(PLACE, AT, 4), WHEN)
    assert [run.state for run in mapped] == [State.DOUBTFUL, State.HELD]


def test_an_unmap_of_vpcis_pages_leaves_them_vpcis():
    mapped = MappedPages(TWO)
    mapped.intend(unmap_of(NEXT, AT + 0x3000, 4, sbdf="01:01.0"), WHEN)
    assert mapped.of(NEXT)[0].by is By.XEN


def test_what_is_left_behind_is_stale():
    mapped = MappedPages([*TWO, holding(NEXT, AT, 1, bar=1, sbdf="01:01.0", state=State.DOUBTFUL)])
    mapped.forsake(NEXT)
    assert [run.state for run in mapped] == [State.HELD, State.STALE, State.DOUBTFUL]


def test_a_crash_leaves_doubts():
    mapped = MappedPages(TWO)
    assert not mapped.settle()
    mapped.intend(map_of(PLACE, AT, 4), WHEN)
    assert mapped.settle()
    assert [run.state for run in mapped] == [State.DOUBTFUL, State.HELD]


def test_renumbering_changes_the_address_alone():
    mapped = MappedPages(TWO)
    mapped.moved(PLACE, S("05:00.0"))
    assert mapped.of(PLACE) == [holding(PLACE, AT, 4, sbdf="05:00.0")]
    assert mapped.of(NEXT) == TWO[1:]


def test_a_copy_is_apart():
    mapped = MappedPages(TWO)
    copy = mapped.copy()
    copy.take(PLACE, 0, frames(AT, 4))
    assert mapped == MappedPages(TWO)
    assert copy != mapped


def test_json_round_trip():
    mapped = MappedPages(
        [*TWO, holding("10000:01:00.0", AT, 1, bar=6, sbdf="10000:01:00.0", state=State.STALE)]
    )
    assert mapped_from_json(mapped_to_json(mapped)) == mapped


GOOD = mapped_to_json(TWO)[0]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [5],
        [{}],
        [GOOD | {"start": "0xe0000001"}],  # no whole page
        [GOOD | {"size": 0}],
        [GOOD | {"size": 100}],
        [GOOD | {"start": "-0x1000"}],
        [GOOD | {"start": "0xffffffffffff0000"}],  # beyond what an x86 can address
        [GOOD | {"by": "them"}],
        [GOOD | {"state": "lost"}],
        [GOOD | {"sbdf": "zz"}],
    ],
)
def test_what_is_no_list_of_mappings_is_said(value):
    with pytest.raises(MalformedError):
        mapped_from_json(value)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"place": 5}, '"place"'),
        ({"sbdf": 5}, '"sbdf"'),
        ({"bar": -1}, '"bar"'),
        ({"bar": 7}, '"bar"'),
        ({"bar": "0"}, '"bar"'),
        ({"bar": True}, '"bar"'),
        ({"start": 4096}, '"start"'),
        ({"size": "4096"}, '"size"'),
        ({"size": -4096}, '"size"'),
        ({"by": 5}, '"by"'),
        ({"since": None}, '"since"'),
        ({"state": []}, '"state"'),
        ({"colour": 1}, '"colour" is not known'),
    ],
)
def test_a_wrong_field_of_a_mapping_is_named(damage, named):
    with pytest.raises(MalformedError, match=f"not a list of mappings: item 1: .*{named}"):
        mapped_from_json([GOOD, {**GOOD, **damage}])
