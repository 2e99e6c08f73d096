"""The dump that Xen's debug key Q writes into its console ring: devices and their owners. Pure.

    (XEN) ==== PCI devices ====
    (XEN) ==== segment 0000 ====
    (XEN) 0000:02:00.0 - d0 - node -1  - MSIs < 28 29 >

A line is put together by several printk calls, so another processor's line may stand in its middle; it
begins with its own "(XEN) " or, for a guest's, "(d1) ", and runs to the end of the line. What follows without
a prefix continues the broken line. Guests choose the text of theirs: it is never data.
Source: Xen xen/drivers/passthrough/pci.c, _dump_pci_devices; drivers/char/console.c, vprintk_common.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

from pcipt.pci import Sbdf
from pcipt.xen.interface import Owner, OwnerKind

HEADER = "==== PCI devices ===="
KEPT_BROKEN = 16

# console_timestamps= date, datems, boot and raw put [...] behind Xen's prefix.
_PREFIX = re.compile(r"\(XEN\) (?:\[[0-9a-fA-F:. \-]{1,40}\] )?|\(d\d{1,5}\) ")
_XEN, _GUEST, _NOBODY = "Xen", "guest", "nobody"
_STARTS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] - ")
_DEVICE = re.compile(
    r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7]) - "
    r"(?:d(?P<domain>\d{1,5})|d\[(?P<special>[A-Z]{1,8})\]|(?P<quarantine>DomIO):[0-9a-f]{1,8}|(?P<nobody>NULL))"
    r" - node -?\d+ *(?: - MSIs < (?:-?\d+ )*>)?"
)


@attrs.frozen
class Dump:
    """What was understood; `broken` holds lines that name a device but cannot be read (the first few).

    `begun` is False where the header is missing: nothing was printed, or its beginning is lost.
    """

    owners: Mapping[Sbdf, Owner]
    broken: tuple[str, ...]
    begun: bool


def parse_devices(text: str) -> Dump:
    """Read the dump in a piece of Xen's console, from the first header on.

    Shape:  devices of all segments in Xen's order; unknown lines are passed over. A second header may stand
            anywhere behind the first (somebody else pressed the key) and changes nothing.
    """
    owners: dict[Sbdf, Owner] = {}
    broken: list[str] = []
    begun = False
    for line in whole_lines(text.split("\n"), _STARTS):
        begun = begun or line.rstrip() == HEADER
        if not begun:
            continue
        if match := _DEVICE.fullmatch(line.rstrip()):
            sbdf = Sbdf(*(int(match[n], 16) for n in (1, 2, 3, 4)))
            owners[sbdf] = _owner(match)
        elif _STARTS.match(line) and len(broken) < KEPT_BROKEN:
            broken.append(line)
    return Dump(owners, tuple(broken), begun)


def _owner(match: re.Match[str]) -> Owner:
    if match["domain"] is not None:
        return Owner(OwnerKind.DOMAIN, int(match["domain"]))
    if match["nobody"] is not None:
        return Owner(OwnerKind.NOBODY)
    if match["quarantine"] is not None or match["special"] == "IO":
        return Owner(OwnerKind.QUARANTINE)
    return Owner(OwnerKind.XEN)


def whole_lines(lines: Iterable[str], starts: re.Pattern[str]) -> Iterator[str]:
    """Put lines together out of their pieces; a head whose rest never comes is given as it is.

    Shape:  `starts` matches what may be the head of a line that matters; others are not waited for.
    """
    head = ""
    for line in lines:
        for printer, text, ends in _pieces(line.rstrip("\r")):
            if _foreign(printer, text, head, starts):
                continue
            if printer == _XEN and head:
                yield head
                head = ""
            head += text
            if ends:
                yield head
            if ends or not starts.match(head):
                head = ""
    if head:
        yield head


def _foreign(printer: str, text: str, head: str, starts: re.Pattern[str]) -> bool:
    """Whether a piece has nothing to do with the line begun by `head`: another processor's, or a guest's."""
    if printer == _NOBODY:
        return not head
    return printer == _GUEST or bool(head and not starts.match(text))


def _pieces(line: str) -> Iterator[tuple[str, str, bool]]:
    """Cut a line where a prefix stands.

    Shape:  who printed the piece, its text without the prefix, whether the line ends with it. A guest's is
            always printed whole, so it runs to the end of the line whatever stands in it.
    """
    while line:
        prefix = _PREFIX.match(line)
        if prefix and prefix[0].startswith("(d"):
            yield _GUEST, line, True
            return
        rest = line[prefix.end() :] if prefix else line
        following = _PREFIX.search(rest)
        end = following.start() if following else len(rest)
        line = rest[end:]
        yield (_XEN if prefix else _NOBODY), rest[:end], not line
