"""Parse the sysfs file `resource`: one line for each BAR, the ROM, the SR-IOV BARs and the bridge windows.

A line holds start, inclusive end and flags. The number of a line tells which BAR it is. So a malformed line
gives an unused entry, and the other lines keep their numbers.

Source: linux drivers/pci/pci-sysfs.c, resource_show; include/linux/pci.h (PCI_STD_RESOURCES and on).
"""

import re

from pcipt.pci import Finding, Resource

EMPTY = Resource(0, 0, 0)
_MAX_LINES = 64  # Linux has 17 to 24
_BARS_AND_ROM = 7
_EMPTY_LINE = b"0x0000000000000000 0x0000000000000000 0x0000000000000000"
_LINE = re.compile(rb"0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})")


def parse_resource(data: bytes) -> tuple[tuple[Resource, ...], Finding | None]:
    """Return the lines of `resource` in order, and a finding or None.

    A malformed line becomes the unused resource `EMPTY`. Lines after the first 64 are dropped. The finding
    names one problem: more than 64 lines, or fewer than 7; if the number of lines is right, the first
    malformed line.
    """
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    problem: str | None = None
    if len(lines) > _MAX_LINES:
        problem = f"has {len(lines)} lines, more than Linux writes"
        del lines[_MAX_LINES:]
    elif len(lines) < _BARS_AND_ROM:
        problem = f"ends after {len(lines)} of at least {_BARS_AND_ROM} lines"
    found: list[Resource] = []
    for number, line in enumerate(lines, 1):
        if line == _EMPTY_LINE:
            found.append(EMPTY)
            continue
        parsed = _parse_line(line)
        if parsed is None and problem is None:
            problem = f"line {number} is not 'start end flags'"
        found.append(EMPTY if parsed is None else parsed)
    if problem is None:
        return tuple(found), None
    why = f"the file resource {problem}: sizes of some BARs are unknown; rescan the function"
    return tuple(found), Finding("resource-malformed", why)


def _parse_line(line: bytes) -> Resource | None:
    """Return one line as a resource, or None if it is malformed.

    A line is unused, and has the size 0, if its end is 0, if its end is one below its start, or if it covers
    all 64-bit addresses. Linux writes an unused line as 0 to 0, or with the end one below the start. Any
    other line whose end is below its start is malformed.
    """
    matched = _LINE.fullmatch(line)
    if matched is None:
        return None
    start, last, flags = (int(part, 16) for part in matched.groups())
    size = last - start + 1
    # Linux writes an unused resource as 0 to 0, or with the end one below the start (0 to ~0).
    if last == 0 or size in {0, 1 << 64}:
        return Resource(start, 0, flags)
    return Resource(start, size, flags) if size > 0 else None
