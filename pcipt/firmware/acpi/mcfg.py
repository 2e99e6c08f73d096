"""MCFG: where the machine's ECAM regions lie.

Source: PCI Firmware Specification 3.3 §4.1.2; the base is that of bus 0, also where the first bus is another.
"""

import struct

import attrs

from pcipt.firmware.acpi.table import HEADER_SIZE, Table, parse_table
from pcipt.pci import Finding
from pcipt.pci.write import BUS_SHIFT, EcamRegion

SIGNATURE = "MCFG"
_ENTRY = struct.Struct("<QHBBxxxx")
_FIRST = HEADER_SIZE + 8  # eight reserved bytes follow the header


@attrs.frozen
class Mcfg:
    regions: tuple[EcamRegion, ...]
    findings: tuple[Finding, ...]


def parse_mcfg(table: Table) -> Mcfg:
    """Decode the entries; one that cannot be (no bus, unaligned, above 64 bits) is left out and told."""
    findings = list(table.findings)
    regions = []
    at = _FIRST
    while at + _ENTRY.size <= len(table.data):
        base, segment, first, last = _ENTRY.unpack_from(table.data, at)
        if first <= last and not base & (1 << BUS_SHIFT) - 1 and base <= (1 << 64) - (1 << 28) - 1:
            regions.append(EcamRegion(base, segment, first, last))
        else:
            what = f"at {at:#x}: no ECAM region can be at {base:#x} for buses {first:02x}-{last:02x}"
            findings.append(Finding("acpi-entry", what))
        at += _ENTRY.size
    if at != len(table.data):
        what = f"at {min(at, len(table.data)):#x}: the table ends within an entry"
        findings.append(Finding("acpi-entry", what))
    return Mcfg(tuple(regions), tuple(findings))


def regions_from_mcfg(data: bytes) -> tuple[EcamRegion, ...]:
    """List the regions of a table; none where it is another table or none at all."""
    table = parse_table(data)
    return parse_mcfg(table).regions if table is not None and table.signature == SIGNATURE else ()
