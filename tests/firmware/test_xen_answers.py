"""Published DMAR and IVRS tables, and what Xen's own parsers of four releases made of them, as data."""

import functools
import gzip
import json
from pathlib import Path

import pytest

from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.amd import find_unit
from pcipt.firmware.coverage import Coverage, IommuScope, snapshot_from_machine
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import decode_machine, sbdf_from_devfn
from pcipt.pci.requester import Requester
from tests.machines import function

HOME = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "acpi"
ANSWERS = HOME / "xen.jsonl.gz"


@functools.cache
def by_table():
    """Give the answers by the name of their table; what Xen refuses is the verdict's matter."""
    found = {}
    with gzip.open(ANSWERS, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line["answer"]["result"] == 0 and line["regions"] == "reserved":
                found.setdefault(line["table"], []).append(line)
    return found


def tables(folder):
    if not ANSWERS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="../shared/data/acpi is not here"))]
    return [pytest.param(name, id=name[5:40]) for name in sorted(by_table()) if name.startswith(folder)]


def has_long_paths(regions):
    return any(len(scope.path) > 1 for region in regions.regions for scope in region.scopes)


def pages(regions, sbdf):
    """Give the pages of a function's regions that Xen keeps."""
    return {
        page
        for region in regions.of(sbdf)
        if region.frames is not None and not region.dropped
        for page in range(int(region.frames.start), int(region.frames.end))
    }


@pytest.mark.parametrize("table", tables(""))
def test_regions_and_units_are_those_of_xen(table):
    data = (HOME / table).read_bytes()
    versions = set()
    for line in by_table()[table]:
        versions.add(line["xen"])
        asked = {
            each["sbdf"]: sbdf_from_devfn(each["sbdf"] >> 16, each["sbdf"] >> 8 & 0xFF, each["sbdf"] & 0xFF)
            for each in line["answer"]["answers"]
        }
        there = asked.values() if line["present"] == "all" else ()
        machine = decode_machine([function(str(sbdf), parent=None) for sbdf in there])
        regions = regions_from_tables([data], machine)
        if has_long_paths(regions):  # they need the bridges that led there
            continue
        scope = IommuScope(snapshot_from_machine("", machine)).with_tables([data])
        for each in line["answer"]["answers"]:
            sbdf = asked[each["sbdf"]]
            expected = {page for first, count in each["reserved"] for page in range(first, first + count)}
            assert pages(regions, sbdf) == expected, (line["xen"], str(sbdf))
            covered = scope.covers(Requester(sbdf)) is not Coverage.NONE
            assert covered == (each["unit"] != -1), (line["xen"], str(sbdf))
    assert versions == {"4.17.7", "4.19.6", "4.20.4", "4.22.0"}


@pytest.mark.parametrize("table", tables("ivrs"))
def test_runs_of_functions_with_a_unit_are_those_of_xen(table):
    units = parse_ivrs(parse_table((HOME / table).read_bytes())).used
    for line in by_table()[table]:
        for segment, first, last, unit in line["answer"]["runs"]:
            own = [each for each in units if each.segment == segment]
            device = line["answer"]["units"][unit]["sbdf"] & 0xFFFF
            ids = {first, last, (first + last) // 2} - {each.device for each in own}
            assert {find_unit(own, routing).device for routing in ids} == {device}
        assert line["answer"]["runs"]
