"""The shape of a function: what is compared of two readings, and what is not."""

import struct

import attrs
import pytest

from pcipt.pci import RawFunction, parse_sbdf
from pcipt.remap.vpci.shape import changes, shape_of
from tests.xen.devices import device

NIC = device("00:05.0", (0xC000_0000, 0x4000), (0x4_0000_0000, 0x4000, "64"), msix=(0, 0x2000, 0x3000))
PF = device("00:05.0", (0xC000_0000, 0x4000), sriov=(3, 0x80, 1, [(0xC004_0000, 0x2000)]))


def put(raw, *changed):
    data = bytearray(raw.config)
    for offset, value in changed:
        data[offset : offset + len(value)] = value
    return attrs.evolve(raw, config=bytes(data))


MSIX_AT = NIC.config[0x34]
#  what is written, the parts that differ
CHANGED = [
    ((0x0E, b"\x01"), ["header", "BARs"]),
    ((0x0E, b"\x80"), []),  # multifunction
    ((0x09, b"\x01"), ["class"]),
    ((0x08, b"\x77"), []),  # revision: new firmware after a reset
    ((0x04, b"\x06\x04"), []),
    ((0x10, struct.pack("<I", 0xDEAD_0000)), []),
    ((0x10, b"\xff\xff\xff\xf0"), ["BARs"]),
    ((0x10, struct.pack("<I", 0xFFFF_FFF0)), []),  # while it is sized
    ((0x10, struct.pack("<I", 0xC000_0004)), ["BARs"]),
    ((0x18, b"\xff\xff\xff\xff"), []),  # the upper half of a 64-bit BAR
    ((0x34, b"\0"), ["capabilities", "MSI-X"]),
    ((MSIX_AT + 2, b"\x07\0"), ["MSI-X"]),  # more entries
    ((MSIX_AT + 2, b"\x03\xc0"), []),  # enabled and masked
    ((MSIX_AT + 4, b"\x00\x10"), ["MSI-X"]),
]


@pytest.mark.parametrize(("change", "parts"), CHANGED)
def test_what_is_compared(change, parts):
    before, now = shape_of(NIC), shape_of(put(NIC, change))
    told = changes(before, now)
    assert [part.split(" ")[0] for part in told.split("; ") if part] == parts


def test_an_sriov_structure_that_vanishes_is_a_change():
    gone = put(PF, (0x100, bytes(4)))
    assert changes(shape_of(PF), shape_of(gone)).startswith("extended none instead of 0010@")


def test_the_number_of_entries_of_a_virtual_function_may_change():
    virtual = attrs.evolve(NIC, physfn=parse_sbdf("00:04.0"))
    assert changes(shape_of(virtual), shape_of(put(virtual, (MSIX_AT + 2, b"\x07\0")))) == ""


@pytest.mark.parametrize("length", [64, 256, 4096])
def test_what_was_not_read_is_not_compared(length):
    short = attrs.evolve(PF, config=PF.config[:length])
    assert changes(shape_of(PF), shape_of(short)) == changes(shape_of(short), shape_of(PF)) == ""


@pytest.mark.parametrize("config", [None, b"", b"\xff" * 256, NIC.config[:63]])
def test_a_function_that_does_not_answer_has_no_shape(config):
    assert shape_of(RawFunction(NIC.sbdf, config=config)) is None
