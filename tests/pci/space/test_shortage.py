"""Windows, what is used in them, BARs without an address, and sizes that would fit."""

import struct

import attrs
import pytest

from pcipt.pci import RawFunction, Resource, WindowKind, decode_machine, parse_sbdf
from pcipt.pci.space.buses import buses_of
from pcipt.pci.space.resizes import resizes_of
from pcipt.pci.space.shortage import shortages_of, told_findings
from pcipt.pci.space.windows import windows_of
from pcipt.pci.units import Range
from tests.pci.spaces import BRIDGE, bars, extended_list, put, space, standard_list

NOTHING = Resource(0, 0, 0)
LOST = 0x2000_0200  # memory, IORESOURCE_UNSET
MEGABYTE = 1 << 20
SLOT = standard_list((0x40, 0x10, {2: (2, 0x0142)}))


def port(address, buses, memory=None, prefetchable=None, io=None, *, parent=None, slot=True):
    """Make a port; a window is (base, limit), None is closed. A prefetchable one has 64 bits."""
    secondary, subordinate = buses
    bus = int(address[:2], 16)
    base, limit = memory or (0xFFF0_0000, 0)
    pbase, plimit = prefetchable or (0xFFF0_0000, 0)
    ibase, ilimit = io or (0xF000, 0)
    registers = {
        0x04: (2, 7),
        0x18: (4, bus | secondary << 8 | subordinate << 16),
        0x1C: (2, ibase >> 8 | (ilimit >> 8) << 8),
        0x20: (4, base >> 16 | limit >> 16 << 16),
        0x24: (4, (pbase >> 16 & 0xFFF0) | 1 | ((plimit >> 16 & 0xFFF0) | 1) << 16),
        0x28: (4, pbase >> 32),
        0x2C: (4, plimit >> 32),
    }
    where = {"parent": parse_sbdf(parent)} if parent else {"root_bus": bus}
    config = space(registers | (SLOT if slot else {}), header=BRIDGE, size=256)
    return RawFunction(parse_sbdf(address), config, secondary=secondary, **where)


def card(address, *lines, parent="00:01.0", registers=None, config=None):
    """Make a function behind a port."""
    data = config or space({0x04: (2, 0), **(registers or {})})
    return RawFunction(parse_sbdf(address), data, lines, parent=parse_sbdf(parent))


def lost(size, flags=LOST):
    return Resource(0, size, flags)


def short(*raws, sbdf="01:00.0", roots=None):
    machine = decode_machine(raws)
    return shortages_of(machine, machine.functions[parse_sbdf(sbdf)], roots or {})


def codes(shortage):
    return [each.code for each in shortage.helps]


FULL = card("01:00.1", Resource(0xE000_0000, MEGABYTE, 0x200), registers=bars(0xE000_0000))
ONE_MEGABYTE, FOUR = (0xE000_0000, 0xE00F_FFFF), (0xE000_0000, 0xE03F_FFFF)

#  the port's window, what else is there, size of the BAR -> short by, what helps
SHORT = [
    (None, [], 0x4_0000, 0x4_0000, ["realloc", "hotplug-reserve"]),
    (ONE_MEGABYTE, [FULL], 0x4_0000, 0x4_0000, ["realloc", "hotplug-reserve"]),
    (ONE_MEGABYTE, [], 4 * MEGABYTE, 3 * MEGABYTE, ["realloc", "hotplug-reserve"]),
    (FOUR, [FULL], 4 * MEGABYTE, 2 * MEGABYTE, ["realloc", "hotplug-reserve"]),  # 3M free, 2M aligned
    (FOUR, [FULL], 2 * MEGABYTE, 0, ["rescan"]),
    (FOUR, [], 4 * MEGABYTE, 0, ["rescan"]),
]


@pytest.mark.parametrize(("memory", "others", "size", "lacks", "helps"), SHORT)
def test_a_window_is_short_by_what_its_holes_lack(memory, others, size, lacks, helps):
    (found,) = short(port("00:01.0", (1, 1), memory), card("01:00.0", lost(size)), *others)
    assert (found.short, codes(found)) == (lacks, helps)
    assert found.windows[0].bridge == parse_sbdf("00:01.0")
    assert "0000:00:01.0" in found.text


def test_the_text_names_the_window_and_the_sizes():
    machine = decode_machine(
        [port("00:01.0", (1, 1), ONE_MEGABYTE), card("01:00.0", lost(4 * MEGABYTE)), FULL]
    )
    ((finding, helps),) = told_findings(machine, machine.functions[parse_sbdf("01:00.0")])
    assert finding.text.startswith("BAR 0 (4M memory) has no address")
    assert "the memory window of 0000:00:01.0 above it has no hole; it is 4M too small" in finding.text
    assert "pci=realloc" in helps
    assert "pci=hpmmiosize=4M" in helps


def test_findings_about_other_things_stay_as_they_are():
    machine = decode_machine([port("00:01.0", (1, 1), FOUR), FULL])
    function = machine.functions[parse_sbdf("01:00.1")]
    assert told_findings(machine, function) == tuple((finding, "") for finding in function.findings)


def test_a_window_further_up_may_have_room():
    upper = port("00:01.0", (1, 2), FOUR)
    lower = port("01:00.0", (2, 2), parent="00:01.0", slot=False)
    (found,) = short(upper, lower, card("02:00.0", lost(MEGABYTE), parent="01:00.0"), sbdf="02:00.0")
    assert codes(found) == ["rescan-bridge", "realloc", "hotplug-reserve"]
    assert "the memory window of 0000:00:01.0 has enough room" in found.text
    assert "remove the bridge 0000:01:00.0" in found.helps[0].text


def test_what_the_root_bus_passes_on_counts_where_it_is_known():
    raws = (port("00:01.0", (1, 1)), card("01:00.0", lost(MEGABYTE)))
    room = {(0, 0): [(Range(0xC000_0000, 4 * MEGABYTE), (Range(0xC000_0000, MEGABYTE),))]}
    assert codes(short(*raws, roots=room)[0]) == ["rescan-bridge", "realloc", "hotplug-reserve"]
    full = {(0, 0): [(Range(0xC000_0000, MEGABYTE), (Range(0xC000_0000, MEGABYTE),))]}
    assert "no window above that one has enough room" in short(*raws, roots=full)[0].text


GROWTH = [
    # the port's window and what is in it, size of the BAR, what the root bus passes on and has -> can it grow
    (None, [], 0x1_0000, (0xC000_0000, 2 * MEGABYTE), (0xC000_0000, 0x18_0000), False),  # 512K: no window
    (None, [], 0x1_0000, (0xC000_0000, 2 * MEGABYTE), (0xC000_0000, 0x10_0000), True),
    (None, [], 0x1_0000, (0xC000_0000, 2 * MEGABYTE), (0xC008_0000, 0x10_0000), False),  # none is aligned
    (ONE_MEGABYTE, [FULL], MEGABYTE, (0xE000_0000, 2 * MEGABYTE), None, True),  # its own place counts
    (
        ONE_MEGABYTE,
        [FULL],
        MEGABYTE,
        (0xE000_0000, 3 * MEGABYTE),
        (0xE010_0000, MEGABYTE),
        False,
    ),  # 2M in a row
]


@pytest.mark.parametrize(("memory", "others", "size", "span", "held", "grows"), GROWTH)
def test_a_window_grows_if_all_that_is_in_it_has_room_above(memory, others, size, span, held, grows):
    raws = (port("00:01.0", (1, 1), memory), card("01:00.0", lost(size)), *others)
    used = () if held is None else (Range(*held),)
    (found,) = short(*raws, roots={(0, 0): [(Range(*span), used)]})
    assert ("rescan-bridge" in codes(found)) is grows
    assert ("the memory window of the root bus 0000:00 has enough room" in found.text) is grows


TWO_FOR_ONE = [
    # sizes of the BARs of 01:00.0, of 01:00.1, the port's window of 4 MiB -> what each of 01:00.0 lacks
    ([2, 2], [], [0, 0]),
    ([4, 1], [], [0, 1]),
    ([1, 4], [], [1, 0]),  # the largest first
    ([1], [4], [1]),  # of another function, too
    ([4], [4], [0]),  # of equals, the lower address first
    ([2], [1, 1], [0]),
]


@pytest.mark.parametrize(("mine", "others", "lacks"), TWO_FOR_ONE)
def test_bars_without_an_address_do_not_get_the_same_room(mine, others, lacks):
    lines = [[lost(size * MEGABYTE) for size in sizes] for sizes in (mine, others)]
    found = short(port("00:01.0", (1, 1), FOUR), card("01:00.0", *lines[0]), card("01:00.1", *lines[1]))
    assert [each.short for each in found] == [lack * MEGABYTE for lack in lacks]
    assert [each.bar.index for each in found] == list(range(len(mine)))
    for each in found:
        assert ("has no hole beside others without an address" in each.text) is bool(each.short)
        assert ("rescan" in codes(each)) is not bool(each.short)


def test_only_functions_below_the_same_root_bus_share_its_room():
    room = {(0, bus): [(Range(0xC000_0000, MEGABYTE), ())] for bus in (0, 0x80)}
    raws = [
        attrs.evolve(card(address, lost(MEGABYTE)), parent=None, root_bus=int(address[:2], 16))
        for address in ("00:04.0", "00:05.0", "80:04.0")
    ]
    found = {each: short(*raws, sbdf=each, roots=room)[0].short for each in ("00:04.0", "00:05.0", "80:04.0")}
    assert found == {"00:04.0": 0, "00:05.0": MEGABYTE, "80:04.0": 0}


def test_vf_bars_get_room_last():
    """The kernel can do without them, and gives room to the others first."""
    wide = port("00:01.0", (1, 1), None, (0x40_0000_0000, 0x40_1FFF_FFFF))
    other = card("01:00.1", lost(256 * MEGABYTE, PREFETCHABLE_64))
    (found,) = short(wide, virtual(line=lost(8 * 32 * MEGABYTE, PREFETCHABLE_64)), other)
    assert (found.needed, found.short, found.shared) == (256 * MEGABYTE, 256 * MEGABYTE, True)
    (alone,) = short(wide, virtual(line=lost(8 * 32 * MEGABYTE, PREFETCHABLE_64)))
    assert (alone.short, alone.shared) == (0, False)


def test_no_bar_goes_into_the_first_mib():
    """Root buses of most machines pass on a0000-bffff for the display, and more below 1 MiB."""
    alone = attrs.evolve(card("00:05.0", lost(0x4000)), parent=None, root_bus=0)
    low = [(Range(0xA_0000, 0x2_0000), ()), (Range(0xC_0000, 0x2_0000), ())]
    full = (Range(0xC000_0000, MEGABYTE), (Range(0xC000_0000, MEGABYTE),))
    (found,) = short(alone, sbdf="00:05.0", roots={(0, 0): [*low, full]})
    assert (found.short, codes(found)) == (0x4000, ["realloc"])
    (window, *_) = buses_of(decode_machine([alone]), {(0, 0): low})[0].windows
    assert (window.free, window.hole, [use.what for use in window.uses]) == (0, None, ["no place for BARs"])
    free = (Range(0xC000_0000, MEGABYTE), ())
    (found,) = short(alone, sbdf="00:05.0", roots={(0, 0): [*low, free]})
    assert found.windows[0].range == free[0]
    (straddling,) = short(alone, sbdf="00:05.0", roots={(0, 0): [(Range(0xC_0000, 0x8_0000), ())]})
    assert straddling.windows[0].hole == Range(0x10_0000, 0x4_0000)


PREFETCHABLE_64 = LOST | Resource.PREFETCH | Resource.MEM_64


@pytest.mark.parametrize(
    ("prefetchable", "memory", "kind", "lacks", "helps"),
    [
        # a 64-bit prefetchable BAR goes above 4 GiB
        ((0x40_0000_0000, 0x40_3FFF_FFFF), None, WindowKind.PREFETCHABLE, 0, ["rescan"]),
        # else below, beside the others
        (None, (0xC000_0000, 0xDFFF_FFFF), WindowKind.MEMORY, 0, ["rescan"]),
        (None, None, WindowKind.PREFETCHABLE, 256 * MEGABYTE, ["realloc", "hotplug-reserve", "window-64"]),
        ((0xE000_0000, 0xE00F_FFFF), None, WindowKind.PREFETCHABLE, 255 * MEGABYTE,
         ["realloc", "hotplug-reserve", "window-64"]),
        ((0x40_0000_0000, 0x40_000F_FFFF), None, WindowKind.PREFETCHABLE, 255 * MEGABYTE,
         ["realloc", "hotplug-reserve"]),
    ],
)  # fmt: skip
def test_a_large_bar_wants_a_64_bit_window(prefetchable, memory, kind, lacks, helps):
    raws = (
        port("00:01.0", (1, 1), memory, prefetchable),
        card("01:00.0", lost(256 * MEGABYTE, PREFETCHABLE_64)),
    )
    (found,) = short(*raws)
    assert (found.windows[0].kind, found.short, codes(found)) == (kind, lacks, helps)


def test_a_bar_of_32_bits_has_nothing_above_4_gib():
    flags = LOST | Resource.PREFETCH
    wide = port("00:01.0", (1, 1), FOUR, (0x40_0000_0000, 0x40_3FFF_FFFF))
    (found,) = short(wide, card("01:00.0", lost(MEGABYTE, flags)))
    assert (found.windows[0].kind, codes(found)) == (WindowKind.MEMORY, ["rescan"])


#  the port's memory window, its prefetchable window, is that for 64 bits -> the window named, short by
NARROW = [
    (None, (0xC000_0000, 0xC3FF_FFFF), True, WindowKind.MEMORY, 16 * MEGABYTE),  # Linux puts no 32 bits there
    (FOUR, (0xC000_0000, 0xC3FF_FFFF), True, WindowKind.MEMORY, 12 * MEGABYTE),
    (None, None, True, WindowKind.MEMORY, 16 * MEGABYTE),
    (None, (0xC000_0000, 0xC3FF_FFFF), False, WindowKind.PREFETCHABLE, 0),
    (None, None, False, WindowKind.PREFETCHABLE, 16 * MEGABYTE),
]


@pytest.mark.parametrize(("memory", "prefetchable", "wide", "kind", "lacks"), NARROW)
def test_a_32_bit_prefetchable_bar_does_not_go_into_a_window_for_64_bits(
    memory, prefetchable, wide, kind, lacks
):
    """The frame buffer of a Matrox G200 behind a port."""
    above = port("00:01.0", (1, 1), memory, prefetchable)
    if not wide:
        data = bytearray(above.config)
        data[0x24], data[0x26] = data[0x24] & 0xF0, data[0x26] & 0xF0
        above = attrs.evolve(above, config=bytes(data))
    (found,) = short(above, card("01:00.0", lost(16 * MEGABYTE, LOST | Resource.PREFETCH)))
    assert (found.windows[0].kind, found.short) == (kind, lacks)


def legacy(address="01:00.0", buses=(2, 2), parent="00:01.0", **windows):
    """Make a bridge to conventional PCI with subtractive decode, as ASMedia's ASM1083 or Intel's 82801."""
    raw = port(address, buses, parent=parent, slot=False, **windows)
    data = bytearray(raw.config)
    put(data, {0x08: (4, 0x0604_0103)})
    return attrs.evolve(raw, config=bytes(data))


OLD = {"sbdf": "02:00.0"}
KEPT = card(
    "02:01.0", Resource(0xE000_0000, 2 * MEGABYTE, 0x200), parent="01:00.0", registers=bars(0xE000_0000)
)
BEHIND = [
    # the port's window, the bridge's, what else is behind it, size -> whose window is named, short by, helps
    (FOUR, None, [], MEGABYTE, "00:01.0", 0, ["rescan"]),
    (FOUR, None, [KEPT], 4 * MEGABYTE, "00:01.0", 2 * MEGABYTE, ["realloc", "hotplug-reserve"]),
    (FOUR, (0xE020_0000, 0xE02F_FFFF), [KEPT], MEGABYTE, "01:00.0", 0, ["rescan"]),  # its own window first
    (FOUR, (0xE020_0000, 0xE02F_FFFF), [], 2 * MEGABYTE, "00:01.0", 0, ["rescan"]),
    (None, None, [], MEGABYTE, "01:00.0", MEGABYTE, ["realloc", "hotplug-reserve"]),
]


@pytest.mark.parametrize(("memory", "own", "others", "size", "named", "lacks", "helps"), BEHIND)
def test_behind_subtractive_decode_the_windows_above_count_too(
    memory, own, others, size, named, lacks, helps
):
    raws = (port("00:01.0", (1, 2), memory), legacy(memory=own), *others)
    (found,) = short(*raws, card("02:00.0", lost(size), parent="01:00.0"), **OLD)
    assert (found.windows[0].bridge, found.short, codes(found)) == (parse_sbdf(named), lacks, helps)
    assert len(set(found.windows)) == len(found.windows)


def test_what_is_behind_subtractive_decode_uses_the_windows_above():
    raws = (port("00:01.0", (1, 2), FOUR), legacy(), KEPT)
    machine = decode_machine(raws)
    window = windows_of(machine, machine.functions[parse_sbdf("00:01.0")])[1]
    assert [(str(use.sbdf), use.what) for use in window.uses] == [("0000:02:01.0", "BAR 0")]
    assert window.hole == Range(0xE020_0000, 2 * MEGABYTE)
    inside = decode_machine((raws[0], legacy(memory=(0xE000_0000, 0xE01F_FFFF)), KEPT))
    window = windows_of(inside, inside.functions[parse_sbdf("00:01.0")])[1]
    assert [(str(use.sbdf), use.what) for use in window.uses] == [("0000:01:00.0", "memory window")]
    assert [each.subtractive for each in buses_of(machine, {})] == [False, False, True]


def test_behind_subtractive_decode_on_a_root_bus():
    """An 82801 of which the windows are closed, as on most machines of its time."""
    raws = (legacy("00:1e.0", (2, 2), None), card("02:00.0", lost(MEGABYTE), parent="00:1e.0"))
    (found,) = short(*raws, **OLD)
    assert (found.windows, found.short, found.text, codes(found)) == ((), None, "", ["realloc"])
    room = {(0, 0): [(Range(0xC000_0000, 4 * MEGABYTE), ())]}
    (found,) = short(*raws, **OLD, roots=room)
    assert (found.windows[0].bridge, found.short, codes(found)) == (None, 0, ["rescan"])
    io = card("02:00.0", lost(128, 0x2000_0101), parent="00:1e.0")
    (found,) = short(raws[0], io, **OLD, roots=room)
    assert (found.windows, codes(found)) == ((), ["realloc"])  # the ports of a root bus are not known


def test_ports_have_a_window_of_their_own():
    (found,) = short(port("00:01.0", (1, 1), FOUR), card("01:00.0", lost(128, 0x2000_0101)))
    assert (found.windows[0].kind, found.short) == (WindowKind.IO, 128)
    assert "hpiosize=4K" in found.helps[-1].text
    (found,) = short(port("00:01.0", (1, 1), io=(0x2000, 0x2000)), card("01:00.0", lost(128, 0x2000_0101)))
    assert codes(found) == ["rescan"]


def virtual(address=0xC, *, line=NOTHING, total=8, size=256 * MEGABYTE, supported=0x7F):
    """Make a physical function with one VF BAR and a Resizable BAR 0."""
    sriov = {0x08: (2, 0), 0x0C: (2, total), 0x0E: (2, total), 0x10: (2, 0), 0x14: (2, 16), 0x16: (2, 1)}
    sriov |= {0x20: (4, 1), 0x24: (4, address & 0xFFFF_FFFF), 0x28: (4, address >> 32)}
    rebar = {0x04: (4, supported << 4), 0x08: (4, (size // MEGABYTE).bit_length() - 1 << 8 | 1 << 5)}
    data = bytearray(space(extended_list((0x100, 0x10, sriov), (0x200, 0x15, rebar)), size=4096))
    put(data, {0x04: (2, 2), **bars(0xC, 0x40)})
    lines = (Resource(0x40_0000_0000, size, 0x10_2200), *[NOTHING] * 6, line, *[NOTHING] * 5)
    return card("01:00.0", *lines, config=bytes(data))


def test_vf_bars_need_room_for_all_virtual_functions():
    wide = port("00:01.0", (1, 1), None, (0x40_0000_0000, 0x40_1FFF_FFFF))
    (found,) = short(wide, virtual(line=lost(8 * 64 * MEGABYTE, PREFETCHABLE_64)))
    assert (found.virtual, found.bar.size, found.needed) == (True, 64 * MEGABYTE, 512 * MEGABYTE)
    assert found.short == 256 * MEGABYTE
    (unknown,) = short(wide, virtual())
    assert (unknown.needed, unknown.short, codes(unknown)) == (None, None, ["realloc"])
    assert "VF BAR 0" in told_findings(*told(wide, virtual()))[-1][0].text


def told(*raws):
    machine = decode_machine(raws)
    return machine, machine.functions[parse_sbdf("01:00.0")]


def test_vf_bars_with_an_address_use_the_window():
    wide = port("00:01.0", (1, 1), None, (0x40_0000_0000, 0x40_1FFF_FFFF))
    machine, function = told(
        wide, virtual(0x40_1000_000C, line=Resource(0x40_1000_0000, 8 * MEGABYTE, 0x10_2200))
    )
    window = windows_of(machine, machine.functions[parse_sbdf("00:01.0")])[2]
    assert [(use.what, use.range.size) for use in window.uses] == [
        ("BAR 0", 256 * MEGABYTE),
        ("VF BAR 0", 8 * MEGABYTE),
    ]
    assert (window.used, window.free, window.hole) == (
        264 * MEGABYTE,
        248 * MEGABYTE,
        Range(0x40_1800_0000, 128 * MEGABYTE),
    )
    assert shortages_of(machine, function) == ()


def test_sizes_of_a_resizable_bar_fit_where_it_would_free_its_own_room():
    supported = 0x700  # 256M 512M 1G
    wide = port("00:01.0", (1, 1), None, (0x40_0000_0000, 0x40_1FFF_FFFF))
    found = resizes_of(*told(wide, virtual(0x40_1000_000C, supported=supported)))
    assert [(each.size // MEGABYTE, each.now, each.fits) for each in found] == [
        (256, True, True), (512, False, True), (1024, False, False),
    ]  # fmt: skip
    other = card("01:00.1", Resource(0x40_1000_0000, MEGABYTE, 0x10_2200), registers=bars(0x1000_000C, 0x40))
    found = resizes_of(*told(wide, other, virtual(supported=supported)))
    assert [each.fits for each in found] == [True, False, False]
    alone = attrs.evolve(virtual(supported=supported), parent=None, root_bus=1)
    assert {each.fits for each in resizes_of(*told(alone))} == {None}


def test_a_smaller_size_helps_where_it_fits():
    raw = virtual(supported=0x7F)
    data = bytearray(raw.config)
    struct.pack_into("<II", data, 0x10, 0xC, 0)
    unset = attrs.evolve(raw, config=bytes(data), resources=(lost(256 * MEGABYTE, PREFETCHABLE_64),))
    first, *_ = short(port("00:01.0", (1, 1), None, (0x40_0000_0000, 0x40_03FF_FFFF)), unset)
    assert (codes(first)[0], first.helps[0].text) == ("resize", "resize BAR 0 to 64M, which fits")


def test_what_linux_keeps_for_a_rom_and_a_reset_bar_is_used():
    rom = Resource(0xE010_0000, MEGABYTE, 0x200)
    reset = Resource(0xE000_0000, MEGABYTE, 0x200)
    machine, _ = told(port("00:01.0", (1, 1), FOUR), card("01:00.0", reset, *[NOTHING] * 5, rom))
    window = windows_of(machine, machine.functions[parse_sbdf("00:01.0")])[1]
    assert [use.what for use in window.uses] == ["BAR 0", "ROM"]
    assert window.hole == Range(0xE020_0000, 2 * MEGABYTE)


def test_windows_of_bridges_below_are_used_and_one_at_0_is_closed():
    never_set = port("01:00.0", (2, 2), (0, 0xF_FFFF), parent="00:01.0")
    inside = port("01:01.0", (3, 3), (0xE020_0000, 0xE03F_FFFF), parent="00:01.0")
    machine = decode_machine([port("00:01.0", (1, 3), FOUR), never_set, inside])
    window = windows_of(machine, machine.functions[parse_sbdf("00:01.0")])[1]
    assert [(str(use.sbdf), use.what) for use in window.uses] == [("0000:01:01.0", "memory window")]
    assert windows_of(machine, machine.functions[parse_sbdf("01:00.0")])[1].range is None


def test_buses_are_those_of_the_machine_or_on_the_way():
    raws = [
        port("00:01.0", (1, 2), FOUR), port("01:00.0", (2, 2), parent="00:01.0", slot=False),
        port("00:02.0", (3, 3)), port("00:03.0", (0, 0)), card("02:00.0", parent="01:00.0"),
    ]  # fmt: skip
    machine = decode_machine(raws)
    found = [(each.bus, str(each.bridge), each.slot, each.empty) for each in buses_of(machine, {})]
    assert found == [
        (0, "None", False, False),
        (1, "0000:00:01.0", True, False),
        (3, "0000:00:02.0", True, True),
        (2, "0000:01:00.0", False, False),
    ]
    way = buses_of(machine, {}, machine.functions[parse_sbdf("02:00.0")])
    assert [each.bus for each in way] == [0, 1, 2]
