"""Functions above segment 0, which some versions of Xen cannot read while they read the DMAR.

The answers follow xen/arch/x86/setup.c (__start_xen: acpi_iommu_init, acpi_mmcfg_init or pci_setup),
x86_64/acpi_mmcfg.c (acpi_parse_mcfg: segments of MCFG are known from then on) and
drivers/passthrough/vtd/dmar.c (acpi_parse_dev_scope, register_one_rmrr) of each release.
"""

import attrs
import pytest

from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.coverage import Coverage, IommuScope, snapshot_from_machine
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.mmcfg import is_read_early, mmcfg_of
from pcipt.firmware.passthrough import function as rules
from pcipt.firmware.passthrough import memory as memory_rules
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.state import XenRegions, with_xen
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import parse_sbdf
from pcipt.pci.requester import Requester, requester_of
from pcipt.pci.write import EcamRegion
from pcipt.remap.actions import AddDevice, Refusal
from pcipt.remap.guard.rules import check_action
from pcipt.xen.releases import parse_version
from tests.firmware.passthrough_cases import evidence_of, host, said_by
from tests.firmware.reserved_tables import UNIT_BASE, dmar, drhd, rmrr, scope
from tests.machines import bridge, function, machine
from tests.pvh import any_table
from tests.remap.guard.test_devices import facts

READS = [
    # version, MMCFG in reserved memory, in a hole
    ("4.17.0", False, False), ("4.17.7", False, False), ("4.18.6", False, False), ("4.19.3", False, False),
    ("4.19.4", True, False), ("4.19.6", True, False), ("4.20.1", False, False), ("4.20.2", True, False),
    ("4.20.3", True, False), ("4.20.4", True, True), ("4.21.0", True, False), ("4.21.2", True, True),
    ("4.22.0", True, True), ("4.18.6-vendor", False, False), ("4.19.4-vendor", None, False),
    ("4.22.0-vendor", True, True), (None, None, None),
]  # fmt: skip
BASE = 0x8000_0000
TAKEN = (entry(0, 0x7000_0000, MemoryType.RAM), entry(BASE, 0x1000_0000, MemoryType.RESERVED))
HOLE, OTHER = TAKEN[:1], (*TAKEN[:1], entry(BASE, 0x1000_0000, MemoryType.NVS))
PORT, BELOW, BEHIND = "0001:00:01.0", "0001:02:00.0", "0001:03:00.0"
RAWS = (
    bridge(PORT, 2, 3, parent=None),
    bridge(BELOW, 3, 3, parent=PORT),
    function(BEHIND, parent=BELOW),
    function("0001:00:05.0", parent=None),
    bridge("00:01.0", 2, 3, parent=None),
    function("02:00.0", parent="00:01.0"),
)
MCFG = any_table("MCFG", bytes(8) + BASE.to_bytes(8, "little") + bytes([1, 0, 0, 0xFF]) + bytes(4))
TABLES = {
    "bridge": dmar(drhd(scope(0, (1, 0), kind=2), flags=0, segment=1), drhd(base=UNIT_BASE + 0x1000)),
    "path": dmar(drhd(scope(0, (1, 0), (0, 0), (0, 0)), flags=0, segment=1)),
    "named": dmar(drhd(scope(3, (0, 0)), flags=0, segment=1)),
    "all": dmar(drhd(segment=1)),
    "none": dmar(drhd()),
}
SURE = {"named": Coverage.CERTAIN, "all": Coverage.CERTAIN, "none": Coverage.NONE}
BY_READING = {True: Coverage.AT_BOOT, False: Coverage.NONE, None: Coverage.UNKNOWN}


def version_in(text):
    return parse_version(text) if text is not None else None


def scope_of(table, version, memory=TAKEN, tables=(MCFG,)):
    snapshot = snapshot_from_machine("", machine(*RAWS))
    return IommuScope(snapshot).with_tables([TABLES[table], *tables], memory, version_in(version))


@pytest.mark.parametrize(("version", "reserved", "hole"), READS)
def test_what_xen_can_read_early(version, reserved, hole):
    def read(memory, sbdf=BEHIND, end=0xFF):
        areas = mmcfg_of([EcamRegion(BASE, 1, 0, end)], memory)
        return is_read_early(parse_sbdf(sbdf), areas, version_in(version))

    assert (read(TAKEN), read(HOLE), read(OTHER)) == (reserved, hole, False)
    assert read(TAKEN, end=2) is False  # the area has no bus 03
    assert read(TAKEN, "0002:03:00.0") is False
    assert read(OTHER, "0000:03:00.0") is True  # by I/O ports
    assert read(None) is (False if reserved is False else None)
    assert is_read_early(parse_sbdf(BEHIND), None, version_in(version)) is (
        False if reserved is False else None
    )


@pytest.mark.parametrize(("version", "reserved", "hole"), READS)
@pytest.mark.parametrize("table", TABLES)
def test_which_functions_a_unit_serves(table, version, reserved, hole):
    asked = Requester(parse_sbdf(BEHIND))
    for memory, read in ((TAKEN, reserved), (HOLE, hole), (OTHER, False)):
        if read is False and version is None:
            continue  # nothing reserves MMCFG, so no version reads
        expected = SURE.get(table) or BY_READING[read]
        found = scope_of(table, version, memory)
        assert found.covers(asked) is expected
        assert (found.unit_of(asked) is None) == (expected is Coverage.NONE)
        lost = parse_sbdf(BELOW) if read is not True and table not in SURE else None
        assert found.lost_below(asked) == lost


@pytest.mark.parametrize("version", ["4.17.7", "4.22.0", None])
def test_segment_0_is_read_by_each_version(version):
    table = dmar(drhd(scope(0, (1, 0), kind=2), flags=0))
    found = IommuScope(snapshot_from_machine("", machine(*RAWS)))
    found = found.with_tables([table], TAKEN, version_in(version))
    assert found.covers(Requester(parse_sbdf("02:00.0"))) is Coverage.AT_BOOT


@pytest.mark.parametrize(("version", "reserved", "hole"), READS)
def test_without_a_dmar_a_bridge_proves_as_much_as_xen_could_read(version, reserved, hole):
    """A PVH dom0 sees the MCFG and not the DMAR."""
    snapshot = snapshot_from_machine("", machine(*RAWS))
    found = IommuScope(snapshot).with_tables([MCFG], TAKEN, version_in(version))
    new, there = (Requester(parse_sbdf(text)) for text in ("0001:03:05.0", BEHIND))
    assert found.covers(there) is Coverage.AT_BOOT
    assert found.covers(new) is (Coverage.AT_BOOT if reserved else Coverage.UNKNOWN)


@pytest.mark.parametrize("version", [version for version, *_ in READS])
@pytest.mark.parametrize("table", TABLES)
def test_the_reading_of_the_whole_table_agrees(table, version):
    there = machine(*RAWS)
    judged = judge([TABLES[table], MCFG], TAKEN, version_in(version), snapshot_from_machine("", there))
    for sbdf, each in there.functions.items():
        asked = requester_of(each, there)
        covered = scope_of(table, version).covers(asked)
        if covered is not Coverage.UNKNOWN and asked.needs_unit(scope_of(table, version).vendor):
            assert (judged.state.unit_of(asked) is not None) == (covered is not Coverage.NONE), str(sbdf)


@pytest.mark.parametrize(("version", "reserved", "hole"), READS)
def test_check_tells_the_bridge_and_the_release_that_helps(version, reserved, hole):
    evidence = evidence_of(*RAWS, host=host(), iommu=scope_of("bridge", version))
    found, unknown = said_by(rules.iommu, BEHIND, evidence)
    assert found == ({"iommu-uncovered": "refuse"} if reserved is False else {})
    assert unknown == ([f"whether Xen could read the bridge {BELOW} for the IOMMU"] * (reserved is None))
    taken = attrs.evolve(evidence, xen={})
    assert said_by(rules.iommu, BEHIND, taken)[1] == []  # Xen has taken it, so a unit serves it
    if reserved is False:
        (reason,) = rules.iommu(evidence.machine.functions[parse_sbdf(BEHIND)], evidence)
        assert BELOW in reason.text
        assert "4.19.4, 4.20.2 and 4.21.0" in reason.cure
    (plain,) = rules.iommu(
        evidence.machine.functions[parse_sbdf(BEHIND)],
        attrs.evolve(evidence, iommu=scope_of("none", version)),
    )
    assert "another slot" in plain.cure  # no unit would serve it, whatever Xen can read


@pytest.mark.parametrize("pvh", [False, True])
@pytest.mark.parametrize(("version", "reserved", "hole"), READS[:-1])
def test_no_orphan_is_made_below_a_bridge_that_xen_could_not_read(version, reserved, hole, pvh):
    there = facts(*RAWS[:4], pvh=pvh)
    there = attrs.evolve(there, version=version_in(version), iommu=scope_of("bridge", version))
    verdict = check_action(AddDevice(parse_sbdf(BEHIND), ""), there)
    assert isinstance(verdict, Refusal) == (not reserved)
    if isinstance(verdict, Refusal):
        assert verdict.rule == "iommu-coverage"
        assert f"could not read the bridge {BELOW}" in verdict.why
        assert ("perhaps" in verdict.why) == (reserved is None)
        assert "use Xen 4.19.4, 4.20.2 and 4.21.0 or newer" in verdict.why


# Reserved regions of functions above segment 0.

HELD = 0x7000_0000
KEPT, DROPPED, MISREAD = "kept", "dropped", "misread"
PATHS = {  # the function that firmware means, by one hop and by three; and one that is not there
    "0001:00:05.0": scope(0, (5, 0)),
    BEHIND: scope(0, (1, 0), (0, 0), (0, 0)),
    "0001:00:06.0": scope(0, (6, 0)),
}
#  Xen's MMCFG of the segment: usable, not reserved, no entry. What Xen has of each of PATHS.
EARLY = [
    ("4.17.0", [(KEPT, MISREAD, KEPT)] * 3), ("4.18.6", [(KEPT, MISREAD, KEPT)] * 3),
    ("4.19.3", [(KEPT, MISREAD, KEPT)] * 3), ("4.20.1", [(KEPT, MISREAD, KEPT)] * 3),
    *((version, [(KEPT, KEPT, DROPPED), (DROPPED,) * 3, (KEPT, MISREAD, KEPT)])
      for version in ("4.19.4", "4.20.2", "4.20.4", "4.21.0", "4.22.0")),
    ("4.19.4-vendor", [(KEPT, KEPT, KEPT), (KEPT, MISREAD, KEPT), (KEPT, MISREAD, KEPT)]),
    (None, [(KEPT, KEPT, KEPT), (KEPT, MISREAD, KEPT), (KEPT, MISREAD, KEPT)]),
]  # fmt: skip
AREAS = ((TAKEN, (MCFG,)), (OTHER, (MCFG,)), (TAKEN, (any_table("MCFG", bytes(8)),)))


def regions_of(scopes, version, memory, tables):
    table = dmar(drhd(segment=1), rmrr(HELD, HELD + 0xFFF, *scopes, segment=1))
    there = machine(*RAWS)
    found = regions_from_tables([table, *tables], there, memory=memory, version=version_in(version))
    judged = judge([table, *tables], memory, version_in(version), snapshot_from_machine("", there))
    return found, judged.state.regions


def state_of_region(region):
    return DROPPED if region.dropped else MISREAD if region.misread else KEPT


@pytest.mark.parametrize(("version", "expected"), EARLY)
def test_what_xen_has_of_a_reserved_region(version, expected):
    for (memory, tables), states in zip(AREAS, expected, strict=True):
        for (meant, path), state in zip(PATHS.items(), states, strict=True):
            found, judged = regions_of([path], version, memory, tables)
            (region,) = found.regions
            assert (meant, state_of_region(region)) == (meant, state)
            assert [str(device.sbdf) for device in region.devices] == [meant]
            assert [[str(at) for at in each.served] for each in judged] == (
                {KEPT: [[meant]], DROPPED: [], MISREAD: [["0001:ff:00.0"]]}[state]
            )


def test_one_of_the_devices_is_enough_to_keep_it():
    found, judged = regions_of(PATHS.values(), "4.20.4", *AREAS[0])
    assert (state_of_region(*found.regions), len(judged)) == (KEPT, 1)


def test_check_tells_a_region_that_xen_has_for_another_function():
    for memory, tables in (AREAS[0], AREAS[2]):
        found, _ = regions_of([PATHS[BEHIND]], "4.19.3", memory, tables)
        asked = with_xen(
            found, XenRegions(tuple(r.frames for r in found.regions), {parse_sbdf(BEHIND): ()}), None
        )
        evidence = attrs.evolve(evidence_of(*RAWS), regions=with_findings(asked))
        assert said_by(memory_rules.reserved, BEHIND, evidence)[0] == {"region-misread": "warn"}
        (reason,) = memory_rules.reserved(evidence.machine.functions[parse_sbdf(BEHIND)], evidence)
        assert "has the region for 0001:ff:00.0" in reason.text
        assert "4.19.4, 4.20.2 and 4.21.0 or newer" in reason.text


def test_check_tells_a_region_that_xen_drops_because_it_cannot_read_the_segment():
    found, _ = regions_of([PATHS["0001:00:05.0"]], "4.20.4", *AREAS[1])
    evidence = attrs.evolve(evidence_of(*RAWS), regions=with_findings(found))
    assert said_by(memory_rules.reserved, "0001:00:05.0", evidence)[0] == {"region-dropped": "warn"}
    (reason,) = memory_rules.reserved(evidence.machine.functions[parse_sbdf("0001:00:05.0")], evidence)
    assert "does not reserve the segment's MMCFG" in reason.text
    assert "a guest does not get it" in reason.text
