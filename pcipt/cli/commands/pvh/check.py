"""Check ACPI tables against the PVH contract: one row for each rule, with table, offset and reason.

Checks the tables that the kernel shows (--root: of a recorded machine), or the table files in a directory.

Exit codes: 0 all is right, 1 a file cannot be read, 4 a row is warn or error.
"""

import argparse
import re

from pcipt.cli.commands.pvh.rows import exit_code, json_from_rows, print_rows
from pcipt.cli.commands.pvh.tables import vcpu_count
from pcipt.cli.machine.pvh import (
    add_xen_argument,
    guest_type,
    has_vga,
    machine_of,
    memory_map_of,
    xen_version,
)
from pcipt.cli.options import add_colour_argument, add_json_argument
from pcipt.cli.text.render import print_json
from pcipt.cli.text.terminal import wants_colour
from pcipt.firmware.acpi.table_set import Domain, PlacedTable, TableSet, is_guest, table_set_from_tables
from pcipt.firmware.pvh.check_rows import Row, doubtful
from pcipt.firmware.pvh.check_tables import check_tables
from pcipt.firmware.pvh.facts import Facts
from pcipt.host.acpi_files import TableReading, read_table_directory, read_tables
from pcipt.pci import Address

EXAMPLES = (
    ("pcipt pvh check", "the tables of this machine"),
    ("pcipt pvh check --tables tables --domain guest --vcpus 4", "the tables that `pcipt pvh tables` wrote"),
)
_PLACED = re.compile(r"-([0-9a-f]{8,16})\.(?:aml|dat|bin)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--root", metavar="DIR", default="/", help="read a recorded machine: DIR holds sys/, or is a report"
    )
    place.add_argument(
        "--tables",
        metavar="DIR",
        help="check the files in DIR; each is one table, as `pcipt pvh tables` writes it",
    )
    parser.add_argument(
        "--domain",
        choices=[each.value for each in Domain],
        help="kind of domain that has these tables; default: as the OEM ids in the tables say",
    )
    parser.add_argument(
        "--vcpus", metavar="N", type=vcpu_count, help="how many local APICs the tables should have"
    )
    parser.add_argument("--io-apic", action="store_true", help="the guest should have an IO-APIC")
    add_xen_argument(parser)
    add_json_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    rows: list[Row] = []
    if args.tables is not None:
        reading = read_table_directory(args.tables)
        facts = Facts(args.vcpus, io_apic=args.io_apic, xen=args.xen)
    else:
        reading = read_tables(args.root)
        machine = machine_of(args.root, [])
        xen = args.xen or xen_version(args.root)
        facts = Facts(args.vcpus, has_vga(machine), args.io_apic, memory_map_of(args.root), xen)
        rows += _whose(guest_type(args.root))
    tables = table_set_from_tables(_placed(reading))
    domain = Domain(args.domain) if args.domain is not None else _domain(tables)
    rows += [doubtful("table-unread", "all", None, finding.text) for finding in reading.findings]
    rows += check_tables(tables, domain, facts)
    if args.json:
        print_json({"domain": domain.value, "rows": json_from_rows(rows)}, args.json)
    else:
        print(f"Tables of a {'guest' if domain is Domain.GUEST else 'hardware domain'}")
        print_rows(rows, colour=wants_colour(args.color))
    return exit_code(rows)


def _placed(reading: TableReading) -> list[PlacedTable]:
    """Return the tables that were read, each with its address, in their order.

    The address is taken from the table's file name, where `pcipt pvh tables` writes it. It is None if the
    file name has no address.
    """
    found = []
    for table in reading.tables:
        matched = _PLACED.search(table.name)
        address = Address(int(matched[1], 16)) if matched is not None else None
        found.append(PlacedTable(table.name, table.data, address))
    return found


def _domain(tables: TableSet) -> Domain:
    """Return for which kind of domain these tables are: GUEST if their OEM ids say so, else HARDWARE."""
    return Domain.GUEST if is_guest(tables) else Domain.HARDWARE


def _whose(kind: str) -> list[Row]:
    """Return a warning row if `kind`, the kind of the domain that sees the tables, is known and is not PVH.

    Otherwise return no rows. An empty `kind` is unknown.
    """
    if kind in ("PVH", ""):
        return []
    why = (
        f"this is a {kind} domain: it sees the machine's own tables; the PVH contract does not apply to them"
    )
    return [doubtful("domain", "all", None, why)]
