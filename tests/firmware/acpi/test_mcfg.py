import re
import struct
from pathlib import Path

import pytest

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.mcfg import parse_mcfg, regions_from_mcfg
from pcipt.firmware.acpi.table import parse_table

TABLES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "acpi" / "mcfg"
RECORDED = sorted(TABLES.glob("*.bin")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is not here"))
]


def entry(base, segment=0, first=0, last=0xFF):
    return struct.pack("<QHBBI", base, segment, first, last, 0)


def table(*entries, tail=b""):
    return build_table(Header("MCFG", 1), bytes(8) + b"".join(entries) + tail)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem[-30:] if path else "none")
def test_recorded_tables_agree_with_iasl(path):
    mcfg = parse_mcfg(parse_table(path.read_bytes()))
    text = path.with_suffix(".txt").read_text(errors="replace")
    fields = ("Base Address", "Segment Group Number", "Start Bus Number", "End Bus Number")
    columns = [[int(value, 16) for value in re.findall(f"{name} : ([0-9A-F]+)", text)] for name in fields]
    assert [(r.base, r.segment, r.start_bus, r.end_bus) for r in mcfg.regions] == list(
        zip(*columns, strict=True)
    )
    assert mcfg.findings == ()


CASES = [
    # the table, how many regions, where something is wrong
    (table(entry(0xB000_0000), entry(0xC000_0000, 1)), 2, []),
    (table(), 0, []),
    (table(entry(0xB000_0000, first=2, last=1), entry(0xC000_0000)), 1, ["at 0x2c"]),  # no bus
    (table(entry(0xB000_1000)), 0, ["at 0x2c"]),  # not aligned to a bus
    (table(entry(2**64 - (1 << 20))), 0, ["at 0x2c"]),  # ends above 64 bits
    (table(entry(0xB000_0000), tail=b"12345"), 1, ["at 0x3c"]),
    (build_table(Header("MCFG", 1), b"1234"), 0, ["at 0x28"]),  # ends before any entry
]


@pytest.mark.parametrize(("data", "regions", "places"), CASES)
def test_oddities(data, regions, places):
    mcfg = parse_mcfg(parse_table(data))
    assert len(mcfg.regions) == regions
    assert [finding.text.partition(":")[0] for finding in mcfg.findings] == places


def test_other_tables_have_no_regions():
    assert regions_from_mcfg(build_table(Header("SSDT", 1), bytes(24))) == ()
    assert regions_from_mcfg(b"short") == ()
    assert len(regions_from_mcfg(table(entry(0xB000_0000)))) == 1
