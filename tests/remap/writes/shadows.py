"""Machines to shadow, and a short way to write to them."""

import struct

import attrs

from pcipt.pci import parse_sbdf
from pcipt.pci.write import ConfigRead, ConfigWrite
from pcipt.remap.writes.changes import BarMapped, BarMoved, BarUnmapped
from pcipt.remap.writes.initial import shadow_from_raws
from pcipt.remap.writes.json_view import json_from_change
from pcipt.remap.writes.shadow import step
from tests.machines import bridge, function

NIC = "02:00.0"  # behind the root port 00:1c.0
MIB = 1 << 20
RESOURCES = [
    (0xFE80_0000, 0x2_0000, 0x200),  # BAR 0: 128 KiB
    (0xC000, 0x20, 0x100),  # BAR 1: 32 ports
    (0x38_0000_0000, 0x10_0000, 0x14_2200),  # BAR 2 and 3: 1 MiB, 64 bits
    (0, 0, 0),
    (0, 0, 0),
    (0, 0, 0),
    (0xFE84_0000, 0x1_0000, 0x200),  # ROM
]
BARS = (0xFE80_0000, 0xC001, 0x0000_000C, 0x38)
EXPRESS, FEATURES, SRIOV, REBAR = 0x40, 0x60, 0x100, 0x140


def nic(
    address=NIC, parent="00:1c.0", command=3, capabilities=True, flr=True, resources=RESOURCES, bars=BARS
):
    raw = function(address, parent=parent, command=command, bars=bars, resources=resources, size=4096)
    data = bytearray(raw.config)
    struct.pack_into("<I", data, 0x30, 0xFE84_0000)
    if capabilities:
        data[0x06], data[0x34] = 0x10, EXPRESS
        struct.pack_into("<BBHI", data, EXPRESS, 0x10, FEATURES, 2, (1 << 28) * flr)
        struct.pack_into("<BBH", data, FEATURES, 0x13, 0, 0x0306)
        struct.pack_into("<I", data, SRIOV, REBAR << 20 | 1 << 16 | 0x10)
        struct.pack_into(
            "<HHHHHH", data, SRIOV + 8, 0, 0, 8, 8, 0, 0
        )  # control, status, initial, total, number
        struct.pack_into("<HH", data, SRIOV + 0x14, 0x80, 2)  # first VF at 10.0, then every second
        struct.pack_into("<II", data, SRIOV + 0x24, 0xFD00_0004, 0)
        struct.pack_into("<I", data, REBAR, 1 << 16 | 0x15)
        struct.pack_into("<II", data, REBAR + 4, 0x7 << 4, 1 << 5 | 2)  # 1, 2, 4 MiB; one BAR: 2; 1 MiB now
    lines = raw.resources
    if capabilities:
        lines += (attrs.evolve(lines[0], start=0xFD00_0000, size=8 * 0x4000, flags=0x10_0200),)
    return attrs.evolve(raw, config=bytes(data), resources=lines)


def machine(*extra, obeys=True, **options):
    return shadow_from_raws([bridge("00:1c.0", 2, 4), nic(**options), *extra], obeys=obeys)


def write(address, offset, size, value, n=None):
    return ConfigWrite(parse_sbdf(address), offset, size, value, number=n)


def read(address, offset, size, value, n=None):
    return ConfigRead(parse_sbdf(address), offset, size, value, n)


def run(state, *events):
    """Fold events in; give the state and all changes."""
    changes = []
    for event in events:
        state, found = step(state, event)
        changes += found
    return state, changes


def told(changes):
    """Show changes as (kind, address, and what tells it from others of its kind)."""
    return [_told(change) for change in changes]


def _told(change):
    shown = json_from_change(change)
    assert shown is not None
    kind = shown["change"]
    if isinstance(change, BarMapped | BarUnmapped | BarMoved):
        return (kind, shown["bar"], shown["from"], shown["to"])
    return (kind, shown.get("to", shown.get("reset")))


def mapped(state):
    return _spans(state.mapped())


def virtual(state):
    return _spans(state.virtual())


def _spans(entries):
    return {(str(entry.sbdf)[5:], entry.bar): (entry.range.start, entry.range.size) for entry in entries}
