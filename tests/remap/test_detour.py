"""The way back to Linux's numbers: which bridges get which, and when there is none."""

import attrs
import pytest

from pcipt.errors import UnsupportedError
from pcipt.pci import decode_machine
from pcipt.remap.detour import Detour, Hop, plan_detour
from tests.machines import bridge, function
from tests.remap.devices import S, gone

PORT = attrs.evolve(bridge("00:1c.0", 4, 7), secondary=2)
SWITCH = attrs.evolve(gone(bridge("02:01.0", 3, 3, parent="00:1c.0")), secondary=3)
NIC = gone(function("03:00.0", parent="02:01.0"))
VF = gone(function("03:00.1", parent="02:01.0", physfn="03:00.0"))
OUTER, INNER = Hop(S("00:1c.0"), 2, 3), Hop(S("02:01.0"), 3, 3)


def way(raws, address="03:00.0"):
    return plan_detour(decode_machine(raws), S(address), {raw.sbdf: raw for raw in raws})


WAYS = [
    ("03:00.0", Detour((OUTER, INNER), S("03:00.0"))),  # every bridge on the way, from the root down
    ("02:01.0", Detour((OUTER,), S("02:01.0"))),
    ("03:00.1", Detour((OUTER, INNER), S("03:00.0"))),  # a virtual function tells nothing of itself
    ("00:1c.0", Detour((), S("00:1c.0"))),
]


@pytest.mark.parametrize(("address", "expected"), WAYS)
def test_the_way(address, expected):
    assert way([PORT, SWITCH, NIC, VF], address) == expected


BLOCKED = [
    ([PORT, attrs.evolve(SWITCH, secondary=None), NIC], "nobody knows the old number of 0000:02:01.0"),
    ([attrs.evolve(PORT, secondary=None), SWITCH, NIC], "nobody knows the old number of 0000:00:1c.0"),
    ([PORT, SWITCH], "does not have this function any more"),
    # another port has taken a number of before
    ([PORT, SWITCH, NIC, bridge("00:1d.0", 3, 3)], "0000:00:1d.0 now uses a bus of 02-03"),
]


@pytest.mark.parametrize(("raws", "words"), BLOCKED)
def test_no_way(raws, words):
    with pytest.raises(UnsupportedError, match=words):
        way(raws)


@pytest.mark.parametrize("other", [bridge("00:1d.0", 0, 0), bridge("00:1d.0", 8, 9)])
def test_bridges_with_other_numbers_are_not_in_the_way(other):
    raws = [PORT, SWITCH, NIC, other, attrs.evolve(other, sbdf=S("00:1e.0"))]
    assert way(raws).hops == (OUTER, INNER)
