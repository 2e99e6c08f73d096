"""MCFG: where the machine's ECAM regions lie.

Source: PCI Firmware Specification 3.3 §4.1.2; the base is that of bus 0, also where the first bus is another.
"""

import struct

from pcipt.firmware.acpi import HEADER_SIZE, parse_table
from pcipt.pci.write import BUS_SHIFT, EcamRegion

_ENTRY = struct.Struct("<QHBBxxxx")
_FIRST = HEADER_SIZE + 8  # eight reserved bytes follow the header


def regions_from_mcfg(data: bytes) -> tuple[EcamRegion, ...]:
    """List the regions of a table; entries that cannot be (no bus, unaligned, above 64 bits) are left out."""
    table = parse_table(data)
    if table is None or table.signature != "MCFG":
        return ()
    entries = table.data[_FIRST:]
    found = []
    for base, segment, first, last in _ENTRY.iter_unpack(
        entries[: len(entries) - len(entries) % _ENTRY.size]
    ):
        possible = first <= last and not base & (1 << BUS_SHIFT) - 1 and base <= (1 << 64) - (1 << 28) - 1
        if possible:
            found.append(EcamRegion(base, segment, first, last))
    return tuple(found)
