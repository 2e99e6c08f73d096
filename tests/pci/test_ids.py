import itertools

import pytest

from pcipt.pci import ConfigSpace, Ids
from pcipt.pci.ids import UNKNOWN_IDS, join_ids
from tests.pci.spaces import BRIDGE, CARDBUS, ENDPOINT, space

CLASS = {0x08: (4, 0x0200_0003)}
SUBSYSTEM = {0x2C: (4, 0x0001_15D9), 0x40: (4, 0x0002_15D9), 0x54: (4, 0x0003_15D9)}
READ = Ids(0x8086, 0x10D3, 0x02_0000, 3, 0x15D9, 1)
LINUX = Ids(0x8086, 0x10D3, 0x02_8000, 4, 0x1AF4, 5)


def join(linux, *, header=ENDPOINT, virtual=False, subsystem_at=None, size=256, vendor=0x8086, device=0x10D3):
    data = space(CLASS | SUBSYSTEM, header=header, size=size, vendor=vendor, device=device)
    ids, findings = join_ids(linux, ConfigSpace(data), virtual=virtual, subsystem_at=subsystem_at)
    return ids, [finding.code for finding in findings]


@pytest.mark.parametrize("told", list(itertools.product([False, True], repeat=6)))
def test_what_linux_does_not_tell_is_read(told):
    known = [there if tells else None for there, tells in zip(_fields(LINUX), told, strict=True)]
    expected = [one if one is not None else other for one, other in zip(known, _fields(READ), strict=True)]
    ids, codes = join(Ids(*known))
    assert (_fields(ids), codes) == (expected, [])
    assert Ids(*known).complete is all(told)


def _fields(ids):
    return [
        ids.vendor,
        ids.device,
        ids.class_code,
        ids.revision,
        ids.subsystem_vendor,
        ids.subsystem_device,
    ]


#  header, place of a bridge's subsystem capability -> subsystem
SUBSYSTEMS = [
    (ENDPOINT, None, (0x15D9, 1)),
    (ENDPOINT, 0x50, (0x15D9, 1)),  # only a bridge has that capability
    (CARDBUS, None, (0x15D9, 2)),
    (BRIDGE, None, (None, None)),
    (BRIDGE, 0x50, (0x15D9, 3)),
    (3, None, (None, None)),
    (3, 0x50, (None, None)),
]


@pytest.mark.parametrize(("header", "subsystem_at", "expected"), SUBSYSTEMS)
def test_each_header_has_its_subsystem_elsewhere(header, subsystem_at, expected):
    ids, _ = join(UNKNOWN_IDS, header=header, subsystem_at=subsystem_at)
    assert (ids.subsystem_vendor, ids.subsystem_device) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [None] * 6),
        (2, [0x8086, *[None] * 5]),
        (4, [0x8086, 0x10D3, *[None] * 4]),
        (9, [0x8086, 0x10D3, None, 3, None, None]),  # the class ends later than the revision
        (12, [0x8086, 0x10D3, 0x02_0000, 3, None, None]),
        (0x2C, [0x8086, 0x10D3, 0x02_0000, 3, None, None]),
        (0x2F, [0x8086, 0x10D3, 0x02_0000, 3, 0x15D9, None]),
        (0x30, [0x8086, 0x10D3, 0x02_0000, 3, 0x15D9, 1]),
    ],
)
def test_what_was_not_read_is_unknown(size, expected):
    ids, codes = join(UNKNOWN_IDS, size=size)
    assert (_fields(ids), codes) == (expected, [])


#  Linux's vendor and device, the hardware's, virtual -> vendor and device, codes
OTHERS = [
    ((0x8086, 0x10D3), (0x8086, 0x10D3), False, (0x8086, 0x10D3), []),
    ((0x8086, 0x10D3), (0x14E4, 0x1639), False, (0x8086, 0x10D3), ["id-drift"]),  # exchanged behind our back
    ((0x8086, 0x10D3), (0x8086, 0x10D4), False, (0x8086, 0x10D3), ["id-drift"]),
    ((0x8086, 0x10ED), (0xFFFF, 0xFFFF), True, (0x8086, 0x10ED), []),  # a virtual function by specification
    ((0x8086, 0x10ED), (0xFFFF, 0xFFFF), False, (0x8086, 0x10ED), []),  # one whose owner Linux does not name
    ((None, None), (0xFFFF, 0xFFFF), False, (0xFFFF, 0xFFFF), []),  # one in a dump
    ((None, 0x10D3), (0x8086, 0x10D4), False, (0x8086, 0x10D3), []),  # half a word is no contradiction
    ((0x8087, None), (0x8086, 0x10D4), False, (0x8087, 0x10D4), []),
]


@pytest.mark.parametrize(("linux", "hardware", "virtual", "expected", "codes"), OTHERS)
def test_another_device_than_linux_knows_is_named(linux, hardware, virtual, expected, codes):
    for rest in ((), (0x01_0000, 9, 0x1AF4, 5)):
        ids, found = join(Ids(*linux, *rest), virtual=virtual, vendor=hardware[0], device=hardware[1])
        assert ((ids.vendor, ids.device), found) == (expected, codes)


def test_the_finding_names_both():
    config = ConfigSpace(space(vendor=0x14E4, device=0x1639))
    _, (finding,) = join_ids(LINUX, config, virtual=False, subsystem_at=None)
    assert "14e4:1639" in finding.text
    assert "8086:10d3" in finding.text


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_short_reading_contradicts_nobody(size):
    assert join(LINUX, size=size, vendor=0x14E4) == (LINUX, [])
