import itertools

import pytest

from pcipt.errors import UnsupportedError
from pcipt.firmware.acpi.dsdt import Windows
from pcipt.firmware.acpi.fadt import HW_REDUCED, NO_CMOS_RTC, NO_VGA, Field, parse_fadt
from pcipt.firmware.acpi.madt import InterruptOverride, IoApic, LocalApic, X2Apic, parse_madt
from pcipt.firmware.acpi.root_tables import parse_root_table, parse_rsdp
from pcipt.firmware.acpi.table_set import Domain
from pcipt.firmware.pvh.build_tables import (
    GUEST_TABLES,
    Guest,
    build_facs,
    build_guest_tables,
    build_hardware_tables,
    is_passed_on,
    needed_room,
)
from pcipt.firmware.pvh.check_rows import Verdict
from pcipt.firmware.pvh.check_tables import check_tables
from pcipt.firmware.pvh.facts import Facts
from pcipt.firmware.pvh.rules import FORBIDDEN
from pcipt.pci import Address, Range
from pcipt.xen.releases import parse_version
from tests.pvh import (
    DSDT_AT,
    FACS_AT,
    IO_APIC,
    NMI,
    SCI,
    SECOND,
    TIMER,
    apart_from_compiler,
    disassemble,
    native_fadt,
    native_madt,
    native_tables,
    reassemble,
)

BASE = Address(0x7FD0_0000)
WINDOWS = Windows(
    (Range(Address(0xC000), 0x20),),
    (Range(Address(0xFEB0_0000), 0x2_0000),),
    (Range(Address(0x80_0000_0000), 0x10_0000),),
)
GUESTS = [
    Guest(1),
    Guest(3),
    Guest(2, local_apic=False),
    Guest(2, io_apic=True),
    Guest(4, windows=WINDOWS),
    Guest(300),  # ids beyond 8 bits
]


def one(tables, signature):
    (found,) = tables.named(signature)
    return found


def hardware(vcpus=2, **changes):
    given = {**native_tables(), **changes}
    return build_hardware_tables([data for data in given.values() if data is not None], vcpus, BASE)


def problems(tables, domain, **facts):
    rows = list(check_tables(tables, domain, Facts(**facts)))
    assert rows
    return [(row.verdict.value, row.rule, row.reason) for row in rows if row.verdict is not Verdict.OK]


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guests_tables_keep_every_rule(guest):
    vcpus = guest.vcpus if guest.local_apic else None
    assert problems(build_guest_tables(guest), Domain.GUEST, vcpus=vcpus, io_apic=guest.io_apic) == []


@pytest.mark.parametrize("vcpus", [1, 2, 64, 500])
def test_the_hardware_domains_tables_keep_every_rule(vcpus):
    assert problems(hardware(vcpus), Domain.HARDWARE, vcpus=vcpus) == []


@pytest.mark.parametrize("tables", [*map(build_guest_tables, GUESTS), hardware()], ids=range(len(GUESTS) + 1))
def test_iasl_has_nothing_against_any_table_and_writes_it_again(tables, tmp_path):
    for number, table in enumerate(tables.tables):
        name = f"{table.signature.lower()}{number}"
        disassemble(table.data, tmp_path, name)
        again = reassemble(tmp_path, name)
        if table.signature == "FACS":
            assert again == table.data
        else:
            assert apart_from_compiler(again) == apart_from_compiler(table.data)


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guests_fadts_say_what_libxl_says(guest):
    tables = build_guest_tables(guest)
    fadts = [parse_fadt(table.parsed) for table in tables.named("FACP")]
    assert [(fadt.header.revision, fadt.length) for fadt in fadts] == [(5, 268), (1, 116)]
    for fadt in fadts:
        assert fadt[Field.IAPC_BOOT_ARCH] == 0x24 == NO_VGA | NO_CMOS_RTC
        assert fadt[Field.FLAGS] == 0x8175
        assert not fadt[Field.FLAGS] & HW_REDUCED
        assert fadt[Field.SCI_INT] == 9
        assert fadt[Field.PM_TMR] == fadt[Field.PM_TMR_LEN] == fadt[Field.X_PM_TMR] == 0
        assert fadt.dsdt == one(tables, "DSDT").address
        assert fadt.facs == one(tables, "FACS").address
        assert (fadt.header.oem_id, fadt.header.oem_table_id) == (b"Xen\0\0\0", b"HVM\0\0\0\0\0")


def test_a_guests_lists_name_their_own_fadt():
    tables = build_guest_tables(Guest(2))
    rsdp = parse_rsdp(tables.rsdp.data)
    new, old = tables.named("FACP")
    assert (rsdp.revision, rsdp.rsdt, rsdp.xsdt) == (
        2,
        one(tables, "RSDT").address,
        one(tables, "XSDT").address,
    )
    assert parse_root_table(one(tables, "XSDT").parsed) == (new.address, one(tables, "APIC").address)
    assert parse_root_table(one(tables, "RSDT").parsed) == (old.address, one(tables, "APIC").address)
    assert min(table.address for table in tables.everything) == GUEST_TABLES == 0xFC00_0000
    assert tables.rsdp.address > max(table.address for table in tables.tables)  # libxl puts it behind them


def test_a_guests_madt():
    madt = parse_madt(one(build_guest_tables(Guest(3)), "APIC").parsed)
    assert madt.header.revision == 2
    assert madt.flags == 0  # no PIC: PCAT_COMPAT stays clear, unlike libxl's
    assert madt.local_apic == 0xFEE0_0000
    assert madt.entries == (LocalApic(0, 0), LocalApic(1, 2), LocalApic(2, 4))


def test_a_guest_without_local_apic_has_no_madt():
    tables = build_guest_tables(Guest(1, local_apic=False))
    assert tables.named("APIC") == ()
    assert len(parse_root_table(one(tables, "XSDT").parsed)) == 1


def test_an_io_apic_only_where_asked():
    madt = parse_madt(one(build_guest_tables(Guest(1, io_apic=True)), "APIC").parsed)
    assert madt.entries == (IoApic(1, 0xFEC0_0000, 0), InterruptOverride(9, 9, 0xF), LocalApic(0, 0))


def test_the_hardware_domains_madt_mirrors_the_machine():
    madt = parse_madt(one(hardware(2), "APIC").parsed)
    assert madt.entries == (IO_APIC, SECOND, X2Apic(0, 0), X2Apic(1, 2), TIMER, SCI)  # no NMI
    assert madt.flags == 0
    assert (madt.header.oem_id, madt.header.revision) == (b"LAPTOP", 4)


@pytest.mark.parametrize(
    "madt",
    [None, native_madt(), native_madt(NMI)],
    ids=["no MADT", "only local APICs", "an NMI"],
)
def test_a_machine_without_io_apic_gets_none(madt):
    found = parse_madt(one(hardware(1, APIC=madt), "APIC").parsed)
    assert found.entries == (X2Apic(0, 0),)


def test_native_tables_are_unchanged_and_forbidden_ones_absent():
    native, tables = native_tables(), hardware()
    found = {table.signature: table for table in tables.tables}
    assert set(found) == {"XSDT", "APIC", "FACP", "MCFG", "SSDT", "DSDT", "FACS"}
    for name in ("FACP", "MCFG", "DSDT", "FACS"):
        assert found[name].data == native[name]
        assert found[name].native
    assert (found["DSDT"].address, found["FACS"].address) == (DSDT_AT, FACS_AT)
    assert not any(
        is_passed_on(name, parse_version("4.22.0"))
        for name in (*FORBIDDEN, "WAET", "MSDM", "SLIC", "APIC", "DSDT")
    )
    assert is_passed_on("SSDT", None)


@pytest.mark.parametrize(
    ("flags", "arch"),
    [(0x4A5, 0x3), (0x4A5, NO_VGA), (0x4A5 | HW_REDUCED, NO_CMOS_RTC)],  # whatever the machine is
)
def test_the_fadt_reflects_the_machine(flags, arch):
    data = native_fadt(FLAGS=flags, IAPC_BOOT_ARCH=arch)
    assert one(hardware(1, FACP=data), "FACP").data == data


def test_the_hardware_domains_xsdt_has_the_madt_first_and_there_is_no_rsdt():
    tables = hardware()
    rsdp = parse_rsdp(tables.rsdp.data)
    assert (rsdp.revision, rsdp.rsdt, rsdp.xsdt) == (2, 0, one(tables, "XSDT").address)
    assert rsdp.oem_id == b"LAPTOP"
    named = [tables.at(address).signature for address in parse_root_table(one(tables, "XSDT").parsed)]
    assert named == ["APIC", "FACP", "MCFG", "SSDT"]


def test_without_a_fadt_nothing_is_built():
    with pytest.raises(UnsupportedError, match="FACP"):
        hardware(FACP=None)


@pytest.mark.parametrize("vcpus", [0, -1, 4097])
def test_impossible_numbers_of_vcpus(vcpus):
    for build in (lambda: build_guest_tables(Guest(vcpus)), lambda: hardware(vcpus)):
        with pytest.raises(UnsupportedError):
            build()


@pytest.mark.parametrize("vcpus", [1, 100, 4096])
def test_the_room_asked_for_is_enough(vcpus):
    tables = hardware(vcpus)
    made = [t for t in tables.everything if t.signature not in ("DSDT", "FACS")]
    size = max(table.range.last for table in made) + 1 - BASE
    assert size <= needed_room(native_tables().values(), vcpus)


def test_nothing_lies_over_anything():
    for tables in (build_guest_tables(Guest(7, windows=WINDOWS)), hardware()):
        spans = sorted(table.range for table in tables.everything)
        assert all(before.last < after.start for before, after in itertools.pairwise(spans))


def test_the_facs():
    facs = build_facs()
    assert (len(facs), facs[:4], facs[4], facs[32]) == (64, b"FACS", 64, 2)


def test_of_two_fadts_the_last_one_says_where_dsdt_and_facs_are():
    """Xen and Linux replace what the first one said."""
    early = native_fadt(DSDT=0x1000, X_DSDT=0x1000, FACS=0x2000)
    given = [data for data in native_tables().values() if data is not None]
    tables = build_hardware_tables([early, *given], 2, BASE)
    assert len(tables.named("FACP")) == 2
    assert (one(tables, "DSDT").address, one(tables, "FACS").address) == (DSDT_AT, FACS_AT)
    tables = build_hardware_tables([*given, early], 2, BASE)
    assert (one(tables, "DSDT").address, one(tables, "FACS").address) == (0x1000, 0x2000)
