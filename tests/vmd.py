"""Machines with VMD controllers for tests: a controller, and the functions of its segment inside its BARs."""

import struct

import attrs

from pcipt.pci import parse_sbdf
from tests.machines import function

CONFIG, MEMORY, MORE = 0x2100_0000_0000, 0xD000_0000, 0x2100_0200_0000  # BARs 0, 2 and 4 of the controller
MIB = 1 << 20


def controller(address="00:0e.0", *, at=MEMORY, command=0x6, driver="vmd"):
    bars = (CONFIG & 0xFFFF_FFF0 | 0xC, CONFIG >> 32, at, 0, MORE & 0xFFFF_FFF0 | 0xC, MORE >> 32)
    shift = (at - MEMORY) * 2  # the 64-bit BARs of another controller lie elsewhere as well
    bars = (bars[0] + shift, bars[1], at, 0, bars[4] + shift, bars[5])
    lines = [(0, 0, 0)] * 7
    lines[0] = (CONFIG + shift, 32 * MIB, 0x14220C)
    lines[2] = (at, 32 * MIB, 0x40200)
    lines[4] = (MORE + shift, MIB, 0x14220C)
    return function(
        address, vendor=0x8086, device=0x28C0, class_code=0x010400, command=command, bars=bars,
        resources=lines, driver=driver,
    )  # fmt: skip


def port(address="10000:e0:06.0", secondary=0xE1, *, at=MEMORY, below="00:0e.0"):
    """The root port of the segment; `below` None: Linux's directories do not tell the controller."""
    bus = parse_sbdf(address).bus
    raw = function(address, header=1, class_code=0x060400, command=0x7, buses=(bus, secondary, secondary))
    data = bytearray(raw.config)
    struct.pack_into("<HH", data, 0x20, at >> 16 & 0xFFF0, (at + 0xF_FFFF) >> 16 & 0xFFF0)
    above = parse_sbdf(below) if below is not None else None
    return attrs.evolve(raw, config=bytes(data), controller=above)


def disk(address="10000:e1:00.0", parent="10000:e0:06.0", *, at=MEMORY, size=0x4_0000, command=0x6):
    return function(
        address, parent=parent, vendor=0x1344, device=0x51C0, class_code=0x010802, command=command,
        bars=(at | 4, at >> 32), resources=((at, size, 0x140204),), driver="nvme",
    )  # fmt: skip


def vmd_machine(*, below="00:0e.0"):
    return [function("00:00.0", class_code=0x060000), controller(), port(below=below), disk()]
