"""Which pages are protected by what could be read, and what is said of the rest."""

import errno

import pytest

from pcipt.engine.views.protection import read_protection, read_reserved
from pcipt.errors import InputError, UnsupportedError
from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Finding, Frames, Gfn, Range
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import S

NIC = S("00:02.0")
REGION = Frames(Gfn(0x7FFF0), 2)
NOTE = Finding("iomem-hidden", "zeros")
HPET = build_table(Header("HPET", 1), bytes(8) + (0xFED0_0000).to_bytes(8, "little") + bytes(4))


def page(number):
    return Frames(Gfn(number), 1)


def named(start, size, name):
    return NamedRange(Range(Address(start), size), name)


class Host:
    def __init__(self, reading):
        self.reading = reading

    def memory(self):
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading

    def acpi_tables(self):
        return [HPET]


def xen():
    return SimulatedXen(SimulatedHardware([NIC]), reserved=[ReservedRegion(REGION, (NIC,))])


READING = MemoryReading(
    (named(0x1000_0000, 0x1000, "System RAM"), named(0xB000_0000, 0x1000, "PCI MMCONFIG 0000")),
    (named(0x2000_0000, 0x1000, "System RAM"),),
    (NOTE,),
)


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (page(0x10000), "RAM"),
        (page(0x20000), "RAM"),
        (page(0xB0000), "MMCFG"),
        (page(0xFED00), "HPET"),
        (REGION, "a reserved region"),
        (page(0xC0000), None),
    ],
)
def test_pages_are_protected_by_each_of_the_sources(frames, why):
    protected, findings = read_protection(Host(READING), xen())
    told = protected.why(frames)
    assert (told and told.startswith(why)) if why else told is None
    assert findings == (NOTE,)


def test_without_an_iomem_the_firmwares_map_counts():
    protected, _ = read_protection(Host(MemoryReading(None, READING.firmware, ())), xen())
    assert protected.why(page(0x20000)).startswith("RAM")
    assert protected.why(page(0x10000)) is None


def test_without_a_memory_map_everything_is_protected():
    protected, findings = read_protection(Host(InputError("proc/iomem", "gone")), xen())
    for number in (0, 0xC0000, (1 << 52) - 1):
        assert "of which no memory map could be read" in protected.why(page(number))
        assert "of which no memory map could be read" in protected.why_not_reserved(page(number))
    ((finding),) = findings
    assert finding.code == "memory-map-unread"
    assert finding.text == "proc/iomem: gone; pcipt maps nothing as long as it does not know where RAM is"


def test_regions_that_xen_does_not_tell_are_a_finding_beside_those_of_the_maps():
    hypervisor = xen()
    hypervisor.fail(Op.RESERVED, errno.EBUSY)
    protected, findings = read_protection(Host(READING), hypervisor)
    assert [finding.code for finding in findings] == ["iomem-hidden", "reserved-regions-unread"]
    assert protected.why(REGION) is None


def test_regions_of_xen_are_read():
    assert read_reserved(xen()) == ((REGION,), ())


def test_a_xen_that_cannot_tell_regions_is_no_finding():
    hypervisor = xen()

    def refuse(_function=None):
        raise UnsupportedError("regions", "not there")

    hypervisor.reserved_regions = refuse
    assert read_reserved(hypervisor) == ((), ())


def test_a_xen_that_fails_to_tell_regions_is_a_finding():
    hypervisor = xen()
    hypervisor.fail(Op.RESERVED, errno.EBUSY)
    regions, (finding,) = read_reserved(hypervisor)
    assert (regions, finding.code) == ((), "reserved-regions-unread")
    assert finding.text.endswith(
        ": pcipt does not know which reserved regions devices need; the memory maps still protect these "
        "regions"
    )
