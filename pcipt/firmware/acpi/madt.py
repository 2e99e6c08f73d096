"""Parse and build the MADT (signature APIC): local APICs, IO-APICs, and the overrides of ISA interrupts.

An entry of a type that is not decoded here keeps its bytes, so that a parsed table can be built again without
a change to its entries.
Source: ACPI 6.5 §5.2.12; xen/arch/x86/hvm/dom0_build.c (pvh_setup_acpi_madt) for the MADT of a PVH dom0.
"""

import struct

from pcipt import values as attrs
from pcipt.firmware.acpi.build_table import Header, build_table, header_from_table
from pcipt.firmware.acpi.table import Table, entries
from pcipt.pci import Address, Finding

SIGNATURE = "APIC"
ENTRIES_AT = 44
LOCAL_APIC_ADDRESS = Address(0xFEE0_0000)
PCAT_COMPAT = 0x1
ENABLED = 0x1

_LAPIC = struct.Struct("<BBBBI")
_IOAPIC = struct.Struct("<BBBBII")
_OVERRIDE = struct.Struct("<BBBBIH")
_X2APIC = struct.Struct("<BBHIII")
LAPIC, IOAPIC, OVERRIDE, NMI_SOURCE, LAPIC_NMI, X2APIC = 0, 1, 2, 3, 4, 9


@attrs.frozen
class LocalApic:
    """A local APIC (entry type 0): the processor's `uid` and its APIC id, 8 bits each."""

    uid: int
    apic_id: int
    flags: int = ENABLED

    @property
    def data(self) -> bytes:
        """The bytes of the entry."""
        return _LAPIC.pack(LAPIC, _LAPIC.size, self.uid, self.apic_id, self.flags)


@attrs.frozen
class X2Apic:
    """A local x2APIC (entry type 9): the processor's `uid` and its APIC id, 32 bits each."""

    uid: int
    apic_id: int
    flags: int = ENABLED

    @property
    def data(self) -> bytes:
        """The bytes of the entry."""
        return _X2APIC.pack(X2APIC, _X2APIC.size, 0, self.apic_id, self.flags, self.uid)


@attrs.frozen
class IoApic:
    """An IO-APIC (entry type 1): its registers are at `address`, its first global interrupt is `gsi_base`."""

    apic_id: int
    address: Address
    gsi_base: int

    @property
    def data(self) -> bytes:
        """The bytes of the entry."""
        return _IOAPIC.pack(IOAPIC, _IOAPIC.size, self.apic_id, 0, self.address, self.gsi_base)


@attrs.frozen
class InterruptOverride:
    """An interrupt override (entry type 2): the ISA interrupt `source` arrives as global interrupt `gsi`.

    `flags` hold the polarity (bits 1:0) and the trigger mode (bits 3:2). `bus` is 0 for ISA.
    """

    source: int
    gsi: int
    flags: int
    bus: int = 0

    @property
    def data(self) -> bytes:
        """The bytes of the entry."""
        return _OVERRIDE.pack(OVERRIDE, _OVERRIDE.size, self.bus, self.source, self.gsi, self.flags)


@attrs.frozen
class OtherEntry:
    """An entry that is kept as bytes: its type or length is not decoded, or a reserved field is not 0.

    `kind` is the entry's type. `data` holds all bytes of the entry, its type and length included.
    """

    kind: int
    data: bytes


Entry = LocalApic | X2Apic | IoApic | InterruptOverride | OtherEntry


@attrs.frozen
class Madt:
    """A MADT as values; `local_apic` is the byte address of the local APICs.

    `entries` are in table order. `offsets` has the byte offset of each of them, and `findings` the faults of
    the table; only `parse_madt` fills these two.
    """

    header: Header
    local_apic: Address
    flags: int
    entries: tuple[Entry, ...]
    offsets: tuple[int, ...] = attrs.field(default=(), eq=False)
    findings: tuple[Finding, ...] = attrs.field(default=(), eq=False)

    @property
    def local_apics(self) -> tuple[LocalApic | X2Apic, ...]:
        """The entries for local APICs and x2APICs, in table order.

        Entries that are not enabled are included.
        """
        return tuple(each for each in self.entries if isinstance(each, LocalApic | X2Apic))

    @property
    def io_apics(self) -> tuple[IoApic, ...]:
        """The entries for IO-APICs, in table order."""
        return tuple(each for each in self.entries if isinstance(each, IoApic))

    @property
    def overrides(self) -> tuple[InterruptOverride, ...]:
        """The interrupt overrides, in table order."""
        return tuple(each for each in self.entries if isinstance(each, InterruptOverride))


def build_madt(madt: Madt) -> bytes:
    """Return the bytes of a MADT, with the right length and checksum.

    `madt.offsets` and `madt.findings` are not used.
    Raises: struct.error if a number does not fit into its field; the errors of `build_table` for the header.
    """
    body = struct.pack("<II", madt.local_apic, madt.flags) + b"".join(each.data for each in madt.entries)
    return build_table(madt.header, body)


def parse_madt(table: Table) -> Madt:
    """Return the decoded MADT. Its signature is not verified; faults become findings, not errors.

    Shape:  entries in table order. An entry whose length is impossible ends the walk with a finding; the
            entries before it are kept. A table shorter than 44 bytes has no entries and `local_apic` 0, with
            a finding.
    """
    findings = list(table.findings)
    if len(table.data) < ENTRIES_AT:
        findings.append(Finding("acpi-length", f"at 0x4: {ENTRIES_AT} bytes are needed before any entry"))
        return Madt(header_from_table(table), Address(0), 0, (), (), tuple(findings))
    found, offsets = [], []
    for kind, at, length in entries(table.data, ENTRIES_AT, len(table.data), findings, header=2):
        found.append(_entry(kind, table.data[at : at + length]))
        offsets.append(at)
    return Madt(
        header_from_table(table),
        Address(table.u32(36)),
        table.u32(40),
        tuple(found),
        tuple(offsets),
        tuple(findings),
    )


def _entry(kind: int, data: bytes) -> Entry:
    """Return one decoded entry from its bytes.

    It is an `OtherEntry` if its type or length is not decoded, or if the decoded value would not give the
    same bytes.
    """
    found: Entry | None = None
    if kind == LAPIC and len(data) == _LAPIC.size:
        found = LocalApic(*_LAPIC.unpack(data)[2:])
    elif kind == IOAPIC and len(data) == _IOAPIC.size:
        _, _, apic_id, _, address, gsi_base = _IOAPIC.unpack(data)
        found = IoApic(apic_id, Address(address), gsi_base)
    elif kind == OVERRIDE and len(data) == _OVERRIDE.size:
        _, _, bus, source, gsi, flags = _OVERRIDE.unpack(data)
        found = InterruptOverride(source, gsi, flags, bus)
    elif kind == X2APIC and len(data) == _X2APIC.size:
        _, _, _, apic_id, flags, uid = _X2APIC.unpack(data)
        found = X2Apic(uid, apic_id, flags)
    return found if found is not None and found.data == data else OtherEntry(kind, data)


def local_apics(vcpus: int, *, x2apic: bool) -> tuple[LocalApic | X2Apic, ...]:
    """Return one enabled entry per vCPU: UID i and APIC id 2i for vCPU i, as Xen numbers vCPUs.

    The entry is an x2APIC if `x2apic` is True, whatever the id. It is an x2APIC too if the APIC id is FF or
    above, because a local APIC has 8 bits for the id, and FF means all processors.
    """
    return tuple(
        X2Apic(number, 2 * number) if x2apic or 2 * number >= 0xFF else LocalApic(number, 2 * number)
        for number in range(vcpus)
    )
