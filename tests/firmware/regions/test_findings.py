import itertools

import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import Region, RegionKind, Regions
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import Address
from pcipt.xen.releases import NEWEST, parse_version
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import function, machine

MACHINE = machine(function("00:02.0"), function("00:1d.0"))
GRAPHICS, USB, MISSING = scope(0, (2, 0)), scope(0, (0x1D, 0)), scope(0, (0x1A, 0))
NAMED = scope(0, (0x15, 0), kind=5)  # an ACPI name
MEMORY = (entry(0x10_0000, 0x1000_0000, MemoryType.RAM), entry(0x7000_0000, 0x100_0000, MemoryType.RESERVED))


def codes(table, number=0, memory=MEMORY, among=MACHINE):
    regions = with_findings(regions_from_tables([table], among), memory)
    return [finding.code for finding in regions.regions[number].findings]


CASES = [
    # what it looks like in the table, what is said of it
    (rmrr(0x7000_0000, 0x7000_0FFF, GRAPHICS), []),
    (rmrr(0x7000_1000, 0x7000_0FFF, GRAPHICS), ["region-empty"]),  # the limit lies below the base
    (rmrr(0, 0xFFF, GRAPHICS), ["region-base-zero"]),  # EliteBook 8440p
    (rmrr(0x7000_0000, 0x7000_0FFE, GRAPHICS), ["region-unaligned"]),
    (rmrr(0x7000_0800, 0x7000_0FFF, GRAPHICS), ["region-unaligned"]),
    (rmrr(0x7000_0000, 0x7001_0000, GRAPHICS), ["region-unaligned"]),
    (rmrr(0x7000_0000, 0x7000_0000, GRAPHICS), ["region-empty", "region-unaligned"]),  # Xen takes no page
    (rmrr(0x7000_0000, 0x73FF_FFFF, GRAPHICS), []),  # 64 MiB are not over 64 MiB
    (rmrr(0x7000_0000, 0x7400_0FFF, GRAPHICS), ["region-large"]),
    (rmrr(0x7000_0000, 0x7000_0FFF), ["region-no-scope"]),
    (rmrr(0x7000_0000, 0x7000_0FFF, NAMED), ["region-no-scope"]),  # Xen does not count these
    (rmrr(0x7000_0000, 0x7000_0FFF, GRAPHICS, NAMED), []),
    (rmrr(0x7000_0000, 0x7000_0FFF, GRAPHICS, USB), ["region-shared"]),
    (rmrr(0x7000_0000, 0x7000_0FFF, GRAPHICS, MISSING), ["region-shared"]),  # Xen counts scopes, not devices
    (rmrr(0x7000_0000, 0x7000_0FFF, MISSING), ["region-dropped"]),
    (rmrr(0xFF_F000, 0x100_0FFF, GRAPHICS), ["region-over-ram"]),
    (rmrr(0, 2**64 - 1, GRAPHICS), ["region-base-zero", "region-large", "region-over-ram"]),
]


@pytest.mark.parametrize(("region", "said"), CASES)
def test_oddities(region, said):
    assert codes(dmar(region)) == said


def test_ram_is_not_judged_without_a_memory_map():
    assert codes(dmar(rmrr(0xFF_F000, 0x100_0FFF, GRAPHICS)), memory=None) == []


def test_without_a_machine_nothing_is_dropped():
    assert codes(dmar(rmrr(0x7000_0000, 0x7000_0FFF, MISSING)), among=None) == []


OVERLAPS = [
    # (base, limit) of each region, whether it overlaps another
    ([(0x7000_0000, 0x7000_1FFF), (0x7000_1000, 0x7000_2FFF)], [True, True]),
    ([(0x7000_0000, 0x7000_0FFF), (0x7000_1000, 0x7000_1FFF)], [False, False]),  # they only touch
    ([(0x7000_0000, 0x7000_08FF), (0x7000_0900, 0x7000_0FFF)], [False, False]),  # one page, so one region
    ([(0x7000_0000, 0x7000_0FFF), (0x7000_0000, 0x7000_0FFF)], [True, True]),  # Xen refuses that: EEXIST
    ([(0x7000_0000, 0x7000_FFFF), (0x7000_1000, 0x7000_1FFF), (0x7000_8000, 0x7000_8FFF)], [True] * 3),
    ([(0x7000_1000, 0x7000_1FFF), (0x7000_8000, 0x7000_8FFF), (0x7000_0000, 0x7000_FFFF)], [True] * 3),
    ([(0x7000_1000, 0x7000_0FFF), (0x7000_0000, 0x7000_FFFF)], [False, False]),  # an empty one is nowhere
]


@pytest.mark.parametrize(("spans", "expected"), OVERLAPS)
def test_overlaps(spans, expected):
    table = dmar(*(rmrr(*span, GRAPHICS) for span in spans))
    assert ["region-overlaps" in codes(table, number) for number in range(len(spans))] == expected


def test_equal_blocks_of_ivmd_are_one_region():
    blocks = [ivmd(0x21, 1, routing, 0, 0x7000_0000, 0x1000) for routing in (0x10, 0xE8)]
    assert [codes(ivrs(*blocks), number) for number in range(2)] == [[], []]


TWINS = [
    # (start, size) of each unity block, which of them overlap another block than their twin
    ([(0x7000_0000, 0x2000), (0x7000_0000, 0x2000), (0x7000_1000, 0x2000)], [True, True, True]),
    ([(0x7000_0000, 0x2000), (0x7000_1000, 0x2000), (0x7000_1000, 0x2000)], [True, True, True]),
    ([(0x7000_0000, 0x4000), (0x7000_0000, 0x4000), (0x7000_8000, 0x1000)], [False, False, False]),
    ([(0x7000_0000, 0x8000), (0x7000_1000, 0x1000), (0x7000_0000, 0x8000)], [True, True, True]),
]


@pytest.mark.parametrize(("spans", "expected"), TWINS)
def test_a_twin_hides_no_overlap(spans, expected):
    table = ivrs(*(ivmd(0x21, 1, 8 * number, 0, *span) for number, span in enumerate(spans)))
    assert ["region-overlaps" in codes(table, number) for number in range(len(spans))] == expected


def test_bytes_that_overlap_in_pages_all_alike_are_found():
    spans = [(0x7000_0000, 0x7000_0FFF), (0x7000_0000, 0x7000_03FF), (0x7000_0800, 0x7000_0FFF)]
    for order in itertools.permutations(spans):
        table = dmar(*(rmrr(*span, GRAPHICS) for span in order))
        assert all("region-overlaps" in codes(table, number) for number in range(3))
    apart = dmar(*(rmrr(at, at + 0x3FF, GRAPHICS) for at in (0x7000_0000, 0x7000_0400, 0x7000_0400)))
    assert ["region-overlaps" in codes(apart, number) for number in range(3)] == [False, True, True]


def test_what_is_said_of_overlapping_regions():
    same, other = (0x7000_0000, 0x7000_0FFF), (0x7000_0000, 0x7000_1FFF)
    for second, words in ((same, "leaves dom0 when the last device of both"), (other, "pages stay mapped")):
        regions = with_findings(regions_from_tables([dmar(rmrr(*same, GRAPHICS), rmrr(*second, USB))], None))
        (found,) = regions.regions[0].findings
        assert words in found.text


def test_what_the_words_say():
    table = dmar(rmrr(0x7000_0000, 0x7000_0FFF, *(scope(0, (device, 0)) for device in range(1, 8))))
    regions = with_findings(regions_from_tables([table], None))
    (shared,) = regions.regions[0].findings
    assert "shared by 7 functions" in shared.text
    assert "0000:00:04.0 and 3 more" in shared.text
    assert "rdm_policy=relaxed" in shared.text


def test_a_shared_ivmd_needs_no_relaxed_policy():
    table = ivrs(ivmd(0x22, 1, 0, 0xFF, 0x7000_0000, 0x1000))
    regions = with_findings(regions_from_tables([table], None))
    (shared,) = regions.regions[0].findings
    assert shared.code == "region-shared"
    assert "relaxed" not in shared.text


def test_what_describes_a_machine_as_built_is_a_note():
    table = dmar(rmrr(0, 0x1000_0FFE, GRAPHICS, MISSING), rmrr(0x7000_1000, 0x7000_0FFF, GRAPHICS))
    regions = with_findings(regions_from_tables([table], MACHINE)).regions
    assert all(finding.is_note for finding in regions[0].findings)
    assert not any(finding.is_note for finding in regions[1].findings)


#  version of Xen: an RMRR over RAM ends VT-d (the judgement says so); None if the version does not tell
OVER_RAM = [*((f"{branch}.{patch}", branch >= "4.19") for branch, patch in NEWEST.items()),
            ("4.19.0", True), ("4.18-qubes", False), ("4.19.0-rc", None), (None, None)]  # fmt: skip


@pytest.mark.parametrize(("release", "ends"), OVER_RAM)
def test_what_xen_does_about_an_rmrr_over_ram(release, ends):
    version = parse_version(release) if release is not None else None
    table = dmar(rmrr(0xFF_F000, 0x100_0FFF, GRAPHICS))
    (region,) = with_findings(regions_from_tables([table], MACHINE), MEMORY, version).regions
    (text,) = [finding.text for finding in region.findings if finding.code == "region-over-ram"]
    assert "lies over RAM (0x100000-0x100fffff)" in text
    assert ("overwrite" in text) == (ends is not True)


@pytest.mark.parametrize("release", [*(f"{branch}.{patch}" for branch, patch in NEWEST.items()), None])
def test_an_ivmd_over_ram_is_never_kept(release):
    version = parse_version(release) if release is not None else None
    region = Region(RegionKind.UNITY, 0, Address(0xFF_F000), Address(0x100_0FFF), (), ())
    (found,) = with_findings(Regions((region,)), MEMORY, version).regions
    (text,) = [finding.text for finding in found.findings if finding.code == "region-over-ram"]
    assert "overwrite" not in text
