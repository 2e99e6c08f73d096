"""Regions that Xen's command line adds, for each vendor and release."""

import pytest

from pcipt.firmware.acceptance.answers import Answer
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.regions.regions import RegionKind
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import parse_sbdf
from pcipt.xen.added_regions import parse_added_regions
from pcipt.xen.releases import parse_version
from tests.firmware.reserved_tables import dmar, drhd, ivhd, ivmd, ivrs, madt, rmrr, scope, select, special
from tests.machines import function, machine

RELEASES = ("4.17.0", "4.17.7", "4.18.6", "4.19.0", "4.19.6", "4.20.4", "4.21.2", "4.22.0")
MACHINE = machine(function("00:02.0"), function("00:03.0"))
MEMORY = (
    entry(0, 0x7000_0000, MemoryType.RAM),
    entry(0x7000_0000, 0x100_0000, MemoryType.RESERVED),
    entry(0x7F00_0000, 0x10_0000, MemoryType.RAM),
    entry(1 << 32, 1 << 30, MemoryType.RAM),
)
DMAR = dmar(drhd(), rmrr(0x7000_0000, 0x7000_0FFF, scope(0, (3, 0))))
IVRS = ivrs(
    ivmd(0x21, 7, 0x18, 0, 0x7000_0000, 0x1000), units=[ivhd(select(0x10), select(0x18), special(0xA0))]
)


def options(line):
    found = parse_added_regions(line)
    return Options(rmrr=found.rmrr, ivmd=found.ivmd, faults=found.faults)


def regions(table, line, given=MACHINE):
    return regions_from_tables([table], given, None, options(line), MEMORY)


def spans(found):
    return [
        (each.base, each.limit, [str(device.sbdf)[5:] for device in each.devices]) for each in found.regions
    ]


@pytest.mark.parametrize(
    ("table", "line", "kind"),
    [
        (DMAR, "rmrr=70010-70011=0:2.0", RegionKind.RMRR),
        (IVRS, "ivmd=70010-70011=0:2.0", RegionKind.UNITY),
    ],
)
def test_an_added_region_is_a_region_of_its_function(table, line, kind):
    found = regions(table, line)
    assert spans(found) == [
        (0x7000_0000, 0x7000_0FFF, ["00:03.0"]),
        (0x7001_0000, 0x7001_1FFF, ["00:02.0"]),
    ]
    assert (found.regions[1].kind, found.findings) == (kind, ())
    assert [each.code for each in found.regions[1].findings] == ["region-added"]
    assert found.of(parse_sbdf("00:02.0")) == found.regions[1:]
    assert len(regions(table, line.replace("rmrr", "x").replace("ivmd", "rmrr")).regions) == (
        2 if table is DMAR and "ivmd" in line else 1
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("rmrr=70000=0:2.0", "overlaps the region 0x70000000-0x70000fff"),
        ("rmrr=70010=0:2.0 rmrr=7000f-70010=0:3.0", "overlaps the region 0x70010000-0x70010fff"),
        ("rmrr=80000=0:2.0", "does not know the page 0x80000000"),  # no RAM in the 256 MiB there
        ("rmrr=140000=0:2.0", "does not know the page 0x140000000"),  # above all RAM
        ("rmrr=70010=0:2.0,1:0:3.0", "several segments"),
        ("rmrr=70010", "names no function"),
    ],
)
def test_a_region_that_xen_passes_over_is_a_finding(line, why):
    found = regions(DMAR, line)
    assert [each.code for each in found.findings] == ["region-option"]
    assert why in found.findings[0].text
    assert "Xen ignores" in found.findings[0].text
    assert len(found.regions) == 1 + line.count("rmrr=") - 1


def test_an_added_region_may_lie_over_ram_and_near_it():
    found = regions(DMAR, "rmrr=60000=0:2.0;71000=0:3.0")
    assert [each.base for each in found.regions[1:]] == [0x6000_0000, 0x7100_0000]
    assert found.findings == ()


def test_a_region_of_functions_that_are_not_there_is_dropped():
    found = regions(DMAR, "rmrr=70010=0:9.0 rmrr=70010=0:2.0,0:9.0")
    assert [bool(each.dropped) for each in found.regions] == [False, True, False]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("ivmd=70010=0:2.0", None),
        ("ivmd=70010", None),
        ("ivmd=60000=0:2.0", "ivmd-over-ram"),
        ("ivmd=70010=0:2.0-0:2.0", "ivmd-range"),
        ("ivmd=70010=40:2.0", "ivmd-beyond"),
        ("ivmd=70000-70001=0:3.0", "ivmd-overlap"),
    ],
)
def test_amd_vi_is_refused_for_a_wrong_region_of_the_command_line(line, rule, release):
    found = judge([IVRS, madt(0)], MEMORY, parse_version(release), options=options(line))
    if release == "4.17.0":  # it takes no reserved memory as such
        assert found.end is None or found.end.rule.name != "ivmd-over-ram"
        return
    assert found.iommu is (Answer.NO if rule else Answer.YES)
    if rule:
        assert found.end.rule.name == rule
        assert found.end.text.startswith("Xen's command line (ivmd=, region 1): ")
        assert "correct the option ivmd=" in found.end.cure
        assert "vendor" not in found.end.cure


@pytest.mark.parametrize("release", RELEASES)
def test_vt_d_is_not_refused_for_a_region_of_the_command_line(release):
    line = "rmrr=60000=0:2.0 rmrr=70000=0:2.0 rmrr=zz"
    found = judge([DMAR, madt()], MEMORY, parse_version(release), options=options(line))
    assert found.iommu is Answer.YES
