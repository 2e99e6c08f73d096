"""Hold configuration space as bytes that may end early. A byte that was not read is unknown (None), never
zero.

Source: PCI Local Bus 3.0 §6.1 (header), PCI-to-PCI Bridge 1.2 §3.2 (type 1), PC Card Standard 8.0 (type 2),
        PCI Express Base 6.0 §7.5.1.
"""

import enum
import struct

from pcipt import values as attrs

HEADER_SIZE = 64
LEGACY_SIZE = 256
EXTENDED_SIZE = 4096

COMMAND_IO = 0x1
COMMAND_MEMORY = 0x2
COMMAND_MASTER = 0x4
STATUS_CAPABILITIES = 0x10


@attrs.frozen
class Register:
    """The offset and the size of one register of configuration space. Units: bytes."""

    offset: int
    size: int


COMMAND = Register(0x04, 2)
BUS_NUMBERS = Register(0x18, 4)  # of a bridge: primary, secondary, subordinate, secondary latency timer
ROM_WORDS = {0: Register(0x30, 4), 1: Register(0x38, 4)}  # header layout (0 or 1) -> ROM register


def bar_word(number: int) -> Register:
    """Return offset and size of the 32-bit register of BAR `number`. `number` is not checked.

    A 64-bit BAR has two registers: `number` and `number` + 1.
    """
    return Register(0x10 + 4 * number, 4)


# The only registers that pcipt may write.
WRITABLE = frozenset({COMMAND, BUS_NUMBERS, *ROM_WORDS.values(), *(bar_word(n) for n in range(6))})


class HeaderType(enum.Enum):
    """The layout of a function's header. UNKNOWN means that the layout number is not 0, 1 or 2, or that it
    was not read.
    """

    __hash__ = object.__hash__  # Enum's own runs in Python, for each register that is looked up

    ENDPOINT = "endpoint"
    BRIDGE = "bridge"
    CARDBUS = "cardbus"
    UNKNOWN = "unknown"


_HEADERS = {0: HeaderType.ENDPOINT, 1: HeaderType.BRIDGE, 2: HeaderType.CARDBUS}
_MULTIFUNCTION = 0x80

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_WORDS = [struct.Struct(f"<{count}I").unpack_from for count in range(8)]
#: Bits of the header that a PVH dom0 does not read from hardware: vPCI clears the reserved bits of Status
#: since Xen 4.19 (a3c8fb450a) and answers the capabilities pointer itself since 4.21.
#: Source: xen/drivers/vpci/header.c (init_header, vpci_init_capability_list), PCI_STATUS_RSVDZ_MASK.
_BY_VPCI = {0x06: 0x46, 0x34: 0xFF}


def _is_silent(header: bytes) -> bool:
    """Return True if the bytes of a header are all ones, apart from the bits that vPCI answers."""
    if header[:4].strip(b"\xff"):
        return False  # it has ids, as almost every function: what follows is slow
    return all(byte | _BY_VPCI.get(offset, 0) == 0xFF for offset, byte in enumerate(header))


class ConfigSpace:
    """The bytes of one function's configuration space that were read, from offset 0 on. At most 4096 bytes
    are kept.

    `answers` is False if the function does not answer: all 64 bytes of the header are ff, apart from the bits
    that vPCI answers for it. `answers` is None if this is unknown: no byte was read, or fewer than 64 bytes
    were read and all of them are so. Otherwise `answers` is True. A vendor id of ffff alone does not mean
    that the function does not answer: a virtual function has vendor and device ffff by specification (PCI
    Express Base 6.0 §9.3.4.1.1).
    Units:  offsets in bytes; registers are little endian.
    """

    __slots__ = ("answers", "data", "header")

    def __init__(self, data: bytes) -> None:
        self.data = data = data[:EXTENDED_SIZE]
        self.answers: bool | None = True
        if _is_silent(data[:HEADER_SIZE]):
            self.answers = False if len(data) >= HEADER_SIZE else None
        layout = data[0x0E] & ~_MULTIFUNCTION if len(data) > 0x0E else -1
        self.header = _HEADERS.get(layout, HeaderType.UNKNOWN)

    def __len__(self) -> int:
        return len(self.data)

    def u8(self, offset: int) -> int | None:
        """Return the byte at `offset`, or None if it was not read."""
        return self.data[offset] if offset < len(self.data) else None

    def u16(self, offset: int) -> int | None:
        """Return the 16-bit register at `offset`, or None if it was not read completely."""
        value: int | None = _U16(self.data, offset)[0] if offset + 2 <= len(self.data) else None
        return value

    def u32(self, offset: int) -> int | None:
        """Return the 32-bit register at `offset`, or None if it was not read completely."""
        value: int | None = _U32(self.data, offset)[0] if offset + 4 <= len(self.data) else None
        return value

    def words(self, offset: int, count: int) -> tuple[int, ...]:
        """Return up to `count` (at most 7) consecutive 32-bit registers from `offset` on.

        Shape:  fewer than `count`, or none, if the bytes end earlier; a register that was not read completely
                is left out.
        """
        if offset + 4 * count > len(self.data):
            count = max(0, (len(self.data) - offset) // 4)
        return _WORDS[count](self.data, offset) if count else ()

    @property
    def command(self) -> int | None:
        """Return the command register, or None if it was not read."""
        return self.u16(0x04)
