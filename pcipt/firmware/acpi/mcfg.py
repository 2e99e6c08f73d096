"""Parse the MCFG table, which lists the ECAM regions: memory through which config space is accessed.

The base address of a region is that of bus 0, even if the first bus of the region is another one.
Source: PCI Firmware Specification 3.3 §4.1.2.
"""

import struct

from pcipt import values as attrs
from pcipt.firmware.acpi.table import HEADER_SIZE, Table, parse_table
from pcipt.pci import Finding
from pcipt.pci.write import BUS_SHIFT, EcamRegion

SIGNATURE = "MCFG"
_ENTRY = struct.Struct("<QHBBxxxx")
_FIRST = HEADER_SIZE + 8  # eight reserved bytes follow the header


@attrs.frozen
class Mcfg:
    """The ECAM regions of an MCFG table, in table order, and the faults of the table."""

    regions: tuple[EcamRegion, ...]
    findings: tuple[Finding, ...]


def parse_mcfg(table: Table) -> Mcfg:
    """Return the decoded MCFG table. Its signature is not verified; faults become findings, not errors.

    An entry is left out with a finding if its last bus is below its first, if its base is not aligned to 1
    MiB, or if its base is in the last 256 MiB (the size of 256 buses) below 2^64. If the table ends within an
    entry, that entry is left out with a finding too.
    """
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
    """Return the ECAM regions of a table, in table order; empty if `data` is not an MCFG table.

    Wrong entries are left out (see `parse_mcfg`); the findings about them are dropped.
    """
    table = parse_table(data)
    return parse_mcfg(table).regions if table is not None and table.signature == SIGNATURE else ()
