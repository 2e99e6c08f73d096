"""Read the memory map of a machine: /proc/iomem, and the map that the firmware gave at boot.

Both are ranges with names that Linux chose; other modules decide what a name means. Without CAP_SYS_ADMIN,
/proc/iomem shows only zeros. This is reported, and never used as a map.

Source: linux kernel/resource.c (r_show), drivers/firmware/memmap.c.
"""

import re

from pcipt import values as attrs
from pcipt.errors import InputError, NotPermittedError
from pcipt.host import files
from pcipt.host.tree import Tree, reason
from pcipt.pci import Finding, Range, range_from_inclusive

IOMEM = "proc/iomem"
_LINE = re.compile(rb"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
_HEX = re.compile(rb"0x([0-9a-f]{1,16})\s*")
_MAX_LINES = 1 << 16


@attrs.frozen
class NamedRange:
    """A range and Linux's name for it. `depth` is the number of ranges that contain it (0 is outermost).

    `depth` is taken from the indent of the line, and is 0 in the firmware's map.
    """

    range: Range
    name: str
    depth: int = 0


@attrs.frozen
class MemoryReading:
    """Both memory maps, and findings about lines and entries that were left out.

    `iomem` is None if it could not be read, or if it was recorded without addresses. `firmware` is empty if
    the kernel does not show it or it could not be read.
    """

    iomem: tuple[NamedRange, ...] | None
    firmware: tuple[NamedRange, ...]
    findings: tuple[Finding, ...]


def parse_iomem(data: bytes) -> tuple[tuple[NamedRange, ...], Finding | None]:
    """Parse the lines of /proc/iomem. Return the ranges in the order of the lines, and a finding or None.

    Malformed lines are left out, and the finding describes the first of them. Lines after the first 65536 are
    ignored. Raises nothing.
    """
    found: list[NamedRange] = []
    problem: str | None = None
    for number, line in enumerate(data.splitlines()[:_MAX_LINES], 1):
        matched = _LINE.fullmatch(line)
        span = range_from_inclusive(int(matched[2], 16), int(matched[3], 16)) if matched is not None else None
        if matched is None or span is None:
            problem = problem or f"line {number} is not 'start-end : name'"
            continue
        found.append(NamedRange(span, matched[4].decode("utf-8", "replace"), len(matched[1]) // 2))
    finding = None if problem is None else Finding("iomem-malformed", f"the file iomem: {problem}")
    return tuple(found), finding


def shows_zeros(lines: tuple[NamedRange, ...]) -> bool:
    """Return True if the kernel hid all addresses: there is at least one line, and every line reads 0-0."""
    return bool(lines) and all(line.range.last == 0 for line in lines)


def read_memory(root: str = "/") -> MemoryReading:
    """Read both memory maps below `root`.

    Raises: NotPermittedError if `root` is `/` and the kernel hides the addresses from this process;
            InputError if `root` cannot be opened; InputError if both maps are missing. /proc/iomem counts as
            missing if it cannot be read, or if it was recorded without addresses.
    """
    findings: list[Finding] = []
    with Tree(root) as tree:
        firmware = _firmware_map(tree, findings)
        lines: tuple[NamedRange, ...] | None = None
        try:
            lines, problem = parse_iomem(tree.read(IOMEM, 1 << 20))
        except OSError as error:
            if not firmware:
                raise InputError(f"{root.rstrip('/')}/{IOMEM}", reason(error)) from error
        else:
            findings += [problem] if problem is not None else []
    if lines is not None and shows_zeros(lines):
        if root == "/":
            raise NotPermittedError("/proc/iomem shows only zeros", "reading addresses needs CAP_SYS_ADMIN")
        if not firmware:
            raise InputError(
                f"{root.rstrip('/')}/{IOMEM}", "shows only zeros: recorded without CAP_SYS_ADMIN"
            )
        lines = None
    return MemoryReading(lines, firmware, tuple(findings))


def _firmware_map(tree: Tree, findings: list[Finding]) -> tuple[NamedRange, ...]:
    """Read the firmware's map from sys/firmware/memmap, in the order of its numbers. Raises nothing.

    The map ends before the first number that lacks a file. If number 0 lacks a file, the result is empty and
    no finding is added. A malformed entry is left out, and a finding is added to `findings`. If an existing
    file cannot be read, the result is empty and a finding is added.
    """
    found: list[NamedRange] = []
    for number in range(files.MEMMAP_ENTRIES):
        home = f"{files.MEMMAP}/{number}"
        try:
            start, last, name = (
                tree.read(f"{home}/{entry.name}", entry.limit) for entry in files.MEMMAP_FILES
            )
        except FileNotFoundError:
            break
        except OSError as error:
            findings.append(
                Finding("memmap-unread", f"{home}: {reason(error)}; the map of the firmware is left out")
            )
            return ()
        ends = _HEX.fullmatch(start), _HEX.fullmatch(last)
        span = None
        if ends[0] is not None and ends[1] is not None:
            span = range_from_inclusive(int(ends[0][1], 16), int(ends[1][1], 16))
        if span is None:
            findings.append(
                Finding("memmap-malformed", f"{home}: start and end are no range; it is left out")
            )
            continue
        found.append(NamedRange(span, name.decode("utf-8", "replace").strip()))
    return tuple(found)
