"""Random machines whose BARs lie close together, and random accesses to them, as data.

An operation is ("w", address, offset, size, value), ("reset", address), ("remove", address) or
("add", address).
"""

import functools
import random
import struct

import attrs

from pcipt.pci import Ids, RawFunction, Resource, parse_sbdf

MEM64, MEM32 = Resource.MEMORY | Resource.MEM_64, Resource.MEMORY
MSIX_AT = 0x40
COMMAND_BITS, STATUS_CLEAR = 0x0547, 0xF900
RAM = (0x10_0000, 0x0FF0_0000)  # start, size: [1 MiB, 256 MiB)
FREE = 0xE000_0000
DENIED = ((0xFEC00, 0xFEC00), (0xFEE00, 0xFEEFF))  # pages that dom0 may not access
BRIDGE_BITS = (
    (0x18, 3, 0xFF_FFFF), (0x1B, 1, 0xFF), (0x1C, 2, 0xF0F0), (0x20, 4, 0xFFF0_FFF0), (0x24, 4, 0xFFF0_FFF0),
    (0x28, 8, 0xFFFF_FFFF_FFFF_FFFF), (0x30, 4, 0xFFFF_FFFF), (0x3E, 2, 0x0FFF),
)  # fmt: skip


@functools.lru_cache
def _address(text):
    return parse_sbdf(text)


@attrs.frozen
class BarSpec:
    """A memory BAR: number, address, size in bytes."""

    index: int
    address: int
    size: int
    wide: bool = False
    prefetch: bool = False


@attrs.frozen
class Spec:
    """One function. `rom` is (register, size), `msix` (BAR, table, pending bits, vectors), `io` (BAR,
    address, size), `rebar` (BAR, log2 of its size in MiB; the structure is at 0x100).
    """

    address: str
    bars: tuple[BarSpec, ...] = ()
    rom: tuple[int, int] | None = None
    msix: tuple[int, int, int, int] | None = None
    header: int = 0
    command: int = 2
    io: tuple[int, int, int] | None = None
    rebar: tuple[int, int] | None = None

    @property
    def sbdf(self):
        return _address(self.address)

    @property
    def number(self):
        sbdf = self.sbdf
        return sbdf.segment << 16 | sbdf.bus << 8 | sbdf.devfn

    @property
    def rom_at(self):
        return 0x38 if self.header == 1 else 0x30

    @property
    def length(self):
        return 4096 if self.rebar else 256

    def build(self):
        """Give config space, writable bits and write-one-to-clear bits; made here, not by pcipt."""
        data, mask, clear = (bytearray(self.length) for _ in range(3))
        status = 0x10 if self.msix else 0
        code = 0x06_0400 if self.header == 1 else 0x02_0000
        struct.pack_into("<HHHHI", data, 0, 0x8086, 0x10D3, self.command, status, code << 8)
        struct.pack_into("<H", mask, 4, COMMAND_BITS)
        struct.pack_into("<H", clear, 6, STATUS_CLEAR)
        data[0x0E] = self.header
        mask[0x0C] = mask[0x3C] = 0xFF
        if self.header == 1:
            behind = 0x10 + self.sbdf.device
            data[0x18:0x1B] = bytes((self.sbdf.bus, behind, behind))
            for at, size, bits in BRIDGE_BITS:
                mask[at : at + size] = bits.to_bytes(size, "little")
        for bar in self.bars:
            at, kind = 0x10 + 4 * bar.index, (4 if bar.wide else 0) | (8 if bar.prefetch else 0)
            struct.pack_into("<I", data, at, bar.address & 0xFFFF_FFF0 | kind)
            struct.pack_into("<I", mask, at, -bar.size & 0xFFFF_FFF0)
            if bar.wide:
                struct.pack_into("<I", data, at + 4, bar.address >> 32)
                struct.pack_into("<I", mask, at + 4, -bar.size >> 32 & 0xFFFF_FFFF)
        if self.io is not None:
            index, address, size = self.io
            struct.pack_into("<I", data, 0x10 + 4 * index, address | 1)
            struct.pack_into("<I", mask, 0x10 + 4 * index, -size & 0xFFFF_FFFC)
        if self.rom:
            struct.pack_into("<I", data, self.rom_at, self.rom[0])
            struct.pack_into("<I", mask, self.rom_at, -self.rom[1] & 0xFFFF_F800 | 1)
        if self.msix:
            bar, table, pending, vectors = self.msix
            data[0x34] = MSIX_AT
            struct.pack_into("<BBHII", data, MSIX_AT, 0x11, 0, vectors - 1, table | bar, pending | bar)
            struct.pack_into("<H", mask, MSIX_AT + 2, 0xC000)
        if self.rebar:
            control = self.rebar[0] | 1 << 5 | self.rebar[1] << 8
            struct.pack_into("<III", data, 0x100, 0x0001_0015, 0xFF << 4, control)
            mask[0x109] = 0x3F
        return bytes(data), bytes(mask), bytes(clear)

    def raw(self):
        """Give the function as Linux would read it."""
        lines = [Resource(0, 0, 0)] * 13
        for bar in self.bars:
            lines[bar.index] = Resource(bar.address, bar.size, MEM64 if bar.wide else MEM32)
        if self.io is not None:
            lines[self.io[0]] = Resource(self.io[1], self.io[2], Resource.IO)
        if self.rom:
            lines[6] = Resource(self.rom[0] & ~1, self.rom[1], MEM32)
        behind = 0x10 + self.sbdf.device if self.header == 1 else None
        return RawFunction(
            sbdf=self.sbdf, config=self.build()[0], resources=tuple(lines), ids=Ids(),
            root_bus=self.sbdf.bus, secondary=behind,
        )  # fmt: skip

    def after_reset(self):
        """Give what a function-level reset leaves, by offset: Command, BARs, ROM and MSI-X enable are 0."""
        data, mask, _ = self.build()
        places = [
            *range(4, 6), *range(0x10, 0x18 if self.header == 1 else 0x28),
            *range(self.rom_at, self.rom_at + 4), *([MSIX_AT + 3] if self.msix else ()),
        ]  # fmt: skip
        return {at: data[at] & ~mask[at] for at in places}

    def table_pages(self, bars):
        """Give the pages of MSI-X, where vPCI's BARs are `bars`: number to (address, size, enabled)."""
        if not self.msix or not bars or self.msix[0] not in bars:
            return []
        bar, table, pending, vectors = self.msix
        base, pages = bars[bar][0], []
        for at, size in ((table, vectors * 16), (pending, (vectors + 63) // 64 * 8)):
            first, last = base + at >> 12, base + at + size - 1 >> 12
            pages += [page & (1 << 52) - 1 for page in range(first, last + 1)]
        return pages


def make_machine(chance):
    """Make one to three functions whose BARs share pages and overlap."""

    def page():
        return FREE + chance.randrange(24) * 0x1000

    specs = []
    for place, kind in enumerate(chance.sample(range(7), chance.choice((1, 2, 2, 3))), 3):
        address, command = f"00:{place:02x}.0", chance.choice((0, 2, 2, 6, 7))
        wide = chance.random() < 0.5
        if kind == 0:
            small = BarSpec(1, page() + chance.choice((0, 0x800)), 0x100)
            specs.append(Spec(address, (BarSpec(0, page(), 0x1000), small), command=command))
        elif kind == 1:
            high = chance.choice((page() & ~0x3FFF, 0x1_0000_0000))
            bars = (BarSpec(0, high, 0x4000, True, True), BarSpec(2, page() & ~0x1FFF, 0x2000))
            rom = (page() & ~0x7FF | chance.choice((0, 1)), 0x800)
            specs.append(Spec(address, bars, rom=rom, command=command))
        elif kind == 2:
            table = chance.choice((0, 0x1000, 0x2800))
            msix = (0, table, chance.choice((table + 0x400, 0x3000)), chance.choice((1, 4, 65)))
            bars = (BarSpec(0, page() & ~0x3FFF, 0x4000, wide),)
            specs.append(Spec(address, bars, msix=msix, command=command))
        elif kind == 3:
            bars = (BarSpec(0, page(), 0x800), BarSpec(2, page() & ~0xFFF, 0x1000, True))
            rom = (page() & ~0x1FFF | chance.choice((0, 1)), 0x2000)
            specs.append(Spec(address, bars, rom, (2, 0, 0x800, 8), command=command, io=(1, 0xC000, 0x20)))
        elif kind == 4:
            rom = (page() & ~0xFFF, 0x1000)
            specs.append(Spec(address, (BarSpec(0, page(), 0x1000, wide),), rom, header=1, command=command))
        elif kind == 5:  # MSI-X in a BAR that is missing or too small; a virtual function has no BARs at all
            bars = chance.choice(((), (BarSpec(0, page(), 0x1000),), (BarSpec(5, page(), 0x1000, True),)))
            msix = (
                chance.choice((0, 1, 5)),
                chance.choice((0, 0x800, 0x1000)),
                0xC00,
                chance.choice((1, 65)),
            )
            specs.append(Spec(address, bars, msix=msix, command=command))
        else:
            at = chance.choice((0xD000_0000, 0xD040_0000, 0x8_0000_0000))
            rebar = chance.choice((None, (0, 2)))
            specs.append(
                Spec(address, (BarSpec(0, at, 0x40_0000, True, True),), command=command, rebar=rebar)
            )
    return specs


class _Script:
    """The operations of one run, as they are made."""

    def __init__(self, chance, specs):
        self.chance, self.specs = chance, specs
        self.ops = []
        self.present = {spec.address for spec in specs}

    def write(self, spec, at, size, value):
        self.ops.append(("w", spec.address, at, size, value & (1 << 8 * size) - 1))

    def somewhere(self):
        """Give an address: free, over RAM and its end, in the low 1 MiB, denied to dom0, or 0."""
        near = [
            FREE + self.chance.randrange(24) * 0x1000 + self.chance.choice((0, 0, 0, 0x800)) for _ in range(4)
        ]
        return self.chance.choice(
            [*near, 0, 0x20_0000, RAM[0] + RAM[1] - 0x2000, 0xA_0000, 0xFEC0_0000, 0xFEE0_0000]
        )

    def write_bar(self, spec):
        """Size a BAR as Linux does or half of it, move it in one or two writes, or write a part of it."""
        chance, bar = self.chance, self.chance.choice(spec.bars)
        at, address = 0x10 + 4 * bar.index, self.somewhere()
        wide = bar.wide and bar.index < 5
        high = chance.choice((0, 0, 0, 1, 8, 0xFFFF_FFFF))
        what = chance.random()
        if what < 0.2:
            if chance.random() < 0.6:
                self.write(spec, 4, 2, 0)
            self.write(spec, at, 4, 0xFFFF_FFFF)
            if wide:
                self.write(spec, at + 4, 4, 0xFFFF_FFFF)
            if chance.random() < 0.8:
                self.write(spec, at, 4, address)
                if wide:
                    self.write(spec, at + 4, 4, high if chance.random() < 0.3 else 0)
        elif what < 0.6 or not wide:
            self.write(spec, at, 4, address)
        elif what < 0.8:
            halves = [(at, address), (at + 4, high)]
            chance.shuffle(halves)
            for place, value in halves:
                self.write(spec, place, 4, value)
        else:
            self.write(spec, at + 4, 4, high)
        if chance.random() < 0.2:
            size = chance.choice((1, 2))
            place = at + chance.randrange(0, 8 if wide else 4, size)
            self.write(spec, place, size, chance.choice((0, 0xE0, 0xE000, 0xFF, 0xFFFF)))

    def write_rom(self, spec):
        value = self.somewhere() & ~0x7FF | self.chance.choice((0, 1, 1))
        if self.chance.random() < 0.8:
            self.write(spec, spec.rom_at, self.chance.choice((4, 4, 4, 1, 2)), value)
        else:
            self.write(spec, spec.rom_at, 4, self.chance.choice((0xFFFF_F800, 0, 1)))

    def reset(self, spec):
        """Reset a function behind vPCI; Linux mostly restores BARs from the highest down, Command last."""
        self.ops.append(("reset", spec.address))
        if self.chance.random() < 0.8:
            data, _, _ = spec.build()
            for at in range(0x24, 0x0C, -4):
                if not (spec.header == 1 and at > 0x14):
                    self.write(spec, at, 4, struct.unpack_from("<I", data, at)[0])
            saved = struct.unpack_from("<H", data, 4)[0]
            self.write(spec, 4, 4, saved if self.chance.random() < 0.5 else 2)

    def remove_or_add(self, spec):
        self.ops.append(("remove" if spec.address in self.present else "add", spec.address))
        self.present ^= {spec.address}


def make_ops(chance, specs, steps):
    """Make at least `steps` operations."""
    script = _Script(chance, specs)
    while len(script.ops) < steps:
        spec, roll = chance.choice(specs), chance.random()
        if roll < 0.30:
            command = chance.choice((0, 2, 2, 4, 5, 6, 7, 0x400, 0x402, 0x506))
            script.write(spec, 4, chance.choice((1, 2, 2, 4)), command)
        elif roll < 0.55 and spec.bars:
            script.write_bar(spec)
        elif roll < 0.70 and spec.rom:
            script.write_rom(spec)
        elif roll < 0.76 and spec.msix:
            script.write(spec, MSIX_AT + 2, 2, chance.choice((0, 0x8000, 0xC000, 0x4000)))
        elif roll < 0.79 and spec.rebar:
            script.write(spec, 0x108, 4, 1 << 5 | chance.choice((0, 1, 2, 3)) << 8)
        elif roll < 0.82:
            at, size = chance.choice(((0x3C, 1), (0x0C, 1), (6, 2), (0x34, 1), (0x0E, 1), (0x2C, 4), (0, 4)))
            script.write(spec, at, size, chance.choice((0, 0xFF, 0xFFFF_FFFF)))
        elif roll < 0.90:
            script.reset(spec)
        elif roll < 0.95:
            script.remove_or_add(spec)
    return script.ops


def sequence(seed, steps=30):
    """Give the machine and the operations of a seed."""
    chance = random.Random(seed)
    specs = make_machine(chance)
    return specs, make_ops(chance, specs, steps)
