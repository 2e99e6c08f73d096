import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.acpi import aml
from pcipt.firmware.acpi.build_table import Header, build_table
from tests.pvh import apart_from_compiler, disassemble, reassemble


def length_read(data):
    """Read a package length as the grammar defines it: its value, and the bytes it takes."""
    extra = data[0] >> 6
    if extra == 0:
        return data[0], 1
    return (data[0] & 0xF) | int.from_bytes(data[1 : 1 + extra], "little") << 4, 1 + extra


@settings(deadline=None)
@given(st.integers(0, (1 << 28) - 5))
def test_a_package_length_counts_itself(size):
    encoded = aml.package_length(size)
    value, width = length_read(encoded)
    assert width == len(encoded)
    assert value == size + width


@pytest.mark.parametrize(
    ("size", "encoded"),
    [
        (0x3E, "3f"),  # the most in one byte
        (0x3F, "4104"),  # 65 with its own two bytes
        (0xFFD, "4fff"),
        (0xFFE, "810001"),  # 0x1001: the low four bits stand first
        ((1 << 28) - 5, "cfffffff"),
    ],
)
def test_where_a_package_length_grows(size, encoded):
    assert aml.package_length(size).hex() == encoded


def test_what_cannot_be_encoded():
    for wrong in (
        lambda: aml.package_length((1 << 28) - 4),
        lambda: aml.integer(1 << 64),
        lambda: aml.string("a\0b"),
        lambda: aml.segment("FIVE5"),
        lambda: aml.segment("1ABC"),
        lambda: aml.segment("low"),
    ):
        with pytest.raises(ValueError):
            wrong()


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0x100, "0b0001"),
        (0x1_0000, "0c00000100"),
        (1 << 32, "0e0000000001000000"),
    ],
)
def test_integers_are_as_short_as_can_be(value, encoded):
    assert aml.integer(value).hex() == encoded


def test_iasl_reads_what_was_written_and_writes_it_again(tmp_path):
    windows = aml.resources(
        aml.bus_window(0, 0xFF),
        aml.io_window(0xC000, 0xC0FF),
        aml.memory_window(0xFE00_0000, 0xFE0F_FFFF, prefetchable=False),
        aml.memory_window(0x80_0000_0000, 0x80_FFFF_FFFF, prefetchable=True),
    )
    unique = (("_HID", aml.eisa_id("PNP0C02")), ("_UID", aml.integer(7)))
    many = [aml.device(f"D{n:03X}", *(aml.name(*each) for each in unique)) for n in range(300)]
    bridge = aml.device("PCI0", aml.name("_HID", aml.eisa_id("PNP0A03")), aml.name("_CRS", windows))
    data = build_table(Header("DSDT", 2), aml.scope("_SB", bridge, *many))
    text = disassemble(data, tmp_path)
    assert apart_from_compiler(reassemble(tmp_path)) == apart_from_compiler(data)
    assert 'EisaId ("PNP0A03")' in text
    assert text.count('EisaId ("PNP0C02")') == 300
    for kind in ("WordBusNumber", "WordIO", "DWordMemory", "QWordMemory"):
        assert text.count(f"{kind} (ResourceProducer") == 1
    assert text.count("MinFixed, MaxFixed") == 4
    assert text.count("PosDecode") == 4
    for number in ("0x00FF", "0xC0FF", "0xFE0FFFFF", "0x00000080FFFFFFFF", "0x0000000100000000"):
        assert number in text
    assert text.count("Prefetchable, ReadWrite") == 1


#  a window -> tag of its descriptor, length of the window as encoded (ACPI 6.5 §6.4.3.5)
WINDOWS = [
    (aml.io_window(0, 0xFFFE), 0x88, "<H", 0xFFFF),
    (aml.io_window(0, 0xFFFF), 0x87, "<I", 0x1_0000),  # all ports: their number needs 17 bits
    (aml.bus_window(0, 0xFF), 0x88, "<H", 0x100),
    (aml.memory_window(1, 0xFFFF_FFFF, prefetchable=False), 0x87, "<I", 0xFFFF_FFFF),
    (aml.memory_window(0, 0xFFFF_FFFF, prefetchable=False), 0x8A, "<Q", 1 << 32),
    (aml.memory_window(1 << 32, (1 << 33) - 1, prefetchable=True), 0x8A, "<Q", 1 << 32),
]


@pytest.mark.parametrize(("descriptor", "tag", "form", "length"), WINDOWS)
def test_a_window_has_the_smallest_descriptor_that_holds_its_length(descriptor, tag, form, length):
    assert descriptor[0] == tag
    assert struct.unpack(form, descriptor[-struct.calcsize(form) :]) == (length,)


def test_a_window_that_no_descriptor_holds():
    for wrong in (
        lambda: aml.memory_window(0, (1 << 64) - 1, prefetchable=False),
        lambda: aml.memory_window(0x2000, 0x1FFF, prefetchable=False),
        lambda: aml.io_window(-1, 5),
        lambda: aml.bus_window(0, 0x1_0000),
    ):
        with pytest.raises(ValueError, match="no descriptor"):
            wrong()
