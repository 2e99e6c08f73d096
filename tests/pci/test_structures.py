import pytest

from pcipt.pci import Address, ConfigSpace, Range
from pcipt.pci.structures import (
    Allocation,
    Express,
    Msix,
    Place,
    ResizableBar,
    decode_allocations,
    decode_express,
    decode_msix,
    decode_rebar,
)
from tests.pci.spaces import space

MIB = 1 << 20


def config(registers, size=4096):
    return ConfigSpace(space(registers, size=size))


#  flags at 42, Device Control 2 at 68 -> type, slot, ARI forwarding
EXPRESS = [
    (0x0002, 0x0000, ("endpoint", False, False)),
    (0x0012, 0x0000, ("legacy-endpoint", False, False)),
    (0x0142, 0x0020, ("root-port", True, True)),
    (0x0042, 0xFFDF, ("root-port", False, False)),  # every bit but the one
    (0x0052, 0x0000, ("upstream-port", False, False)),
    (0x0162, 0x0020, ("downstream-port", True, True)),
    (0x0072, 0x0000, ("pcie-to-pci-bridge", False, False)),
    (0x0082, 0x0000, ("pci-to-pcie-bridge", False, False)),
    (0x0092, 0x0000, ("root-complex-endpoint", False, False)),
    (0x00A2, 0x0000, ("root-complex-event-collector", False, False)),
    (0x00F2, 0x0000, ("type-f", False, False)),
    (0x0041, 0x0020, ("root-port", False, False)),  # version 1 ends before Device Control 2
]


@pytest.mark.parametrize(("flags", "control2", "expected"), EXPRESS)
def test_a_port_says_its_type_and_whether_it_forwards(flags, control2, expected):
    found = decode_express(config({0x42: (2, flags), 0x68: (2, control2)}), 0x40)
    assert found is not None
    assert (found.port_name, found.slot, found.ari_forwarding) == expected


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0x40, 0x43, None),
        (0x40, 0x44, Express(4, slot=False, ari_forwarding=None)),
        (0x40, 0x69, Express(4, slot=False, ari_forwarding=None)),
        (0x40, 0x6A, Express(4, slot=False, ari_forwarding=True)),
        (0xFC, 4096, Express(4, slot=False, ari_forwarding=None)),  # Device Control 2 would lie behind ff
        (0xFE, 4096, None),
    ],
)
def test_what_is_not_there_is_not_forwarded_either(offset, size, expected):
    registers = {offset + 2: (2, 0x0042), offset + 0x28: (2, 0x0020)}
    assert decode_express(config(registers, size), offset) == expected


#  control, table, pending bits -> MSI-X
MSIX = [
    (0x0000, 0x0000, 0x0800, Msix(1, False, Place(0, 0, 16), Place(0, 0x800, 8))),
    (0x8000, 0x0000, 0x0800, Msix(1, True, Place(0, 0, 16), Place(0, 0x800, 8))),
    (0x4000, 0x0000, 0x0800, Msix(1, False, Place(0, 0, 16), Place(0, 0x800, 8))),  # masked is not enabled
    (0x003F, 0x2003, 0x3003, Msix(64, False, Place(3, 0x2000, 1024), Place(3, 0x3000, 8))),
    (0x0040, 0x2003, 0x3004, Msix(65, False, Place(3, 0x2000, 1040), Place(4, 0x3000, 16))),
    (0x07FF, 0x0005, 0xFFFF_FFF8, Msix(2048, False, Place(5, 0, 32768), Place(0, 0xFFFF_FFF8, 256))),
]


@pytest.mark.parametrize(("control", "table", "pba", "expected"), MSIX)
def test_msix_tells_where_table_and_pending_bits_lie(control, table, pba, expected):
    registers = {0x72: (2, control), 0x74: (4, table), 0x78: (4, pba)}
    assert decode_msix(config(registers), 0x70) == expected


@pytest.mark.parametrize(
    ("offset", "size", "known"),
    [
        (0x70, 0x7B, False),
        (0x70, 0x7C, True),
        (0x70, 0x73, False),
        (0xF4, 0x100, True),
        (0xF8, 0x1000, False),  # behind ff begins another space
    ],
)
def test_msix_that_does_not_fit_is_unknown(offset, size, known):
    assert (decode_msix(config({}, size), offset) is not None) is known


def rebar(*pairs, count=None):
    """Lay out a Resizable BAR structure at 200: (supported sizes, control) for each BAR."""
    registers = {}
    for number, (supported, control) in enumerate(pairs):
        registers[0x204 + 8 * number] = (4, supported)
        registers[0x208 + 8 * number] = (4, control)
    width, control = registers[0x208]
    registers[0x208] = (width, control | (len(pairs) if count is None else count) << 5)
    return registers


REBAR = [
    (rebar((0x10, 0x0000)), [ResizableBar(0, MIB, (MIB,))]),
    # a graphics card: 256 MiB to 4 GiB, now 256 MiB
    (rebar((0x1F000, 0x0800)), [ResizableBar(0, 256 * MIB, tuple(MIB << bit for bit in range(8, 13)))]),
    (
        rebar((0x10, 0x0002), (0x30, 0x0104)),
        [ResizableBar(2, MIB, (MIB,)), ResizableBar(4, 2 * MIB, (MIB, 2 * MIB))],
    ),
    (rebar((0x8000_0000, 0x1B00)), [ResizableBar(0, 1 << 47, (1 << 47,))]),  # 128 TiB, the last one at 4
    # the larger ones stand in the control register
    (rebar((0, 0x8001_2B05)), [ResizableBar(5, 1 << 63, (1 << 48, 1 << 63))]),
    (rebar((0xF, 0x0000)), [ResizableBar(0, MIB, ())]),  # the low four bits are reserved
    (rebar((0x10, 0x0006)), []),  # there is no BAR 6
    (rebar((0x10, 0x2C00)), []),  # nor a size of 16 EiB
    (rebar((0x10, 0x0000), (0x10, 0x0007)), [ResizableBar(0, MIB, (MIB,))]),
    (rebar((0x10, 0x0000), count=0), []),
    (rebar(*[(0x10, 0x0000)] * 7), [ResizableBar(0, MIB, (MIB,))] * 6),  # there are not seven
]  # fmt: skip


@pytest.mark.parametrize(("registers", "expected"), REBAR)
def test_a_resizable_bar_tells_its_size_and_others_it_could_have(registers, expected):
    assert decode_rebar(config(registers), 0x200) == tuple(expected)


@pytest.mark.parametrize(("size", "count"), [(0x20B, 0), (0x20C, 1), (0x213, 1), (0x214, 2), (0x1000, 2)])
def test_resizable_bars_end_where_the_bytes_end(size, count):
    registers = rebar((0x10, 0x0000), (0x10, 0x0001))
    assert len(decode_rebar(config(registers, size), 0x200)) == count


ENABLE = 1 << 31


def allocations(*words, count=1, offset=0x40, bridge=False):
    start = offset + (8 if bridge else 4)
    registers = {offset + 2: (1, count)}
    return registers | {start + 4 * index: (4, word) for index, word in enumerate(words)}


def span(start, size):
    return Range(Address(start), size)


#  words of the entries -> entries; the first word of each has its size, BEI, properties and the enable bit
ALLOCATIONS = [
    ((ENABLE | 2, 0xFEB0_0000, 0xFFC), [Allocation(0, 0, span(0xFEB0_0000, 0x1000), True)]),
    ((2, 0xFEB0_0000, 0xFFC), [Allocation(0, 0, span(0xFEB0_0000, 0x1000), False)]),
    ((ENABLE | 0x0182, 0, 0), [Allocation(8, 1, span(0, 4), True)]),  # the ROM; the smallest range
    # 64 bits: base, size or both; the upper halves follow in that order
    ((ENABLE | 3, 0x2, 0xFFFC, 0x80), [Allocation(0, 0, span(0x80_0000_0000, 0x1_0000), True)]),
    ((ENABLE | 3, 0xE000_0000, 0xFFFF_FFFE, 0x1), [Allocation(0, 0, span(0xE000_0000, 0x2_0000_0000), True)]),
    ((ENABLE | 4, 0x2, 0xFFFF_FFFE, 0x80, 0x1), [Allocation(0, 0, span(2**39, 0x2_0000_0000), True)]),
    # entries that contradict themselves are kept without a range
    ((ENABLE | 2, 0x2, 0xFFC), [Allocation(0, 0, None, True)]),  # 64 bits, but no word for them
    ((ENABLE | 3, 0x0, 0xFFC, 0x0), [Allocation(0, 0, None, True)]),  # a word too many
    ((ENABLE | 0,), [Allocation(0, 0, None, True)]),
    ((ENABLE | 1, 0), [Allocation(0, 0, None, True)]),
    ((ENABLE | 4, 0xFFFF_FFFE, 0xFFFF_FFFE, 0xFFFF_FFFF, 0), [Allocation(0, 0, None, True)]),  # past 2^64
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), ALLOCATIONS)
@pytest.mark.parametrize("bridge", [False, True])
def test_an_entry_is_a_range(words, expected, bridge):
    registers = allocations(*words, bridge=bridge)
    assert decode_allocations(config(registers), 0x40, bridge=bridge) == tuple(expected)


def test_entries_follow_each_other_by_their_sizes():
    registers = allocations(
        ENABLE | 3, 0x2, 0xFFC, 0x80, ENABLE | 0xFF15, 0, 0, 0, 0, 0, ENABLE | 2, 0x1000, 0xFC, count=3
    )
    found = decode_allocations(config(registers), 0x40, bridge=False)
    assert [(entry.bei, entry.properties, str(entry.range)) for entry in found] == [
        (0, 0, "0x8000000000-0x8000000fff"),
        (1, 0xFF, "None"),
        (0, 0, "0x1000-0x10ff"),
    ]


@pytest.mark.parametrize(
    ("offset", "size", "count"),
    [
        (0x40, 0x42, 0),  # not even the number of entries
        (0x40, 0x43, 0),
        (0x40, 0x4F, 0),
        (0x40, 0x50, 1),
        (0x40, 0x5B, 1),
        (0x40, 0x5C, 2),
        (0xE4, 0x1000, 2),  # f4 + 12 = 100
        (0xE8, 0x1000, 1),  # the second would reach behind ff
        (0xFC, 0x1000, 0),
    ],
)
def test_entries_end_where_the_bytes_or_the_space_end(offset, size, count):
    registers = allocations(ENABLE | 2, 0x1000, 0xFC, ENABLE | 2, 0x2000, 0xFC, count=2, offset=offset)
    assert len(decode_allocations(config(registers, size), offset, bridge=False)) == count


def test_the_number_of_entries_has_six_bits():
    assert decode_allocations(config({0x42: (1, 0xC0)}), 0x40, bridge=False) == ()
    assert len(decode_allocations(config({0x42: (1, 0xFF)}), 0x40, bridge=False)) == (0x100 - 0x44) // 4
