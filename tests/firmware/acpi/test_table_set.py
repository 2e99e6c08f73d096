import struct
import time

import pytest

from pcipt.errors import MalformedError
from pcipt.firmware.acpi.build_table import Header
from pcipt.firmware.acpi.root_tables import Rsdp, build_root_table, build_rsdp
from pcipt.firmware.acpi.table_set import (
    MAX_TABLES,
    PlacedTable,
    TableSet,
    is_guest,
    rsdp_of,
    table_set_from_tables,
    tables_from_image,
)
from pcipt.firmware.pvh.build_tables import Guest, build_guest_tables
from pcipt.firmware.pvh.memory_image import Piece, image_from_pieces
from tests.pvh import native_tables

BASE = 0xFC00_0000


def image_of(tables):
    end = max(table.range.last for table in tables.everything) + 1
    data = bytearray(end - BASE)
    for table in tables.everything:
        data[table.address - BASE : table.address - BASE + len(table.data)] = table.data
    return data


def memory(data):
    return image_from_pieces([Piece(BASE, bytes(data))])


@pytest.mark.parametrize("guest", [Guest(1), Guest(5), Guest(2, local_apic=False), Guest(200, io_apic=True)])
def test_the_walk_finds_what_was_built(guest):
    built = build_guest_tables(guest)
    found = tables_from_image(memory(image_of(built)), built.rsdp.address)
    assert found.rsdp.data == built.rsdp.data
    assert {table.address: table.data for table in found.tables} == {
        table.address: table.data for table in built.tables
    }
    assert is_guest(found)


def lists(*addresses, rsdp_to=BASE):
    """Make an image whose XSDT, right at its start, names these addresses; the RSDP is behind it."""
    xsdt = build_root_table(Header("XSDT", 1), addresses)
    data = xsdt + bytes(-len(xsdt) % 16)
    return memory(data + build_rsdp(Rsdp(2, b"PCIPT ", 0, rsdp_to))), BASE + len(data)


@pytest.mark.parametrize(
    ("addresses", "count"),
    [
        ([BASE], 1),  # it names itself
        ([BASE, BASE, BASE], 1),
        ([0], 1),  # a null pointer
        ([(1 << 64) - 1], 1),  # no header fits there
        ([BASE + 1], 2),  # into its own middle: garbage, read as a table, whose bytes go nowhere
    ],
)
def test_lists_that_go_nowhere_end(addresses, count):
    image, rsdp = lists(*addresses)
    assert len(tables_from_image(image, rsdp).tables) == count


def test_a_root_outside_the_image_gives_no_table():
    image, rsdp = lists(BASE, rsdp_to=0x1000)
    assert tables_from_image(image, rsdp).tables == ()


def test_a_thousand_lists_naming_each_other_end_soon():
    size = 36 + 8 * 250
    addresses = [BASE + size * n for n in range(250)]
    data = build_root_table(Header("XSDT", 1), addresses) * 250
    rsdp = build_rsdp(Rsdp(2, b"PCIPT ", BASE, BASE))
    started = time.monotonic()
    found = tables_from_image(memory(data + rsdp), BASE + len(data))
    assert len(found.tables) == 250 <= MAX_TABLES
    assert time.monotonic() - started < 5


def test_a_length_of_4_gib_is_cut_at_the_image():
    data = bytearray(build_root_table(Header("XSDT", 1), [BASE]))
    struct.pack_into("<I", data, 4, 0xFFFF_FFFF)
    rsdp = build_rsdp(Rsdp(2, b"PCIPT ", 0, BASE))
    found = tables_from_image(memory(bytes(data) + rsdp), BASE + len(data))
    assert [len(table.data) for table in found.tables] == [len(data) + len(rsdp)]


def test_without_an_rsdp_there_is_no_walk():
    with pytest.raises(MalformedError):
        tables_from_image(memory(bytes(100)), BASE)


def test_the_rsdp_is_sorted_out():
    built = build_guest_tables(Guest(1))
    again = table_set_from_tables(built.everything)
    assert again == built
    assert rsdp_of(again).xsdt == built.named("XSDT")[0].address
    assert rsdp_of(TableSet(PlacedTable("x", b"RSD PTR "), ())) is None
    assert rsdp_of(TableSet(None, ())) is None


def test_names_in_reports():
    tables = TableSet(None, tuple(PlacedTable(name, data) for name, data in native_tables().items()))
    assert tables.label(tables.named("FACP")[0]) == "FACP"
    twice = TableSet(None, (PlacedTable("one", b"SSDT"), PlacedTable("two", b"SSDT")))
    assert [twice.label(table) for table in twice.tables] == ["SSDT (one)", "SSDT (two)"]
    assert PlacedTable("", b"\x1b[2J").signature == "?[2J"


def test_native_tables_are_no_guests():
    assert not is_guest(TableSet(None, tuple(PlacedTable(n, d) for n, d in native_tables().items())))
    assert not is_guest(TableSet(None, ()))
