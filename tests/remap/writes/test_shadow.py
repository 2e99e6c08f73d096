"""What writes mean, one row a case. The function is a NIC behind a root port: see shadows.py."""

import pytest

from pcipt.errors import StateError
from pcipt.pci.write import Lost
from pcipt.remap.writes.changes import BarMoved, RereadWanted
from pcipt.remap.writes.shadow import settle, step
from tests.remap.writes.shadows import (
    EXPRESS,
    FEATURES,
    MIB,
    NIC,
    REBAR,
    SRIOV,
    machine,
    mapped,
    read,
    run,
    told,
    virtual,
    write,
)

OFF, ON = {"io": False, "memory": False}, {"io": True, "memory": True}
ONES = 0xFFFF_FFFF
START = {
    ("02:00.0", 0): (0xFE80_0000, 0x2_0000),
    ("02:00.0", 1): (0xC000, 0x20),
    ("02:00.0", 2): (0x38_0000_0000, MIB),
}


def w(offset, size, value):
    return write(NIC, offset, size, value)


def moved(bar, before, after):
    return ("bar-moved", bar, hex(before), hex(after))


def test_what_decodes_at_the_start_is_taken_from_the_machine():
    assert mapped(machine()) == START


# what it shows, writes, changes
CASES = [
    ("nothing new", [w(4, 2, 3)], []),
    ("bus mastering is not decoding", [w(4, 2, 7)], []),
    (
        "decoding off",
        [w(4, 2, 0)],
        [
            ("decode", OFF),
            ("bar-unmapped", 0, "0xfe800000", None),
            ("bar-unmapped", 1, "0xc000", None),
            ("bar-unmapped", 2, "0x3800000000", None),
        ],
    ),
    (
        "memory only",
        [w(4, 1, 1)],
        [
            ("decode", {"io": True, "memory": False}),
            ("bar-unmapped", 0, "0xfe800000", None),
            ("bar-unmapped", 2, "0x3800000000", None),
        ],
    ),
    ("the command's upper byte", [w(5, 1, 4)], []),
    # a move with decoding on: hardware obeys
    ("a 32-bit BAR moves", [w(0x10, 4, 0xFE90_0000)], [moved(0, 0xFE80_0000, 0xFE90_0000)]),
    ("bits below the size do not count", [w(0x10, 4, 0xFE81_FFFF)], []),
    ("an I/O BAR moves", [w(0x14, 4, 0xD000)], [moved(1, 0xC000, 0xD000)]),
    (
        "low half, high half",
        [w(0x18, 4, 0x4000_0000), w(0x1C, 4, 0x39)],
        [moved(2, 0x38_0000_0000, 0x39_4000_0000)],
    ),
    (
        "high half, low half",
        [w(0x1C, 4, 0x39), w(0x18, 4, 0x4000_0000)],
        [moved(2, 0x38_0000_0000, 0x39_4000_0000)],
    ),
    ("one half says nothing yet", [w(0x18, 4, 0x4000_0000)], []),
    (
        "one half, another function, the other half",
        [w(0x18, 4, 0), write("00:1c.0", 0x3C, 1, 5), w(0x1C, 4, 0x39)],
        [moved(2, 0x38_0000_0000, 0x39_0000_0000)],
    ),
    ("one half there and back", [w(0x1C, 4, 0x39), w(0x1C, 4, 0x38)], []),
    (
        "one half, then decoding",
        [w(0x1C, 4, 0x39), w(4, 2, 1), w(4, 2, 3)],
        [
            ("decode", {"io": True, "memory": False}),
            ("bar-unmapped", 0, "0xfe800000", None),
            ("bar-unmapped", 2, "0x3800000000", None),
            ("decode", ON),
            ("bar-mapped", 0, None, "0xfe800000"),
            moved(2, 0x38_0000_0000, 0x39_0000_0000),
        ],
    ),
    (
        "by bytes",
        [w(0x10 + i, 1, b) for i, b in enumerate((0, 0, 0x90, 0xFE))],
        [moved(0, 0xFE80_0000, 0xFE90_0000)],
    ),
    (
        "a byte, then something else of the function",
        [w(0x12, 1, 0x90), w(0x3C, 1, 5)],
        [moved(0, 0xFE80_0000, 0xFE90_0000)],
    ),
    ("a byte, then something else elsewhere", [w(0x12, 1, 0x90), write("00:1c.0", 0x3C, 1, 5)], []),
    # a move with decoding off
    (
        "off, write, on",
        [w(4, 2, 0), w(0x10, 4, 0xFE90_0000), w(4, 2, 2)],
        [
            ("decode", OFF),
            ("bar-unmapped", 0, "0xfe800000", None),
            ("bar-unmapped", 1, "0xc000", None),
            ("bar-unmapped", 2, "0x3800000000", None),
            ("decode", {"io": False, "memory": True}),
            moved(0, 0xFE80_0000, 0xFE90_0000),
            ("bar-mapped", 2, None, "0x3800000000"),
        ],
    ),
    # sizing
    ("sizing a 32-bit BAR", [w(0x10, 4, ONES), w(0x10, 4, 0xFE80_0000)], []),
    ("sizing an I/O BAR", [w(0x14, 4, ONES), w(0x14, 4, 0xC001)], []),
    (
        "sizing both halves in turn",
        [w(0x18, 4, ONES), w(0x18, 4, 0xC), w(0x1C, 4, ONES), w(0x1C, 4, 0x38)],
        [],
    ),
    (
        "sizing both halves at once",
        [w(0x18, 4, ONES), w(0x1C, 4, ONES), w(0x18, 4, 0xC), w(0x1C, 4, 0x38)],
        [],
    ),
    (
        "sizing by bytes",
        [w(0x10 + i, 1, 0xFF) for i in range(4)]
        + [w(0x10 + i, 1, b) for i, b in enumerate((0, 0, 0x80, 0xFE))],
        [],
    ),
    ("sizing between others", [w(0x10, 4, ONES), write("00:1c.0", 0x3C, 1, 1), w(0x10, 4, 0xFE80_0000)], []),
    (
        "sizing that ends in a move",
        [w(0x10, 4, ONES), w(0x10, 4, 0xFE90_0000)],
        [moved(0, 0xFE80_0000, 0xFE90_0000)],
    ),
    (
        "sizing one half, then moving",
        [w(0x18, 4, ONES), w(0x18, 4, 0), w(0x1C, 4, 0x39)],
        [moved(2, 0x38_0000_0000, 0x39_0000_0000)],
    ),
    ("sizing the ROM", [w(0x30, 4, 0xFFFF_F800), w(0x30, 4, 0xFE84_0000)], []),
    (
        "sizing the ROM as Linux's option ROM code does",
        [w(0x30, 4, 0xFFFF_FFFE), w(0x30, 4, 0xFE84_0000)],
        [],
    ),
    (
        "an enabled ROM is sized",
        [w(0x30, 4, 0xFE84_0001), w(0x30, 4, 0xFFFF_F800), w(0x30, 4, 0xFE84_0001)],
        [("rom", True), ("bar-mapped", 6, None, "0xfe840000")],
    ),
    # not assigned
    ("address 0", [w(0x10, 4, 0)], [("bar-unmapped", 0, "0xfe800000", None)]),
    ("the top of the space", [w(0x10, 4, 0xFFFE_0000)], [("bar-unmapped", 0, "0xfe800000", None)]),
    ("just below the top", [w(0x10, 4, 0xFFFC_0000)], [moved(0, 0xFE80_0000, 0xFFFC_0000)]),
    ("the top of the ports", [w(0x14, 4, 0xFFE0)], [("bar-unmapped", 1, "0xc000", None)]),
    (
        "the top of 64 bits",
        [w(0x18, 4, 0xFFF0_0000), w(0x1C, 4, 0xFFFF_FFFE)],
        [moved(2, 0x38_0000_0000, 0xFFFF_FFFE_FFF0_0000)],
    ),
    # the ROM
    (
        "ROM on and off",
        [w(0x30, 4, 0xFE84_0001), w(0x30, 4, 0xFE84_0000)],
        [
            ("rom", True),
            ("bar-mapped", 6, None, "0xfe840000"),
            ("rom", False),
            ("bar-unmapped", 6, "0xfe840000", None),
        ],
    ),
    (
        "ROM on while nothing decodes",
        [w(4, 2, 1), w(0x30, 1, 1)],
        [
            ("decode", {"io": True, "memory": False}),
            ("bar-unmapped", 0, "0xfe800000", None),
            ("bar-unmapped", 2, "0x3800000000", None),
            ("rom", True),
        ],
    ),
    # registers that hardware ignores
    ("the ids", [w(0, 4, 0), w(8, 4, 0), w(0xE, 1, 1)], []),
    ("unknown registers", [w(0x50, 4, ONES), w(0xA00, 4, 0)], []),
    # Resizable BAR
    ("the BAR grows", [w(REBAR + 8, 4, 0x200)], [moved(2, 0x38_0000_0000, 0x38_0000_0000)]),
    ("the same size", [w(REBAR + 8, 4, 0)], []),
    ("its BAR index is read-only", [w(REBAR + 8, 1, 0)], []),
    # SR-IOV
    (
        "virtual functions appear",
        [w(SRIOV + 0x10, 2, 2), w(SRIOV + 8, 2, 9)],
        [("vf-bars", [{"bar": 0, "address": "0xfd000000", "size": 0x4000, "count": 2}])],
    ),
    ("enabled without memory", [w(SRIOV + 0x10, 2, 2), w(SRIOV + 8, 2, 1)], []),
    (
        "and go",
        [w(SRIOV + 0x10, 2, 2), w(SRIOV + 8, 2, 9), w(SRIOV + 8, 2, 8)],
        [("vf-bars", [{"bar": 0, "address": "0xfd000000", "size": 0x4000, "count": 2}]), ("vf-bars", [])],
    ),
    ("more than there are", [w(SRIOV + 0x10, 2, 9), w(SRIOV + 8, 2, 9)], []),
    (
        "VF BAR 0 elsewhere",
        [w(SRIOV + 0x24, 4, 0xFC00_0000), w(SRIOV + 0x10, 2, 1), w(SRIOV + 8, 2, 9)],
        [("vf-bars", [{"bar": 0, "address": "0xfc000000", "size": 0x4000, "count": 1}])],
    ),
    ("sizing VF BAR 0", [w(SRIOV + 0x24, 4, ONES), w(SRIOV + 0x24, 4, 0xFD00_0000)], []),
    # windows: of the root port, closed at the start
    (
        "memory window",
        [write("00:1c.0", 0x22, 2, 0xFE80), write("00:1c.0", 0x20, 2, 0xFE80)],
        [("window", {"base": "0xfe800000", "limit": "0xfe8fffff"})],
    ),
    (
        "memory window as one word",
        [write("00:1c.0", 0x20, 4, 0xFE90_FE80)],
        [("window", {"base": "0xfe800000", "limit": "0xfe9fffff"})],
    ),
    (
        "base above limit closes",
        [write("00:1c.0", 0x20, 4, 0xFE90_FE80), write("00:1c.0", 0x20, 2, 0xFEA0)],
        [("window", {"base": "0xfe800000", "limit": "0xfe9fffff"}), ("window", None)],
    ),
    ("I/O window", [write("00:1c.0", 0x1C, 2, 0xC0C0)], [("window", {"base": "0xc000", "limit": "0xcfff"})]),
]


@pytest.mark.parametrize(
    ("events", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_changes(events, expected):
    _, changes = run(machine(), *events)
    assert told(changes) == expected


def test_a_bar_that_moved_is_where_it_was_written():
    state, _ = run(machine(), w(0x10, 4, 0xFE90_0000))
    assert mapped(state) == START | {("02:00.0", 0): (0xFE90_0000, 0x2_0000)}


def test_a_change_carries_its_causes_and_the_deciding_number():
    events = [write(NIC, 0x1C, 4, 0x39, 7), write(NIC, 0x18, 4, 0, 9)]
    _, changes = run(machine(), *events)
    (change,) = changes
    assert isinstance(change, BarMoved)
    assert (change.causes, change.number) == (tuple(events), 9)
    _, changes = run(
        machine(), write(NIC, 4, 2, 0, 1), write(NIC, 0x10, 4, 0xFE90_0000, 2), write(NIC, 4, 2, 2, 3)
    )
    assert [cause.number for cause in changes[-2].causes] == [2, 3]


def test_settling_decides_what_waits():
    state, _ = run(machine(), w(0x18, 4, 0x4000_0000), w(0x12, 1, 0x90))
    _, changes = settle(state, halves=False)
    assert told(changes) == [moved(0, 0xFE80_0000, 0xFE90_0000)]
    state, changes = settle(state)
    assert told(changes) == [moved(0, 0xFE80_0000, 0xFE90_0000), moved(2, 0x38_0000_0000, 0x38_4000_0000)]
    assert settle(state)[1] == ()


# with Xen's vPCI in between: what it shows, writes, changes, (before, after, assumed) of moves
def test_vpci_ignores_a_bar_that_decodes():
    state, changes = run(machine(obeys=False), w(0x10, 4, 0xFE90_0000))
    assert [change.assumed.value for change in changes] == ["ignored"]
    assert mapped(state) == START
    for ignored in ([w(0x10, 4, ONES), w(0x10, 4, 0xFE80_0000)], [w(0x10, 4, 0xFE80_0000)]):
        assert run(machine(obeys=False), *ignored)[1] == []


def test_vpci_lets_through_ports_decoding_and_the_rom_switch():
    events = [w(0x14, 4, 0xD000), w(0x30, 4, 0xFE84_0001)]
    _, changes = run(machine(obeys=False), *events)
    assert told(changes) == [moved(1, 0xC000, 0xD000), ("rom", True), ("bar-mapped", 6, None, "0xfe840000")]
    state, _ = run(machine(obeys=False), w(4, 2, 0), w(0x10, 4, 0xFE90_0000), w(4, 2, 2))
    assert mapped(state)["02:00.0", 0] == (0xFE90_0000, 0x2_0000)


def test_unknown_width_decides_nothing_and_asks_for_a_reread():
    before = machine()
    after, changes = step(before, write(NIC, 0x10, None, 0))
    assert after is before
    assert [type(change) for change in changes] == [RereadWanted]


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(0x1000, 1, 0), (0xFFE, 4, 0), (-4, 4, 0), (0, 3, 0), (0, 4, 1 << 32)]
)
def test_an_access_that_cannot_be_is_refused(offset, size, value):
    with pytest.raises(StateError):
        step(machine(), write(NIC, offset, size, value))


def test_a_loss_makes_everything_doubtful():
    state, changes = step(machine(), Lost(3))
    assert (state.doubtful, changes, mapped(state)) == (True, (), START)


# what triggers it, the write
RESETS = [
    ("Device Control bit 15", w(EXPRESS + 8, 2, 0x8000)),
    ("inside the word with Device Status", w(EXPRESS + 8, 4, 0x8000)),
    ("its upper byte", w(EXPRESS + 9, 1, 0x80)),
    ("Advanced Features", w(FEATURES + 4, 1, 1)),
]


@pytest.mark.parametrize("trigger", [case[1] for case in RESETS], ids=[case[0] for case in RESETS])
def test_a_function_reset_clears_decoding_addresses_and_vfs(trigger):
    before = [w(SRIOV + 0x10, 2, 2), w(SRIOV + 8, 2, 9), w(REBAR + 8, 4, 0x200)]
    state, _ = run(machine(), *before)
    state, changes = run(state, trigger)
    assert told(changes)[:2] == [("reset", "function"), ("decode", OFF)]
    assert ("vf-bars", []) in told(changes)
    assert mapped(state) == {}
    # sizes are known still, those of a Resizable BAR as before; addresses are not
    state, changes = run(state, w(0x10, 4, 0xFE80_0000), w(0x1C, 4, 0x38), w(0x18, 4, 0), w(4, 2, 2))
    assert mapped(state) == {key: START[key] for key in START if key[1] != 1}


def test_a_function_without_the_capability_is_not_reset():
    _, changes = run(machine(flr=False), w(EXPRESS + 8, 2, 0x8000))
    assert changes == []


def test_a_secondary_bus_reset_clears_everything_behind_the_bridge():
    state, changes = run(machine(), write("00:1c.0", 0x3E, 2, 0x40))
    assert told(changes)[:2] == [("reset", "secondary-bus"), ("decode", OFF)]
    assert mapped(state) == {}
    # nothing behind the bridge answers until the reset ends
    state, changes = run(state, w(4, 2, 2), w(0x10, 4, 0xFE80_0000))
    assert mapped(state) == {}
    state, changes = run(state, write("00:1c.0", 0x3E, 2, 0), w(0x10, 4, 0xFE80_0000), w(4, 2, 2))
    assert mapped(state) == {("02:00.0", 0): START["02:00.0", 0]}


def test_virtual_functions_bars_are_listed_at_their_addresses():
    state, _ = run(machine(), w(SRIOV + 0x10, 2, 2), w(SRIOV + 8, 2, 9))
    assert mapped(state) == START
    assert virtual(state) == {("02:10.0", 0): (0xFD00_0000, 0x4000), ("02:10.2", 0): (0xFD00_4000, 0x4000)}


def numbers(change):
    return change.after.primary, change.after.secondary, change.after.subordinate


# what it shows, writes to the root port 00:1c.0 (00 02 04), numbers after each change
RENUMBERINGS = [
    ("as bytes", [(0x19, 1, 5), (0x1A, 1, 6)], [(0, 5, 4), (0, 5, 6)]),
    ("inside the word", [(0x18, 4, 0x0006_0500)], [(0, 5, 6)]),
    ("two bytes", [(0x18, 2, 0x0500)], [(0, 5, 4)]),
    ("the latency timer alone", [(0x1B, 1, 0x40)], []),
    ("secondary 0 and back", [(0x18, 4, 0), (0x18, 4, 0x0004_0200)], [(0, 0, 0), (0, 2, 4)]),
    ("subordinate ff while buses are counted", [(0x1A, 1, 0xFF)], [(0, 2, 0xFF)]),
]


@pytest.mark.parametrize(
    ("writes", "expected"), [c[1:] for c in RENUMBERINGS], ids=[c[0] for c in RENUMBERINGS]
)
def test_renumbering(writes, expected):
    _, changes = run(machine(), *[write("00:1c.0", *one) for one in writes])
    assert [numbers(change) for change in changes] == expected


def test_a_renumbered_function_keeps_its_shadow():
    state, (change,) = run(machine(), write("00:1c.0", 0x18, 4, 0x0009_0700))
    assert [(str(a), str(b)) for a, b in change.moved] == [("0000:02:00.0", "0000:07:00.0")]
    assert mapped(state) == {("07" + address[2:], bar): span for (address, bar), span in START.items()}
    _, changes = run(state, write("07:00.0", 0x10, 4, 0xFE90_0000))
    assert told(changes) == [moved(0, 0xFE80_0000, 0xFE90_0000)]
    _, changes = run(state, write("02:00.0", 0x10, 4, 0xFE90_0000))  # nobody is there any more
    assert changes == []


def test_reads_teach_size_and_type_from_nothing():
    from pcipt.remap.writes.shadow import Shadow, with_routes

    address = "00:03.0"
    events = [
        read(address, 0, 4, 0x10D3_8086),
        read(address, 0x0E, 1, 0),
        read(address, 4, 2, 0),
        read(address, 0x10, 4, 0),
        write(address, 0x10, 4, ONES),
        read(address, 0x10, 4, 0xFFFE_0000),
        write(address, 0x10, 4, 0),
        read(address, 0x14, 4, 1),
        write(address, 0x14, 4, ONES),
        read(address, 0x14, 4, 0xFFE1),
        write(address, 0x14, 4, 1),
        read(address, 0x18, 4, 0xC),
        write(address, 0x18, 4, ONES),
        read(address, 0x18, 4, 0xC),
        write(address, 0x18, 4, 0xC),
        read(address, 0x1C, 4, 0),
        write(address, 0x1C, 4, ONES),
        read(address, 0x1C, 4, 0xFFFF_FFFE),
        write(address, 0x1C, 4, 0),
        write(address, 0x10, 4, 0xFE80_0000),
        write(address, 0x14, 4, 0xC000),
        write(address, 0x18, 4, 0),
        write(address, 0x1C, 4, 0x40),
    ]
    state, changes = run(with_routes(Shadow()), *events)
    assert changes == []
    state, changes = run(state, write(address, 4, 2, 3))
    assert mapped(state) == {
        ("00:03.0", 0): (0xFE80_0000, 0x2_0000),
        ("00:03.0", 1): (0xC000, 0x20),
        ("00:03.0", 2): (0x40_0000_0000, 8 << 30),
    }
    assert [change["change"] if isinstance(change, dict) else change[0] for change in told(changes)] == [
        "decode",
        "bar-mapped",
        "bar-mapped",
        "bar-mapped",
    ]


def test_a_function_that_is_gone_takes_its_mappings_along():
    state, changes = run(machine(), read(NIC, 0, 4, ONES))
    assert ("bar-unmapped", 0, "0xfe800000", None) in told(changes)
    assert mapped(state) == {}


def test_another_device_in_its_place_starts_anew():
    state, changes = run(machine(), read(NIC, 0, 4, 0x1234_8086))
    assert ("bar-unmapped", 0, "0xfe800000", None) in told(changes)
    assert mapped(state) == {}


def test_a_read_that_contradicts_is_a_change():
    _, changes = run(machine(), read(NIC, 0x10, 4, 0xFE90_0000))
    assert told(changes) == [moved(0, 0xFE80_0000, 0xFE90_0000)]


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0x0C, 1),
        (0x3C, 1),
        (0x3C, 4),
        (0x90, 2),
        (0x900, 4),
    ],  # cache line, interrupt line, no one's, MSI-like
)
def test_a_register_nothing_depends_on_leaves_the_very_same_state(offset, size):
    state = machine()
    assert step(state, w(offset, size, 5)) == (state, ())
    assert step(state, w(offset, size, 5))[0] is state


def test_a_bridges_control_register_is_not_among_them():
    state = machine()
    assert step(state, write("00:1c.0", 0x3E, 1, 0x40))[0] is not state
