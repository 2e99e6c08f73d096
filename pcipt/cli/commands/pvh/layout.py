"""Show the address space of a PVH hardware domain: what is mapped where, and why.

pcipt computes the layout from the memory map, from ACPI (MCFG, MADT, reserved memory in DMAR or IVRS) and
from the functions' BARs. A PVH dom0 cannot see DMAR and IVRS: if you have a copy of these tables, name it
with --table.

Xen's command line is read from xl or from the recording; --xen-options gives another line. Xen maps reserved
memory 1:1 unless its command line has dom0-iommu=no-map-reserved. The options rmrr= and ivmd= add regions. If
a BAR lies over the memory map, Xen's release decides which parts of the BAR are mapped.

Exit codes: 0 done, 1 a file cannot be read, 4 there are findings, 5 not permitted.
"""

import argparse

from pcipt.cli.commands.pvh.rows import DEGRADED
from pcipt.cli.machine.host import command_line_at, options_in
from pcipt.cli.machine.pvh import (
    damage_of,
    ecam_of,
    guest_type,
    machine_of,
    madt_of,
    map_reserved,
    memory_of,
    tables_of,
    xen_version,
)
from pcipt.cli.options import add_colour_argument, add_json_argument
from pcipt.cli.picture.file import write_drawing
from pcipt.cli.text.render import print_json, table
from pcipt.cli.text.terminal import YELLOW, columns, folded, next_lines, painted, wants_colour
from pcipt.errors import printable
from pcipt.firmware.pvh.drawing import draw_layout, size_words
from pcipt.firmware.pvh.layout import Layout, Platform, compute_layout
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.host.acpi_files import read_table_file
from pcipt.pci import Finding

LEAST_DIGITS = 10  # of an address: outputs of machines with at most 1 TiB look alike

EXAMPLES = (
    ("pcipt pvh layout", "this machine"),
    ("pcipt pvh layout --root machine --svg layout.svg", "a recorded machine, also as a picture"),
    ("pcipt pvh layout --table dmar.dat", "with the reserved regions of a saved DMAR"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="read a recorded machine: DIR holds sys/, proc/"
    )
    parser.add_argument(
        "--table",
        metavar="FILE",
        action="append",
        default=[],
        help="one more table, e.g. DMAR, raw or as text",
    )
    parser.add_argument(
        "--xen-options", metavar="TEXT", help="use this command line of Xen instead of that of the machine"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the layout into FILE")
    add_json_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    layout, source = read_layout(args.root, args.table, args.xen_options)
    if args.svg is not None:
        write_drawing(args.svg, draw_layout(layout.areas))
    if args.json:
        print_json(json_from_layout(layout, source), args.json)
    else:
        _print_areas(layout, source, colour=wants_colour(args.color))
    return DEGRADED if layout.findings else 0


def read_layout(root: str, more_tables: list[str], options: str | None = None) -> tuple[Layout, str]:
    """Read the machine below `root` and the table files `more_tables`, and compute the layout.

    `options` is Xen's command line; None means that of the Xen below `root`, where it is known.

    Shape:  the layout; the file from which the memory map was read.
    Raises: InputError if there is no usable memory map or a table file cannot be read; NotPermittedError if
            this process may not read the memory map or the ACPI tables. Missing functions or tables are a
            finding.
    """
    memory = memory_of(root)
    findings: list[Finding] = list(memory.findings)
    machine = machine_of(root, findings)
    reading = tables_of(root, findings)
    tables = [table.data for table in reading.tables]
    tables += (data for path in more_tables for data in read_table_file(path))
    findings += (*reading.findings, *damage_of(tables))
    line = options if options is not None else command_line_at(root)
    version = xen_version(root)
    reserved = regions_from_tables(tables, machine, None, options_in(line), memory.entries, version)
    findings += reserved.findings
    if guest_type(root) not in ("PVH", ""):
        why = f"this is a {guest_type(root)} domain: the layout is that of a PVH dom0 on this machine"
        findings.append(Finding("not-pvh", why))
    platform = Platform(
        memory.entries, machine, ecam_of(tables), madt_of(tables), reserved.regions, memory.named,
        version, map_reserved(line),
    )  # fmt: skip
    layout = compute_layout(platform)
    return Layout(layout.areas, (*findings, *layout.findings)), memory.source


def json_from_layout(layout: Layout, source: str) -> dict[str, object]:
    """Return the object of `pcipt pvh layout --json` without its version.

    `source` is the file of the memory map.
    """
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
        "findings": [finding.to_json() for finding in layout.findings],
    }


def _print_areas(layout: Layout, source: str, *, colour: bool) -> None:
    """Print one row for each area in address order, then the file of the memory map, then the findings."""
    last = layout.areas[-1].range.last if layout.areas else 0
    digits = max(LEAST_DIGITS, len(f"{last:x}"))
    rows = [
        (
            f"{area.range.start:0{digits}x}-{area.range.last:0{digits}x}",
            size_words(area.range.size),
            area.treatment.value,
            printable(area.what),
            printable(area.why),
        )
        for area in layout.areas
    ]
    width = columns()
    for line in table(rows, width=width, right=(1,)):
        print(line)
    print(f"(memory map: {source})")
    for finding in layout.findings:
        first, *more = folded(f"Finding: {finding.code}: {printable(finding.text)}", width, 9)
        more += next_lines(finding.to_json(), 8, width)
        print(first.replace("Finding", painted("Finding", YELLOW if colour else None), 1), *more, sep="\n")
