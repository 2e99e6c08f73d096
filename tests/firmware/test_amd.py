"""What Xen's AMD driver makes of IVRS tables: units and reserved memory of each function.

The right values are those of Xen's own parser, of 4.17.7, 4.18.6, 4.19.6, 4.20.4, 4.21.2 and 4.22.0 alike.
"""

import time

import pytest

from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.amd import find_unit
from pcipt.firmware.coverage import BootSnapshot, Coverage, IommuScope
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import decode_machine, parse_sbdf
from pcipt.pci.requester import Requester
from tests.firmware.reserved_tables import INFO, alias, ivhd, ivmd, ivrs, select, span, special
from tests.machines import function

AT = 0x7000_0000
UNITY, EXCLUSION = 7, 0xE
SOME = ivhd(select(0x300), span(0x400, 0x4FF))
NAMES = ("03:00.0", "03:00.1", "03:1f.7", "04:00.0", "04:1f.7")


def machine_of(*names):
    return decode_machine([function(name, parent=None) for name in names])


MACHINE = machine_of(*NAMES)


def alias_range(first, other, last):
    return b"\x43" + alias(first, other)[1:] + b"\x04" + select(last)[1:]


#  blocks: the units', the others; functions of NAMES and the pages (from AT on) that Xen has for them
CASES = {
    "one function, and those that take over its record": (
        (SOME,), (ivmd(0x21, UNITY, 0x300, 0, AT, 0x2000),), {"03:00.0": {0, 1}, "03:00.1": {0, 1}},
    ),
    "a function with a record of its own takes over nothing": (
        (ivhd(select(0x300), select(0x301)),),
        (ivmd(0x21, UNITY, 0x300, 0, AT, 0x2000),), {"03:00.0": {0, 1}},
    ),
    "a range": ((SOME,), (ivmd(0x22, UNITY, 0x400, 0x4FE, AT, 0x1000),), {"04:00.0": {0}}),
    "all functions that have a unit": (
        (SOME,), (ivmd(0x20, UNITY, 0, 0, AT, 0x1000),),
        {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {0}, "04:1f.7": {0}},
    ),
    "all functions, as an exclusion range": (
        (SOME,), (ivmd(0x20, EXCLUSION, 0, 0, AT, 0x1000),),
        {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {0}, "04:1f.7": {0}},
    ),
    "a unit has one exclusion range: those that touch are one": (
        (SOME,),
        (ivmd(0x21, EXCLUSION, 0x300, 0, AT, 0x1000), ivmd(0x21, EXCLUSION, 0x400, 0, AT + 0x1000, 0x1000)),
        {"03:00.0": {0, 1}, "03:00.1": {0, 1}, "04:00.0": {0, 1}},
    ),
    "exclusion ranges that do not touch stay apart": (
        (SOME,),
        (ivmd(0x21, EXCLUSION, 0x300, 0, AT, 0x1000), ivmd(0x21, EXCLUSION, 0x400, 0, AT + 0x3000, 0x1000)),
        {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {3}},
    ),
    "an exclusion range for all beside one for a function": (
        (SOME,),
        (ivmd(0x21, EXCLUSION, 0x300, 0, AT, 0x1000), ivmd(0x20, EXCLUSION, 0, 0, AT + 0x1000, 0x1000)),
        {"03:00.0": {0, 1}, "03:00.1": {0, 1}, "04:00.0": {1}, "04:1f.7": {1}},
    ),
    "type 23, all functions of a unit": (
        (SOME, ivhd(span(0x300, 0x3FF), device=0x4002)), (ivmd(0x23, UNITY, 2, 0x40, AT, 0x1000),),
        {"04:00.0": {0}, "04:1f.7": {0}},
    ),
    "type 23 as an exclusion range": (
        (SOME,), (ivmd(0x23, EXCLUSION, 2, 0x40, AT, 0x1000),),
        {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {0}, "04:1f.7": {0}},
    ),
    "the id under which the unit sees a function": (
        (ivhd(select(0x300), select(0x301), alias(0x301, 0x300)),),
        (ivmd(0x21, UNITY, 0x301, 0, AT, 0x1000),), {"03:00.0": {0}, "03:00.1": {0}},
    ),
    "of the entries about a function the last one counts": (
        (ivhd(select(0x300), alias(0x301, 0x300), select(0x301)),),
        (ivmd(0x21, UNITY, 0x301, 0, AT, 0x1000),), {"03:00.1": {0}},
    ),
    "a range of aliases": (
        (ivhd(select(0x300), alias_range(0x400, 0x300, 0x4FF)),),
        (ivmd(0x22, UNITY, 0x400, 0x40F, AT, 0x1000),), {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {0}},
    ),
    "an exclusion range stays with its unit when a later block gives the function to another": (
        (SOME,),
        (
            ivmd(0x21, EXCLUSION, 0x300, 0, AT, 0x1000), ivmd(0x21, EXCLUSION, 0x400, 0, AT, 0x1000),
            ivhd(select(0x300), device=0x4002),
        ),
        {"04:00.0": {0}},
    ),
    "segment 0, whatever the block says": (
        (SOME,), (ivmd(0x21, UNITY, 0x400, 0, AT, 0x1000, segment=1),), {"04:00.0": {0}},
    ),
    "whole pages": ((SOME,), (ivmd(0x21, UNITY, 0x400, 0, AT + 0x800, 0x900),), {"04:00.0": {0, 1}}),
}  # fmt: skip


def pages_of(regions):
    found = {}
    for region in regions.regions:
        for device in region.devices:
            first = int(region.frames.start) - (AT >> 12)
            found.setdefault(str(device.sbdf)[5:], set()).update(range(first, first + region.frames.count))
    return found


@pytest.mark.parametrize("case", CASES)
def test_reserved_memory_of_each_function(case):
    units, blocks, expected = CASES[case]
    regions = regions_from_tables([ivrs(*blocks, units=units)], MACHINE)
    assert pages_of(regions) == expected
    assert not [region for region in regions.regions if region.dropped]


@pytest.mark.parametrize("flags", [UNITY, EXCLUSION])
@pytest.mark.parametrize("machine", [machine_of("05:00.0"), None], ids=["absent", "unknown"])
def test_memory_of_a_function_that_is_not_there_is_kept(flags, machine):
    table = ivrs(ivmd(0x21, flags, 0x400, 0, AT, 0x1000), units=(SOME,))
    (region,) = with_findings(regions_from_tables([table], machine)).regions
    assert [str(device.sbdf) for device in region.devices] == ["0000:04:00.0"]
    assert (region.dropped, region.findings) == ("", ())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (ivrs(ivmd(0x21, UNITY, 0x100, 0, AT, 0x1000), units=(SOME,)), "in the table no IOMMU unit"),
        (
            ivrs(units=(ivmd(0x21, UNITY, 0x300, 0, AT, 0x1000), SOME)),
            "in the table no IOMMU unit",
        ),  # it comes later
        (
            ivrs(ivmd(0x21, UNITY, 0x301, 0, AT, 0x1000), units=(SOME,)),
            "in the table no IOMMU unit",
        ),  # function 1
        (ivrs(ivmd(0x21, UNITY, 0x300, 0, 1 << 48, 0x1000), units=(SOME,)), "above the addresses"),
        (ivrs(ivmd(0x21, UNITY, 0x300, 0, AT, 0x1000), units=(SOME,), info=1), "above the addresses"),
    ],
)
def test_what_xen_passes_over_is_told_and_has_no_devices(table, words):
    (region,) = with_findings(regions_from_tables([table], MACHINE)).regions
    assert region.devices == ()
    assert [finding.code for finding in region.findings if words in finding.text] == ["region-dropped"]


def test_of_a_range_what_has_a_unit_is_kept():
    table = ivrs(ivmd(0x22, UNITY, 0x300, 0x401, AT, 0x1000), units=(SOME,))
    regions = regions_from_tables([table], MACHINE)
    assert pages_of(regions) == {"03:00.0": {0}, "03:00.1": {0}, "04:00.0": {0}}


TWO = (ivhd(select(0x300)), ivhd(select(0x400), kind=0x11), ivhd(select(0x500), kind=0x40))


@pytest.mark.parametrize(
    ("units", "info", "served"),
    [
        ((SOME,), INFO, {"03:00.0", "03:00.1", "04:00.0", "04:1f.7"}),
        (TWO, INFO, {"04:00.0"}),  # type 11 only
        (TWO, INFO & ~1, {"03:00.0", "03:00.1"}),  # no extended features: type 10
        (TWO[2:], INFO, set()),
        ((ivhd(special(0x400)),), INFO, {"04:00.0"}),  # the place of an IO-APIC
        ((ivhd(span(0, 0x3FF), device=0x300),), INFO, {"03:1f.7", "03:00.1"}),  # not the unit itself
        ((ivhd(select(0x300), device=0x301),), INFO, {"03:00.0"}),  # nor by its function 0
        ((ivhd(select(0x300), segment=1),), INFO, set()),
    ],
)
def test_units_of_functions(units, info, served):
    table = ivrs(units=units, info=info)
    parsed = parse_ivrs(parse_table(table))
    units = [unit for unit in parsed.used if unit.segment == 0]
    ids = {name: parse_sbdf(name).bus << 8 | parse_sbdf(name).devfn for name in NAMES}
    assert {name for name in NAMES if find_unit(units, ids[name])} == served
    scope = IommuScope(BootSnapshot("", frozenset(), {})).with_tables([table])
    covered = {name: scope.covers(Requester(parse_sbdf(name))) for name in NAMES}
    assert {name for name, coverage in covered.items() if coverage is Coverage.CERTAIN} == served


def test_a_range_for_everything_takes_no_time():
    table = ivrs(ivmd(0x22, EXCLUSION, 3, 0xFFFF, AT, 0x1000))
    before = time.thread_time()
    regions = regions_from_tables([table], MACHINE)
    assert time.thread_time() - before < 2
    assert len(regions.regions[0].devices) == len(NAMES)
