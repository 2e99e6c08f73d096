"""The registers of a configuration header as data, and the one way in which a write is merged into them.

Pure. Registers are handled as 32-bit words. A read-only bit stays, a write-one-to-clear bit is cleared by
writing one, other bits become what was written; bytes that a write does not touch stay. BARs are not in the
table: their size decides which of their bits are writable.
Source: PCI Local Bus 3.0 §6.2; PCI-to-PCI Bridge 1.2 §3.2; PCI Express Base 6.0 §7.5.1.
"""

from functools import lru_cache

import attrs

from pcipt.pci.config import EXTENDED_SIZE, HeaderType

WORD = 0xFFFF_FFFF


@attrs.frozen
class Register:
    """A register with special bits. `offset` and `size` count bytes.

    Writing does not change `ro` bits; writing one to an `rw1c` bit clears it.
    """

    offset: int
    size: int
    ro: int
    rw1c: int = 0


# fmt: off
#         offset size  ro              rw1c       why
COMMON = (
    Register(0x00, 4, ro=0xFFFF_FFFF),              # vendor, device
    Register(0x04, 2, ro=0xF880),                   # Command: 11-15 and 7 reserved; memory decode is bit 1
    Register(0x06, 2, ro=0x06FF, rw1c=0xF900),      # Status: 8 and 11-15 are cleared by writing one
    Register(0x08, 4, ro=0xFFFF_FFFF),              # revision, class
    Register(0x0E, 1, ro=0xFF),                     # header type
    Register(0x34, 4, ro=0xFFFF_FFFF),              # capabilities pointer
    Register(0x3D, 1, ro=0xFF),                     # interrupt pin
)
ENDPOINT = (
    *COMMON,
    Register(0x28, 4, ro=0xFFFF_FFFF),              # CardBus CIS pointer
    Register(0x2C, 4, ro=0xFFFF_FFFF),              # subsystem
    Register(0x38, 4, ro=0xFFFF_FFFF),              # reserved
    Register(0x3E, 2, ro=0xFFFF),                   # Min_Gnt, Max_Lat
)
BRIDGE = (
    *COMMON,
    Register(0x1C, 2, ro=0x0F0F),                   # I/O base and limit: 3:0 tell 16 or 32 bits
    Register(0x1E, 2, ro=0x06FF, rw1c=0xF900),      # secondary Status, same layout as Status
    Register(0x20, 4, ro=0x000F_000F),              # memory base and limit
    Register(0x24, 4, ro=0x000F_000F),              # prefetchable base and limit: 3:0 tell 32 or 64 bits
    Register(0x3E, 2, ro=0xF000, rw1c=0x0400),      # Bridge Control: 10 is the discard timer's status
)
# fmt: on

COMMAND = 0x04
BUS_NUMBERS = 0x18
BRIDGE_CONTROL = 0x3E
SECONDARY_RESET = 0x40


@attrs.frozen
class Part:
    """The part of an access that lies in one 32-bit word. `offset` is that of the word.

    `lanes` is the mask of the bits that the access touches. `value` and `lanes` are at their positions in the
    word.
    """

    offset: int
    value: int
    lanes: int


@lru_cache(maxsize=8)  # what a write wants, does and makes vPCI do is found from the same parts
def split(offset: int, size: int, value: int) -> tuple[Part, ...]:
    """Return the parts of an access, one for each 32-bit word that it touches, in ascending order.

    `value` is little-endian; its bits above `size` bytes are ignored. An access of 0 bytes has no parts.
    """
    parts: list[Part] = []
    while size > 0:
        low = offset & 3
        count = min(size, 4 - low)
        mask = (1 << 8 * count) - 1
        parts.append(Part(offset - low, (value & mask) << 8 * low, mask << 8 * low))
        offset, size, value = offset + count, size - count, value >> 8 * count
    return tuple(parts)


def merge(old: int, part: Part, ro: int, rw1c: int = 0) -> int:
    """Return the value of a word after a write, as hardware computes it. `old` is the value before.

    `ro` bits stay as in `old`; a bit of `rw1c` to which one is written becomes 0, the others of `rw1c` stay.
    """
    writable = part.lanes & ~ro & ~rw1c
    return (old & ~writable | part.value & writable) & ~(part.value & part.lanes & rw1c) & WORD


def is_possible(offset: int, size: int) -> bool:
    """Return True if an access has 1, 2 or 4 bytes and lies inside the 4096 bytes of config space."""
    return size in (1, 2, 4) and 0 <= offset <= EXTENDED_SIZE - size


def _masks(registers: tuple[Register, ...]) -> dict[int, tuple[int, int]]:
    """Return the read-only and write-one-to-clear bits of each word that has a register, by offset."""
    words: dict[int, tuple[int, int]] = {}
    for register in registers:
        base, shift = register.offset & ~3, 8 * (register.offset & 3)
        ro, rw1c = words.get(base, (0, 0))
        words[base] = (ro | register.ro << shift, rw1c | register.rw1c << shift)
    return words


_MASKS = {
    HeaderType.ENDPOINT: _masks(ENDPOINT),
    HeaderType.BRIDGE: _masks(BRIDGE),
    HeaderType.CARDBUS: _masks(COMMON),
    HeaderType.UNKNOWN: _masks(COMMON),
}


def masks(header: HeaderType, offset: int) -> tuple[int, int]:
    """Return the read-only and write-one-to-clear bits of a header word; (0, 0) if it is not in the table.

    `offset` is that of a 32-bit word. The table of a CardBus or unknown header has only the registers that
    all headers have.
    """
    return _MASKS[header].get(offset, (0, 0))
