"""Show the address space of a PVH hardware domain: what is mapped where, and why.

Read from the memory map, ACPI (MCFG, MADT, reserved memory in DMAR or IVRS) and the functions' BARs. A PVH
dom0 is not shown DMAR and IVRS: give them with --table where a copy is at hand.
"""

import argparse

from pcipt.cli.options import add_json_argument
from pcipt.cli.pvh_rows import DEGRADED
from pcipt.cli.pvh_source import ecam_of, guest_type, machine_of, madt_of, memory_of, tables_of
from pcipt.cli.render import painted, print_json, wants_colour
from pcipt.errors import InputError, printable
from pcipt.firmware.drawing import draw_layout, size_words
from pcipt.firmware.layout import Layout, Platform, compute_layout
from pcipt.firmware.reserved_areas import reserved_areas
from pcipt.host.acpi_files import read_table_file
from pcipt.host.tree import reason
from pcipt.pci import Finding

YELLOW = "33"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="read a recorded machine: DIR holds sys/, proc/"
    )
    parser.add_argument(
        "--table", metavar="FILE", action="append", default=[], help="one more ACPI table, e.g. DMAR"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw it into FILE")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    layout, source = read_layout(args.root, args.table)
    if args.svg is not None:
        try:
            with open(args.svg, "w", encoding="utf-8") as out:
                out.write(draw_layout(layout.areas))
        except OSError as error:
            raise InputError(args.svg, reason(error)) from error
    if args.json:
        print_json(json_from_layout(layout, source), args.json)
    else:
        _print_areas(layout, source)
    return DEGRADED if layout.findings else 0


def read_layout(root: str, more_tables: list[str]) -> tuple[Layout, str]:
    """Read all there is beneath a root.

    Shape:  the layout, and which file the memory map came from.
    """
    memory = memory_of(root)
    findings: list[Finding] = list(memory.findings)
    machine = machine_of(root, findings)
    reading = tables_of(root, findings)
    tables = [table.data for table in reading.tables] + [read_table_file(path) for path in more_tables]
    findings += reading.findings
    reserved, odd = reserved_areas(tables, machine)
    findings += odd
    if guest_type(root) not in ("PVH", ""):
        why = f"this is a {guest_type(root)} domain: the layout is what a PVH one would have on this machine"
        findings.append(Finding("not-pvh", why))
    platform = Platform(memory.entries, machine, ecam_of(tables), madt_of(tables), reserved)
    layout = compute_layout(platform)
    return Layout(layout.areas, (*findings, *layout.findings)), memory.source


def json_from_layout(layout: Layout, source: str) -> dict[str, object]:
    return {
        "source": source,
        "ranges": [
            {
                "start": f"{area.range.start:#x}",
                "last": f"{area.range.last:#x}",
                "size": area.range.size,
                "treatment": area.treatment.value,
                "what": area.what,
                "why": area.why,
            }
            for area in layout.areas
        ],
        "findings": [{"code": finding.code, "text": finding.text} for finding in layout.findings],
    }


def _print_areas(layout: Layout, source: str) -> None:
    last = layout.areas[-1].range.last if layout.areas else 0
    digits = len(f"{last:x}")
    what_width = max((len(area.what) for area in layout.areas), default=0)
    for area in layout.areas:
        span = f"{area.range.start:0{digits}x}-{area.range.last:0{digits}x}"
        left = f"{span}  {size_words(area.range.size):>10}  {area.treatment.value:8}"
        print(f"{left}  {printable(area.what):{what_width}}  {printable(area.why)}")
    print(f"(memory map: {source})")
    colour = wants_colour()
    for finding in layout.findings:
        print(f"{painted('Finding', YELLOW if colour else None)}: {finding.code}: {printable(finding.text)}")
