"""Parse the rangesets that Xen's debug key q writes into its console ring: what each domain may access.

Pure.

    (XEN) 'q' pressed -> dumping domain info (now = 12345678)
    (XEN) General information for domain 0:
    (XEN) Rangesets belonging to domain 0:
    (XEN)     Interrupts { 1-15, 24 }
    (XEN)     I/O Memory { 0-fedff, fef00-fcfffff }
    (XEN)     I/O Ports  { 0-1f, 22-3f, 44-60 }
    (XEN) Notifying guest 0:0 (virq 1, port 0)

Each number is a printk call of its own. Ends are inclusive; memory is in frames. A line that was interrupted
is not used, as in the list of key Q (see `console`). Other rangesets and the rest of the dump are ignored.
The first line begins the dump; behind all domains there is a line of "Notifying" for each processor of each.
Source: Xen xen/common/rangeset.c, rangeset_domain_printk; xen/common/keyhandler.c, dump_domains (4.17.0 to
        4.22.0).
"""

import itertools
import re
from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.pci import Address, Frames, Gfn, Range
from pcipt.xen.console import CUT, KEPT_BROKEN, whole_parts
from pcipt.xen.interface import Permissions

_BEGIN = re.compile(r"'q' pressed -> dumping domain info \(now = -?\d{1,20}\)")
_GENERAL = re.compile(r"General information for domain (\d{1,5}):")
_END = re.compile(r"Notifying guest (\d{1,5}):\d{1,5} \(virq -?\d{1,5}, port -?\d{1,10}\)")
_DOMAIN = re.compile(r"Rangesets belonging to domain (\d{1,5}):")
_STARTS = re.compile(
    r"\0?(?: {4}I/O (?:Memory|Ports)|Rangesets belonging |General information for |'q' pressed)"
)
_OTHER = re.compile(r" {4}(?!I/O )[A-Za-z][A-Za-z -]{1,30} \{[ 0-9a-f,-]* \}$")
_SET = re.compile(r" {4}(I/O Memory|I/O Ports ) \{((?: [0-9a-f]{1,16}(?:-[0-9a-f]{1,16})?,?)*) \}")
_ITEM = re.compile(r"([0-9a-f]+)(?:-([0-9a-f]+))?")
_DOM0 = 0
_MEMORY, _PORTS = "I/O Memory", "I/O Ports "


@attrs.frozen
class RangesetDump:
    """The parsed rangesets by domain number.

    `broken` holds the lines that cannot be parsed or are not where Xen prints them, then what is missing: the
    end of the dump, memory or ports of a domain; at most 16 in all. These domains are in `domains` too, with
    an empty rangeset for what is missing.
    """

    domains: Mapping[int, Permissions]
    broken: tuple[str, ...]


def parse_permissions(text: str) -> RangesetDump:
    """Parse what each domain may access from a text of Xen's console.

    Only lines that Xen printed without interruption are used, see `console.parse_devices`. In `broken` are:
    what stands before the beginning of the dump and looks like a part of it, a domain that is printed twice
    or without its general information, a line that ends as a rangeset and is none, and a dump that is not
    whole. A text that has nothing of a dump gives an empty result.
    Shape:  `domains` in Xen's order.
    """
    sets: dict[int, dict[str, tuple[tuple[int, int], ...]]] = {}
    broken: list[str] = []
    begun, told, domain, ended = False, -1, -1, set[int]()
    for by_xen, line in whole_parts(text):
        if by_xen and _BEGIN.fullmatch(line.lstrip(CUT)) and not begun:
            begun = True
        elif not begun:
            broken += [line] if _is_torn(line, by_xen=by_xen) else []
        elif by_xen and (match := _GENERAL.fullmatch(line)) and int(match[1]) not in sets and not ended:
            told = int(match[1])
        elif by_xen and (match := _DOMAIN.fullmatch(line)) and int(match[1]) == told and told not in sets:
            domain = told
            sets[domain] = {}
        elif by_xen and (match := _SET.fullmatch(line)) and not ended and _fits(match, sets.get(domain)):
            sets[domain][match[1]] = _pairs(match[2])
        elif by_xen and (match := _END.fullmatch(line)):
            ended.add(int(match[1]))
        elif _is_torn(line, by_xen=by_xen):
            broken.append(line)
    if begun or broken:
        broken += [] if _DOM0 in ended and ended <= sets.keys() else ["no end of the dump"]
    broken += [
        f"domain {number}: no {name.rstrip()}"
        for number, found in sets.items()
        for name in (_MEMORY, _PORTS)
        if name not in found
    ]
    domains = {number: _permissions(found) for number, found in sets.items()}
    return RangesetDump(domains, tuple(broken[:KEPT_BROKEN]))


def _permissions(found: Mapping[str, tuple[tuple[int, int], ...]]) -> Permissions:
    """Return the permissions of one domain.

    `found` maps the name of a rangeset to its ranges (first, last). A rangeset that is missing in `found`
    becomes empty.
    """
    return Permissions(
        tuple(Frames(Gfn(first), last - first + 1) for first, last in found.get(_MEMORY, ())),
        tuple(Range(Address(first), last - first + 1) for first, last in found.get(_PORTS, ())),
    )


def _is_torn(line: str, *, by_xen: bool) -> bool:
    """Return True if a line begins or ends as a set that is needed; it was not taken as a whole one."""
    if by_xen and _STARTS.match(line):
        return True
    return line.endswith(" }") and not (by_xen and _OTHER.match(line))


def _fits(match: re.Match[str], found: Mapping[str, object] | None) -> bool:
    """Return True if a set may be one of the domain that has `found` so far; None: of no domain."""
    return found is not None and match[1] not in found and _in_order(match[2])


def _pairs(items: str) -> tuple[tuple[int, int], ...]:
    """Return the inclusive ranges (first, last) of a printed rangeset."""
    return tuple((int(match[1], 16), int(match[2] or match[1], 16)) for match in _ITEM.finditer(items))


def _in_order(items: str) -> bool:
    """Return True if the ranges ascend and no two overlap, as Xen prints them. An empty text gives True.

    False means that the line was interrupted.
    """
    ends = [end for pair in _pairs(items) for end in pair]
    return all(
        one < other if at % 2 else one <= other for at, (one, other) in enumerate(itertools.pairwise(ends))
    )
