"""Find the windows of root buses in Linux's memory map: what Linux lets a host bridge pass on.

Source: linux drivers/acpi/pci_root.c, drivers/pci/bus.c: the lines "PCI Bus dddd:bb" of a root bus.
"""

import re
from collections.abc import Iterable

from pcipt.pci.space.windows import RootWindows
from pcipt.pci.units import Range

_BUS = re.compile(r"PCI Bus ([0-9a-f]{4,8}):([0-9a-f]{2})")

#  a line of /proc/iomem: its range, Linux's name for it, and the number of lines that contain it
Line = tuple[Range, str, int]


def roots_of_lines(lines: Iterable[Line]) -> RootWindows:
    """Return the memory ranges of each bus that `lines` name, with what is in use in them.

    Bridges have such lines too; only those of root buses are of use. Units: addresses of the processor.
    """
    given = tuple(lines)
    found: dict[tuple[int, int], list[tuple[Range, tuple[Range, ...]]]] = {}
    for number, (span, name, depth) in enumerate(given):
        named = _BUS.fullmatch(name)
        if named is not None:
            held = tuple(_inside(given[number + 1 :], depth))
            found.setdefault((int(named[1], 16), int(named[2], 16)), []).append((span, held))
    return found


def _inside(lines: tuple[Line, ...], depth: int) -> list[Range]:
    """Return the ranges one level below `depth`. `lines` begins right after the line of the range."""
    found = []
    for span, _, deep in lines:
        if deep <= depth:
            break
        if deep == depth + 1:
            found.append(span)
    return found
