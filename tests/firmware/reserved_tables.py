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


def ivrs(*blocks):
    return build_table(Header("IVRS", 2), bytes(12) + b"".join(blocks))
