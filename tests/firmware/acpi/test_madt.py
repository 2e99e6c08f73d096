import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.madt import (
    InterruptOverride,
    IoApic,
    LocalApic,
    Madt,
    OtherEntry,
    X2Apic,
    build_madt,
    local_apics,
    parse_madt,
)
from pcipt.firmware.acpi.table import parse_table
from tests.pvh import IO_APIC, SCI, TIMER, native_madt

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)
others = st.builds(
    lambda kind, body: OtherEntry(kind, bytes([kind, len(body) + 2]) + body),
    st.integers(10, 255),
    st.binary(max_size=30),
)
entries = st.one_of(
    st.builds(LocalApic, u8, u8, u32),
    st.builds(X2Apic, u32, u32, u32),
    st.builds(IoApic, u8, u32, u32),
    st.builds(InterruptOverride, u8, u32, u16, u8),
    others,
)
madts = st.builds(Madt, st.just(Header("APIC", 4)), u32, u32, st.lists(entries, max_size=12).map(tuple))


@settings(deadline=None)
@given(madts)
def test_what_was_built_is_read_back(madt):
    parsed = parse_madt(parse_table(build_madt(madt)))
    assert parsed == madt
    assert parsed.findings == ()
    assert parsed.offsets == tuple(
        44 + sum(len(each.data) for each in madt.entries[:number]) for number in range(len(madt.entries))
    )


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        (LocalApic(3, 6), "0008 03 06 01000000"),
        (IoApic(1, 0xFEC0_0000, 24), "010c 01 00 0000c0fe 18000000"),
        (InterruptOverride(9, 20, 0xD), "020a 00 09 14000000 0d00"),
        (X2Apic(300, 600), "0910 0000 58020000 01000000 2c010000"),
    ],
)
def test_entries_have_the_bytes_of_the_specification(entry, data):
    assert entry.data == bytes.fromhex(data)


def test_used_reserved_bytes_make_an_entry_another_one():
    odd = bytearray(IO_APIC.data)
    odd[3] = 1
    parsed = parse_madt(parse_table(build_table(Header("APIC", 4), bytes(8) + bytes(odd))))
    assert parsed.entries == (OtherEntry(1, bytes(odd)),)


@pytest.mark.parametrize(
    ("vcpus", "x2apic", "kinds"),
    [
        (1, False, [LocalApic]),
        (2, True, [X2Apic, X2Apic]),
        (128, False, [LocalApic] * 128),  # the last has id 254
        (129, False, [LocalApic] * 128 + [X2Apic]),  # 256 does not fit
    ],
)
def test_one_local_apic_per_vcpu_with_twice_its_number(vcpus, x2apic, kinds):
    found = local_apics(vcpus, x2apic=x2apic)
    assert [type(each) for each in found] == kinds
    assert [(each.uid, each.apic_id, each.flags) for each in found] == [(n, 2 * n, 1) for n in range(vcpus)]


def test_a_table_cut_anywhere_ends_in_findings():
    whole = native_madt(IO_APIC, TIMER, SCI)
    for size in range(36, len(whole)):
        parsed = parse_madt(parse_table(whole[:size]))
        assert parsed.findings
        assert len(parsed.entries) <= 7


def test_an_entry_of_length_0_ends_the_walk():
    data = build_table(Header("APIC", 4), bytes(8) + IO_APIC.data + b"\0\0" + TIMER.data)
    parsed = parse_madt(parse_table(data))
    assert parsed.entries == (IO_APIC,)
    assert [finding.code for finding in parsed.findings] == ["acpi-entry"]
