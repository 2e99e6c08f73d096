"""Compare the memory and ports that a guest may access with the BARs of the functions that it owns.

libxl grants the ranges that sysfs shows when a function is attached, and revokes the ranges that sysfs shows
when it is detached. If a BAR moved in between, or if libxl cut a 64-bit BAR to 32 bits (XSA-476), the guest
keeps access to the old range. Grants are whole pages and single ports.
Source: tools/libs/light/libxl_pci.c, pci_add_dm_done, do_pci_remove; XSA-476.
"""

from collections.abc import Iterable, Sequence

from pcipt.pci.bars import Bar, BarKind, name_of_bar
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function
from pcipt.pci.units import Address, Frames, Gfn, Range, frames_from_range


def compare_permissions(
    memory: Iterable[Frames],
    ports: Iterable[Range],
    owned: Sequence[Function],
    rightful: Iterable[Frames] = (),
) -> tuple[Finding, ...]:
    """Return findings about BARs that the guest cannot access, and about ranges that it should not access.

    `memory` and `ports` are the ranges that Xen lets the guest access, `owned` the functions assigned to it.
    `rightful` are further frames that it may access (RMRR, iomem= of its configuration). A BAR is compared
    whether or not it decodes now. A BAR with address 0 is skipped.

    If a BAR that is not skipped has an unknown size, only the page (or port) at its start is checked, and
    there is no `guest-leftover` finding for any range. A ROM may be granted whether or not it is enabled. A
    ROM is reported as not accessible only if it decodes.

    Shape:  `guest-bar-moved` for each BAR that is not wholly accessible, in the order of `owned`; then
            `guest-leftover` for each wrongly accessible range: pages, then ports, each by start.
    """
    wanted_pages: list[tuple[int, int]] = []
    wanted_ports: list[tuple[int, int]] = []
    granted_pages = _merged((span.start, span.end) for span in memory)
    granted_ports = _merged((span.start, span.start + span.size) for span in ports)
    findings: list[Finding] = []
    unsure = False
    for function in owned:
        for bar in function.bars:
            if not bar.address:
                continue
            unsure |= bar.size is None
            span = bar.range or Range(bar.address, 1)
            if bar.kind is BarKind.IO:
                granted, wanted, ends = granted_ports, wanted_ports, _ends(span.start, span.size)
            else:
                frames = frames_from_range(span)
                granted, wanted, ends = granted_pages, wanted_pages, _ends(frames.start, frames.count)
            wanted.append(ends)
            missing = _subtract([ends], granted)
            if missing and (bar.kind is not BarKind.ROM or bar.decoding):
                findings.append(_not_accessible(function, bar, span, whole=missing == [ends]))
    wanted_pages += [(frames.start, frames.end) for frames in rightful]
    if not unsure:
        findings += [
            _leftover(str(Frames(Gfn(a), b - a))) for a, b in _subtract(granted_pages, _merged(wanted_pages))
        ]
        findings += [
            _leftover(f"ports {Range(Address(a), b - a)}")
            for a, b in _subtract(granted_ports, _merged(wanted_ports))
        ]
    return tuple(findings)


def _not_accessible(function: Function, bar: Bar, span: Range, *, whole: bool) -> Finding:
    """Return the finding that the guest cannot access a BAR at all (`whole` True), or that it can access only
    a part of the BAR (`whole` False).
    """
    how = "may not reach" if whole else "may reach only part of"
    text = (
        f"the guest {how} {name_of_bar(bar.index)} of {function.sbdf} at {span}: the BAR moved after the "
        "function was attached; detach the function from the guest and attach it again"
    )
    return Finding("guest-bar-moved", text)


def _leftover(what: str) -> Finding:
    """Return the finding that the guest can access `what` although no BAR of its functions is there."""
    text = (
        f"the guest may reach {what}, but none of its functions decodes there. This permission is left over "
        "from a function that was detached or moved (XSA-476); unless the guest's configuration grants it, "
        "destroy the guest to end it"
    )
    return Finding("guest-leftover", text)


def _ends(start: int, size: int) -> tuple[int, int]:
    """Return (start, exclusive end) of the range."""
    return start, start + size


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans (start, exclusive end) sorted by start, with overlapping and adjacent spans merged."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _subtract(spans: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of `spans` that no span of `taken` covers, sorted by start.

    Both arguments are lists of (start, exclusive end), sorted and without overlap.
    """
    found = []
    for start, end in spans:
        at = start
        for first, last in taken:
            if last <= at or first >= end:
                continue
            if first > at:
                found.append((at, first))
            at = max(at, last)
        if at < end:
            found.append((at, end))
    return found
