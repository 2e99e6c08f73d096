import errno

import attrs
import pytest

from pcipt.errors import HypervisorError
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.pci.requester import Vendor
from pcipt.xen.interface import DeviceFlags, Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe, SimulatedHardware
from pcipt.xen.simulated.reserved import ReservedRegion

NIC, AUDIO, GONE = (parse_sbdf(text) for text in ("0000:01:00.0", "0000:00:1f.3", "0000:05:00.0"))
PVH, PV = (XenIdentity("4.17.7", kind) for kind in (Dom0Kind.PVH, Dom0Kind.PV))
PAGES, OTHER = Frames(Gfn(0x7FFF0), 4), Frames(Gfn(0x7FFE0), 1)
QUARANTINE = Owner(OwnerKind.QUARANTINE)


AMD = attrs.evolve(EVERYTHING, vendor=Vendor.AMD)


def make(*scopes, present=(NIC, AUDIO), dom0=PVH, vendor=Vendor.INTEL, iommu=None, **more):
    regions = [ReservedRegion(PAGES, scopes), ReservedRegion(OTHER, (GONE,))]
    hardware = SimulatedHardware(present)
    more.setdefault("map_reserved", False)
    iommu = iommu or attrs.evolve(EVERYTHING, vendor=vendor)
    return SimulatedXen(hardware, dom0, reserved=regions, iommu=iommu, **more), hardware


def test_the_query_names_regions_all_and_by_device():
    xen, _ = make(NIC, AUDIO)
    assert xen.reserved_regions() == (PAGES,)
    assert xen.reserved_regions(NIC) == xen.reserved_regions(AUDIO) == (PAGES,)
    assert xen.reserved_regions(GONE) == ()


def test_the_query_works_on_pv_as_well():
    assert make(NIC, dom0=PV)[0].reserved_regions(NIC) == (PAGES,)


def test_the_query_can_fail():
    xen, _ = make(NIC)
    xen.fail(Op.RESERVED, errno.EFAULT)
    with pytest.raises(HypervisorError):
        xen.reserved_regions()


def test_a_region_whose_devices_are_all_absent_at_boot_is_dropped_for_good():
    xen, hardware = make(NIC)
    hardware.plug(GONE)
    xen.kernel_add(GONE)
    assert xen.reserved_regions(GONE) == ()
    assert not xen.p2m.touched(OTHER)


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("4.17.7", True), ("4.18.6", True), ("4.19.3", True), ("4.19.4", False), ("4.20.1", True),
        ("4.20.2", False), ("4.21.0", False), ("4.22.0", False), ("4.20.2-vendor", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", Dom0Kind)
def test_a_region_in_a_segment_that_is_not_known_yet_is_kept(version, kept, kind):
    """Versions that read MCFG before the DMAR know the segment, and see that nothing answers there."""
    far, there = parse_sbdf("0001:05:00.0"), parse_sbdf("0001:06:00.0")
    regions = [ReservedRegion(PAGES, (far,)), ReservedRegion(OTHER, (there,))]
    hardware = SimulatedHardware([there])
    xen = SimulatedXen(hardware, XenIdentity(version, kind), reserved=regions, map_reserved=False)
    assert xen.reserved_regions(far) == (PAGES,) * kept
    assert xen.reserved_regions(there) == (OTHER,)
    if kind is Dom0Kind.PVH:
        assert xen.p2m.mapped(PAGES) is kept


@pytest.mark.parametrize("dom0", [PVH, PV])
def test_amd_keeps_a_region_of_absent_devices_and_applies_it_when_one_is_added(dom0):
    xen, hardware = make(NIC, dom0=dom0, iommu=AMD)
    (region,) = xen.reserved.touching(OTHER)
    assert xen.reserved_regions() == (PAGES, OTHER)
    assert xen.reserved.references(region) == 0
    hardware.plug(GONE)
    xen.kernel_add(GONE)
    assert xen.reserved_regions(GONE) == (OTHER,)
    assert xen.reserved.references(region) == 1
    if xen.p2m is not None:
        assert xen.p2m.mapped(OTHER)
        xen.kernel_remove(GONE)
        assert not xen.p2m.touched(OTHER)


def test_amd_counts_the_devices_that_were_there():
    xen, hardware = make(NIC, GONE, iommu=AMD)
    (region,) = xen.reserved.touching(PAGES)
    assert xen.reserved.references(region) == 1
    hardware.plug(GONE)
    xen.kernel_add(GONE)
    xen.kernel_remove(NIC)
    assert xen.p2m.mapped(PAGES)  # with VT-d the count would be 2
    xen.kernel_remove(GONE)
    assert not xen.p2m.touched(PAGES)


def test_amd_does_not_count_what_it_was_not_told_of():
    xen, _ = make(NIC, known=[AUDIO], iommu=AMD)
    assert not xen.p2m.touched(PAGES)
    xen.kernel_add(NIC)
    assert xen.p2m.mapped(PAGES)


@pytest.mark.parametrize("vendor", list(Vendor))
@pytest.mark.parametrize("owner", [QUARANTINE, Owner(OwnerKind.DOMAIN, 3)])
def test_a_device_that_is_removed_while_it_is_not_dom0s_leaves_the_count(vendor, owner):
    xen, _ = make(NIC, vendor=vendor)
    region = xen.reserved.regions[0]
    xen.give(NIC, owner)
    xen.kernel_remove(NIC)
    assert (xen.reserved.references(region), xen.p2m.mapped(PAGES)) == (1, True)
    xen.kernel_add(NIC)
    xen.kernel_remove(NIC)
    assert (xen.reserved.references(region), xen.p2m.mapped(PAGES)) == (1, True)


@pytest.mark.parametrize("vendor", list(Vendor))
def test_over_pages_that_somebody_else_has_mapped_xen_counts_nothing(vendor):
    xen, _ = make(NIC, vendor=vendor)
    xen.remove_device(NIC)
    xen.map_mmio(PAGES)
    xen.add_device(NIC, DeviceFlags())
    assert xen.reserved.references(xen.reserved.regions[0]) == 0
    xen.remove_device(NIC)
    assert xen.p2m.mapped(PAGES)


@pytest.mark.parametrize(("vendor", "count"), [(Vendor.INTEL, 1), (Vendor.AMD, 0)])
def test_with_vtd_an_add_that_fails_counts_all_the_same(vendor, count):
    regions = [ReservedRegion(PAGES, (NIC,)), ReservedRegion(OTHER, (AUDIO,))]
    hardware = SimulatedHardware([AUDIO, NIC])
    coverage = Coverage(functions=frozenset({AUDIO}), vendor=vendor)
    xen = SimulatedXen(hardware, PVH, iommu=coverage, known=[AUDIO], reserved=regions)
    before = xen.reserved.references(xen.reserved.regions[0])
    assert xen.kernel_add(NIC) == -errno.ENODEV
    assert xen.reserved.references(xen.reserved.regions[0]) - before == count


def test_reserved_memory_is_mapped_at_boot_also_for_a_region_that_was_dropped():
    xen, _ = make(NIC, map_reserved=True)
    assert xen.reserved_regions() == (PAGES,)
    assert xen.p2m.mapped(OTHER)


def test_with_vtd_a_removal_takes_what_was_mapped_at_boot():
    xen, _ = make(NIC, map_reserved=True)
    xen.remove_device(NIC)
    assert not xen.p2m.touched(PAGES)
    assert xen.p2m.mapped(OTHER)


def test_with_amd_what_was_mapped_at_boot_is_never_counted():
    """Xen maps reserved memory before it adds the devices, so their regions meet pages that are mapped."""
    xen, _ = make(NIC, vendor=Vendor.AMD, map_reserved=True)
    assert xen.reserved.references(xen.reserved.regions[0]) == 0
    xen.remove_device(NIC)
    assert xen.p2m.mapped(PAGES)


@pytest.mark.parametrize("vendor", list(Vendor))
def test_a_withdrawal_takes_what_was_mapped_at_boot(vendor):
    xen, _ = make(NIC, vendor=vendor, map_reserved=True)
    xen.give(NIC, QUARANTINE)
    xen.unmap_mmio(PAGES)
    assert not xen.p2m.touched(PAGES)


# scope, what happens in turn, whether the pages are mapped after each
LIVES = [
    ("the only device", (NIC,), [("-", NIC, False), ("+", NIC, True), ("-", NIC, False)]),
    ("two devices", (NIC, AUDIO), [("-", NIC, True), ("-", AUDIO, False), ("+", NIC, True)]),
    ("added again", (NIC,), [("+", NIC, True), ("-", NIC, False)]),
    ("plugged in later", (AUDIO, GONE), [("+", GONE, True), ("-", GONE, True), ("-", AUDIO, True)]),
]


@pytest.mark.parametrize(("scope", "steps"), [row[1:] for row in LIVES], ids=[row[0] for row in LIVES])
def test_references(scope, steps):
    xen, hardware = make(*scope)
    assert xen.p2m.mapped(PAGES)
    for what, function, mapped in steps:
        if what == "+":
            hardware.plug(function)
            xen.add_device(function, DeviceFlags())
        else:
            xen.remove_device(function)
        assert xen.p2m.mapped(PAGES) == xen.p2m.touched(PAGES) == mapped


def test_assignment_changes_nothing():
    xen, _ = make(NIC)
    for owner in (QUARANTINE, Owner(OwnerKind.DOMAIN, 3), Owner(OwnerKind.DOMAIN, 0)):
        xen.give(NIC, owner)
        assert xen.p2m.mapped(PAGES)


def test_withdrawing_and_restoring_as_measured():
    xen, _ = make(NIC)
    xen.give(NIC, QUARANTINE)
    xen.unmap_mmio(PAGES)
    assert not xen.p2m.touched(PAGES)
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 0))
    assert not xen.p2m.touched(PAGES)  # Xen does not restore it
    xen.map_mmio(PAGES)
    assert xen.p2m.mapped(PAGES)


def test_withdrawing_under_a_device_of_dom0_is_a_catastrophe():
    xen, hardware = make(NIC, AUDIO)
    xen.give(NIC, QUARANTINE)
    with pytest.raises(Catastrophe) as caught:
        xen.unmap_mmio(PAGES)
    assert str(AUDIO) in caught.value.why
    xen, hardware = make(NIC)
    hardware.pull(NIC)
    xen.unmap_mmio(PAGES)  # nobody is there whose DMA could fault
