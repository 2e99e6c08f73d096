import struct

import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.start_info import Module, Order, StartInfo, build_start_info

FULL = StartInfo(
    version=1,
    flags=3,
    modules=(Module(0x20_0000, 5000, b"initrd"), Module(0x1_4000_0000, 77)),
    cmdline=b"root=/dev/xvda1",
    rsdp=0xFC00_8000,
    memory_map=(entry(0, 0x9F000, MemoryType.RAM), entry(0x10_0000, 0x700_0000, MemoryType.RAM)),
)


def test_the_bytes_are_those_of_the_header_file():
    built = build_start_info(FULL, 0x1000)
    fields = struct.unpack_from("<IIIIQQQQII", built.data)
    at = built.places
    assert fields == (
        0x336EC578, 1, 3, 2, at.module_list, at.cmdline, 0xFC00_8000, at.memory_map, 2, 0,
    )  # fmt: skip
    first = struct.unpack_from("<QQQQ", built.data, at.module_list - 0x1000)
    assert first == (0x20_0000, 5000, at.module_cmdlines[0], 0)
    second = struct.unpack_from("<QQQQ", built.data, at.module_list - 0x1000 + 32)
    assert second == (0x1_4000_0000, 77, 0, 0)
    assert struct.unpack_from("<QQII", built.data, at.memory_map - 0x1000 + 24) == (
        0x10_0000,
        0x700_0000,
        1,
        0,
    )
    assert built.data[at.cmdline - 0x1000 :].startswith(b"root=/dev/xvda1\0")
    assert built.data[at.module_cmdlines[0] - 0x1000 :].startswith(b"initrd\0")


@pytest.mark.parametrize(
    ("order", "sequence"),
    [
        (Order.LIBXL, ["start_info", "cmdline", "module_list", "module_cmdlines", "memory_map"]),
        (Order.DOM0, ["module_cmdlines", "cmdline", "module_list", "memory_map", "start_info"]),
    ],
)
def test_each_loader_has_its_order(order, sequence):
    places = build_start_info(FULL, 0x1000, order).places
    starts = {
        "start_info": places.start_info,
        "cmdline": places.cmdline,
        "module_list": places.module_list,
        "module_cmdlines": places.module_cmdlines[0],
        "memory_map": places.memory_map,
    }
    assert sorted(starts, key=starts.get) == sequence
    assert all(start % 8 == 0 for start in starts.values())


def test_version_0_ends_at_40():
    built = build_start_info(StartInfo(0, flags=3), 0x1000)
    assert len(built.data) == 40
    assert built.range.last == 0x1027


@pytest.mark.parametrize(
    ("info", "at"),
    [
        (StartInfo(1, cmdline=b"two\0strings"), 8),
        (StartInfo(1, modules=(Module(0x1000, 1, b"\0"),)), 8),
        (StartInfo(0, memory_map=(entry(0, 1, MemoryType.RAM),)), 8),
        (StartInfo(1), 0),  # address 0 is no address
    ],
)
def test_what_cannot_be_said_is_refused(info, at):
    with pytest.raises(ValueError):
        build_start_info(info, at)
