"""Find and read `hvm_start_info` in an image of physical memory, and check it.

Bytes that cannot be a start info give an error. In any other case all readable parts are read, and a row (a
check result) reports each part that cannot be read. Counts are limited by the size of the image and by the
limits below, so that reading any image ends in bounded time.
Source: Xen public/arch-x86/hvm/start_info.h.
"""

from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.errors import MalformedError
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.pvh.check_rows import Row, Verdict, good, worst, wrong
from pcipt.firmware.pvh.check_start_info import Reserved, check_start_info
from pcipt.firmware.pvh.memory_image import ADDRESS_LIMIT, MemoryImage
from pcipt.firmware.pvh.start_info import (
    HEADER,
    HEADER_V1,
    MAGIC,
    MAP_ENTRY,
    MODULE,
    Module,
    Places,
    StartInfo,
)
from pcipt.pci import Address, Range

MAX_MODULES = 1024  # Xen's builders make one, libxl a few; Linux uses the first
MAX_MAP_ENTRIES = 4096
MAX_STRING = 1 << 16  # Linux keeps 2 KiB of a command line
MAX_CANDIDATES = 4096  # every kernel that tests the magic also has it in its code
MAX_TRIES = 8
_VERSIONS = (bytes(4), b"\x01\0\0\0")


@attrs.frozen
class Parsed:
    """A start info, the addresses of its pieces, and the rows (check results) of all rules."""

    info: StartInfo
    places: Places
    rows: tuple[Row, ...]


def find_start_info(image: MemoryImage, source: str = "image") -> Parsed:
    """Return the start info at the image's first byte; if no magic is at this byte, the best one elsewhere.

    The magic is searched at addresses that are multiples of 4. At most 8 (`MAX_TRIES`) places that are
    plausible (see `_plausible`) are read, by ascending address. The first start info without an ERROR row is
    returned. If every one has ERROR rows, the one with the fewest is returned.
    Raises: MalformedError if no start info is found, or if the magic is at the image's first byte and the
            structure does not fit into the piece.
    """
    if not image.pieces:
        raise MalformedError(source, 0, "the image is empty: there is no hvm_start_info in it")
    first = image.pieces[0]
    if first.data[0:4] == MAGIC.to_bytes(4, "little"):
        return parse_start_info(image, first.start, source)
    best: Parsed | None = None
    tries = MAX_TRIES
    found = image.search(MAGIC.to_bytes(4, "little"), 4, MAX_CANDIDATES)
    for address in found:
        if tries == 0 or not _plausible(image, address):
            continue
        tries -= 1
        parsed = parse_start_info(image, address, source)
        if best is None or _errors(parsed) < _errors(best):
            best = parsed
        if worst(best.rows) is not Verdict.ERROR:
            break
    if best is None:
        why = "no hvm_start_info: the image does not contain its magic 0x336ec578"
        if found:
            why = f"the magic stands at {found[0]:#x}, but no hvm_start_info follows it"
        raise MalformedError(source, 0, why)
    return best


def parse_start_info(image: MemoryImage, address: Address, source: str = "image") -> Parsed:
    """Return the start info at `address` with everything that it points to, and the rows of all rules.

    A part that cannot be read is missing from the result (None or fewer entries), and an ERROR row reports
    it.
    Raises: MalformedError if the 40 bytes of the structure are not in the image or do not begin with the
            magic.
    """
    head = image.read(address, HEADER.size)
    if head is None:
        why = f"{HEADER.size} bytes of hvm_start_info are needed, the image holds {image.room(address)}"
        raise MalformedError(source, address, why)
    magic, version, flags, modules, modlist, cmdline, rsdp = HEADER.unpack(head)
    if magic != MAGIC:
        raise MalformedError(source, address, f"the magic is {magic:#010x}, not {MAGIC:#010x}")
    reader = _Reader(image)
    rows = [good("magic", "start_info", 0, f"{MAGIC:#010x} at {address:#x}")]
    memmap = entries = 0
    if version > 0:
        tail = image.read(address + HEADER.size, HEADER_V1.size)
        if tail is None:
            rows.append(
                wrong("size", "start_info", 40, f"version {version} has 56 bytes, the image ends before")
            )
        else:
            memmap, entries, reserved = HEADER_V1.unpack(tail)
            reader.reserve("start_info", 52, reserved)
    info = StartInfo(
        version=version,
        flags=flags,
        modules=reader.modules(modlist, modules),
        cmdline=reader.string("start_info", 24, cmdline),
        rsdp=Address(rsdp) if rsdp else None,
        memory_map=reader.memory_map(memmap, entries),
    )
    places = Places(
        start_info=address,
        module_list=Address(modlist) if modlist and modules else None,
        cmdline=Address(cmdline) if cmdline else None,
        module_cmdlines=tuple(reader.module_cmdlines),
        memory_map=Address(memmap) if memmap and entries else None,
    )
    rows += reader.rows
    rows += check_start_info(info, places, image, reader.reserved, reader.map_offsets)
    return Parsed(info, places, tuple(rows))


def _plausible(image: MemoryImage, address: Address) -> bool:
    """Return True if a structure may be at `address`: not every place with the magic has one.

    The magic is also a constant in the code of kernels. True is returned if 40 bytes are in the image, the
    version is 0 or 1, and there are at most `MAX_MODULES` (1024) modules.
    """
    head = image.read(address, HEADER.size)
    return (
        head is not None and head[4:8] in _VERSIONS and int.from_bytes(head[12:16], "little") <= MAX_MODULES
    )


def _errors(parsed: Parsed) -> int:
    """Return the number of rows whose verdict is ERROR."""
    return sum(row.verdict is Verdict.ERROR for row in parsed.rows)


class _Reader:
    """Reads the lists and strings of a start info; adds an ERROR row for each part that it cannot read.

    It also collects reserved fields, the addresses of the modules' command lines, and the offsets of map
    entries.
    """

    def __init__(self, image: MemoryImage) -> None:
        self._image = image
        self.rows: list[Row] = []
        self.reserved: list[Reserved] = []
        self.module_cmdlines: list[Address | None] = []
        self.map_offsets: list[int] = []

    def reserve(self, table: str, offset: int, value: int) -> None:
        """Append a reserved field, with its value, to `reserved`, to be checked later."""
        self.reserved.append(Reserved(table, offset, value))

    def modules(self, address: int, count: int) -> tuple[Module, ...]:
        """Return the modules that can be read, in the order of the list, at most `MAX_MODULES` (1024).

        The address of each command line (None if 0) is appended to `module_cmdlines`. If the list or a string
        cannot be read, an ERROR row is added.
        """
        found = []
        for offset, data in self._list("module-list", 12, address, count, MODULE.size, MAX_MODULES):
            start, size, cmdline, reserved = MODULE.unpack(data)
            self.reserve("module list", offset + 24, reserved)
            self.module_cmdlines.append(Address(cmdline) if cmdline else None)
            found.append(Module(Address(start), size, self.string("module list", offset + 16, cmdline)))
        return tuple(found)

    def memory_map(self, address: int, count: int) -> tuple[MemoryEntry, ...]:
        """Return the entries that can be read, in the order of the list, at most `MAX_MAP_ENTRIES` (4096).

        Empty entries and entries beyond 2^64 are left out, each with an ERROR row. The byte offset of each
        returned entry is appended to `map_offsets`.
        """
        found = []
        for offset, data in self._list("memory-map", 48, address, count, MAP_ENTRY.size, MAX_MAP_ENTRIES):
            start, size, kind, reserved = MAP_ENTRY.unpack(data)
            self.reserve("memory map", offset + 20, reserved)
            if size == 0 or start + size > ADDRESS_LIMIT:
                what = "is empty" if size == 0 else "runs beyond 2^64"
                self.rows.append(wrong("memory-map", "memory map", offset, f"the entry at {start:#x} {what}"))
                continue
            self.map_offsets.append(offset)
            found.append(MemoryEntry(Range(Address(start), size), kind))
        return tuple(found)

    def string(self, table: str, offset: int, address: int) -> bytes | None:
        """Return the string at `address` without its zero byte; None if there is none or it cannot be read.

        Address 0 means that there is none. A string that is not in the image, or that has no zero byte within
        `MAX_STRING` (64 KiB), gives None and an ERROR row at the byte `offset` of `table`.
        """
        if not address:
            return None
        text = self._image.read_string(address, MAX_STRING)
        if text is None:
            inside = self._image.room(address)
            why = f"no zero ends it within {min(inside, MAX_STRING)} bytes" if inside else "not in the image"
            self.rows.append(wrong("string", table, offset, f"the command line at {address:#x}: {why}"))
        return text

    def _list(
        self, rule: str, offset: int, address: int, count: int, size: int, limit: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (byte offset in the list, bytes) of the entries that are in the image, at most `limit`.

        `count` is the promised number of entries; if it is 0, nothing is done. An ERROR row of the rule
        `rule` at byte `offset` of the structure is added if the address is 0, if the image has fewer than
        `count` entries, or if `count` is above `limit`.
        """
        if not count:
            return
        if not address:
            self.rows.append(wrong(rule, "start_info", offset, f"{count} entries are promised at address 0"))
            return
        room = self._image.room(address) // size
        if count > room:
            why = f"{count} entries at {address:#x} are promised, the image has room for {room}"
            self.rows.append(wrong(rule, "start_info", offset, why))
        elif count > limit:
            why = f"{count} entries are more than any loader makes; the first {limit} are read"
            self.rows.append(wrong(rule, "start_info", offset, why))
        whole = self._image.read(address, min(count, room, limit) * size) or b""
        for at in range(0, len(whole), size):
            yield at, whole[at : at + size]
