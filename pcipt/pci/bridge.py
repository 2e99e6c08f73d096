"""Decode bridges: their bus numbers, and the windows (address ranges) that they pass to the bus below.

A window whose base is above its limit is closed, and is left out. A bridge without an I/O window has zero in
both registers, which reads like an open window 0-fff. Only a write to the registers would show the
difference, so the window is kept as it reads.

Units:  byte addresses; port numbers for I/O windows.
Source: PCI-to-PCI Bridge 1.2 §3.2.5.6-10; PC Card Standard 8.0 Vol. 2 §4.5 (CardBus windows).
"""

import enum

from pcipt import values as attrs
from pcipt.pci.config import ConfigSpace, HeaderType

#  class code of a bridge that passes on every address that no other device claims, beside its windows
SUBTRACTIVE = 0x060401
_IO_32 = 0x1
_PREFETCH_64 = 0x1  # bits 3:0 of the prefetchable base register
_CARDBUS_PREFETCH = 0x100  # bridge control bits 8 and 9 make memory windows 0 and 1 prefetchable


class WindowKind(enum.Enum):
    """The kind of a bridge window: I/O ports, memory, or prefetchable memory."""

    IO = "io"
    MEMORY = "memory"
    PREFETCHABLE = "prefetchable"


@attrs.frozen
class Window:
    """A range of addresses that a bridge passes to the bus below. `limit` is the last address (inclusive).

    Units:  bytes; port numbers for IO.
    """

    kind: WindowKind
    base: int
    limit: int


@attrs.frozen
class Bridge:
    """The bus numbers of a bridge, and its open windows. A window that is closed or was not read is not in
    `windows`.

    `primary` is the bus above the bridge, `secondary` the bus directly below, `subordinate` the highest bus
    below. A `secondary` of 0 means that the bridge is not set up. `wide` is True if the prefetchable window,
    open or closed, is one for 64-bit addresses; it is not compared, because the words of lspci do not always
    tell it.

    Shape:  `windows` of a PCI bridge: I/O, memory, prefetchable, at most one of each. Of a CardBus bridge: up
            to two memory windows, then up to two I/O windows.
    """

    primary: int
    secondary: int
    subordinate: int
    windows: tuple[Window, ...]
    wide: bool = attrs.field(default=False, eq=False)


def decode_bridge(config: ConfigSpace) -> Bridge | None:
    """Return the bus numbers and windows of a PCI bridge (header type 1) or a CardBus bridge (header type 2).

    Return None if the header has another type, or if the bus numbers were not read.
    """
    if config.header not in (HeaderType.BRIDGE, HeaderType.CARDBUS):
        return None
    primary, secondary, subordinate = config.u8(0x18), config.u8(0x19), config.u8(0x1A)
    if primary is None or secondary is None or subordinate is None:
        return None
    if config.header is HeaderType.CARDBUS:
        return Bridge(primary, secondary, subordinate, _cardbus_windows(config))
    windows = (io_window(config), memory_window(config), prefetchable_window(config))
    wide = (config.u16(0x24) or 0) & 0xF == _PREFETCH_64
    return Bridge(primary, secondary, subordinate, tuple(w for w in windows if w is not None), wide)


def io_window(config: ConfigSpace) -> Window | None:
    """Return the I/O window of a type 1 header, or None if it is closed or was not read. The header type is
    not checked.
    """
    base, limit = config.u8(0x1C), config.u8(0x1D)
    if base is None or limit is None:
        return None
    start, end = (base & 0xF0) << 8, (limit & 0xF0) << 8
    if base & 0xF == _IO_32:
        upper_base, upper_limit = config.u16(0x30), config.u16(0x32)
        if upper_base is None or upper_limit is None:
            return None
        start, end = start | upper_base << 16, end | upper_limit << 16
    return _window(WindowKind.IO, start, end | 0xFFF)


def memory_window(config: ConfigSpace) -> Window | None:
    """Return the memory window of a type 1 header, or None if it is closed or was not read. The header type
    is not checked.
    """
    base, limit = config.u16(0x20), config.u16(0x22)
    if base is None or limit is None:
        return None
    return _window(WindowKind.MEMORY, (base & 0xFFF0) << 16, (limit & 0xFFF0) << 16 | 0xF_FFFF)


def prefetchable_window(config: ConfigSpace) -> Window | None:
    """Return the prefetchable window of a type 1 header, or None if it is closed or was not read. The header
    type is not checked.
    """
    base, limit = config.u16(0x24), config.u16(0x26)
    if base is None or limit is None:
        return None
    start, end = (base & 0xFFF0) << 16, (limit & 0xFFF0) << 16
    if base & 0xF == _PREFETCH_64:
        upper_base, upper_limit = config.u32(0x28), config.u32(0x2C)
        if upper_base is None or upper_limit is None:
            return None
        start, end = start | upper_base << 32, end | upper_limit << 32
    return _window(WindowKind.PREFETCHABLE, start, end | 0xF_FFFF)


def _window(kind: WindowKind, base: int, limit: int) -> Window | None:
    """Return a window from its inclusive ends, or None if it is closed (`base` above `limit`)."""
    return Window(kind, base, limit) if base <= limit else None


def _cardbus_windows(config: ConfigSpace) -> tuple[Window, ...]:
    """Return the open windows of a CardBus bridge: memory windows, then I/O windows.

    A window is left out if both its registers are zero (unused) or if a register was not read. Both memory
    windows are left out if the bridge control register was not read.
    """
    found: list[Window | None] = []
    control = config.u16(0x3E)
    for number, (base, limit) in enumerate(_pairs(config, 0x1C)):
        # The bridge control register says if a window is prefetchable; if it is unknown, so is the kind.
        if control is not None and (base or limit):
            kind = WindowKind.PREFETCHABLE if control & _CARDBUS_PREFETCH << number else WindowKind.MEMORY
            found.append(_window(kind, base & ~0xFFF, limit | 0xFFF))
    for base, limit in _pairs(config, 0x2C):
        if base or limit:
            mask = 0xFFFF_FFFC if base & _IO_32 else 0xFFFC
            found.append(_window(WindowKind.IO, base & mask, limit & mask | 0x3))
    return tuple(window for window in found if window is not None)


def _pairs(config: ConfigSpace, offset: int) -> list[tuple[int, int]]:
    """Return up to two (base, limit) pairs of 32-bit registers, from `offset` on. A pair that was not read
    completely is left out.
    """
    words = config.words(offset, 4)
    return list(zip(words[::2], words[1::2], strict=False))
