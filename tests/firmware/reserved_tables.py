"""DMAR and IVRS tables for tests, made of a few words."""

import struct

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.madt import IoApic, Madt, build_madt
from pcipt.pci import Address


def scope(bus, *hops, kind=1):
    path = b"".join(bytes(hop) for hop in hops)
    return bytes([kind, 6 + len(path), 0, 0, 0, bus]) + path


def rmrr(base, limit, *scopes, segment=0):
    tail = b"".join(scopes)
    return struct.pack("<HHHHQQ", 1, 24 + len(tail), 0, segment, base, limit) + tail


UNIT_BASE = 0xFED9_0000


def drhd(*scopes, base=UNIT_BASE, flags=1, segment=0):
    """Make the entry of an IOMMU unit; by default it serves all functions of the segment."""
    tail = b"".join(scopes)
    return struct.pack("<HHBBHQ", 0, 16 + len(tail), flags, 0, segment, base) + tail


def dmar(*entries, name="DMAR", width=38, flags=1):
    """Make a DMAR table of the entries; `flags` 1 says that interrupts can be remapped."""
    return build_table(Header(name, 1), bytes([width, flags]) + bytes(10) + b"".join(entries))


def madt(*io_apics):
    """Make a MADT with IO-APICs of these ids."""
    return build_madt(
        Madt(
            Header("APIC", 3),
            Address(0xFEE0_0000),
            1,
            tuple(IoApic(i, Address(0xFEC0_0000), 0) for i in io_apics),
        )
    )


def fadt(flags, revision=3):
    """Make a FADT with these boot flags (IAPC_BOOT_ARCH)."""
    return build_table(Header("FACP", revision), bytes(109 - 36) + struct.pack("<H", flags) + bytes(133))


def ivmd(kind, flags, first, last, start, size, segment=0):
    return struct.pack("<BBHHHQQQ", kind, flags, 32, first, last, segment, start, size)


def ivhd(*entries, kind=0x10, segment=0, device=2, capability=0x40, base=0xFEB8_0000, pad=True):
    """Make an IVHD block; `device` is the routing id of the IOMMU itself. Xen needs 40 bytes (`pad`)."""
    body = b"".join(entries)
    if pad and kind == 0x10:
        body = body.ljust(16, b"\0")
    head = struct.pack(
        "<BBHHHQHH",
        kind,
        0,
        {0x10: 24}.get(kind, 40) + len(body),
        device,
        capability,
        base,
        segment,
        0,
    )
    return head.ljust({0x10: 24}.get(kind, 40), b"\0") + body


def select(routing):
    return struct.pack("<BHB", 2, routing, 0)


def span(first, last):
    return struct.pack("<BHBBHB", 3, first, 0, 4, last, 0)


def alias(routing, other):
    return struct.pack("<BHBBHB", 0x42, routing, 0, 0, other, 0)


def special(routing, *, variety=1, handle=0):
    """Make the entry of an IO-APIC (variety 1) or a HPET (2)."""
    return struct.pack("<BHBBHB", 0x48, 0, 0, handle, routing, variety)


INFO = 1 | 48 << 8 | 64 << 15  # IVinfo: extended features, widths of physical and virtual addresses
SOUTHBRIDGE = special(0xA0)  # the chipset's IO-APIC, with the id 0
EVERYTHING = ivhd(span(3, 0xFFFF), SOUTHBRIDGE)


def ivrs(*blocks, units=None, info=INFO):
    """Make an IVRS table: the units' blocks, then `blocks`. Without any unit, one serves all functions."""
    if units is None:
        units = () if any(block[0] in (0x10, 0x11, 0x40) for block in blocks) else (EVERYTHING,)
    body = struct.pack("<IQ", info, 0) + b"".join((*units, *blocks))
    return build_table(Header("IVRS", 2), body)
