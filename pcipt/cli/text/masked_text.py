"""The table of what was masked in a recording or a report."""

from collections.abc import Sequence

from pcipt.cli.text.render import count_text, table
from pcipt.host.report.masks import Masked


def lines_from_masked(rows: Sequence[Masked], width: int | None = None) -> list[str]:
    """Return the table as lines, one for each kind that was found or kept, folded to `width` columns.

    Without a row, one line says that nothing was masked.
    """
    if not rows:
        return ["masked: nothing; nothing was found that identifies the machine"]
    cells = [
        (
            row.kind.name,
            "kept" if row.kept else f"{count_text(row.values, 'value')}, {count_text(row.times, 'time')}",
            row.kind.about,
            "" if row.kept else f"now {row.kind.example}",
        )
        for row in rows
    ]
    return ["masked:", *(f"  {line}" for line in table(cells, width=None if width is None else width - 2))]
