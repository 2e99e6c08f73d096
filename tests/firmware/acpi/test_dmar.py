import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.acpi.dmar import parse_dmar
from pcipt.firmware.acpi.table import parse_table

TABLES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "acpi" / "dmar"
RECORDED = sorted(TABLES.glob("*.bin"))


def shared_tables():
    return RECORDED or [pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is not here"))]


def decoded_by_iasl(text):
    """Read iasl's text: (type, segment, base, limit, [(scope type, bus, path)]) per unit and region."""
    found = []
    for block in re.split(r"\n(?=\[[0-9A-F]{3}h [0-9]+ [ 0-9]+h?\] +Subtable Type)", text)[1:]:
        kind = int(re.search(r"Subtable Type : ([0-9A-F]{4})", block)[1], 16)
        if kind not in (0, 1):
            continue
        segment = int(re.search(r"PCI Segment Number : ([0-9A-F]{4})", block)[1], 16)
        scopes = []
        for scope in block.split("Device Scope Type")[1:]:
            number = int(re.match(r"[^:]*: ([0-9A-F]{2})", scope)[1], 16)
            bus = int(re.search(r"PCI Bus Number : ([0-9A-F]{2})", scope)[1], 16)
            path = re.findall(r"PCI Path : ([0-9A-F]{2}),([0-9A-F]{2})", scope)
            scopes.append((number, bus, tuple((int(d, 16), int(f, 16)) for d, f in path)))
        ends = [
            int(value, 16) for value in re.findall(r"(?:Base|Limit|End) Address.*: ([0-9A-F]{16})", block)
        ]
        found.append((kind, segment, *ends[: 2 if kind else 1], scopes))
    return found


@pytest.mark.parametrize("path", shared_tables(), ids=lambda path: path.stem[-40:] if path else "none")
def test_recorded_tables_agree_with_iasl(path):
    dmar = parse_dmar(parse_table(path.read_bytes()))
    assert dmar.findings == ()
    scopes = lambda entry: [(s.kind, s.bus, s.path) for s in entry.scopes]  # noqa: E731 one use, beside it
    ours = [(0, u.segment, u.base, scopes(u)) for u in dmar.units]
    ours += [(1, r.segment, r.base, r.limit, scopes(r)) for r in dmar.regions]
    text = path.with_suffix(".txt").read_text(errors="replace")
    theirs = decoded_by_iasl(text)
    assert sorted(map(str, ours)) == sorted(map(str, theirs))
    assert ours


@given(st.binary(max_size=120), st.integers(0, 255))
def test_any_bytes_end_in_findings_not_exceptions(body, flip):
    head = b"DMAR" + (48 + len(body)).to_bytes(4, "little") + bytes(40)
    dmar = parse_dmar(parse_table(head + body))
    covered = sum(length for _, _, length in dmar.others)
    assert covered <= len(body)
    if not body:
        assert dmar.units == ()


def rmrr(base, limit, scopes=b""):
    body = (1).to_bytes(2, "little") + (24 + len(scopes)).to_bytes(2, "little") + bytes(4)
    return body + base.to_bytes(8, "little") + limit.to_bytes(8, "little") + scopes


def dmar_of(*entries):
    body = b"".join(entries)
    return parse_dmar(parse_table(b"DMAR" + (48 + len(body)).to_bytes(4, "little") + bytes(40) + body))


@pytest.mark.parametrize(
    ("entry", "regions", "code"),
    [
        (rmrr(0x1000, 0x0FFF), 1, None),  # limit below base by one: kept, its range is empty
        (b"\x01\x00\x10\x00" + bytes(12), 0, "acpi-entry"),  # 16 bytes are no RMRR
        (b"\x01\x00\x00\x00", 0, "acpi-entry"),  # length 0 would loop for ever
        (rmrr(0, 0xFFF, b"\x01\x06\x00\x00\x00\x00"), 1, "acpi-scope"),  # a scope without a path
        (rmrr(0, 0xFFF, b"\x01\x20\x00\x00\x00\x00\x1d\x00"), 1, "acpi-entry"),  # a scope past its entry
    ],
)
def test_oddities(entry, regions, code):
    dmar = dmar_of(entry)
    assert len(dmar.regions) == regions
    codes = {finding.code for finding in dmar.findings} - {"acpi-checksum"}
    assert codes == ({code} if code else set())


@pytest.mark.parametrize(("hop", "told"), [((0x1F, 7), False), ((0x20, 0), True), ((0, 8), True)])
def test_a_path_that_leads_to_no_function_is_told(hop, told):
    dmar = dmar_of(rmrr(0x1000, 0x1FFF, bytes((1, 8, 0, 0, 0, 0, *hop))))
    assert dmar.regions[0].scopes[0].path == (hop,)
    assert any("at 0x48: the path" in finding.text for finding in dmar.findings) == told


def test_an_empty_region_has_no_range():
    assert dmar_of(rmrr(0x2000, 0x1FFF)).regions[0].range is None
    assert str(dmar_of(rmrr(0x2000, 0x2FFF)).regions[0].range) == "0x2000-0x2fff"


def test_the_other_kinds_of_entries():
    scope = b"\x02\x08\x00\x00\x00\x00\x1c\x00"
    dmar = dmar_of(
        b"\x02\x00\x10\x00\x01\x00\x00\x00" + scope,  # ATSR: all ports of segment 0
        b"\x05\x00\x10\x00\x00\x00\x02\x00" + scope,  # SATC of segment 2
        b"\x03\x00\x14\x00" + bytes(4) + (0xFED9_0000).to_bytes(8, "little") + b"\x03\x00\x00\x00",  # RHSA
        b"\x04\x00\x0f\x00\x00\x00\x00\x05\\_SB.A\x00",  # ANDD
        b"\x77\x00\x06\x00ab",  # nobody knows
        rmrr(0x1000, 0x1FFF),
    )
    assert [(s.kind, s.segment, s.flag, len(s.scopes)) for s in dmar.services] == [
        (2, 0, True, 1),
        (5, 2, False, 1),
    ]
    assert [(a.base, a.proximity) for a in dmar.affinities] == [(0xFED9_0000, 3)]
    assert [(n.enumeration_id, n.name) for n in dmar.names] == [(5, "\\_SB.A")]
    assert [(kind, length) for kind, _, length in dmar.others] == [(0x77, 6)]
    assert len(dmar.regions) == 1
