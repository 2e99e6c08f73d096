"""What a guest may reach against what its functions decode: leftovers after a detach, BARs that moved away.

libxl grants a function's BARs by what sysfs says when it is attached, and takes back what sysfs says when it
is detached: a BAR that moved meanwhile, or a 64-bit one cut to 32 bits (XSA-476), leaves its old range with
the guest. Grants are whole pages and single ports.
Source: tools/libs/light/libxl_pci.c, pci_add_dm_done, do_pci_remove; XSA-476.
"""

from collections.abc import Iterable, Sequence

from pcipt.pci.bars import Bar, BarKind
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function
from pcipt.pci.units import Address, Frames, Gfn, Range, frames_from_range


def compare_permissions(
    memory: Iterable[Frames],
    ports: Iterable[Range],
    owned: Sequence[Function],
    rightful: Iterable[Frames] = (),
) -> tuple[Finding, ...]:
    """Compare one guest's grants with the BARs of the functions it owns.

    `rightful` is what else it may hold by right of its functions (RMRR, iomem= of its configuration). A BAR
    of unknown size claims the page it begins in, and then nothing is called a leftover. A ROM is granted
    whether it is on or not, and missed only while it is on.
    """
    wanted_pages: list[tuple[int, int]] = []
    wanted_ports: list[tuple[int, int]] = []
    granted_pages = _joined((span.start, span.end) for span in memory)
    granted_ports = _joined((span.start, span.start + span.size) for span in ports)
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
            missing = _minus([ends], granted)
            if missing and (bar.kind is not BarKind.ROM or bar.decoding):
                findings.append(_moved(function, bar, span, whole=missing == [ends]))
    wanted_pages += [(frames.start, frames.end) for frames in rightful]
    if not unsure:
        findings += [
            _left(str(Frames(Gfn(a), b - a))) for a, b in _minus(granted_pages, _joined(wanted_pages))
        ]
        findings += [
            _left(f"ports {Range(Address(a), b - a)}")
            for a, b in _minus(granted_ports, _joined(wanted_ports))
        ]
    return tuple(findings)


def _moved(function: Function, bar: Bar, span: Range, *, whole: bool) -> Finding:
    name = "ROM" if bar.kind is BarKind.ROM else f"BAR {bar.index}"
    how = "may not reach" if whole else "may reach only part of"
    text = (
        f"the guest {how} {name} of {function.sbdf} at {span}: it moved after it was attached; detach the "
        "function from the guest and attach it again"
    )
    return Finding("guest-bar-moved", text)


def _left(what: str) -> Finding:
    text = (
        f"the guest may reach {what}, where none of its functions decodes: left over from one that was "
        "detached or moved (XSA-476); unless its configuration grants it, destroy the guest to take it back"
    )
    return Finding("guest-leftover", text)


def _ends(start: int, size: int) -> tuple[int, int]:
    return start, start + size


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _minus(spans: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut `taken` out of `spans`; both are in order and apart."""
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
