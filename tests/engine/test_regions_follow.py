"""Reserved regions of devices whose buses are renumbered: Xen names their devices by addresses of the boot.

Each is tried on every release, with VT-d and AMD-Vi. What the p2m says is judged.
"""

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.engine.queue import Reason
from pcipt.engine.views.regions import kept_of
from pcipt.pci import Frames, Gfn
from pcipt.pci.requester import Vendor
from pcipt.remap.plan_reserved import Kept
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import BusStage, S, compare, look, told
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages
from tests.xen.versions import VERSIONS

PORT, OTHER_PORT, NIC, MOVED, OTHER = "00:1c.0", "00:1d.0", "02:00.0", "03:00.0", "00:06.0"
ONE, SHARED = Frames(Gfn(0x7FFF0), 4), Frames(Gfn(0x7FFF8), 2)
QUARANTINE, DOM0 = Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 0)
RESTORED = ("restore-reserved", f"0000:{NIC}", "done")

on_every_xen = pytest.mark.parametrize(
    ("version", "vendor"), [(version, vendor) for version in VERSIONS for vendor in Vendor]
)


class Scene(BusStage):
    def __init__(self, version, vendor, **more):
        raws = [
            device("00:00.0"),
            device(OTHER, (0xFE00_0000, 0x2000)),
            port(PORT, 2, 4, window=(0xFE20, 0xFE90)),
            port(OTHER_PORT, 7, 7, window=(0xFEA0, 0xFEA0)),
            nic(NIC, PORT),
        ]
        regions = [ReservedRegion(ONE, (S(NIC),)), ReservedRegion(SHARED, (S(NIC), S(OTHER)))]
        coverage = Coverage(segments=range(1), vendor=vendor)
        more.setdefault("map_reserved", vendor is Vendor.INTEL)  # else AMD-Vi counts nothing
        super().__init__(raws, version=version, coverage=coverage, reserved=regions, **more)
        self.engine = self.start()
        compare(self.engine)

    def renumber(self, secondary, bridge=PORT):
        self.write(bridge, 0x18, 4, secondary << 8 | 4 << 16)
        return told(self.settle(self.engine))

    def mapped(self):
        pages = mapped_pages(self.xen)
        assert self.xen.catastrophe is None
        return tuple(all(page in pages for page in range(r.start, r.end)) for r in (ONE, SHARED))

    def rescan(self):
        """Let Linux drop the NIC and find it where it is now."""
        self.files.raws.pop(S(NIC))
        self.xen.kernel_remove(S(NIC))
        raw = nic(MOVED, PORT)
        self.files.raws[S(MOVED)] = raw
        self.files.raws[S(PORT)] = port(PORT, 3, 4, window=(0xFE20, 0xFE90))
        self.xen.kernel_add(S(MOVED))
        for address in (NIC, PORT, MOVED):
            self.hotplug.push("change", S(address))
        return told(self.settle(self.engine))


def nic(address, parent):
    return device(address, (0xFE20_0000, 0x2_0000), parent=parent, command=2)


@on_every_xen
def test_the_region_of_a_followed_function_is_mapped_again_right_after_the_removal(version, vendor):
    scene = Scene(version, vendor)
    outcomes = scene.renumber(3)
    removed = outcomes.index(("remove-device", f"0000:{NIC}", "done"))
    assert outcomes[removed + 1] == RESTORED
    assert scene.mapped() == (True, True)
    assert kept_of(scene.engine.views, ONE) is Kept.RESTORED
    assert kept_of(scene.engine.views, SHARED) is Kept.BY_XEN  # Xen counts its other device
    assert compare(scene.engine) == []


@on_every_xen
def test_with_or_without_map_reserved_a_region_stays_with_its_device(version, vendor):
    scene = Scene(version, vendor, map_reserved=vendor is Vendor.AMD)
    for number in (3, 2, 4):
        scene.renumber(number)
        assert scene.mapped() == (True, True)
    assert compare(scene.engine) == []


@on_every_xen
def test_it_stays_mapped_when_the_function_returns_and_leaves_again(version, vendor):
    """Xen maps a region over holes only: what pcipt mapped is never Xen's, and stays at the next removal."""
    scene = Scene(version, vendor)
    scene.renumber(3)
    for number in (2, 4, 2):
        assert RESTORED not in scene.renumber(number)
        assert scene.mapped() == (True, True)
        assert kept_of(scene.engine.views, ONE) is Kept.RESTORED
    assert compare(scene.engine) == []
    assert health_of(scene.engine) == "healthy"


@on_every_xen
def test_what_pcipt_restored_while_xen_counted_it_is_restored_once_more(version, vendor):
    scene = Scene(version, vendor)
    for owner, driver in ((QUARANTINE, "pciback"), (DOM0, None)):
        scene.files.raws[S(NIC)] = attrs.evolve(scene.files.raws[S(NIC)], driver=driver)
        scene.xen.give(S(NIC), owner)
        look(scene.engine, [S(NIC)])
    assert kept_of(scene.engine.views, ONE) is Kept.RESTORED
    assert RESTORED in scene.renumber(3)
    assert scene.mapped() == (True, True)


@on_every_xen
def test_a_region_follows_its_device_when_linux_finds_it_at_another_number(version, vendor):
    scene = Scene(version, vendor)
    scene.hardware.write(S(PORT), 0x18, 4, 0x4_0300)
    assert ("restore-reserved", f"0000:{MOVED}", "done") in scene.rescan()
    assert scene.mapped() == (True, True)
    assert compare(scene.engine) == []
    scene.files.raws[S(MOVED)] = attrs.evolve(scene.files.raws[S(MOVED)], driver="pciback")
    scene.xen.give(S(MOVED), QUARANTINE)
    assert ("withdraw-reserved", f"0000:{NIC}", "done") in told(look(scene.engine, [S(MOVED)]))
    assert scene.mapped() == (False, True)
    assert compare(scene.engine) == []


@on_every_xen
def test_killed_between_the_removal_and_the_restoring_it_is_mapped_at_the_next_start(version, vendor):
    scene = Scene(version, vendor)
    scene.hardware.write(S(PORT), 0x18, 4, 0x4_0300)
    scene.xen.kernel_add(S(MOVED))
    scene.xen.kernel_remove(S(NIC))
    assert scene.mapped() == (False, True)
    scene.engine = scene.start()
    compare(scene.engine)
    assert scene.mapped() == (True, True)


@on_every_xen
def test_another_device_at_the_address_does_not_need_the_region(version, vendor):
    """Xen maps the region for it, because of its address; the region's own device has left the machine."""
    scene = Scene(version, vendor)
    scene.pull(NIC)
    told(scene.settle(scene.engine))
    assert scene.mapped() == (False, True)
    scene.hardware.write(S(PORT), 0x18, 4, 0)
    scene.hardware.write(S(OTHER_PORT), 0x18, 4, 0x2_0200)
    scene.files.raws[S(PORT)] = port(PORT, 0, 0, window=(0xFE20, 0xFE90))
    scene.files.raws[S(OTHER_PORT)] = port(OTHER_PORT, 2, 2, window=(0xFEA0, 0xFEA0))
    for address in (PORT, OTHER_PORT):
        scene.hotplug.push("change", S(address))
    scene.plug(device(NIC, (0xFEA0_0000, 0x1000), parent=OTHER_PORT))
    assert scene.mapped() == (True, True)  # Xen has mapped it
    outcomes = told(scene.settle(scene.engine))
    assert ("withdraw-reserved", f"0000:{NIC}", "done") in outcomes
    assert scene.mapped() == (False, True)
    assert compare(scene.engine) == []
    scene.pull(NIC)
    scene.settle(scene.engine)
    assert scene.mapped() == (False, True)
    assert compare(scene.engine) == []


@on_every_xen
def test_on_pv_the_removal_that_would_unmap_a_region_is_refused(version, vendor):
    scene = Scene(version, vendor, dom0="pv")
    outcomes = scene.renumber(3)
    assert ("add-device", f"0000:{MOVED}", "done") in outcomes
    assert ("remove-device", f"0000:{NIC}", "refused") in outcomes
    assert ONE in scene.xen.reserved.mapped
    ((rule, text),) = {
        (record.outcome.rule, record.outcome.detail)
        for record in scene.engine.records
        if record.outcome.action.word == "remove-device"
    }
    assert (rule, "IOMMU table" in text) == ("reserved-region", True)
    assert any("IOMMU table" in finding.text for _, finding in scene.engine.findings)
    scene.renumber(2)
    assert S(MOVED) not in scene.xen.devices
    assert ONE in scene.xen.reserved.mapped
    assert scene.engine.findings == []


@on_every_xen
def test_on_pv_a_region_that_xen_has_unmapped_is_told(version, vendor):
    scene = Scene(version, vendor, dom0="pv")
    scene.hardware.write(S(PORT), 0x18, 4, 0x4_0300)
    assert scene.rescan() == []
    assert ONE not in scene.xen.reserved.mapped
    ((sbdf, finding),) = [told for told in scene.engine.findings if told[1].code == "region-missing"]
    assert (sbdf, str(ONE) in finding.text, "bus number" in finding.text) == (S(MOVED), True, True)
    assert not any(call.op in (Op.MAP, Op.UNMAP) for call in scene.xen.calls)
    look(scene.engine, [S(MOVED)], Reason.REQUESTED)
    assert [finding.code for _, finding in scene.engine.findings].count("region-missing") == 1


PLUGGED = "00:09.0"
GUEST = Owner(OwnerKind.DOMAIN, 1)


@on_every_xen
def test_a_region_stays_with_one_device_when_xen_forgets_the_other(version, vendor):
    """On AMD, Xen counts only the one that was added while the region was withdrawn."""
    raws = [device("00:00.0"), device(OTHER, (0xFE00_0000, 0x2000), driver="e1000e", command=2)]
    stage = BusStage(
        raws, version=version, coverage=Coverage(segments=range(1), vendor=vendor),
        reserved=[ReservedRegion(ONE, (S(OTHER), S(PLUGGED)))],
        settings=Settings("enforce", {**Settings().actions, "add-device": False}),
    )  # fmt: skip
    engine = stage.start()
    compare(engine)
    stage.xen.give(S(OTHER), GUEST)
    look(engine, [S(OTHER)], Reason.OWNER)
    plugged = device(PLUGGED, (0xFE10_0000, 0x2000), command=0)
    stage.plug(plugged)
    stage.settle(engine)
    stage.xen.give(S(OTHER), DOM0)
    look(engine, [S(OTHER)], Reason.OWNER)
    stage.xen.kernel_remove(S(OTHER))
    compare(engine)
    pages = mapped_pages(stage.xen)
    assert all(page in pages for page in range(ONE.start, ONE.end))
    assert kept_of(engine.views, ONE) is not Kept.DOUBTFUL
