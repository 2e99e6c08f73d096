import gzip

import pytest

from pcipt.host.pciids import PciIds, read_pciids

IDS = """\
# a comment
8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
\t\t103c 1785  NC112i 1-port Ethernet Server Adapter
# between
\t1521  I350 Gigabit

10ec  Realtek\tSemiconductor
\t8086  not a vendor
ffff  Illegal Vendor ID

C 01  Mass storage controller
\t06  SATA controller
\t\t01  AHCI 1.0
C 02  Network controller
\t00  Ethernet controller
"""


@pytest.fixture
def names():
    return PciIds(IDS.encode())


LOOKUPS = [
    ("vendor", (0x8086,), "Intel Corporation"),
    ("vendor", (0x10EC,), "Realtek\tSemiconductor"),
    ("vendor", (0xFFFF,), "Illegal Vendor ID"),
    ("vendor", (0x103C,), None),  # only a subsystem there
    ("vendor", (0x0,), None),
    ("device", (0x8086, 0x10D3), "82574L Gigabit Network Connection"),
    ("device", (0x8086, 0x1521), "I350 Gigabit"),  # behind a comment and a subsystem
    ("device", (0x10EC, 0x8086), "not a vendor"),
    ("device", (0x8086, 0x8086), None),  # another vendor's
    ("device", (0x1234, 0x10D3), None),
    ("subsystem", (0x8086, 0x10D3, 0x103C, 0x1785), "NC112i 1-port Ethernet Server Adapter"),
    ("subsystem", (0x8086, 0x1521, 0x103C, 0x1785), None),  # another device's
    ("subsystem", (0x8086, 0x10D3, 0x103C, 0x1786), None),
    ("interface", (0x010601,), "AHCI 1.0"),
    ("interface", (0x010602,), None),
    ("interface", (0x020001,), None),
    ("class_name", (0x010601,), "SATA controller"),
    ("class_name", (0x01FF00,), "Mass storage controller"),  # the base class where the subclass has no name
    ("class_name", (0x020000,), "Ethernet controller"),
    ("class_name", (0x030000,), None),
]


@pytest.mark.parametrize(("what", "key", "name"), LOOKUPS)
def test_a_name_is_found_in_its_own_section(names, what, key, name):
    assert getattr(names, what)(*key) == name
    assert getattr(names, what)(*key) == name  # and again


def test_an_empty_file_knows_no_names():
    assert PciIds().vendor(0x8086) is None
    assert PciIds().device(0x8086, 0x10D3) is None
    assert PciIds().class_name(0x020000) is None


def test_a_name_that_is_no_utf8_can_be_printed():
    assert PciIds(b"8086  Int\xffel\n").vendor(0x8086) == "Int\\xffel"


def test_the_first_file_that_can_be_read_is_taken(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(IDS.encode())[:40])
    (tmp_path / "packed.gz").write_bytes(gzip.compress(IDS.encode()))
    places = [str(tmp_path / name) for name in ("missing", "directory", "broken.gz", "cut.gz", "packed.gz")]
    assert read_pciids(places).vendor(0x8086) == "Intel Corporation"
    assert read_pciids(places[:4]).vendor(0x8086) is None
