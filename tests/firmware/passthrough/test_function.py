import attrs
import pytest

from pcipt.firmware.acpi.dmar import Dmar, RemappingUnit
from pcipt.firmware.coverage import IommuScope, snapshot_from_machine
from pcipt.firmware.passthrough import function as rules
from pcipt.firmware.passthrough.host import XenSays
from pcipt.firmware.passthrough.verdict import CutSegment, Guest, judge
from pcipt.pci import Finding, RawFunction, parse_sbdf
from pcipt.pci.raw import LinuxFacts
from tests.firmware.passthrough_cases import ENDPOINT, evidence_of, express, host, said_by, text_of
from tests.machines import bridge, function

NIC = function("03:00.0")
SBDF = parse_sbdf("03:00.0")

KINDS = [
    # class, header -> the codes
    (0x020000, 0, []),  # a NIC
    (0x060000, 0, ["platform"]),  # the host bridge
    (0x060100, 0, ["platform"]),  # the ISA bridge
    (0x068000, 0, ["platform"]),  # some other bridge
    (0x060400, 1, ["platform"]),
    (0x010601, 1, ["platform"]),  # a bridge by its header, whatever its class says
    (0x060700, 2, ["platform"]),  # CardBus
    (0x080020, 0, ["platform"]),  # an IO-APIC
    (0x080600, 0, ["platform"]),  # AMD's IOMMU
    (0x080501, 0, []),  # an SD host controller is a device like others
]


@pytest.mark.parametrize(("class_code", "header", "codes"), KINDS)
def test_what_belongs_to_the_machine(class_code, header, codes):
    raw = function("03:00.0", class_code=class_code, header=header)
    assert list(said_by(rules.platform, "03:00.0", evidence_of(raw))[0]) == codes


@pytest.mark.parametrize(
    ("class_code", "parent", "codes"),
    [
        (0x088000, None, ["chipset"]),  # Xeon: memory controllers and the like
        (0x110100, None, ["chipset"]),
        (0x0C0500, None, ["chipset"]),
        (0x088000, "00:1c.0", []),  # on a card
        (0x020000, None, []),
    ],
)
def test_parts_of_the_chipset(class_code, parent, codes):
    raw = function("03:00.0", class_code=class_code, parent=parent)
    evidence = evidence_of(bridge("00:1c.0", 3, 3), raw)
    assert list(said_by(rules.chipset, "03:00.0", evidence)[0]) == codes


def test_a_function_that_tells_nothing_is_unknown():
    assert said_by(rules.platform, "03:00.0", evidence_of(RawFunction(SBDF))) == ({}, ["class"])


FOUND = [
    # finding of the decoder -> verdict
    ("msix-broken", {"msix-broken": "refuse"}),
    ("bar-drift", {"bar-drift": "refuse"}),
    ("bar-unassigned", {"bar-unassigned": "refuse"}),
    ("io-bar-unassigned", {"io-bar-unassigned": "warn"}),
    ("vf-bar-unassigned", {"vf-bar-unassigned": "warn"}),  # the physical function works
    ("enhanced-allocation", {"enhanced-allocation": "warn"}),
    ("segment-not-in-xen", {"segment-not-in-xen": "refuse"}),
    ("capability-loop", {"capability-loop": "warn"}),
    ("value-malformed", {}),  # says nothing about passthrough
]


@pytest.mark.parametrize(("code", "said"), FOUND)
def test_findings_of_the_decoder(code, said):
    raw = attrs.evolve(express(NIC, ENDPOINT), findings=(Finding(code, "why"),))
    assert said_by(rules.decoder_findings, "03:00.0", evidence_of(raw)) == (said, [])


def test_a_segment_that_xen_cannot_name():
    raw = express(function("10000:03:00.0"), ENDPOINT)
    assert said_by(rules.decoder_findings, "10000:03:00.0", evidence_of(raw))[0] == {
        "segment-not-in-xen": "refuse"
    }


def test_a_renumbered_bridge_refuses_all_below():
    port = attrs.evolve(bridge("00:1c.0", 5, 5), secondary=3, findings=(Finding("value-malformed", "x"),))
    raw = function("03:00.0", parent="00:1c.0")
    said, unknown = said_by(rules.decoder_findings, "03:00.0", evidence_of(port, raw))
    assert (said, unknown) == ({"bus-drift": "refuse"}, ["capabilities"])


def test_a_bridge_with_another_primary_bus_warns_of_rescans():
    port = bridge("00:1c.0", 3, 3)
    config = bytearray(port.config)
    config[0x18] = 7
    port = attrs.evolve(port, config=bytes(config), secondary=3)
    raw = function("03:00.0", parent="00:1c.0")
    evidence = evidence_of(port, raw)
    assert said_by(rules.decoder_findings, "03:00.0", evidence)[0] == {"bus-primary": "warn"}
    assert "setpci -s 0000:00:1c.0 PRIMARY_BUS=00" in text_of(rules.decoder_findings, "03:00.0", evidence)


@pytest.mark.parametrize(
    ("xen", "owners", "expected"),
    [
        (None, {}, ({}, ["what Xen knows"])),
        ({}, {}, ({}, [])),
        ({SBDF: "unknown-to-xen"}, {}, ({"unknown-to-xen": "refuse"}, [])),
        ({SBDF: "orphan"}, {}, ({"orphan": "refuse"}, [])),
        ({SBDF: "orphan"}, {SBDF: "nobody (orphan)"}, ({"orphan": "refuse"}, [])),
        ({}, {SBDF: "nobody (orphan)"}, ({"orphan": "refuse"}, [])),
        ({}, {SBDF: "dom0"}, ({}, [])),
        ({}, {SBDF: "quarantine"}, ({}, [])),
        ({}, {SBDF: "guest 3"}, ({"owned-by-guest": "refuse"}, [])),
        ({}, {SBDF: "Xen itself"}, ({"owned-by-xen": "refuse"}, [])),  # com1=…,pci; dbgp=
        ({}, {SBDF: "an owner that Xen does not name"}, ({"owned-by-xen": "refuse"}, [])),
    ],
)
def test_what_xen_says(xen, owners, expected):
    assert said_by(rules.known_to_xen, "03:00.0", evidence_of(NIC, xen=xen, owners=owners)) == expected


@pytest.mark.parametrize(("panics", "verdict"), [(True, "refuse"), (False, "warn")])
def test_a_controller_whose_functions_are_orphans(panics, verdict):
    cut = {SBDF: CutSegment("Xen lists 0000:e1:00.0 without an owner", panics)}
    evidence = evidence_of(NIC, xen={}, cut_segments=cut)
    assert said_by(rules.cut_segments, "03:00.0", evidence) == ({"vmd-orphans": verdict}, [])
    assert said_by(rules.known_to_xen, "03:00.0", evidence) == ({}, [])
    assert said_by(rules.cut_segments, "03:00.0", evidence_of(NIC)) == ({}, [])


def test_a_virtual_function_whose_bars_xen_has_not_sized():
    vf = function("03:00.1", physfn="03:00.0", vendor=0xFFFF, device=0xFFFF)
    evidence = evidence_of(NIC, vf, unsized=frozenset({SBDF}))
    assert said_by(rules.sized, "03:00.1", evidence) == ({"vf-unsized": "refuse"}, [])
    assert said_by(rules.sized, "03:00.0", evidence) == ({}, [])
    assert said_by(rules.sized, "03:00.1", evidence_of(NIC, vf)) == ({}, [])


def test_what_a_guest_keeps_or_lacks():
    found = (Finding("guest-leftover", "it may reach fe200000"), Finding("guest-bar-moved", "it moved"))
    evidence = evidence_of(NIC, guests={SBDF: found})
    expected = {"guest-leftover": "warn", "guest-bar-moved": "warn"}
    assert said_by(rules.permissions, "03:00.0", evidence) == (expected, [])
    assert said_by(rules.permissions, "03:00.0", evidence_of(NIC)) == ({}, [])


def test_what_xen_has_taken_has_a_unit():
    for xen, unknown in ((None, ["IOMMU"]), ({}, []), ({SBDF: "orphan"}, ["IOMMU"])):
        evidence = evidence_of(NIC, host=host(), xen=xen)
        assert said_by(rules.iommu, "03:00.0", evidence) == ({}, unknown)
        assert said_by(rules.iommu, "03:00.0", evidence_of(NIC, xen=xen)) == ({}, ["IOMMU"])  # no host known


PVH_DOM0 = {"dom0": Guest.PVH, "linux": "6.12.48+deb13-amd64"}
OF_HOST = [
    # host, guest asked about -> reasons, unknown
    (host(), None, {"pvh-guest": "refuse"}, []),
    (host(), Guest.PV, {"pvh-guest": "refuse", "pv-guest-needs": "ok"}, []),
    (host(**PVH_DOM0), None, {"pvh-dom0-pv-guest": "refuse", "pvh-guest": "refuse"}, []),
    (host(release="4.17.7", **PVH_DOM0), None, {"pvh-dom0": "refuse", "pvh-guest": "refuse"}, []),
    (host(said=XenSays()), None, {"pvh-guest": "refuse"}, ["tables of the IOMMU (DMAR, IVRS)"]),
    (host(said=XenSays(iommu=False)), None, {"no-iommu": "refuse", "pvh-guest": "refuse"}, []),
]


@pytest.mark.parametrize(("machine", "guest", "reasons", "unknown"), OF_HOST)
def test_what_the_host_cannot_do_counts_for_each_function(machine, guest, reasons, unknown):
    evidence = evidence_of(NIC, host=machine, guest=guest)
    assert said_by(rules.host, "03:00.0", evidence) == (reasons, unknown)
    verdict = judge(evidence.machine.functions[SBDF], evidence, [rules.host]).verdict
    assert verdict is (machine.guests[guest] if guest is not None else machine.verdict)


def test_the_iommu_stands_before_it():
    evidence = evidence_of(NIC)
    assert said_by(rules.iommu, "03:00.0", evidence) == ({}, ["IOMMU"])
    none = evidence_of(NIC, host=host(said=XenSays(iommu=False)))
    assert said_by(rules.iommu, "03:00.0", none) == ({}, [])  # the host's rule says it
    scope = IommuScope(snapshot_from_machine("", evidence.machine))
    cases = [
        (attrs.evolve(scope, absent=True), {}),  # the host's rule says it
        (attrs.evolve(scope, dmar=unit(include_all=True)), {}),
        (attrs.evolve(scope, dmar=unit(include_all=False)), {"iommu-uncovered": "refuse"}),
    ]
    for iommu, said in cases:
        assert said_by(rules.iommu, "03:00.0", attrs.evolve(evidence, iommu=iommu)) == (said, [])


def unit(*, include_all):
    return Dmar((RemappingUnit(0, 0xFED9_0000, include_all, ()),), (), (), ())


IN_USE = [
    # carriers, consoles, boot_vga -> reasons, unknown
    (None, None, None, {}, ["root file system", "console"]),
    (frozenset(), frozenset(), None, {}, []),
    (frozenset({SBDF}), frozenset(), None, {"root-filesystem": "refuse"}, []),
    (frozenset(), frozenset({SBDF}), True, {"console": "refuse"}, []),
    (frozenset(), frozenset(), True, {"boot-display": "warn"}, []),
    (frozenset(), None, True, {"boot-display": "warn"}, ["console"]),
    (frozenset(), frozenset(), False, {}, []),
]


@pytest.mark.parametrize(("carriers", "consoles", "vga", "said", "unknown"), IN_USE)
def test_what_dom0_cannot_spare(carriers, consoles, vga, said, unknown):
    facts = {SBDF: LinuxFacts(boot_vga=vga)}
    evidence = evidence_of(NIC, carriers=carriers, consoles=consoles, facts=facts)
    assert said_by(rules.in_use, "03:00.0", evidence) == (said, unknown)


def test_a_physical_function_with_virtual_ones():
    facts = {SBDF: LinuxFacts()}
    alone = evidence_of(NIC, facts=facts)
    assert said_by(rules.virtual_functions, "03:00.0", alone) == ({}, [])
    owning = evidence_of(NIC, function("03:10.0", physfn="03:00.0"), facts=facts)
    assert said_by(rules.virtual_functions, "03:00.0", owning) == ({"pf-with-vfs": "refuse"}, [])
    assert "0000:03:10.0" in text_of(rules.virtual_functions, "03:00.0", owning)
    assert said_by(rules.virtual_functions, "03:10.0", owning) == ({}, [])


def test_virtual_functions_that_only_the_registers_tell():
    raw = express(NIC, ENDPOINT)
    data = bytearray(raw.config)
    data[0x100:0x104] = (1 << 16 | 0x10).to_bytes(4, "little")
    data[0x108], data[0x110] = 1, 4  # VF enable, NumVFs
    evidence = evidence_of(attrs.evolve(raw, config=bytes(data)))
    assert said_by(rules.virtual_functions, "03:00.0", evidence) == ({"pf-with-vfs": "refuse"}, [])
    assert "4 enabled" in text_of(rules.virtual_functions, "03:00.0", evidence)
    short = evidence_of(NIC)
    assert said_by(rules.virtual_functions, "03:00.0", short) == ({}, ["virtual functions"])


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (None, ({}, ["reset support"])),  # a kernel before 5.15, or a dump
        ((), ({"no-reset": "warn"}, [])),
        (("flr", "bus"), ({}, [])),
    ],
)
def test_reset(methods, expected):
    evidence = evidence_of(NIC, facts={SBDF: LinuxFacts(reset_methods=methods)})
    assert said_by(rules.reset, "03:00.0", evidence) == expected


def test_an_address_behind_a_bridge_may_shift():
    below = function("03:00.0", parent="00:1c.0")
    evidence = evidence_of(bridge("00:1c.0", 3, 3), below)
    assert said_by(rules.address, "03:00.0", evidence) == ({"address-may-shift": "ok"}, [])
    assert "00_1c.0-00_00.0" in text_of(rules.address, "03:00.0", evidence)
    (reason,) = rules.address(evidence.machine.functions[SBDF], evidence)
    assert reason.cure.endswith("`pcipt policy add 00_1c.0-00_00.0`")
    assert said_by(rules.address, "00:1c.0", evidence) == ({}, [])


def test_config_space_that_cannot_be_read():
    evidence = evidence_of(RawFunction(SBDF))
    assert said_by(rules.decoder_findings, "03:00.0", evidence) == ({"no-config": "warn"}, ["capabilities"])
    silent = evidence_of(RawFunction(SBDF, b"\xff" * 64))
    assert said_by(rules.decoder_findings, "03:00.0", silent)[0] == {"no-answer": "refuse"}
