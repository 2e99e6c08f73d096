"""Tables that keep every rule of the PVH contract, and ways to break one, for the tests of the checks."""

import struct

import attrs

from pcipt.firmware.acpi.build_table import with_checksum
from pcipt.firmware.acpi.table_set import Domain, TableSet
from pcipt.firmware.pvh.build_tables import Guest, build_guest_tables, build_hardware_tables
from pcipt.firmware.pvh.check_rows import Verdict
from pcipt.firmware.pvh.check_tables import check_tables
from pcipt.firmware.pvh.facts import Facts
from tests.pvh import native_tables

GUEST = build_guest_tables(Guest(2))
HARDWARE = build_hardware_tables(native_tables().values(), 2, 0x7FD0_0000)
G, H = Domain.GUEST, Domain.HARDWARE
PCAT = ("warn", "pcat-compat", "APIC", 40)  # set in every native MADT
BASE = {Domain.GUEST: GUEST, Domain.HARDWARE: HARDWARE}


def problems(tables, domain, **facts):
    rows = check_tables(tables, domain, Facts(**facts))
    return {
        (row.verdict.value, row.rule, row.table, row.offset) for row in rows if row.verdict is not Verdict.OK
    }


def patched(tables, name, *changes, sums=True):
    """Change bytes of the one table (or RSDP) of that name; `sums` mends its checksum."""

    def change(table):
        if table.name != name:
            return table
        data = bytearray(table.data)
        for offset, form, value in changes:
            struct.pack_into(form, data, offset, value)
        mended = (
            with_checksum(bytes(data)) if sums and table.signature not in ("FACS", "RSDP") else bytes(data)
        )
        return attrs.evolve(table, data=mended)

    return TableSet(change(tables.rsdp), tuple(change(table) for table in tables.tables))


def without(tables, *names):
    return TableSet(tables.rsdp, tuple(table for table in tables.tables if table.name not in names))


def replaced(tables, name, data):
    return TableSet(
        tables.rsdp,
        tuple(attrs.evolve(table, data=data) if table.name == name else table for table in tables.tables),
    )
