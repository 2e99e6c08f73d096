"""Check the MADT of a PVH domain.

The hardware domain's MADT has the machine's IO-APICs. A guest's MADT usually has local APICs only.

Source: ACPI 6.5 §5.2.12; xen/arch/x86/hvm/dom0_build.c, pvh_setup_acpi_madt; tools/libacpi/build.c.
"""

import bisect
from collections.abc import Iterator

from pcipt.firmware.acpi.madt import (
    ENABLED,
    LAPIC_NMI,
    LOCAL_APIC_ADDRESS,
    NMI_SOURCE,
    PCAT_COMPAT,
    InterruptOverride,
    IoApic,
    LocalApic,
    Madt,
    OtherEntry,
    X2Apic,
    parse_madt,
)
from pcipt.firmware.acpi.table_set import Domain, PlacedTable, TableSet
from pcipt.firmware.memory_map import MemoryType
from pcipt.firmware.pvh.check_rows import Row, doubtful, good, judged, row_from_finding, wrong
from pcipt.firmware.pvh.facts import Facts
from pcipt.hints import TypeVar
from pcipt.pci import Range

ISA_INTERRUPTS = 16
_GSIS = 240  # the maximum of one IO-APIC
_PAGE = 4096
_Kind = TypeVar("_Kind", LocalApic, X2Apic, IoApic, InterruptOverride, OtherEntry)


def check_madt(tables: TableSet, table: PlacedTable, domain: Domain, facts: Facts) -> Iterator[Row]:
    """Yield the rows (check results) of the rules for the MADT `table`.

    A table without a whole ACPI header yields nothing.
    """
    label, parsed = tables.label(table), table.parsed
    if parsed is None:
        return
    madt = parse_madt(parsed)
    known = set(parsed.findings)  # check_tables made rows for length and checksum
    yield from (row_from_finding(finding, label) for finding in madt.findings if finding not in known)
    yield judged(madt.local_apic == LOCAL_APIC_ADDRESS, "lapic-address", label, 36,
                 f"{madt.local_apic:#x}", f"{madt.local_apic:#x}, not {LOCAL_APIC_ADDRESS:#x}")  # fmt: skip
    yield judged(not madt.flags & PCAT_COMPAT, "pcat-compat", label, 40, "PCAT_COMPAT is not set",
                 "PCAT_COMPAT is set although no PIC exists; kernels tolerate this", warn=True)  # fmt: skip
    if madt.flags & ~PCAT_COMPAT:
        yield wrong("madt-flags", label, 40, f"reserved flags {madt.flags & ~PCAT_COMPAT:#x}")
    yield from _local_apics(label, madt, facts)
    yield from _io_apics(label, madt, facts)
    yield from _overrides(label, madt)
    yield from _others(label, madt)
    if domain is Domain.GUEST and madt.io_apics and not facts.io_apic:
        yield doubtful("io-apic", label, None, "an IO-APIC, but a guest has none")


def _placed(madt: Madt, kind: type[_Kind]) -> list[tuple[int, _Kind]]:
    """Return (byte offset in the table, entry) for each entry of the class `kind`, in table order.

    `madt` must come from `parse_madt`, which fills `offsets`.
    """
    return [(at, each) for at, each in zip(madt.offsets, madt.entries, strict=True) if isinstance(each, kind)]


def _local_apics(label: str, madt: Madt, facts: Facts) -> Iterator[Row]:
    """Yield the rows about the number, the ids and the flags of local APICs.

    The number of enabled ones must be `facts.vcpus`; if that is unknown, at least 1. Any other number is an
    ERROR. ERROR too: two enabled ones with the same APIC id or the same processor UID. ERROR too: reserved
    flags are set, whether or not the local APIC is enabled.
    """
    enabled = [each for each in madt.local_apics if each.flags & ENABLED]
    count = len(enabled)
    if facts.vcpus is not None:
        yield judged(count == facts.vcpus, "local-apics", label, None, f"{count}, one per vCPU",
                     f"{count} are enabled, but the domain has {facts.vcpus} vCPUs")  # fmt: skip
    else:
        yield judged(bool(count), "local-apics", label, None, f"{count} enabled", "none is enabled")
    ids: set[int] = set()
    uids: set[int] = set()
    apics: list[tuple[int, LocalApic | X2Apic]] = [*_placed(madt, LocalApic), *_placed(madt, X2Apic)]
    for at, each in apics:
        if each.flags & ~0x3:
            yield wrong("local-apics", label, at, f"reserved flags {each.flags & ~0x3:#x}")
        if not each.flags & ENABLED:
            continue
        if each.apic_id in ids:
            yield wrong("local-apics", label, at, f"APIC id {each.apic_id:#x} is another one's")
        if each.uid in uids:
            yield wrong("local-apics", label, at, f"processor {each.uid:#x} is another one's")
        ids.add(each.apic_id)
        uids.add(each.uid)


def _io_apics(label: str, madt: Madt, facts: Facts) -> Iterator[Row]:
    """Yield one row per IO-APIC: ERROR if its address is impossible (see `_impossible_address`).

    ERROR too if an IO-APIC before it in the table has the same address or the same first interrupt. If there
    is no IO-APIC, yield one OK row.
    """
    addresses: set[int] = set()
    bases: set[int] = set()
    for at, each in _placed(madt, IoApic):
        why = _impossible_address(each, facts)
        if not why and each.address in addresses:
            why = "another one is there"
        if not why and each.gsi_base in bases:
            why = "another one has the same interrupts"
        addresses.add(each.address)
        bases.add(each.gsi_base)
        text = f"id {each.apic_id:#x} at {each.address:#x}, interrupts from {each.gsi_base} on"
        yield judged(not why, "io-apic", label, at, text, f"{text}: {why}")
    if not addresses:
        yield good("io-apic", label, None, "no IO-APIC")


def _impossible_address(one: IoApic, facts: Facts) -> str:
    """Return the reason why no IO-APIC can be at this address; an empty string if one can.

    The address must not be 0 and must be a multiple of 16. The 4 KiB from this address on must not overlap
    RAM; this is not checked if the memory map is unknown.
    """
    if one.address == 0 or one.address % 16:
        return "an IO-APIC cannot have this address"
    span = Range(one.address, _PAGE)
    for entry in facts.memory or ():
        if entry.type is MemoryType.RAM and entry.range.overlaps(span):
            return f"RAM is at this address ({entry.range})"
    return ""


def _overrides(label: str, madt: Madt) -> Iterator[Row]:
    """Yield one row per interrupt override: ERROR if it is illegal or no IO-APIC has its global interrupt.

    Illegal are a bus other than ISA, a source above 15, a source that an override before it has, and reserved
    flags. An IO-APIC is assumed to have 240 interrupts, or fewer if the next IO-APIC begins before these end.
    """
    bases = sorted(each.gsi_base for each in madt.io_apics)
    seen: set[int] = set()
    for at, each in _placed(madt, InterruptOverride):
        below = bisect.bisect_right(bases, each.gsi)
        why = ""
        if each.bus:
            why = f"bus {each.bus} is not ISA"
        elif each.source >= ISA_INTERRUPTS:
            why = "ISA has interrupts 0 to 15"
        elif each.source in seen:
            why = "that interrupt is overridden twice"
        elif each.flags & 0x3 == 0x2 or each.flags & 0xC == 0x8 or each.flags & ~0xF:
            why = f"flags {each.flags:#x} are reserved"
        elif not below or each.gsi >= bases[below - 1] + _GSIS:
            why = "no IO-APIC has that interrupt"
        seen.add(each.source)
        text = f"ISA interrupt {each.source} is {each.gsi}"
        yield judged(not why, "override", label, at, text, f"{text}: {why}")


def _others(label: str, madt: Madt) -> Iterator[Row]:
    """Yield a WARN row for each entry that is not decoded: neither Xen nor libxl makes such an entry."""
    for at, each in _placed(madt, OtherEntry):
        nmi = each.kind in (NMI_SOURCE, LAPIC_NMI)
        what = "an NMI entry" if nmi else f"an entry of type {each.kind:#x}"
        yield doubtful("madt-entry", label, at, f"{what}, which neither Xen nor libxl makes")
