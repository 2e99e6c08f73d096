from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table

TABLES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "acpi" / "ivrs"
RECORDED = sorted(TABLES.glob("*.bin")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is not here"))
]


def ivrs_of(*blocks):
    body = b"".join(blocks)
    return parse_ivrs(parse_table(b"IVRS" + (48 + len(body)).to_bytes(4, "little") + bytes(40) + body))


def ivhd(*entries, kind=0x10, segment=0):
    body = b"".join(entries)
    size = {0x10: 24, 0x11: 40, 0x40: 40}[kind]
    head = (
        bytes([kind, 0])
        + (size + len(body)).to_bytes(2, "little")
        + bytes(12)
        + segment.to_bytes(2, "little")
    )
    return head + bytes(size - len(head)) + body


@pytest.mark.parametrize(
    ("entries", "selected"),
    [
        ((b"\x01\x00\x00\x00",), ()),  # all, which Xen does not know
        ((b"\x02\xa8\x00\x00",), ((0xA8, 0xA8),)),  # select
        ((b"\x03\x08\x00\x00", b"\x04\xff\x01\x00"), ((0x08, 0x1FF),)),  # range
        ((b"\x42\x08\x00\x00\x00\x10\x00\x00",), ((0x08, 0x08),)),  # alias select, 8 bytes
        ((b"\x43\x08\x00\x00\x00\x10\x00\x00", b"\x04\x0f\x00\x00"), ((0x08, 0x0F),)),  # alias range
        ((b"\x48\x00\x00\x00\x00\xa0\x00\x02",), ()),  # special device: an IO-APIC is no function
        ((b"\x04\x0f\x00\x00",), ()),  # an end without a start
    ],
)
@pytest.mark.parametrize("kind", [0x10, 0x11, 0x40])
def test_device_entries(entries, selected, kind):
    ivrs = ivrs_of(ivhd(*entries, kind=kind, segment=1))
    assert ivrs.units[0].selected == selected
    assert ivrs.units[0].segment == 1


def test_a_named_device_entry_is_stepped_over_by_its_length():
    named = bytes([0xF0]) + bytes(20) + bytes([3]) + b"abc"
    assert ivrs_of(ivhd(named, b"\x02\x08\x00\x00", kind=0x40)).units[0].selected == ((8, 8),)


def test_an_entry_cut_short_is_a_finding():
    ivrs = ivrs_of(ivhd(b"\x42\x08\x00\x00"))
    assert "acpi-entry" in {finding.code for finding in ivrs.findings}


START, END = b"\x03\x00\x03\x00", b"\x04\xff\x03\x00"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((START,), "at 0x48: the range from 0x0300 on has no end"),
        ((START, START, END), "at 0x48: the range from 0x0300 on has no end"),
        ((END,), "at 0x48: the range to 0x03ff has no start"),
        ((b"\x03\x00\x04\x00", END), "at 0x48: routing ids 0x0400 to 0x03ff are no range"),
        ((START, END, b"\x02\x00"), "at 0x50: a device entry of type 0x2 has no legal length"),  # cut
    ],
)
def test_ranges_and_ends_that_are_wrong_are_told_with_their_offset(entries, words):
    found = [finding.text for finding in ivrs_of(ivhd(*entries)).findings if finding.code == "acpi-entry"]
    assert len(found) == 1
    assert found[0].startswith(words)


def test_a_block_of_length_zero_ends_the_walk():
    ivrs = ivrs_of(bytes(4))
    assert [finding.code for finding in ivrs.findings if finding.code == "acpi-entry"] == ["acpi-entry"]


def ivmd(kind, flags, first, last, start, size, length=32):
    body = bytes([kind, flags]) + length.to_bytes(2, "little")
    body += first.to_bytes(2, "little") + last.to_bytes(2, "little") + bytes(8)
    return body + start.to_bytes(8, "little") + size.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [(0x20, 0, 0xFFFF), (0x21, 0x60, 0x60), (0x22, 0x60, 0x7F)],  # all, one, a range
)
def test_memory_blocks(kind, first, last):
    (block,) = ivrs_of(b"\x51\x00\x06\x00xx", ivmd(kind, 8, 0x60, 0x7F, 0x5000_0000, 0x1000)).blocks
    assert (block.offset, block.flags, block.segment) == (0x36, 8, 0)
    assert (block.first, block.last, block.start, block.size) == (first, last, 0x5000_0000, 0x1000)


@pytest.mark.parametrize("block", [bytes([0x21, 1, 16, 0]) + bytes(12), bytes([0x11, 0, 30, 0]) + bytes(26)])
def test_a_block_too_short_for_its_type_is_told_and_stepped_over(block):
    ivrs = ivrs_of(block, ivhd(b"\x02\x08\x00\x00"))
    assert (len(ivrs.units), ivrs.blocks) == (1, ())
    assert "acpi-entry" in {finding.code for finding in ivrs.findings}


def test_a_block_for_a_range_that_ends_before_it_begins_is_told():
    ivrs = ivrs_of(ivmd(0x22, 1, 0x20, 0x10, 0x5000_0000, 0x1000))
    assert len(ivrs.blocks) == 1
    assert "at 0x30: routing ids 0x0020 to 0x0010 are no range" in ivrs.findings[-1].text


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem[-30:] if path else "none")
def test_recorded_tables_select_their_functions(path):
    ivrs = parse_ivrs(parse_table(path.read_bytes()))
    assert ivrs.findings == ()
    assert all(unit.selected for unit in ivrs.units)


@given(st.binary(max_size=160))
def test_any_bytes_end_in_findings_not_exceptions(body):
    ivrs = ivrs_of(body)
    assert sum(length for _, _, length in ivrs.others) <= len(body)
