import struct

import attrs
import pytest

from pcipt.firmware.acpi.build_table import Header
from pcipt.firmware.acpi.root_tables import Rsdp, build_root_table, build_rsdp
from pcipt.firmware.acpi.table_set import Domain, PlacedTable, TableSet
from pcipt.firmware.pvh.rules import FORBIDDEN
from pcipt.xen.releases import parse_version
from tests.pvh import IO_APIC, NMI, any_table, native_madt
from tests.pvh_tables import BASE, GUEST, HARDWARE, G, H, patched, problems, replaced, without


@pytest.mark.parametrize(("domain", "tables"), BASE.items())
def test_nothing_is_wrong_to_begin_with(domain, tables):
    assert problems(tables, domain, vcpus=2) == set()


@pytest.mark.parametrize(
    ("domain", "name", "changes", "expected"),
    [
        (G, "DSDT", [(4, "<I", 0xFFFF_FFFF)], ("error", "acpi-length", "DSDT", 4)),
        (G, "FACS", [(4, "<I", 63)], ("error", "acpi-length", "FACS", 4)),
        (G, "XSDT", [(36, "<Q", 0)], ("error", "pointer", "XSDT", 36)),
        (G, "XSDT", [(36, "<Q", 0xDEAD)], ("error", "pointer", "XSDT", 36)),
        (G, "XSDT", [(44, "<Q", 0xFC00_0040)], ("error", "pointer", "XSDT", 44)),  # the DSDT
        (G, "XSDT", [(4, "<I", 36)], ("error", "entries", "XSDT", 4)),  # it names nothing
        (G, "XSDT", [(4, "<I", 51)], ("error", "entries", "XSDT", 4)),  # a half entry
        (G, "RSDT", [(40, "<I", 0xFC00_0000)], ("error", "pointer", "RSDT", 40)),  # the FACS
        (G, "RSDP", [(24, "<Q", 0)], ("error", "pointer", "RSDP", 24)),
        (G, "RSDP", [(16, "<I", 0)], ("warn", "rsdt", "RSDP", 16)),
        (G, "RSDP", [(15, "<B", 1)], ("error", "rsdp", "RSDP", 15)),
        (G, "RSDP", [(20, "<I", 20)], ("error", "acpi-length", "RSDP", 20)),
        (G, "RSDP", [(9, "<B", 0x20)], ("error", "acpi-checksum", "RSDP", 8)),
        (G, "RSDP", [(33, "<B", 1)], ("error", "acpi-checksum", "RSDP", 32)),
        (G, "RSDP", [(0, "<B", 0)], ("error", "rsdp", "RSDP", 0)),
        (H, "RSDP", [(16, "<I", 0x7FD0_0000)], ("warn", "rsdt", "RSDP", 16)),
    ],
)  # fmt: skip
def test_a_changed_field_is_found(domain, name, changes, expected):
    assert expected in problems(patched(BASE[domain], name, *changes), domain, vcpus=2)


@pytest.mark.parametrize("name", ["FACP", "FACP-rev1", "APIC", "DSDT", "XSDT", "RSDT"])
def test_a_wrong_sum_is_found(name):
    bad = patched(GUEST, name, (9, "<B", 0x5A), sums=False)
    assert {
        ("error", "acpi-checksum", bad.label(table), 9) for table in bad.tables if table.name == name
    } == problems(bad, Domain.GUEST)


@pytest.mark.parametrize("signature", sorted(FORBIDDEN))
def test_forbidden_tables_are_found(signature):
    more = PlacedTable(signature, any_table(signature), 0x7000_0000)
    tables = attrs.evolve(HARDWARE, tables=(*HARDWARE.tables, more))
    assert problems(tables, Domain.HARDWARE) == {("error", "forbidden", signature, 0)}
    assert problems(tables, Domain.GUEST) - problems(HARDWARE, Domain.GUEST) == set()


@pytest.mark.parametrize("signature", ["WAET", "BGRT", "HEST"])
def test_tables_that_xen_does_not_hand_out_are_doubtful(signature):
    more = PlacedTable(signature, any_table(signature), 0x7000_0000)
    tables = attrs.evolve(HARDWARE, tables=(*HARDWARE.tables, more))
    assert problems(tables, Domain.HARDWARE) == {("warn", "forbidden", signature, 0)}


@pytest.mark.parametrize(
    ("signature", "version", "given"),
    [
        ("VFCT", "4.17.7", False),
        ("VFCT", "4.18.0", True),
        ("TPM2", "4.18.6", False),
        ("TPM2", "4.20.2", False),
        ("TPM2", "4.20.3", True),
        ("TCPA", "4.22.0", True),
        ("OEMB", "4.20.0", False),
        ("OEMB", "4.20.1", True),
        ("TCPA", "4.20.3-vendor", False),  # a build: it may lack what 4.20.3 has
        ("VFCT", "4.20.3-vendor", True),
        ("VFCT", None, False),
    ],
)
def test_what_is_handed_out_depends_on_the_release(signature, version, given):
    more = PlacedTable(signature, any_table(signature), 0x7000_0000)
    tables = attrs.evolve(HARDWARE, tables=(*HARDWARE.tables, more))
    xen = parse_version(version) if version is not None else None
    expected = set() if given else {("warn", "forbidden", signature, 0)}
    assert problems(tables, Domain.HARDWARE, xen=xen) == expected


@pytest.mark.parametrize(
    ("domain", "name", "expected"),
    [
        (H, "APIC", ("error", "present", "APIC", None)),
        (H, "FACP", ("error", "present", "FACP", None)),
        (H, "DSDT", ("warn", "present", "DSDT", None)),  # it may not have been recorded
        (G, "DSDT", ("error", "present", "DSDT", None)),
        (G, "FACS", ("warn", "present", "FACS", None)),
        (G, "XSDT", ("error", "pointer", "RSDP", 24)),
    ],
)
def test_a_missing_table_is_found(domain, name, expected):
    assert expected in problems(without(BASE[domain], name), domain)


def test_a_second_table_of_a_kind_is_found():
    again = attrs.evolve(GUEST.named("DSDT")[0], name="again", address=0x1000)
    tables = attrs.evolve(GUEST, tables=(*GUEST.tables, again))
    assert ("error", "present", "DSDT", None) in problems(tables, Domain.GUEST)


def test_overlaps_cycles_and_repetitions_are_found():
    xsdt = GUEST.named("XSDT")[0]
    cyclic = patched(GUEST, "XSDT", (36, "<Q", xsdt.address))
    assert ("error", "pointer", "XSDT", 36) in problems(cyclic, Domain.GUEST)
    fadt = GUEST.named("FACP")[0].address
    twice = patched(GUEST, "XSDT", (44, "<Q", fadt))
    assert ("error", "pointer", "XSDT", 44) in problems(twice, Domain.GUEST)
    moved = TableSet(
        GUEST.rsdp,
        tuple(attrs.evolve(t, address=fadt + 8) if t.name == "APIC" else t for t in GUEST.tables),
    )
    assert ("error", "overlap", "APIC", None) in problems(moved, Domain.GUEST)


def test_every_table_that_lies_over_a_large_one_is_found():
    at = 0x7000_0000
    large = PlacedTable("SSDT", any_table("SSDT", bytes(0x4000)), at)
    small = [
        PlacedTable(name, any_table(name), at + 0x1000 * n) for n, name in enumerate(("PSDT", "SBST"), 1)
    ]
    tables = attrs.evolve(GUEST, tables=(*GUEST.tables, large, *small))
    found = problems(tables, Domain.GUEST)
    assert {row for row in found if row[1] == "overlap"} == {
        ("error", "overlap", "PSDT", None), ("error", "overlap", "SBST", None)
    }  # fmt: skip


def test_the_madt_should_come_first_in_the_hardware_domains_list():
    xsdt = HARDWARE.named("XSDT")[0]
    madt, fadt = struct.unpack_from("<QQ", xsdt.data, 36)
    swapped = patched(HARDWARE, "XSDT", (36, "<Q", fadt), (44, "<Q", madt))
    assert problems(swapped, Domain.HARDWARE) == {("warn", "order", "XSDT", 36)}


def test_without_addresses_pointers_are_not_judged():
    tables = TableSet(None, tuple(attrs.evolve(t, address=None) for t in HARDWARE.tables if t.name != "XSDT"))
    assert problems(tables, Domain.HARDWARE) == set()


def test_a_list_without_addresses_of_tables_and_an_endless_one():
    unplaced = TableSet(HARDWARE.rsdp, tuple(attrs.evolve(t, address=None) for t in HARDWARE.tables))
    assert problems(unplaced, Domain.HARDWARE) == set()
    endless = build_root_table(Header("XSDT", 1), [0x1000] * 5000)
    assert ("error", "entries", "XSDT", 4) in problems(replaced(GUEST, "XSDT", endless), Domain.GUEST)
    assert problems(replaced(GUEST, "XSDT", b"XSDT"), Domain.GUEST) >= {("error", "acpi-length", "XSDT", 0)}


def test_another_loaders_tables_are_judged_by_what_holds_everywhere():
    madt = PlacedTable("APIC", native_madt(IO_APIC, NMI), 0x2000)
    rsdt = PlacedTable("RSDT", build_root_table(Header("RSDT", 1), [0x2000]), 0x1000)
    rsdp = PlacedTable("RSDP", build_rsdp(Rsdp(0, b"BOCHS ", 0x1000, 0)), 0x3000)
    assert problems(TableSet(rsdp, (rsdt, madt)), None) == set()
    xsdt = PlacedTable("XSDT", build_root_table(Header("XSDT", 1), [0x2000]), 0x1000)
    modern = PlacedTable("RSDP", build_rsdp(Rsdp(2, b"EDK2  ", 0, 0x1000)), 0x3000)
    assert problems(TableSet(modern, (xsdt, madt)), None) == set()
    lost = PlacedTable("RSDP", build_rsdp(Rsdp(0, b"BOCHS ", 0, 0)), 0x3000)
    assert problems(TableSet(lost, (rsdt, madt)), None) == {("error", "pointer", "RSDP", 16)}


@pytest.mark.parametrize("name", ["APIC", "FACP", "DSDT", "FACS", "XSDT"])
def test_a_table_cut_anywhere_has_errors(name):
    whole = next(table for table in GUEST.tables if table.name == name).data
    for size in range(1, len(whole)):
        found = problems(replaced(GUEST, name, whole[:size]), Domain.GUEST)
        assert any(verdict == "error" for verdict, *_ in found), size


@pytest.mark.parametrize("name", ["APIC", "FACP", "XSDT", "RSDP"])
def test_any_byte_may_be_anything(name):
    whole = next(table for table in GUEST.everything if table.name == name).data
    for at in range(len(whole)):
        found = problems(patched(GUEST, name, (at, "<B", whole[at] ^ 0xFF), sums=False), Domain.GUEST)
        assert found, at
