"""Bus numbers as they are written during enumeration: every state is a state."""

import pytest

from pcipt.pci import PciPath, Sbdf
from pcipt.remap.writes.routing import BridgeBuses, build_routes

A, B = (0, 4, 0), (0, 5, 0)  # two bridges on the root bus
C, D = (0, 0, 0), (0, 1, 0)  # two more below one of them


def bridge(*hops, numbers, segment=0):
    return BridgeBuses(PciPath(segment, hops), *numbers)


def routes(*bridges, roots=((0, 0),)):
    return {
        f"{segment:x}:{bus:02x}": (route.hops, route.relative)
        for (segment, bus), route in build_routes(bridges, roots).items()
        if (segment, bus) not in roots
    }


# what it shows, bridges, who answers at which bus
CASES = [
    ("nothing set up", [bridge(A, numbers=(0, 0))], {}),
    ("one bus", [bridge(A, numbers=(1, 1))], {"0:01": ((A,), 0)}),
    ("a bus beyond the secondary is the bridge's own: virtual functions", [bridge(A, numbers=(1, 2))],
     {"0:01": ((A,), 0), "0:02": ((A,), 1)}),
    ("nested", [bridge(A, numbers=(1, 3)), bridge(A, C, numbers=(2, 2)), bridge(A, D, numbers=(3, 3))],
     {"0:01": ((A,), 0), "0:02": ((A, C), 0), "0:03": ((A, D), 0)}),
    ("secondary 0 passes nothing on", [bridge(A, numbers=(0, 255))], {}),
    ("secondary above subordinate passes nothing on", [bridge(A, numbers=(255, 0))], {}),
    ("two claim one bus: the one whose secondary it is",
     [bridge(A, numbers=(1, 2)), bridge(B, numbers=(2, 2))],
     {"0:01": ((A,), 0), "0:02": ((B,), 0)}),
    ("two claim one secondary: the lower device", [bridge(B, numbers=(1, 1)), bridge(A, numbers=(1, 1))],
     {"0:01": ((A,), 0)}),
    ("below a bridge that does not pass it on", [bridge(A, numbers=(1, 1)), bridge(A, C, numbers=(2, 2))],
     {"0:01": ((A,), 0)}),
    ("a bridge that claims the bus it sits on", [bridge(A, numbers=(1, 1)), bridge(A, C, numbers=(1, 1))],
     {"0:01": ((A,), 0)}),
    ("another segment", [bridge(A, numbers=(1, 1), segment=2)], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bridges", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_routes(bridges, expected):
    assert routes(*bridges) == expected


def test_everything_is_claimed_while_buses_are_counted():
    found = routes(bridge(A, numbers=(1, 255)), bridge(A, C, numbers=(2, 255)))
    assert len(found) == 255
    assert found["0:02"] == ((A, C), 0)
    assert found["0:ff"] == ((A, C), 0xFD)


def test_a_root_bus_is_nobodys_to_claim():
    table = build_routes([bridge(A, numbers=(1, 0x80))], [(0, 0), (0, 0x40)])
    assert table[0, 0x40].to(Sbdf(0, 0x40, 3, 1)) == PciPath(0, ((0x40, 3, 1),))
    assert table[0, 0x41].to(Sbdf(0, 0x41, 3, 1)) == PciPath(0, (A, (0x40, 3, 1)))


def test_roots_of_other_segments_have_bridges_too():
    hop = (0x10, 1, 0)
    assert routes(bridge(hop, numbers=(0x11, 0x11), segment=7), roots=((0, 0), (7, 0x10))) == {
        "7:11": ((hop,), 0)
    }
