"""Parse the DMAR table: which IOMMU unit serves which function, and which memory is reserved for devices.

Other entries that are decoded: root ports with ATS (ATSR), NUMA nodes of the units (RHSA), named devices
(ANDD), endpoints with a translation cache (SATC). An entry of another type is kept as its type, offset and
length.
Source: Intel VT-d 4.1 §8; xen/drivers/passthrough/vtd/dmar.c for how Xen reads the table.
"""

from pcipt import values as attrs
from pcipt.firmware.acpi.table import Table, entries
from pcipt.pci import Address, Finding, Range, range_from_inclusive

SIGNATURES = ("DMAR", "RMAD", "XMAR")  # Xen renames DMAR to one of the other two
ENTRIES_AT = 48
DRHD, RMRR, ATSR, RHSA, ANDD, SATC = range(6)
SCOPE_ENDPOINT, SCOPE_BRIDGE, SCOPE_IOAPIC, SCOPE_HPET, SCOPE_NAMESPACE = range(1, 6)
SCOPES_OF_XEN = (SCOPE_ENDPOINT, SCOPE_BRIDGE, SCOPE_IOAPIC, SCOPE_HPET)  # it passes over all others
INCLUDE_PCI_ALL = 0x1

# Byte offset of the device scopes in an entry, which is also the shortest legal length.
_SCOPES_AT = {DRHD: 16, RMRR: 24, ATSR: 8, SATC: 8}
_SHORTEST = {**_SCOPES_AT, RHSA: 20, ANDD: 9}


@attrs.frozen
class Scope:
    """A device scope, which names one device.

    `kind` is the number of its type in the table; the SCOPE_ constants are the known types. `path` holds
    (device, function) of each hop. The first hop is on bus `bus`; each further hop is on the bus below the
    bridge before it. `enumeration_id` has a meaning only for IO-APICs, HPETs and namespace devices.
    """

    kind: int
    bus: int
    path: tuple[tuple[int, int], ...]
    enumeration_id: int = 0


@attrs.frozen
class RemappingUnit:
    """An IOMMU unit (DRHD) whose registers are at `base`.

    `include_all` is True if the unit serves all functions of the segment that no other unit lists.
    """

    segment: int
    base: Address
    include_all: bool
    scopes: tuple[Scope, ...]


@attrs.frozen
class ReservedRegion:
    """An RMRR: memory that firmware reserved for the devices in `scopes`.

    `base` and `limit` are the addresses of its first and last byte, as in the table: `limit` may be below
    `base`.
    """

    segment: int
    base: Address
    limit: Address
    scopes: tuple[Scope, ...]

    @property
    def range(self) -> Range | None:
        """The bytes from `base` to `limit`; None if `limit` is below `base`."""
        return range_from_inclusive(self.base, self.limit)


@attrs.frozen
class TranslationServices:
    """An entry about devices that may use ATS; `kind` is ATSR or SATC.

    ATSR: `scopes` are root ports below which ATS may be used; `flag` is True if ATS may be used below all
    root ports of the segment. SATC: `scopes` are endpoints that have a translation cache; `flag` is True if
    ATS is required for them.
    """

    kind: int
    segment: int
    flag: bool
    scopes: tuple[Scope, ...]


@attrs.frozen
class UnitAffinity:
    """An RHSA entry: the NUMA proximity domain of the IOMMU unit whose registers are at `base`."""

    base: Address
    proximity: int


@attrs.frozen
class NamedDevice:
    """An ANDD entry: the ACPI name of the device to which namespace scopes with this enumeration id refer."""

    enumeration_id: int
    name: str


@attrs.frozen
class Dmar:
    """A decoded DMAR table; each field is in table order.

    `units` are the DRHD entries, `regions` RMRR, `services` ATSR and SATC, `affinities` RHSA, `names` ANDD.
    `others` are the entries of other types: (type, offset, length), in bytes. `findings` has the faults of
    the header and of the entries.
    """

    units: tuple[RemappingUnit, ...]
    regions: tuple[ReservedRegion, ...]
    others: tuple[tuple[int, int, int], ...]
    findings: tuple[Finding, ...]
    services: tuple[TranslationServices, ...] = ()
    affinities: tuple[UnitAffinity, ...] = ()
    names: tuple[NamedDevice, ...] = ()


def parse_dmar(table: Table) -> Dmar:
    """Return the decoded DMAR table. Its signature is not verified; faults become findings, not errors.

    Shape:  entries in table order. An entry whose length is impossible ends the walk; the entries before it
            are kept. An entry that is too short for its type is left out. A table shorter than 48 bytes has
            no entries. Each of these gives a finding, and so does each fault of a device scope (see
            `_scopes`).
    Units:  byte addresses; limits are inclusive, as in the table.
    """
    data, findings = table.data, list(table.findings)
    if len(data) < ENTRIES_AT:
        findings.append(Finding("acpi-length", f"at 0x4: {ENTRIES_AT} bytes are needed before any entry"))
    units: list[RemappingUnit] = []
    regions: list[ReservedRegion] = []
    services: list[TranslationServices] = []
    affinities: list[UnitAffinity] = []
    names: list[NamedDevice] = []
    others: list[tuple[int, int, int]] = []
    for kind, at, length in entries(data, ENTRIES_AT, len(data), findings):
        shortest = _SHORTEST.get(kind, 4)
        if length < shortest:
            what = f"at {at:#x}: type {kind:#x} needs {shortest} bytes, has {length}"
            findings.append(Finding("acpi-entry", what))
            continue
        scopes: tuple[Scope, ...] = ()
        if kind in _SCOPES_AT:
            scopes = _scopes(data, at + _SCOPES_AT[kind], at + length, findings)
        if kind == DRHD:
            include_all = bool(data[at + 4] & INCLUDE_PCI_ALL)
            units.append(RemappingUnit(table.u16(at + 6), Address(table.u64(at + 8)), include_all, scopes))
        elif kind == RMRR:
            base, limit = Address(table.u64(at + 8)), Address(table.u64(at + 16))
            regions.append(ReservedRegion(table.u16(at + 6), base, limit, scopes))
        elif kind in (ATSR, SATC):
            flag = bool(data[at + 4] & 1)
            services.append(TranslationServices(kind, table.u16(at + 6), flag, scopes))
        elif kind == RHSA:
            affinities.append(UnitAffinity(Address(table.u64(at + 8)), table.u32(at + 16)))
        elif kind == ANDD:
            name = data[at + 8 : at + length].split(b"\0", 1)[0]
            names.append(NamedDevice(data[at + 7], name.decode("ascii", "backslashreplace")))
        else:
            others.append((kind, at, length))
    return Dmar(
        tuple(units),
        tuple(regions),
        tuple(others),
        tuple(findings),
        tuple(services),
        tuple(affinities),
        tuple(names),
    )


def _scopes(data: bytes, start: int, end: int, findings: list[Finding]) -> tuple[Scope, ...]:
    """Return the device scopes between two byte offsets, in table order.

    A scope whose length is 2 to 7 or odd is left out. A scope with an impossible hop (device above 1F,
    function above 7) is kept. A scope whose length is below 2, or that runs past `end`, ends the walk. In
    each of these cases a finding is appended to `findings`.
    """
    found = []
    for kind, at, length in entries(data, start, end, findings, header=2):
        if length < 8 or length % 2:
            findings.append(
                Finding("acpi-scope", f"at {at:#x}: a device scope of {length} bytes has no path")
            )
            continue
        hops = data[at + 6 : at + length]
        path = tuple(zip(hops[::2], hops[1::2], strict=True))
        if any(device > 0x1F or function > 7 for device, function in path):
            what = ", ".join(f"{device:02x}.{function:x}" for device, function in path)
            findings.append(Finding("acpi-scope", f"at {at:#x}: the path {what} leads to no function"))
        found.append(Scope(kind, data[at + 5], path, data[at + 4]))
    return tuple(found)
