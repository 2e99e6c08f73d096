import pytest

from pcipt.firmware.acceptance.memory import MemoryMap
from pcipt.firmware.memory_map import MemoryType, entry

MIB = 1 << 20
ENTRIES = (
    entry(0, 0x9FC00, MemoryType.RAM),
    entry(0x9FC00, 0x60400, MemoryType.RESERVED),
    entry(MIB, MIB - 0x800, MemoryType.RAM),
    entry(4 * MIB, MIB, MemoryType.NVS),
    entry(6 * MIB, MIB, MemoryType.PMEM),
)


@pytest.mark.parametrize(
    ("base", "end", "wrong", "wrong_then"),
    [
        (0xA0000, 0xB0000, None, None),  # reserved as a whole
        (0x9F000, 0xA0000, None, 0x9F000),  # RAM and reserved memory in one page
        (0x9E000, 0xA0000, 0x9E000, 0x9F000),
        (2 * MIB - 0x1000, 3 * MIB, 2 * MIB - 0x1000, None),  # RAM and a hole in one page
        (2 * MIB, 3 * MIB, None, None),  # a hole
        (3 * MIB, 5 * MIB, None, 4 * MIB),  # a hole, then ACPI's memory
        (5 * MIB, 7 * MIB, 6 * MIB, 6 * MIB),  # a hole, then what Xen cannot make reserved
        (7 * MIB, 7 * MIB, None, None),  # no page
        (8 * MIB, 7 * MIB, None, None),  # the end is before the start
        (1 << 40, 1 << 50, None, None),
    ],
)
def test_pages_that_xen_does_not_accept(base, end, wrong, wrong_then):
    """`wrong_then`: with the check of 4.17.0 to 4.17.3 and 4.18.0."""
    for inverted, expected in ((False, wrong), (True, wrong_then)):
        found = MemoryMap(ENTRIES).wrong_page(base, end, inverted=inverted)
        assert (found[0] if found is not None else None) == expected


def test_what_is_there_is_said():
    assert MemoryMap(ENTRIES).wrong_page(0, 0x1000) == (0, "RAM")
    assert MemoryMap(ENTRIES).wrong_page(6 * MIB, 7 * MIB) == (6 * MIB, "memory of the type pmem")


def test_holes_of_a_region_are_reserved_afterwards():
    memory = MemoryMap(ENTRIES)
    assert memory.wrong_page(2 * MIB, 3 * MIB, inverted=True) is None
    memory.reserve(2 * MIB, 2 * MIB + 0x1000)
    assert memory.wrong_page(2 * MIB, 3 * MIB, inverted=True) == (2 * MIB, "memory of the type reserved")
    memory.reserve(5 * MIB, 5 * MIB)


def test_too_many_pages_to_look_at():
    memory = MemoryMap((*ENTRIES, entry(1 << 55, 1 << 50, MemoryType.RESERVED)))
    assert memory.endless(1 << 40, 1 << 50, None) == (1 << 38) - (1 << 28)
    assert memory.endless(1 << 40, (1 << 40) + (1 << 43), None) == 0
    assert memory.endless(1 << 40, 1 << 50, (1 << 41, "RAM")) == 0  # it stops there
    assert memory.endless(1 << 55, (1 << 55) + (1 << 50), None) == 0  # reserved: not page by page
