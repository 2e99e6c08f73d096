"""What Xen does with an announced function, finding by finding of the audit, on each release and vendor.

A row holds the audit's right value: pcipt announces what Xen takes, and refuses what would become an orphan.
The simulated Xen is asked for both: an announcement is done there, and for a refused one it is asked, at the
end, what it would have made of it.
"""

import attrs
import pytest

from pcipt.pci.requester import Vendor
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.model import DOM0
from tests.engine.stage import BusStage, S, Stage, compare, look
from tests.engine.world import ivrs_of
from tests.firmware.reserved_tables import ivhd, ivrs
from tests.machines import bridge, function
from tests.xen.devices import device, host_bridge
from tests.xen.versions import EACH_RELEASE

PORT, NIC = "00:1c.0", "01:00.0"
REVERSE = 8  # the port type of a bridge from PCI to PCI Express
DONE, REFUSED = "done", "refused"


@attrs.frozen
class Case:
    """A function that is plugged into a machine whose IOMMU serves `serves` (AMD) or these buses (VT-d).

    `table` is firmware's table, None for one that says what `serves` says. `words` are in the refusal.
    """

    finding: str
    what: str
    dom0: tuple[str, ...]
    serves: Coverage
    plugged: object
    result: str
    words: str = ""
    table: object = None


def amd(*addresses):
    return Coverage(functions=frozenset(map(S, addresses)), vendor=Vendor.AMD)


def vtd(*buses):
    return Coverage(buses=frozenset((0, bus) for bus in buses))


def vf(address):
    return function(address, parent=PORT, physfn=NIC, vendor=0xFFFF, device=0xFFFF)


def select(devfn):
    """An entry of IVRS for a function of bus 1."""
    return bytes([2, devfn, 1, 0])


PV, PVH, BOTH = ("pv",), ("pvh",), ("pv", "pvh")
OLD_BLOCK_ONLY = ivrs(ivhd(select(0), kind=0x10), ivhd(select(0x40), kind=0x11))
NEITHER = "names neither it nor function 0"
UNCOVERED = "no IOMMU unit covered bus 09"
CASES = [
    Case("F3", "a VF is judged by its own address", PV, amd(PORT, NIC), vf("01:10.0"), REFUSED, NEITHER),
    Case("F3", "a VF that IVRS names", PV, amd(PORT, NIC, "01:10.0"), vf("01:10.0"), DONE),
    Case(
        "F3", "function 0 stands for its device", PV, amd(PORT, NIC), function("01:00.1", parent=PORT), DONE
    ),
    Case("F3", "another device", PV, amd(PORT, NIC), function("01:01.0", parent=PORT), REFUSED, NEITHER),
    Case(
        "F3",
        "the newer kind of block counts",
        PV,
        amd("01:08.0"),
        function("01:01.0", parent=PORT),
        REFUSED,
        NEITHER,
        OLD_BLOCK_ONLY,
    ),
    Case(
        "F3", "what it names", PV, amd("01:08.0"), function("01:08.0", parent=PORT), DONE, "", OLD_BLOCK_ONLY
    ),
    Case(
        "F3",
        "a host bridge needs no entry",
        PV,
        amd(PORT, NIC),
        function("00:18.0", vendor=0x1022, class_code=0x060000),
        DONE,
    ),
    Case(
        "F3",
        "the IOMMU's own function needs none",
        PV,
        amd(PORT, NIC),
        function("00:00.2", vendor=0x1022, class_code=0x080600),
        DONE,
    ),
    Case(
        "F3",
        "PVH: nobody can read IVRS",
        PVH,
        amd(PORT, NIC),
        function("01:01.0", parent=PORT),
        REFUSED,
        "cannot read which functions",
    ),
    Case(
        "F3", "PVH: function 0 was there at boot", PVH, amd(PORT, NIC), function("01:00.1", parent=PORT), DONE
    ),
    Case("F13", "VT-d needs no unit for a bridge", BOTH, vtd(0, 1), bridge("09:00.0", 10, 10), DONE),
    Case("F13", "but for an endpoint", BOTH, vtd(0, 1), function("09:00.0"), REFUSED, UNCOVERED),
    Case(
        "F13",
        "AMD-Vi needs one for a bridge",
        PV,
        amd(PORT, NIC),
        bridge("09:00.0", 10, 10),
        REFUSED,
        NEITHER,
    ),
    Case(
        "F13",
        "no VT-d takes a bridge from PCI to PCIe",
        BOTH,
        vtd(0, 1),
        device("00:05.0", header=1, buses=(0, 5, 5), express=REVERSE, command=0),
        REFUSED,
        "orphan",
    ),
    Case(
        "F13",
        "AMD-Vi takes it",
        PV,
        amd(PORT, NIC, "00:05.0"),
        device("00:05.0", header=1, buses=(0, 5, 5), express=REVERSE, command=0),
        DONE,
    ),
]


def scene(case, version, dom0):
    """The machine before the function is plugged in."""
    raws = [function("00:00.0"), bridge(PORT, 1, 1), function(NIC, parent=PORT)]
    if case.serves.vendor is Vendor.AMD:
        raws[0] = host_bridge(0x1022)
    kind = BusStage if case.plugged.physfn is None else Stage  # only the first has registers
    stage = kind(raws, version=version, dom0=dom0, coverage=case.serves)
    files = stage.files if kind is BusStage else stage.host
    if case.serves.vendor is Vendor.AMD and dom0 == "pv":
        files.tables = [case.table or ivrs_of(case.serves)]
    return stage, stage.start()


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize(
    ("case", "dom0"), [pytest.param(case, dom0, id=f"{case.finding}: {case.what}: {dom0}")
                       for case in CASES for dom0 in case.dom0]
)  # fmt: skip
def test_what_xen_makes_of_a_function_that_comes(case, dom0, version):
    stage, engine = scene(case, version, dom0)
    compare(engine)
    if case.plugged.physfn is None:
        stage.plug(case.plugged, announced=False)
    else:
        stage.plug(case.plugged)
    (outcome,) = look(engine, [case.plugged.sbdf])
    assert (outcome.result.value, stage.xen.catastrophe) == (case.result, None)
    assert case.words in outcome.detail
    if case.result == DONE:
        assert stage.xen.devices[case.plugged.sbdf].owner == DOM0
    else:
        assert case.plugged.sbdf not in stage.xen.devices
        assert stage.xen.kernel_add(case.plugged.sbdf) < 0  # so it would have been


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("dom0", BOTH)
@pytest.mark.parametrize("served", [True, False])
def test_an_orphan_is_announced_again_where_nobody_knows_of_a_unit(version, dom0, served):
    """F10: the add cannot make it worse. It came on a root bus that was not there at boot."""
    stage = BusStage(
        [function("00:00.0")], version=version, dom0=dom0, coverage=vtd(0, 9) if served else vtd(0)
    )
    engine = stage.start()
    compare(engine)
    stage.plug(function("09:00.0", command=2 if version >= (4, 19) else 0))
    stage.xen.give(S("09:00.0"), Owner(OwnerKind.NOBODY))
    first, *later = look(engine, [S("09:00.0")])
    assert first.result.value == ("done" if served else "failed")
    assert {outcome.result.value for outcome in later} <= {"refused"}  # Xen said that no unit serves it
    assert stage.xen.catastrophe is None
    assert (stage.xen.devices[S("09:00.0")].owner == DOM0) is served
    assert bool(engine.findings) is not served


@pytest.mark.parametrize("version", [*EACH_RELEASE, (4, 17, "4-qubes")])
@pytest.mark.parametrize("dom0", BOTH)
@pytest.mark.parametrize("vendor", Vendor)
def test_an_orphan_whose_record_was_made_while_nothing_answered(version, dom0, vendor):
    """F10: where Xen keeps the record, an add that fails once is not tried again; only a reboot helps."""
    coverage = attrs.evolve(vtd(0, 1), vendor=vendor)
    amd_host = host_bridge(0x1022) if vendor is Vendor.AMD else function("00:00.0")
    stage = BusStage([amd_host, bridge(PORT, 1, 4)], version=version, dom0=dom0, coverage=coverage)
    if vendor is Vendor.AMD and dom0 == "pv":
        stage.files.tables = [ivrs_of(coverage)]
    engine = stage.start()
    compare(engine)
    stage.xen.kernel_add(S(NIC))
    stage.xen.give(S(NIC), Owner(OwnerKind.NOBODY))
    stage.plug(function(NIC, parent=PORT, command=2), announced=False)
    look(engine, [S(NIC)])
    for _ in range(5):
        stage.time += 60
        engine.worker.work_off()
    outcomes = compare(engine)
    adds = [call for call in stage.xen.changes if call.op.name == "ADD"]
    assert stage.xen.catastrophe is None
    if version < (4, 19) and vendor is Vendor.INTEL:
        assert (len(adds), [outcome.rule for outcome in outcomes]) == (1, ["record-usable"])
        (text,) = [finding.text for _, finding in engine.findings if finding.code == "orphan"]
        assert "reboot with the function in place" in text
    else:
        assert stage.xen.devices[S(NIC)].owner == DOM0
