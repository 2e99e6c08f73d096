"""A BAR over an entry of the memory map, on a PVH dom0: what vPCI maps of it, and what pcipt holds."""

import attrs
import pytest

from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Frames, Gfn, Range
from tests.engine.stage import BusStage, S, codes, compare, told
from tests.remap.test_desired import CUTS
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages
from tests.xen.versions import VERSIONS

PORT, NIC = "00:1c.0", "02:00.0"
ENTRY = Frames(Gfn(0xFE210), 4)
PAGES, ELSEWHERE = range(0xFE200, 0xFE220), range(0xFE240, 0xFE260)
OUTSIDE = {page for page in PAGES if not ENTRY.start <= page < ENTRY.end}


class Scene(BusStage):
    def __init__(self, version, **more):
        raws = [
            device("00:00.0"),
            port(PORT, 2, 4, window=(0xFE20, 0xFE90)),
            device(NIC, (0xFE20_0000, 0x2_0000), parent=PORT),
        ]
        super().__init__(raws, version=version, firmware=[ENTRY], **more)
        lines = (*self.files.memory().iomem, NamedRange(ENTRY.range, "Reserved"))
        self.files.memory = lambda: MemoryReading(lines, (), ())
        self.engine = self.start()
        compare(self.engine)

    def held(self):
        return {page for run in self.engine.ledger.mapped for page in range(run.frames.start, run.frames.end)}

    def mapped(self):
        return mapped_pages(self.xen) - set(range(ENTRY.start, ENTRY.end))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_held_is_what_is_mapped(version):
    scene = Scene(version)
    expected = OUTSIDE if version in CUTS else set()
    assert scene.mapped() == scene.held() == expected
    for command, pages in ((0, set()), (2, expected)):
        scene.write(NIC, 4, 2, command)
        assert told(scene.settle(scene.engine)) == []
        assert scene.mapped() == scene.held() == pages
    assert scene.xen.catastrophe is None
    assert mapped_pages(scene.xen).issuperset(range(ENTRY.start, ENTRY.end))  # since boot: map-reserved


@pytest.mark.parametrize("version", VERSIONS)
def test_it_moves_while_it_decodes_where_vpci_has_not_mapped_it(version):
    """Where it counts as mapped, the write is dropped: pcipt repeats it with decode off."""
    scene = Scene(version)
    scene.write(NIC, 0x10, 4, 0xFE24_0000)
    words = [word for word, _, result in told(scene.settle(scene.engine)) if result == "done"]
    assert words == (["rewrite-bar"] if version in CUTS else ["map-mmio"])
    assert scene.mapped() == scene.held() == set(ELSEWHERE)
    assert codes(scene.engine) == {"bar-drift"}  # Linux has the former address
    assert compare(scene.engine) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_with_a_driver_the_dropped_write_is_told(version):
    scene = Scene(version)
    scene.files.raws[S(NIC)] = attrs.evolve(scene.files.raws[S(NIC)], driver="e1000e")
    compare(scene.engine)
    scene.write(NIC, 0x10, 4, 0xFE24_0000)
    scene.settle(scene.engine)
    assert ("bar-write-ignored" in codes(scene.engine)) == (version in CUTS)
    assert Range(Address(0xFE20_0000 if version in CUTS else 0xFE24_0000), 0x2_0000) in [
        bar.range for bar in scene.engine.machine.functions[S(NIC)].bars
    ]
