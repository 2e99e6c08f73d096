"""The tables of one domain, with their addresses where they are known, and the walk through a memory image.

The walk visits no address twice and reads at most `MAX_TABLES` tables, so lists that name themselves or each
other end it.
Source: ACPI 6.5 §5.2.5-5.2.9.
"""

import enum
from collections.abc import Iterable

import attrs

from pcipt.errors import MalformedError
from pcipt.firmware.acpi.fadt import parse_fadt
from pcipt.firmware.acpi.root_tables import (
    ENTRY_SIZES,
    MAX_ENTRIES,
    RSDP_SIGNATURE,
    RSDP_SIZE,
    Rsdp,
    parse_root_table,
    parse_rsdp,
)
from pcipt.firmware.acpi.table import HEADER_SIZE, Table, parse_table
from pcipt.firmware.pvh.memory_image import MemoryImage
from pcipt.pci import Address, Range

MAX_TABLES = MAX_ENTRIES + 8
MAX_TABLE_SIZE = 16 << 20
FACS_SIZE = 64


class Domain(enum.Enum):
    HARDWARE = "hardware"
    GUEST = "guest"


@attrs.frozen
class PlacedTable:
    """One table's bytes; `name` is its file or signature, `native` marks what firmware made."""

    name: str
    data: bytes
    address: Address | None = None
    native: bool = False

    @property
    def signature(self) -> str:
        if self.data[:8] == RSDP_SIGNATURE:
            return "RSDP"
        return "".join(chr(c) if 0x20 < c < 0x7F else "?" for c in self.data[:4])

    @property
    def range(self) -> Range | None:
        return None if self.address is None or not self.data else Range(self.address, len(self.data))

    @property
    def parsed(self) -> Table | None:
        return parse_table(self.data)


@attrs.frozen
class TableSet:
    """In the order they were found; the RSDP stands apart."""

    rsdp: PlacedTable | None
    tables: tuple[PlacedTable, ...]

    def named(self, *signatures: str) -> tuple[PlacedTable, ...]:
        return tuple(table for table in self.tables if table.signature in signatures)

    def at(self, address: int) -> PlacedTable | None:
        return next((table for table in self.tables if table.address == address), None)

    @property
    def everything(self) -> tuple[PlacedTable, ...]:
        return self.tables if self.rsdp is None else (self.rsdp, *self.tables)

    def label(self, table: PlacedTable) -> str:
        """Name a table in a report: by signature, and by its name where several have that signature."""
        alike = [other for other in self.everything if other.signature == table.signature]
        return table.signature if len(alike) == 1 else f"{table.signature} ({table.name})"


def table_set_from_tables(tables: Iterable[PlacedTable]) -> TableSet:
    """Sort out the RSDP; of several the first counts and the others are tables like any."""
    found = list(tables)
    rsdp = next((table for table in found if table.signature == "RSDP"), None)
    return TableSet(rsdp, tuple(table for table in found if table is not rsdp))


def is_guest(tables: TableSet) -> bool:
    """Tell by the makers' names whether tables are a guest's: libxl and pcipt write Xen and HVM."""
    fadts = tables.named("FACP")
    return bool(fadts) and all(fadt.data[10:13] == b"Xen" and fadt.data[16:19] == b"HVM" for fadt in fadts)


def tables_from_image(image: MemoryImage, rsdp: Address) -> TableSet:
    """Follow the pointers from an RSDP; what is not in the image is left out, and a check will say so.

    Raises: MalformedError where there is no RSDP.
    """
    data = image.read(rsdp, RSDP_SIZE) or image.read(rsdp, 20) or b""
    root = parse_rsdp(data, "RSDP")
    placed = PlacedTable("RSDP", data if root.revision else data[:20], rsdp)
    found: dict[int, PlacedTable] = {}
    waiting = _roots(root)
    while waiting and len(found) < MAX_TABLES:
        address = waiting.pop(0)
        if not address or address in found:
            continue
        table = _read_table(image, address)
        if table is not None:
            found[address] = table
            waiting += _pointers(table)
    return TableSet(placed, tuple(found.values()))


def _roots(root: Rsdp) -> list[int]:
    return [root.xsdt, root.rsdt]


def _pointers(table: PlacedTable) -> list[int]:
    parsed = table.parsed
    assert parsed is not None  # a whole header was read
    if table.signature in ENTRY_SIZES:
        return list(parse_root_table(parsed))
    if table.signature == "FACP":
        fadt = parse_fadt(parsed)
        return [fadt.dsdt, fadt.facs]
    return []


def _read_table(image: MemoryImage, address: int) -> PlacedTable | None:
    head = image.read(address, HEADER_SIZE)
    if head is None:
        return None
    size = min(int.from_bytes(head[4:8], "little"), image.room(address), MAX_TABLE_SIZE)
    data = image.read(address, max(size, HEADER_SIZE)) or head
    signature = PlacedTable("", data).signature
    return PlacedTable(f"{signature}@{address:#x}", data, Address(address))


def rsdp_of(tables: TableSet) -> Rsdp | None:
    """Decode the RSDP; None where there is none or it is cut off."""
    if tables.rsdp is None:
        return None
    try:
        return parse_rsdp(tables.rsdp.data)
    except MalformedError:
        return None
