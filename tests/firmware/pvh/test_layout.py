import pytest

from pcipt.firmware.memory_map import MemoryEntry, MemoryType, entry
from pcipt.firmware.pvh.layout import Platform, compute_layout
from pcipt.firmware.regions.regions import Region, RegionDevice, RegionKind, RegionScope
from pcipt.pci import Range, parse_sbdf
from pcipt.pci.write import EcamRegion
from tests.machines import function, machine
from tests.pvh import ACPI, MAP, RAM, RESERVED, UNUSABLE, layout_of
from tests.xen.versions import VERSIONS, version_of


def region(base, size, *present, named=1):
    scopes = (RegionScope("endpoint", 0, ((0x1F, 7),), None),) * named
    devices = tuple(RegionDevice(parse_sbdf(text), present=True) for text in present)
    return Region(RegionKind.RMRR, 0, base, base + size - 1, scopes, devices)


def treatment(found, address):
    (area,) = [area for area in found.areas if area.range.contains(address)]
    return area.treatment.value


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0x0, "ram"),  # the copy of the machine's BDA
        (0x9FBFF, "ram"),
        (0x9FC00, "identity"),  # EBDA, reserved
        (0xA_0000, "identity"),  # below 1 MiB also what the map leaves out: VGA
        (0xF_FFFF, "identity"),
        (0x10_0000, "ram"),
        (0xF0_0000, "ram"),  # 15 MiB: no ISA hole
        (0xFF_FFFF, "ram"),
        (0x4000_0000, "withheld"),  # beyond dom0_mem
        (0x7FE0_0000, "identity"),  # NVS
        (0x7FF0_0000, "identity"),  # ACPI
        (0x7FFF_0000, "identity"),  # reserved
        (0x8000_0000, "hole"),
        (0xB000_0000, "trapped"),  # MMCFG, although the map reserves it
        (0xBFFF_FFFF, "trapped"),
        (0xFEB0_0000, "identity"),  # the BAR
        (0xFEB1_FFFF, "identity"),
        (0xFEB2_0000, "hole"),
        (0xFEC0_0000, "emulated"),  # IO-APICs
        (0xFEC0_1000, "hole"),
        (0xFEC1_0FFF, "emulated"),
        (0xFEE0_0000, "emulated"),  # local APIC
        (0xFEE0_1000, "withheld"),  # interrupt messages
        (0xFEEF_FFFF, "withheld"),
        (0xFEF0_0000, "hole"),
        (0xFD_0000_0000, "withheld"),  # reserved, above the last RAM: HyperTransport's range
    ],
)
def test_every_kind_of_place(address, expected):
    assert treatment(layout_of(), address) == expected


BEYOND = 0xFD_0000_0000


@pytest.mark.parametrize("version", VERSIONS)
def test_reserved_memory_above_the_last_ram_by_release(version):
    only_accessible = (4, 19, 2) <= version < (4, 20) or version >= (4, 20, 1)
    assert treatment(layout_of(version=version_of(*version)), BEYOND) == (
        "withheld" if version < (4, 19) or only_accessible else "identity"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bar_over_reserved_memory_is_mapped_at_boot_in_every_release(version):
    """The first half of the BAR is outside of the entry."""
    raw = function("00:03.0", command=2, bars=(0xFEB0_0000,), resources=((0xFEB0_0000, 0x4000, 0x200),))
    memory = (entry(0x10_0000, 0x700_0000, RAM), entry(0xFEB0_2000, 0x2000, MemoryType.RESERVED))
    cuts = (4, 19, 3) <= version < (4, 20) or version >= (4, 20, 1)
    outside = "identity" if cuts else "hole"
    given = {"memory": memory, "machine": machine(raw), "version": version_of(*version)}
    found = compute_layout(Platform(**given))
    (area,) = [area for area in found.areas if area.range.contains(0xFEB0_3000)]
    assert (area.treatment.value, area.why.startswith("map-reserved")) == ("identity", True)
    assert treatment(found, 0xFEB0_1000) == outside
    without = compute_layout(Platform(**given, map_reserved=False))
    assert (treatment(without, 0xFEB0_3000), treatment(without, 0xFEB0_1000)) == ("hole", outside)


def test_the_isa_hole_is_spoken_of_where_it_would_be():
    (ram,) = [area for area in layout_of().areas if area.range.contains(15 << 20)]
    assert ram.why.endswith("no ISA hole at 15 MiB")
    hole = (entry(0x10_0000, 0xE0_0000, RAM), entry(0x100_0000, 0x100_0000, RAM))  # a machine that has one
    assert treatment(layout_of(hole), 0xF0_0000) == "hole"


def test_areas_are_without_gaps_from_0_on():
    at = 0
    for area in layout_of().areas:
        assert area.range.start == at
        at = area.range.last + 1
    assert at == 0x100_0000_0000


@pytest.mark.parametrize(
    ("holders", "expected"),
    [(("00:03.0",), "identity"), ((), "withheld")],  # gone with its last device
)
@pytest.mark.parametrize("base", [0x7FFF_0000, 0x9000_0000])  # in a reserved entry of the map, and in a hole
def test_reserved_regions_go_with_their_last_device(base, holders, expected):
    area = region(base, 0x2000, *holders)
    found = layout_of(reserved=(area,))
    assert treatment(found, base) == treatment(found, base + 0x1FFF) == expected
    assert treatment(found, base + 0x2000) == treatment(layout_of(), base + 0x2000)


def test_a_region_of_many_names_some():
    holders = tuple(f"00:{n:02x}.0" for n in range(7))
    found = layout_of(reserved=(region(0x9000_0000, 0x1000, *holders, named=7),))
    (area,) = [area for area in found.areas if area.what == "RMRR region"]
    assert "0000:00:03.0 and 3 more" in area.why


def test_a_region_held_by_one_and_dropped_for_another_stays():
    held = region(0x9000_0000, 0x2000, "00:03.0")
    dropped = region(0x9000_1000, 0x2000)
    found = layout_of(reserved=(held, dropped))
    assert [treatment(found, at) for at in (0x9000_1000, 0x9000_2000)] == ["identity", "withheld"]


def test_without_io_apics_nothing_is_emulated_there():
    assert treatment(layout_of(madt=None), 0xFEC0_0000) == "hole"
    assert treatment(layout_of(madt=None), 0xFEE0_0000) == "emulated"


# what Xen 4.17 told its PVH dom0 in the lab
BY_XEN = (
    entry(0, 0x9F000, RAM),
    entry(0x10_0000, 0x3FF6_0F26, RAM),
    entry(0x4006_0F26, 0x7A, ACPI),
    entry(0x4006_1000, 0x3FF7_7000, UNUSABLE),
)


@pytest.mark.parametrize("address", [0x4006_0F25, 0x4006_0F26, 0x4006_0F9F, 0x4006_0FA0, 0x4006_0FFF])
def test_tables_that_xen_put_into_ram_are_ram_to_the_end_of_their_page(address):
    assert treatment(layout_of(BY_XEN), address) == "ram"


def test_ram_that_ends_within_a_page_is_not_widened():
    assert treatment(layout_of((entry(0x10_0000, 0x1800, RAM),)), 0x10_1800) == "hole"


def test_tables_of_firmware_are_not():
    assert treatment(layout_of(BY_XEN), 0x4006_1000) == "withheld"
    assert treatment(layout_of(), 0x7FF0_0000) == "identity"  # right behind NVS


def test_a_type_that_nobody_knows_is_withheld():
    assert (
        treatment(layout_of((*MAP, MemoryEntry(Range(0xC000_0000, 0x1000), 99))), 0xC000_0000) == "withheld"
    )


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"ecam": (EcamRegion(0x1000_0000),)}, "mmcfg-not-reserved"),
        ({"reserved": (region(0x2000_0000, 4096, "00:03.0"),)}, "over-ram"),
        ({"machine": machine(function("00:04.0", command=2, bars=(0x3000_0000,),
                                      resources=((0x3000_0000, 0x1000, 0x200),)))}, "bar-not-mapped"),
    ],
)  # fmt: skip
def test_what_lies_over_ram_is_a_finding(more, code):
    assert [finding.code for finding in layout_of(**more).findings] == [code]


#  a reserved region -> the RAM that it hides
LOW_REGIONS = [
    ((0x8_0000, 0x1000), [(0, 0x9_FC00)]),  # RAM below 1 MiB is the domain's too
    ((0xC_0000, 0x8_0000), [(0x10_0000, 0x3FF0_0000)]),  # it begins below 1 MiB, where no RAM is
    ((0xC_0000, 0x4_0000), []),
]


@pytest.mark.parametrize(("place", "hidden"), LOW_REGIONS)
def test_ram_that_something_below_1_mib_hides_is_told(place, hidden):
    memory = tuple(entry(*each, RAM) for each in ((0, 0x9_FC00), (0x10_0000, 0x3FF0_0000)))
    found = layout_of(memory, reserved=(region(*place, "00:03.0"),)).findings
    assert [each.text for each in found if each.code == "over-ram"] == [
        f"RMRR region at {Range(*place)} lies over RAM ({Range(*each)}): that memory is lost to the domain"
        for each in hidden
    ]


def test_ram_under_mmcfg_is_not_lost():
    layout = layout_of(ecam=(EcamRegion(0x1000_0000),))
    assert treatment(layout, 0x1000_0000) == treatment(layout, 0x1FFF_FFFF) == "ram"


CUT = (*MAP, entry(0xE000_0000, 64 << 20, RESERVED))


@pytest.mark.parametrize(
    ("memory", "address", "expected"),
    [
        (CUT, 0xE000_0000, "trapped"),
        (CUT, 0xE3FF_FFFF, "trapped"),
        (CUT, 0xE400_0000, "hole"),  # the area is halved to what the map reserves
        (MAP, 0xEFFF_FFFF, "trapped"),  # not reserved at all: Xen uses none of it, and traps all of it
    ],
)
def test_mmcfg_is_trapped_as_far_as_xen_takes_it(memory, address, expected):
    assert treatment(layout_of(memory, ecam=(EcamRegion(0xE000_0000),)), address) == expected


def test_a_sound_machine_has_no_findings():
    assert layout_of().findings == ()


def test_nothing_known_at_all():
    found = compute_layout(Platform((), machine()))
    assert [area.treatment.value for area in found.areas] == ["identity", "hole", "emulated", "withheld"]
