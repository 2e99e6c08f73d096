"""Output of the rows of a check: as a table, as JSON, and as an exit code."""

from collections import Counter
from collections.abc import Sequence

from pcipt.cli.text.render import table
from pcipt.cli.text.terminal import GREEN, RED, YELLOW, columns
from pcipt.errors import printable
from pcipt.firmware.pvh.check_rows import Row, Verdict, worst

DEGRADED = 4
_SHADES = {
    f"{verdict.value:5}": shade
    for verdict, shade in ((Verdict.OK, GREEN), (Verdict.WARN, YELLOW), (Verdict.ERROR, RED))
}


def print_rows(rows: Sequence[Row], *, colour: bool) -> None:
    """Print the rows in their order as a table, then a line with the number of rows of each verdict.

    The columns are verdict, table and offset, rule, reason.
    """
    cells = [(f"{row.verdict.value:5}", _place(row), row.rule, printable(row.reason)) for row in rows]
    for line in table(cells, width=columns(), paint={0: _SHADES.get} if colour else None):
        print(line)
    counts = Counter(row.verdict for row in rows)
    print(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict))


def _place(row: Row) -> str:
    """Return the table of a row, with "+0x…" if the row has an offset in the table."""
    return printable(row.table if row.offset is None else f"{row.table}+{row.offset:#x}")


def json_from_rows(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows as JSON objects, in their order. "offset" is None if a row is not about one place."""
    return [
        {
            "rule": row.rule,
            "verdict": row.verdict.value,
            "table": row.table,
            "offset": None if row.offset is None else f"{row.offset:#x}",
            "reason": row.reason,
        }
        for row in rows
    ]


def exit_code(rows: Sequence[Row]) -> int:
    """Return 0 if all rows are OK or there are no rows, else 4."""
    return 0 if worst(rows) is Verdict.OK else DEGRADED
