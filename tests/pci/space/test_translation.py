"""Host bridges that translate: one constant below a root bus is no difference, a single one is."""

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import RawFunction, Resource, decode_machine, parse_sbdf
from pcipt.pci.inventory import Inventory
from pcipt.pci.space.beliefs import NO_SHIFT, Shift
from tests.pci.spaces import BRIDGE, bars, space

ADDED = 0x5_4000_0000
NOTHING = Resource(0, 0, 0)
BRIDGE_SPACE = space(
    {0x04: (2, 7), 0x18: (4, 0x01_01_00), 0x1C: (2, 0x00F0), 0x20: (4, 0xD910_D800), 0x24: (4, 0x0000_FFF0)},
    header=BRIDGE,
)


def port(added=ADDED, address="00:00.0", root_bus=0):
    window = Resource(0xD800_0000 + added, 0x120_0000, 0x200)
    return RawFunction(
        parse_sbdf(address),
        BRIDGE_SPACE,
        (*[NOTHING] * 14, window, NOTHING, NOTHING),
        root_bus=root_bus,
        secondary=1,
    )


def card(*pairs, address="01:00.0", parent="00:00.0", command=2, size=0x10_0000):
    """Make a function whose memory BARs are at the first of each pair, and in Linux at the second."""
    registers = {0x04: (2, command), **bars(*(register for register, _ in pairs))}
    lines = tuple(Resource(believed, size, 0x200) for _, believed in pairs)
    return RawFunction(
        parse_sbdf(address),
        space(registers),
        lines,
        parent=parse_sbdf(parent) if parent else None,
        root_bus=None if parent else int(address[:2], 16),
    )


def alone(*pairs, **more):
    """Make a function below a root bus that has no other."""
    return card(*pairs, address="00:02.0", parent=None, **more)


def wide(*pairs):
    """Make such a function with 64-bit memory BARs."""
    registers = {0x04: (2, 2)}
    lines = [NOTHING] * 6
    for number, (register, believed) in enumerate(pairs):
        registers |= {0x10 + 8 * number: (4, register | 4), 0x14 + 8 * number: (4, register >> 32)}
        lines[2 * number] = Resource(believed, 0x10_0000, 0x10_0200)
    return RawFunction(parse_sbdf("00:02.0"), space(registers), tuple(lines), root_bus=0)


def found(*raws):
    machine = decode_machine(raws)
    assert dict(Inventory(raws).machine.functions) == dict(machine.functions)
    codes = [(str(sbdf)[5:], finding.code) for sbdf, finding in machine.findings]
    return [function.shift.memory for function in machine.functions.values()], codes


AT = 0xD800_0000
NEAR = 0x1000_0000  # a register can hold AT + NEAR
NEXT = AT + 0x10_0000


def test_one_constant_below_a_root_bus_is_no_finding():
    assert found(port(), card((AT, AT + ADDED), (NEXT, NEXT + ADDED))) == ([ADDED, ADDED], [])


def test_a_bar_that_differs_by_another_value_has_moved():
    moved = card((AT, AT + ADDED), (NEXT, AT + ADDED + 0x80_0000))
    assert found(port(), moved) == ([ADDED] * 2, [("01:00.0", "bar-drift")])
    machine = decode_machine([port(), moved])
    assert "but Linux has 0xd8800000" in machine.findings[0][1].text  # as the register would have it


def test_a_reset_below_a_translating_bridge_is_found():
    reset = card((AT, AT + ADDED), (NEXT, NEXT + ADDED), (0, NEXT + 0x10_0000 + ADDED))
    assert found(port(), reset) == ([ADDED] * 2, [("01:00.0", "bar-drift")])


@pytest.mark.parametrize(
    "raws",
    [
        [alone((AT, AT + NEAR))],  # one BAR alone may have moved
        [alone((AT, AT + NEAR), (NEXT, NEXT + 2 * NEAR))],
        [alone((AT, AT + ADDED), (NEXT, NEXT + NEAR))],  # as many differ by one value as by the other
        [alone((AT, AT + 0x8000), (NEXT, NEXT + 0x8000))],
        [port(0), card((AT, AT + ADDED))],  # as many are where Linux has them
        [port(), card((AT, AT + 0x80_0000))],  # no two agree
        [port(0x1000), card((AT, AT + 0x1000))],  # no window of a host bridge begins there
    ],
)
def test_what_is_no_constant_of_all_has_moved(raws):
    shifts, codes = found(*raws)
    assert set(shifts) == {0}
    assert codes


@pytest.mark.parametrize(
    ("raw", "added"),
    [
        (alone((AT, AT + ADDED)), ADDED),  # no 32-bit register holds Linux's address
        (alone((AT, AT + ADDED), (NEXT, NEXT + ADDED)), ADDED),
        (alone((AT, AT + NEAR), (NEXT, NEXT + NEAR)), NEAR),  # all agree
        (wide((AT, AT + ADDED), (NEXT, NEXT + ADDED)), ADDED),
        (port(), ADDED),  # a bridge with a window
    ],
)
def test_one_function_shows_a_constant_that_nothing_else_explains(raw, added):
    assert found(raw) == ([added], [])


def test_one_function_with_one_wide_bar_may_have_moved():
    assert found(wide((AT, AT + ADDED))) == ([0], [("00:02.0", "bar-drift")])


def test_what_moved_in_a_lone_function_is_told():
    moved = alone((AT, AT + ADDED), (NEXT, NEXT + ADDED), (NEXT + 0x10_0000, AT + ADDED + 0x80_0000))
    assert found(moved) == ([ADDED], [("00:02.0", "bar-drift")])


def test_a_lone_function_whose_bars_were_cleared_shows_no_constant():
    reset = alone((0, AT), (0, NEXT), command=0)
    assert found(reset) == ([0], [("00:02.0", "bar-drift")] * 2)


def test_each_root_bus_has_its_own_host_bridge():
    other = [port(0, "80:00.0", 0x80), card((AT, AT), address="81:00.0", parent="80:00.0")]
    other[0] = attrs.evolve(other[0], secondary=0x81)
    data = bytearray(other[0].config)
    data[0x18:0x1B] = bytes((0x80, 0x81, 0x81))
    other[0] = attrs.evolve(other[0], config=bytes(data))
    assert found(port(), card((AT, AT + ADDED)), *other) == ([ADDED, ADDED, 0, 0], [])


def test_ports_and_memory_are_added_to_apart():
    def device(address):
        registers = {0x04: (2, 3), **bars(AT, 0xC001)}
        lines = (Resource(AT, 0x1000, 0x200), Resource(0x1_C000, 0x20, 0x101))
        return RawFunction(parse_sbdf(address), space(registers), lines, root_bus=0)

    machine = decode_machine([device("00:01.0"), device("00:02.0")])
    assert {function.shift for function in machine.functions.values()} == {Shift(io=0x1_0000)}
    assert machine.findings == []


def test_a_rom_that_does_not_decode_proves_nothing():
    def device(address, believed):
        registers = {0x30: (4, AT)}
        return RawFunction(
            parse_sbdf(address),
            space(registers),
            (*[NOTHING] * 6, Resource(believed, 0x1000, 0x200)),
            root_bus=0,
        )

    machine = decode_machine([device(f"00:0{n}.0", AT + ADDED) for n in (1, 2)])
    assert {function.shift for function in machine.functions.values()} == {NO_SHIFT}


CHOICES = [port(), port(0), card((AT, AT + ADDED)), card((AT, AT)), card((0, AT + ADDED)), None]
OTHERS = [card((NEXT, NEXT + added), address="01:00.1") for added in (ADDED, 0, 0x80_0000)]


@given(st.lists(st.sampled_from([*CHOICES, *OTHERS]), max_size=12))
def test_an_inventory_follows_the_constant(steps):
    inventory, held = Inventory(), {}
    for raw in steps:
        where = parse_sbdf("01:00.0") if raw is None else raw.sbdf
        inventory.put(where, raw)
        held.pop(where, None)
        if raw is not None:
            held[where] = raw
        assert dict(inventory.machine.functions) == dict(decode_machine(held.values()).functions)


def test_the_registers_are_what_the_test_means():
    assert struct.unpack_from("<HH", BRIDGE_SPACE, 0x20) == (0xD800, 0xD910)
