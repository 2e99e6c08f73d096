"""The check at the end of each scene, from outside: what the hardware decodes, Xen lists and dom0 reaches.

Nothing here asks pcipt. QEMU's record tells where each BAR decodes and where it has decoded since power-on,
Xen's key Q which functions it lists and who owns them, a read of /dev/mem whether dom0's map has a page.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from . import inside
from .hardware import BAR_WINDOWS
from .machine import Dom0
from .test_lab_smoke import known_to_xen
from .witness import BAR_UPDATE, PAGE

#: Messages of hot-plug and writes are settled, and a pause for what failed is over.
QUIET_SECONDS = 40.0
#: What Xen prints when its own vPCI could not take a function: it then keeps the function without an owner.
REFUSED = re.compile(r"DEVICE BUG: ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): MSI-X")
Span = tuple[int, int]  # start, bytes


@dataclass
class Decoded:
    """Where memory BARs decode now (by function and BAR), and every range that has decoded since power-on."""

    now: dict[tuple[str, int], Span] = field(default_factory=dict)
    ever: set[Span] = field(default_factory=set)
    read: int = 0

    def follow(self, dom0: Dom0) -> None:
        """Take in what QEMU has told since the last call."""
        with dom0.wires.writes.open("rb") as record:
            record.seek(self.read)
            text = record.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.decode("ascii").splitlines():
            told = BAR_UPDATE.match(line)
            if told is None or not any(low <= int(told[4], 16) < high for low, high in BAR_WINDOWS):
                continue  # ports, or an address that a scene has chosen to be refused
            key, span = (f"0000:{told[2]}", int(told[3])), (int(told[4], 16), int(told[5], 16))
            if told[1] == "add":
                self.now[key] = span
                self.ever.add(span)
            elif self.now.get(key) == span:
                del self.now[key]
        there = present(dom0.qmp("query-pci"))  # a function that is unplugged tells nothing
        self.now = {key: span for key, span in self.now.items() if key[0] in there}


def present(buses: list[dict[str, Any]]) -> set[str]:
    """Give the addresses of the functions in QEMU's answer to `query-pci`, on all buses."""
    found: set[str] = set()
    waiting = [device for bus in buses for device in bus["devices"]]
    while waiting:
        device = waiting.pop()
        found.add(f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']:x}")
        waiting += device.get("pci_bridge", {}).get("devices", [])
    return found


def ends(span: Span) -> list[int]:
    """Give the first and the last page of a range."""
    start, size = span
    return sorted({start // PAGE * PAGE, (start + size - 1) // PAGE * PAGE})


def wrong_pages(dom0: Dom0, decoded: Decoded) -> list[str]:
    """Tell which pages dom0's map has although nothing decodes there, and which it lacks.

    Of a BAR that decodes only the first page is read: at its end an edu device answers with all ones.
    """
    decoded.follow(dom0)
    there = {ends(span)[0]: key for key, span in decoded.now.items()}
    covered = [(start // PAGE * PAGE, start + size) for start, size in decoded.now.values()]
    gone = {
        page for span in decoded.ever for page in ends(span)
        if not any(first <= page < end for first, end in covered)
    }  # fmt: skip
    if "pf-fixup" in dom0.extra.xen:
        gone = set()  # a read would bring the pages back
    trapped = set(dom0.call(inside.msix_pages))
    asked = [*sorted(there.keys() - trapped), *sorted(gone)]
    read = dict(zip(asked, dom0.call(inside.probe, asked), strict=True))
    missing = [
        f"{there[page][0]} BAR {there[page][1]} decodes at {page:#x}: not mapped"
        for page in asked
        if page in there and read[page] == "ffffffff"
    ]
    stale = [
        f"nothing decodes at {page:#x} any more: still mapped"
        for page in asked
        if page in gone and read[page] not in ("ffffffff", None)
    ]
    return [*missing, *stale]


def wrong_functions(dom0: Dom0) -> list[str]:
    """Tell which functions Xen lists that the machine does not have, and which it lists without an owner.

    An orphan that Xen made itself, because its vPCI did not take a function, is not counted.
    """
    known = known_to_xen(dom0)
    there = set(dom0.run("ls /sys/bus/pci/devices").lines)
    refused = {name for match in REFUSED.finditer(dom0.console()) for name in match.groups()}
    ghosts = [f"Xen lists {sbdf}, which the machine does not have" for sbdf in known if sbdf not in there]
    orphans = [sbdf for sbdf, owner in known.items() if owner.startswith("NULL") and sbdf not in refused]
    return [*ghosts, *(f"Xen lists {sbdf} without an owner" for sbdf in orphans)]


def wrong(dom0: Dom0, decoded: Decoded) -> list[str]:
    """Tell everything that is not as it should be once the machine is quiet; empty if all is well."""
    end = time.monotonic() + QUIET_SECONDS
    while True:
        found = [*wrong_functions(dom0), *(wrong_pages(dom0, decoded) if dom0.mode == "pvh" else [])]
        if not found or time.monotonic() > end:
            return found
        time.sleep(2)
