"""Three witnesses of what is mapped and where, none of which knows pcipt.

Law: Xen's console tells each change of dom0's map, a read of /dev/mem a page's present state, QEMU where the
hardware decodes. Only four bytes are read: a device may take a wider read for something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import inside
from .machine import Dom0, Mark

CONFIG_WRITE = re.compile(
    r"^pci_cfg_write \S+ ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) @0x([0-9a-f]+) <- 0x([0-9a-f]+)$"
)
BAR_UPDATE = re.compile(
    r"^pci_update_mappings_(add|del) \S+ ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (\d+),0x([0-9a-f]+)\+0x([0-9a-f]+)$"
)
MEMORY_MAP = re.compile(r"memory_map:(add|remove): d(\d+) gfn=([0-9a-f]+) mfn=([0-9a-f]+) nr=([0-9a-f]+)")
PAGE = 4096


@dataclass(frozen=True)
class Seen:
    """One write as the hardware got it."""

    sbdf: str
    offset: int
    value: int


@dataclass(frozen=True)
class MapCall:
    """One line of Xen's about XEN_DOMCTL_memory_mapping: pages of dom0's map that were asked for."""

    verb: str
    gfn: int
    mfn: int
    count: int


class Witness:
    """What QEMU tells from now on. A line is there before the write returns."""

    def __init__(self, dom0: Dom0) -> None:
        self._path = dom0.wires.writes
        self._from = self._path.stat().st_size

    def writes(self) -> list[Seen]:
        """Give the configuration writes that reached the hardware."""
        text = self._path.read_bytes()[self._from :].decode("ascii")
        found = (CONFIG_WRITE.match(line) for line in text.splitlines())
        return [Seen(f"0000:{m[1]}", int(m[2], 16), int(m[3], 16)) for m in found if m]


def decoding(dom0: Dom0, sbdf: str) -> dict[int, tuple[int, int]]:
    """Tell where the hardware now answers for each BAR of the function at this address: start and size.

    The address is the one it had when it was last told; a function that is unplugged tells nothing.
    """
    found: dict[int, tuple[int, int]] = {}
    for line in dom0.wires.writes.read_text(encoding="ascii").splitlines():
        told = BAR_UPDATE.match(line)
        if told is None or f"0000:{told[2]}" != sbdf:
            continue
        bar, place = int(told[3]), (int(told[4], 16), int(told[5], 16))
        if told[1] == "add":
            found[bar] = place
        elif found.get(bar) == place:
            del found[bar]
    return found


def map_calls(dom0: Dom0, since: Mark) -> list[MapCall]:
    """Give the changes of dom0's map that Xen was asked for since a mark; vPCI's own are not among them."""
    found = (MEMORY_MAP.search(line) for line in dom0.xen_lines(since))
    return [MapCall(m[1], int(m[3], 16), int(m[4], 16), int(m[5], 16)) for m in found if m]


def mapped(dom0: Dom0, *addresses: int) -> list[bool]:
    """Tell for each address whether dom0's map has its page: only an unmapped one reads all ones.

    An emulated bus answers zeros where nobody decodes, so this is true of QEMU only.
    """
    return [value != "ffffffff" for value in dom0.call(inside.probe, list(addresses))]
