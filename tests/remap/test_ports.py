"""What is remembered of policed ports goes to JSON and back; ports are found above functions."""

import json

import pytest

from pcipt.errors import MalformedError
from pcipt.pci import decode_machine, parse_sbdf
from pcipt.pci.address import parse_path
from pcipt.remap.kinds.ports import Ports, port_above, ports_from_json, ports_to_json
from pcipt.remap.vpci.roster import Listed
from tests.machines import bridge, function

S = parse_sbdf
PORT, SWITCH = parse_path("00_1c.0"), parse_path("00_1c.0-00_00.0")
KNOWN = Ports({"00_1c.0"}, {"00_1c.0-00_00.0": Listed(S("01:00.0"), "8086:10d3:?:?", 17)}, {S("00:1c.0")})


@pytest.fixture
def machine():
    return decode_machine(
        [
            bridge("00:1c.0", 1, 3),
            bridge("01:00.0", 2, 3, parent="00:1c.0"),
            function("02:00.0", parent="01:00.0"),
            function("00:1f.0"),
        ]
    )


@pytest.mark.parametrize("ports", [Ports(), KNOWN])
def test_what_is_written_is_read_back(ports):
    assert ports_from_json(json.loads(json.dumps(ports_to_json(ports)))) == ports


@pytest.mark.parametrize(
    "wrong",
    [None, [], {}, {**ports_to_json(KNOWN), "known": [7]}, {**ports_to_json(KNOWN), "guarded": ["x"]},
     {**ports_to_json(KNOWN), "more": 1}, {**ports_to_json(KNOWN), "admitted": [{"place": "x"}]}],
)  # fmt: skip
def test_anything_else_is_refused(wrong):
    with pytest.raises(MalformedError, match="no ports"):
        ports_from_json(wrong)


def test_a_change_of_a_copy_stays_with_it():
    copied = KNOWN.copy()
    copied.known.clear()
    copied.admitted.clear()
    copied.guarded.clear()
    assert (len(KNOWN.known), len(KNOWN.admitted), len(KNOWN.guarded)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("address", "below", "found"),
    [
        ("02:00.0", [PORT], PORT),  # behind a switch
        ("02:00.0", [PORT, SWITCH], SWITCH),  # the nearest
        ("01:00.0", [PORT, SWITCH], PORT),
        ("00:1c.0", [PORT], None),  # a port is not below itself
        ("00:1f.0", [PORT], None),
        ("02:00.0", [], None),
    ],
)
def test_the_nearest_port_above(machine, address, below, found):
    assert port_above(machine, machine.functions[S(address)], below) == found


@pytest.mark.parametrize(
    ("now", "admitted"),
    [
        (Listed(S("01:00.0"), "8086:10d3:?:?", 17), True),
        (Listed(S("05:00.0"), "8086:10d3:0:0", 17), True),  # a bus number is no identity
        (Listed(S("01:00.0"), "8086:10d3:?:?", 18), False),  # it was taken out and put in again
        (Listed(S("01:00.0"), "8086:1533:?:?"), False),
        (Listed(S("01:00.0"), "8086:10d3:?:?"), True),
    ],
)
def test_what_was_admitted_is_known_again(now, admitted):
    assert KNOWN.admits("00_1c.0-00_00.0", now) is admitted
    assert not KNOWN.admits("00_1d.0", now)
