import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Address, Frames, Gfn, Range, frames_from_range, range_from_inclusive
from pcipt.pci.units import PAGE_SIZE

ADDRESSES = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("start", "last", "expected"),
    [
        (0xFE00_0000, 0xFE00_0FFF, Range(Address(0xFE00_0000), 0x1000)),
        (5, 5, Range(Address(5), 1)),  # one byte
        (1, 0, None),  # how Linux writes an empty range
        (0, 2**64 - 1, Range(Address(0), 2**64)),  # everything
    ],
)
def test_inclusive_ends_become_a_size(start, last, expected):
    assert range_from_inclusive(start, last) == expected


@pytest.mark.parametrize(
    ("start", "size", "first", "count"),
    [
        (0x1000, PAGE_SIZE, 1, 1),
        (0x1FFF, 2, 1, 2),  # two bytes in two pages
        (0x10, 0x10, 0, 1),  # less than a page
        (0xFFFF_F000, 0x2000, 0xFFFFF, 2),  # across 4 GiB
    ],
)
def test_a_range_is_widened_to_whole_pages(start, size, first, count):
    assert frames_from_range(Range(Address(start), size)) == Frames(Gfn(first), count)


@given(ADDRESSES, ADDRESSES)
def test_a_range_ends_where_it_was_said_to_end(one, other):
    start, last = sorted((one, other))
    span = range_from_inclusive(start, last)
    assert span is not None
    assert (span.start, span.last) == (start, last)
    assert span.contains(start)
    assert span.contains(last)
    assert not span.contains(last + 1)
    assert not span.contains(start - 1)
    assert str(span) == f"{start:#x}-{last:#x}"


@given(*[st.integers(0, 12)] * 4)
def test_ranges_overlap_if_and_only_if_they_share_a_byte(start, size, other_start, other_size):
    one, other = Range(Address(start), size + 1), Range(Address(other_start), other_size + 1)
    shared = set(range(start, start + size + 1)) & set(range(other_start, other_start + other_size + 1))
    assert one.overlaps(other) == other.overlaps(one) == bool(shared)
