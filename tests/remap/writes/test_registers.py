"""Merging writes: enumerated whole, and against a byte-wise model."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import HeaderType
from pcipt.remap.writes.registers import (
    BRIDGE,
    COMMON,
    ENDPOINT,
    WORD,
    Part,
    is_possible,
    masks,
    merge,
    split,
)

words = st.integers(0, WORD)


@given(words, words, words, words)
def test_every_bit_obeys_its_mask(old, value, ro, rw1c):
    lanes = 0xFF00_FF00
    new = merge(old, Part(0, value, lanes), ro, rw1c)
    for bit in (1 << n for n in range(32)):
        if not lanes & bit:
            expected = old & bit
        elif rw1c & bit:
            expected = 0 if value & bit else old & bit
        elif ro & bit:
            expected = old & bit
        else:
            expected = value & bit
        assert new & bit == expected


@pytest.mark.parametrize(("offset", "size"), list(itertools.product(range(8), (1, 2, 4))))
def test_a_split_write_covers_its_bytes_and_no_other(offset, size):
    value = 0xDDCC_BBAA & (1 << 8 * size) - 1
    memory = bytearray(12)
    touched = bytearray(12)
    for part in split(offset, size, value):
        assert part.offset % 4 == 0
        for lane in range(4):
            if part.lanes >> 8 * lane & 0xFF:
                memory[part.offset + lane] = part.value >> 8 * lane & 0xFF
                touched[part.offset + lane] += 1
    assert bytes(memory[offset : offset + size]) == value.to_bytes(size, "little")
    assert touched == bytes(offset) + b"\1" * size + bytes(12 - offset - size)


def test_registers_of_a_table_do_not_overlap():
    for table in (COMMON, ENDPOINT, BRIDGE):
        covered = [
            byte for register in table for byte in range(register.offset, register.offset + register.size)
        ]
        assert len(covered) == len(set(covered))


# offset, header, read-only bits, bits cleared by writing one
@pytest.mark.parametrize(
    ("offset", "header", "expected"),
    [
        (0x00, HeaderType.ENDPOINT, (WORD, 0)),
        (0x04, HeaderType.BRIDGE, (0x06FF_F880, 0xF900_0000)),  # Command and Status
        (0x0C, HeaderType.ENDPOINT, (0x00FF_0000, 0)),  # header type between latency timer and BIST
        (0x1C, HeaderType.BRIDGE, (0x06FF_0F0F, 0xF900_0000)),  # I/O window and secondary Status
        (0x3C, HeaderType.BRIDGE, (0xF000_FF00, 0x0400_0000)),  # interrupt pin, Bridge Control
        (0x18, HeaderType.BRIDGE, (0, 0)),
    ],
)
def test_masks(offset, header, expected):
    assert masks(header, offset) == expected


@pytest.mark.parametrize(
    ("offset", "size", "possible"),
    [
        (0, 1, True),
        (0xFFC, 4, True),
        (0xFFD, 4, False),
        (0x1000, 1, False),
        (-1, 1, False),
        (0, 3, False),
        (0, 0, False),
    ],
)
def test_which_accesses_can_be(offset, size, possible):
    assert is_possible(offset, size) is possible
