"""Reserved regions as the daemon tells them, judged by a made-up table and the simulated Xen."""

import attrs
import pytest

from pcipt.daemon.control.regions import regions_answer
from pcipt.daemon.control.varlink import own_description
from pcipt.errors import HypervisorError
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Frames, Gfn, Range, parse_sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.ledger import Event
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.daemon.control.varlink_idl import Interface
from tests.engine.stage import Stage, dry_run
from tests.firmware.reserved_tables import dmar, drhd, ivrs, madt

OWN = Interface(own_description())
NIC, GONE, FREE = map(parse_sbdf, ("01:00.0", "02:00.0", "03:00.0"))
ONE, SHARED, FAR = (Frames(Gfn(start), 4) for start in (0x7FFF0, 0x80000, 0x90000))


def staged(
    dom0="pvh", reserved=((ONE, (NIC,)), (SHARED, (NIC, GONE))), known=None, release="4.17.0", line=""
):
    stage = Stage(dom0=dom0)
    identity = XenIdentity(release, Dom0Kind(dom0))
    regions = [ReservedRegion(frames, scope) for frames, scope in reserved]
    known = list(stage.host.raws) if known is None else known
    stage.xen = SimulatedXen(stage.host, identity, known=known, reserved=regions, command_line=line)
    stage.engine = stage.start()
    dry_run(stage.engine)
    return stage


def answer(stage):
    told = regions_answer(stage.host, stage.xen, stage.engine)
    assert OWN.complaints(OWN.methods["Rmrr"][1], told) == []
    return told


def test_on_pvh_xens_list_is_the_only_source():
    told = answer(staged())
    assert told["source"] == "hypercall"
    assert [(r["base"], r["limit"], r["pages"], r["kind"]) for r in told["regions"]] == [
        ("0x7fff0000", "0x7fff3fff", 4, "rdm"),
        ("0x80000000", "0x80003fff", 4, "rdm"),
    ]
    assert [r["mapped"] for r in told["regions"]] == ["by-xen", "by-xen"]
    assert told["regions"][0]["devices"] == [{"sbdf": str(NIC), "present": True, "owner": "dom0"}]


def test_on_pv_nothing_is_mapped_or_not():
    assert [r["mapped"] for r in answer(staged("pv"))["regions"]] == ["not-applicable"] * 2


@pytest.mark.parametrize(
    ("iommu", "line", "expected"),
    [
        (True, "", []),
        (False, "", ["ivrs-io-apic-missing"]),
        (False, "iommu=off ivrs_ioapic[1]=00:14.1", []),  # the table would have been fine
        (False, "iommu=no,no-intremap", []),
    ],
)
def test_without_an_iommu_the_table_tells_why(iommu, line, expected):
    stage = staged("pv", reserved=(), line=line)
    stage.host.acpi_tables = lambda: [ivrs(), madt(0, 1)]  # IO-APIC 1 is missing
    if not iommu:
        stage.xen._list.iommu = None
        assert stage.engine.views.ask_everything()
    codes = [each["code"] for each in answer(stage)["findings"]]
    assert codes == expected


def test_nothing_reserved_is_an_empty_list():
    assert answer(staged(reserved=()))["regions"] == []


def test_a_region_that_was_withdrawn_says_so():
    stage = staged()
    action = WithdrawReserved(NIC, "its last device has left", ONE)
    stage.engine.ledger.step(action, Event.INTEND)
    assert [r["mapped"] for r in answer(stage)["regions"]] == ["unknown", "by-xen"]  # it may have been done
    stage.engine.ledger.step(action, Event.PERFORMED)
    assert [r["mapped"] for r in answer(stage)["regions"]] == ["withdrawn", "by-xen"]
    back = RestoreReserved(NIC, "its device is back", ONE)
    stage.engine.ledger.noted(back)
    assert [r["mapped"] for r in answer(stage)["regions"]] == ["by-pcipt", "by-xen"]


def test_a_region_without_a_device_that_xen_knows_is_left_open():
    """Xen forgets to take it down behind a device that was plugged in later: nobody can tell."""
    stage = staged(known=[parse_sbdf("00:00.0")])
    assert {r["mapped"] for r in answer(stage)["regions"]} == {"unknown"}


@pytest.mark.parametrize(
    ("more", "owner"),
    [
        ({}, "dom0"),
        ({"quarantined": frozenset({NIC})}, "quarantine"),
        ({"elsewhere": {NIC: "guest 3"}}, "guest 3"),
        ({"orphans": frozenset({NIC})}, "nobody (orphan)"),
        ({"known": frozenset()}, "unknown"),
        ({"custody_told": False}, "unknown"),  # Xen cannot be asked
    ],
)
def test_who_has_a_device(more, owner):
    stage = staged(reserved=((ONE, (NIC,)),))

    class Seen:
        memory, machine = stage.engine.memory, stage.engine.machine
        views = stage.engine.views.rehearsed()
        view = attrs.evolve(stage.engine.view, **more)

    Seen.views.expect(Seen.view)

    (region,) = regions_answer(stage.host, stage.xen, Seen())["regions"]
    assert region["devices"][0]["owner"] == owner


def test_a_xen_that_does_not_answer_is_a_finding():
    stage = staged()

    class Refusing:
        identity = stage.xen.identity

        def reserved_regions(self, _function=None):
            raise HypervisorError("reserved_device_memory_map", 38)

        def command_line(self):
            raise HypervisorError("xen_version", 38)

    told = regions_answer(stage.host, Refusing(), stage.engine)
    assert [finding["code"] for finding in told["findings"]] == ["regions-not-asked"]
    assert told["source"] == "none"


ON, OFF = "dom0=pvh,pf-fixup", "dom0=no-pf-fixup"
#  release, command line of Xen: regions in and outside of the firmware's map come back, and how sure that is
COMES_BACK = [
    ("4.17.7", ON, (), ""),
    ("4.19.1", ON, (), ""),
    ("4.19.2", ON, (FAR,), "is on"),
    ("4.20.4", ON, (FAR,), "is on"),
    ("4.20.4", "", (), ""),
    ("4.20.4", "<denied>", (FAR,), "may be on"),
    ("4.21.0", "", (), ""),
    ("4.21.2", ON, (ONE, FAR), "is on"),
    ("4.21.2", "<denied>", (ONE, FAR), "may be on"),
    ("4.22.0", "", (ONE, FAR), "is on"),
    ("4.22.0", OFF, (), ""),
    ("4.22.0", "<denied>", (ONE, FAR), "may be on"),
]


@pytest.mark.parametrize(("release", "line", "expected", "words"), COMES_BACK)
def test_a_region_that_xen_maps_again_is_told(release, line, expected, words):
    stage = staged(reserved=((ONE, (NIC,)), (FAR, (NIC,))), release=release, line=line)
    entry = NamedRange(Range(Address(0x7FF0_0000), 0x10_0000), "Reserved")
    stage.host.memory = lambda: MemoryReading((), (entry,), ())
    told = answer(stage)["regions"]
    found = {
        int(r["base"], 16) >> 12: f for r in told for f in r["findings"] if f["code"] == "region-comes-back"
    }
    assert set(found) == {frames.start for frames in expected}
    assert all(words in each["text"] and "dom0=no-pf-fixup" in each["text"] for each in found.values())


def test_a_pv_dom0_keeps_what_it_has():
    told = answer(staged("pv", release="4.22.0", line=ON))["regions"]
    assert not [f for r in told for f in r["findings"] if f["code"] == "region-comes-back"]


@pytest.mark.parametrize("release", ["4.17.7", "4.19.6", "4.20.4", "4.22.0"])
def test_a_fault_in_an_option_that_adds_regions_is_a_finding(release):
    stage = staged("pv", release=release, line="rmrr=70010=0:2.0 rmrr=zz")
    stage.host.tables = [dmar(drhd())]
    told = regions_answer(stage.host, stage.xen, stage.engine)
    texts = [each["text"] for each in told["findings"] if each["code"] == "region-option"]
    assert "rmrr=zz: 'zz' is no page number: Xen reads no further" in texts
