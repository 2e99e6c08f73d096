import pytest

from pcipt.firmware.acpi.dmar import Dmar, RemappingUnit, Scope
from pcipt.firmware.acpi.ivrs import Ivrs, Unit
from pcipt.firmware.coverage import BootSnapshot, Coverage, IommuScope
from pcipt.pci import Sbdf, parse_sbdf

PORT, DEEP = parse_sbdf("00:1c.0"), parse_sbdf("02:00.0")
SNAPSHOT = BootSnapshot("boot", frozenset({PORT, DEEP, parse_sbdf("00:03.0")}), {PORT: (2, 10), DEEP: (3, 5)})


def dmar(*scopes, include_all=False, segment=0):
    return Dmar((RemappingUnit(segment, 0xFED9_0000, include_all, scopes),), (), (), ())


ENDPOINT = Scope(1, 0, ((3, 0),))
BRIDGE = Scope(2, 0, ((0x1C, 0),))
DEEPER = Scope(2, 0, ((0x1C, 0), (0, 0)))
BROKEN = Scope(1, 0, ((0x1D, 0), (0, 0)))
IOAPIC = Scope(3, 0, ((0x1E, 0),))


@pytest.mark.parametrize(
    ("scope", "function", "expected"),
    [
        (IommuScope(SNAPSHOT, absent=True), "77:00.0", Coverage.CERTAIN),  # no IOMMU, nothing can fail
        (IommuScope(SNAPSHOT, dmar(include_all=True)), "77:00.0", Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, dmar(include_all=True)), "0001:00:00.0", Coverage.NONE),  # of its segment only
        (IommuScope(SNAPSHOT, dmar(ENDPOINT)), "00:03.0", Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, dmar(ENDPOINT)), "00:03.1", Coverage.NONE),
        (IommuScope(SNAPSHOT, dmar(BRIDGE)), "00:1c.0", Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, dmar(BRIDGE)), "05:00.0", Coverage.AT_BOOT),
        (IommuScope(SNAPSHOT, dmar(BRIDGE)), "0b:00.0", Coverage.NONE),  # one past the subordinate bus
        (IommuScope(SNAPSHOT, dmar(DEEPER)), "02:00.0", Coverage.AT_BOOT),  # itself, by a bus number
        (IommuScope(SNAPSHOT, dmar(DEEPER)), "04:1f.7", Coverage.AT_BOOT),
        (IommuScope(SNAPSHOT, dmar(DEEPER)), "06:00.0", Coverage.NONE),
        (IommuScope(SNAPSHOT, dmar(BROKEN)), "03:00.0", Coverage.NONE),  # the path leads nowhere
        (IommuScope(SNAPSHOT, dmar(IOAPIC)), "00:1e.0", Coverage.NONE),  # an IO-APIC is no function
        (IommuScope(SNAPSHOT, dmar(ENDPOINT, BRIDGE)), "05:00.0", Coverage.AT_BOOT),
        (IommuScope(SNAPSHOT), "00:03.0", Coverage.AT_BOOT),  # no table (PVH): it was there at boot
        (IommuScope(SNAPSHOT), "0a:00.0", Coverage.AT_BOOT),  # or behind a bridge that was
        (IommuScope(SNAPSHOT), "0b:00.0", Coverage.NONE),
        (IommuScope(SNAPSHOT), "0001:05:00.0", Coverage.NONE),
        (
            IommuScope(SNAPSHOT, ivrs=Ivrs((Unit(0x10, 0, ((8, 0x1FF),)),), (), ())),
            "01:1f.7",
            Coverage.CERTAIN,
        ),
        (IommuScope(SNAPSHOT, ivrs=Ivrs((Unit(0x10, 0, ((8, 0x1FF),)),), (), ())), "02:00.0", Coverage.NONE),
        (IommuScope(SNAPSHOT, ivrs=Ivrs((Unit(0x10, 1, ((8, 0x1FF),)),), (), ())), "01:00.0", Coverage.NONE),
    ],
)
def test_coverage(scope, function, expected):
    assert scope.covers(parse_sbdf(function)) is expected


def test_a_virtual_function_is_judged_by_its_physical_one():
    scope = IommuScope(SNAPSHOT, dmar(ENDPOINT))
    assert scope.covers(parse_sbdf("00:03.5"), parse_sbdf("00:03.0")) is Coverage.CERTAIN


def test_a_path_with_impossible_numbers_resolves_to_nothing():
    assert IommuScope(SNAPSHOT).resolve(0, Scope(1, 0, ((0x20, 0),))) is None
    assert IommuScope(SNAPSHOT).resolve(0, Scope(1, 0, ())) is None
    assert IommuScope(SNAPSHOT).resolve(0, DEEPER) == Sbdf(0, 2, 0, 0)
