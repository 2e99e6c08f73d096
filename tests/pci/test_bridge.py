import pytest

from pcipt.pci import Bridge, ConfigSpace, Window, WindowKind
from pcipt.pci.bridge import decode_bridge
from tests.pci.spaces import BRIDGE, CARDBUS, ENDPOINT, space

IO, MEMORY, PREFETCHABLE = WindowKind.IO, WindowKind.MEMORY, WindowKind.PREFETCHABLE
CLOSED = {
    0x1C: (2, 0x00F0),  # base f000, limit fff
    0x20: (4, 0x0000_FFF0),
    0x24: (4, 0x0000_FFF0),
}


def windows(registers, header=BRIDGE, size=64):
    bridge = decode_bridge(ConfigSpace(space(registers, header=header, size=size)))
    assert bridge is not None
    return bridge.windows


def pair(offset, base, limit):
    return {offset: (2, base), offset + 2: (2, limit)}


#  registers of a type 1 header (the others closed) -> windows
WINDOWS = [
    ({}, []),  # base above limit is closed
    ({0x1C: (2, 0x4030)}, [(IO, 0x3000, 0x4FFF)]),  # 16 bits
    ({0x1C: (2, 0x3030)}, [(IO, 0x3000, 0x3FFF)]),  # the limit ends with its granule
    ({0x1C: (2, 0x3040)}, []),
    ({0x1C: (2, 0x0000)}, [(IO, 0, 0xFFF)]),  # as it reads; lspci says the same
    ({0x1C: (2, 0x4131), 0x30: (4, 0x0002_0001)}, [(IO, 0x1_3000, 0x2_4FFF)]),  # 32 bits
    ({0x1C: (2, 0x4030), 0x30: (4, 0x0002_0001)}, [(IO, 0x3000, 0x4FFF)]),  # 16 bits: 30 is reserved
    (pair(0x20, 0xFEA0, 0xFEB0), [(MEMORY, 0xFEA0_0000, 0xFEBF_FFFF)]),
    (pair(0x20, 0xFEAF, 0xFEAF), [(MEMORY, 0xFEA0_0000, 0xFEAF_FFFF)]),  # the low four bits are no address
    (pair(0x20, 0xFEB0, 0xFEA0), []),
    (pair(0x24, 0xE000, 0xE0F0), [(PREFETCHABLE, 0xE000_0000, 0xE0FF_FFFF)]),  # 32 bits
    (
        pair(0x24, 0x0001, 0xFFF1) | {0x28: (4, 0x380), 0x2C: (4, 0x383)},
        [(PREFETCHABLE, 0x380_0000_0000, 0x383_FFFF_FFFF)],
    ),
    (pair(0x24, 0xE000, 0xE0F0) | {0x28: (4, 1), 0x2C: (4, 1)}, [(PREFETCHABLE, 0xE000_0000, 0xE0FF_FFFF)]),
    # closed only in the upper halves
    (pair(0x24, 0x0001, 0xFFF1) | {0x28: (4, 2), 0x2C: (4, 1)}, []),
    (
        pair(0x24, 0xFFF1, 0x0001) | {0x28: (4, 1), 0x2C: (4, 2)},
        [(PREFETCHABLE, 0x1_FFF0_0000, 0x2_000F_FFFF)],
    ),
    (
        {0x1C: (2, 0x4030), **pair(0x20, 0xFEA0, 0xFEB0), **pair(0x24, 0xE000, 0xE0F0)},
        [(IO, 0x3000, 0x4FFF), (MEMORY, 0xFEA0_0000, 0xFEBF_FFFF), (PREFETCHABLE, 0xE000_0000, 0xE0FF_FFFF)],
    ),
]


@pytest.mark.parametrize(("registers", "expected"), WINDOWS)
def test_windows_are_open_from_base_to_limit(registers, expected):
    assert windows(CLOSED | registers) == tuple(Window(*window) for window in expected)


def test_every_pair_of_io_registers():
    for base in range(256):
        for limit in range(base & 0xF, 256, 0x10):  # both say the same width
            found = windows(CLOSED | {0x1C: (1, base), 0x1D: (1, limit)})
            start, end = (base >> 4) << 12, (limit >> 4) << 12 | 0xFFF
            assert found == ((Window(IO, start, end),) if start <= end else ())


@pytest.mark.parametrize(
    ("base", "header", "wide"),
    [(0xFFF1, BRIDGE, True), (0x0001, BRIDGE, True), (0xFFF0, BRIDGE, False), (0xFFF1, CARDBUS, False)],
)
def test_the_type_of_the_prefetchable_window_is_known_even_if_it_is_closed(base, header, wide):
    bridge = decode_bridge(ConfigSpace(space({**pair(0x24, base, base & 0xF)}, header=header)))
    assert bridge is not None
    assert bridge.wide is wide


@pytest.mark.parametrize("header", [BRIDGE, CARDBUS])
def test_bus_numbers_stand_at_18(header):
    bridge = decode_bridge(ConfigSpace(space({0x18: (4, 0xAA_04_02_01)}, header=header)))
    assert bridge is not None
    assert (bridge.primary, bridge.secondary, bridge.subordinate) == (1, 2, 4)


@pytest.mark.parametrize("header", [ENDPOINT, 3, 0x7F])
def test_no_other_header_is_a_bridge(header):
    assert decode_bridge(ConfigSpace(space({0x18: (4, 0x04_02_01)}, header=header))) is None


#  registers of a type 2 header -> windows
CARDBUS_WINDOWS = [
    ({}, []),  # both registers zero: nobody has set it up
    ({0x1C: (4, 0x2000_0000), 0x20: (4, 0x2FFF_F000)}, [(MEMORY, 0x2000_0000, 0x2FFF_FFFF)]),
    ({0x1C: (4, 0x2000_0000), 0x20: (4, 0x2000_0000)}, [(MEMORY, 0x2000_0000, 0x2000_0FFF)]),  # one page
    ({0x24: (4, 0x3000_0000), 0x28: (4, 0x3000_1000)}, [(MEMORY, 0x3000_0000, 0x3000_1FFF)]),
    ({0x1C: (4, 0x3000_0000), 0x20: (4, 0x2000_0000)}, []),
    # bridge control bits 8 and 9 make window 0 and 1 prefetchable
    (
        {
            0x1C: (4, 0x2000_0000), 0x20: (4, 0x2000_0000),
            0x24: (4, 0x3000_0000), 0x28: (4, 0x3000_0000), 0x3E: (2, 0x0100),
        },
        [(PREFETCHABLE, 0x2000_0000, 0x2000_0FFF), (MEMORY, 0x3000_0000, 0x3000_0FFF)],
    ),
    (
        {0x24: (4, 0x3000_0000), 0x28: (4, 0x3000_0000), 0x3E: (2, 0x0200)},
        [(PREFETCHABLE, 0x3000_0000, 0x3000_0FFF)],
    ),
    ({0x2C: (4, 0x1000), 0x30: (4, 0x10FC)}, [(IO, 0x1000, 0x10FF)]),
    ({0x34: (4, 0x1400), 0x38: (4, 0x14FC)}, [(IO, 0x1400, 0x14FF)]),
    ({0x2C: (4, 0xABCD_1000), 0x30: (4, 0xABCD_10FC)}, [(IO, 0x1000, 0x10FF)]),  # 16 bits
    ({0x2C: (4, 0x0001_1001), 0x30: (4, 0x0001_10FC)}, [(IO, 0x1_1000, 0x1_10FF)]),  # bit 0: 32 bits
    ({0x2C: (4, 0x2000), 0x30: (4, 0x1000)}, []),
    ({0x2C: (4, 0), 0x30: (4, 0xFC)}, [(IO, 0, 0xFF)]),  # from port 0 on
    ({0x1C: (4, 0), 0x20: (4, 0x1000)}, [(MEMORY, 0, 0x1FFF)]),
]  # fmt: skip


@pytest.mark.parametrize(("registers", "expected"), CARDBUS_WINDOWS)
def test_cardbus_windows(registers, expected):
    assert windows(registers, header=CARDBUS) == tuple(Window(*window) for window in expected)


OPEN = {
    0x18: (4, 0x04_02_01),
    0x1C: (2, 0x4131),
    **pair(0x20, 0xFEA0, 0xFEB0),
    **pair(0x24, 0x0001, 0xFFF1),
    0x28: (4, 0x380),
    0x2C: (4, 0x383),
    0x30: (4, 0x0002_0001),
}
#  bytes of a type 1 header -> which windows are known
KNOWN_TYPE_1 = [
    (0x1B, []),
    (0x1D, []),  # a base without its limit
    (0x20, []),  # 32-bit I/O, whose upper halves come late
    (0x23, []),
    (0x24, [MEMORY]),
    (0x26, [MEMORY]),
    (0x28, [MEMORY]),  # 64-bit prefetchable without its upper halves
    (0x2F, [MEMORY]),
    (0x30, [MEMORY, PREFETCHABLE]),
    (0x33, [MEMORY, PREFETCHABLE]),
    (0x34, [IO, MEMORY, PREFETCHABLE]),
]


@pytest.mark.parametrize(("size", "kinds"), KNOWN_TYPE_1)
def test_a_window_of_which_half_is_unknown_is_unknown(size, kinds):
    assert [window.kind for window in windows(OPEN, size=size)] == kinds


OPEN_CARDBUS = dict.fromkeys(range(28, 60, 4), (4, 4096))


@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        (0x24, []),  # whether memory windows are prefetchable stands at 3e
        (0x34, [IO]),
        (0x3F, [IO, IO]),
        (0x40, [MEMORY, MEMORY, IO, IO]),
    ],
)
def test_a_cardbus_window_of_unknown_kind_is_unknown(size, kinds):
    assert [window.kind for window in windows(OPEN_CARDBUS, header=CARDBUS, size=size)] == kinds


@pytest.mark.parametrize("size", range(0x1B))
def test_without_its_numbers_there_is_no_bridge(size):
    assert decode_bridge(ConfigSpace(space(OPEN, header=BRIDGE, size=size))) is None


def test_a_bridge_without_windows():
    assert decode_bridge(ConfigSpace(space(CLOSED, header=BRIDGE))) == Bridge(0, 0, 0, ())
