import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.acpi.build_table import Header, build_table, with_checksum
from pcipt.firmware.coverage import BootSnapshot, snapshot_from_machine
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import RegionKind
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.firmware.regions.view import regions_to_json
from pcipt.pci import parse_sbdf
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import bridge, function, machine

TABLES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "acpi"
RECORDED = sorted(TABLES.glob("dmar/*.bin")) + sorted(TABLES.glob("ivrs/*.bin")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is not here"))
]
MACHINE = machine(
    function("00:02.0"), function("00:1d.0"), bridge("00:1c.0", 2, 4), function("02:00.0", parent="00:1c.0")
)
WORDS = {1: "endpoint", 2: "bridge", 3: "ioapic", 4: "hpet", 5: "namespace"}


def told(regions):
    return [
        (region.kind.value, region.base, region.limit, [str(device.sbdf) for device in region.devices])
        for region in regions.regions
    ]


def regions_by_iasl(text):
    """Read the regions of iasl's text: (base, limit, [(scope type, bus, path)])."""
    found = []
    for block in re.split(r"\n(?=\[[0-9A-F]{3}h [0-9]+ [ 0-9]+h?\] +Subtable Type)", text)[1:]:
        kind = int(re.search(r"Subtable Type : ([0-9A-F]{2,4})", block)[1], 16)
        field = lambda name, block=block: int(re.search(rf"{name} : ([0-9A-F]+)", block)[1], 16)  # noqa: E731
        if "[Reserved Memory Region]" in block.splitlines()[0]:
            scopes = []
            for each in block.split("Device Scope Type")[1:]:
                number = int(re.match(r"[^:]*: ([0-9A-F]{2})", each)[1], 16)
                bus = int(re.search(r"PCI Bus Number : ([0-9A-F]{2})", each)[1], 16)
                path = re.findall(r"PCI Path : ([0-9A-F]{2}),([0-9A-F]{2})", each)
                scopes.append((WORDS[number], bus, [[int(d, 16), int(f, 16)] for d, f in path]))
            found.append((field("Base Address"), field(r"End Address \(limit\)"), scopes))
        elif "[Memory Definition Block (IVMD)]" in block.splitlines()[0]:
            assert kind == 0x21
            number, start = field("DeviceId"), field("Start Address")
            scopes = [("endpoint", number >> 8, [[number >> 3 & 0x1F, number & 7]])]
            found.append((start, start + field("Memory Length") - 1, scopes))
    return found


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem[-40:] if path else "none")
def test_recorded_tables_give_the_regions_that_iasl_reads(path):
    answer = regions_to_json(regions_from_tables([path.read_bytes()], None), "")
    ours = [
        (int(r["base"], 16), int(r["limit"], 16), [(s["type"], s["bus"], s["path"]) for s in r["scopes"]])
        for r in answer["regions"]
    ]
    assert ours == regions_by_iasl(path.with_suffix(".txt").read_text(errors="replace"))
    assert answer["findings"] == []


def _read_timed(data):
    """Return the regions of a table, and the seconds of processor time that reading and showing them took."""
    before = time.thread_time()
    regions = with_findings(regions_from_tables([data], MACHINE), ())
    regions_to_json(regions, "")
    return regions, time.thread_time() - before


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem[-40:] if path else "none")
def test_a_damaged_table_is_told_and_takes_no_time(path):
    """Cut at every byte, each byte inverted and changed by a bit: no exception, never 50 ms."""
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [
        whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
        for at in range(len(whole))
        for mask in (0xFF, 0x01, 0x80)
    ]
    slowest = 0.0
    for data in damaged:
        regions, took = _read_timed(data)
        if took > slowest:  # Python may have collected its garbage meanwhile
            slowest = max(slowest, min(took, _read_timed(data)[1]))
        # what no longer sums to zero is told, or is no such table any more
        assert regions.findings or not regions.signatures
    assert slowest < 0.05


@given(st.binary(max_size=200), st.sampled_from(["DMAR", "IVRS"]))
def test_any_bytes_end_in_findings_not_exceptions(body, name):
    regions = with_findings(
        regions_from_tables([build_table(Header(name, 1), bytes(12) + body)], MACHINE), ()
    )
    assert set(regions_to_json(regions, "")) == {"source", "regions", "findings"}


def test_a_table_of_many_regions_takes_no_time():
    entries = b"".join(rmrr(at << 12, (at << 12) | 0x1FFF, scope(0, (2, 0))) for at in range(4000))
    before = time.thread_time()
    regions = with_findings(regions_from_tables([dmar(entries)], MACHINE), ())
    assert time.thread_time() - before < 2
    assert len(regions.regions) == 4000


def test_an_rmrr_and_who_it_is_for():
    usb, graphics, missing = scope(0, (0x1D, 0)), scope(0, (2, 0)), scope(0, (0x1A, 0))
    behind = scope(0, (0x1C, 0), (0, 0))
    table = dmar(
        rmrr(0x7000_0000, 0x7000_FFFF, usb, missing), rmrr(0x8000_0000, 0x8FFF_FFFF, graphics, behind)
    )
    regions = regions_from_tables([table], MACHINE)
    assert told(regions) == [
        ("rmrr", 0x7000_0000, 0x7000_FFFF, ["0000:00:1d.0", "0000:00:1a.0"]),
        ("rmrr", 0x8000_0000, 0x8FFF_FFFF, ["0000:00:02.0", "0000:02:00.0"]),
    ]
    first, second = regions.regions
    assert [str(sbdf) for sbdf in first.present] == ["0000:00:1d.0"]
    assert (first.named, first.shared, first.needs_relaxed) == (2, True, True)
    assert second.frames.count == 0x1_0000
    assert regions.of(parse_sbdf("02:00.0")) == (second,)
    assert regions.of(parse_sbdf("05:00.0")) == ()


@pytest.mark.parametrize("name", ["DMAR", "RMAD", "XMAR"])
def test_xen_renames_the_table(name):
    regions = regions_from_tables([dmar(rmrr(0x1000, 0x1FFF, scope(0, (2, 0))), name=name)], MACHINE)
    assert (len(regions.regions), regions.signatures, regions.findings) == (1, (name,), ())


def test_without_a_machine_nobody_is_known_to_be_there():
    table = dmar(rmrr(0x1000, 0x1FFF, scope(0, (2, 0)), scope(0, (0x1C, 0), (0, 0))))
    (region,) = regions_from_tables([table], None).regions
    assert [(str(device.sbdf), device.present) for device in region.devices] == [("0000:00:02.0", None)]
    assert [scope.sbdf for scope in region.scopes][1] is None
    assert (region.present, region.findings) == ((), ())


def test_other_kinds_of_scopes_are_kept_and_are_no_devices():
    scopes = [scope(0xF0, (0x1F, 7), kind=kind) for kind in (3, 4, 5, 9)]
    (region,) = regions_from_tables([dmar(rmrr(0x1000, 0x1FFF, *scopes))], MACHINE).regions
    assert [each.kind for each in region.scopes] == ["ioapic", "hpet", "namespace", "type-9"]
    assert region.devices == ()


@pytest.mark.parametrize(
    ("block", "kind", "holders", "named"),
    [
        (ivmd(0x21, 0x01, 0x10, 0, 0x5000_0000, 0x1000), "ivmd-unity", ["0000:00:02.0"], 1),
        (ivmd(0x21, 0x09, 0x10, 0, 0x5000_0000, 0x1000), "ivmd-exclusion", ["0000:00:02.0"], 1),
        (
            ivmd(0x22, 0x08, 0x10, 0xFF, 0x5000_0000, 0x1000), "ivmd-exclusion",
            ["0000:00:02.0", "0000:00:1c.0", "0000:00:1d.0"], 0xF0,
        ),
        (
            ivmd(0x20, 0x01, 0, 0, 0x5000_0000, 0x1000), "ivmd-unity",
            [str(sbdf) for sbdf in MACHINE.functions], 0x1_0000,
        ),
        (ivmd(0x22, 0x01, 0x18, 0x10, 0x5000_0000, 0x1000), "ivmd-unity", [], 0),  # ends before it begins
        (ivmd(0x21, 0x06, 0x10, 0, 0x5000_0000, 0x1000), "ivmd", ["0000:00:02.0"], 1),  # neither flag
        (ivmd(0x21, 0x01, 0x10, 0, 0x5000_0000, 0x1000, segment=1), "ivmd-unity", ["0000:00:02.0"], 1),
    ],
)  # fmt: skip
def test_an_ivmd_and_who_it_is_for(block, kind, holders, named):
    regions = regions_from_tables([ivrs(block)], MACHINE)
    assert told(regions) == [(kind, 0x5000_0000, 0x5000_0FFF, holders)]
    (region,) = regions.regions
    assert (region.named, region.needs_relaxed) == (named, False)
    assert bool(regions.findings) == (named == 0)
    assert region.findings == ()


def test_without_a_machine_a_range_of_an_ivmd_names_its_ends():
    regions = regions_from_tables([ivrs(ivmd(0x22, 1, 0x10, 0xFF, 0x5000_0000, 0x1000))], None)
    (region,) = regions.regions
    (only,) = region.scopes
    assert (str(only.sbdf), str(only.last), region.devices) == ("0000:00:02.0", "0000:00:1f.7", ())


@pytest.mark.parametrize(("start", "size"), [(0x5000_0000, 0), (0, 0), (2**64 - 1, 2)])  # empty, wraps
def test_an_ivmd_that_is_no_range_is_told(start, size):
    regions = regions_from_tables([ivrs(ivmd(0x21, 1, 0x10, 0, start, size))], MACHINE)
    assert (regions.regions, [each.code for each in regions.findings]) == ((), ["acpi-entry"])


def test_other_tables_are_passed_over():
    regions = regions_from_tables([b"short", build_table(Header("SSDT", 1), b"")], MACHINE)
    assert (regions.regions, regions.findings, regions.signatures) == ((), (), ())


def test_a_bad_checksum_and_a_short_table_are_told():
    whole = bytearray(dmar(rmrr(0x1000, 0x1FFF, scope(0, (2, 0)))))
    whole[40] ^= 1
    assert [each.code for each in regions_from_tables([bytes(whole)], None).findings] == ["acpi-checksum"]
    for name in ("DMAR", "IVRS"):
        short = regions_from_tables([build_table(Header(name, 1), b"")], None)
        assert [each.code for each in short.findings] == ["acpi-length"]


PATH = dmar(rmrr(0x1000, 0x1FFF, scope(0, (0x1C, 0), (0, 0))))
MOVED = machine(bridge("00:1c.0", 5, 5), function("05:00.0", parent="00:1c.0"))
GONE = machine(function("00:02.0"))
BOOT = snapshot_from_machine("boot", MACHINE)


@pytest.mark.parametrize(
    ("now", "boot", "said"),
    [
        (MACHINE, None, None),
        (MACHINE, BOOT, None),
        (MOVED, None, None),  # nobody remembers where it was
        (MOVED, BOOT, "leads to 0000:05:00.0 now, at boot it led to 0000:02:00.0"),
        (GONE, None, "leads nowhere now; or a bridge on this path has left"),
        (GONE, BOOT, "leads nowhere now, at boot it led to 0000:02:00.0"),
        (GONE, BootSnapshot("boot", frozenset(), {}), "leads nowhere now; or a bridge on this path has left"),
    ],
)
def test_buses_renumbered_since_boot(now, boot, said):
    (region,) = regions_from_tables([PATH], now, boot).regions
    codes = [finding.code for finding in region.findings]
    assert codes == ([] if said is None else ["buses-renumbered"])
    if said is not None:
        assert "buses renumbered since boot" in region.findings[0].text
        assert said in region.findings[0].text


IASL_DMAR = """
Signature : "DMAR"
Table Length : 00000000
Revision : 01
Checksum : 00
Oem ID : "PCIPT "
Oem Table ID : "TEST    "
Oem Revision : 00000001
Asl Compiler ID : "INTL"
Asl Compiler Revision : 00000000
Host Address Width : 26
Flags : 01
Reserved : 00 00 00 00 00 00 00 00 00 00
Subtable Type : 0000
Length : 0018
Flags : 01
Reserved : 00
PCI Segment Number : 0000
Register Base Address : 00000000FED91000
Device Scope Type : 03
Entry Length : 08
Reserved : 0000
Enumeration ID : 02
PCI Bus Number : F0
PCI Path : 1F,00
Subtable Type : 0001
Length : 0022
Reserved : 0000
PCI Segment Number : 0001
Base Address : 000000008B800000
End Address (limit) : 000000008FFFFFFF
Device Scope Type : 02
Entry Length : 0A
Reserved : 0000
Enumeration ID : 00
PCI Bus Number : 00
PCI Path : 1C,04
PCI Path : 00,01
Subtable Type : 0003
Length : 0014
Reserved : 00000000
Base Address : 00000000FED91000
Proximity Domain : 00000001
"""


@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl (acpica-tools) is not installed")
def test_a_table_that_iasl_compiles(tmp_path):
    source = tmp_path / "table.asl"
    source.write_text(IASL_DMAR)
    subprocess.run(["iasl", source], check=True, capture_output=True)
    regions = regions_from_tables([(tmp_path / "table.aml").read_bytes()], None)
    (region,) = regions.regions
    assert (region.kind, region.segment, str(region)) == (RegionKind.RMRR, 1, "0x8b800000-0x8fffffff")
    assert [(s.kind, s.bus, s.path) for s in region.scopes] == [("bridge", 0, ((0x1C, 4), (0, 1)))]
    assert regions.findings == ()


def test_length_of_the_header_beyond_the_file():
    whole = bytearray(dmar(rmrr(0x1000, 0x1FFF, scope(0, (2, 0)))))
    whole[4:8] = (10_000).to_bytes(4, "little")
    regions = regions_from_tables([with_checksum(bytes(whole))], None)
    assert len(regions.regions) == 1
    assert [each.code for each in regions.findings] == ["acpi-length"]


def kept(table, machine=MACHINE, snapshot=None):
    """Give the devices of the only region, and whether Xen keeps it."""
    (region,) = with_findings(regions_from_tables([table], machine, snapshot)).regions
    return [str(device.sbdf) for device in region.devices], "region-dropped" not in {
        finding.code for finding in region.findings
    }


#  scopes of an RMRR: the functions for which Xen keeps it, and whether it keeps it at all
SCOPES = [
    ((scope(0, (0x1D, 0)), scope(0, (0, 0)), scope(0, (2, 0))), ["0000:00:1d.0"], True),  # 00:00.0 ends it
    ((scope(0, (0, 0)), scope(0, (2, 0))), [], True),
    ((scope(0, (0x1D, 0), kind=3),), ["0000:00:1d.0"], True),  # an IO-APIC's place: a function is there
    ((scope(0, (0x1E, 0), kind=3),), [], False),
    ((scope(0, (0x22, 8)),), ["0000:00:02.0"], True),  # low bits of impossible numbers
    ((scope(0, (0x1A, 0)), scope(0, (0x1D, 0))), ["0000:00:1a.0", "0000:00:1d.0"], True),
    ((scope(0, (0x1A, 0)),), ["0000:00:1a.0"], False),
    ((scope(0, (0x1A, 0), (0, 0)),), [], False),  # a path over a bridge that is not there
    ((scope(0, (0x1C, 0), (1, 0)),), ["0000:02:01.0"], False),
    ((scope(0, (0x1D, 0), kind=5),), [], True),  # no device that Xen counts: region-no-scope tells that
]


@pytest.mark.parametrize(("scopes", "devices", "is_kept"), SCOPES)
def test_for_whom_xen_keeps_an_rmrr(scopes, devices, is_kept):
    assert kept(dmar(rmrr(0x7000_0000, 0x7000_FFFF, *scopes))) == (devices, is_kept)


def test_in_other_segments_xen_does_not_look_for_the_devices():
    assert kept(dmar(rmrr(0x7000_0000, 0x7000_FFFF, scope(0, (0x1A, 0)), segment=1)))[1]


def test_whether_devices_were_there_is_asked_of_the_boot():
    table = dmar(rmrr(0x7000_0000, 0x7000_FFFF, scope(0, (0x1A, 0))))
    there = BootSnapshot("", frozenset({parse_sbdf("00:1a.0")}), {})
    assert kept(table, snapshot=there) == (["0000:00:1a.0"], True)  # it has left since
    late = dmar(rmrr(0x7000_0000, 0x7000_FFFF, scope(0, (0x1D, 0))))
    assert kept(late, snapshot=BootSnapshot("", frozenset(), {})) == (["0000:00:1d.0"], False)


@pytest.mark.parametrize(
    ("base", "limit", "pages"),
    [
        (0x7000_0000, 0x7000_FFFF, 16),
        (0x7000_0000, 0x7001_0000, 16),  # Xen takes the limit for the end
        (0x7000_0000, 0x7001_0001, 17),
        (0x7000_0800, 0x7000_0FFF, 1),
        (0, 0, 0),  # Compaq 6730b
        (0x7000_0000, 0x7000_0000, 0),
    ],
)
def test_pages_of_an_rmrr(base, limit, pages):
    (region,) = regions_from_tables([dmar(rmrr(base, limit, scope(0, (2, 0))))], MACHINE).regions
    assert (region.frames.count if region.frames else 0) == pages
    assert (region.base, region.limit) == (base, limit)
