import itertools
import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Bar, BarKind, ConfigSpace, Range, Resource
from pcipt.pci.bars import (
    bar_from_resource,
    bars_from_resources,
    decode_bars,
    kind_of_resource,
    register_values,
)
from tests.pci.spaces import BRIDGE, CARDBUS, ENDPOINT, bars, space

WORDS = st.integers(0, 2**32 - 1)
ALL_ON = 0x3  # both decodes of the command register
NONE = Resource(0, 0, 0)


def decode(registers, resources=(), *, command=ALL_ON, header=ENDPOINT, size=64):
    config = ConfigSpace(space({0x04: (2, command), **registers}, header=header, size=size))
    return decode_bars(config, command, resources)


#  registers from 10 on -> BARs as (index, kind, address, prefetchable, below 1 MiB)
REGISTERS = [
    ((0xFEB0_0000,), [(0, BarKind.MEM32, 0xFEB0_0000, False, False)]),
    ((0xFEB0_0008,), [(0, BarKind.MEM32, 0xFEB0_0000, True, False)]),
    ((0x000A_0002,), [(0, BarKind.MEM32, 0xA_0000, False, True)]),  # below 1 MiB
    ((0xFEB0_0006,), [(0, BarKind.MEM32, 0xFEB0_0000, False, False)]),  # a reserved type is taken as 32 bits
    ((0x0000_C001,), [(0, BarKind.IO, 0xC000, False, False)]),
    ((0x0000_C003,), [(0, BarKind.IO, 0xC000, False, False)]),  # bit 1 is reserved
    ((0x0000_C00D,), [(0, BarKind.IO, 0xC00C, False, False)]),  # bits 3:2 belong to a port number
    ((0x0000_0001,), [(0, BarKind.IO, 0, False, False)]),  # implemented, no address given
    ((0x0000_000C, 0x0000_0080), [(0, BarKind.MEM64, 0x80_0000_0000, True, False)]),
    ((0xE000_0004, 0x0000_0001), [(0, BarKind.MEM64, 0x1_E000_0000, False, False)]),
    ((0x0000_0004, 0x0000_0000), [(0, BarKind.MEM64, 0, False, False)]),  # implemented, no address given
    (
        (0, 0xE000_0004, 0xFFFF_FFFF, 0xC001),  # the upper half has no type bits
        [(1, BarKind.MEM64, 0xFFFF_FFFF_E000_0000, False, False), (3, BarKind.IO, 0xC000, False, False)],
    ),
    ((0, 0, 0, 0, 0xE000_0004, 1), [(4, BarKind.MEM64, 0x1_E000_0000, False, False)]),
    ((0, 0, 0, 0, 0, 0xE000_0004), [(5, BarKind.MEM64, 0xE000_0000, False, False)]),  # no upper half
    ((0, 0, 0, 0, 0, 0), []),
]


@pytest.mark.parametrize(("words", "expected"), REGISTERS)
def test_registers_tell_kind_and_address(words, expected):
    found = decode(bars(*words))
    assert [(bar.index, bar.kind, bar.address, bar.prefetchable, bar.below_1mib) for bar in found] == expected
    assert {bar.size for bar in found} <= {None}


@pytest.mark.parametrize("command", range(4))
@pytest.mark.parametrize(
    ("registers", "bit"),
    [
        (bars(0xC001), 0x1),  # I/O decode
        (bars(0xFEB0_0000), 0x2),  # memory decode
        (bars(0xFEB0_0004, 1), 0x2),
        ({0x30: (4, 0xFEC0_0001)}, 0x2),  # the ROM needs its own enable bit besides
        ({0x30: (4, 0xFEC0_0000)}, 0x0),
    ],
)
def test_the_command_register_switches_decoding(registers, bit, command):
    (bar,) = decode(registers, command=command)
    assert bar.decoding is bool(command & bit)


@pytest.mark.parametrize(
    ("header", "count", "rom"), [(ENDPOINT, 6, 0x30), (BRIDGE, 2, 0x38), (CARDBUS, 1, None), (3, 0, None)]
)
def test_the_header_type_tells_how_many_bars_there_are(header, count, rom):
    words = [0x1000_0000 * (index + 1) for index in range(6)]
    registers = bars(*words)
    if rom is not None:
        registers[rom] = (4, 0x2000_0801)
    found = decode(registers, header=header)
    assert [bar.index for bar in found] == [*range(count), *([6] if rom is not None else [])]
    assert [bar.address for bar in found][:count] == words[:count]
    if rom is not None:
        assert (found[-1].kind, found[-1].address) == (BarKind.ROM, 0x2000_0800)


def test_the_low_bits_of_the_rom_register_are_no_address():
    (rom,) = decode({0x30: (4, 0xFEC0_07FF)})
    assert rom == Bar(6, BarKind.ROM, 0xFEC0_0000, None, False, True)


THERE = Bar(0, BarKind.MEM32, 0xFEB0_0000, 0x1000, False, True)
MEM_64 = Resource.MEMORY | Resource.PREFETCH | Resource.MEM_64

#  registers, lines of `resource` -> BARs; the address is the register's, the size Linux's
JOINED = [
    (bars(0xFEB0_0000), [Resource(0xFEB0_0000, 0x1000, 0x40200)], [THERE]),
    (bars(0xFEB0_0000), [Resource(0xD000_0000, 0x1000, 0x40200)], [THERE]),
    (bars(0xFEB0_0000), [NONE], [attrs.evolve(THERE, size=None)]),  # Linux knows no size
    (bars(0xFEB0_0000), [], [attrs.evolve(THERE, size=None)]),
    # Linux believes in a BAR that the hardware has lost
    ({}, [NONE, Resource(0xC000, 0x20, 0x40101)], [Bar(1, BarKind.IO, 0, 0x20, False, True)]),
    ({}, [Resource(2**40, 2**20, MEM_64), NONE], [Bar(0, BarKind.MEM64, 0, 2**20, True, True)]),
    # the ROM's line is the seventh; Linux also lists a shadow copy in RAM there
    ({}, [NONE] * 6 + [Resource(0xC0000, 0x20000, 0x212)], [Bar(6, BarKind.ROM, 0, 0x20000, False, False)]),
    # lines behind the ROM are not BARs
    ({}, [NONE] * 7 + [Resource(0xC000, 0x20, 0x40101)], []),
    # the line of an upper half is nobody's
    (bars(0x4, 1), [NONE, Resource(0xC000, 0x20, 0x101)], [Bar(0, BarKind.MEM64, 2**32, None, False, True)]),
]  # fmt: skip


@pytest.mark.parametrize(("registers", "resources", "expected"), JOINED)
def test_register_and_line_are_joined(registers, resources, expected):
    assert decode(registers, resources) == expected


@pytest.mark.parametrize("command", range(4))
@pytest.mark.parametrize(("flags", "bit"), [(Resource.IO, 1), (Resource.MEMORY, 2), (MEM_64, 2)])
def test_a_lost_bar_decodes_as_its_kind_does(flags, bit, command):
    (bar,) = decode({}, [Resource(0x1000, 0x100, flags)], command=command)
    assert bar.decoding is bool(command & bit)


def test_every_register_belongs_to_one_value():
    """All arrangements of I/O, 32-bit, below 1 MiB, 64-bit and reserved types in six registers."""
    for types in itertools.product([0x0, 0x1, 0x2, 0x4, 0x6], repeat=6):
        words = [0x10 * (index + 1) << 8 | kind for index, kind in enumerate(types)]
        expected = []
        index = 0
        while index < 6:
            pair = types[index] == 0x4 and index < 5
            expected.append((index, words[index] | (words[index + 1] << 32 if pair else 0)))
            index += 2 if pair else 1
        config = ConfigSpace(struct.pack("<16x6I", *words))
        assert register_values(config, 0x10, 6) == expected


@given(st.lists(WORDS, min_size=6, max_size=6), st.integers(0, 64))
def test_less_bytes_tell_of_fewer_registers_but_not_of_others(words, size):
    data = space({0x04: (2, ALL_ON), **bars(*words)})
    whole = register_values(ConfigSpace(data), 0x10, 6)
    part = register_values(ConfigSpace(data[:size]), 0x10, 6)
    assert part == whole[: len(part)]
    if len(part) < len(whole):
        index, value = whole[len(part)]
        assert 0x10 + 4 * index + (8 if value >> 32 else 4) > size


@pytest.mark.parametrize(
    ("size", "count"),
    [(0x10, 0), (0x13, 0), (0x14, 1), (0x18, 1), (0x1B, 1), (0x1C, 2), (0x27, 4), (0x28, 5)],
)
def test_half_a_64_bit_bar_is_unknown(size, count):
    words = (0xC001, 0xE000_0004, 1, 0xFEB0_0000, 0xFEC0_0000, 0xFED0_0000)
    config = ConfigSpace(space(bars(*words), size=size))
    assert len(register_values(config, 0x10, 6)) == count


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (0x0004_0101, BarKind.IO),
        (0x0004_0200, BarKind.MEM32),
        (0x0004_2208, BarKind.MEM32),
        (0x0014_0204, BarKind.MEM64),
        (0x0014_220C, BarKind.MEM64),
    ],
)
def test_linux_says_which_kind_a_bar_is(flags, kind):
    assert kind_of_resource(Resource(0x1000, 0x100, flags)) is kind


def test_belief_alone_makes_bars():
    lines = [
        Resource(0xE000_0000, 0x1000, 0x0014_220C),
        NONE,
        Resource(0xC000, 0x20, 0x0004_0101),
        NONE,
        NONE,
        NONE,
        Resource(0xC0000, 0x20000, 0x0000_2212),
        Resource(0xD000_0000, 0x4000, 0x0014_2204),  # SR-IOV, not this function's own
    ]
    assert bars_from_resources(lines) == (
        Bar(0, BarKind.MEM64, 0xE000_0000, 0x1000, True, None),
        Bar(2, BarKind.IO, 0xC000, 0x20, False, None),
        Bar(6, BarKind.ROM, 0xC0000, 0x20000, False, None),
    )
    assert bar_from_resource(2, lines[2], True).decoding is True


def test_a_bar_of_known_size_has_a_range():
    known = Bar(0, BarKind.MEM32, 0xFEB0_0000, 0x1000, False, True)
    assert known.range == Range(0xFEB0_0000, 0x1000)
    assert Bar(0, BarKind.MEM32, 0xFEB0_0000, None, False, True).range is None
