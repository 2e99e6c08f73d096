"""A rewrite that would make vPCI fail, or take the host down, is refused."""

import attrs
import pytest

from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import Address, decode_machine
from pcipt.remap.actions import Refusal, RewriteBar
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.guard.own_bars import OWN_BAR_RULES
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.guard.rules import check_action, judge_action
from tests.remap.devices import S, known
from tests.xen.devices import device
from tests.xen.versions import EACH_RELEASE, version_of

AT, OTHER = 0xC000_0000, 0xC100_0000
RAM = [entry(0x10_0000, 0x4000_0000, MemoryType.RAM)]


def facts(raw, version=(4, 20, 4)):
    there = decode_machine([raw])
    return Facts(
        machine=there, xen=known("01:00.0"), pvh=True, version=version_of(*version),
        iommu=IommuScope(BootSnapshot("boot", frozenset(there.functions), {})),
        protected=protected_ranges(RAM),
    )  # fmt: skip


def rewrite(address=OTHER, bar=0):
    return RewriteBar(S("01:00.0"), "why", bar, Address(AT), Address(address))


def refusal(action, situation):
    return dict(judge_action(action, situation))["target-safe"]


END = (0xFFFF_FFFF_FFFF_C000, 0x4000, "64")  # what a BAR of 16 KiB shows that holds all ones


@pytest.mark.parametrize("version", [(4, 17, 7), (4, 18, 6), (4, 19, 0), (4, 20, 4), (4, 22, 0)])
def test_a_bar_with_all_ones_forbids_to_switch_decode(version):
    verdict = check_action(rewrite(), facts(device("01:00.0", (AT, 0x4000), END), version))
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, "panics" in verdict.why) == ("target-safe", True)


def test_a_bar_is_not_moved_to_the_end():
    wide = device("01:00.0", (AT, 0x4000, "64"))
    assert "panics" in refusal(rewrite(END[0]), facts(wide))
    assert refusal(rewrite(END[0] - 0x4000), facts(wide)) is not None  # above 48 bits
    assert refusal(rewrite(0x7FFF_FFFF_C000), facts(wide)) is None


@pytest.mark.parametrize(
    ("version", "refused"), [((4, 18, 6), False), ((4, 19, 0), True), ((4, 22, 0), True)]
)
def test_a_bar_is_not_moved_below_its_rom(version, refused):
    raw = device("01:00.0", (AT, 0x800), rom=(OTHER | 0x800 | 1, 0x800))
    assert (refusal(rewrite(OTHER), facts(raw, version)) is not None) is refused
    verdict = check_action(rewrite(OTHER), facts(raw, version))
    assert (verdict is not Precaution.NONE) is refused


def test_a_table_is_not_moved_over_ram_nor_a_bar_over_what_dom0_may_not_access():
    assert "RAM" in refusal(rewrite(0x20_0000), facts(device("01:00.0", (AT, 0x4000), msix=(0, 0, 0x800))))
    assert refusal(rewrite(0x20_0000), facts(device("01:00.0", (AT, 0x4000)))) is None
    assert "MSI" in refusal(rewrite(0xFEE0_0000), facts(device("01:00.0", (AT, 0x4000))))
    assert refusal(rewrite(0xFEE0_0000), facts(device("01:00.0", (AT, 0x4000)), (4, 17, 7))) is None


def test_an_ordinary_rewrite_is_allowed():
    raw = device("01:00.0", (AT, 0x4000), msix=(0, 0, 0x800), rom=(0xC200_0001, 0x800))
    assert check_action(rewrite(), facts(raw)) is Precaution.NONE
    assert refusal(rewrite(), attrs.evolve(facts(raw), machine=decode_machine([]))) is None
    assert [name for name, _, _ in OWN_BAR_RULES] == ["still-dropped", "target-safe"]


@pytest.mark.parametrize("version", EACH_RELEASE)
@pytest.mark.parametrize("before", [0, AT])
def test_a_cleared_bar_gets_its_address_back_only_while_vpci_has_the_function(version, before):
    raw = device("01:00.0", (before, 0x4000))
    action = RewriteBar(S("01:00.0"), "why", 0, Address(before), Address(OTHER))
    listed = facts(raw, version)
    unlisted = attrs.evolve(listed, xen=known())
    assert dict(judge_action(action, listed))["still-dropped"] is None
    why = dict(judge_action(action, unlisted))["still-dropped"]
    assert (why is None) is (before != 0)
    assert before or "Xen does not handle it for dom0" in why
