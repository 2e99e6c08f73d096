import pytest

from pcipt.pci import parse_sbdf
from pcipt.xen.interface import DeviceFlags
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage, coverage_from_boot, requester

SOME = Coverage(
    functions=frozenset({parse_sbdf("0000:00:02.0")}),
    buses=frozenset({(0, 5), (1, 0)}),
    segments=frozenset({7}),
)

# function, covered, why
COVERED = [
    ("0000:00:02.0", True),  # listed
    ("0000:00:02.1", False),  # its neighbour is not
    ("0000:05:1f.7", True),  # any function on a bus
    ("0001:00:00.0", True),  # that bus of another segment
    ("0001:05:00.0", False),  # the bus counts in its segment only
    ("0007:ff:1f.7", True),  # INCLUDE_PCI_ALL
]


@pytest.mark.parametrize(("function", "covered"), COVERED)
def test_covers(function, covered):
    assert SOME.covers(parse_sbdf(function)) is covered
    assert EVERYTHING.covers(parse_sbdf(function))


def test_coverage_from_boot_is_by_bus():
    coverage = coverage_from_boot([parse_sbdf("0000:02:00.0"), parse_sbdf("0001:03:00.0")])
    assert coverage.covers(parse_sbdf("0000:02:1f.0"))
    assert not coverage.covers(parse_sbdf("0000:03:00.0"))


# function, flags, whether the physical function is an ARI one, whose place counts
REQUESTERS = [
    ("0000:03:01.2", DeviceFlags(), False, "0000:03:01.2"),  # its own
    ("0000:03:01.2", DeviceFlags(extended=True), False, "0000:03:00.0"),  # ARI: function 0 of the bus
    ("0000:04:01.2", DeviceFlags(physfn=parse_sbdf("0000:03:00.1")), False, "0000:03:00.1"),  # VF: the PF's
    ("0000:04:01.2", DeviceFlags(physfn=parse_sbdf("0000:03:02.1")), True, "0000:03:00.0"),  # VF of an ARI PF
    ("0000:04:01.2", DeviceFlags(True, parse_sbdf("0000:03:00.1")), False, "0000:03:00.1"),  # VF before ARI
]


@pytest.mark.parametrize(("function", "flags", "extended", "expected"), REQUESTERS)
def test_requester(function, flags, extended, expected):
    assert str(requester(parse_sbdf(function), flags, physfn_extended=extended)) == expected
