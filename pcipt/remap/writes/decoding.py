"""Decode the registers of a shadow: the ranges that decode, the windows of bridges, the bus numbers. Pure.

If a register that a range or window depends on is not known, the result is `UNKNOWN`. That is not None: None
says that nothing decodes, or that a window is closed.
Source: PCI Local Bus 3.0 §6.2.5; PCI Express Base 6.0 §9.3.3 (SR-IOV); QEMU hw/pci/pci.c, pci_bar_address,
        for what an implementation does with addresses at the edges.
"""

import enum
from collections.abc import Iterator

import attrs

from pcipt.pci.address import Sbdf, sbdf_from_devfn
from pcipt.pci.bars import LAYOUT, ROM_INDEX, VF_BAR_COUNT, VF_BAR_INDEX, BarKind
from pcipt.pci.bridge import Window, WindowKind, io_window, memory_window, prefetchable_window
from pcipt.pci.config import COMMAND_IO, COMMAND_MEMORY, HEADER_SIZE, ConfigSpace, HeaderType
from pcipt.pci.sriov import SYSTEM_PAGE_SIZE, VF_ENABLE, VF_MEMORY_ENABLE, aperture, page_size_of
from pcipt.pci.structures import SRIOV
from pcipt.pci.units import Address, Range
from pcipt.remap.writes.changes import Decode, Numbers, VfRange
from pcipt.remap.writes.function_shadow import (
    IO_BIT,
    ROM_ADDRESS,
    SRIOV_BARS,
    TYPE_64,
    TYPE_BITS,
    BarRegister,
    FunctionShadow,
)
from pcipt.remap.writes.registers import COMMAND

SPACE_END = {BarKind.IO: 1 << 32, BarKind.MEM32: 1 << 32, BarKind.ROM: 1 << 32, BarKind.MEM64: 1 << 64}
X86_PORTS = 1 << 16

WINDOWS = {
    #                         offsets of its words               decoder
    WindowKind.IO: ((0x1C, 0x30), io_window),
    WindowKind.MEMORY: ((0x20,), memory_window),
    WindowKind.PREFETCHABLE: ((0x24, 0x28, 0x2C), prefetchable_window),
}


@attrs.frozen
class Mapped:
    """A BAR that decodes at `range`. `bar` is 0 to 5, or 6 for the ROM."""

    sbdf: Sbdf
    bar: int
    range: Range


class Unknown(enum.Enum):
    """The type of `UNKNOWN`: a register or size that the result depends on is not known."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


def bar_registers(function: FunctionShadow) -> tuple[BarRegister, ...]:
    """Return the registers of the implemented BARs, in index order, the ROM last.

    A BAR is left out if its type is not known, or if its size is known to be 0 (not implemented). The ROM is
    left out if its size is known to be 0, or if the header type has no ROM. The result is empty for a
    virtual function. A function whose header type is None is taken for an endpoint.
    """
    if function.bars is None:
        base, count, rom = LAYOUT[function.header or HeaderType.ENDPOINT]
        found = _bar_registers(function, base, 0, 0 if function.virtual else count)
        if rom is not None and not function.virtual and function.sizes.get(ROM_INDEX) != 0:
            found = (*found, BarRegister(ROM_INDEX, BarKind.ROM, rom, wide=False))
        object.__setattr__(function, "bars", found)  # asked for at every write, and always the same
        return found
    return function.bars


def _bar_registers(function: FunctionShadow, base: int, first: int, count: int) -> tuple[BarRegister, ...]:
    """Return the registers of up to `count` BARs whose words begin at offset `base`, numbered from `first`.

    BARs that are not implemented, or whose type is not known, are left out. A 64-bit BAR uses two numbers.
    """
    found = []
    number = 0
    while number < count:
        bits = function.types.get(first + number)
        wide = bits is not None and bits & (IO_BIT | TYPE_BITS) == TYPE_64 and number + 1 < count
        if bits is not None and function.sizes.get(first + number) != 0:
            kind = BarKind.IO if bits & IO_BIT else BarKind.MEM64 if wide else BarKind.MEM32
            found.append(BarRegister(first + number, kind, base + 4 * number, wide=wide))
        number += 2 if wide else 1
    return tuple(found)


def decode_of(function: FunctionShadow) -> Decode | None:
    """Return the decode bits of the Command register, or None if they are not known."""
    command = function.read(COMMAND, 1)
    if command is None:
        return None
    return Decode(bool(command & COMMAND_IO), bool(command & COMMAND_MEMORY))


def rom_enable(function: FunctionShadow) -> bool | None:
    """Return True if the enable bit in the ROM BAR is set.

    Return None if there is no ROM, or if the header type, the ROM's size or the bit is not known.
    """
    rom = LAYOUT[function.header][2] if function.header is not None else None
    low = function.read(rom, 1) if rom is not None and function.sizes.get(ROM_INDEX) else None
    return None if low is None else bool(low & 1)


def decoded_range(function: FunctionShadow, bar: BarRegister) -> Range | Unknown | None:
    """Return the range that a BAR decodes now, None if it decodes nothing, or UNKNOWN.

    UNKNOWN: the Command register is not known, or decoding is on and a word or the size of the BAR is not
    known. A BAR whose address nobody has assigned decodes nothing (`assigned_range`).
    """
    command = function.read(COMMAND, 1)
    if command is None:
        return UNKNOWN
    if not command & (COMMAND_IO if bar.kind is BarKind.IO else COMMAND_MEMORY):
        return None
    value, size = bar_value(function, bar), function.sizes.get(bar.index)
    if value is None or size is None:
        return UNKNOWN
    if bar.kind is BarKind.ROM and not value & 1:
        return None
    return assigned_range(value & ~(size - 1), size, bar.kind)


def bar_value(function: FunctionShadow, bar: BarRegister) -> int | None:
    """Return the address in a BAR's register, both halves of it, or None if a byte of it is not known.

    The type bits are cleared. Bit 0 of a ROM, its enable bit, is kept.
    """
    low = function.read(bar.offset, 4)
    high = function.read(bar.offset + 4, 4) if bar.wide else 0
    if low is None or high is None:
        return None
    mask = (
        ROM_ADDRESS | 1 if bar.kind is BarKind.ROM else 0xFFFF_FFFC if bar.kind is BarKind.IO else 0xFFFF_FFF0
    )
    return low & mask | high << 32


def assigned_range(address: int, size: int, kind: BarKind) -> Range | None:
    """Return the range of `size` bytes at `address`, or None if nobody has assigned such an address.

    That is so for address 0, and if the range ends at or above the top of the address space: 2**64 for 64-bit
    BARs, else 4 GiB. It is so, too, for an I/O BAR whose range ends exactly at 64 KiB.
    """
    end = address + size
    if address == 0 or end >= SPACE_END[kind] or (kind is BarKind.IO and end == X86_PORTS):
        return None
    return Range(Address(address), size)


def window_of(function: FunctionShadow, kind: WindowKind) -> Window | Unknown | None:
    """Return a bridge's window of this kind, None if it is closed, UNKNOWN if a register is not known."""
    words, decoder = WINDOWS[kind]
    image = bytearray(HEADER_SIZE)
    image[0x0E] = 1
    for number, offset in enumerate(words):
        value, known = function.words.get(offset, (0, 0))
        wanted = 0xFFFF if kind is WindowKind.IO and number == 0 else 0xFFFF_FFFF
        if number and not image[words[0]] & 0xF:
            break  # a 16-bit I/O or 32-bit prefetchable window has no upper halves
        if known & wanted != wanted:
            return UNKNOWN
        image[offset : offset + 4] = (value & known).to_bytes(4, "little")
    return decoder(ConfigSpace(bytes(image)))


def numbers_of(function: FunctionShadow) -> Numbers | None:
    """Return the bus numbers of a PCI or CardBus bridge, or None if the function is not known to be one."""
    if function.header is not HeaderType.BRIDGE and function.header is not HeaderType.CARDBUS:
        return None
    return Numbers(function.read(0x18, 1), function.read(0x19, 1), function.read(0x1A, 1))


def vf_registers(function: FunctionShadow) -> tuple[BarRegister, ...]:
    """Return the registers of the implemented VF BARs whose type is known, numbered from 7, in index order.

    Empty if the function has no known SR-IOV structure.
    """
    sriov = function.capabilities.get((True, SRIOV))
    if sriov is None:
        return ()
    return _bar_registers(function, sriov + SRIOV_BARS, VF_BAR_INDEX, VF_BAR_COUNT)


def vf_ranges(function: FunctionShadow) -> tuple[VfRange, ...] | Unknown:
    """Return the ranges that the BARs of the virtual functions decode, in BAR order, or UNKNOWN.

    Empty if the function has no known SR-IOV structure, if virtual functions or their memory decode are not
    enabled, or if NumVFs is 0. Else UNKNOWN if a register or size that is needed is not known, or if NumVFs
    is above TotalVFs. Sizes are multiples of the System Page Size, if that is known. A BAR
    whose address nobody has assigned is left out (`assigned_range`).
    """
    sriov = function.capabilities.get((True, SRIOV))
    if sriov is None:
        return ()
    control = function.read(sriov + 8, 2)
    if control is None:
        return UNKNOWN
    if not control & VF_ENABLE or not control & VF_MEMORY_ENABLE:
        return ()
    count, total = function.read(sriov + 0x10, 2), function.read(sriov + 0xE, 2)
    if count is None or (total is not None and count > total):
        return UNKNOWN
    if not count:
        return ()
    page = page_size_of(function.read(sriov + SYSTEM_PAGE_SIZE, 4))
    found = []
    for bar in vf_registers(function):
        value, size = bar_value(function, bar), aperture(function.sizes.get(bar.index), page)
        if value == 0:
            continue
        if value is None or size is None:
            return UNKNOWN
        if assigned_range(value & ~(size - 1), size * count, bar.kind) is not None:
            found.append(VfRange(bar.index - VF_BAR_INDEX, value & ~(size - 1), size, count))
    return tuple(found)


def vf_addresses(function: FunctionShadow, sbdf: Sbdf) -> list[Sbdf]:
    """Return the addresses of the virtual functions of the physical function at `sbdf`, in their order.

    Empty if virtual functions are not known to be enabled, or if their number, first offset or stride is not
    known. Only the bus, device and function number follow from the registers; they wrap around at 16 bits.
    """
    sriov = function.capabilities.get((True, SRIOV))
    if sriov is None or not (function.read(sriov + 8, 2) or 0) & VF_ENABLE:
        return []
    count, first = function.read(sriov + 0x10, 2), function.read(sriov + 0x14, 2)
    stride = function.read(sriov + 0x16, 2)
    if count is None or first is None or stride is None:
        return []
    start = (sbdf.bus << 8 | sbdf.devfn) + first
    routing = (start + number * stride & 0xFFFF for number in range(count))
    return [sbdf_from_devfn(sbdf.segment, number >> 8, number & 0xFF) for number in routing]


def own_bars(function: FunctionShadow, sbdf: Sbdf) -> Iterator[Mapped]:
    """Yield the BARs and the ROM of the function at `sbdf` that decode a known range, in index order."""
    for bar in bar_registers(function):
        span = decoded_range(function, bar)
        if isinstance(span, Range):
            yield Mapped(sbdf, bar.index, span)


def virtual_bars(function: FunctionShadow, sbdf: Sbdf) -> Iterator[Mapped]:
    """Yield the BARs that decode now, of all virtual functions of the physical function at `sbdf`."""
    spans = vf_ranges(function)
    if not isinstance(spans, tuple) or not spans:
        return
    for number, vf in enumerate(vf_addresses(function, sbdf)):
        for span in spans:
            start = span.start + number * span.size
            yield Mapped(vf, span.bar, Range(Address(start), span.size))
