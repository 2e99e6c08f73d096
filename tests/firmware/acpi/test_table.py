import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.acpi.table import HEADER_SIZE, entries, parse_table


def table(signature: bytes, body: bytes, *, length: int | None = None, revision: int = 1) -> bytes:
    whole = HEADER_SIZE + len(body) if length is None else length
    head = signature + whole.to_bytes(4, "little") + bytes([revision, 0]) + bytes(HEADER_SIZE - 10)
    data = bytearray(head + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def test_a_sound_table_has_no_findings():
    parsed = parse_table(table(b"RMAD", b"abcd", revision=3))
    assert parsed is not None
    assert (parsed.signature, parsed.revision, parsed.findings) == ("RMAD", 3, ())
    assert parsed.u32(HEADER_SIZE) == int.from_bytes(b"abcd", "little")
    assert (parsed.u8(36), parsed.u16(36)) == (0x61, 0x6261)


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (table(b"DMAR", b"x" * 8)[:-1] + b"y", ["acpi-checksum"]),  # one byte flipped
        (table(b"DMAR", b"", length=100), ["acpi-length"]),  # claims more than there is
        (table(b"DMAR", b"", length=8), ["acpi-length"]),  # claims less than its own header
    ],
)
def test_what_is_wrong_is_a_finding(data, codes):
    parsed = parse_table(data)
    assert parsed is not None
    assert [finding.code for finding in parsed.findings] == codes
    assert "at 0x" in parsed.findings[0].text


def test_too_short_for_a_header_is_no_table():
    assert parse_table(bytes(HEADER_SIZE - 1)) is None


def test_bytes_after_the_stated_length_are_left_out():
    assert parse_table(table(b"DMAR", b"") + b"tail").data == table(b"DMAR", b"")


def test_an_unprintable_signature_is_masked():
    assert parse_table(table(b"\x1bM\x00R", b"")).signature == "?M?R"


@given(st.binary(max_size=200), st.sampled_from([2, 4]))
def test_the_walk_stays_inside_and_always_ends(data, header):
    findings = []
    end = 0
    for _, at, length in entries(data, 0, len(data), findings, header=header):
        assert at == end
        assert length >= header
        end = at + length
    assert end <= len(data)
    assert bool(findings) == (end != len(data))
