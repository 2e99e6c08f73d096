"""Decode base address registers (BARs): the addresses to which a function responds.

The size of a BAR can be read only by writing to the register (sizing). pcipt does not do this. Sizes are
taken from the lines of the sysfs file `resource`, which hold what Linux found when it sized the BARs. If a
register and its line have different addresses, the register is right, because it is the hardware's.

Source: PCI Local Bus 3.0 §6.2.5; PCI Express Base 6.0 §7.5.1.2.1-2.
"""

import enum
from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.pci.config import COMMAND_IO, COMMAND_MEMORY, ConfigSpace, HeaderType
from pcipt.pci.units import Address, Range

ROM_INDEX = 6
VF_BAR_INDEX = 7  # the first of six SR-IOV lines in sysfs `resource`
VF_BAR_COUNT = 6

#                       offset of BAR 0, number of BARs, offset of the ROM BAR
LAYOUT: dict[HeaderType, tuple[int, int, int | None]] = {
    HeaderType.ENDPOINT: (0x10, 6, 0x30),
    HeaderType.BRIDGE: (0x10, 2, 0x38),
    HeaderType.CARDBUS: (0x10, 1, None),
    HeaderType.UNKNOWN: (0x10, 0, None),
}

IO_SPACE = 0x1
IO_MASK = 0xFFFF_FFFC
MEMORY_MASK = 0xFFFF_FFFF_FFFF_FFF0
TYPE_MASK = 0x6
TYPE_BELOW_1MIB = 0x2
TYPE_64 = 0x4
PREFETCHABLE = 0x8
ROM_MASK = 0xFFFF_F800
ROM_ENABLE = 0x1


class BarKind(enum.Enum):
    """The kind of a BAR: I/O ports, 32-bit memory, 64-bit memory, or expansion ROM."""

    __hash__ = object.__hash__  # Enum's own runs in Python, for each register that is looked up

    IO = "io"
    MEM32 = "mem32"
    MEM64 = "mem64"
    ROM = "rom"


@attrs.frozen
class Resource:
    """One line of the sysfs file `resource`: the range that Linux has for one BAR or one bridge window.

    A line of size 0 is unused. `flags` are Linux's IORESOURCE_* bits, some of which are named below.
    Units:  `start` and `size` in bytes, or in ports if `flags` has IO.
    Source: linux include/linux/ioport.h, IORESOURCE_* (as of 3.0; 2.6 had PREFETCH at 0x1000).
    """

    start: int
    size: int
    flags: int

    FIXED = 0x10  # the address is fixed, it does not come from a BAR that can be moved
    IO = 0x100
    MEMORY = 0x200
    PREFETCH = 0x2000
    MEM_64 = 0x10_0000
    DISABLED = 0x1000_0000
    UNSET = 0x2000_0000


@attrs.frozen
class Bar:
    """One implemented base address register.

    `index` is the number of the BAR: 0 to 5, or 6 for the ROM; VF BARs of an SR-IOV structure have 0 to 5. A
    64-bit BAR has the lower index of its two registers. `address` has no type bits; it is 0 if the register
    has lost its address. `size` None is unknown. `decoding` is True if the function responds at this address
    now, False if it does not, None if this is unknown. `below_1mib` is True if the register has the old
    memory type that requires an address below 1 MiB. `unassigned` is True if nobody has given it an address.
    `claimed` is the range that Linux keeps for it if that is not at `address`; None otherwise, and if Linux
    keeps none.
    Units:  bytes; port numbers for IO.
    """

    index: int
    kind: BarKind
    address: Address
    size: int | None
    prefetchable: bool
    decoding: bool | None
    below_1mib: bool = False
    unassigned: bool = False
    claimed: Range | None = None

    @property
    def range(self) -> Range | None:
        """Return the addresses of the BAR, or None if the size is unknown."""
        return Range(self.address, self.size) if self.size else None


UNUSED = Resource(0, 0, 0)


def name_of_bar(index: int) -> str:
    """Return the name of a BAR for the user: "ROM" for 6, "BAR 0", "BAR 1" and so on for other numbers."""
    return "ROM" if index == ROM_INDEX else f"BAR {index}"


def register_values(config: ConfigSpace, base: int, count: int) -> list[tuple[int, int]]:
    """Return an (index, value) pair for each of `count` (at most 7) BAR registers in a row, from offset
    `base` on.

    Shape:  pairs in index order; the value has its type bits. A register that is zero gives a pair too. A
            64-bit BAR is one pair under its lower index. The list ends before the first BAR that was not read
            completely. A 64-bit BAR in the last register has no upper half, and its pair has the lower half
            alone.
    """
    words = config.words(base, count)
    found = []
    index = 0
    while index < len(words):
        value = words[index]
        width = 1
        if value & (IO_SPACE | TYPE_MASK) == TYPE_64 and index + 1 < count:
            if index + 1 == len(words):
                break
            value |= words[index + 1] << 32
            width = 2
        found.append((index, value))
        index += width
    return found


def decode_bars(config: ConfigSpace, command: int, resources: Sequence[Resource]) -> list[Bar]:
    """Return the implemented BARs and the ROM of a function's header, in index order.

    A BAR is implemented if its register is not zero, or if its line of `resources` is used. If the register
    is zero and the line is used, the hardware has lost the BAR, and the BAR is returned with address 0. A BAR
    whose register was not read is left out. Sizes are those of the lines; the size is None if the line is
    unused or missing. `decoding` is read from `command`, the value of the command register. A ROM decodes
    only if it is also enabled in its own register. `resources` are the lines of sysfs `resource`, from line 0
    on. A header of unknown type gives an empty list.
    """
    base, count, rom = LAYOUT[config.header]
    io, memory = bool(command & COMMAND_IO), bool(command & COMMAND_MEMORY)
    known = len(resources)
    found = []
    for index, value in register_values(config, base, count):
        line = resources[index] if index < known else UNUSED
        if value:
            found.append(bar_from_register(index, value, line.size or None, io=io, memory=memory))
        elif line.size:
            found.append(lost_bar(index, line, io=io, memory=memory))
    value_of_rom = config.u32(rom) if rom is not None else None
    if value_of_rom is not None:
        size = resources[ROM_INDEX].size if known > ROM_INDEX else 0
        if value_of_rom or size:
            decoding = memory and bool(value_of_rom & ROM_ENABLE)
            address = Address(value_of_rom & ROM_MASK)
            found.append(Bar(ROM_INDEX, BarKind.ROM, address, size or None, False, decoding))
    return found


def bar_from_register(index: int, value: int, size: int | None, *, io: bool, memory: bool) -> Bar:
    """Return the BAR that the register value `value` describes (64 bits for a 64-bit BAR).

    The register must not be that of a ROM. `size` None is unknown. `io` is True if the function decodes I/O
    BARs now; it becomes the `decoding` of an I/O BAR. `memory` is True if the function decodes memory BARs
    now; it becomes the `decoding` of a memory BAR.
    """
    if value & IO_SPACE:
        return Bar(index, BarKind.IO, Address(value & IO_MASK), size, False, io)
    kind = BarKind.MEM64 if value & TYPE_MASK == TYPE_64 else BarKind.MEM32
    below = value & TYPE_MASK == TYPE_BELOW_1MIB
    return Bar(index, kind, Address(value & MEMORY_MASK), size, bool(value & PREFETCHABLE), memory, below)


def lost_bar(index: int, line: Resource, *, io: bool, memory: bool) -> Bar:
    """Return a BAR with address 0, for a register that reads zero although Linux has the line `line` for it.

    Kind, size and prefetchable are those of the line. `io` is True if the function decodes I/O BARs now; it
    becomes the `decoding` of an I/O BAR. `memory` is True if the function decodes memory BARs now; it becomes
    the `decoding` of a memory BAR.
    """
    kind = kind_of_resource(line)
    decoding = io if kind is BarKind.IO else memory
    return Bar(index, kind, Address(0), line.size, bool(line.flags & Resource.PREFETCH), decoding)


def bars_from_resources(resources: Sequence[Resource]) -> tuple[Bar, ...]:
    """Return the BARs and the ROM from the first seven lines of sysfs `resource` alone, in index order.

    This is for a function whose own registers do not show its BARs: they were not read, or the function is
    virtual. The addresses are Linux's and `decoding` is None. Unused lines are left out.
    """
    return tuple(
        bar_from_resource(index, line, None)
        for index, line in enumerate(resources[: ROM_INDEX + 1])
        if line.size
    )


def bar_from_resource(index: int, resource: Resource, decoding: bool | None) -> Bar:
    """Return the BAR that line number `index` of sysfs `resource` describes (6 is the ROM), with Linux's
    address.

    `decoding` becomes the `decoding` of the BAR: True if the function responds at the address now, False if
    it does not, None if this is unknown.
    """
    kind = BarKind.ROM if index == ROM_INDEX else kind_of_resource(resource)
    prefetchable = bool(resource.flags & Resource.PREFETCH) and kind is not BarKind.ROM
    return Bar(index, kind, Address(resource.start), resource.size, prefetchable, decoding)


def kind_of_resource(resource: Resource) -> BarKind:
    """Return the BAR kind that the flags of a line of sysfs `resource` show: IO, MEM64 or MEM32.

    The result is never ROM: the line of a ROM gives MEM32.
    """
    if resource.flags & Resource.IO:
        return BarKind.IO
    return BarKind.MEM64 if resource.flags & Resource.MEM_64 else BarKind.MEM32
