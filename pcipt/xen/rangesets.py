"""Parse the rangesets that Xen's debug key q writes into its console ring: what each domain may access.

Pure.

    (XEN) Rangesets belonging to domain 0:
    (XEN)     Interrupts { 1-15, 24 }
    (XEN)     I/O Memory { 0-fedff, fef00-fcfffff }
    (XEN)     I/O Ports  { 0-1f, 22-3f, 44-60 }

Each number is a printk call of its own. Ends are inclusive; memory is in frames. A line that was interrupted
is not used, as in the list of key Q (see `console`). Other rangesets and the rest of the dump are ignored.
Source: Xen xen/common/rangeset.c, rangeset_domain_printk; xen/common/keyhandler.c, dump_domains.
"""

import itertools
import re
from collections.abc import Mapping

import attrs

from pcipt.pci import Address, Frames, Gfn, Range
from pcipt.xen.console import KEPT_BROKEN, whole_parts
from pcipt.xen.interface import Permissions

_DOMAIN = re.compile(r"Rangesets belonging to domain (\d{1,5}):")
_STARTS = re.compile(r" {4}I/O (?:Memory|Ports)|Rangesets belonging ")
_OTHER = re.compile(r" {4}(?!I/O )[A-Za-z][A-Za-z -]{1,30} \{[ 0-9a-f,-]* \}$")
_SET = re.compile(r" {4}(I/O Memory|I/O Ports ) \{((?: [0-9a-f]{1,16}(?:-[0-9a-f]{1,16})?,?)*) \}")
_ITEM = re.compile(r"([0-9a-f]+)(?:-([0-9a-f]+))?")
_MEMORY, _PORTS = "I/O Memory", "I/O Ports "


@attrs.frozen
class RangesetDump:
    """The parsed rangesets by domain number.

    `broken` holds the lines that cannot be parsed, then texts that name the domains for which memory or ports
    are missing; at most 16 in all. These domains are in `domains` too, with an empty rangeset for what is
    missing.
    """

    domains: Mapping[int, Permissions]
    broken: tuple[str, ...]


def parse_permissions(text: str) -> RangesetDump:
    """Parse what each domain may access from a text of Xen's console.

    Only lines that Xen printed without interruption are used, see `console.parse_devices`. A domain that is
    printed twice is in `broken`, and a line that ends as a rangeset and is none.
    Shape:  `domains` in Xen's order; empty if the text has no rangesets.
    """
    sets: dict[int, dict[str, tuple[tuple[int, int], ...]]] = {}
    broken: list[str] = []
    domain = -1
    for by_xen, line in whole_parts(text):
        if by_xen and (match := _DOMAIN.fullmatch(line)) and int(match[1]) not in sets:
            domain = int(match[1])
            sets[domain] = {}
        elif by_xen and (match := _SET.fullmatch(line)) and _fits(match, sets.get(domain)):
            sets[domain][match[1]] = _pairs(match[2])
        elif _is_torn(line, by_xen=by_xen):
            broken.append(line)
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
