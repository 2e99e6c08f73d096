"""What follows from each reading: places and addresses, what Linux dropped, what renumbered buses moved."""

import attrs
import pytest

from pcipt.engine.memory import Memory
from pcipt.engine.views.machine_state import MachineState, bridge_numbers
from pcipt.pci import Frames, Gfn, decode_machine
from pcipt.remap.ledger import Ledger
from tests.engine.stage import S
from tests.machines import bridge, function
from tests.remap.devices import device, gone

PORT, NIC, VF, SWITCH, BELOW = map(S, ("00:1c.0", "02:00.0", "02:00.1", "02:01.0", "03:00.0"))
AT_PORT, AT_NIC, AT_SWITCH, AT_BELOW = (
    "00_1c.0", "00_1c.0-00_00.0", "00_1c.0-00_01.0", "00_1c.0-00_01.0-00_00.0",
)  # fmt: skip


def port(secondary=2, subordinate=4, **more):
    """Linux counts from bus 2, whatever the register says."""
    return attrs.evolve(bridge("00:1c.0", secondary, subordinate, **more), secondary=2)


def switch(secondary=3, subordinate=3):
    return attrs.evolve(bridge("02:01.0", secondary, subordinate, parent="00:1c.0"), secondary=3)


def nic(**more):
    return function("02:00.0", parent="00:1c.0", **more)


def below():
    return function("03:00.0", parent="02:01.0")


def raws():
    virtual = function("02:00.1", parent="00:1c.0", physfn="02:00.0", vendor=0xFFFF, device=0xFFFF)
    return [function("00:00.0"), port(), nic(), virtual, switch(), below()]


LINUX_COUNTS_FROM_4 = attrs.evolve(bridge("00:1c.0", 4, 8), secondary=4)


@pytest.fixture(name="state")
def the_state():
    state = MachineState(Memory(Ledger("boot")))
    assert state.load(raws()) == {raw.sbdf for raw in raws()}
    return state


def memory(state):
    return state._memory


def test_a_reading_tells_what_is_different():
    state = MachineState(Memory(Ledger("boot")))
    state.load(raws())
    assert state.load(raws()) == frozenset()
    assert state.put(NIC, nic()) == frozenset()
    assert NIC in state.put(NIC, nic(command=2))
    assert state.machine.functions[NIC].command == 2
    assert state.raws[NIC] == nic(command=2)


def test_places_and_addresses_lead_to_each_other(state):
    pairs = {AT_PORT: PORT, AT_NIC: NIC, AT_SWITCH: SWITCH, AT_BELOW: BELOW}
    assert {place: state.address_of(place) for place in pairs} == pairs
    assert {sbdf: state.place_at(sbdf) for sbdf in pairs.values()} == {v: k for k, v in pairs.items()}
    assert (state.place_at(S("09:00.0")), state.address_of("nowhere")) == (None, None)


def test_what_linux_dropped_is_removed_and_its_place_vacated(state):
    assert NIC in state.put(NIC, None)
    assert (state.place_at(NIC), state.address_of(AT_NIC)) == (None, None)
    assert (memory(state).removed, memory(state).vacated) == ({NIC}, {AT_NIC: NIC})
    assert state.bars.pages_of(NIC) == ()


def test_what_comes_back_is_neither_removed_nor_vacated(state):
    state.put(NIC, None)
    state.put(NIC, nic())
    assert (memory(state).removed, memory(state).vacated) == (set(), {})
    assert state.address_of(AT_NIC) == NIC


def test_what_was_read_as_before_is_not_vacated(state):
    state.put(NIC, nic(command=2))
    assert (memory(state).removed, memory(state).vacated) == (set(), {})
    assert state.place_at(NIC) == AT_NIC


@pytest.mark.parametrize("bus", range(4, 12))  # the order of the functions does not count
def test_a_place_whose_function_linux_renumbered_is_not_vacated(state, bus):
    """The whole machine is read again with other numbers."""
    moved = function(f"{bus:02x}:00.0", parent="00:1c.0")
    counting = attrs.evolve(bridge("00:1c.0", bus, bus + 4), secondary=bus)
    state.load([function("00:00.0"), counting, moved])
    assert state.address_of(AT_NIC) == moved.sbdf
    assert state.place_at(NIC) is None
    assert memory(state).vacated == {"00_1c.0-00_00.1": VF, AT_SWITCH: SWITCH, AT_BELOW: BELOW}
    assert memory(state).removed == {NIC, VF, SWITCH, BELOW}


def test_a_place_that_moved_before_its_old_address_was_read_keeps_its_new_one(state):
    moved = S("04:00.0")
    state.put(PORT, LINUX_COUNTS_FROM_4)
    state.put(moved, function("04:00.0", parent="00:1c.0"))
    state.put(NIC, None)
    assert state.address_of(AT_NIC) == moved


def test_bars_are_found_where_they_were_read(state):
    state.put(NIC, device("02:00.0", [(0xFE00_0000, 0x2000)], parent="00:1c.0"))
    assert [bar.sbdf for bar in state.bars.over(Frames(Gfn(0xFE001), 1))] == [NIC]
    state.put(NIC, None)
    assert state.bars.over(Frames(Gfn(0xFE001), 1)) == []


@pytest.mark.parametrize(
    ("of", "relatives"),
    [
        ([NIC], {PORT, VF}),
        ([VF], {PORT, NIC}),
        ([SWITCH], {PORT, BELOW}),
        ([BELOW], {PORT, SWITCH}),
        ([PORT], {NIC, VF, SWITCH, BELOW}),
        ([S("00:00.0")], set()),
        ([S("09:00.0")], set()),
        ([NIC, BELOW], {PORT, VF, SWITCH}),
    ],
)
def test_relatives_are_bridges_above_what_is_behind_and_the_other_functions_of_sriov(state, of, relatives):
    assert state.relatives(of) - set(of) == relatives


# Numbers of bridges


@pytest.mark.parametrize(
    ("raw", "numbers"), [(port(2, 4), (2, 4)), (port(5, 9), (5, 9)), (nic(), None), (gone(port()), None)]
)
def test_the_numbers_of_a_bridge_are_those_that_can_be_read(raw, numbers):
    (found,) = decode_machine([raw]).functions.values()
    assert bridge_numbers(found) == numbers


def test_the_last_numbers_of_a_bridge_are_remembered_until_it_leaves(state):
    assert memory(state).bridge_numbers == {AT_PORT: (2, 4), AT_SWITCH: (3, 3)}
    state.put(SWITCH, gone(switch()))
    assert memory(state).bridge_numbers[AT_SWITCH] == (3, 3)
    state.put(PORT, port(2, 8))
    assert memory(state).bridge_numbers[AT_PORT] == (2, 8)
    state.put(SWITCH, None)
    assert memory(state).bridge_numbers == {AT_PORT: (2, 8)}


# Renumbered buses


def moved_port(state, secondary=5, subordinate=9):
    state.put(PORT, port(secondary, subordinate))
    for raw in (nic(), switch(), below()):
        state.put(raw.sbdf, gone(raw))


def test_functions_behind_a_renumbered_bridge_are_found(state):
    assert state.renumbered == {}
    moved_port(state)
    assert state.renumbered == {NIC: S("05:00.0"), SWITCH: S("05:01.0"), BELOW: None}


def test_functions_come_back_with_the_numbers(state):
    moved_port(state)
    state.put(PORT, port())
    for raw in (nic(), switch(), below()):
        state.put(raw.sbdf, raw)
    assert state.renumbered == {}


def test_the_order_of_the_readings_does_not_count(state):
    for raw in (below(), switch(), nic()):
        state.put(raw.sbdf, gone(raw))
    assert state.renumbered == {}
    state.put(PORT, port(5, 9))
    assert state.renumbered == {NIC: S("05:00.0"), SWITCH: S("05:01.0"), BELOW: None}


def test_a_second_renumbering_is_followed(state):
    moved_port(state)
    state.put(PORT, port(6, 9))
    assert state.renumbered[NIC] == S("06:00.0")
    assert state.renumbered[SWITCH] == S("06:01.0")


def test_what_linux_dropped_is_not_renumbered_any_more(state):
    moved_port(state)
    state.put(NIC, None)
    assert NIC not in state.renumbered


def test_a_single_function_that_answers_again_is_not_renumbered(state):
    moved_port(state)
    state.put(NIC, nic())
    assert NIC not in state.renumbered
    assert SWITCH in state.renumbered


def test_a_bridge_that_was_in_the_way_of_another_gives_it_back(state):
    """Two bridges claim the bus: which of them answers nobody can tell."""
    moved_port(state)
    other = S("00:1d.0")
    state.put(other, bridge("00:1d.0", 4, 6))
    assert state.renumbered[NIC] is None
    state.put(other, bridge("00:1d.0", 0x20, 0x21))
    assert state.renumbered[NIC] == S("05:00.0")


def test_what_does_not_answer_behind_a_bridge_as_linux_has_it_is_not_renumbered(state):
    state.put(NIC, gone(nic()))
    assert state.renumbered == {}


def test_a_function_that_comes_behind_a_renumbered_bridge_is_renumbered(state):
    moved_port(state)
    late = function("02:02.0", parent="00:1c.0")
    state.put(late.sbdf, gone(late))
    assert state.renumbered[late.sbdf] == S("05:02.0")


def test_all_that_moved_is_found_in_one_reading_of_the_machine(state):
    others = [bridge(f"00:{number:02x}.0", 0x20 + number, 0x20 + number) for number in range(4)]
    readings = [port(5, 9), gone(nic()), gone(switch()), gone(below()), *others]
    state.load([function("00:00.0"), *readings])
    assert state.renumbered == {NIC: S("05:00.0"), SWITCH: S("05:01.0"), BELOW: None}


def test_a_function_behind_two_renumbered_bridges_is_found_from_the_first_that_has_not_moved(state):
    """The switch passes on the bus on which it is itself now: nothing is reached behind it."""
    state.put(PORT, port(2, 9))
    state.put(SWITCH, switch(5, 5))
    moved_port(state)
    assert (state.renumbered[SWITCH], state.renumbered[BELOW]) == (S("05:01.0"), None)
    state.put(BELOW, None)
    state.put(BELOW, gone(below()))
    assert state.renumbered[BELOW] is None
