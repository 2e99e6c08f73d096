import pytest
from hypothesis import given

from pcipt.pci import Capability, ConfigSpace
from pcipt.pci.capabilities import find_capability, walk_capabilities
from pcipt.pci.capabilities.names import EXTENDED_NAMES, STANDARD_NAMES
from tests.pci.spaces import (
    BRIDGE,
    CARDBUS,
    ENDPOINT,
    STATUS_HAS_CAPABILITIES,
    extended_list,
    hostile_spaces,
    space,
    standard_list,
)

LIST = standard_list((0x40, 0x01, {}), (0x50, 0x05, {}), (0x70, 0x10, {}))


def walk(registers, *, size=256, header=ENDPOINT):
    capabilities, findings = walk_capabilities(ConfigSpace(space(registers, size=size, header=header)))
    return [(c.id, c.offset) for c in capabilities], [finding.code for finding in findings]


#  registers -> ids and offsets, codes of what is wrong
STANDARD = [
    (LIST, [(0x01, 0x40), (0x05, 0x50), (0x10, 0x70)], []),
    ({0x34: (1, 0x40), 0x40: (2, 0x01)}, [], []),  # the status register says that there is no list
    (STATUS_HAS_CAPABILITIES, [], []),  # an empty list
    (STATUS_HAS_CAPABILITIES | {0x34: (1, 0x03)}, [], []),  # only reserved bits
    (standard_list((0x43, 0x01, {})) | {0x40: (2, 0x01)}, [(0x01, 0x40)], []),  # the two low bits are masked
    (LIST | {0x51: (1, 0x72)}, [(0x01, 0x40), (0x05, 0x50), (0x10, 0x70)], []),
    (LIST | {0x71: (1, 0x40)}, [(0x01, 0x40), (0x05, 0x50), (0x10, 0x70)], ["capability-loop"]),
    (LIST | {0x51: (1, 0x51)}, [(0x01, 0x40), (0x05, 0x50)], ["capability-loop"]),  # points at itself
    (LIST | {0x51: (1, 0x3C)}, [(0x01, 0x40), (0x05, 0x50)], ["capability-pointer"]),  # into the header
    (STATUS_HAS_CAPABILITIES | {0x34: (1, 0x04)}, [], ["capability-pointer"]),
    (LIST | {0x50: (2, 0xFFFF)}, [(0x01, 0x40)], ["capability-pointer"]),  # nothing answers there
    (LIST | {0x50: (2, 0x7000)}, [(0x01, 0x40), (0x00, 0x50), (0x10, 0x70)], []),  # the null capability
    (LIST | {0x50: (1, 0xEE)}, [(0x01, 0x40), (0xEE, 0x50), (0x10, 0x70)], []),  # nobody knows it
    (standard_list((0xFC, 0x05, {})), [(0x05, 0xFC)], []),  # the last place
]


@pytest.mark.parametrize(("registers", "expected", "codes"), STANDARD)
def test_the_standard_list(registers, expected, codes):
    assert walk(registers) == (expected, codes)


@pytest.mark.parametrize(
    ("header", "pointer", "expected"),
    [
        (ENDPOINT, 0x34, [(0x01, 0x40)]),
        (BRIDGE, 0x34, [(0x01, 0x40)]),
        (CARDBUS, 0x14, [(0x01, 0x40)]),
        (CARDBUS, 0x34, []),
        (ENDPOINT, 0x14, []),
        (3, 0x34, []),  # an unknown header may have its pointer anywhere
        (3, 0x14, []),
    ],
)
def test_where_the_list_begins_depends_on_the_header(header, pointer, expected):
    assert walk(standard_list((0x40, 0x01, {}), pointer=pointer), header=header)[0] == expected


CHAIN = extended_list((0x100, 0x0001, {}), (0x150, 0x0010, {}), (0x1A0, 0x0015, {}))

EXTENDED = [
    (CHAIN, [(0x01, 0x100), (0x10, 0x150), (0x15, 0x1A0)], []),
    ({}, [], []),  # zero at 100: none
    ({0x100: (4, 0xFFFF_FFFF)}, [], []),  # no extended space
    (CHAIN | {0x1A0: (4, 0x1001_0015)}, [(0x01, 0x100), (0x10, 0x150), (0x15, 0x1A0)], ["capability-loop"]),
    (
        CHAIN | {0x1A0: (4, 0x0FC1_0015)},
        [(0x01, 0x100), (0x10, 0x150), (0x15, 0x1A0)],
        ["capability-pointer"],
    ),
    (CHAIN | {0x1A0: (4, 0x0031_0015)}, [(0x01, 0x100), (0x10, 0x150), (0x15, 0x1A0)], []),  # reserved bits
    (
        CHAIN | {0x100: (4, 0x1531_0001)},
        [(0x01, 0x100), (0x10, 0x150), (0x15, 0x1A0)],
        [],
    ),  # unaligned: masked
    (CHAIN | {0x150: (4, 0xFFFF_FFFF)}, [(0x01, 0x100)], ["capability-pointer"]),  # nothing answers there
    (CHAIN | {0x150: (4, 0)}, [(0x01, 0x100)], []),
    (CHAIN | {0x100: (4, 0x1500_0000)}, [(0x00, 0x100), (0x10, 0x150), (0x15, 0x1A0)], []),  # null capability
    (
        {0x100: (4, 0xFFC1_0001), 0xFFC: (4, 0x0001_0003)},
        [(0x01, 0x100), (0x03, 0xFFC)],
        [],
    ),  # the last place
]


@pytest.mark.parametrize(("registers", "expected", "codes"), EXTENDED)
def test_the_extended_list(registers, expected, codes):
    assert walk(registers, size=4096) == (expected, codes)


def test_both_lists_follow_each_other_with_their_versions():
    capabilities, findings = walk_capabilities(ConfigSpace(space(LIST | CHAIN, size=4096)))
    assert not findings
    assert [c.extended for c in capabilities] == [False] * 3 + [True] * 3
    assert capabilities[0] == Capability(0x01, 0x40, extended=False)
    assert capabilities[3] == Capability(0x0001, 0x100, extended=True, version=1)


#  bytes given -> how much of LIST (at 40, 50, 70) and CHAIN (at 100, 150, 1a0) is known, what is said
CUT = [
    (0x06, 0, []),  # no status
    (0x34, 0, []),  # no pointer
    (0x40, 0, []),  # the header alone, as sysfs gives it without privilege: the rest is unknown, not wrong
    (0x41, 0, ["config-short"]),
    (0x42, 1, ["config-short"]),
    (0x52, 2, ["config-short"]),
    (0x72, 3, []),  # the list is complete
    (0x100, 3, []),  # the regular part alone
    (0x103, 3, ["config-short"]),
    (0x104, 4, ["config-short"]),
    (0x154, 5, ["config-short"]),
    (0x1A4, 6, []),
    (0x1000, 6, []),
]


@pytest.mark.parametrize(("size", "count", "codes"), CUT)
def test_a_list_ends_where_the_bytes_end(size, count, codes):
    whole, _ = walk(LIST | CHAIN, size=4096)
    assert walk(LIST | CHAIN, size=size) == (whole[:count], codes)


@given(hostile_spaces())
def test_no_list_is_endless_or_goes_astray(data):
    capabilities, findings = walk_capabilities(ConfigSpace(data))
    offsets = [c.offset for c in capabilities]
    assert len(set(offsets)) == len(offsets)
    assert len(findings) <= 2
    for capability in capabilities:
        assert capability.offset % 4 == 0
        assert (0x100 if capability.extended else 0x40) <= capability.offset < len(data)
        assert capability.offset < (0x1000 if capability.extended else 0x100)


def test_the_first_of_several_is_found():
    crowd = (
        Capability(0x09, 0x40, extended=False),
        Capability(0x10, 0x50, extended=False),
        Capability(0x09, 0x60, extended=False),
        Capability(0x10, 0x100, extended=True),
    )
    assert find_capability(crowd, 0x09) == crowd[0]
    assert find_capability(crowd, 0x10) == crowd[1]
    assert find_capability(crowd, 0x10, extended=True) == crowd[3]
    assert find_capability(crowd, 0x09, extended=True) is None


@pytest.mark.parametrize(
    ("identity", "extended", "name"),
    [
        (0x10, False, "PCI Express"),
        (0x10, True, "SR-IOV"),
        (0x05, False, "MSI"),
        (0x0D, False, "Bridge Subsystem ID"),
        (0x11, False, "MSI-X"),
        (0x14, False, "Enhanced Allocation"),
        (0x0D, True, "Access Control Services"),
        (0x0E, True, "Alternative Routing-ID"),
        (0x1E, True, "L1 PM Substates"),
        (0x2E, True, "Data Object Exchange"),
        (0x15, True, "Resizable BAR"),
        (0xEE, False, "Unknown"),
        (0x14, True, "Unknown"),
    ],
)
def test_each_list_has_its_own_names(identity, extended, name):
    assert Capability(identity, 0x40, extended=extended).name == name


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (STANDARD_NAMES, set(range(0x16))),
        (EXTENDED_NAMES, set(range(0x35)) - {0x14}),  # 14 was never given away
    ],
)
def test_every_number_has_its_own_name(names, numbers):
    assert set(names) == numbers
    assert len(set(names.values())) == len(names)
