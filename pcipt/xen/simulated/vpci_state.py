"""What vPCI remembers of one function: its BARs, its MSI-X and Resizable BAR structures, read from hardware.

Source: Xen xen/drivers/vpci/header.c (init_bars, vpci_init_header), msix.c (init_msix), rebar.c (init_rebar),
        xen/drivers/passthrough/pci.c (pci_size_mem_bar).
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.xen.simulated.model import Hardware

STATUS, CAPABILITIES, HEADER_TYPE, COMMAND, BAR0, ROM = 0x06, 0x34, 0x0E, 0x04, 0x10, 6
ROM_ENABLE, ROM_MASK, ADDRESS_MASK = 0x1, 0xFFFF_F800, 0xFFFF_FFF0
LOW, WORD64, PAGE_SHIFT = 0xFFFF_FFFF, (1 << 64) - 1, 12
MSIX_ID, MSIX_ENABLE, MSIX_MASK_ALL = 0x11, 0x8000, 0x4000
REBAR_ID, EXTENDED_AT = 0x15, 0x100
#  header type: number of BARs, byte offset of the ROM register
HEADERS = {0: (6, 0x30), 1: (2, 0x38)}


@runtime_checkable
class ConfigHardware(Hardware, Protocol):
    """Hardware whose registers can be read and written. The Xen of a PVH dom0 does both."""

    def config(self, function: Sbdf) -> bytes | None:
        """Return the config space of a function; None if no function is there."""

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register of a function. Nothing happens if no function is at this address."""


@attrs.define(eq=False)
class Bar:
    """A memory BAR or ROM as vPCI remembers it. `enabled` is True while vPCI takes it for mapped.

    `offset` is the byte offset of its register; `flags` are the low bits of a BAR that vPCI writes back;
    `wide` is True for a 64-bit BAR. `index` 6 is the ROM. The address may be any 64-bit number.
    """

    index: int
    offset: int
    size: int
    address: int
    flags: int = 0
    wide: bool = False
    enabled: bool = False

    @property
    def pages(self) -> tuple[int, int]:
        """The first and the last page; the last one is the lower one if the address wraps."""
        return self.address >> PAGE_SHIFT, (self.address + self.size - 1 & WORD64) >> PAGE_SHIFT


@attrs.define(eq=False)
class MsixState:
    """The MSI-X structure at byte offset `at`, as vPCI remembers it.

    `places` are (BAR number, byte offset, size in bytes) of the table and of the pending bits. `control` are
    the enable and the mask bit that dom0 has written.
    """

    at: int
    entries: int
    places: tuple[tuple[int, int, int], tuple[int, int, int]]
    control: int = 0

    @property
    def register(self) -> int:
        """The value of Message Control as dom0 reads it."""
        return self.entries - 1 | self.control


@attrs.define(eq=False)
class Handlers:
    """The handlers of one function, with the state that vPCI remembers.

    `serial` grows with each set-up. `bars` are in the order of their registers, the ROM last. `mapped` is
    True while vPCI remembers that memory decode is on. `rom_enabled` is True if the ROM's enable bit is set.
    `resizable` maps the offset of a Resizable BAR Control register to its BAR. `hidden` is the offset of an
    MSI-X structure that dom0 must not see, `locked` its Message Control if dom0 cannot write that either.
    `away` is True while a guest has the function.
    """

    function: Sbdf
    serial: int
    bars: list[Bar]
    rom_enabled: bool
    msix: MsixState | None = None
    resizable: dict[int, Bar] = attrs.Factory(dict)
    mapped: bool = False
    hidden: int | None = None
    locked: int | None = None
    away: bool = False

    @property
    def rom(self) -> Bar | None:
        """The function's ROM; None if it has none."""
        return next((bar for bar in self.bars if bar.index == ROM), None)

    def tables(self) -> Iterator[tuple[Bar | None, tuple[int, int]]]:
        """Yield (BAR, (first page, last page)) of the MSI-X table and of the pending bits.

        The pages follow the remembered address of the BAR. They are counted from 0 if the BAR is missing: the
        BARs of a virtual function are 0 to vPCI.
        """
        bars = {bar.index: bar for bar in self.bars if bar.index != ROM}
        for index, offset, size in self.msix.places if self.msix is not None else ():
            bar = bars.get(index)
            start = (bar.address if bar is not None else 0) + offset & WORD64
            yield bar, (start >> PAGE_SHIFT, (start + size - 1 & WORD64) >> PAGE_SHIFT)


class Reader:
    """The registers of one function of the hardware, as Xen itself reads and writes them."""

    def __init__(self, hardware: ConfigHardware, function: Sbdf) -> None:
        self._hardware = hardware
        self._function = function

    def read(self, offset: int, size: int) -> int:
        """Return the little-endian number of `size` bytes at `offset`; all ones where nothing answers."""
        data = (self._hardware.config(self._function) or b"")[offset : offset + size]
        return int.from_bytes(data.ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes at `offset`."""
        self._hardware.write(self._function, offset, size, value)

    def size(self, offset: int, *, rom: bool = False, last: bool = False) -> tuple[int, int]:
        """Size a memory BAR by writing all ones; return (address, size in bytes).

        The size is 0 if the BAR is not implemented. `last` is True for the last BAR of a header: if it says
        that it is a 64-bit BAR, its size is 0 too, and its register keeps the ones.
        """
        value, mask = self.read(offset, 4), ROM_MASK if rom else ADDRESS_MASK
        wide = not rom and value & 0x6 == 0x4
        self.write(offset, 4, LOW)
        high = 0
        if wide:
            if last:
                return 0, 0
            high = self.read(offset + 4, 4)
            self.write(offset + 4, 4, LOW)
        ones = self.read(offset, 4) & mask
        if wide:
            ones |= self.read(offset + 4, 4) << 32
            self.write(offset + 4, 4, high)
        elif ones:
            ones |= LOW << 32
        self.write(offset, 4, value)
        return value & mask | high << 32, -ones & WORD64

    def capability(self, wanted: int) -> int:
        """Return the byte offset of a capability, 0 if the function has none."""
        at = self.read(CAPABILITIES, 1) & ~3 if self.read(STATUS, 2) & 0x10 else 0
        for _ in range(48):
            if at < 0x40:
                return 0
            if self.read(at, 1) == wanted:
                return at
            at = self.read(at + 1, 1) & ~3
        return 0

    def extended_capability(self, wanted: int) -> int:
        """Return the byte offset of an extended capability, 0 if the function has none."""
        length = len(self._hardware.config(self._function) or b"")
        at = EXTENDED_AT
        for _ in range(480):
            if not at >= EXTENDED_AT or at + 4 > length:
                return 0
            header = self.read(at, 4)
            if header & 0xFFFF == wanted and header not in (0, LOW):
                return at
            at = header >> 20 & 0xFFC
        return 0


def bars_of(reader: Reader, header: tuple[int, int]) -> tuple[list[Bar], bool]:
    """Size and return the memory BARs of a function, the ROM last, and whether the ROM's enable bit is set.

    Memory decode must be off.
    """
    count, rom_at = header
    found: list[Bar] = []
    number = 0
    while number < count:
        offset = BAR0 + 4 * number
        value = reader.read(offset, 4)
        wide = value & 0x7 == 0x4
        if not value & 1:
            address, size = reader.size(offset, last=number == count - 1)
            if size:
                flags = value & 0x8 | (0x4 if wide else 0)
                found.append(Bar(number, offset, size, address, flags, wide))
        number += 2 if wide else 1
    address, size = reader.size(rom_at, rom=True)
    if not size:
        return found, False
    found.append(Bar(ROM, rom_at, size, address))
    return found, bool(reader.read(rom_at, 4) & ROM_ENABLE)


def msix_of(reader: Reader) -> MsixState | None:
    """Return the MSI-X structure of a function; None if it has none."""
    at = reader.capability(MSIX_ID)
    if not at:
        return None
    entries = (reader.read(at + 2, 2) & 0x7FF) + 1
    table, pending = reader.read(at + 4, 4), reader.read(at + 8, 4)
    return MsixState(
        at,
        entries,
        (
            (table & 7, table & ~7, entries * 16),
            (pending & 7, pending & ~7, (entries + 63) // 64 * 8),
        ),
    )


def resizable_of(reader: Reader, bars: list[Bar]) -> dict[int, Bar]:
    """Return the BARs that can be resized, by the byte offset of their Control register."""
    at = reader.extended_capability(REBAR_ID)
    by_index = {bar.index: bar for bar in bars if bar.index != ROM}
    count = reader.read(at + 8, 4) >> 5 & 7 if at else 0
    controls = [at + 8 + 8 * number for number in range(count)]
    found = {control: by_index.get(reader.read(control, 4) & 7) for control in controls}
    return {control: bar for control, bar in found.items() if bar is not None}


def msix_fault(handlers: Handlers) -> str:
    """Return the first fault of a function's MSI-X tables, as Xen prints it; "" if there is none.

    A table must lie in a memory BAR of the function, and not beyond its end.
    """
    sizes = {bar.index: bar.size for bar in handlers.bars if bar.index != ROM}
    places = handlers.msix.places if handlers.msix is not None else ()
    for name, (index, offset, size) in zip(("vector", "PBA"), places, strict=False):
        if index >= ROM:
            return f"{name} table with out of range BIR {index}"
        if index not in sizes:
            return f"{name} table at invalid BAR{index} with type 0"
        if offset + size > sizes[index]:
            return (
                f"{name} table offset {offset:#x} size {size:#x} outside of BAR{index} size {sizes[index]:#x}"
            )
    return ""


def decode_bit(command: int) -> bool:
    """Return True if a value of the Command register has memory decode on."""
    return bool(command & COMMAND_MEMORY)
