"""Represent and build `hvm_start_info`, the structure that a PVH kernel gets at entry (in ebx).

`StartInfo` holds the content, `Places` the address of each piece: the structure, its lists, its strings.
`read_start_info` reads the bytes again.
Source: Xen public/arch-x86/hvm/start_info.h; for the orders tools/libs/guest/xg_dom_x86.c, hvm/dom0_build.c.
"""

import enum
import struct

from pcipt import values as attrs
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.pci import Address, Range

MAGIC = 0x336EC578
HEADER = struct.Struct("<IIIIQQQ")  # magic, version, flags, nr_modules, modlist, cmdline, rsdp
HEADER_V1 = struct.Struct("<QII")  # memmap, memmap_entries, reserved
MODULE = struct.Struct("<QQQQ")  # paddr, size, cmdline, reserved
MAP_ENTRY = struct.Struct("<QQII")  # addr, size, type, reserved
SIZES = {0: HEADER.size, 1: HEADER.size + HEADER_V1.size}

PRIVILEGED, INITDOMAIN = 0x1, 0x2


@attrs.frozen
class Module:
    """A boot module (e.g. an initrd): `size` bytes at address `start`.

    `cmdline` None means that there is no string (address 0); an empty string is a string.
    """

    start: Address
    size: int
    cmdline: bytes | None = None


@attrs.frozen
class StartInfo:
    """The content of the structure.

    `cmdline` None means that there is no string (address 0), `rsdp` None that its address is 0. Version 0 has
    no memory map.
    """

    version: int
    flags: int = 0
    modules: tuple[Module, ...] = ()
    cmdline: bytes | None = None
    rsdp: Address | None = None
    memory_map: tuple[MemoryEntry, ...] = ()

    @property
    def is_hardware_domain(self) -> bool:
        """True if the flags say that this domain is the initial domain."""
        return bool(self.flags & INITDOMAIN)


@attrs.frozen
class Places:
    """The address of each piece of a start info; None if there is no such piece (address 0).

    `module_cmdlines` has one item per module, in the same order.
    """

    start_info: Address
    module_list: Address | None = None
    cmdline: Address | None = None
    module_cmdlines: tuple[Address | None, ...] = ()
    memory_map: Address | None = None


class Order(enum.Enum):
    """The order of the pieces in memory: libxl puts the structure first, Xen's dom0 builder puts it last."""

    LIBXL = "libxl"
    DOM0 = "dom0"


@attrs.frozen
class Built:
    """The bytes of a start info, to be loaded at the address `start`.

    `places` has the address of each piece; ebx must hold `places.start_info` when the kernel is entered.
    """

    start: Address
    data: bytes
    places: Places

    @property
    def range(self) -> Range:
        """The bytes of memory that the pieces occupy."""
        return Range(self.start, len(self.data))


def build_start_info(info: StartInfo, start: Address, order: Order = Order.LIBXL) -> Built:
    """Return the structure and all pieces that it points to, placed from `start` on.

    Each piece is aligned to 8 bytes relative to address 0, except the first, which is at `start`. A version
    above 1 has the form of version 1.
    Raises: ValueError if a string contains a zero byte, if version 0 is to have a memory map, or if `start`
            is 0, which would mean that there is no structure; struct.error if a number does not fit into its
            field.
    """
    if start == 0:
        raise ValueError("address 0 stands for a piece that is not there")
    strings = [string for string in (info.cmdline, *(m.cmdline for m in info.modules)) if string is not None]
    if any(b"\0" in string for string in strings):
        raise ValueError("a command line cannot hold a zero byte")
    if info.memory_map and info.version == 0:
        raise ValueError("version 0 has no memory map")
    places = _lay_out(info, start, order)
    data = bytearray()

    def put(at: Address | None, piece: bytes) -> None:
        if at is not None:
            data.extend(bytes(max(0, at - start + len(piece) - len(data))))
            data[at - start : at - start + len(piece)] = piece

    put(places.start_info, _header(info, places))
    put(places.cmdline, (info.cmdline or b"") + b"\0")
    lines = [(at or 0, module) for at, module in zip(places.module_cmdlines, info.modules, strict=True)]
    put(places.module_list, b"".join(MODULE.pack(m.start, m.size, at, 0) for at, m in lines))
    for at, module in zip(places.module_cmdlines, info.modules, strict=True):
        put(at, (module.cmdline or b"") + b"\0")
    entries = (MAP_ENTRY.pack(each.range.start, each.range.size, each.kind, 0) for each in info.memory_map)
    put(places.memory_map, b"".join(entries))
    return Built(start, bytes(data), places)


def _header(info: StartInfo, places: Places) -> bytes:
    """Return the bytes of the structure itself, which has the addresses in `places`."""
    head = HEADER.pack(
        MAGIC,
        info.version,
        info.flags,
        len(info.modules),
        places.module_list or 0,
        places.cmdline or 0,
        info.rsdp or 0,
    )
    if info.version == 0:
        return head
    return head + HEADER_V1.pack(places.memory_map or 0, len(info.memory_map), 0)


def _lay_out(info: StartInfo, start: Address, order: Order) -> Places:
    """Return the address of each piece, in the given order from `start` on.

    The first piece is at `start`. Each further piece is at a multiple of 8.
    """
    at = start

    def take(size: int | None) -> Address | None:
        """Return the next free address and mark `size` bytes as used; None if `size` is None."""
        nonlocal at
        if size is None:
            return None
        here = at
        at = Address(-(-(at + size) // 8) * 8)
        return here

    def string(text: bytes | None) -> Address | None:
        """Return the next free address and mark `text` and a zero byte as used; None if `text` is None."""
        return take(None if text is None else len(text) + 1)

    size = SIZES[min(info.version, 1)]
    list_size = MODULE.size * len(info.modules) or None
    map_size = MAP_ENTRY.size * len(info.memory_map) or None
    if order is Order.LIBXL:
        head, cmdline, modlist = take(size), string(info.cmdline), take(list_size)
        lines = tuple(string(module.cmdline) for module in info.modules)
        memory_map = take(map_size)
    else:
        lines = tuple(string(module.cmdline) for module in info.modules)
        cmdline, modlist = string(info.cmdline), take(list_size)
        memory_map, head = take(map_size), take(size)
    assert head is not None
    return Places(head, modlist, cmdline, lines, memory_map)
