"""One row a rule of pages: the situation in which it refuses, and its neighbour where it does not."""

import attrs
import pytest

from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import Address, decode_machine
from pcipt.remap.actions import NotApplicable, Refusal, RestoreReserved, RewriteBar, WithdrawReserved
from pcipt.remap.desired import By
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.guard.pages import PAGE_RULES
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.guard.rules import RULES, check_action, judge_action
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages
from tests.machines import bridge, function
from tests.remap.devices import (
    S,
    device,
    frames,
    gone,
    holding,
    known,
    map_of,
    port,
    prefetchable,
    unmap_of,
    window,
    with_vfs,
)
from tests.xen.versions import version_of

AT, OTHER = 0xE000_0000, 0xE100_0000
PLACE, NEXT = "00_1c.0-00_00.0", "00_1c.0-00_01.0"
NIC = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0")
IDLE = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0", command=0)
RAM = entry(0x10_0000, 0x7000_0000 - 0x10_0000, MemoryType.RAM)
REGION = frames(0x7D00_0000, 4)


def facts(*raws, xen=None, pvh=True, mapped=(), reserved=(), regions=None, above=None, **more):
    there = decode_machine([above or port(), *raws])
    snapshot = BootSnapshot("boot", frozenset(there.functions), {})
    return Facts(
        machine=there, xen=xen or known("00:1c.0"), pvh=pvh, version=version_of(4, 17),
        iommu=IommuScope(snapshot), mapped=MappedPages(mapped),
        protected=protected_ranges([RAM], reserved=reserved), regions=regions or {}, **more,
    )  # fmt: skip


def beside(start, size=0x4000, **more):
    return device("01:01.0", [(start, size)], parent="00:1c.0", **more)


def of_class(raw, code):
    data = bytearray(raw.config)
    data[0x09:0x0C] = code.to_bytes(3, "little")
    return attrs.evolve(raw, config=bytes(data))


def rewrite(address=OTHER, before=AT):
    return RewriteBar(S("01:00.0"), "why", 0, Address(before), Address(address))


MAP, UNMAP = map_of(PLACE, AT, 4), unmap_of(PLACE, AT, 4)
OLD = unmap_of(PLACE, OTHER, 4)
HELD_OLD = [holding(PLACE, OTHER, 4)]
WITHDRAW = WithdrawReserved(S("01:00.0"), "why", REGION)
RESTORE = RestoreReserved(S("01:00.0"), "why", REGION)
HOSTILE = [(0x4000_0000, "RAM"), (0xFEC0_0000, "IO-APIC"), (0xFEE0_0000, "MSI"), (0x4_0000, "first MiB")]
LOW_PORT = port(base=0x4000_0000, limit=0xFFFF_FFFF)

#   rule, action, facts in which it refuses, words of the refusal
REFUSED = [
    ("certain", MAP, facts(NIC, xen=known("01:00.0", elsewhere={S("01:00.0"): "domain 2"})), "domain 2"),
    ("certain", MAP, facts(gone(NIC)), "does not answer"),
    ("claimed", MAP, facts(IDLE), "does not decode there"),
    ("claimed", MAP, facts(), "does not decode there"),  # it has left meanwhile
    ("claimed", map_of(PLACE, OTHER, 4), facts(NIC), "does not decode there"),
    ("claimed", map_of("10000_01_00.0", AT, 4, sbdf="10000:01:00.0"), facts(  # VMD: no pages of its own
        device("10000:01:00.0", [(AT, 0x4000)])), "does not decode there"),
    ("not-vpci", MAP, facts(NIC, xen=known("01:00.0")), "vPCI handles"),
    ("protected", map_of(PLACE, 0x4000_0000, 4), facts(
        device("01:00.0", [(0x4000_0000, 0x4000)], parent="00:1c.0"), above=LOW_PORT), "RAM at 0x"),
    ("protected", MAP, facts(NIC, reserved=[frames(AT + 0x3000, 1)]), "reserved region"),
    ("msix-pages", MAP, facts(NIC, beside(AT, 0x4000, msix=(0, 0)), xen=known("01:01.0")), "MSI-X"),
    ("msix-pages", MAP, facts(NIC, hidden_msix=frozenset({S("01:00.0")})), "Xen hides MSI-X of 0000:01:00.0"),
    ("other-owner", MAP, facts(NIC, beside(AT + 0x2000)), "decodes the same addresses"),
    ("other-owner", MAP, facts(  # the first one does not decode, the second does
        NIC, beside(AT, command=0), device("01:02.0", [(AT, 0x4000)], parent="00:1c.0")), "0000:01:02.0"),
    ("other-owner", map_of(PLACE, AT, 1), facts(  # one page for two domains
        device("01:00.0", [(AT, 0x100)], parent="00:1c.0"), beside(AT + 0x100, 0x100),
        xen=known("01:01.0", elsewhere={S("01:01.0"): "domain 2"})), "belongs to domain 2"),
    ("bridge-window", MAP, facts(NIC, above=port(base=0xF000_0000)), "does not pass"),
    ("bridge-window", MAP, facts(NIC, above=bridge("00:1c.0", 1, 1)), "does not pass"),  # all closed
    ("certain", OLD, facts(gone(NIC), mapped=HELD_OLD), "does not answer"),
    ("certain", OLD, facts(attrs.evolve(NIC, driver="pciback"), mapped=HELD_OLD), "xen-pciback"),
    ("held", OLD, facts(NIC), "ledger does not show"),
    ("held", unmap_of(PLACE, OTHER, 5), facts(NIC, mapped=HELD_OLD), "ledger does not show"),
    ("protected", unmap_of(PLACE, 0x4000_0000, 1), facts(
        NIC, mapped=[holding(PLACE, 0x4000_0000, 1)]), "RAM at 0x"),
    ("decodes-nowhere", UNMAP, facts(NIC, mapped=[holding(PLACE, AT, 4)]), "decodes at these pages again"),
    ("decodes-nowhere", OLD, facts(NIC, beside(OTHER + 0x1000), mapped=HELD_OLD), "0000:01:01.0"),
    ("decodes-nowhere", OLD, facts(NIC, beside(OTHER, command=0), mapped=HELD_OLD), "BAR 0 of"),
    ("not-needed", OLD, facts(  # it was renumbered: it cannot be read, and needs its page
        NIC, gone(beside(OTHER)), mapped=[*HELD_OLD, holding(NEXT, OTHER, 1, sbdf="01:01.0")]), "mapped for"),
    ("hardware-answers", rewrite(), facts(gone(NIC)), "does not answer"),
    ("hardware-answers", rewrite(), facts(
        with_vfs(device("01:01.0", parent="00:1c.0"), AT, 0x1000),
        function("01:00.0", parent="00:1c.0", physfn="01:01.0")), "virtual function"),
    ("owned-by-dom0", rewrite(), facts(NIC, xen=known(elsewhere={S("01:00.0"): "domain 2"})), "domain 2"),
    ("owned-by-dom0", rewrite(), facts(NIC, xen=known(quarantined=frozenset({S("01:00.0")}))), "quarantined"),
    ("unbound", rewrite(), facts(attrs.evolve(NIC, driver="e1000e")), "0000:01:00.0 (e1000e)"),
    *(("spared", rewrite(), facts(of_class(NIC, code)), word) for code, word in (
        (0x06_0000, "host bridge"), (0x08_0600, "IOMMU"), (0x03_0000, "console"))),
    ("spared", rewrite(), facts(NIC, function("01:00.1", parent="00:1c.0", physfn="01:00.0")), "01:00.1"),
    ("still-ignored", rewrite(before=AT + 0x4000), facts(NIC), "any more"),
    ("protected", rewrite(0x4000_0000), facts(NIC), "RAM at 0x"),
    ("target-free", rewrite(), facts(NIC, beside(OTHER)), "0000:01:01.0"),
    ("target-free", rewrite(), facts(  # a guest has the rest of the page
        device("01:00.0", [(AT, 0x100)], parent="00:1c.0"), beside(OTHER + 0x100, 0x100),
        xen=known("01:01.0", elsewhere={S("01:01.0"): "domain 2"})), "belongs to domain 2"),
    ("target-free", rewrite(OTHER), facts(  # its own second BAR is there
        device("01:00.0", [(AT, 0x4000), (OTHER, 0x1000)], parent="00:1c.0")), "BAR 1 of 0000:01:00.0"),
    ("bridge-window", rewrite(0xF000_0000), facts(NIC), "does not pass"),
    ("known-region", WITHDRAW, facts(), "names such a region"),
    ("protected", WITHDRAW, facts(regions={frames(0x1000_0000, 1): frozenset()}), "RAM"),
    ("protected", WITHDRAW, facts(regions={frames(0xE_0000, 1): frozenset()}), "the first MiB"),
    ("scope-devices", WITHDRAW, facts(
        NIC, xen=known("01:00.0"), regions={REGION: frozenset({S("01:00.0")})}), "still needs"),
    ("scope-devices", WITHDRAW, facts(NIC, regions={  # it shares a page with one that is needed
        REGION: frozenset({S("02:00.0")}), frames(0x7D00_3000, 2): frozenset({S("01:00.0")})}), "needs the"),
    ("no-bar", WITHDRAW, facts(
        device("01:00.0", [(0x7D00_0000, 4096)], parent="00:1c.0"), regions={REGION: frozenset()}), "BAR 0"),
    ("no-bar", WITHDRAW, facts(
        mapped=[holding(PLACE, 0x7D00_0000, 1)], regions={REGION: frozenset()}), "mapped for"),
    ("known-region", RESTORE, facts(), "names such a region"),
    ("protected", RESTORE, facts(regions={frames(0x1000_0000, 1): frozenset()}), "RAM"),
    ("msix-pages", RESTORE, facts(
        device("01:00.0", [(0x7D00_0000, 0x1000)], parent="00:1c.0", msix=(0, 0)), xen=known("01:00.0"),
        regions={REGION: frozenset()}), "MSI-X"),
]  # fmt: skip


def about(action, situation):
    """Let an action of a reserved region be about the region of its facts."""
    if isinstance(action, WithdrawReserved | RestoreReserved) and situation.regions:
        return attrs.evolve(action, frames=next(iter(situation.regions)))
    return action


@pytest.mark.parametrize(("rule", "action", "situation", "words"), REFUSED)
def test_refused(rule, action, situation, words):
    verdict = check_action(about(action, situation), situation)
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, words in verdict.why) == (rule, True), verdict


#   action, facts in which it is allowed
ALLOWED = [
    (MAP, facts(NIC)),
    (MAP, facts(NIC, xen=known("01:00.0"), mapped=[  # a failed call took vPCI's pages
        holding(PLACE, AT, 4, by=By.XEN, state=State.DOUBTFUL)])),
    (MAP, facts(NIC, xen=known("01:00.0"), mapped=[  # pcipt was killed after it
        holding(PLACE, AT, 4, by=By.XEN, state=State.INTENDED)])),
    (map_of(PLACE, AT, 0x100), facts(  # up to the last byte of the window
        device("01:00.0", [(AT, 0x10_0000)], parent="00:1c.0"), above=port(limit=AT + 0xF_FFFF))),
    (MAP, facts(NIC, beside(AT + 0x2000, command=0))),  # what does not decode does not conflict
    (MAP, facts(NIC, above=prefetchable(bridge("00:1c.0", 1, 1), 0xE000_0000, 0xEFFF_FFFF))),
    (map_of(PLACE, AT, 1), facts(  # two functions of dom0 share a page
        device("01:00.0", [(AT, 0x100)], parent="00:1c.0"), beside(AT + 0x100, 0x100))),
    (MAP, facts(NIC, beside(AT, 0x4000, msix=(0, 0), command=0))),  # Xen does not know it, nobody traps
    (MAP, facts(NIC, above=attrs.evolve(
        bridge("00:1c.0", 1, 1), config=bridge("00:1c.0", 1, 1).config[:9] + b"\x01" +
        bridge("00:1c.0", 1, 1).config[10:]))),  # subtractive decoding passes everything on
    (map_of("00_0e.0", AT, 0x100, sbdf="00:0e.0"), facts(  # VMD: others lie inside the controller's BAR
        device("10000:01:00.0", [(AT, 0x4000)]), device("00:0e.0", [(AT, 0x10_0000)]))),
    (OLD, facts(NIC, mapped=HELD_OLD)),
    (OLD, facts(mapped=HELD_OLD)),  # the function has left
    (UNMAP, facts(IDLE, mapped=[holding(PLACE, AT, 4)])),
    (OLD, facts(NIC, mapped=[*HELD_OLD, holding(NEXT, OTHER, 1, state=State.STALE)])),
    (rewrite(), facts(NIC)),
    (map_of(PLACE, AT, 4), facts(attrs.evolve(NIC, root_bus=1, parent=None))),  # on a root bus: no window
    (rewrite(AT + 0x2000), facts(NIC)),  # over its own old place
    (WITHDRAW, facts(  # it is dom0's no longer
        NIC, xen=known("01:00.0", quarantined=frozenset({S("01:00.0")})),
        regions={REGION: frozenset({S("01:00.0")})})),
    (WITHDRAW, facts(regions={REGION: frozenset({S("01:00.0")})})),  # it was unplugged
    (RESTORE, facts(NIC, xen=known("01:00.0"), regions={REGION: frozenset({S("01:00.0")})})),
]  # fmt: skip


@pytest.mark.parametrize(("action", "situation"), ALLOWED)
def test_allowed(action, situation):
    assert check_action(action, situation) is Precaution.NONE
    assert all(why is None for _, why in judge_action(action, situation))


@pytest.mark.parametrize("action", [MAP, OLD, rewrite()])
def test_an_action_about_a_function_that_left_is_judged_by_all_rules(action):
    assert isinstance(check_action(action, facts()), Refusal)
    assert len(judge_action(action, facts())) == sum(isinstance(action, kind) for _, kind, _ in RULES)


def test_a_bar_that_the_function_does_not_have_is_refused_by_one_rule():
    judged = judge_action(attrs.evolve(MAP, bar=3), facts(NIC))
    assert [name for name, why in judged if why is not None] == ["claimed"]


@pytest.mark.parametrize("bar", [0, 3])
def test_a_rewrite_of_a_bar_without_a_size_or_that_is_missing_is_refused_by_one_rule(bar):
    lost = attrs.evolve(NIC, resources=())  # Linux knows no size
    judged = judge_action(attrs.evolve(rewrite(), bar=bar), facts(lost))
    assert [name for name, why in judged if why is not None] == ["still-ignored"]


def test_a_bridges_bar_is_not_moved_under_the_drivers_behind_it():
    behind = facts(attrs.evolve(NIC, driver="nvme"))
    judged = dict(judge_action(attrs.evolve(rewrite(), sbdf=S("00:1c.0")), behind))
    assert "0000:01:00.0 (nvme)" in (judged["unbound"] or "")


def test_desired_pages_depend_on_protected_pages_and_on_earlier_numbers():
    assert facts(NIC, xen=known("01:00.0")).desired(NIC.sbdf).bars
    assert not facts(NIC, xen=known("01:00.0"), reserved=[frames(AT, 1)]).desired(NIC.sbdf).bars
    msix = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0", msix=(0, 0))
    elsewhere = facts(msix, xen=known("05:00.0"))  # trapped at the number at which Xen knows it
    followed = attrs.evolve(elsewhere, followed={msix.sbdf: (S("05:00.0"),)})
    assert elsewhere.desired(msix.sbdf).bars[0].spans == (frames(AT, 4),)
    assert followed.desired(msix.sbdf).bars[0].spans == (frames(AT + 0x1000, 3),)


def test_changed_facts_do_not_keep_the_desired_pages():
    before = facts(NIC)
    assert before.desired(NIC.sbdf).bars
    assert before.desired(NIC.sbdf) is before.desired(NIC.sbdf)
    assert not attrs.evolve(before, machine=facts(IDLE).machine).desired(NIC.sbdf).bars


@pytest.mark.parametrize(("address", "words"), HOSTILE)
def test_a_hostile_bar_is_never_mapped(address, words):
    raw = device("01:00.0", [(address, 0x1000)], parent="00:1c.0")
    verdict = check_action(map_of(PLACE, address, 1), facts(raw, above=window(LOW_PORT, 0, 0xFFFF_FFFF)))
    assert isinstance(verdict, Refusal)
    assert verdict.rule == "protected"
    assert words in verdict.why


@pytest.mark.parametrize("action", [MAP, UNMAP, rewrite(), WITHDRAW, RESTORE])
def test_on_pv_no_rule_is_asked(action):
    verdict = check_action(action, facts(pvh=False))
    assert isinstance(verdict, NotApplicable)
    assert "PV" in verdict.why


def test_every_rule_has_a_row():
    assert {(name, kind) for name, kind, _ in PAGE_RULES} == {(row[0], type(row[1])) for row in REFUSED}
