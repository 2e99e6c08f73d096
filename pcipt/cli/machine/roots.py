"""The windows of root buses: what Linux lets a host bridge pass on, from /proc/iomem.

Source: linux drivers/acpi/pci_root.c, drivers/pci/bus.c: the lines "PCI Bus dddd:bb" of a root bus.
"""

import re
from typing import TYPE_CHECKING

from pcipt.errors import PciptError
from pcipt.pci import Range

if TYPE_CHECKING:
    from pcipt.host.iomem import NamedRange

_BUS = re.compile(r"PCI Bus ([0-9a-f]{4,8}):([0-9a-f]{2})")
Windows = dict[tuple[int, int], list[tuple[Range, tuple[Range, ...]]]]


def root_windows(root: str | None) -> Windows:
    """Return the memory ranges of each bus that the machine below `root` names, with what is in use in them.

    Bridges have such lines too; only those of root buses are of use. The result is empty if the map cannot be
    read, or `root` is None (a dump). Units: addresses of the processor.
    """
    if root is None:
        return {}
    from pcipt.host.iomem import read_memory  # most commands need no windows of root buses

    try:
        lines = read_memory(root).iomem or ()
    except (PciptError, OSError):
        return {}
    found: Windows = {}
    for number, line in enumerate(lines):
        named = _BUS.fullmatch(line.name)
        if named is not None:
            held = tuple(each.range for each in _inside(lines[number + 1 :], line.depth))
            found.setdefault((int(named[1], 16), int(named[2], 16)), []).append((line.range, held))
    return found


def _inside(lines: "tuple[NamedRange, ...]", depth: int) -> "list[NamedRange]":
    """Return the lines one level below `depth`. `lines` begins right after the line of the range."""
    found = []
    for line in lines:
        if line.depth <= depth:
            break
        if line.depth == depth + 1:
            found.append(line)
    return found
