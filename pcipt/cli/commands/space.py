"""Show the windows of bridges and root buses: what is used, what is free, and the largest aligned hole.

With SBDF, only the windows above this function are shown: with everything that uses these windows, and with
the sizes that fit for each Resizable BAR of the function.

At the end the BARs without an address are shown: which window is too small, how much is missing, and what
would help. The windows of root buses are read from /proc/iomem.

Exit codes: 0 fine, 4 a BAR has no address, 6 no such device.
"""

import argparse
import re
from collections.abc import Iterator

from pcipt.cli.machine.find import find_function
from pcipt.cli.machine.roots import root_windows
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import add_colour_argument, add_json_argument
from pcipt.cli.text.render import print_json, say_nothing, table
from pcipt.cli.text.terminal import BOLD, YELLOW, columns, folded, painted, wants_colour
from pcipt.host.files import Depth
from pcipt.pci import Function, Machine
from pcipt.pci.space.beliefs import NO_SHIFT, WINDOW_NAMES
from pcipt.pci.space.buses import BusSpace, buses_of
from pcipt.pci.space.resizes import Resize, resizes_of
from pcipt.pci.space.shortage import CODES, shortages_of, told_findings
from pcipt.pci.space.view import json_from_bus, json_from_resize, json_from_shortage
from pcipt.pci.space.windows import RootWindows, WindowSpace
from pcipt.words import size_text

DEGRADED = 4
INDENT = 2
_CELL = re.compile(r"\S+(?: \S+)+")  # of a row: words with one space between them; it is not broken
EXAMPLES = (
    ("pcipt space", "all windows of this machine"),
    ("pcipt space 03:00.0", "the windows above one function, and what uses these windows"),
    ("pcipt space --root machine --json=pretty", "the windows of a recorded machine, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", nargs="?", help="address or PCI path of one function")
    add_source_arguments(parser)
    add_json_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    found = find_function(source, args.sbdf) if args.sbdf is not None else None
    machine = source.machine(Depth.FULL)
    about = machine.functions.get(found.sbdf, found) if found is not None else None
    roots = root_windows(args.root if args.dump is None else None)
    buses = buses_of(machine, roots, about)
    functions = list(machine.functions.values()) if about is None else [about]
    resizes = [each for function in functions for each in resizes_of(machine, function, roots)]
    if args.json:
        short = [each for function in functions for each in shortages_of(machine, function, roots)]
        shown = {
            "buses": [json_from_bus(bus) for bus in buses],
            "unassigned": [json_from_shortage(each) for each in short],
            "resizes": [json_from_resize(each) for each in resizes],
        }
        print_json(shown, args.json)
    else:
        colour = wants_colour(args.color)
        if not buses:
            say_nothing("this machine has no buses")
        for bus in buses:
            _print_bus(bus, uses=about is not None, colour=colour)
        if about is not None:
            _print_resizes(resizes, colour=colour)
        _print_unassigned(machine, functions, roots, colour=colour)
    lacking = any(finding.code == "bar-unassigned" for each in functions for finding in each.findings)
    return DEGRADED if lacking else 0


def _print_bus(bus: BusSpace, *, uses: bool, colour: bool) -> None:
    """Print a bus and the windows that lead to it; with `uses`, also what is in each window."""
    name = f"{bus.segment:04x}:{bus.bus:02x}" if bus.bridge is None else str(bus.bridge)
    print(f"{painted(name, BOLD if colour else None)}{_about(bus)}")
    rows = [_row(window) for window in bus.windows]
    for line, window in zip(table(rows), bus.windows, strict=True):
        print("\n".join(folded(" " * INDENT + line, columns(), 3 * INDENT, _CELL)))
        if uses:
            inside = [
                (str(use.sbdf or "-"), use.what, str(use.range), size_text(use.range.size))
                for use in window.uses
            ]
            for each in table(inside):
                print(" " * INDENT * 2 + each)


def _about(bus: BusSpace) -> str:
    """Return what is said of a bus behind its name."""
    if bus.bridge is None:
        shifts = (("memory", bus.shift.memory), ("I/O", bus.shift.io))
        added = " and ".join(f"{value:#x} to {what} addresses" for what, value in shifts if value)
        text = "  root bus"
        if not bus.windows:
            text += ", windows not known"
        return f"{text}, the host bridge adds {added}" if bus.shift != NO_SHIFT else text
    slot = ", slot" if bus.slot else ""
    more = ", passes on what no other device claims (subtractive decode)" if bus.subtractive else ""
    return f"  bus {bus.bus:02x}{slot}{', empty' if bus.empty else ''}{more}"


def _row(window: WindowSpace) -> tuple[str, ...]:
    """Return the cells of a window: kind, range, size, used, free, largest hole."""
    kind = WINDOW_NAMES[window.kind]
    if window.range is None:
        return kind, "closed", "", "", "", ""
    hole = window.hole
    return (
        kind,
        str(window.range),
        f"size {size_text(window.range.size)}",
        f"used {size_text(window.used)}",
        f"free {size_text(window.free)}",
        f"largest hole {size_text(hole.size)} at {hole.start:#x}" if hole is not None else "no hole",
    )


def _print_resizes(resizes: list[Resize], *, colour: bool) -> None:
    """Print which sizes of Resizable BARs fit: one line a BAR."""
    bars = dict.fromkeys((each.virtual, each.bar) for each in resizes)
    if bars:
        print(painted("Resizable BARs", BOLD if colour else None))
    for virtual, bar in bars:
        mine = [each for each in resizes if (each.virtual, each.bar) == (virtual, bar)]
        print(" " * INDENT + f"{'VF ' if virtual else ''}BAR {bar}: {'; '.join(_sizes(mine))}")


def _sizes(resizes: list[Resize]) -> Iterator[str]:
    """Yield the present size, and the sizes that fit, that do not, and of which that is not known."""
    yield from (f"now {size_text(each.size)}" for each in resizes if each.now)
    for word, fits in (("fits", True), ("does not fit", False), ("not known", None)):
        sizes = " ".join(size_text(each.size) for each in resizes if each.fits is fits)
        if sizes:
            yield f"{word}: {sizes}"


def _print_unassigned(
    machine: Machine, functions: list[Function], roots: RootWindows, *, colour: bool
) -> None:
    """Print the BARs without an address, each with what would help."""
    lines = []
    for function in functions:
        for finding, helps in told_findings(machine, function, roots):
            if finding.code in CODES:
                lines += folded(f"  {function.sbdf}  {finding.text}", columns(), 16)
                lines += folded(f"    -> {helps}", columns(), 7) if helps else []
    if lines:
        print(painted("BARs without an address", YELLOW if colour else None))
        print("\n".join(lines))
