"""The parts of a machine that the `pvh` commands read: memory map, ACPI tables, functions.

If tables or functions are missing, a finding says so and the command continues. What only some commands need
is loaded where it is needed.
"""

import argparse
from collections.abc import Callable, Sequence

from pcipt import values as attrs
from pcipt.errors import InputError, NotPermittedError, PciptError
from pcipt.hints import TYPE_CHECKING
from pcipt.host.acpi_files import TableReading, read_tables
from pcipt.host.files import Depth
from pcipt.host.machine_files import read_listed
from pcipt.pci import Finding

if TYPE_CHECKING:
    from pcipt.firmware.acpi.madt import Madt
    from pcipt.firmware.acpi.mcfg import Mcfg
    from pcipt.firmware.acpi.table import Table
    from pcipt.firmware.memory_map import MemoryEntry
    from pcipt.pci import Machine
    from pcipt.pci.write import EcamRegion
    from pcipt.xen.releases import Version

VGA_CLASSES = (0x030000, 0x000100)  # VGA-compatible; the second is for devices older than class codes
NO_TABLES = TableReading((), ())


@attrs.frozen
class MemorySource:
    """A memory map. `source` is the file or directory from which it was read, relative to the root.

    `named` are the names of the ranges in /proc/iomem; none if it could not be read.
    """

    entries: "tuple[MemoryEntry, ...]"
    source: str
    findings: tuple[Finding, ...]
    named: tuple[str, ...] = ()


def memory_of(root: str) -> MemorySource:
    """Return the memory map of the machine below `root`: the firmware's map if the kernel shows it, else
    /proc/iomem.

    Raises: NotPermittedError if `root` is "/" and the kernel hides the addresses from this process;
            InputError if there is no usable map.
    """
    from pcipt.firmware.memory_map import entries_from_names
    from pcipt.host.iomem import read_memory

    reading = read_memory(root)
    named = tuple(line.name for line in reading.iomem or ())
    if reading.firmware:
        entries = entries_from_names((each.range, each.name) for each in reading.firmware)
        return MemorySource(entries, "sys/firmware/memmap", reading.findings, named)
    entries = entries_from_names((each.range, each.name) for each in reading.iomem or ())
    return MemorySource(entries, "proc/iomem", reading.findings, named)


def memory_map_of(root: str) -> "tuple[MemoryEntry, ...] | None":
    """Return the entries of `memory_of`; None if there is no map that can be read."""
    try:
        return memory_of(root).entries
    except PciptError:
        return None


def acpi_tables_of(root: str) -> list[bytes] | None:
    """Return the ACPI tables of the machine below `root`; None if they cannot be read."""
    try:
        return [table.data for table in read_tables(root).tables]
    except (InputError, NotPermittedError):
        return None


def tables_of(root: str, findings: list[Finding]) -> TableReading:
    """Return the ACPI tables of the machine below `root`.

    If no table can be read and permission was not the reason, append a finding to `findings` and return no
    tables.

    Raises: NotPermittedError if no table could be read and permission was refused for at least one.
    """
    try:
        return read_tables(root)
    except InputError as error:
        findings.append(Finding("no-tables", f"{error}; nothing is known from ACPI tables"))
        return NO_TABLES


def machine_of(root: str, findings: list[Finding]) -> "Machine":
    """Return all functions below `root`, decoded.

    If the list of functions cannot be read, return an empty machine. A finding in `findings` then says so.
    """
    from pcipt.host.sysfs import read_machine
    from pcipt.pci import Machine, decode_machine

    try:
        return decode_machine(read_machine(root, Depth.FULL))
    except InputError as error:
        findings.append(Finding("no-functions", f"{error}; no BAR is known"))
        return Machine({})


def madt_of(tables: Sequence[bytes]) -> "Madt | None":
    """Return the first MADT among `tables`, decoded; None if there is none. Damage in it raises no error."""
    from pcipt.firmware.acpi.madt import SIGNATURE, parse_madt
    from pcipt.firmware.acpi.table import parse_table

    for data in tables:
        table = parse_table(data)
        if table is not None and table.signature == SIGNATURE:
            return parse_madt(table)
    return None


def ecam_of(tables: Sequence[bytes]) -> "tuple[EcamRegion, ...]":
    """Return the ECAM regions that the MCFG tables among `tables` claim, in table order; none if there is no
    MCFG. How much of them is taken: `firmware.mmcfg`.
    """
    from pcipt.firmware.acpi.mcfg import regions_from_mcfg

    return tuple(region for data in tables for region in regions_from_mcfg(data))


def damage_of(tables: Sequence[bytes]) -> list[Finding]:
    """Return the findings about damage in the MCFG and MADT tables among `tables`. Ignore other tables."""
    from pcipt.firmware.acpi import madt, mcfg
    from pcipt.firmware.acpi.table import parse_table

    parsers: dict[str, Callable[[Table], Madt | Mcfg]] = {
        madt.SIGNATURE: madt.parse_madt,
        mcfg.SIGNATURE: mcfg.parse_mcfg,
    }
    found: list[Finding] = []
    for data in tables:
        table = parse_table(data)
        parse = parsers.get(table.signature) if table is not None else None
        if table is not None and parse is not None:
            found += (Finding(each.code, f"{table.signature}: {each.text}") for each in parse(table).findings)
    return found


def has_vga(machine: "Machine") -> bool | None:
    """Return True if a function is VGA-compatible, False if none is; None if `machine` is empty (unknown)."""
    if not machine.functions:
        return None
    return any(function.ids.class_code in VGA_CLASSES for function in machine.functions.values())


def add_xen_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--xen VERSION` to a parser; the parsed value `xen` is a `Version`, None without it."""
    parser.add_argument(
        "--xen",
        metavar="VERSION",
        type=_version,
        help="the version of Xen to judge for, such as 4.20.3; default: the Xen of this machine",
    )


def _version(text: str) -> "Version":
    """Parse a version of Xen. Raises: ArgumentTypeError if it is none."""
    from pcipt.xen.releases import parse_version

    try:
        return parse_version(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def xen_version(root: str) -> "Version | None":
    """Return the version of Xen under which the Linux below `root` runs; None if it is not known."""
    from pcipt.xen.releases import parse_version

    parts = [read_listed(root, f"sys/hypervisor/version/{part}") for part in ("major", "minor", "extra")]
    major, minor, extra = ((part or b"").decode("ascii", "replace").strip() for part in parts)
    try:
        return parse_version(f"{major}.{minor}{extra}")
    except ValueError:
        return None


def guest_type(root: str) -> str:
    """Return the kind of domain in which the Linux below `root` runs: "PV", "PVH" or "HVM".

    Return an empty text if it is not known, for example without Xen.
    """
    data = read_listed(root, "sys/hypervisor/guest_type")
    return data.decode("ascii", "replace").strip() if data is not None else ""


def map_reserved(line: str | None) -> bool:
    """Return True if Xen maps reserved memory 1:1 when it boots (dom0-iommu=map-reserved).

    `line` is Xen's command line; None is not known, and then Xen's default counts, which is True.
    """
    from pcipt.xen.command_line import switch_in

    return switch_in(line or "", "dom0-iommu", "map-reserved") is not False
