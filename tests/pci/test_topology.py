import pytest

from pcipt.pci import Bridge, PciPath, RawFunction, Sbdf, parse_sbdf, parse_target
from pcipt.pci.buses.numbers import check_buses
from pcipt.pci.topology import place_functions
from tests.pci.spaces import BRIDGE, CARDBUS, ENDPOINT, space, standard_list


def bridge(address, first, last, *, header=BRIDGE, size=64, **linux):
    """Make a bridge whose registers pass on buses `first` to `last`."""
    sbdf = parse_sbdf(address)
    numbers = sbdf.bus | first << 8 | last << 16
    return RawFunction(sbdf, space({0x18: (4, numbers)}, header=header, size=size), **_parsed(linux))


def endpoint(address, **linux):
    return RawFunction(parse_sbdf(address), space(), **_parsed(linux))


def rooted(address, port_type=None):
    """Make a host bridge, or a function with a PCI Express structure of this port type."""
    if port_type is None:
        return RawFunction(parse_sbdf(address), space({0x0A: (2, 0x0600)}))
    express = standard_list((0x40, 0x10, {2: (2, 2 | port_type << 4)}))
    return RawFunction(parse_sbdf(address), space(express, size=256))


def unread(address, **linux):
    return RawFunction(parse_sbdf(address), None, **_parsed(linux))


def _parsed(linux):
    return {name: parse_sbdf(value) if isinstance(value, str) else value for name, value in linux.items()}


def place(*raws):
    positions = place_functions({raw.sbdf: raw for raw in sorted(raws, key=lambda raw: raw.sbdf)})
    return {
        str(sbdf)[5:] if sbdf.segment == 0 else str(sbdf): position for sbdf, position in positions.items()
    }


def ways(*raws):
    return {address: str(position.path) for address, position in place(*raws).items()}


#  raws without Linux's word (a dump) -> paths
BY_NUMBERS = [
    # root buses that no bridge claims
    ([endpoint("00:00.0"), endpoint("7f:08.0"), endpoint("ff:00.1")], ["00_00.0", "7f_08.0", "ff_00.1"]),
    # two levels of bridges
    (
        [bridge("00:1c.0", 1, 3), bridge("01:00.0", 2, 3), bridge("02:01.0", 3, 3), endpoint("03:00.1")],
        ["00_1c.0", "00_1c.0-00_00.0", "00_1c.0-00_00.0-00_01.0", "00_1c.0-00_00.0-00_01.0-00_00.1"],
    ),
    # a second host bridge
    ([bridge("80:02.0", 0x81, 0x81), endpoint("81:00.0")], ["80_02.0", "80_02.0-00_00.0"]),
    # each segment has its own buses
    (
        [
            bridge("00:1c.0", 1, 1), endpoint("01:00.0"),
            bridge("1:00:01.0", 1, 1), endpoint("1:01:00.0"),
            endpoint("2:01:00.0"),
        ],
        ["00_1c.0", "00_1c.0-00_00.0", "0001_00_01.0", "0001_00_01.0-00_00.0", "0002_01_00.0"],
    ),
    # virtual functions on a bus that is nobody's secondary, within the range of a bridge
    (
        [bridge("00:1c.0", 2, 4), *map(endpoint, ["02:00.0", "03:10.0", "04:00.0", "05:00.0"])],
        ["00_1c.0", "00_1c.0-00_00.0", "00_1c.0-01_10.0", "00_1c.0-02_00.0", "05_00.0"],
    ),
    # the innermost of two ranges counts
    (
        [bridge("00:1c.0", 1, 9), bridge("01:00.0", 2, 8), bridge("01:01.0", 9, 9), endpoint("05:10.0")],
        ["00_1c.0", "00_1c.0-00_00.0", "00_1c.0-00_01.0", "00_1c.0-00_00.0-03_10.0"],
    ),
    # the first range wins where the second is no deeper
    (
        [bridge("00:1c.0", 1, 9), bridge("00:1d.0", 1, 9), endpoint("05:10.0")],
        ["00_1c.0", "00_1d.0", "00_1c.0-04_10.0"],
    ),
    # nobody has set it up: bus 0 stays a root bus
    ([bridge("00:11.0", 0, 0), endpoint("00:12.0")], ["00_11.0", "00_12.0"]),
    # it may have led to any bus above its own to which no other bridge leads
    ([bridge("00:11.0", 0, 0xFF), endpoint("05:00.0")], ["00_11.0", "None"]),
    ([bridge("05:11.0", 0, 0), endpoint("04:00.0"), endpoint("05:00.0")], ["05_11.0", "04_00.0", "05_00.0"]),
    ([bridge("1:00:11.0", 0, 0), endpoint("05:00.0")], ["0001_00_11.0", "05_00.0"]),
    (
        [bridge("00:11.0", 0, 0), bridge("00:1c.0", 5, 6), endpoint("05:00.0"), endpoint("06:00.0")],
        ["00_11.0", "00_1c.0", "00_1c.0-00_00.0", "00_1c.0-01_00.0"],
    ),
    # what Linux names is certain
    ([bridge("00:11.0", 0, 0), endpoint("05:00.0", root_bus=5)], ["00_11.0", "05_00.0"]),
    # a host bridge, a root port and a root complex endpoint are on root buses, and so are those beside them
    ([bridge("00:11.0", 0, 0), rooted("7f:08.0"), endpoint("7f:09.0")], ["00_11.0", "7f_08.0", "7f_09.0"]),
    ([bridge("00:11.0", 0, 0), rooted("80:00.0", 0x4)], ["00_11.0", "80_00.0"]),
    ([bridge("00:11.0", 0, 0), rooted("80:00.0", 0x9)], ["00_11.0", "80_00.0"]),
    ([bridge("00:11.0", 0, 0), rooted("80:00.0", 0xA)], ["00_11.0", "80_00.0"]),
    ([bridge("00:11.0", 0, 0), rooted("80:00.0", 0x0)], ["00_11.0", "None"]),  # an endpoint
    ([bridge("00:11.0", 0, 0), unread("80:00.0")], ["00_11.0", "None"]),
    # the subordinate bus is below the secondary: only the secondary leads there
    (
        [bridge("00:1c.0", 3, 2), endpoint("03:00.0"), endpoint("02:00.0")],
        ["00_1c.0", "00_1c.0-00_00.0", "None"],
    ),
    # of two bridges with the same bus, that with possible numbers leads there
    (
        [bridge("00:1c.0", 2, 1), bridge("00:1d.0", 2, 2), endpoint("02:00.0")],
        ["00_1c.0", "00_1d.0", "00_1d.0-00_00.0"],
    ),
    # phantoms on the bus that they claim
    (
        [bridge("00:1c.0", 2, 2), endpoint("02:00.0"), bridge("02:07.0", 2, 2), bridge("02:08.0", 0, 1)],
        ["00_1c.0", "00_1c.0-00_00.0", "00_1c.0-00_07.0", "00_1c.0-00_08.0"],
    ),
    # a bridge cannot be behind itself
    ([bridge("01:00.0", 1, 1)], ["01_00.0"]),
    ([bridge("01:00.0", 1, 1), endpoint("01:01.0")], ["01_00.0", "01_01.0"]),  # nor its neighbours
    ([bridge("01:00.0", 1, 1), bridge("00:1c.0", 1, 1)], ["00_1c.0", "00_1c.0-00_00.0"]),
    # a range above its own bus does not hold its own bus
    ([bridge("05:00.0", 2, 9), endpoint("05:01.0")], ["05_00.0", "05_01.0"]),
    # CardBus
    ([bridge("00:1e.0", 6, 6, header=CARDBUS), endpoint("06:00.0")], ["00_1e.0", "00_1e.0-00_00.0"]),
    # what is no bridge (any more) claims no bus
    ([bridge("00:1c.0", 1, 1, header=ENDPOINT), endpoint("01:00.0")], ["00_1c.0", "01_00.0"]),
    ([unread("00:1c.0"), endpoint("01:00.0")], ["00_1c.0", "01_00.0"]),
    ([RawFunction(Sbdf(0, 0, 0x1C, 0), b"\xff" * 64), endpoint("01:00.0")], ["00_1c.0", "01_00.0"]),
    ([bridge("00:1c.0", 1, 1, size=0x1A), endpoint("01:00.0")], ["00_1c.0", "01_00.0"]),
    ([bridge("00:1c.0", 1, 1, size=0x1B), endpoint("01:00.0")], ["00_1c.0", "00_1c.0-00_00.0"]),
    # behind a PCIe-to-PCI bridge, up to the last bus
    ([bridge("00:1e.0", 0xFF, 0xFF), endpoint("ff:1f.7")], ["00_1e.0", "00_1e.0-00_1f.7"]),
]  # fmt: skip


@pytest.mark.parametrize(("raws", "expected"), BY_NUMBERS)
def test_without_linux_the_bus_numbers_tell(raws, expected):
    found = ways(*raws)
    assert sorted(found.values()) == sorted(expected)
    for path in found.values():
        assert path == "None" or parse_target(path)


#  raws with Linux's word -> paths by address
BY_NESTING = [
    (
        [
            bridge("00:1c.0", 2, 2, root_bus=0, secondary=2),
            endpoint("02:00.0", parent="00:1c.0"),
            endpoint("03:10.0", parent="00:1c.0"),  # a virtual function on the next bus
        ],
        {"00:1c.0": "00_1c.0", "02:00.0": "00_1c.0-00_00.0", "03:10.0": "00_1c.0-01_10.0"},
    ),
    # the register has another number: addresses are Linux's, and so is the number they are counted from
    (
        [bridge("00:1c.0", 5, 5, root_bus=0, secondary=2), endpoint("02:00.0", parent="00:1c.0")],
        {"00:1c.0": "00_1c.0", "02:00.0": "00_1c.0-00_00.0"},
    ),
    # Linux's root bus is believed although a bridge claims it
    (
        [bridge("00:1c.0", 1, 1, root_bus=0), endpoint("01:00.0", root_bus=1)],
        {"00:1c.0": "00_1c.0", "01:00.0": "01_00.0"},
    ),
    # no config, but Linux's number
    (
        [unread("00:1c.0", root_bus=0, secondary=2), unread("03:00.0", parent="00:1c.0")],
        {"00:1c.0": "00_1c.0", "03:00.0": "00_1c.0-01_00.0"},
    ),
    # neither: counted from the lowest bus below
    (
        [
            unread("00:1c.0", root_bus=0),
            unread("03:00.0", parent="00:1c.0"),
            unread("02:00.0", parent="00:1c.0"),
            unread("04:00.0", parent="00:1c.0"),
        ],
        {
            "00:1c.0": "00_1c.0",
            "02:00.0": "00_1c.0-00_00.0",
            "03:00.0": "00_1c.0-01_00.0",
            "04:00.0": "00_1c.0-02_00.0",
        },
    ),
    # neither, and the lowest bus is not the first that is met
    (
        [
            unread("05:00.0", root_bus=5),
            unread("03:00.0", parent="05:00.0"),
            unread("01:00.0", parent="03:00.0"),
            unread("02:00.0", parent="05:00.0"),
        ],
        {
            "05:00.0": "05_00.0",
            "03:00.0": "05_00.0-01_00.0",
            "01:00.0": "05_00.0-01_00.0-00_00.0",
            "02:00.0": "05_00.0-00_00.0",
        },
    ),
    # a VMD controller: the segment behind it begins anew
    (
        [endpoint("00:0e.0", root_bus=0), endpoint("10000:e0:06.0", parent="00:0e.0")],
        {"00:0e.0": "00_0e.0", "10000:e0:06.0": "10000_e0_06.0"},
    ),
    # a child with a smaller address than its bridge
    (
        [bridge("05:00.0", 2, 2, root_bus=5, secondary=2), endpoint("02:00.0", parent="05:00.0")],
        {"02:00.0": "05_00.0-00_00.0", "05:00.0": "05_00.0"},
    ),
]


@pytest.mark.parametrize(("raws", "expected"), BY_NESTING)
def test_linux_decides_who_is_whose_parent(raws, expected):
    assert ways(*raws) == expected


def test_a_function_whose_bridge_has_vanished_has_no_path():
    found = place(
        endpoint("02:00.0", parent="00:1c.0"),
        bridge("02:01.0", 3, 3, parent="00:1c.0"),
        endpoint("03:00.0", parent="02:01.0"),
    )
    assert {address: position.path for address, position in found.items()} == dict.fromkeys(found)
    assert [[finding.code for finding in position.findings] for position in found.values()] == [
        ["bridge-vanished"],
        ["bridge-vanished"],
        ["no-path"],
    ]
    assert "0000:00:1c.0" in found["02:00.0"].findings[0].text
    assert (found["02:00.0"].parent, found["03:00.0"].parent) == (None, Sbdf(0, 2, 1, 0))


#  raws whose bridges form loops -> those in a loop, those below
LOOPS = [
    ([bridge("01:00.0", 2, 2), bridge("02:00.0", 1, 1)], ["01:00.0", "02:00.0"], []),
    (
        [bridge("01:00.0", 2, 2), bridge("02:00.0", 3, 3), bridge("03:00.0", 1, 1), endpoint("02:01.0")],
        ["01:00.0", "02:00.0", "03:00.0"],
        ["02:01.0"],
    ),
    # Linux's own nesting, which a damaged tree may have
    ([bridge("01:00.0", 2, 2, parent="01:00.0")], ["01:00.0"], []),
    (
        [
            endpoint("00:00.0", parent="01:00.0"),
            bridge("01:00.0", 2, 2, parent="02:00.0"),
            bridge("02:00.0", 1, 1, parent="01:00.0"),
        ],
        ["01:00.0", "02:00.0"],
        ["00:00.0"],
    ),
]


@pytest.mark.parametrize(("raws", "looped", "below"), LOOPS)
def test_a_loop_has_no_path_and_no_parents(raws, looped, below):
    found = place(*raws)
    assert {address for address, position in found.items() if position.path is None} == {*looped, *below}
    assert {address for address, position in found.items() if position.parent is None} == set(looped)
    for address in looped:
        assert "loop" in found[address].findings[-1].text
    for address in below:
        assert [finding.code for finding in found[address].findings] == ["no-path"]


def test_a_bus_below_those_a_bridge_passes_on_has_no_path():
    found = place(
        bridge("00:1c.0", 4, 4, root_bus=0, secondary=4),
        endpoint("02:00.0", parent="00:1c.0"),
        endpoint("02:00.1", parent="00:1c.0"),
    )
    for position in (found["02:00.0"], found["02:00.1"]):
        assert (position.path, position.parent) == (None, Sbdf(0, 0, 0x1C, 0))
        assert "bus 02" in position.findings[0].text
        assert "from 04" in position.findings[0].text


#  bus numbers of bridges -> codes of findings by address
BUSES = [
    ({"00:1c.0": (1, 3), "01:00.0": (2, 3), "02:00.0": (3, 3)}, {}),  # nested
    ({"00:1c.0": (1, 1), "00:1c.1": (2, 4), "00:1c.2": (5, 0xFF)}, {}),  # side by side
    # nobody has set them up
    ({"00:1c.0": (0, 0), "00:1c.1": (0, 5)}, {"00:1c.0": "bus-numbers", "00:1c.1": "bus-numbers"}),
    ({"02:07.0": (0, 1), "00:1c.0": (1, 0xFF)}, {"02:07.0": "bus-numbers"}),
    ({"00:1c.0": (0xFF, 0xFF)}, {"00:1c.0": "bus-numbers"}),  # does not answer
    ({"00:1c.0": (0xFE, 0xFF)}, {}),
    ({"00:1c.0": (1, 4), "1:00:1c.0": (1, 4)}, {}),  # in two segments
    ({"80:02.0": (0x81, 0x81), "00:1c.0": (1, 0x7F)}, {}),
    ({"00:1c.0": (3, 2)}, {"00:1c.0": "bus-numbers"}),  # subordinate below secondary
    ({"05:00.0": (5, 6)}, {"05:00.0": "bus-numbers"}),  # its own bus
    ({"05:00.0": (2, 6)}, {"05:00.0": "bus-numbers"}),  # a bus above it
    ({"00:1c.0": (1, 1), "00:1c.1": (1, 1)}, {"00:1c.0": "bus-conflict", "00:1c.1": "bus-conflict"}),
    ({"00:1c.0": (1, 3), "00:1c.1": (3, 4)}, {"00:1c.0": "bus-conflict", "00:1c.1": "bus-conflict"}),
    ({"00:1c.0": (1, 5), "00:1c.1": (2, 3)}, {"00:1c.0": "bus-conflict", "00:1c.1": "bus-conflict"}),
    # a bridge that passes on more than the one above it
    ({"00:1c.0": (1, 2), "01:00.0": (2, 3)}, {"00:1c.0": "bus-conflict", "01:00.0": "bus-conflict"}),
    # two bridges one below the other with the same bus
    ({"00:1c.0": (2, 2), "01:00.0": (2, 2)}, {"00:1c.0": "bus-conflict", "01:00.0": "bus-conflict"}),
    # a bridge that passes on other buses than the one above it, which is the nearest
    ({"00:1c.0": (1, 3), "01:00.0": (4, 6)}, {"01:00.0": "bus-numbers"}),
    ({"00:1c.0": (1, 9), "01:00.0": (2, 3), "03:01.0": (4, 9)}, {"03:01.0": "bus-numbers"}),
    ({"00:1c.0": (1, 3), "01:00.0": (4, 6), "04:00.0": (5, 6)}, {"01:00.0": "bus-numbers"}),
    ({"00:1c.0": (1, 3), "1:01:00.0": (4, 6), "80:00.0": (0x81, 0x81)}, {}),
    (
        {"00:1c.0": (1, 3), "00:1d.0": (4, 6), "01:00.0": (4, 5)},
        {"00:1d.0": "bus-conflict", "01:00.0": "bus-conflict"},
    ),
    # behind a nested one the outer range goes on
    ({"00:1c.0": (1, 5), "01:00.0": (2, 2), "01:01.0": (3, 5), "00:1d.0": (6, 6)}, {}),
    # one with impossible numbers is not compared
    ({"00:1c.0": (1, 5), "03:00.0": (2, 2)}, {"03:00.0": "bus-numbers"}),
]


@pytest.mark.parametrize(("numbers", "expected"), BUSES)
def test_bus_numbers_are_nested_or_apart(numbers, expected):
    bridges = {
        parse_sbdf(address): Bridge(0, secondary, subordinate, ())
        for address, (secondary, subordinate) in numbers.items()
    }
    found = check_buses(bridges)
    assert {sbdf: [finding.code for finding in findings] for sbdf, findings in found.items()} == {
        parse_sbdf(address): [code] for address, code in expected.items()
    }
    placed = place_functions(
        {raw.sbdf: raw for raw in (bridge(address, *pair, root_bus=0) for address, pair in numbers.items())}
    )
    assert all(set(found.get(sbdf, ())) <= set(position.findings) for sbdf, position in placed.items())


SPENT = [
    # bridges beside 02:00.0, which has no numbers -> the bridge above that has none left
    (
        {"00:1c.0": (2, 2)},
        "0000:00:1c.0 above it passes on only the buses 02-02",
    ),  # a switch in a slot for one bus
    ({"00:1c.0": (2, 4), "02:01.0": (3, 4)}, "0000:00:1c.0"),
    ({"00:1c.0": (2, 4), "02:01.0": (3, 3)}, ""),  # bus 4 is free: it was reset
    ({"00:1c.0": (2, 9)}, ""),
    ({"00:1d.0": (3, 3)}, ""),  # nobody knows what leads there
]


@pytest.mark.parametrize(("numbers", "words"), SPENT)
def test_a_bridge_for_which_there_is_no_bus_number_left(numbers, words):
    bridges = {parse_sbdf(each): Bridge(0, *pair, ()) for each, pair in numbers.items()}
    (finding,) = check_buses({**bridges, parse_sbdf("02:00.0"): Bridge(0, 0, 0, ())})[parse_sbdf("02:00.0")]
    assert finding.code == "bus-numbers"
    assert ("pci=assign-busses,hpbussize=8" in finding.text) is bool(words)
    assert words in finding.text


def test_what_may_be_behind_an_impossible_bridge_is_told_so():
    found = place(bridge("00:11.0", 0, 0), bridge("00:12.0", 9, 1), endpoint("05:00.0"))
    finding = found["05:00.0"].findings[0]
    assert (found["05:00.0"].parent, finding.code) == (None, "no-path")
    assert "bus 05" in finding.text
    assert "0000:00:11.0" in finding.text


def test_loops_of_impossible_bridges_end():
    found = place(
        bridge("02:00.0", 5, 5), bridge("05:00.0", 2, 2), bridge("07:00.0", 7, 6), endpoint("02:01.0")
    )
    assert {
        address: position.path for address, position in found.items() if address != "07:00.0"
    } == dict.fromkeys(("02:00.0", "02:01.0", "05:00.0"))


def test_many_bridges_on_one_bus_are_reported_once_each():
    bridges = {Sbdf(0, 0, number >> 3, number & 7): Bridge(0, 1, 255, ()) for number in range(256)}
    assert {len(findings) for findings in check_buses(bridges).values()} == {1}


def test_a_path_says_its_segment_unless_it_is_0():
    found = place(bridge("1:00:1c.0", 1, 1), endpoint("1:01:00.0"))
    assert found["0001:01:00.0"].path == PciPath(1, ((0, 0x1C, 0), (0, 0, 0)))
