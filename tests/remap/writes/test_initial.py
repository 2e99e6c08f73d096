"""The state a shadow starts from, and one function read again."""

import attrs
import pytest

from pcipt.pci import PciPath, parse_sbdf
from pcipt.remap.writes.initial import function_from_raw, refreshed, shadow_from_raws
from pcipt.remap.writes.shadow import settle
from tests.machines import bridge, function
from tests.remap.writes.shadows import NIC, machine, mapped, nic, run, told, write

PLACE = PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))


def test_functions_are_keyed_by_place():
    state = machine(function("40:00.0"))
    assert {str(place) for place in state.functions} == {"00_1c.0", "00_1c.0-00_00.0", "40_00.0"}
    assert state.roots == {(0, 0), (0, 0x40)}
    assert all(state.place_of(state.address_of(place)) == place for place in state.functions)


@pytest.mark.parametrize(
    ("raw", "sizes"),
    [
        (nic(), {0: 0x2_0000, 1: 0x20, 2: 0x10_0000, 4: 0, 5: 0, 6: 0x1_0000, 7: 0x4000}),
        (nic(resources=(), capabilities=False), {}),  # nobody told
        (nic(resources=[(0xFE80_0000, 0x1_8000, 0x200)], capabilities=False), {}),  # no power of two
    ],
)
def test_sizes_come_from_resource(raw, sizes):
    found = function_from_raw(PLACE, raw).sizes
    assert {index: found[index] for index in sizes} == sizes
    assert sizes or not found


@pytest.mark.parametrize(
    "raw",
    [
        attrs.evolve(nic(), config=None),
        attrs.evolve(nic(), config=b"\xff" * 256),
        attrs.evolve(nic(), physfn=parse_sbdf("02:00.1")),  # a virtual function's registers read zero
    ],
)
def test_what_has_no_registers_of_its_own_decodes_nothing(raw):
    shadow = shadow_from_raws([bridge("00:1c.0", 2, 4), raw, nic("02:00.1")])
    assert {sbdf for sbdf, _ in mapped(shadow)} == {"02:00.1"}


def test_a_function_read_again_is_what_was_read():
    config = bytearray(nic().config or b"")
    config[0x10:0x14] = (0xFE90_0000).to_bytes(4, "little")
    state, changes = refreshed(machine(), parse_sbdf(NIC), bytes(config))
    assert told(changes) == [("bar-moved", 0, "0xfe800000", "0xfe900000")]
    assert refreshed(state, parse_sbdf(NIC), bytes(config))[1] == ()


def test_reading_again_decides_what_waited():
    """Hardware, or vPCI, did not do what was written: nothing has changed after all."""
    state, changes = run(machine(), write(NIC, 0x18, 4, 0x4000_0000))
    state, changes = refreshed(state, parse_sbdf(NIC), nic().config or b"")
    assert changes == ()
    assert settle(state)[1] == ()


def test_64_bytes_will_do():
    _, changes = refreshed(machine(), parse_sbdf(NIC), (nic().config or b"")[:64])
    assert changes == ()


def test_an_answer_of_all_ones_takes_the_function_away():
    state, changes = refreshed(machine(), parse_sbdf(NIC), b"\xff" * 64)
    assert ("bar-unmapped", 0, "0xfe800000", None) in told(changes)
    assert state.at(parse_sbdf(NIC)) is None
