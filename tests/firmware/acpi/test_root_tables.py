import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import MalformedError
from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.root_tables import (
    MAX_ENTRIES,
    Rsdp,
    build_root_table,
    build_rsdp,
    parse_root_table,
    parse_rsdp,
)
from pcipt.firmware.acpi.table import parse_table
from tests.pvh import iasl

u32, u64 = st.integers(0, 0xFFFF_FFFF), st.integers(0, (1 << 64) - 1)
rsdps = st.builds(
    lambda revision, oem, rsdt, xsdt: Rsdp(revision, oem, rsdt, xsdt if revision else 0),
    st.integers(0, 255), st.binary(min_size=6, max_size=6), u32, u64,
)  # fmt: skip


@settings(deadline=None)
@given(rsdps)
def test_an_rsdp_reads_back_and_both_sums_are_zero(rsdp):
    data = build_rsdp(rsdp)
    assert parse_rsdp(data) == rsdp
    assert len(data) == (36 if rsdp.revision else 20)
    assert sum(data[:20]) % 256 == sum(data) % 256 == 0


@pytest.mark.parametrize("size", [0, 7, 8, 19, 20, 35])
def test_a_cut_rsdp_is_malformed(size):
    with pytest.raises(MalformedError):
        parse_rsdp(build_rsdp(Rsdp(2, b"PCIPT ", 0, 0x1000))[:size])


def test_iasl_assembles_the_same_rsdp(tmp_path):
    """The disassembler refuses every RSDP, also its own: the assembler is the oracle."""
    assert iasl("-T", "RSDP", cwd=tmp_path)[0] == 0
    text = (tmp_path / "rsdp.asl").read_text()
    for field, value in (
        ("Oem ID", '"PCIPT "'),
        ("RSDT Address", "7FFE1234"),
        ("XSDT Address", "00000001FC0002B0"),
    ):
        text = re.sub(rf"({field} : ).*", rf"\g<1>{value}", text)
    (tmp_path / "rsdp.asl").write_text(text)
    assert iasl("rsdp.asl", cwd=tmp_path)[0] == 0
    assert (tmp_path / "rsdp.aml").read_bytes() == build_rsdp(Rsdp(2, b"PCIPT ", 0x7FFE_1234, 0x1_FC00_02B0))


@settings(deadline=None)
@given(st.lists(u32, max_size=20), st.sampled_from(["RSDT", "XSDT"]))
def test_a_list_reads_back(addresses, signature):
    table = parse_table(build_root_table(Header(signature, 1), addresses))
    assert parse_root_table(table) == tuple(addresses)


def test_an_rsdt_cannot_name_what_is_above_4_gib():
    with pytest.raises(OverflowError):
        build_root_table(Header("RSDT", 1), [1 << 32])


def test_trailing_bytes_and_endless_lists_are_cut():
    odd = parse_table(build_table(Header("XSDT", 1), (1).to_bytes(8, "little") + b"odd"))
    assert parse_root_table(odd) == (1,)
    endless = parse_table(build_table(Header("XSDT", 1), bytes(8 * 5000)))
    assert len(parse_root_table(endless)) == MAX_ENTRIES
