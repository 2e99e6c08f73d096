"""How the rows of a check are put on paper, and what exit code they mean."""

from collections import Counter
from collections.abc import Sequence

from pcipt.cli.render import painted, wants_colour
from pcipt.errors import printable
from pcipt.firmware.verdict import Row, Verdict, worst

DEGRADED = 4
_COLOURS = {Verdict.OK: "32", Verdict.WARN: "33", Verdict.ERROR: "31"}


def print_rows(rows: Sequence[Row]) -> None:
    """Print a table: verdict, table and offset, rule, reason."""
    colour = wants_colour()
    places = [row.table if row.offset is None else f"{row.table}+{row.offset:#x}" for row in rows]
    place_width = max(map(len, places), default=0)
    rule_width = max((len(row.rule) for row in rows), default=0)
    for row, place in zip(rows, places, strict=True):
        verdict = painted(f"{row.verdict.value:5}", _COLOURS[row.verdict] if colour else None)
        print(
            f"{verdict}  {printable(place):{place_width}}  {row.rule:{rule_width}}  {printable(row.reason)}"
        )
    counts = Counter(row.verdict for row in rows)
    print(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict))


def json_from_rows(rows: Sequence[Row]) -> list[dict[str, object]]:
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
    return 0 if worst(rows) is Verdict.OK else DEGRADED
