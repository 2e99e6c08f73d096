import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Frames, Gfn
from pcipt.remap.intervals import Intervals, common, joined, without

RUN = st.builds(Frames, st.integers(0, 40).map(Gfn), st.integers(1, 20))
RUNS = st.lists(RUN, max_size=8)


def pages(runs):
    return {page for run in runs for page in range(run.start, run.end)}


def are_apart(runs):
    return all(one.end < other.start for one, other in itertools.pairwise(runs))


@given(st.lists(st.tuples(RUN, st.integers(0, 3))), st.data(), RUN)
def test_the_index_finds_what_a_search_finds(entries, data, asked):
    dropped = data.draw(st.lists(st.sampled_from(entries), unique=True) if entries else st.just([]))
    loaded, grown = Intervals(entries), Intervals()
    for run, key in entries:
        grown.add(run, key)
    left = list(entries)
    for entry in dropped:
        loaded.discard(*entry)
        grown.discard(*entry)
        left.remove(entry)
    expected = sorted(entry for entry in left if entry[0].overlaps(asked))
    assert sorted(loaded.over(asked)) == expected
    assert sorted(grown.over(asked)) == expected


def test_what_is_not_there_is_dropped_without_a_word():
    index = Intervals([(Frames(Gfn(4), 2), "a")])
    index.discard(Frames(Gfn(4), 2), "b")
    index.discard(Frames(Gfn(9), 9), "a")
    assert list(index.over(Frames(Gfn(5), 1))) == [(Frames(Gfn(4), 2), "a")]


@given(RUNS, RUNS)
def test_runs_are_sets_of_pages(one, other):
    assert pages(joined(one)) == pages(one)
    assert pages(without(one, other)) == pages(one) - pages(other)
    assert pages(common(one, other)) == pages(one) & pages(other)
    assert are_apart(joined(one))
    assert sum(run.count for run in without(one, other)) == len(pages(one) - pages(other))


@pytest.mark.parametrize(
    ("runs", "holes", "expected"),
    [
        ([(0, 8)], [(2, 2)], [(0, 2), (4, 4)]),  # a hole inside cuts in two
        ([(0, 4), (4, 4)], [(3, 2)], [(0, 3), (5, 3)]),  # a hole over the seam
        ([(0, 4)], [(0, 4)], []),
        ([(0, 4)], [(4, 4)], [(0, 4)]),  # a hole beside
    ],
)
def test_cutting(runs, holes, expected):
    def made(pairs):
        return tuple(Frames(Gfn(start), count) for start, count in pairs)

    assert without(made(runs), made(holes)) == made(expected)
