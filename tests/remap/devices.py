"""Functions with memory BARs, MSI-X and virtual functions, made of a few words."""

import struct

import attrs

from pcipt.pci import Frames, Gfn, Resource, parse_sbdf
from pcipt.remap.actions import MapMmio, UnmapMmio
from pcipt.remap.desired import By
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.view import XenView
from tests.machines import bridge, function

S = parse_sbdf
WHEN = "2026-01-01T00:00:00Z"
MSIX_AT, SRIOV_AT = 0x40, 0x100


def device(address, bars=(), *, rom=None, msix=None, command=2, size=256, **more):
    """Make a function: `bars` by index (start, size), `rom` (start, size, enabled), `msix` (BAR, offset)."""
    lines = [(start, length, 0x200) if length else (0, 0, 0) for start, length in bars]
    lines += [(0, 0, 0)] * (6 - len(lines)) + [(rom[0], rom[1], 0x200) if rom else (0, 0, 0)]
    raw = function(
        address, command=command, bars=[start for start, _ in bars], resources=lines, size=size, **more
    )
    data = bytearray(raw.config)
    if rom:
        struct.pack_into("<I", data, 0x30, rom[0] | rom[2])
    if msix:
        data[0x06], data[0x34] = 0x10, MSIX_AT
        bar, offset = msix
        struct.pack_into("<BBHII", data, MSIX_AT, 0x11, 0, 3, offset | bar, offset + 0x800 | bar)
    return attrs.evolve(raw, config=bytes(data))


def with_vfs(raw, start, size, *, count=2, enabled=True, memory=True):
    """Give a function an SR-IOV structure with one VF BAR; its virtual functions are at +8, +9, …"""
    data = bytearray(raw.config.ljust(4096, b"\0"))
    control = enabled * 0x1 | memory * 0x8
    struct.pack_into("<I", data, SRIOV_AT, 1 << 16 | 0x10)
    struct.pack_into("<HHHHHH", data, SRIOV_AT + 8, control, 0, count, count, count, 0)
    struct.pack_into("<HHHH", data, SRIOV_AT + 0x14, 8, 1, 0, 0x1234)
    struct.pack_into("<I", data, SRIOV_AT + 0x24, start)
    lines = (*raw.resources, Resource(start, size * count, 0x200))
    return attrs.evolve(raw, config=bytes(data), resources=lines)


def window(raw, base, limit):
    """Open the memory window of a bridge."""
    data = bytearray(raw.config)
    struct.pack_into("<HH", data, 0x20, base >> 16 & 0xFFF0, limit >> 16 & 0xFFF0)
    return attrs.evolve(raw, config=bytes(data))


def prefetchable(raw, base, limit):
    """Open the prefetchable window of a bridge, below 4 GiB."""
    data = bytearray(raw.config)
    struct.pack_into("<HH", data, 0x24, base >> 16 & 0xFFF0, limit >> 16 & 0xFFF0)
    return attrs.evolve(raw, config=bytes(data))


def port(address="00:1c.0", secondary=1, subordinate=1, base=0xE000_0000, limit=0xEFFF_FFFF):
    return window(bridge(address, secondary, subordinate), base, limit)


def gone(raw):
    return attrs.evolve(raw, config=b"\xff" * 64)


def known(*addresses, **more):
    return XenView(frozenset(map(S, addresses)), **more)


def frames(start, count):
    """Make a run from the address of its first byte and the number of its pages."""
    return Frames(Gfn(start >> 12), count)


def holding(place, start, count, bar=0, by=By.US, sbdf="01:00.0", **more):
    return MappedRun(place, S(sbdf), bar, frames(start, count), by, WHEN, **more)


def map_of(place, start, count, bar=0, sbdf="01:00.0", reason="why"):
    return MapMmio(S(sbdf), reason, place, bar, frames(start, count))


def unmap_of(place, start, count, bar=0, sbdf="01:00.0", reason="why"):
    return UnmapMmio(S(sbdf), reason, place, bar, frames(start, count))
