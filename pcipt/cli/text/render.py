"""Formatting of numbers, tables and JSON.

Imports only modules that every request to the daemon needs anyway.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from pcipt.cli.text.terminal import folded, painted, tell

GAP = "  "
BELOW = 4
NO_FUNCTIONS = "this machine has no PCI functions"
LEAST = 30  # columns; if the last cell has less room, it is put below its row

Painter = Callable[[str], str | None]


def print_json(value: Mapping[str, object], form: str) -> None:
    """Print `value` on stdout as a JSON object that begins with "version": 1.

    The form "pretty" indents the object; any other form prints it as one line.
    """
    import json

    print(json.dumps({"version": 1, **value}, indent=2 if form == "pretty" else None))


def say_nothing(text: str) -> None:
    """Say on stderr that there is nothing to show, also in a pipe: an empty output alone does not say it.

    Every command does so in its text, and stdout is empty then; --json has an empty list. `text` is a
    sentence without its period.
    """
    tell(f"note: {text}")


def count_text(number: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun: "1 function", "2 functions", "0 functions".

    The plural is `many`; if that is None, it is `one` with "s".
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def table(
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    right: Collection[int] = (),
    paint: Mapping[int, Painter] | None = None,
) -> list[str]:
    """Return rows as lines with aligned columns, in their order; an empty list for no rows.

    All rows must have the same number of cells. A row that is longer than `width` columns is folded: its last
    cell gets several lines, each below the beginning of this cell. If less than LEAST columns are left for
    the last cell, the whole cell is put below its row instead. A `width` of None folds nothing.

    `right` holds the numbers of the columns, from 0, that are aligned to the right. `paint` maps the number
    of a column to a function that gets a cell's text and returns its colour, or None for no colour.
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
            whole, *more = folded(GAP.join(cells[:-1]).rstrip(), width, BELOW)
            more += folded(" " * BELOW + row[-1], width, BELOW)
        else:
            whole, *more = folded(whole, width, start)
        lines += [_coloured(whole, widths, row, paint or {}), *more]
    return lines


def _coloured(line: str, widths: list[int], row: Sequence[str], paint: Mapping[int, Painter]) -> str:
    """Return the first line of a row with its cells coloured as `paint` says; empty cells are not coloured.

    The last cell is coloured first, so that the positions of the others stay valid.
    """
    for at in sorted(paint, reverse=True):
        colour, start = paint[at](row[at]), sum(widths[:at]) + len(GAP) * at
        end = start + widths[at]
        if colour is not None and row[at]:
            line = line[:start] + painted(line[start:end], colour) + line[end:]
    return line
