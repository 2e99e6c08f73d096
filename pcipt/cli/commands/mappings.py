"""Show the 1:1 MMIO ranges of the hardware domain: address, BAR, who mapped the range, since when.

The column BY has one of the words below. If the ledger's state of a range is not `held`, the state follows
the word.

us     pcipt mapped the range
xen    Xen's vPCI mapped the range; pcipt has only observed that
stale  the range is mapped, but no BAR decodes there now

BARs behind a VMD controller lie inside the BARs of the controller and have no ranges of their own; the
closing line names the controller. A PV dom0 has no 1:1 map, because Linux maps device memory itself: the
command says so and shows no table.

Exit codes: 0 done, 3 the daemon is not running, 5 not permitted.
"""

import argparse

from pcipt.cli.machine.client import call
from pcipt.cli.options import add_colour_argument, add_json_argument, add_legend_argument, add_socket_argument
from pcipt.cli.text.clock import age, readable
from pcipt.cli.text.render import count_text, print_json, say_nothing, table
from pcipt.cli.text.terminal import BOLD, RED, YELLOW, columns, folded, on_terminal, wants_colour
from pcipt.errors import printable
from pcipt.hints import Any
from pcipt.words import size_text

HEADER = ("RANGE", "SIZE", "SBDF", "BAR", "BY")
SIZE_COLUMN, SBDF_COLUMN, BY_COLUMN = 1, 2, 4
ROM = 6
NONE = "there are no mappings: pcipt knows of no range that is mapped 1:1"
WIDE = 100  # columns; below this a date does not fit
SHADES = {"us": None, "xen": None, "stale": YELLOW}
EXAMPLES = (
    ("pcipt mappings", "the ledger as a table"),
    ("pcipt mappings --no-legend | grep stale", "what should not be mapped any more"),
    ("pcipt mappings --json=pretty", "the same for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)
    add_legend_argument(parser, "print no heading, and no closing line on a terminal")
    add_colour_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    told = call(args.socket, "Mappings")
    if args.json:
        print_json(told, args.json)
        return 0
    width = columns()
    if why := told.get("why"):  # a PV dom0 has no 1:1 map: that is the answer, not an empty one
        print(*folded(printable(str(why)), width, 0), sep="\n")
        return 0
    if not told["mappings"]:
        say_nothing(NONE)
        return 0
    for line in lines_from_mappings(
        told["mappings"], legend=not args.no_legend, colour=wants_colour(args.color), width=width
    ):
        print(line)
    if on_terminal() and not args.no_legend:
        print("", *folded(legend_from_answer(told, width), width, 0), sep="\n")
    return 0


def lines_from_mappings(
    mappings: list[dict[str, Any]], *, legend: bool, colour: bool, width: int | None
) -> list[str]:
    """Return the mappings as the lines of a table, in their order; with `legend` the first line is a heading.

    The last column is the date if `width` is None or at least
    WIDE, else the age.
    """
    heading, since = ("AGE", age) if _is_narrow(width) else ("SINCE", readable)
    rows = [_row(mapping, since(str(mapping["since"]))) for mapping in mappings]
    if legend:
        rows.insert(0, (*HEADER, heading))
    paint = {SBDF_COLUMN: _shade_of_address, BY_COLUMN: _shade_of_state}
    return table(rows, width=width, right=(SIZE_COLUMN,), paint=paint if colour else None)


def _row(mapping: dict[str, Any], since: str) -> tuple[str, ...]:
    """Return the cells of one mapping: range, size, address, BAR, who mapped it, `since`.

    The ledger's state follows who mapped it, if the state is another word and not "held". `since` is the text
    of the last cell.
    """
    start, size, bar = int(mapping["start"], 16), mapping["size"], mapping["bar"]
    by, state = str(mapping["by"]), str(mapping["state"])
    return (
        f"{start:#x}-{start + size - 1:#x}",
        size_text(size),
        printable(str(mapping["sbdf"])),
        "ROM" if bar == ROM else str(bar),
        by if state in (by, "held") else f"{by}, {state}",
        since,
    )


def _shade_of_address(text: str) -> str | None:
    """Return the colour of a cell of the column SBDF; None for the heading."""
    return None if text in HEADER else BOLD


def _shade_of_state(text: str) -> str | None:
    """Return the colour of a cell of the column BY: None (no colour) for the heading, "us" and "xen"."""
    return None if text in HEADER else SHADES.get(text, RED)


def legend_from_answer(told: dict[str, Any], width: int | None) -> str:
    """Return the closing line: the number of ranges, and how many of them are mapped by Xen, by pcipt, or
    stale.

    `told` is the daemon's reply to `Mappings`. The line says that times are UTC, except if `width` is below
    WIDE, because ages are shown then. It names each VMD controller with the segments whose BARs lie inside
    those of the controller.
    """
    by = [str(mapping["by"]) for mapping in told["mappings"]]
    counts = f"{by.count('xen')} by Xen, {by.count('us')} by pcipt, {by.count('stale')} stale"
    zone = "" if _is_narrow(width) else "; times are UTC"
    text = f"{count_text(len(by), 'range')}: {counts}{zone}."
    inside = {str(each["sbdf"]): each["segments"] for each in told["mappings"] if each.get("segments")}
    for controller, segments in inside.items():
        text += f" BARs of segment {', '.join(segments)} lie inside those of {controller} (VMD)."
    return printable(text)


def _is_narrow(width: int | None) -> bool:
    return width is not None and width < WIDE
