"""An inventory equals `decode_machine` of the same raws, whatever was put in and taken out before."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import RawFunction, Resource, Sbdf, decode_machine
from pcipt.pci.inventory import Inventory
from tests.machines import bridge, function
from tests.pci.spaces import BRIDGE, extended_list, space

SEGMENTS = (0, 1)
STRUCTURE = {0x08: (2, 9), 0x0E: (2, 4), 0x10: (2, 2), 0x14: (2, 1), 0x16: (2, 1), 0x24: (4, 0xE000_0004)}
VF_LINES = (*[Resource(0, 0, 0)] * 7, Resource(0xE000_0000, 0x4000, 0x14_0204))
ADDRESSES = [Sbdf(segment, bus, device, 0) for segment in SEGMENTS for bus in range(4) for device in range(3)]


@st.composite
def raws(draw, sbdf):
    """Draw a function at this address: an endpoint, a bridge, a physical or a virtual function."""
    kind = draw(st.sampled_from(["endpoint", "bridge", "physical", "virtual", "silent", "half"]))
    parent = draw(st.sampled_from([None, None, *ADDRESSES]))
    root = draw(st.sampled_from([None, sbdf.bus, sbdf.bus, sbdf.bus])) if parent is None else None
    place = {"parent": parent, "root_bus": root}
    if kind == "bridge":
        first, last = draw(st.integers(0, 4)), draw(st.integers(0, 5))
        data = space({0x18: (4, sbdf.bus | first << 8 | last << 16)}, header=BRIDGE)
        return RawFunction(sbdf, data, secondary=draw(st.sampled_from([None, first, 2])), **place)
    if kind == "physical":
        offset = draw(st.integers(0, 3))
        structure = {**STRUCTURE, 0x14: (2, offset)}
        return RawFunction(
            sbdf, space(extended_list((0x100, 0x0010, structure)), size=4096), VF_LINES, **place
        )
    if kind == "virtual":
        return RawFunction(sbdf, b"\xff" * 4 + bytes(60), physfn=draw(st.sampled_from(ADDRESSES)), **place)
    if kind == "silent":
        return RawFunction(sbdf, None, **place)
    return RawFunction(sbdf, space({0x04: (2, draw(st.integers(0, 6)))}), **place)


@st.composite
def steps(draw):
    sbdf = draw(st.sampled_from(ADDRESSES))
    return sbdf, draw(st.none() | raws(sbdf))


def equals(inventory, expected):
    whole = decode_machine(expected.values())
    assert inventory.raws == expected
    assert list(inventory.machine.functions.items()) == list(whole.functions.items())
    for above in (None, *ADDRESSES):
        assert inventory.machine.children(above) == whole.children(above)
    assert inventory.machine.findings == whole.findings


@given(st.lists(steps(), max_size=14), st.lists(steps(), max_size=20))
def test_step_by_step_it_is_what_a_whole_reading_gives(start, then):
    expected = {sbdf: raw for sbdf, raw in start if raw is not None}
    inventory = Inventory(expected.values())
    equals(inventory, expected)
    for sbdf, raw in then:
        before = dict(inventory.machine.functions)
        changed = inventory.put(sbdf, raw)
        expected.pop(sbdf, None)
        if raw is not None:
            expected[sbdf] = raw
        equals(inventory, expected)
        now = inventory.machine.functions
        assert changed == {s for s in {*before, *now} if before.get(s) != now.get(s)}


@given(st.lists(steps(), max_size=14), st.lists(steps(), max_size=14))
def test_loading_again_replaces_everything(start, then):
    one, other = ({sbdf: raw for sbdf, raw in each if raw is not None} for each in (start, then))
    inventory = Inventory(one.values())
    before = dict(inventory.machine.functions)
    changed = inventory.load(other.values())
    equals(inventory, other)
    now = inventory.machine.functions
    assert changed == {s for s in {*before, *now} if before.get(s) != now.get(s)}


def usual():
    return [
        function("00:00.0"),
        bridge("00:1c.0", 1, 4),
        bridge("01:00.0", 2, 3, parent="00:1c.0"),
        function("02:00.0", parent="01:00.0", command=2),
        function("00:1f.0"),
    ]


RENUMBERED = bridge("01:00.0", 3, 3, parent="00:1c.0")
#  what is read anew -> the functions that are decoded differently
CHANGES = [
    (function("00:00.0"), []),  # as it was
    (function("02:00.0", parent="01:00.0", command=0), ["0000:02:00.0"]),
    (RENUMBERED, ["0000:01:00.0", "0000:02:00.0"]),  # no number of Linux's: the registers count paths
    (attrs.evolve(RENUMBERED, secondary=2), ["0000:01:00.0"]),  # Linux still says 2: drift, and no move
    (function("04:00.0", parent="00:1c.0"), ["0000:04:00.0"]),
]


@pytest.mark.parametrize(("raw", "expected"), CHANGES)
def test_only_what_is_concerned_is_decoded_again(raw, expected):
    inventory = Inventory(usual())
    kept = {s: f for s, f in inventory.machine.functions.items() if str(s) not in expected}
    assert sorted(map(str, inventory.put(raw.sbdf, raw))) == expected
    assert all(inventory.machine.functions[sbdf] is function for sbdf, function in kept.items())


def test_what_leaves_is_named():
    inventory = Inventory(usual())
    assert sorted(map(str, inventory.put(usual()[2].sbdf, None))) == ["0000:01:00.0", "0000:02:00.0"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_address_that_occurs_twice_is_told_as_in_a_whole_reading(order):
    twins = [function("02:00.0", command=command) for command in order]
    inventory = Inventory([*usual()[:1], *twins])
    whole = decode_machine([*usual()[:1], *twins])
    assert inventory.machine.findings == whole.findings
    assert dict(inventory.machine.functions) == dict(whole.functions)
    assert [(str(sbdf), each.code) for sbdf, each in whole.findings] == [("0000:02:00.0", "address-repeated")]
    assert inventory.load([*usual()[:1], *twins]) == frozenset()
    assert inventory.load([*usual()[:1], twins[0]]) == {twins[0].sbdf}
    assert inventory.machine.findings == []
