"""The list for the initramfs: one line a function, which a shell can read with `read -r`.

A line has ten words: the ACPI name of the host bridge, segment and root bus, the hops, vendor, device,
subsystem vendor, subsystem device, revision, class, serial number. `-` is a word that is not insisted on.
Hops are joined with `/`; each is the bus relative to the bridge before, device and function: 0:1c.0/0:00.0.
Ids are as sysfs has them. The serial number has 16 digits, as the registers have it; a function without has
`none`. The line of a policed port (hotplug.below) ends with the word `port` behind the hops.

Source: initramfs/keep.sh reads it.
"""

from collections.abc import Iterable

from pcipt.pci.address import PciPath
from pcipt.pci.identity import FIELDS, serial_text
from pcipt.pci.policy.entries import ID_KEYS, Entry

HEAD = (
    "# Functions kept for guests, and policed ports, written by pcipt policy from passthrough.d and "
    "pcipt.toml. Do not edit.\n"
)
ANY = "-"
PORT = "port"


def text_from_policy(entries: Iterable[Entry], ports: Iterable[PciPath]) -> str:
    """Return the whole list: a line for each entry, then a line for each policed port, in their orders."""
    lines = [*map(line_from_entry, entries), *(f"{ANY} {_place(path)} {PORT}" for path in ports)]
    return HEAD + "".join(f"{line}\n" for line in lines)


def line_from_entry(entry: Entry) -> str:
    """Return the line of one entry."""
    expected = entry.expected
    ids = [FIELDS[name](expected) or ANY for name in ID_KEYS]
    serial = (serial_text(expected.serial) or ANY).replace("-", "") or ANY
    return " ".join([expected.root or ANY, _place(entry.path), *ids, serial])


def _place(path: PciPath) -> str:
    """Return segment and root bus, and the hops, of a path."""
    (bus, device, function), *below = path.hops
    hops = [f"0:{device:02x}.{function:x}", *(f"{b:x}:{d:02x}.{f:x}" for b, d, f in below)]
    return f"{path.segment:04x}:{bus:02x} {'/'.join(hops)}"
