"""DMAR and IVRS tables for tests, made of a few words."""

import struct

from pcipt.firmware.acpi.build_table import Header, build_table


def scope(bus, *hops, kind=1):
    path = b"".join(bytes(hop) for hop in hops)
    return bytes([kind, 6 + len(path), 0, 0, 0, bus]) + path


def rmrr(base, limit, *scopes, segment=0):
    tail = b"".join(scopes)
    return struct.pack("<HHHHQQ", 1, 24 + len(tail), 0, segment, base, limit) + tail


def dmar(*entries, name="DMAR"):
    return build_table(Header(name, 1), bytes(12) + b"".join(entries))


def ivmd(kind, flags, first, last, start, size, segment=0):
    return struct.pack("<BBHHHQQQ", kind, flags, 32, first, last, segment, start, size)


def ivhd(*entries, kind=0x10, segment=0, device=2, capability=0x40):
    """Make an IVHD block; `device` is the routing id of the IOMMU itself."""
    body = b"".join(entries)
    head = struct.pack(
        "<BBHHHQHH",
        kind,
        0,
        {0x10: 24}.get(kind, 40) + len(body),
        device,
        capability,
        0xFEB8_0000,
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
EVERYTHING = ivhd(span(3, 0xFFFF))


def ivrs(*blocks, units=None, info=INFO):
    """Make an IVRS table: the units' blocks, then `blocks`. Without any unit, one serves all functions."""
    if units is None:
        units = () if any(block[0] in (0x10, 0x11, 0x40) for block in blocks) else (EVERYTHING,)
    body = struct.pack("<IQ", info, 0) + b"".join((*units, *blocks))
    return build_table(Header("IVRS", 2), body)
