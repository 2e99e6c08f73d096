"""What is never touched, from memory maps, ACPI tables and constants."""

import struct

import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import Address, Range
from pcipt.remap.guard.protected import Protected, Reason, protected_ranges
from tests.remap.devices import frames


def table(signature, body):
    """Make an ACPI table with a right checksum."""
    data = bytearray(struct.pack("<4sIBB6s8sIII", signature, 36 + len(body), 1, 0, b"", b"", 0, 0, 0) + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


MADT = table(
    b"APIC", struct.pack("<II", 0xFEE0_0000, 0) + struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC1_0000, 0)
)
MCFG = table(b"MCFG", bytes(8) + struct.pack("<QHBBI", 0xB000_0000, 0, 0x10, 0x1F, 0))
HPET = table(b"HPET", struct.pack("<IBBBBQBHB", 0, 0, 64, 0, 0, 0xFED1_0000, 0, 0, 0))
DMAR = table(b"RMAD", bytes(12) + struct.pack("<HHBBHQ", 0, 16, 1, 0, 0, 0xFED9_0000))
MEMORY = [
    entry(0x10_0000, 0x7FF0_0000, MemoryType.RAM),
    entry(0x8000_0000, 0x10_0000, MemoryType.RESERVED),
    entry(0x8010_0000, 0x1000, MemoryType.NVS),
]
IOMEM = [
    (Range(Address(0xFEC2_0000), 0x400), "IOAPIC 1"),
    (Range(Address(0xC000_0000), 0x1000_0000), "PCI MMCONFIG 0001 [bus 00-ff]"),
    (Range(Address(0xFED0_0000), 0x400), "HPET 0"),
    (Range(Address(0xE000_0000), 0x10_0000), "0000:01:00.0"),
    (Range(Address(0x3_8000_0000), 0x1000), "Xen scratch"),
    (Range(Address(0xFED9_1000), 0x1000), "dmar0"),
    (Range(Address(0x3_9000_0000), 0x1000_0000), "PCI ECAM 0002 [bus 00-ff]"),
]
REGION = frames(0x9000_0000, 4)
ALL = protected_ranges(MEMORY, IOMEM, [MADT, MCFG, HPET, DMAR, b"short"], [REGION])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (0x0, "the first MiB"),
        (0xF_F000, "the first MiB"),
        (0x10_0000, "RAM at 0x100000-0x7fffffff"),
        (0x7FFF_F000, "RAM"),
        (0x8000_0000, "reserved"),
        (0x8010_0000, "nvs"),
        (0x9000_3000, "a reserved region"),
        (0xFEC0_0000, "IO-APIC"),
        (0xFEC1_0000, "IO-APIC"),  # by its table
        (0xFEC2_0000, "IO-APIC"),  # by Linux's name
        (0xFED0_0000, "HPET"),
        (0xFED1_0000, "HPET"),
        (0xFED9_0000, "IOMMU"),
        (0xFEE0_0000, "APIC"),
        (0xFEEF_F000, "MSI window"),
        (0xB100_0000, "MMCFG"),  # buses 10-1f only, the base being that of bus 0
        (0xB1FF_F000, "MMCFG"),
        (0xCFFF_F000, "MMCFG"),
        (0x3_8000_0000, "pages of other domains"),
        (0xFED9_1000, "IOMMU"),
        (0x3_9FFF_F000, "MMCFG"),
    ],
)
def test_protected(address, words):
    why = ALL.why(frames(address, 1))
    assert why is not None
    assert words in why


@pytest.mark.parametrize(
    "address",
    [0xB000_0000, 0xB200_0000, 0xE000_0000, 0x9000_4000, 0xFEBF_F000, 0xFEC0_1000, 0xFEDF_F000, 0xFEF0_0000,
     1 << 40],
)  # fmt: skip
def test_free(address):
    assert ALL.why(frames(address, 1)) is None


def test_one_page_too_many_is_seen_at_either_end():
    assert ALL.why(frames(0x8FFF_F000, 1)) is None
    assert ALL.why(frames(0x8FFF_F000, 2)) is not None
    assert ALL.why(frames(0x1_0000_0000, 1 << 20)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("IOAPIC 3", "IO-APIC"), ("Local APIC", "local APIC"), ("HPET 1", "HPET"), ("dmar1", "IOMMU registers"),
     ("PCI MMCONFIG 0001 [bus 00-ff]", "MMCFG"), ("PCI ECAM 0001 [bus 00-ff]", "MMCFG"),
     ("Crash kernel", "RAM"), ("Xen scratch", "pages of other domains"), ("ACPI Tables", None)],
)  # fmt: skip
def test_linuxs_names_tell_what_no_table_of_a_pvh_dom0_tells(name, words):
    why = protected_ranges([], [(Range(Address(1 << 41), 0x1000), name)]).why(frames(1 << 41, 1))
    assert (why is None) if words is None else words in (why or "")


def test_the_lowest_and_then_the_shortest_range_is_named():
    low, high = frames(0x9000_0000, 4), frames(0x9000_1000, 1)
    both = frames(0x9000_0000, 2)
    assert "low" in (Protected([(high, Reason("high")), (low, Reason("low"))]).why(both) or "")
    assert "first" in (Protected([(low, Reason("second")), (low, Reason("first"))]).why(both) or "")


def test_ram_is_told_apart():
    assert ALL.why_not_reserved(REGION) is None
    assert "RAM" in (ALL.why_not_reserved(frames(0x10_0000, 1)) or "")


def test_without_anything_only_nothing_is_protected():
    assert Protected().why(frames(0, 1)) is None
