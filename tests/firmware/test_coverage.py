import attrs
import pytest

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.dmar import Dmar, RemappingUnit, Scope
from pcipt.firmware.acpi.ivrs import Ivrs, Unit
from pcipt.firmware.coverage import BootSnapshot, Coverage, IommuScope, snapshot_from_machine
from pcipt.host.recorded import RecordedHost
from pcipt.pci import Sbdf, decode_machine, parse_sbdf
from pcipt.pci.requester import Requester, Role, Vendor
from tests.firmware import reserved_tables
from tests.trees import REPO

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
        (IommuScope(SNAPSHOT, dmar(IOAPIC)), "00:1e.0", Coverage.CERTAIN),  # Xen takes it for a function
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
    assert scope.covers(Requester(parse_sbdf(function))) is expected


def units(*each):
    return Dmar(
        tuple(RemappingUnit(0, base, everything, scopes) for base, everything, scopes in each), (), (), ()
    )


TWO = units((0xFED9_1000, True, ()), (0xFED9_0000, False, (ENDPOINT, BRIDGE)))
AMD = Ivrs((Unit(0x10, 0, ((8, 0x1FF),), device=2, capability=0x40),), (), ())
UNITS = [
    (
        IommuScope(SNAPSHOT, TWO),
        "00:03.0",
        "DRHD at 0xfed90000",
    ),  # named, though another has all that is left
    (IommuScope(SNAPSHOT, TWO), "05:00.0", "DRHD at 0xfed90000"),  # below a bridge that is named
    (IommuScope(SNAPSHOT, TWO), "00:1f.2", "DRHD at 0xfed91000"),
    (IommuScope(SNAPSHOT, TWO), "0001:00:03.0", None),
    (IommuScope(SNAPSHOT, dmar(ENDPOINT)), "00:1f.2", None),
    (IommuScope(SNAPSHOT, ivrs=AMD), "01:1f.7", "IVHD of 0000:00:00.2"),
    (IommuScope(SNAPSHOT, ivrs=AMD), "02:00.0", None),
    (IommuScope(SNAPSHOT, ivrs=AMD), "0001:01:00.0", None),
    (IommuScope(SNAPSHOT), "00:03.0", None),
]


@pytest.mark.parametrize(("scope", "function", "unit"), UNITS)
def test_the_unit_that_serves_a_function(scope, function, unit):
    assert scope.unit_of(Requester(parse_sbdf(function))) == unit


#  address at boot, path
PLACES = [
    ("00:03.0", "00_03.0"),
    ("02:00.0", "00_1c.0-00_00.0"),
    ("02:1f.7", "00_1c.0-00_1f.7"),  # whether or not a function was there
    ("04:01.0", "00_1c.0-00_00.0-01_01.0"),  # one bus above the secondary bus of the bridge 02:00.0
    ("0a:00.0", "00_1c.0-08_00.0"),
    ("77:00.0", "77_00.0"),
    ("0001:02:00.0", "0001_02_00.0"),
]


@pytest.mark.parametrize(("address", "path"), PLACES)
def test_the_place_of_an_address_at_boot(address, path):
    found = SNAPSHOT.path_of(parse_sbdf(address))
    assert str(found) == path
    assert SNAPSHOT.address_of(found) == parse_sbdf(address)


@pytest.mark.parametrize("root", sorted((REPO / "fixtures/sysfs").iterdir()), ids=lambda root: root.name)
def test_the_place_of_each_recorded_function_is_its_path(root):
    machine = decode_machine(RecordedHost(str(root)).read_machine())
    snapshot = snapshot_from_machine("boot", machine)
    assert machine.functions
    for function in machine.functions.values():
        if function.path is not None:
            assert snapshot.path_of(function.sbdf) == function.path
            assert snapshot.address_of(function.path) == function.sbdf


def test_a_path_through_a_bridge_that_was_not_there_had_no_address():
    late = BootSnapshot("boot", frozenset(), {PORT: (2, 10), parse_sbdf("00:1d.0"): (0xB, 0xC)})
    assert SNAPSHOT.address_of(late.path_of(parse_sbdf("0b:00.0"))) is None


def test_bridges_in_a_loop_give_no_place():
    loop = BootSnapshot("boot", frozenset(), {parse_sbdf("05:00.0"): (4, 5)})
    assert loop.path_of(parse_sbdf("05:01.0")) is None


def test_a_virtual_function_is_judged_by_its_physical_one():
    scope = IommuScope(SNAPSHOT, dmar(ENDPOINT))
    virtual = Requester(parse_sbdf("00:03.5"), parse_sbdf("00:03.0"))
    assert scope.covers(virtual) is Coverage.CERTAIN


def test_of_impossible_numbers_in_a_path_the_low_bits_count():
    assert IommuScope(SNAPSHOT).resolve(0, Scope(1, 0, ((0x22, 9),))) == Sbdf(0, 0, 2, 1)
    assert IommuScope(SNAPSHOT).resolve(0, Scope(1, 0, ())) is None
    assert IommuScope(SNAPSHOT).resolve(0, DEEPER) == Sbdf(0, 2, 0, 0)


def ivrs(*units):
    return Ivrs(tuple(Unit(kind, 0, ((first, last),)) for kind, first, last in units), (), ())


ONE = ivrs((0x10, 0x100, 0x100))  # 01:00.0 alone
SEVERAL = ivrs((0x10, 0x300, 0x300), (0x11, 0x400, 0x400), (0x40, 0x500, 0x500))
AMD_AT_BOOT = IommuScope(SNAPSHOT, vendor=Vendor.AMD)


@pytest.mark.parametrize(
    ("scope", "requester", "expected"),
    [
        # AMD-Vi: a virtual function counts by its own address
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 1, 0x10, 0), Sbdf(0, 1, 0, 0)), Coverage.NONE),
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 1, 0, 5), Sbdf(0, 2, 0, 0)), Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 1, 0, 1)), Coverage.CERTAIN),  # as function 0
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 1, 1, 0)), Coverage.NONE),
        # only the highest type of 10h and 11h is read
        (IommuScope(SNAPSHOT, ivrs=SEVERAL), Requester(Sbdf(0, 3, 0, 0)), Coverage.NONE),
        (IommuScope(SNAPSHOT, ivrs=SEVERAL), Requester(Sbdf(0, 4, 0, 0)), Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, ivrs=SEVERAL), Requester(Sbdf(0, 5, 0, 0)), Coverage.NONE),
        (IommuScope(SNAPSHOT, ivrs=ivrs((0x40, 0, 0xFFFF))), Requester(Sbdf(0, 5, 0, 0)), Coverage.NONE),
        # host bridges and AMD's own functions need no unit; VT-d's bridges neither, AMD's do
        (
            IommuScope(SNAPSHOT, ivrs=ONE),
            Requester(Sbdf(0, 0, 0, 0), role=Role.HOST_BRIDGE),
            Coverage.CERTAIN,
        ),
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 0, 0, 2), role=Role.IOMMU), Coverage.CERTAIN),
        (IommuScope(SNAPSHOT, ivrs=ONE), Requester(Sbdf(0, 0, 1, 0), role=Role.BRIDGE), Coverage.NONE),
        (
            IommuScope(SNAPSHOT, dmar(ENDPOINT)),
            Requester(Sbdf(0, 0, 1, 0), role=Role.BRIDGE),
            Coverage.CERTAIN,
        ),
        (IommuScope(SNAPSHOT), Requester(Sbdf(0, 0x77, 1, 0), role=Role.BRIDGE), Coverage.AT_BOOT),
        (
            IommuScope(SNAPSHOT, dmar(include_all=True)),
            Requester(Sbdf(0, 0, 1, 0), role=Role.REVERSE_BRIDGE),
            Coverage.NONE,
        ),
        # VT-d looks for device 0 of the bus where ARI is in use
        (IommuScope(SNAPSHOT, dmar(DEEPER)), Requester(Sbdf(0, 2, 3, 1), extended=True), Coverage.AT_BOOT),
        (IommuScope(SNAPSHOT, dmar(DEEPER)), Requester(Sbdf(0, 2, 3, 1)), Coverage.NONE),
        # a PVH dom0 on AMD: what was there at boot, or its function 0; a bridge's range says nothing
        (AMD_AT_BOOT, Requester(Sbdf(0, 0, 3, 0)), Coverage.AT_BOOT),
        (AMD_AT_BOOT, Requester(Sbdf(0, 0, 3, 5)), Coverage.AT_BOOT),
        (AMD_AT_BOOT, Requester(Sbdf(0, 4, 0, 0)), Coverage.UNKNOWN),
        (IommuScope(SNAPSHOT), Requester(Sbdf(0, 4, 0, 0)), Coverage.AT_BOOT),
    ],
)
def test_coverage_by_vendor(scope, requester, expected):
    assert scope.covers(requester) is expected


REGION = reserved_tables.rmrr(0x1000, 0x1FFF, reserved_tables.scope(0, (0, 0)))
BLOCK = reserved_tables.ivmd(0x20, 8, 0, 0, 0x1000, 0x1000)
MADT = build_table(Header("APIC", 1), bytes(8))


@pytest.mark.parametrize("name", ["DMAR", "RMAD", "XMAR"])
def test_a_dmar_counts_under_each_of_its_names(name):
    found = IommuScope(SNAPSHOT).with_tables([b"no table", MADT, reserved_tables.dmar(REGION, name=name)])
    assert (found.snapshot, found.ivrs, found.absent) == (SNAPSHOT, None, False)
    assert len(found.dmar.regions) == 1


def test_an_ivrs_counts():
    found = IommuScope(SNAPSHOT).with_tables([b"", reserved_tables.ivrs(BLOCK), MADT])
    assert found.dmar is None
    assert len(found.ivrs.blocks) == 1


def test_both_tables_count_together():
    found = IommuScope(SNAPSHOT).with_tables([reserved_tables.dmar(REGION), reserved_tables.ivrs(BLOCK)])
    assert None not in (found.dmar, found.ivrs)


def test_without_a_table_only_the_snapshot_counts():
    assert IommuScope(SNAPSHOT).with_tables([MADT]) == IommuScope(SNAPSHOT)


@pytest.mark.parametrize("function", ["00:03.0", "0a:00.0", "02:00.0"])
def test_what_only_a_late_snapshot_shows_is_unknown(function):
    """The function may have come after boot: Xen would find no unit for it, and leave an orphan."""
    late = attrs.evolve(SNAPSHOT, late=True)
    for tables in ((), (dmar(DEEPER),)):
        at_boot = IommuScope(SNAPSHOT, *tables).covers(Requester(parse_sbdf(function)))
        expected = Coverage.UNKNOWN if at_boot is Coverage.AT_BOOT else at_boot
        assert IommuScope(late, *tables).covers(Requester(parse_sbdf(function))) is expected
    assert IommuScope(late).covers(Requester(parse_sbdf("00:03.0"))) is Coverage.UNKNOWN


def test_a_late_snapshot_does_not_weaken_a_table():
    late = IommuScope(attrs.evolve(SNAPSHOT, late=True), dmar(include_all=True))
    assert late.covers(Requester(parse_sbdf("77:00.0"))) is Coverage.CERTAIN
