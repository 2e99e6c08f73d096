"""Random writes keep the invariants that the registers promise."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import StateError
from pcipt.pci import Range
from pcipt.pci.write import ConfigWrite
from pcipt.remap.writes.changes import BarMapped, BarMoved, BarUnmapped
from pcipt.remap.writes.decoding import bar_registers, decoded_range
from pcipt.remap.writes.shadow import settle, step
from tests.remap.writes.shadows import EXPRESS, FEATURES, NIC, REBAR, SRIOV, machine, mapped, run, write

OFFSETS = [
    4,
    0x10,
    0x14,
    0x18,
    0x1C,
    0x30,
    EXPRESS + 8,
    FEATURES + 4,
    SRIOV + 8,
    SRIOV + 0x10,
    SRIOV + 0x24,
    REBAR + 8,
]
VALUES = st.one_of(
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from([0, 1, 2, 3, 7, 0xFFFF_FFFF, 0xFE80_0000, 0x39, 0xFFFF_F800, 0x40]),
)


@st.composite
def writes(draw, addresses=(NIC,), offsets=tuple(OFFSETS)):
    size = draw(st.sampled_from([1, 2, 4]))
    offset = draw(st.sampled_from(offsets)) + draw(st.integers(0, 4 - size))
    return write(draw(st.sampled_from(addresses)), offset, size, draw(VALUES) & (1 << 8 * size) - 1)


anything = st.lists(
    st.one_of(
        writes(), writes(("00:1c.0", "07:00.0"), (4, 0x10, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x3C))
    ),
    max_size=30,
)
START = machine()


@settings(max_examples=300, deadline=None)
@given(anything)
def test_what_decodes_is_aligned_and_reports_follow_each_other(events):
    state = START
    reported = {(place, bar): span for place, f in state.functions.items() for bar, span in f.mapped.items()}
    for event in events:
        state, changes = step(state, event)
        for change in changes:
            if isinstance(change, BarUnmapped):
                assert reported.pop((change.place, change.bar)) == change.before
            elif isinstance(change, BarMoved | BarMapped):
                reported[change.place, change.bar] = change.after
    state, changes = settle(state)
    for change in changes:
        if isinstance(change, BarUnmapped):
            assert reported.pop((change.place, change.bar)) == change.before
        elif isinstance(change, BarMoved | BarMapped):
            reported[change.place, change.bar] = change.after
    held = {(place, bar): span for place, f in state.functions.items() for bar, span in f.mapped.items()}
    assert reported == held
    for span in held.values():
        assert span.start % span.size == 0
        assert span.start


@settings(max_examples=200, deadline=None)
@given(anything)
def test_after_settling_the_reports_are_what_the_registers_hold(events):
    state, _ = run(START, *events)
    state, _ = settle(state)
    reported = {(f.place, bar): span for f in state.functions.values() for bar, span in f.mapped.items()}
    held = {
        (f.place, bar.index): span
        for f in state.functions.values()
        for bar in bar_registers(f)
        if isinstance(span := decoded_range(f, bar), Range)
    }
    # a BAR that holds its size mask is still reported where it was
    sizing = {
        (f.place, f.index_at(offset))
        for f in state.functions.values()
        for offset, ones in f.ones.items()
        if ones
    }
    assert {key: held[key] for key in held.keys() - sizing} == {
        key: reported[key] for key in reported.keys() - sizing
    }


@settings(max_examples=300, deadline=None)
@given(anything, st.data())
def test_any_split_of_a_write_gives_the_same_registers(events, data):
    # how a function of which nothing is known is written tells what it is: it is not the same by bytes
    events = [event for event in events if event.sbdf.bus != 7]
    whole, _ = run(START, *events)
    pieces = []
    for event in events:
        resets = event.offset & ~3 in {EXPRESS + 8, FEATURES + 4, 0x3C}
        if resets or not data.draw(st.booleans()):
            pieces.append(event)
        else:
            order = data.draw(st.permutations(range(event.size)))
            pieces += [
                attrs.evolve(event, offset=event.offset + i, size=1, value=event.value >> 8 * i & 0xFF)
                for i in order
            ]
    parted, _ = run(START, *pieces)
    if any(event.sbdf.bus == 0 for event in events):
        return  # while numbers are half written, a function may be out of reach
    assert mapped(parted) == mapped(whole)
    assert [f.words for f in parted.functions.values()] == [f.words for f in whole.functions.values()]


@settings(deadline=None)
@given(
    st.sampled_from([(0x10,), (0x14,), (0x18, 0x1C), (0x30,)]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_a_sizing_round_trip_is_no_change(offsets, decoding, together, command):
    state, _ = run(START, write(NIC, 4, 2, 3 if decoding else command))
    function = state.at(write(NIC, 0, 1, 0).sbdf)
    assert function is not None
    ones = [write(NIC, offset, 4, 0xFFFF_F800 if offset == 0x30 else 0xFFFF_FFFF) for offset in offsets]
    back = [write(NIC, offset, 4, function.words[offset][0]) for offset in offsets]
    events = [*ones, *back] if together else [e for pair in zip(ones, back, strict=True) for e in pair]
    after, changes = run(state, *events)
    assert changes == []
    assert mapped(after) == mapped(state)


@settings(deadline=None)
@given(st.integers(3, 250), st.lists(writes(("09:00.0",), (0x10, 0x14, 0x3C)), max_size=5))
def test_renumbering_there_and_back_is_identity(bus, elsewhere):
    there = write("00:1c.0", 0x18, 4, (bus + 2) << 16 | bus << 8)
    back = write("00:1c.0", 0x18, 4, 0x0004_0200)
    other = [event for event in elsewhere if not bus <= 9 <= bus + 2]
    state, _ = run(START, *other)
    after, _ = run(state, there, back)
    assert mapped(after) == mapped(state)
    assert after.routes == state.routes
    assert after.functions == state.functions


@given(st.integers(-8, 0x1010), st.sampled_from([None, 0, 1, 2, 3, 4, 8]))
def test_an_access_that_cannot_be_or_has_no_width_leaves_the_state(offset, size):
    event = ConfigWrite(write(NIC, 0, 1, 0).sbdf, offset, size, 0)
    if size in {1, 2, 4} and 0 <= offset <= 0x1000 - size:
        return
    if size is None:
        after, _ = step(START, event)
        assert after is START
    else:
        with pytest.raises(StateError):
            step(START, event)
