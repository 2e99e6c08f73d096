"""The result of a check: rows, each the result of one rule, whether or not the rule holds.

So a reader sees everything that was checked. A row names the table, the byte offset in it if there is one,
and the reason in words. Rows with WARN and rows with ERROR are counted as findings.
"""

import enum
from collections.abc import Iterable

from pcipt import values as attrs
from pcipt.pci import Finding


class Verdict(enum.Enum):
    """The result of one rule.

    OK: the rule holds, or was not checked. ERROR: the table breaks the boot ABI. WARN: the table is unusual
    or hides something.
    """

    OK = "ok"
    WARN = "warn"
    ERROR = "error"


@attrs.frozen
class Row:
    """The result of one rule for one table.

    `rule` is a stable word for programs. `offset` is a number of bytes from the start of the table; None if
    the row is not about one place.
    """

    rule: str
    verdict: Verdict
    table: str
    offset: int | None
    reason: str


def good(rule: str, table: str, offset: int | None, reason: str) -> Row:
    """Return a row with the verdict OK."""
    return Row(rule, Verdict.OK, table, offset, reason)


def doubtful(rule: str, table: str, offset: int | None, reason: str) -> Row:
    """Return a row with the verdict WARN."""
    return Row(rule, Verdict.WARN, table, offset, reason)


def wrong(rule: str, table: str, offset: int | None, reason: str) -> Row:
    """Return a row with the verdict ERROR."""
    return Row(rule, Verdict.ERROR, table, offset, reason)


def judged(
    holds: bool, rule: str, table: str, offset: int | None, fine: str, otherwise: str, *, warn: bool = False
) -> Row:
    """Return an OK row with the reason `fine` if `holds`, else an ERROR row with the reason `otherwise`.

    If `warn` is True, it is a WARN row in place of the ERROR row.
    """
    if holds:
        return good(rule, table, offset, fine)
    return (doubtful if warn else wrong)(rule, table, offset, otherwise)


def row_from_finding(finding: Finding, table: str) -> Row:
    """Return an ERROR row made from a finding of the table parsers. Its rule is the finding's code.

    If the finding's text begins with "at 0x…: ", the number becomes the row's offset, and the rest of the
    text the reason. Else the offset is None, and the whole text is the reason.
    """
    place, _, rest = finding.text.partition(": ")
    if place.startswith("at 0x"):
        return wrong(finding.code, table, int(place[3:], 16), rest)
    return wrong(finding.code, table, None, finding.text)


def worst(rows: Iterable[Row]) -> Verdict:
    """Return the gravest verdict of the rows: ERROR before WARN before OK; OK if there are no rows."""
    found = {row.verdict for row in rows}
    return next((verdict for verdict in (Verdict.ERROR, Verdict.WARN) if verdict in found), Verdict.OK)
