import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci.space.holes import gaps_in, largest_hole, place_for, room_for
from pcipt.pci.units import Range

WINDOW = Range(0x1000, 0x3000)  # 1000-3fff

#  used -> gaps, the largest aligned hole
GAPS = [
    ([], ["0x1000-0x3fff"], "0x2000-0x3fff"),
    ([Range(0x2000, 0x1000)], ["0x1000-0x1fff", "0x3000-0x3fff"], "0x1000-0x1fff"),
    ([Range(0x1000, 0x3000)], [], "None"),
    ([Range(0, 0x8000)], [], "None"),  # more than all
    (
        [Range(0, 0x1800), Range(0x1200, 0x400), Range(0x3000, 0x10)],
        ["0x1800-0x2fff", "0x3010-0x3fff"],
        "0x2000-0x2fff",
    ),
    ([Range(0x8000, 1)], ["0x1000-0x3fff"], "0x2000-0x3fff"),  # elsewhere
    ([Range(0x1800, 0x2800)], ["0x1000-0x17ff"], "0x1000-0x17ff"),
]


@pytest.mark.parametrize(("used", "gaps", "hole"), GAPS)
def test_what_is_not_used_is_free(used, gaps, hole):
    found = gaps_in(WINDOW, used)
    assert [str(gap) for gap in found] == gaps
    assert str(largest_hole(found)) == hole


@pytest.mark.parametrize(
    ("gaps", "alignment", "room"),
    [
        ([], 16, 0),
        ([Range(0x1800, 0x1800)], 0x1000, 0x1000),
        ([Range(0x100, 0x80)], 0x1000, 0),
        ([Range(0x1000, 0x3000)], 0x1000, 0x3000),
    ],
)
def test_room_begins_at_the_alignment(gaps, alignment, room):
    assert room_for(gaps, alignment) == room


@given(
    st.lists(st.builds(Range, st.integers(0, 200), st.integers(1, 80)), max_size=3),
    st.sampled_from([1, 4, 16, 64]),
    st.integers(1, 90),
)
def test_a_place_is_found_where_there_is_room(gaps, alignment, size):
    place = place_for(gaps, alignment, size)
    assert (place is not None) is (room_for(gaps, alignment) >= size)
    if place is not None:
        assert (place.start % alignment, place.size) == (0, size)
        assert any(gap.start <= place.start and place.last <= gap.last for gap in gaps)


spans = st.lists(st.builds(Range, st.integers(0, 300), st.integers(1, 80)), max_size=6)


@given(st.builds(Range, st.integers(0, 200), st.integers(1, 200)), spans)
def test_gaps_and_holes_are_what_counting_gives(window, used):
    taken = {at for span in used for at in range(span.start, span.last + 1)}
    free = [at for at in range(window.start, window.last + 1) if at not in taken]
    gaps = gaps_in(window, used)
    assert [at for gap in gaps for at in range(gap.start, gap.last + 1)] == free
    best = max(
        (1 << n for n in range(9) for at in range(0, 512, 1 << n) if {*range(at, at + (1 << n))} <= {*free}),
        default=0,
    )
    hole = largest_hole(gaps)
    assert (hole.size if hole is not None else 0) == best
    assert hole is None or (hole.start % hole.size == 0 and {*range(hole.start, hole.last + 1)} <= {*free})
