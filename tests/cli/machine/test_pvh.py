import pytest

from pcipt.cli.machine.pvh import map_reserved


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", True),
        ("console=com1 dom0=pvh,verbose", True),
        ("dom0-iommu=map-reserved", True),
        ("dom0-iommu=no-map-reserved", False),
        ("dom0-iommu=strict,map-reserved=no,none", False),
        ("dom0-iommu=map-reserved=off dom0-iommu=map-reserved=1", True),  # the last one counts
        ("dom0-iommu=map-reserved=perhaps", True),  # no value that Xen knows
        ("dom0-iommu=no-map-inclusive", True),
        ("iommu=no-map-reserved", True),  # another option
        ("dom0=pvh -- dom0-iommu=no-map-reserved", True),  # of dom0's command line
    ],
)
def test_map_reserved(line, expected):
    assert map_reserved(line) is expected
    assert map_reserved(None) is True
