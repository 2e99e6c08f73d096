"""What is kept of each function, and which log tells all that came and left."""

import attrs
import pytest

from pcipt.pci import Frames, Gfn, decode_function, parse_sbdf
from pcipt.remap.vpci.roster import Listed, Roster, listed_from
from tests.xen.devices import device

NIC = parse_sbdf("02:00.0")
KEPT = Listed(NIC, "8086:10d3:?:?", 7)


@pytest.mark.parametrize(
    ("now", "other"),
    [
        (KEPT, False),
        (attrs.evolve(KEPT, instance=8), True),  # the same model, put in again
        (attrs.evolve(KEPT, instance=7, ids="1af4:1041:0:0"), False),
        (attrs.evolve(KEPT, instance=None), False),
        (attrs.evolve(KEPT, instance=None, ids="8086:10d3:8086:1"), False),
        (attrs.evolve(KEPT, instance=None, ids="8086:10d4:?:?"), True),
    ],
)
def test_another_device_is_known_by_its_directory_else_by_its_ids(now, other):
    assert KEPT.is_other(now) is other
    assert now.is_other(KEPT) is other


READINGS = [
    # line and uevents of the roster; first, last and uevents of the reading; is all known?
    ((None, None), (0, 90, 5), True),
    ((None, None), (40, 90, 5), True),  # the first start in this boot
    ((90, 5), (0, 120, 9), True),
    ((90, 5), (91, 120, 9), True),
    ((90, 5), (92, 120, 9), False),
    ((90, 5), (92, 120, 5), True),  # no device of any kind came or went
    ((90, None), (92, 120, None), False),
    ((None, 5), (0, 120, 9), False),  # the log could not be read then
    ((90, 5), (None, None, 9), False),
    ((None, 5), (None, None, 5), True),
]


@pytest.mark.parametrize(("kept", "reading", "known"), READINGS)
def test_a_log_that_reaches_back_or_silence_tells_all(kept, reading, known):
    assert Roster({}, *kept).knows_from(*reading) is known


def test_bars_count_whether_or_not_they_decode():
    raw = device("02:00.0", (0xFE20_0000, 0x4000), (0, 0x1000), command=0)
    listed = listed_from(decode_function(raw), 7)
    assert (listed.instance, listed.pages) == (7, ((0, Frames(Gfn(0xFE200), 4)),))
    silent = decode_function(attrs.evolve(raw, config=b"\xff" * 256))
    assert listed_from(silent, 7, listed).pages == listed.pages
    assert listed_from(silent, 7).pages == ()


def test_vpci_maps_no_bar_of_a_virtual_function_and_none_in_a_segment_that_xen_cannot_name():
    raw = device("02:00.0", (0xFE20_0000, 0x4000))
    virtual = attrs.evolve(decode_function(raw), physfn=NIC)
    inside = attrs.evolve(decode_function(raw), sbdf=parse_sbdf("10000:02:00.0"))
    assert listed_from(virtual, 7).pages == listed_from(inside, 7).pages == ()
