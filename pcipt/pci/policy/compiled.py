"""The list for the initramfs: one line a function, which a shell can read with `read -r`.

A line has ten words: the ACPI name of the host bridge, segment and root bus, the hops, vendor, device,
subsystem vendor, subsystem device, revision, class, serial number. `-` is a word that is not insisted on.
Hops are joined with `/`; each is the bus relative to the bridge before, device and function: 0:1c.0/0:00.0.
Ids are as sysfs has them. The serial number has 16 digits, as the registers have it; a function without has
`none`.

Source: initramfs/keep.sh reads it.
"""

from collections.abc import Iterable

from pcipt.pci.identity import FIELDS, serial_text
from pcipt.pci.policy.entries import ID_KEYS, Entry

HEAD = "# Functions kept for guests, written by pcipt policy from passthrough.d. Do not edit.\n"
ANY = "-"


def text_from_entries(entries: Iterable[Entry]) -> str:
    """Return the whole list, in the order of the entries."""
    return HEAD + "".join(f"{line_from_entry(entry)}\n" for entry in entries)


def line_from_entry(entry: Entry) -> str:
    """Return the line of one entry."""
    expected = entry.expected
    (bus, device, function), *below = entry.path.hops
    hops = [f"0:{device:02x}.{function:x}", *(f"{b:x}:{d:02x}.{f:x}" for b, d, f in below)]
    ids = [FIELDS[name](expected) or ANY for name in ID_KEYS]
    serial = (serial_text(expected.serial) or ANY).replace("-", "") or ANY
    where = f"{entry.path.segment:04x}:{bus:02x}"
    return " ".join([expected.root or ANY, where, "/".join(hops), *ids, serial])
