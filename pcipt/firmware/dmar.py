"""DMAR: which remapping unit stands before which function, and which memory firmware reserved for devices.

Source: Intel VT-d 4.1 §8; xen/drivers/passthrough/vtd/dmar.c for what Xen makes of it.
"""

import attrs

from pcipt.firmware.acpi import Table, entries
from pcipt.pci import Address, Finding, Range, range_from_inclusive

SIGNATURES = ("DMAR", "RMAD", "XMAR")  # the two others are what Xen renames it to
ENTRIES_AT = 48
DRHD, RMRR, ATSR, RHSA, ANDD, SATC = range(6)
SCOPE_ENDPOINT, SCOPE_BRIDGE, SCOPE_IOAPIC, SCOPE_HPET, SCOPE_NAMESPACE = range(1, 6)
INCLUDE_PCI_ALL = 0x1

#            where the scopes begin, shortest legal entry
_LAYOUT = {DRHD: (16, 16), RMRR: (24, 24), ATSR: (8, 8), SATC: (8, 8)}


@attrs.frozen
class Scope:
    """A device scope: `path` holds (device, function) per hop from `bus` down."""

    kind: int
    bus: int
    path: tuple[tuple[int, int], ...]
    enumeration_id: int = 0


@attrs.frozen
class RemappingUnit:
    segment: int
    base: Address
    include_all: bool
    scopes: tuple[Scope, ...]


@attrs.frozen
class ReservedRegion:
    """An RMRR; `range` is None where its limit lies below its base."""

    segment: int
    base: Address
    limit: Address
    scopes: tuple[Scope, ...]

    @property
    def range(self) -> Range | None:
        return range_from_inclusive(self.base, self.limit)


@attrs.frozen
class Dmar:
    """`others` are the entries of further types: (type, offset, length)."""

    units: tuple[RemappingUnit, ...]
    regions: tuple[ReservedRegion, ...]
    others: tuple[tuple[int, int, int], ...]
    findings: tuple[Finding, ...]


def parse_dmar(table: Table) -> Dmar:
    """Decode a DMAR table: remapping units, reserved regions, the rest by type and place.

    Shape:  entries in table order; a damaged entry ends the walk with a finding, what was before it is kept.
    Units:  byte addresses; limits inclusive as in the table.
    """
    data, findings = table.data, list(table.findings)
    units: list[RemappingUnit] = []
    regions: list[ReservedRegion] = []
    others: list[tuple[int, int, int]] = []
    for kind, at, length in entries(data, ENTRIES_AT, len(data), findings):
        scopes_at, shortest = _LAYOUT.get(kind, (0, 4))
        if length < shortest:
            findings.append(
                Finding("acpi-entry", f"at {at:#x}: type {kind:#x} needs {shortest} bytes, has {length}")
            )
            continue
        if kind == DRHD:
            scopes = _scopes(data, at + scopes_at, at + length, findings)
            include_all = bool(data[at + 4] & INCLUDE_PCI_ALL)
            units.append(RemappingUnit(table.u16(at + 6), Address(table.u64(at + 8)), include_all, scopes))
        elif kind == RMRR:
            scopes = _scopes(data, at + scopes_at, at + length, findings)
            base, limit = Address(table.u64(at + 8)), Address(table.u64(at + 16))
            regions.append(ReservedRegion(table.u16(at + 6), base, limit, scopes))
        else:
            others.append((kind, at, length))
    return Dmar(tuple(units), tuple(regions), tuple(others), tuple(findings))


def _scopes(data: bytes, start: int, end: int, findings: list[Finding]) -> tuple[Scope, ...]:
    found = []
    for kind, at, length in entries(data, start, end, findings, header=2):
        if length < 8 or length % 2:
            findings.append(
                Finding("acpi-scope", f"at {at:#x}: a device scope of {length} bytes has no path")
            )
            continue
        hops = data[at + 6 : at + length]
        path = tuple(zip(hops[::2], hops[1::2], strict=True))
        found.append(Scope(kind, data[at + 5], path, data[at + 4]))
    return tuple(found)
