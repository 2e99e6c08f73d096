import struct

import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.areas import Treatment
from pcipt.firmware.pvh.bar_pages import Rules, bar_layers, whole_pages
from pcipt.pci import Range, Resource
from tests.machines import function, machine

MEM, IO, ROM = 0x200, 0x100, 0x200
MEMORY = (entry(0x10_0000, 0x700_0000, MemoryType.RAM), entry(0xFED1_C000, 0x4000, MemoryType.RESERVED))


def desired_of(*raws, memory=MEMORY):
    findings = []
    found = list(bar_layers(machine(*raws), memory, findings))
    return [(c.range.start, c.range.size, c.treatment.value, c.what) for c in found], findings


def nic(address="00:03.0", base=0xFEB0_0000, size=0x2_0000, command=2, **more):
    return function(address, command=command, bars=(base,), resources=((base, size, MEM),), **more)


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0x1000, 0x1000, (0x1000, 0x1000)),
        (0x1010, 0x10, (0x1000, 0x1000)),
        (0x1FFF, 2, (0x1000, 0x2000)),  # one byte on each of two pages
        ((1 << 64) - 1, 1, ((1 << 64) - 4096, 4096)),
    ],
)
def test_ranges_are_widened_to_pages(start, size, expected):
    assert whole_pages(Range(start, size)) == Range(*expected)


def test_a_bar_that_decodes_is_mapped():
    assert desired_of(nic()) == ([(0xFEB0_0000, 0x2_0000, "identity", "0000:00:03.0 BAR 0")], [])


@pytest.mark.parametrize(
    "raw",
    [
        nic(command=0),  # decode off
        nic(command=1),  # I/O decode only
        function(
            "00:03.0", command=3, bars=(0xC001,), resources=((0xC000, 0x20, IO),)
        ),  # ports are no memory
    ],
)
def test_what_does_not_decode_memory_is_not_mapped(raw):
    assert desired_of(raw) == ([], [])


def test_a_rom_counts_while_it_is_enabled():
    lines = (*6 * ((0, 0, 0),), (0xFEB8_0000, 0x1_0000, ROM))
    for enabled, count in ((1, 1), (0, 0)):
        raw = function("00:03.0", command=2, bars=(*8 * (0,), 0xFEB8_0000 | enabled), resources=lines)
        assert len(desired_of(raw)[0]) == count


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (nic(base=0x200_0000), "ram"),
        (function("00:03.0", command=2, resources=((0, 0x1000, MEM),)), "address 0"),
        (function("00:03.0", command=2, bars=(0xFEB0_0000,)), "size is unknown"),
    ],
)
def test_what_xen_does_not_map_is_a_finding(raw, why):
    layers, findings = desired_of(raw)
    assert layers == []
    assert [finding.code for finding in findings] == ["bar-not-mapped"]
    assert why in findings[0].text


RESERVED = MEMORY[1]
OVER = nic(base=0xFED1_8000, size=0x8000)  # the second half lies over reserved memory, up to its end
WITHIN = nic(base=0xFED1_F000, size=0x1000)
HALF = nic(base=0x77F_E000, size=0x4000)  # begins over RAM

#  function, vPCI maps what is outside, map-reserved; pages that are mapped, words of the finding
PARTS = [
    (WITHIN, False, True, [(0xFED1_F000, 0x1000)], ""),
    (WITHIN, True, True, [(0xFED1_F000, 0x1000)], ""),
    (WITHIN, False, False, [], "reserved at 0xfed1c000-0xfed1ffff: Xen does not map it"),
    (WITHIN, True, False, [], "reserved at 0xfed1c000-0xfed1ffff: Xen does not map it"),
    (OVER, False, True, [(0xFED1_C000, 0x4000)], "Xen maps only a part of it"),
    (OVER, True, True, [(0xFED1_8000, 0x4000), (0xFED1_C000, 0x4000)], ""),
    (OVER, False, False, [], "Xen does not map it"),
    (OVER, True, False, [(0xFED1_8000, 0x4000)], "Xen maps only a part of it"),
    (HALF, False, True, [], "ram at 0x100000-0x77fffff: Xen does not map it"),
    (HALF, True, True, [(0x780_0000, 0x2000)], "Xen maps only a part of it"),
]


@pytest.mark.parametrize(("raw", "cuts", "map_reserved", "mapped", "words"), PARTS)
def test_a_bar_over_the_memory_map(raw, cuts, map_reserved, mapped, words):
    memory = (entry(0x10_0000, 0x770_0000, MemoryType.RAM), RESERVED)
    findings = []
    found = list(bar_layers(machine(raw), memory, findings, Rules(cuts, map_reserved)))
    assert sorted((layer.range.start, layer.range.size) for layer in found) == mapped
    assert all(layer.treatment is Treatment.IDENTITY for layer in found)
    assert [words in finding.text for finding in findings] == [True] * bool(words)


def test_what_is_mapped_at_boot_says_so():
    layers, findings = desired_of(WITHIN)
    assert (len(layers), findings) == (1, [])
    (layer,) = bar_layers(machine(WITHIN), MEMORY, [])
    assert layer.why.startswith("map-reserved")


def test_bars_of_virtual_functions_are_pcipts_to_map():
    owner = function("01:00.0")
    vf = function("01:00.2", physfn="01:00.0", command=0, resources=((0xFE60_4000, 0x4000, MEM),))
    findings = []
    assert list(bar_layers(machine(owner, vf), MEMORY, findings)) == []  # whether they decode is not known
    data = bytearray(owner.config) + bytes(4096 - 64)
    struct.pack_into("<I", data, 0x100, 0x0001_0010)
    struct.pack_into("<IHHHHHHHHxxH", data, 0x104, 0, 9, 0, 4, 4, 4, 0, 2, 1, 0)
    struct.pack_into("<I", data, 0x124, 0xFE60_0000)
    lines = (*7 * ((0, 0, 0),), (0xFE60_0000, 0x1_0000, MEM))
    owner = type(owner)(owner.sbdf, bytes(data), tuple(Resource(*line) for line in lines), root_bus=1)
    (layer,) = bar_layers(machine(owner, vf), MEMORY, findings)
    assert layer.range == Range(0xFE60_0000, 0x4000)
    assert "pcipt maps it" in layer.why


def test_bars_on_one_page_are_one_layer():
    small = [nic(f"00:0{n}.0", 0xFEB0_0000 + 0x100 * n, 0x100) for n in range(1, 8)]
    layers, _ = desired_of(*small)
    assert [(start, size) for start, size, *_ in layers] == [(0xFEB0_0000, 0x1000)]
    assert layers[0][3].endswith("0000:00:04.0 BAR 0 and 3 more")


def test_msix_pages_are_trapped():
    raw = nic(
        base=0xFEB0_0000,
        size=0x4000,
        command=2,
    )
    config = bytearray(raw.config) + bytes(192)
    config[6] |= 0x10
    config[0x34] = 0x40
    struct.pack_into("<BBHII", config, 0x40, 0x11, 0, 9, 0x2000, 0x3000)  # table and PBA in BAR 0
    layers, _ = desired_of(type(raw)(raw.sbdf, bytes(config), raw.resources, root_bus=0))
    assert sorted(layers) == [
        (0xFEB0_0000, 0x4000, "identity", "0000:00:03.0 BAR 0"),
        (0xFEB0_2000, 0x1000, "trapped", "0000:00:03.0 MSI-X table"),
        (0xFEB0_3000, 0x1000, "trapped", "0000:00:03.0 MSI-X pending bits"),
    ]


def test_an_msix_table_outside_its_bar_traps_nothing():
    raw = nic(size=0x1000)
    config = bytearray(raw.config) + bytes(192)
    config[6] |= 0x10
    config[0x34] = 0x40
    struct.pack_into("<BBHII", config, 0x40, 0x11, 0, 9, 0x1000, 0x8000_0000)
    layers, _ = desired_of(type(raw)(raw.sbdf, bytes(config), raw.resources, root_bus=0))
    assert [treatment for _, _, treatment, _ in layers] == [Treatment.IDENTITY.value]
