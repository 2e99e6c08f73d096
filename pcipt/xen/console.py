"""Parse the list of PCI devices and their owners that Xen's debug key Q writes into its console ring.

Pure.

    (XEN) ==== PCI devices ====
    (XEN) ==== segment 0000 ====
    (XEN) 0000:02:00.0 - d0 - node -1  - MSIs < 28 29 >

Xen prints a line by several printk calls, so a line of another processor may be in the middle of it. That
other line begins with its own prefix: "(XEN) ", or "(d1) " if a guest printed it. Behind it, the next line
without a prefix continues the interrupted line. A guest chooses the text of its lines, so this text is never
used as data. Text of dom0 has no prefix, if Xen copies it into the ring (console_to_ring), and may contain
any: so a prefix counts as Xen's only at the beginning of a line.
Source: Xen xen/drivers/passthrough/pci.c, dump_pci_devices; drivers/char/console.c, vprintk_common,
        guest_console_write.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.xen.interface import Owner, OwnerKind

HEADER = "==== PCI devices ===="
KEPT_BROKEN = 16

# With console_timestamps= date, datems, boot or raw, [...] follows Xen's prefix.
_PREFIX = re.compile(r"\(XEN\) (?:\[[0-9a-fA-F:. \-]{1,40}\] )?|\(d\d{1,5}\) ")
_XEN, _GUEST, _NOBODY = "Xen", "guest", "nobody"
CUT = "\0"  # stands where a part of a line is missing
_SEGMENT = re.compile(r"==== segment ([0-9a-f]{4}) ====")
_STARTS = re.compile(r"\0?[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] - ")
_DEVICE = re.compile(
    r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7]) - "
    r"(?:d(?P<domain>\d{1,5})|d\[(?P<special>[A-Z]{1,8})\]|(?P<quarantine>DomIO):[0-9a-f]{1,8}|(?P<nobody>NULL))"
    r" - node -?\d+ *(?: - MSIs < (?:-?\d+ )*>)?"
)
_TAIL = re.compile(r"(?:^| |\d|\]|[0-9a-f]|NULL) ?- node -?\d+ *(?: - MSIs < (?:-?\d+ )*>)?$")


@attrs.frozen
class Dump:
    """The parsed list of devices and owners.

    `broken` holds what shows that the list is not as Xen printed it, at most the first 16 lines. `begun` is
    False if the header of the list was not found. Then Xen printed no list, or the beginning of the list was
    overwritten.
    """

    owners: Mapping[Sbdf, Owner]
    broken: tuple[str, ...]
    begun: bool


def parse_devices(text: str) -> Dump:
    """Parse the list of devices in a text of Xen's console. Lines before the first header are ignored.

    `text` is what was printed since the key was pressed. Only a line that Xen printed without interruption is
    used; the header may stand behind a line that has no end. Text of dom0 may look like Xen's, where Xen
    copies it into the ring, and it may stand inside a line of Xen. What shows this is in `broken`: a line
    that begins as a device's and does not end as one, a line that only ends as one, a device that is printed
    twice or outside its segment's part of the list, a segment that is printed twice, and a second header
    (somebody else may have pressed the key). Whoever reads the list holds it against Xen's own answers as
    well. Without a header the result has no devices, and `begun` is False. A missing end of the list is not
    noticed: Xen prints all of it before the hypercall for the key returns.
    Shape:  `owners` holds the devices of all segments in the order in which Xen printed them.
    Source: Xen drivers/char/console.c, guest_console_write (option console_to_ring).
    """
    owners: dict[Sbdf, Owner] = {}
    broken: list[str] = []
    begun, segments = False, [-1]
    for by_xen, line in whole_parts(text):
        segment, device = (
            _SEGMENT.fullmatch(line) if by_xen else None,
            _DEVICE.fullmatch(line) if by_xen else None,
        )
        if by_xen and line.lstrip(CUT) == HEADER and not begun:
            begun = True
        elif begun and segment and int(segment[1], 16) not in segments:
            segments.append(int(segment[1], 16))
        elif begun and device and _sbdf(device) not in owners and _sbdf(device).segment == segments[-1]:
            owners[_sbdf(device)] = _owner(device)
        elif begun and _is_torn(line, by_xen=by_xen):
            broken.append(line)
    return Dump(owners, tuple(broken[:KEPT_BROKEN]), begun)


def _is_torn(line: str, *, by_xen: bool) -> bool:
    """Return True if a line that was not used belongs to a list, or looks as if it did."""
    if _TAIL.search(line):
        return True
    inside = line.lstrip(CUT)
    return by_xen and bool(inside == HEADER or _SEGMENT.match(inside) or _STARTS.match(inside))


def whole_parts(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the parts of a text of Xen's console into which its prefixes divide it; no lines of guests.

    Shape:  (True if the part has Xen's prefix, its text without prefix and without blanks at its end). A part
            that another one interrupts ends with CUT, and one that does not begin its line begins with CUT,
            so that it is equal to no whole line.
    """
    for line in text.split("\n"):
        before = ""
        for printer, part, ends in _pieces(line.rstrip("\r")):
            if printer != _GUEST:
                yield printer == _XEN, before + (part.rstrip() if ends else f"{part}{CUT}")
            before = CUT


def _sbdf(match: re.Match[str]) -> Sbdf:
    """Return the address in a match of _DEVICE."""
    return Sbdf(*(int(match[n], 16) for n in (1, 2, 3, 4)))


def _owner(match: re.Match[str]) -> Owner:
    """Return the owner that a line names. `match` is a match of _DEVICE.

    Quarantine is printed as d[IO] or DomIO. All other special domains, such as d[XEN], give the owner XEN.
    """
    if match["domain"] is not None:
        return Owner(OwnerKind.DOMAIN, int(match["domain"]))
    if match["nobody"] is not None:
        return Owner(OwnerKind.NOBODY)
    if match["quarantine"] is not None or match["special"] == "IO":
        return Owner(OwnerKind.QUARANTINE)
    return Owner(OwnerKind.XEN)


def whole_lines(lines: Iterable[str], starts: re.Pattern[str]) -> Iterator[str]:
    """Yield the lines of Xen's console in order, without Xen's prefix; interrupted lines are joined.

    `starts` matches the beginning of every line that the caller needs. Only such lines are joined completely.
    If the rest of such a line never follows, the beginning is yielded alone. Other lines of Xen may be
    yielded in part or not at all. Lines of guests are left out.
    """
    head = ""
    for line in lines:
        for printer, text, ends in _pieces(line.rstrip("\r")):
            if _is_foreign(printer, text, head, starts):
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


def _is_foreign(printer: str, text: str, head: str, starts: re.Pattern[str]) -> bool:
    """Return True if `whole_lines` must skip this part. `head` is the interrupted line, if there is one.

    A guest's part is skipped. A part without a prefix is skipped if `head` is empty. A part of Xen is skipped
    if `head` is not empty and the part does not match `starts`.
    """
    if printer == _NOBODY:
        return not head
    return printer == _GUEST or bool(head and not starts.match(text))


def _pieces(line: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the parts into which the prefixes of Xen and guests divide a line. An empty line yields nothing.

    Shape:  (_XEN, _GUEST or _NOBODY: who printed the part, its text, True if the line ends with it). _NOBODY
            is a part without a prefix. The text does not contain Xen's prefix. A guest's part runs to the end
            of the line, whatever it contains, and keeps its prefix.
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
