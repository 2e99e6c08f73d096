"""Renumbered buses behind conventional bridges: in which order Xen is told, so that no DMA is stopped.

The simulated Xen keeps the IOMMU's entries, and says for whom DMA passes. Each is tried on every release.
"""

import struct

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.intake import LEAVING
from pcipt.pci.requester import Vendor
from pcipt.remap.guard.facts import Precaution
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.model import DOM0
from tests.engine.stage import QUIET, BusStage, Killed, S, compare, right, told, work_off
from tests.firmware.reserved_tables import dmar
from tests.xen.devices import device, port
from tests.xen.versions import EACH_RELEASE, VERSIONS

BRIDGE, ROOT, INNER, NIC, DISK, DEEP = "00:1e.0", "00:1c.0", "02:05.0", "02:00.0", "02:01.0", "03:00.0"
TO_PCI = 7  # port type of a bridge from PCI Express to PCI
EVERYTHING = struct.pack("<HHBBHQ", 0, 16, 1, 0, 0, 0xFED9_0000)  # a unit for all of the segment

on_every_xen = pytest.mark.parametrize(
    ("version", "dom0"), [(version, dom0) for version in VERSIONS for dom0 in ("pv", "pvh")]
)


def nic(address=NIC, parent=BRIDGE, start=0xC010_0000, **more):
    return device(address, (start, 0x1000), parent=parent, **{"conventional": True, **more})


class Scene(BusStage):
    def __init__(self, *raws, version=(4, 17), dom0="pv", vendor=Vendor.INTEL, **more):
        coverage = Coverage(segments=range(1), vendor=vendor, aliases=more.pop("aliases", {}))
        super().__init__([device("00:00.0"), *raws], version=version, dom0=dom0, coverage=coverage, **more)
        self.files.tables = [dmar(EVERYTHING)]
        self.engine = self.start()
        compare(self.engine)
        assert self.stopped() == []

    def renumber(self, bridge, secondary, subordinate=9):
        self.write(bridge, 0x18, 4, S(bridge).bus | secondary << 8 | subordinate << 16)
        done = len(self.xen.changes)
        self.outcomes = told(self.settle(self.engine))
        if self.xen.p2m is not None:
            right(self)
        return [
            f"{call.op.name} {str(call.functions[0])[5:]}"
            for call in self.xen.changes[done:]
            if call.op.name in ("ADD", "REMOVE")
        ]

    def stopped(self):
        """Return the functions of dom0 whose DMA does not pass."""
        found = []
        for function in self.hardware.functions():
            device = self.xen.devices.get(function)
            if device is None or device.owner.domain != 0:
                continue
            if not self.xen.contexts.passes(function, self.hardware.requesters(function)):
                found.append(str(function)[5:])
        return sorted(found)


def legacy(subordinate=2):
    return port(BRIDGE, 2, subordinate, conventional=True, command=0)


@on_every_xen
def test_the_old_address_goes_first_behind_a_bridge_whose_range_has_the_new_bus(version, dom0):
    scene = Scene(legacy(9), nic(), version=version, dom0=dom0)
    assert scene.renumber(BRIDGE, 3) == ["REMOVE 02:00.0", "ADD 03:00.0"]
    assert scene.stopped() == []
    assert scene.renumber(BRIDGE, 2) == ["REMOVE 03:00.0", "ADD 02:00.0"]
    assert scene.stopped() == []
    assert scene.engine.findings == []


@on_every_xen
def test_a_bridge_that_leads_out_of_its_range_is_told_anew(version, dom0):
    scene = Scene(legacy(), nic(), nic(DISK, start=0xC011_0000), version=version, dom0=dom0)
    there = [
        "REMOVE 02:01.0",
        "REMOVE 02:00.0",
        "REMOVE 00:1e.0",
        "ADD 00:1e.0",
        "ADD 03:00.0",
        "ADD 03:01.0",
    ]
    assert scene.renumber(BRIDGE, 3, 3) == there
    assert scene.stopped() == []
    assert scene.renumber(BRIDGE, 2, 2)[2:4] == ["REMOVE 00:1e.0", "ADD 00:1e.0"]
    assert scene.stopped() == []
    assert compare(scene.engine) == []
    assert scene.engine.findings == []


@on_every_xen
def test_functions_with_an_express_capability_are_followed_as_before(version, dom0):
    scene = Scene(port(BRIDGE, 2, 9, command=0), nic(conventional=False), version=version, dom0=dom0)
    assert scene.renumber(BRIDGE, 3) == ["ADD 03:00.0", "REMOVE 02:00.0"]
    assert scene.stopped() == []


@on_every_xen
def test_a_conventional_function_behind_an_express_port_shares_nothing(version, dom0):
    scene = Scene(port(BRIDGE, 2, 9, command=0), nic(), version=version, dom0=dom0)
    assert scene.renumber(BRIDGE, 3) == ["ADD 03:00.0", "REMOVE 02:00.0"]
    assert scene.stopped() == []


@on_every_xen
def test_behind_a_bridge_from_express_to_pci_that_moves_itself(version, dom0):
    scene = Scene(
        port(ROOT, 2, 9, command=0),
        port("02:00.0", 6, 9, parent=ROOT, express=TO_PCI, command=0),
        nic("06:00.0", parent="02:00.0"),
        version=version,
        dom0=dom0,
    )
    anew = ["REMOVE 06:00.0", "ADD 04:00.0", "ADD 06:00.0", "REMOVE 02:00.0"]
    assert scene.renumber(ROOT, 4) == anew  # its DMA carries the address of the bridge
    assert scene.stopped() == []
    scene.renumber(ROOT, 2)
    assert scene.stopped() == []
    assert {str(sbdf)[5:] for sbdf in scene.xen.devices} == {"00:00.0", ROOT, "02:00.0", "06:00.0"}


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_with_amd_the_alias_is_shared_and_no_bridge_is_told_anew(dom0):
    """The aliases of IVRS name the functions of each bus; the bridge's own entry is never disabled."""
    alias = {S(f"0{bus}:0{number}.0"): S(BRIDGE) for bus in (2, 3) for number in (0, 1)}
    amd = device("00:00.2", vendor=0x1022, class_code=0x080600)
    scene = Scene(amd, legacy(), nic(), vendor=Vendor.AMD, dom0=dom0, aliases=alias)
    scene.files.tables = []
    assert scene.renumber(BRIDGE, 3, 3)[:1] != ["ADD 03:00.0"]
    assert "ADD 00:1e.0" not in [f"{call.op.name} {str(call.functions[0])[5:]}" for call in scene.xen.changes]


@on_every_xen
@pytest.mark.parametrize("driver", ["e1000", None])
def test_a_neighbour_that_stays_where_it_is(version, dom0, driver):
    """It shares the outer bridge with what moves behind the inner one: with a driver nothing may be done."""
    scene = Scene(
        legacy(9),
        nic(driver=driver),
        port(INNER, 3, 9, parent=BRIDGE, conventional=True, command=0),
        nic(DEEP, parent=INNER, start=0xC012_0000),
        version=version,
        dom0=dom0,
    )
    done = scene.renumber(INNER, 4)
    assert scene.stopped() == []
    if driver is None:
        assert done == ["REMOVE 03:00.0", "ADD 04:00.0"]
        return
    assert done == []
    details = [record.outcome.detail for record in scene.engine.records]
    assert any("the removal would stop the DMA of 0000:02:00.0 (e1000)" in detail for detail in details)
    assert any("stop the DMA" in finding.text for _, finding in scene.engine.findings)


@on_every_xen
def test_a_ghost_behind_such_a_bridge_stays_while_its_neighbour_is_there(version, dom0):
    scene = Scene(legacy(9), nic(), nic(DISK, start=0xC011_0000), version=version, dom0=dom0)
    scene.pull(DISK, announced=False)
    assert ("remove-device", f"0000:{DISK}", "refused") in told(scene.settle(scene.engine))
    assert scene.stopped() == []
    scene.pull(NIC, announced=False)
    scene.settle(scene.engine)
    compare(scene.engine)
    assert S(DISK) not in scene.xen.devices
    assert S(NIC) not in scene.xen.devices


@on_every_xen
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_killed_anywhere_on_the_way_it_heals_at_the_next_start(version, dom0, count):
    scene = Scene(legacy(), nic(), version=version, dom0=dom0)
    scene.store.die_at = scene.store.saved + count
    scene.write(BRIDGE, 0x18, 4, 0x3_0300)
    with pytest.raises(Killed):
        scene.settle(scene.engine)
    scene.store.die_at = None
    scene.engine = scene.start()
    compare(scene.engine)
    assert scene.stopped() == []
    assert {str(sbdf)[5:] for sbdf in scene.xen.devices} == {"00:00.0", BRIDGE, "03:00.0"}


def test_the_former_order_would_stop_the_dma():
    scene = Scene(legacy(9), nic())
    scene.hardware.write(S(BRIDGE), 0x18, 4, 0x9_0300)
    scene.xen.kernel_add(S("03:00.0"))
    assert scene.stopped() == []
    scene.xen.kernel_remove(S(NIC))
    assert scene.stopped() == ["03:00.0"]
    scene.xen.kernel_add(S("03:00.0"))  # Xen knows it: nothing is made again
    assert scene.stopped() == ["03:00.0"]


def test_a_bridge_that_is_removed_where_nothing_answers_leaves_what_xen_noted_of_its_buses():
    scene = Scene(legacy(), nic())
    scene.hardware.write(S(BRIDGE), 0x18, 4, 0x3_0300)
    scene.xen.kernel_remove(S(NIC))
    scene.xen.kernel_add(S("03:00.0"))
    assert scene.stopped() == ["03:00.0"]  # Xen does not know the bridge above the bus


# A function that Linux itself removes takes the shared entry with it

on_each_release = pytest.mark.parametrize(
    ("version", "dom0"), [(version, dom0) for version in EACH_RELEASE for dom0 in ("pv", "pvh")]
)
each_vendor = pytest.mark.parametrize("vendor", Vendor)


def two(version, dom0, vendor, *drivers):
    """Two functions behind a conventional bridge, with these drivers."""
    alias = {S(address): S(BRIDGE) for address in (NIC, DISK)} if vendor is Vendor.AMD else {}
    amd = [device("00:00.2", vendor=0x1022, class_code=0x080600)] if vendor is Vendor.AMD else []
    functions = [nic(driver=drivers[0]), nic(DISK, start=0xC011_0000, driver=drivers[1])]
    return Scene(*amd, legacy(), *functions, version=version, dom0=dom0, vendor=vendor, aliases=alias)


def leave(scene, address):
    raw = scene.files.raws[S(address)]
    scene.pull(address)
    scene.settle(scene.engine)
    return raw


def stopped_findings(scene):
    return {str(sbdf)[5:]: each.text for sbdf, each in scene.engine.findings if each.code == "dma-stopped"}


@each_vendor
@on_each_release
def test_what_is_left_behind_the_bridge_is_told_anew(version, dom0, vendor):
    scene = two(version, dom0, vendor, None, "e1000")
    leave(scene, DISK)
    assert scene.stopped() == []
    assert scene.engine.findings == []
    assert scene.xen.catastrophe is None
    changes = [(call.op.name, str(call.functions[0])[5:]) for call in scene.xen.changes if call.functions]
    assert changes[-2:] == [("REMOVE", NIC), ("ADD", NIC)]
    assert compare(scene.engine) == []
    if dom0 == "pvh":
        right(scene)


@each_vendor
@on_each_release
def test_with_a_driver_it_is_told_and_cured_when_that_is_unbound(version, dom0, vendor):
    scene = two(version, dom0, vendor, "e1000", "ahci")
    leave(scene, DISK)
    assert scene.stopped() == [NIC]
    text = stopped_findings(scene)[NIC]
    assert ("may be" if vendor is Vendor.AMD else "DMA is") in text
    assert "unbind the driver" in text
    assert compare(scene.engine) == []
    assert health_of(scene.engine) == "degraded"
    scene.engine = scene.start()  # the service remembers it
    compare(scene.engine)
    assert NIC in stopped_findings(scene)
    scene.files.raws[S(NIC)] = attrs.evolve(scene.files.raws[S(NIC)], driver=None)
    scene.hotplug.push("unbind", S(NIC))
    scene.settle(scene.engine)
    scene.time += LEAVING
    work_off(scene.engine)
    assert scene.stopped() == []
    assert stopped_findings(scene) == {}


@each_vendor
@on_each_release
def test_it_ends_when_linux_finds_the_other_again(version, dom0, vendor):
    """As pcipt itself advises: removed in sysfs, then the bus rescanned."""
    scene = two(version, dom0, vendor, "e1000", "ahci")
    raw = leave(scene, DISK)
    assert list(stopped_findings(scene)) == [NIC]
    scene.plug(raw)
    scene.settle(scene.engine)
    assert scene.stopped() == []
    assert stopped_findings(scene) == {}


@on_each_release
def test_nothing_is_told_where_nothing_is_shared(version, dom0):
    express = port(ROOT, 5, 5, command=0)
    own = nic("05:00.0", parent=ROOT, start=0xC012_0000, conventional=False, driver="igb")
    scene = Scene(legacy(), nic(driver="e1000"), express, own, version=version, dom0=dom0)
    leave(scene, "05:00.0")
    leave(scene, NIC)  # the last one behind its bridge
    assert (scene.stopped(), scene.engine.findings) == ([], [])
    assert not scene.engine.ledger.severed


@pytest.mark.parametrize("version", [(4, 19, 5), (4, 20, 4)])
def test_what_could_not_be_added_again_is_not_removed(version):
    """Xen has it from the boot, without vPCI, and would not take it now: its MSI-X is in no BAR."""
    scene = two(version, "pvh", Vendor.INTEL, None, "e1000")
    raw = device(NIC, (0xC010_0000, 0x1000), parent=BRIDGE, conventional=True, msix=(3, 0, 0x800))
    scene.files.raws[S(NIC)] = raw
    scene.hardware.slot(S(NIC)).registers.data[: len(raw.config)] = raw.config
    compare(scene.engine)
    done = len(scene.xen.changes)
    leave(scene, DISK)
    assert "REMOVE" not in [call.op.name for call in scene.xen.changes[done:]]
    assert any("could not be added again" in record.outcome.detail for record in scene.engine.records)
    assert NIC in stopped_findings(scene)


@on_each_release
def test_the_explanation_has_the_two_steps_that_tell_it_anew(version, dom0):
    """In observe mode nothing is done, and the entry stays gone."""
    scene = two(version, dom0, Vendor.INTEL, None, "e1000")
    scene.engine.settings = attrs.evolve(QUIET, mode="observe")
    leave(scene, DISK)
    assert scene.stopped() == [NIC]
    steps = scene.engine.explain(S(NIC)).steps
    assert [(step.action.word, step.verdict) for step in steps] == [
        ("remove-device", Precaution.NONE),
        ("add-device", Precaution.NONE),
    ]


@on_each_release
def test_what_no_unit_served_at_boot_is_not_told_anew(version, dom0):
    """dom0 has it since boot, where Xen only complained; told anew it would have no owner."""
    served = Coverage(functions=frozenset(map(S, ("00:00.0", DISK))))
    raws = [device("00:00.0"), legacy(), nic(), nic(DISK, start=0xC011_0000, driver="e1000")]
    stage = BusStage(raws, version=version, dom0=dom0, coverage=served)
    engine = stage.start()
    compare(engine)
    stage.pull(DISK)
    (remove, add) = [o for o in stage.settle(engine) if o.action.word in ("remove-device", "add-device")]
    assert (remove.result.value, remove.rule) == ("refused", "added-again")
    assert add.result.value == "refused"
    assert stage.xen.devices[S(NIC)].owner == DOM0
    engine = stage.start()  # the service reads the console again
    assert [o.result.value for o in compare(engine) if o.action.word == "remove-device"] in ([], ["refused"])
    assert stage.xen.devices[S(NIC)].owner == DOM0
