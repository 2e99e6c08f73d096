import pytest

from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import Mapped, Regions
from pcipt.firmware.regions.state import XenRegions, with_owners, with_xen
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import Frames, parse_sbdf
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import function, machine

MACHINE = machine(function("00:02.0"), function("00:1d.0"))
GRAPHICS, USB = parse_sbdf("00:02.0"), parse_sbdf("00:1d.0")
FRAMES = Frames(0x70000, 2)
TABLE = dmar(rmrr(0x7000_0000, 0x7000_1FFF, scope(0, (2, 0))))


def regions(table=TABLE):
    return regions_from_tables([table], MACHINE)


def codes(region):
    return [finding.code for finding in region.findings]


def test_xen_agrees():
    (region,) = with_xen(regions(), XenRegions((FRAMES,), {GRAPHICS: (FRAMES,), USB: ()}), MACHINE).regions
    assert (region.listed, region.findings) == (True, ())


DROPPED = [
    # the region of the table, what is said of it when Xen lists nothing
    (rmrr(0x7000_0000, 0x7000_1FFF, scope(0, (2, 0))), ["region-dropped"]),  # nobody answered at boot
    (rmrr(0x7000_0000, 0x7000_1FFF), ["region-no-scope"]),
    (rmrr(0x7000_1000, 0x7000_0FFF, scope(0, (2, 0))), ["region-empty"]),
]


@pytest.mark.parametrize(("region", "said"), DROPPED)
def test_xen_dropped_it(region, said):
    (found,) = with_findings(with_xen(regions(dmar(region)), XenRegions(()), MACHINE)).regions
    assert codes(found) == said


def test_what_xen_lists_is_not_dropped_although_nobody_is_there_now():
    table = dmar(rmrr(0x7000_0000, 0x7000_1FFF, scope(0, (0x1A, 0))))
    (found,) = with_findings(with_xen(regions(table), XenRegions((FRAMES,)), MACHINE)).regions
    assert codes(found) == []
    (found,) = with_findings(with_xen(Regions(), XenRegions((FRAMES,)), MACHINE)).regions
    assert (found.scopes, codes(found)) == ((), [])


RENUMBERED = [
    # what Xen has of each function, what is said
    ({USB: (FRAMES,), GRAPHICS: ()}, "Xen has it for 0000:00:1d.0; the table leads to 0000:00:02.0"),
    ({GRAPHICS: ()}, "the table leads to 0000:00:02.0, for which Xen has no region"),
    ({USB: (FRAMES,), GRAPHICS: (FRAMES,)}, "Xen has it for 0000:00:1d.0"),
]


@pytest.mark.parametrize(("of", "said"), RENUMBERED)
def test_buses_renumbered_since_boot(of, said):
    (region,) = with_xen(regions(), XenRegions((FRAMES,), of), MACHINE).regions
    assert codes(region) == ["buses-renumbered"]
    assert said in region.findings[0].text


def test_an_alias_that_xen_adds_is_no_renumbering():
    """iommu_acpi.c, register_range_for_device: the requester id of a device has its unity map too."""
    table = ivrs(ivmd(0x21, 3, 0x00E8, 0, 0x7000_0000, 0x2000))  # of 00:1d.0
    xen = XenRegions((FRAMES,), {USB: (FRAMES,), GRAPHICS: (FRAMES,)})
    (region,) = with_xen(regions(table), xen, MACHINE).regions
    assert (region.listed, codes(region)) == (True, [])


def test_renumbering_is_said_once():
    table = dmar(rmrr(0x7000_0000, 0x7000_1FFF, scope(0, (0x1C, 0), (0, 0))))  # leads nowhere
    (region,) = with_xen(regions(table), XenRegions((FRAMES,), {USB: (FRAMES,)}), MACHINE).regions
    assert codes(region) == ["buses-renumbered"]


def test_a_pvh_dom0_has_only_the_list_of_xen():
    gone = parse_sbdf("0001:05:00.1")
    xen = XenRegions((FRAMES, Frames(0x80000, 1)), {USB: (FRAMES,), gone: (FRAMES,), GRAPHICS: ()})
    first, second = with_xen(Regions(), xen, MACHINE).regions
    assert (first.kind.value, str(first), first.needs_relaxed) == ("rdm", "0x70000000-0x70001fff", True)
    assert [(str(d.sbdf), d.present) for d in first.devices] == [("0000:00:1d.0", True), (str(gone), False)]
    assert [(s.kind, s.bus, s.path) for s in first.scopes] == [
        ("endpoint", 0, ((0x1D, 0),)),
        ("endpoint", 5, ((0, 1),)),
    ]
    assert (str(second), second.devices) == ("0x80000000-0x80000fff", ())
    assert with_xen(Regions(), xen, None).regions[0].devices[0].present is None


@pytest.mark.parametrize(
    ("table", "kind", "relaxed"),
    [
        (dmar(), "rmrr", True),  # rmrr= on Xen's command line
        (ivrs(), "ivmd-unity", False),  # ivmd=
    ],
)
def test_a_region_from_the_command_line_of_xen(table, kind, relaxed):
    (region,) = with_xen(
        regions(table), XenRegions((FRAMES,), {USB: (FRAMES,), GRAPHICS: (FRAMES,)}), MACHINE
    ).regions
    assert (region.kind.value, region.needs_relaxed) == (kind, relaxed)
    assert with_findings(Regions((region,))).regions[0].findings[0].code == "region-shared"


def test_a_region_that_is_empty_is_not_asked_of_xen():
    empty = regions(dmar(rmrr(0x7000_1000, 0x7000_0FFF, scope(0, (2, 0)))))
    assert with_xen(empty, XenRegions(()), MACHINE) == empty
    (region,) = with_owners(empty, {}, {}).regions
    assert region.mapped is Mapped.NO


def test_owners_and_mapping():
    (region,) = with_owners(regions(), {GRAPHICS: "domain 3"}, {FRAMES: Mapped.WITHDRAWN}).regions
    assert [device.owner for device in region.devices] == ["domain 3"]
    assert region.mapped is Mapped.WITHDRAWN
    (region,) = with_owners(regions(), {}, {}).regions
    assert ([device.owner for device in region.devices], region.mapped) == (["unknown"], Mapped.UNKNOWN)
    (region,) = with_owners(regions(), {}, Mapped.NOT_APPLICABLE).regions
    assert region.mapped is Mapped.NOT_APPLICABLE
