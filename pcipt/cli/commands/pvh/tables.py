"""Build the ACPI tables of a PVH domain in a new directory: one file for each table, its address in the name.

The tables of a hardware domain are made from the tables of the machine (--root): MADT, XSDT and RSDP are
built again, tables that dom0 must not see are left out, all other tables are unchanged. For a guest all
tables are built. With --function the DSDT of the guest describes a root bridge with exactly the windows that
the BARs of these functions need.

Exit codes: 0 done, 1 a file cannot be read or written.
"""

import argparse
import os

from pcipt.cli.machine.find import find_function
from pcipt.cli.machine.pvh import add_xen_argument, memory_of, xen_version
from pcipt.cli.machine.source import Source
from pcipt.cli.options import add_json_argument
from pcipt.cli.text.render import print_json
from pcipt.errors import InputError, PciptError, UnsupportedError
from pcipt.firmware.acpi.dsdt import MAX_PROCESSORS, windows_for
from pcipt.firmware.acpi.table_set import Domain, PlacedTable, TableSet
from pcipt.firmware.memory_map import FOUR_GIB, ONE_MIB, MemoryType
from pcipt.firmware.pvh.build_tables import (
    GUEST_TABLES,
    Guest,
    build_guest_tables,
    build_hardware_tables,
    needed_room,
)
from pcipt.firmware.pvh.rules import FORBIDDEN, SECRET, why_not_given
from pcipt.host.acpi_files import TableFile, read_tables
from pcipt.host.tree import reason
from pcipt.pci import Address
from pcipt.xen.releases import Version

EXAMPLES = (
    (
        "pcipt pvh tables --domain hardware --vcpus 4 -o tables",
        "what Xen would make for dom0 of this machine",
    ),
    ("pcipt pvh tables --domain guest --vcpus 2 --function 03:00.0 -o tables", "a guest with one device"),
)


def vcpu_count(text: str) -> int:
    """Parse a number of vCPUs, from 1 to MAX_PROCESSORS.

    Raises: ValueError if the text is not a number; ArgumentTypeError if the number is out of range.
    """
    number = int(text)
    if not 1 <= number <= MAX_PROCESSORS:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and {MAX_PROCESSORS}")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", choices=[each.value for each in Domain], required=True)
    parser.add_argument(
        "--vcpus",
        metavar="N",
        type=vcpu_count,
        required=True,
        help="how many virtual processors the domain has",
    )
    parser.add_argument("--no-lapic", action="store_true", help="guest: no local APIC, so no MADT")
    parser.add_argument("--io-apic", action="store_true", help="guest: with an IO-APIC entry")
    parser.add_argument(
        "--function",
        metavar="SBDF",
        nargs="+",
        action="extend",
        default=[],
        help="guest: the functions that are passed through",
    )
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="read a recorded machine: DIR holds sys/, or is a report"
    )
    add_xen_argument(parser)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="a directory, new or empty")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    domain = Domain(args.domain)
    left_out: list[tuple[str, str]] = []
    if domain is Domain.HARDWARE:
        if args.no_lapic or args.io_apic or args.function:
            args.refuse("--no-lapic, --io-apic and --function are for guests")
        tables = _hardware(args, left_out)
    else:
        if args.xen is not None:
            args.refuse("--xen is for the hardware domain")
        if args.no_lapic and args.io_apic:
            args.refuse("an IO-APIC needs local APICs")
        tables = build_guest_tables(_guest(args))
    written = _write(tables, args.output)
    if args.json:
        print_json(_json(domain, written, left_out), args.json)
        return 0
    for name, table in written:
        print(f"{name:28}  {len(table.data):6} bytes  {'native, unchanged' if table.native else 'made'}")
    for name, why in left_out:
        print(f"{name:28}  left out: {why}")
    return 0


def _guest(args: argparse.Namespace) -> Guest:
    """Return the guest that the options describe. Without --function its `windows` are None.

    Raises: AddressError or NoSuchDeviceError for a wrong --function; InputError if the machine cannot be
            read; UnsupportedError if a BAR of a function has no known size or no usable address.
    """
    windows = None
    if args.function:
        source = Source(argparse.Namespace(root=args.root, dump=None))
        windows = windows_for([find_function(source, text) for text in args.function])
    return Guest(args.vcpus, not args.no_lapic, args.io_apic, windows)


def _hardware(args: argparse.Namespace, left_out: list[tuple[str, str]]) -> TableSet:
    """Return the hardware domain's tables, built from the tables of the machine below --root.

    For each table of the machine that is left out or made anew, its name and the reason are appended to
    `left_out`; for the DSDT also if it cannot be read. If the memory map cannot be read, the tables are
    placed at the address GUEST_TABLES.

    Raises: InputError if there are no tables; NotPermittedError if this process may not read them;
            UnsupportedError if there is no FADT, or no RAM has room for the tables.
    """
    read = read_tables(args.root).tables
    xen = args.xen or xen_version(args.root)
    left_out += [(table.name, why) for table in read if (why := _why_not(table, xen))]
    there = {table.data[:4] for table in read}
    if b"DSDT" not in there:
        left_out.append(("DSDT", "it cannot be read here; the pointer in the FADT is not changed"))
    native = [table.data for table in read]
    try:
        base = _place(args.root, needed_room(native, args.vcpus))
    except UnsupportedError:
        raise
    except PciptError:
        base = GUEST_TABLES  # the memory map is not readable; libxl puts a guest's tables there
    return build_hardware_tables(native, args.vcpus, base, xen)


def _why_not(table: TableFile, xen: Version | None) -> str:
    """Return why a table of the machine is left out or made anew; an empty text if it is used unchanged."""
    signature = table.data[:4].decode("latin-1")
    if signature in SECRET:
        return "it holds a licence key; Xen gives the table to dom0"
    if signature in FORBIDDEN:
        return FORBIDDEN[signature]
    if signature in ("DSDT", "FACS"):
        return ""
    return "made anew" if signature == "APIC" else why_not_given(signature, xen)


def _place(root: str, size: int) -> Address:
    """Return the address at which Xen would put tables of `size` bytes: at the end of RAM, on a page
    boundary.

    It is the highest RAM below 4 GiB that has room above 1 MiB.

    Raises: UnsupportedError if no RAM has room; InputError or NotPermittedError if the memory map cannot be
            read.
    """
    for entry in reversed(memory_of(root).entries):
        if entry.type is not MemoryType.RAM or entry.range.last >= FOUR_GIB:
            continue
        start = (entry.range.last + 1 - size) // 4096 * 4096
        if start >= max(entry.range.start, ONE_MIB):
            return Address(start)
    raise UnsupportedError("tables", f"no RAM below 4 GiB has room for {size} bytes")


def _write(tables: TableSet, directory: str) -> list[tuple[str, PlacedTable]]:
    """Write one file for each table of `tables` into `directory`, and return the names of the files.

    The directory is created if it does not exist.

    Shape:  (file name, table) of each file, in the order of `tables.everything`.
    Raises: InputError if the directory is not empty, or if a file cannot be written.
    """
    written = []
    try:
        os.makedirs(directory, exist_ok=True)
        with os.scandir(directory) as entries:
            if next(entries, None) is not None:
                raise InputError(directory, "is not empty; tables are written into a new directory")
        for table in tables.everything:
            name = f"{table.name.lower()}-{table.address:08x}.aml"
            with open(os.path.join(directory, name), "xb") as out:
                out.write(table.data)
            written.append((name, table))
    except OSError as error:
        raise InputError(error.filename or directory, reason(error)) from error
    return written


def _json(
    domain: Domain, written: list[tuple[str, PlacedTable]], left_out: list[tuple[str, str]]
) -> dict[str, object]:
    """Return the object of `pcipt pvh tables --json` without its version."""
    return {
        "domain": domain.value,
        "tables": [
            {
                "file": name,
                "signature": table.signature,
                "address": None if table.address is None else f"{table.address:#x}",
                "size": len(table.data),
                "native": table.native,
            }
            for name, table in written
        ],
        "left_out": [{"name": name, "why": why} for name, why in left_out],
    }
