"""Published DMAR and IVRS tables, and what Xen's own parsers of four releases made of them, as data.

The machine of each answer has the functions that the table names, with bridges on its paths, or none of them;
the regions lie in reserved memory or in RAM. So it was given to Xen (../shared/oracle/tables/README.md).
"""

import functools
import gzip
import json
from pathlib import Path

import pytest

from pcipt.firmware.acceptance.answers import Answer
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acpi.dmar import SCOPE_IOAPIC, parse_dmar
from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import entries, parse_table
from pcipt.firmware.amd import find_unit
from pcipt.firmware.coverage import BootSnapshot, Coverage, IommuScope, snapshot_from_machine
from pcipt.firmware.memory_map import MemoryType, entry, flatten_map
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import Sbdf, decode_machine, sbdf_from_devfn
from pcipt.pci.requester import Requester
from pcipt.pci.units import PAGE_SIZE
from pcipt.xen.releases import parse_version
from tests.firmware.reserved_tables import madt
from tests.machines import function

HOME = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "acpi"
ANSWERS = HOME / "xen.jsonl.gz"
VERSIONS = {"4.17.7", "4.19.6", "4.20.4", "4.22.0"}
SCOPES_AT = {0: 16, 1: 24, 2: 8, 5: 8}


@functools.cache
def by_table():
    """Give the answers by the name of their table."""
    found = {}
    with gzip.open(ANSWERS, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            found.setdefault(line["table"], []).append(line)
    return found


def tables(folder):
    if not ANSWERS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="../shared/data/acpi is not here"))]
    return [pytest.param(name, id=name[5:40]) for name in sorted(by_table()) if name.startswith(folder)]


def sbdf_of(number):
    return sbdf_from_devfn(number >> 16, number >> 8 & 0xFF, number & 0xFF)


def paths(data):
    """Yield (segment, kind, start bus, hops) of each device scope of a DMAR."""
    for kind, at, length in entries(data, 48, len(data), []):
        if kind in SCOPES_AT:
            segment = int.from_bytes(data[at + 6 : at + 8], "little")
            for what, scope, size in entries(data, at + SCOPES_AT[kind], at + length, [], header=2):
                hops = data[scope + 6 : scope + size]
                yield segment, what, data[scope + 5], list(zip(hops[::2], hops[1::2], strict=True))


def bridges_of(data):
    """Give (secondary, subordinate) of the bridges on the paths: the lowest bus that no path uses."""
    found, used = {}, {0: {0}}
    for segment, _, bus, _ in paths(data):
        used.setdefault(segment, {0}).add(bus)

    def below(sbdf):
        if sbdf not in found:
            bus = next(bus for bus in range(sbdf.bus + 1, 256) if bus not in used[sbdf.segment])
            used[sbdf.segment].add(bus)
            found[sbdf] = (bus, bus)
        return found[sbdf][0]

    for segment, kind, start, hops in paths(data):
        if kind not in (1, 2):
            continue
        above, bus = [], start
        for hop in hops[:-1]:
            above.append(Sbdf(segment, bus, *hop))
            bus = below(above[-1])
        last = below(Sbdf(segment, bus, *hops[-1])) if kind == 2 else bus
        for each in above:
            found[each] = (found[each][0], max(found[each][1], last))
    return found


def memory_of(regions, kind):
    """Give RAM below 640 KiB and from 1 MiB to 64 GiB, and over it the regions as memory of one type."""
    spans = [each.range for each in regions.regions if each.range is not None]
    pages = [
        (span.start // PAGE_SIZE * PAGE_SIZE, -(-(span.last + 1) // PAGE_SIZE) * PAGE_SIZE) for span in spans
    ]
    ram = [(0, 0xA0000), (1 << 20, 64 << 30)]
    return flatten_map(
        [entry(start, end - start, MemoryType.RAM) for start, end in ram]
        + [entry(start, end - start, kind) for start, end in pages]
    )


def io_apics_of(data):
    table = parse_table(data)
    if data[:4] == b"DMAR":
        scopes = [scope for unit in parse_dmar(table).units for scope in unit.scopes]
        return sorted({scope.enumeration_id for scope in scopes if scope.kind == SCOPE_IOAPIC})
    entries_of = (data[at : at + 8] for at in range(48, len(data) - 7, 4) if data[at] == 0x48)
    return sorted({each[4] for each in entries_of if each[7] == 1})


def spans(found):
    return sorted([int(frames.start), frames.count] for frames in found)


def judged(line, data):
    """Give what is judged of one answer's machine, and its functions."""
    asked = [sbdf_of(each["sbdf"]) for each in line["answer"].get("answers", ())]
    if line["present"] == "all" and not asked:  # Xen has refused the table: the answer names no functions
        asked = [sbdf_of(each["sbdf"]) for each in by_table()[line["table"]][0]["answer"]["answers"]]
    there = frozenset(asked if line["present"] == "all" else ())
    boot = BootSnapshot("", there, {at: buses for at, buses in bridges_of(data).items() if at in there})
    kind = {"reserved": MemoryType.RESERVED, "ram": MemoryType.RAM}[line["regions"]]
    memory = memory_of(regions_from_tables([data], None), kind)
    tables = [data, madt(*io_apics_of(data))]
    return judge(tables, memory, parse_version(line["xen"]), boot)


@pytest.mark.parametrize("table", tables(""))
def test_the_judgement_is_that_of_xen(table):
    """Verdict, reserved pages of each function, and the unit of each function."""
    data = (HOME / table).read_bytes()
    assert {line["xen"] for line in by_table()[table]} == VERSIONS
    for line in by_table()[table]:
        answer, what = line["answer"], (line["xen"], line["regions"], line["present"])
        acceptance = judged(line, data)
        refused = bool(answer["result"] or answer["died"])
        assert acceptance.iommu is (Answer.NO if refused else Answer.YES), (what, acceptance.said)
        for each in answer.get("answers", ()):
            sbdf, state = sbdf_of(each["sbdf"]), acceptance.state
            assert spans(state.regions_of(sbdf)) == sorted(pair for pair in each["reserved"] if pair[1])
            if data[:4] == b"DMAR":
                unit = state.unit_of(Requester(sbdf))
                assert (unit.base if unit is not None else -1) == each["unit"], (what, str(sbdf))
            elif each["unit"] != -2:  # it is an IOMMU itself
                unit = state.unit_of(sbdf)
                number = -1 if unit is None else [each is unit for each in state.units].index(True)
                assert number == each["unit"], (what, str(sbdf))


def accepted(table):
    lines = by_table()[table]
    return [line for line in lines if line["answer"]["result"] == 0 and line["regions"] == "reserved"]


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
    for line in accepted(table):
        asked = {each["sbdf"]: sbdf_of(each["sbdf"]) for each in line["answer"]["answers"]}
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


@pytest.mark.parametrize("table", tables("ivrs"))
def test_runs_of_functions_with_a_unit_are_those_of_xen(table):
    units = parse_ivrs(parse_table((HOME / table).read_bytes())).used
    for line in accepted(table):
        for segment, first, last, unit in line["answer"]["runs"]:
            own = [each for each in units if each.segment == segment]
            device = line["answer"]["units"][unit]["sbdf"] & 0xFFFF
            ids = {first, last, (first + last) // 2} - {each.device for each in own}
            assert {find_unit(own, routing).device for routing in ids} == {device}
        assert line["answer"]["runs"]
