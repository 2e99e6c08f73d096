"""Each rule: a machine to which it applies and one to which not, for each release of Xen."""

import attrs
import pytest

from pcipt.firmware.acceptance.answers import Answer
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acceptance.rules import RULES, Ending
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import decode_machine
from pcipt.pci.requester import Vendor
from pcipt.xen.releases import parse_version
from tests.firmware.acceptance.cases import CASES, MCFG, MEMORY, amd, block, unit, vtd
from tests.firmware.reserved_tables import ivrs, madt, select, special
from tests.machines import function, iommu, smbus

RELEASES = (
    "4.17.0", "4.17.3", "4.17.4", "4.17.7", "4.18.0", "4.18.1", "4.18.3", "4.18.4", "4.18.6", "4.19.0",
    "4.19.1", "4.19.6", "4.20.0", "4.20.4", "4.21.0", "4.21.2", "4.22.0",
)  # fmt: skip
OLD_CHECK = {"4.17.0", "4.17.3", "4.18.0"}
BEFORE_4_19 = {release for release in RELEASES if release < "4.19"}
BEFORE_SEGMENTS = {"4.17.0", "4.17.3", "4.17.4", "4.17.7", "4.18.0", "4.18.1", "4.18.3", "4.18.4", "4.18.6"}
BEFORE_SEGMENTS |= {"4.19.0", "4.19.1", "4.20.0"}
#  rule: the releases that do not follow it
EXCEPT = {
    "dmar-satc-length": BEFORE_4_19,
    "dmar-satc-scope-length": BEFORE_4_19,
    "dmar-region-over-ram": BEFORE_4_19,
    "dmar-region-endless": BEFORE_4_19,
    "ivmd-over-ram": OLD_CHECK,
    "ivmd-over-acpi": set(RELEASES) - OLD_CHECK,
    "ivrs-unit-segment": set(RELEASES) - BEFORE_SEGMENTS,
    "ivmd-unserved": {
        "4.18.4",
        "4.18.6",
        "4.19.1",
        "4.19.6",
        "4.20.0",
        "4.20.4",
        "4.21.0",
        "4.21.2",
        "4.22.0",
    },
}
BY_NAME = {rule.name: rule for rule in RULES}


def judged(given, release, **more):
    boot = snapshot_from_machine("", decode_machine([function(name) for name in given.functions]))
    version = parse_version(release) if release is not None else None
    return judge(given.tables, given.memory, version, boot, machine=given.machine, **more)


def test_each_rule_has_its_cases_and_its_name():
    assert set(CASES) == set(BY_NAME)
    assert len(BY_NAME) == len(RULES)
    assert {name for name in BY_NAME if BY_NAME[name].only or BY_NAME[name].unless} == set(EXCEPT)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", CASES)
def test_where_a_rule_holds_and_where_not(name, release):
    rule, (holds, holds_not) = BY_NAME[name], CASES[name]
    acceptance = judged(holds, release)
    if release in EXCEPT.get(name, ()):
        assert (acceptance.iommu, acceptance.said) == (Answer.YES, ())
    elif rule.ending is Ending.NO_INTERRUPTS:
        assert (acceptance.iommu, acceptance.interrupts) == (Answer.YES, Answer.NO)
        assert [said.rule for said in acceptance.said] == [rule]
    else:
        assert (acceptance.iommu, acceptance.interrupts) == (Answer.NO, Answer.NO)
        assert acceptance.end is acceptance.said[-1]
        assert acceptance.end.rule is rule
        assert acceptance.state is None
    other = judged(holds_not, release)
    assert (other.iommu, other.interrupts, other.said, other.unknown) == (Answer.YES, Answer.YES, (), ())


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_has_place_consequence_and_cure(name):
    rule, release = BY_NAME[name], "4.17.0" if name == "ivmd-over-acpi" else "4.17.7"
    release = "4.22.0" if release in EXCEPT.get(name, ()) else release
    said = judged(CASES[name][0], release).said[-1]
    assert said.certain
    assert said.text.startswith(str(said.place))
    assert "{" not in said.text + said.cure
    assert "ask the vendor for firmware" in said.cure
    assert ("iommu=no,no-intremap" in said.cure) == (rule.ending in (Ending.HANG, Ending.PANIC))
    words = {
        Ending.REFUSED: "Xen refuses the table and does not use",
        Ending.HANG: "Xen does not refuse the table but hangs at boot, if it uses",
        Ending.PANIC: "Xen does not refuse the table but panics at boot, if it uses",
        Ending.NO_INTERRUPTS: "Xen does not remap interrupts",
    }
    assert words[rule.ending] in said.text
    assert (said.finding.code, said.finding.is_note) == (name, rule.ending is Ending.NO_INTERRUPTS)


@pytest.mark.parametrize("name", EXCEPT)
def test_without_a_version_what_depends_on_it_is_unknown(name):
    acceptance = judged(CASES[name][0], None)
    assert (acceptance.iommu, acceptance.end) == (Answer.UNKNOWN, None)
    assert acceptance.unknown == ("Xen's version",)
    assert name in {said.rule.name for said in acceptance.said}
    assert all(not said.certain for said in acceptance.said)
    (text,) = [said.text for said in acceptance.said if said.rule.name == name]
    assert BY_NAME[name].versions in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dmar-region-over-ram", "from 4.19.0 on"),
        ("ivmd-over-ram", "from 4.17.4, 4.18.1 and 4.19.0 on"),
        ("ivmd-over-acpi", "before 4.17.4, 4.18.1 and 4.19.0"),
        ("ivmd-unserved", "before 4.18.4, 4.19.1 and 4.20.0"),
        ("ivrs-unit-segment", "before 4.19.4, 4.20.2 and 4.21.0"),
        ("dmar-width", ""),
    ],
)
def test_versions_in_words(name, words):
    assert BY_NAME[name].versions == words


@pytest.mark.parametrize("given", [vtd(), amd()])
def test_what_was_not_given_is_named(given):
    def answer(tables, memory):
        found = judge(tables, memory, parse_version("4.20.4"))
        return found.iommu.value, found.interrupts.value, found.unknown

    is_amd = given.table[:4] == b"IVRS"
    assert answer(given.tables, MEMORY) == ("yes", "yes", ())
    assert answer(given.tables, None) == ("yes", "yes", ())  # no region
    assert answer([given.table], MEMORY) == ("unknown" if is_amd else "yes", "unknown", ("the MADT",))
    assert answer([given.table[:-4], madt(0)], MEMORY) == ("unknown", "unknown", ("the whole table",))
    assert answer([madt(0)], MEMORY) == ("no", "no", ())
    assert judge([madt(0)], MEMORY, None).vendor is None


def test_without_a_memory_map_only_the_first_page_is_known():
    for start, expected in ((0x7000_0000, Answer.UNKNOWN), (0x800, Answer.NO)):
        given = amd(block(start=start, size=1))
        found = judge(given.tables, None, parse_version("4.20.4"))
        assert (found.iommu, found.unknown) == (
            expected,
            ("the memory map",) if expected is Answer.UNKNOWN else (),
        )


@pytest.mark.parametrize(
    ("name", "options", "accepted"),
    [
        ("ivrs-io-apic-missing", Options(interrupts=False), True),
        ("ivrs-io-apic-missing", Options(per_device=False), True),
        ("ivrs-io-apic-missing", Options(io_apics={1: 0x30}), True),
        ("ivrs-io-apic-missing", Options(io_apics={2: 0x30}), False),
        ("ivrs-io-apic-conflict", Options(io_apics={0: 0xA0}), True),
        ("ivrs-io-apic-conflict", Options(per_device=False), True),
        ("ivrs-io-apic-unknown", Options(per_device=False), False),
        ("ivrs-io-apic-unknown", Options(io_apics={7: 0x30}), True),  # the place is named
        ("ivrs-no-southbridge", Options(io_apics={0: 0xA0}), True),
        ("ivrs-special-variety", Options(interrupts=False), False),
    ],
)
def test_boot_options_that_cure(name, options, accepted):
    found = judged(CASES[name][0], "4.20.4", options=options)
    assert found.iommu is (Answer.YES if accepted else Answer.NO)
    assert (found.interrupts is Answer.YES) == (accepted and options.interrupts)


def test_a_dmar_comes_before_an_ivrs():
    both = [*vtd().tables, amd().table]
    assert judge(both, MEMORY, None).vendor is Vendor.INTEL
    refused = [*CASES["dmar-width"][0].tables, amd().table]
    assert judge(refused, MEMORY, None).end.rule.name == "dmar-width"
    without_base = [*CASES["dmar-unit-base"][0].tables, amd().table]  # ENODEV: Xen looks for the other
    assert judge(without_base, MEMORY, None).vendor is Vendor.AMD


def test_an_io_apic_whose_registers_are_nowhere_does_not_count():
    table = bytearray(madt(0, 1))
    table[44 + 12 + 4 : 44 + 12 + 8] = bytes(4)
    assert judge([amd().table, bytes(table)], MEMORY, None).iommu is Answer.YES


def test_page_tables_of_four_levels_reach_2_to_the_48():
    """EFR of type 11, HATS 0: a region above is passed over, and does not count."""
    units = [unit(select(0x10), select(0x11), kind=kind) for kind in (0x10, 0x11)]
    info = 1 | 52 << 8 | 52 << 15
    for start, kept in (((1 << 48) - 0x1000, True), (1 << 48, False)):
        given = attrs.evolve(amd(), table=ivrs(block(start=start), units=units[1:], info=info))
        state = judged(given, "4.20.4").state
        assert (bool(state.kept), bool(state.beyond)) == (kept, not kept)


def test_special_devices_of_segment_1_are_not_the_chipsets():
    given = amd(units=[unit(select(8)), unit(special(0xA0, handle=1), segment=1)], io_apics=(0, 1))
    assert judged(given, "4.20.4").iommu is Answer.NO  # IO-APIC 0 has two places


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("raws", "missing"),
    [
        ((iommu(size=64),), "config space of the IOMMU 0000:00:00.2"),
        ((), "config space of the IOMMU 0000:00:00.2"),
        ((function("00:00.2", size=256),), "config space of the IOMMU 0000:00:00.2"),
        ((iommu(), smbus(size=64)), "config space of the SP5100 0000:00:14.0"),
        ((iommu(), smbus(mode=0, size=64)), "config space of the SP5100 0000:00:14.0"),
    ],
)
def test_registers_that_were_not_read_are_unknown_and_not_good(raws, missing, release):
    found = judged(amd(raws=raws), release)
    assert (found.iommu, found.interrupts, found.unknown) == (Answer.UNKNOWN, Answer.UNKNOWN, (missing,))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "other",
    [
        smbus(at="00:14.1"),
        smbus(at="00:15.0"),
        smbus(at="0001:00:14.0"),
        smbus(device=0x4353),
        smbus(vendor=0x1022),
        smbus(device=0x4353, size=64),
    ],
)
def test_only_the_smbus_function_of_an_sp5100_in_segment_0_tells_its_mode(other, release):
    assert judged(amd(raws=(iommu(), other)), release).iommu is Answer.YES


@pytest.mark.parametrize("release", RELEASES)
def test_the_sp5100_is_looked_for_on_each_bus(release):
    found = judged(amd(raws=(iommu(), smbus(at="40:14.0"))), release)
    assert found.end.text.startswith("0000:40:14.0: the SATA controller of the SP5100 is in combined mode")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("options", [Options(interrupts=False), Options(per_device=False)])
def test_xen_looks_for_the_erratum_only_where_it_remaps_interrupts_per_device(options, release):
    found = judged(CASES["sp5100-combined-mode"][0], release, options=options)
    assert found.iommu is Answer.YES
    assert found.interrupts is (Answer.YES if options.interrupts else Answer.NO)


@pytest.mark.parametrize("release", sorted(set(RELEASES) - BEFORE_SEGMENTS))
def test_a_segment_above_0_needs_mmcfg_that_xen_uses(release):
    given = CASES["ivrs-unit-segment"][0]
    assert judged(given, release).iommu is Answer.YES
    used = judge(
        [table for table in given.tables if table != MCFG],
        given.memory,
        parse_version(release),
        machine=given.machine,
    )
    assert (used.iommu, used.unknown) == (Answer.UNKNOWN, ("MMCFG of segment 0001",))
