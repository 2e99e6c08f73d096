from errno import EINVAL, ENODEV

import pytest

from pcipt.pci import parse_sbdf
from pcipt.pci.requester import Requester, Role, Vendor
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage, coverage_from_boot

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


A, B = parse_sbdf("0000:03:00.0"), parse_sbdf("0000:03:00.5")
VF = Requester(parse_sbdf("0000:03:10.0"), physfn=A)
ARI = Requester(parse_sbdf("0000:03:01.2"), extended=True)
LISTED = frozenset({A})

#  what is added, VT-d's answer, AMD-Vi's answer where the table lists 03:00.0 only
ANSWERS = [
    (Requester(A), 0, 0),
    (Requester(B), -ENODEV, 0),  # AMD: as function 0
    (VF, 0, -ENODEV),  # VT-d: as its physical function, AMD: by its own address
    (ARI, 0, -ENODEV),  # VT-d: as device 0 of the bus
    (Requester(parse_sbdf("0000:04:00.0"), role=Role.BRIDGE), 0, -ENODEV),
    (Requester(parse_sbdf("0000:00:00.0"), role=Role.HOST_BRIDGE), 0, 0),
    (Requester(parse_sbdf("0000:00:00.2"), role=Role.IOMMU), -ENODEV, 0),
    (Requester(A, role=Role.REVERSE_BRIDGE), -EINVAL, 0),
]


@pytest.mark.parametrize(("added", "intel", "amd"), ANSWERS)
def test_answers(added, intel, amd):
    assert Coverage(functions=LISTED).answer(added) == intel
    assert Coverage(functions=LISTED, vendor=Vendor.AMD).answer(added) == amd
