import struct

import attrs
import pytest

from pcipt.pci import Frames, Range
from pcipt.pci.permissions import compare_permissions
from tests.machines import function, machine

MEMORY, IO = 0x200, 0x100


def owned(*bars, command=3):
    """One function with BARs of (address, size, flags)."""
    registers = [start & 0xFFFF_FFFF | (1 if flags == IO else 0) for start, _, flags in bars]
    lines = [*bars, *[(0, 0, 0)] * (7 - len(bars))]
    raw = function("03:00.0", command=command, bars=registers, resources=lines)
    return list(machine(raw).functions.values())


NIC = owned((0xFE80_0000, 0x2_0000, MEMORY), (0xC000, 0x20, IO))
PAGES, PORTS = Frames(0xFE800, 0x20), Range(0xC000, 0x20)

CASES = [
    # what the guest may reach, ports, the functions it owns -> codes
    ([PAGES], [PORTS], NIC, []),
    ([], [], [], []),
    ([Frames(0xFE800, 0x10), Frames(0xFE810, 0x10)], [PORTS], NIC, []),  # in pieces
    ([PAGES], [PORTS], [], ["guest-leftover", "guest-leftover"]),  # detached, and nothing was taken back
    ([Frames(0xFE800, 0x24)], [PORTS], NIC, ["guest-leftover"]),
    ([Frames(0xFE7FF, 0x22)], [PORTS], NIC, ["guest-leftover", "guest-leftover"]),  # on both sides
    ([PAGES], [], NIC, ["guest-bar-moved"]),
    ([Frames(0xFE800, 0x10)], [PORTS], NIC, ["guest-bar-moved"]),  # part of it
    ([Frames(0xFD000, 0x20)], [PORTS], NIC, ["guest-bar-moved", "guest-leftover"]),  # it moved
    ([PAGES], [Range(0xC000, 0x21)], NIC, ["guest-leftover"]),  # ports are counted singly
    ([Frames(0xFE800, 1)], [], owned((0xFE80_0010, 0x10, MEMORY)), []),  # grants are whole pages
    ([PAGES], [PORTS], owned((0, 0x1000, MEMORY)), ["guest-leftover", "guest-leftover"]),  # nowhere yet
    ([PAGES, Frames(0x1_00000, 1)], [PORTS], NIC, ["guest-leftover"]),  # above 4 GiB (XSA-476)
]


@pytest.mark.parametrize(("memory", "ports", "functions", "codes"), CASES)
def test_grants_against_bars(memory, ports, functions, codes):
    assert [finding.code for finding in compare_permissions(memory, ports, functions)] == codes


def test_what_the_words_say():
    whole, part = compare_permissions([Frames(0xFE800, 0x10)], [], NIC)
    assert "only part of BAR 0 of 0000:03:00.0 at 0xfe800000-0xfe81ffff" in whole.text
    assert "may not reach BAR 1" in part.text
    (left,) = compare_permissions([], [Range(0xC000, 0x20)], [])
    assert "ports 0xc000-0xc01f" in left.text


def test_what_is_granted_by_right_is_no_leftover():
    region = Frames(0x7FFF0, 4)
    assert compare_permissions([region], [], [], [region]) == ()


def test_nothing_is_called_a_leftover_behind_a_bar_of_unknown_size():
    unknown = list(machine(function("03:00.0", command=2, bars=[0xFE80_0000])).functions.values())
    assert compare_permissions([PAGES], [], unknown) == ()
    assert [each.code for each in compare_permissions([], [], unknown)] == ["guest-bar-moved"]


@pytest.mark.parametrize(
    ("enabled", "granted", "codes"),
    [
        (0, [Frames(0xFE900, 1)], []),  # libxl grants it all the same
        (0, [], []),
        (1, [Frames(0xFE900, 1)], []),
        (1, [], ["guest-bar-moved"]),
    ],
)
def test_a_rom_is_missed_only_while_it_is_on(enabled, granted, codes):
    raw = function("03:00.0", command=2, resources=[(0, 0, 0)] * 6 + [(0xFE90_0000, 0x1000, MEMORY)])
    data = bytearray(raw.config)
    struct.pack_into("<I", data, 0x30, 0xFE90_0000 | enabled)
    functions = list(machine(attrs.evolve(raw, config=bytes(data))).functions.values())
    assert [each.code for each in compare_permissions(granted, [], functions)] == codes
