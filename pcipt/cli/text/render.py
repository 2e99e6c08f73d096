"""How numbers, tables and JSON are put on paper; loads only what a question to the daemon needs as well."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence

from pcipt.cli.text.terminal import folded, painted

SIZE_UNITS = ("", "K", "M", "G", "T", "P", "E")
GAP = "  "
BELOW = 4
LEAST = 30  # columns that the last cell of a row must have, or it stands below the row

Painter = Callable[[str], str | None]


def print_json(value: Mapping[str, object], form: str) -> None:
    """Print one object with its version: `short` on one line, `pretty` indented."""
    print(json.dumps({"version": 1, **value}, indent=2 if form == "pretty" else None))


def size_text(size: int) -> str:
    """Write a size as lspci does: 16K, 8G; bytes where it is no whole number of units."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(SIZE_UNITS) - 1:
        size //= 1024
        unit += 1
    return f"{size}{SIZE_UNITS[unit]}"


def count_text(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def table(
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    right: Collection[int] = (),
    paint: Mapping[int, Painter] | None = None,
) -> list[str]:
    """Align rows of as many cells; the last cell is folded to the width.

    `right` names columns aligned to the right; `paint` tells for a column which colour a cell's text has.
    """
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    start = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(widths[at]) if at in right else cell.ljust(widths[at]) for at, cell in enumerate(row)
        ]
        whole = GAP.join(cells).rstrip()
        if width is not None and len(whole) > width and width - start < LEAST:
            more = folded(" " * BELOW + row[-1], width, BELOW)
            whole = GAP.join(cells[:-1]).rstrip()
        else:
            whole, *more = folded(whole, width, start)
        lines += [_coloured(whole, widths, row, paint or {}), *more]
    return lines


def _coloured(line: str, widths: list[int], row: Sequence[str], paint: Mapping[int, Painter]) -> str:
    """Colour the cells of a laid out line, from its end, so that places before stay true."""
    for at in sorted(paint, reverse=True):
        colour, start = paint[at](row[at]), sum(widths[:at]) + len(GAP) * at
        end = start + widths[at]
        if colour is not None and row[at]:
            line = line[:start] + painted(line[start:end], colour) + line[end:]
    return line
