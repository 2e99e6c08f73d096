"""Hold all ACPI tables of one domain with their addresses, and find them in a memory image.

The search visits no address twice and reads at most `MAX_TABLES` tables, so it ends even if tables point to
themselves or to each other.
Source: ACPI 6.5 §5.2.5-5.2.9.
"""

import enum
from collections.abc import Iterable

from pcipt import values as attrs
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
    """Which kind of domain a set of tables is for: the hardware domain (dom0) or a guest."""

    HARDWARE = "hardware"
    GUEST = "guest"


@attrs.frozen
class PlacedTable:
    """The bytes of one table and its address; `address` None means that the address is unknown.

    `name` is the file name or the signature, for reports. `native` is True if the machine's firmware made the
    table.
    """

    name: str
    data: bytes
    address: Address | None = None
    native: bool = False

    @property
    def signature(self) -> str:
        """The first four bytes as text, or "RSDP" if the table is an RSDP.

        A "?" stands for each byte that is not a visible ASCII character.
        """
        if self.data[:8] == RSDP_SIGNATURE:
            return "RSDP"
        return "".join(chr(c) if 0x20 < c < 0x7F else "?" for c in self.data[:4])

    @property
    def range(self) -> Range | None:
        """The bytes of memory that the table occupies; None if its address is unknown or it has no bytes."""
        return None if self.address is None or not self.data else Range(self.address, len(self.data))

    @property
    def parsed(self) -> Table | None:
        """The table with its header parsed (see `parse_table`); None if it has fewer than 36 bytes."""
        return parse_table(self.data)


@attrs.frozen
class TableSet:
    """The tables of one domain in the order in which they were given or found.

    `rsdp` is None if the RSDP is not known. `tables` does not contain `rsdp`.
    """

    rsdp: PlacedTable | None
    tables: tuple[PlacedTable, ...]

    def named(self, *signatures: str) -> tuple[PlacedTable, ...]:
        """Return the tables of `tables` that have one of the signatures, in the order of `tables`.

        The table in `rsdp` is never returned.
        """
        return tuple(table for table in self.tables if table.signature in signatures)

    def at(self, address: int) -> PlacedTable | None:
        """Return the first table of `tables` that begins at `address`; None if none does.

        `rsdp` is not considered.
        """
        return next((table for table in self.tables if table.address == address), None)

    @property
    def everything(self) -> tuple[PlacedTable, ...]:
        """All tables: `rsdp` first, unless it is None, then `tables` in their order."""
        return self.tables if self.rsdp is None else (self.rsdp, *self.tables)

    def label(self, table: PlacedTable) -> str:
        """Return the name of a table for a report: its signature if no other table has this signature.

        If several tables of the set have the signature, the text is "signature (name)"; the name is
        `table.name`.
        """
        alike = [other for other in self.everything if other.signature == table.signature]
        return table.signature if len(alike) == 1 else f"{table.signature} ({table.name})"


def table_set_from_tables(tables: Iterable[PlacedTable]) -> TableSet:
    """Return the set of these tables, in the order given.

    The first RSDP becomes `rsdp`, which is None if there is no RSDP. Further RSDPs stay in `tables`.
    """
    found = list(tables)
    rsdp = next((table for table in found if table.signature == "RSDP"), None)
    return TableSet(rsdp, tuple(table for table in found if table is not rsdp))


def is_guest(tables: TableSet) -> bool:
    """Return True if these are the tables of a guest; False if there is no FADT.

    They are a guest's tables if in each FADT the OEM id begins with "Xen" and the OEM table id begins with
    "HVM". libxl and pcipt write these into a guest's tables.
    """
    fadts = tables.named("FACP")
    return bool(fadts) and all(fadt.data[10:13] == b"Xen" and fadt.data[16:19] == b"HVM" for fadt in fadts)


def tables_from_image(image: MemoryImage, rsdp: Address) -> TableSet:
    """Return the RSDP at address `rsdp`, and all tables to which pointers lead from it, at any depth.

    Shape:  tables in the order in which the search reaches them: XSDT, RSDT, the tables that these list, DSDT
            and FACS of a FADT; at most `MAX_TABLES` (264), each address once. A table whose header is not in
            the image is left out; `pvh.check_tables` reports the pointer that leads to it. A table is cut
            where its piece of the image ends, and at 16 MiB.
    Raises: MalformedError if no RSDP is at that address, or if the image has fewer bytes of the RSDP than its
            revision requires.
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
    """Return the addresses from which the search begins, XSDT and RSDT; 0 for one that does not exist."""
    return [root.xsdt, root.rsdt]


def _pointers(table: PlacedTable) -> list[int]:
    """Return the addresses to which the pointers of a table lead, in their order; 0 for an unused pointer.

    Only XSDT, RSDT and FADT (its DSDT and FACS) have such pointers; the list is empty for any other table.
    """
    parsed = table.parsed
    assert parsed is not None  # `_read_table` reads at least a header
    if table.signature in ENTRY_SIZES:
        return list(parse_root_table(parsed))
    if table.signature == "FACP":
        fadt = parse_fadt(parsed)
        return [fadt.dsdt, fadt.facs]
    return []


def _read_table(image: MemoryImage, address: int) -> PlacedTable | None:
    """Return the table at `address`, its length from its header; None if its header is not in the image.

    The table is cut where its piece of the image ends, and at `MAX_TABLE_SIZE` (16 MiB).
    """
    head = image.read(address, HEADER_SIZE)
    if head is None:
        return None
    size = min(int.from_bytes(head[4:8], "little"), image.room(address), MAX_TABLE_SIZE)
    data = image.read(address, max(size, HEADER_SIZE)) or head
    signature = PlacedTable("", data).signature
    return PlacedTable(f"{signature}@{address:#x}", data, Address(address))


def rsdp_of(tables: TableSet) -> Rsdp | None:
    """Return the decoded RSDP of a set; None if the set has no RSDP or the RSDP is malformed."""
    if tables.rsdp is None:
        return None
    try:
        return parse_rsdp(tables.rsdp.data)
    except MalformedError:
        return None
