"""What a check says: one row per rule, also where nothing is wrong, so that a reader sees what was looked at.

A row names the table, the byte offset within it where there is one, and the reason in words. ERROR breaks the
contract, WARN bends it or hides something; both are findings.
"""

import enum
from collections.abc import Iterable

import attrs

from pcipt.pci import Finding


class Verdict(enum.Enum):
    OK = "ok"
    WARN = "warn"
    ERROR = "error"


@attrs.frozen
class Row:
    """One rule judged; `rule` is a stable word for programs, `offset` counts bytes from the table's start."""

    rule: str
    verdict: Verdict
    table: str
    offset: int | None
    reason: str


def good(rule: str, table: str, offset: int | None, reason: str) -> Row:
    return Row(rule, Verdict.OK, table, offset, reason)


def doubtful(rule: str, table: str, offset: int | None, reason: str) -> Row:
    return Row(rule, Verdict.WARN, table, offset, reason)


def wrong(rule: str, table: str, offset: int | None, reason: str) -> Row:
    return Row(rule, Verdict.ERROR, table, offset, reason)


def judged(
    holds: bool, rule: str, table: str, offset: int | None, fine: str, otherwise: str, *, warn: bool = False
) -> Row:
    """Make the row of a rule that either holds (`fine`) or does not (`otherwise`: ERROR, or WARN)."""
    if holds:
        return good(rule, table, offset, fine)
    return (doubtful if warn else wrong)(rule, table, offset, otherwise)


def row_from_finding(finding: Finding, table: str) -> Row:
    """Turn a finding of the table readers, whose text begins with its offset, into an ERROR row."""
    place, _, rest = finding.text.partition(": ")
    if place.startswith("at 0x"):
        return wrong(finding.code, table, int(place[3:], 16), rest)
    return wrong(finding.code, table, None, finding.text)


def worst(rows: Iterable[Row]) -> Verdict:
    """Give the gravest verdict of all; OK where there is no row."""
    found = {row.verdict for row in rows}
    return next((verdict for verdict in (Verdict.ERROR, Verdict.WARN) if verdict in found), Verdict.OK)
