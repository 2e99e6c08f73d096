"""DMA on the simulated Xen: what passes, what Xen prints of the rest, when bus mastering goes off."""

import pytest

from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.xen.devices import device

NIC, OTHER = parse_sbdf("00:05.0"), parse_sbdf("00:06.0")
REGION = Frames(Gfn(0x7FFF0), 4)
RAM, HOLE = 0x20_0000, 0x8000_0000
RELEASES = ["4.17.7", "4.18.5", "4.19.6", "4.20.4", "4.21.2", "4.22.0"]


def made(dom0="pvh", vendor=Vendor.INTEL, release="4.17.7", **more):
    hardware = BusHardware([device("00:05.0", command=6), device("00:06.0", command=6)])
    coverage = Coverage(segments=range(1), vendor=vendor)
    return SimulatedXen(
        hardware, XenIdentity(release, Dom0Kind(dom0)), iommu=coverage, memory=[Frames(Gfn(0x100), 0x7000)],
        reserved=[ReservedRegion(REGION, (NIC,))], **more,
    )  # fmt: skip


def lines(xen):
    return xen.console().replace("(XEN) ", "").splitlines()


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("vendor", list(Vendor))
@pytest.mark.parametrize("release", RELEASES)
def test_what_passes_and_what_is_printed(dom0, vendor, release):
    xen = made(dom0, vendor, release)
    xen.console()
    assert xen.dma.access(NIC, RAM, write=True)
    assert xen.dma.access(NIC, REGION.range.start, write=True)
    assert xen.dma.access(OTHER, REGION.range.start, write=False)  # dom0 has one table for all
    assert lines(xen) == []
    assert not xen.dma.access(NIC, HOLE + 0x10, write=True)
    assert not xen.dma.access(NIC, HOLE, write=False)
    if vendor is Vendor.INTEL:
        write, reason, read, other = lines(xen)
        assert write == "[VT-D]DMAR:[DMA Write] Request device [0000:00:05.0] fault addr 80000000"
        assert read == "[VT-D]DMAR:[DMA Read] Request device [0000:00:05.0] fault addr 80000000"
        assert reason.startswith("[VT-D]DMAR: reason 05 - ")
        assert other.startswith("[VT-D]DMAR: reason 06 - ")
    else:
        assert lines(xen) == [
            "AMD-Vi: IO_PAGE_FAULT: 0000:00:05.0 d0 addr 0000000080000010 flags 0x20 RW",
            "AMD-Vi: IO_PAGE_FAULT: 0000:00:05.0 d0 addr 0000000080000000 flags 0",
        ]


def test_what_was_unmapped_is_refused_and_in_quarantine_the_owner_keeps_it():
    """As measured with two devices of QEMU on Xen 4.17."""
    xen = made()
    xen.give(NIC, Owner(OwnerKind.QUARANTINE))
    xen.unmap_mmio(REGION)
    assert xen.dma.access(NIC, REGION.range.start, write=True)
    assert not xen.dma.access(NIC, RAM, write=True)
    assert not xen.dma.access(OTHER, REGION.range.start, write=True)
    xen.map_mmio(REGION)
    assert xen.dma.access(OTHER, REGION.range.start, write=True)


def test_a_device_that_xen_does_not_list_has_no_entry():
    xen = made(known=[NIC])
    xen.console()
    assert not xen.dma.access(OTHER, RAM, write=False)
    assert lines(xen)[1].startswith("[VT-D]DMAR: reason 02 - ")


def test_vtds_messages_have_a_limit_and_amds_have_none():
    xen = made()
    xen.console()
    for _ in range(10_000):
        xen.dma.access(NIC, HOLE, write=True)
        xen._hardware.write(NIC, 4, 2, 6)  # a driver that switches bus mastering on again
    assert len(lines(xen)) == 10
    xen.dma.seconds = 5.0
    xen.dma.access(NIC, HOLE, write=True)
    told = lines(xen)
    assert told[0] == "printk: 19990 messages suppressed."
    assert len(told) == 2
    xen = made(vendor=Vendor.AMD)
    xen.console()
    for _ in range(1000):
        xen.dma.access(NIC, HOLE, write=True)
        xen._hardware.write(NIC, 4, 2, 6)
    assert len(lines(xen)) == 1000


@pytest.mark.parametrize("vendor", list(Vendor))
def test_ten_refusals_at_once_switch_bus_mastering_off(vendor):
    xen = made(vendor=vendor)
    for number in range(1, 12):
        xen.dma.access(NIC, HOLE, write=True)
        on = bool(xen._hardware.config(NIC)[4] & 4)
        assert on is (number < 10)
    xen.console()
    assert not xen.dma.access(NIC, RAM, write=True)  # it stands still
    assert xen.console() == ""


def test_refusals_with_pauses_leave_it_on():
    xen = made()
    for number in range(100):
        xen.dma.seconds = number * 0.011
        xen.dma.access(NIC, HOLE, write=True)
    assert xen._hardware.config(NIC)[4] & 4
