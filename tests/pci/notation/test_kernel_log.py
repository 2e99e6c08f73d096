"""What Linux prints of functions that it finds, before and from 6.8 on."""

import pytest

from pcipt.pci import Address, Range, parse_sbdf
from pcipt.pci.notation.kernel_log import Arrival, LogLine, arrivals_from

NIC, OTHER = parse_sbdf("1a:00.0"), parse_sbdf("07:00.0")
FIRST, SECOND = Range(Address(0xFD04_0000), 0x2_0000), Range(Address(0xFE00_0000_00), 0x4000)
OLD = [
    "[8086:10d3] type 00 class 0x020000",
    "reg 0x10: [mem 0x00000000-0x0001ffff]",
    "reg 0x18: [io  0x0000-0x001f]",
    "reg 0x1c: [mem 0x00000000-0x00003fff 64bit pref]",
    "reg 0x30: [mem 0x00000000-0x0003ffff pref]",
    "reg 0x184: [mem 0xfa000000-0xfa003fff 64bit pref]",
    "PME# supported from D0 D3hot D3cold",
    "BAR 6: assigned [mem 0xfd000000-0xfd03ffff pref]",
    "BAR 0: assigned [mem 0xfd040000-0xfd05ffff]",
    "BAR 3: assigned [mem 0xfe00000000-0xfe00003fff 64bit pref]",
    "BAR 2: assigned [io  0x1000-0x101f]",
    "enabling device (0000 -> 0002)",
]
NEW = [
    "[8086:10d3] type 00 class 0x020000 PCIe Endpoint",
    "BAR 0 [mem 0x00000000-0x0001ffff]",
    "BAR 2 [io  0x0000-0x001f]",
    "BAR 3 [mem 0x00000000-0x00003fff 64bit pref]",
    "ROM [mem 0x00000000-0x0003ffff pref]",
    "VF BAR 0 [mem 0xfa000000-0xfa003fff 64bit pref]",
    "VF BAR 0 [mem 0xfa000000-0xfa01ffff 64bit pref]: contains BAR 0 for 8 VFs",
    "ROM [mem 0xfd000000-0xfd03ffff pref]: assigned",
    "BAR 0 [mem 0xfd040000-0xfd05ffff]: assigned",
    "BAR 3 [mem 0xfe00000000-0xfe00003fff 64bit pref]: assigned",
    "BAR 2 [io  0x1000-0x101f]: assigned",
    "enabling device (0000 -> 0002)",
]


def lines(texts, sbdf=NIC, first=100):
    return [LogLine(number, sbdf, text) for number, text in enumerate(texts, first)]


@pytest.mark.parametrize("told", [OLD, NEW])
def test_where_the_memory_bars_were(told):
    bars = frozenset({(0, FIRST), (3, SECOND)})
    assert arrivals_from(lines(told)) == {NIC: [Arrival(NIC, 111, bars, enabled=True)]}


@pytest.mark.parametrize("told", [OLD, NEW])
def test_each_arrival_at_an_address_is_one(told):
    found = arrivals_from([*lines(told), *lines(told[:2], OTHER, 200), *lines(told[:8], first=300)])
    assert [(each.last, len(each.bars), each.enabled) for each in found[NIC]] == [
        (111, 2, True), (307, 0, False),
    ]  # fmt: skip
    assert found[OTHER] == [Arrival(OTHER, 201)]


def test_addresses_that_firmware_or_an_earlier_stay_left_count():
    told = ["[8086:10d3] type 00 class 0x020000", "reg 0x10: [mem 0xfd040000-0xfd05ffff]"]
    assert arrivals_from(lines(told))[NIC][0].bars == {(0, FIRST)}
    assert arrivals_from(lines(["BAR 0 [mem 0xfd040000-0xfd05ffff]"]))[NIC][0].bars == {(0, FIRST)}


@pytest.mark.parametrize(
    "text",
    [
        "BAR 0: no space for [mem size 0x00020000]", "BAR 0: failed to assign [mem size 0x00020000]",
        "BAR 0 [mem size 0x00020000]: can't assign; no space", "BAR 14: assigned [mem 0xfd000000-0xfd1fffff]",
        "BAR 7: assigned [mem 0xfa000000-0xfa01ffff]", "bridge window [mem 0xfd000000-0xfd1fffff]: assigned",
        "reg 0x10: [mem 0xfd05ffff-0xfd040000]", "enabling device (0000 -> 0001)", "Slot(0): Link Up", "",
    ],
)  # fmt: skip
def test_other_lines_tell_of_no_bar(text):
    assert arrivals_from(lines([text])) == {NIC: [Arrival(NIC, 100)]}
