import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import UnsupportedError
from pcipt.firmware.memory_map import (
    FOUR_GIB,
    MemoryEntry,
    MemoryType,
    entries_from_names,
    entry,
    find_room,
    flatten_map,
    is_ram,
    overlapping,
    place_modules,
)
from pcipt.pci import Address, Range

RAM, RESERVED, ACPI, UNUSABLE = MemoryType.RAM, MemoryType.RESERVED, MemoryType.ACPI, MemoryType.UNUSABLE
MIB = 1 << 20

small_maps = st.lists(
    st.builds(
        lambda start, size, kind: MemoryEntry(Range(Address(start), size), kind),
        st.integers(0, 60), st.integers(1, 20), st.integers(1, 8),
    ),
    max_size=8,
)  # fmt: skip


@settings(deadline=None)
@given(small_maps)
def test_a_flat_map_says_of_each_byte_the_highest_type_claimed(entries):
    flat = flatten_map(entries)
    for at in range(90):
        claimed = max((e.kind for e in entries if e.range.contains(at)), default=None)
        found = [e.kind for e in flat if e.range.contains(at)]
        assert found == ([] if claimed is None else [claimed])
    for before, after in itertools.pairwise(flat):
        assert before.range.last < after.range.start
        assert before.kind != after.kind or before.range.last + 1 < after.range.start


@settings(deadline=None)
@given(small_maps, st.integers(0, 90), st.integers(1, 20))
def test_overlapping_is_what_a_look_at_each_finds(entries, start, size):
    flat, span = flatten_map(entries), Range(Address(start), size)
    assert list(overlapping(flat, span)) == [e for e in flat if e.range.overlaps(span)]
    assert is_ram(flat, span) == all(
        any(e.kind == 1 and e.range.contains(at) for e in flat) for at in range(start, start + size)
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("System RAM", RAM),
        ("Reserved", RESERVED),
        ("reserved", RESERVED),  # before Linux 4.12
        ("ACPI Tables", ACPI),
        ("ACPI Non-volatile Storage", MemoryType.NVS),
        ("Unusable memory", UNUSABLE),
        ("PCI Bus 0000:00", None),  # no type of memory
        ("Kernel code", None),
    ],
)
def test_linux_names(name, kind):
    found = entries_from_names([(Range(Address(0x1000), 0x1000), name)])
    assert [e.type for e in found] == ([] if kind is None else [kind])


HOST = (
    entry(0, 0x9FC00, RAM),
    entry(MIB, 63 * MIB, RAM),
    entry(64 * MIB, MIB, ACPI),
    entry(FOUR_GIB, 1024 * MIB, RAM),
)


@pytest.mark.parametrize(
    ("sizes", "starts"),
    [
        ([MIB], [MIB]),  # the lowest place above 1 MiB
        ([MIB, MIB], [MIB, 2 * MIB]),  # not over each other
        ([62 * MIB, 2 * MIB], [MIB, FOUR_GIB]),  # one MiB is left below: the second goes above 4 GiB
        ([200 * MIB, MIB], [FOUR_GIB, MIB]),  # only the one that does not fit goes above
        ([1], [MIB]),
    ],
)
def test_modules_are_placed_below_4_gib_where_they_fit(sizes, starts):
    assert [span.start for span in place_modules(HOST, sizes)] == starts


def test_modules_avoid_what_is_taken():
    kernel = Range(Address(MIB + 0x800), 3 * MIB)
    assert place_modules(HOST, [MIB], [kernel])[0].start == 4 * MIB + 0x1000


def test_no_room_is_an_error():
    with pytest.raises(UnsupportedError) as caught:
        place_modules(HOST, [2048 * MIB])
    assert caught.value.feature == "module 0"


@settings(deadline=None)
@given(st.lists(st.integers(1, 40 * MIB), max_size=6), st.integers(0, 60))
def test_placed_modules_lie_in_ram_and_apart(sizes, taken_at):
    taken = Range(Address(taken_at * MIB + 0x123), 5 * MIB)
    placed = place_modules(HOST, sizes, [taken])
    for number, span in enumerate(placed):
        assert span.size == sizes[number]
        assert span.start % 4096 == 0
        assert is_ram(flatten_map(HOST), span)
        assert not any(span.overlaps(other) for other in (*placed[:number], taken))
        below = find_room(HOST, span.size, (*placed[:number], taken), limit=FOUR_GIB)
        assert (span.start < FOUR_GIB) == (below is not None)
