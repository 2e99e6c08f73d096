"""One row a rule: the machine in which it refuses, and its neighbour in which it does not."""

import struct

import attrs
import pytest

from pcipt.firmware.acpi.dmar import Dmar, RemappingUnit
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.pci.requester import Vendor
from pcipt.remap.actions import AddDevice, Refusal, RemoveDevice
from pcipt.remap.guard.devices import DEVICE_RULES
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.guard.rules import RULES, check_action, judge_action
from pcipt.remap.kinds.conventional import Bridges
from pcipt.remap.view import XenView
from tests.firmware.reserved_tables import ivhd, ivrs
from tests.machines import bridge, function, machine
from tests.remap.devices import device
from tests.xen.versions import version_of

S = parse_sbdf
ADD, GONE = "01:00.0", "04:00.0"
EVERYWHERE = Dmar((RemappingUnit(0, 0xFED9_0000, True, ()),), (), (), ())
PORT = bridge("00:1c.0", 1, 2)


def facts(
    *raws, known=(), orphans=(), elsewhere=None, pvh=True, version=(4, 17), dmar=None, told=True, port=PORT,
    moves=None, quarantined=(),
):  # fmt: skip
    there = machine(port, *raws)
    snapshot = BootSnapshot("boot", frozenset(there.functions), {S("00:1c.0"): (1, 2)})
    return Facts(
        machine=there,
        xen=XenView(
            frozenset(map(S, known)), frozenset(map(S, orphans)),
            {S(key): value for key, value in (elsewhere or {}).items()}, custody_told=told,
            quarantined=frozenset(map(S, quarantined)),
        ),
        pvh=pvh,
        version=version_of(*version),
        iommu=IommuScope(snapshot, dmar=dmar),
        moves={S(key): S(value) if value is not None else None for key, value in (moves or {}).items()},
    )  # fmt: skip


#  the port's register reads 02, Linux still has the function on bus 01, where it does not answer
MOVED = {ADD: "02:00.0"}
MOVED_PORT = attrs.evolve(bridge("00:1c.0", 2, 2), secondary=1)
FOLLOW = AddDevice(S("02:00.0"), "", moved_from=S(ADD))
LET_GO = RemoveDevice(S(ADD), "", moved_to=S("02:00.0"))


def away(**more):
    return attrs.evolve(nic(**more), config=b"\xff" * 64)


def moved(*raws, moves=MOVED, **more):
    return facts(*raws, port=MOVED_PORT, moves=moves, **more)


def nic(**more):
    return function(ADD, parent="00:1c.0", **more)


def add(**more):
    return AddDevice(S(ADD), "why", **more)


def with_io_vf_bar(there):
    """Replace the function's SR-IOV structure by one whose first BAR is an I/O BAR."""
    from pcipt.pci import Bar, BarKind, SrIov

    bars = (
        Bar(0, BarKind.IO, 0x1000, 0x100, False, False),
        Bar(1, BarKind.MEM32, 0x1000, 0x100, False, False),
    )
    sriov = SrIov(1, 1, 0, 1, 1, 0x10CA, False, False, False, bars)
    functions = dict(there.machine.functions)
    functions[S(ADD)] = attrs.evolve(functions[S(ADD)], sriov=sriov)
    return attrs.evolve(there, machine=attrs.evolve(there.machine, functions=functions))


def with_msix(address, *, start=0xE000_0000, bar=0, **more):
    """Make a function with one BAR and an MSI-X table; a virtual function has no BARs of its own."""
    bars = [] if "physfn" in more else [(start, 0x4000)]
    return device(address, bars, parent="00:1c.0", msix=(bar, 0), command=0, **more)


def with_region(situation, *scope):
    """Add a reserved region of these devices."""
    return attrs.evolve(situation, regions={Frames(Gfn(0x7FFF0), 4): frozenset(map(S, scope))})


def behind_bridge(situation):
    """Make the port a conventional bridge."""
    return attrs.evolve(situation, bridges=Bridges(lambda: {S("00:1c.0")}))


GONE_VF = function("04:00.1", physfn=GONE)

#   rule, action, facts in which it refuses, words of the refusal
REFUSED = [
    ("segment", AddDevice(S("10000:00:00.0"), ""), facts(), "above ffff"),
    ("segment", RemoveDevice(S("10000:00:00.0"), ""), facts(), "above ffff"),
    ("hardware-answers", add(), facts(), "does not have it"),
    ("not-known", add(), facts(nic(), known=[ADD]), "knows it already"),
    ("physical-function-first", AddDevice(S("01:00.1"), "", physfn=S(ADD)),
     facts(nic(), function("01:00.1", parent="00:1c.0", physfn=ADD)), "must be announced"),
    ("header-type", add(), facts(nic(header=2)), "cardbus"),
    ("vf-bar-io", add(), with_io_vf_bar(facts(nic(), dmar=EVERYWHERE)), "I/O space"),
    ("msix-taken", AddDevice(S("01:00.1"), "", physfn=S(ADD)), facts(
        nic(), with_msix("01:00.1", physfn=ADD), known=[ADD], version=(4, 20)), "virtual function with"),
    ("msix-taken", add(), facts(with_msix(ADD, bar=3), version=(4, 19)), "lies in no BAR"),
    ("msix-taken", add(), facts(with_msix(ADD, start=0), version=(4, 20)), "no address yet"),
    ("iommu-coverage", AddDevice(S("09:00.0"), ""), attrs.evolve(
        facts(function("09:00.0")), iommu=facts(nic()).iommu), "leave an orphan"),
    ("driver-needs-decode", add(), facts(nic(driver="e1000e", command=2)), "unbind the driver"),
    ("driver-needs-decode", AddDevice(S("00:1c.0"), ""), attrs.evolve(facts(nic()), machine=machine(
        bridge("00:1c.0", 1, 2, command=2), nic(driver="e1000e"))), "drivers behind the bridge need it"),
    ("driver-needs-decode", AddDevice(S("01:00.1"), "", physfn=S(ADD)), facts(
        nic(), function("01:00.1", parent="00:1c.0", physfn=ADD, command=2), known=[ADD]), "for a virtual"),
    ("owned-by-dom0", RemoveDevice(S(GONE), ""), facts(), "does not know it"),
    ("owned-by-dom0", RemoveDevice(S(GONE), ""), facts(known=[GONE], orphans=[GONE]), "panic"),
    ("owned-by-dom0", RemoveDevice(S(GONE), ""),
     facts(known=[GONE], elsewhere={GONE: "domain 7"}), "domain 7"),
    ("owned-by-dom0", RemoveDevice(S(GONE), ""), facts(known=[GONE], told=False), "does not say"),
    ("gone-from-linux", RemoveDevice(S(ADD), ""), facts(nic(driver="e1000e"), known=[ADD]), "driver e1000e"),
    ("virtual-functions", RemoveDevice(S(GONE), ""), facts(GONE_VF, known=[GONE]), "0000:04:00.1"),
    ("children", RemoveDevice(S("01:01.0"), "", moved_to=S("02:01.0")), moved(
        bridge("01:01.0", 3, 3, parent="00:1c.0"), function("03:00.0", parent="01:01.0"),
        moves={"01:01.0": "02:01.0", "03:00.0": "04:00.0"},
        known=["01:01.0", "02:01.0", "03:00.0"]), "0000:03:00.0"),
    ("children", RemoveDevice(S("02:01.0"), "", moved_to=S("01:01.0")), facts(  # the bridge has come back
        bridge("01:01.0", 3, 3, parent="00:1c.0"), function("03:00.0", parent="01:01.0"),
        known=["01:01.0", "02:01.0", "03:00.0"], moves={"03:00.0": "04:00.0"}), "0000:03:00.0"),
    ("owned-by-dom0", RemoveDevice(S(GONE), ""), facts(known=[GONE], quarantined=[GONE]), "quarantined"),
    ("hardware-answers", FOLLOW, moved(away(), moves={}), "have changed again"),
    ("iommu-coverage", AddDevice(S("05:00.0"), "", moved_from=S(ADD)),
     moved(away(), moves={ADD: "05:00.0"}), "give its bus the old number 01 again"),
    ("driverless-subtree", FOLLOW, moved(away(driver="e1000e")), "0000:01:00.0 (e1000e)"),
    ("driverless-subtree", FOLLOW, moved(away(), function("01:01.0", parent="00:1c.0", driver="nvme")),
     "nvme"),  # the driver of a neighbour on the same bus
    ("driverless-subtree", LET_GO, moved(away(driver="e1000e"), known=[ADD, "02:00.0"]), "have drivers"),
    ("announced-where-it-is", LET_GO, moved(away(), known=[ADD]), "must be announced"),
    ("gone-from-linux", RemoveDevice(S("02:00.0"), ""), moved(away(), known=["02:00.0"]), "after bus"),
    ("gone-from-linux", LET_GO, facts(nic(), known=[ADD, "02:00.0"]), "still has it"),
    ("vfs-as-planned", AddDevice(S(ADD), "", vfs_on=True), facts(nic()), "switched off after this"),
    ("vfs-as-planned", FOLLOW, moved(away(), function("01:00.1", parent="00:1c.0", physfn=ADD)),
     "switched on after this"),
    ("virtual-functions", LET_GO,
     moved(away(), function("01:00.1", parent="00:1c.0", physfn=ADD), known=[ADD, "02:00.0", "01:00.1"]),
     "0000:01:00.1"),  # children are removed first
    ("conventional-bridge", FOLLOW, behind_bridge(moved(away(), known=[ADD])), "forget 0000:01:00.0"),
    ("conventional-bridge", RemoveDevice(S("01:02.0"), ""), behind_bridge(
        facts(nic(), known=[ADD, "01:02.0"])), "stop the DMA of 0000:01:00.0"),
    ("reserved-region", LET_GO, with_region(
        moved(away(), known=[ADD, "02:00.0"], pvh=False), ADD), "out of dom0's IOMMU table"),
]  # fmt: skip

#   action, facts, precaution
ALLOWED = [
    (add(), facts(nic()), Precaution.NONE),  # decode is off already
    (AddDevice(S("00:1c.0"), ""), attrs.evolve(
        facts(nic()), machine=machine(bridge("00:1c.0", 1, 2, command=2), nic())),
     Precaution.DECODE_OFF),  # a bridge that nothing in use is behind
    (add(), facts(nic(command=2)), Precaution.DECODE_OFF),  # 4.17 on PVH, by the snapshot alone
    (add(), facts(nic(command=2), dmar=EVERYWHERE), Precaution.NONE),  # covered for certain
    (add(), facts(nic(command=2), pvh=False), Precaution.NONE),  # PV has no vPCI
    (add(), facts(with_msix(ADD, bar=3), version=(4, 20), pvh=False), Precaution.NONE),
    (add(), facts(with_msix(ADD), version=(4, 20)), Precaution.NONE),
    *((add(), facts(with_msix(ADD, bar=3), version=version), Precaution.NONE)
      for version in ((4, 19, 3), (4, 20, 1), (4, 21, 0))),
    (add(), facts(nic(command=2), version=(4, 19, 0)), Precaution.NONE),  # 4.19 does not panic
    (add(), facts(nic(driver="e1000e", command=2), pvh=False), Precaution.NONE),
    (add(), facts(nic(), known=[ADD], orphans=[ADD]), Precaution.NONE),  # an orphan is announced again
    (add(), facts(nic(header=2), pvh=False), Precaution.NONE),  # CardBus needs no vPCI on PV
    *((add(), with_io_vf_bar(facts(nic(), version=version)), Precaution.NONE)
      for version in ((4, 19, 4), (4, 20, 2), (4, 21, 0))),
    (AddDevice(S("01:00.1"), "", physfn=S(ADD)),
     facts(nic(), function("01:00.1", parent="00:1c.0", physfn=ADD, vendor=0xFFFF, device=0xFFFF),
           known=[ADD]),
     Precaution.NONE),  # a virtual function reads ffff by specification
    (RemoveDevice(S(GONE), ""), facts(known=[GONE]), Precaution.NONE),
    (RemoveDevice(S(GONE), ""), moved(away(driver="e1000e"), moves={ADD: None}, known=[GONE]),
     Precaution.NONE),  # it has nothing to do with a function to which no bus leads
    (RemoveDevice(S(GONE), ""), moved(away(), known=[GONE, ADD]), Precaution.NONE),
    (FOLLOW, moved(away(), dmar=EVERYWHERE), Precaution.NONE),
    (FOLLOW, moved(away()), Precaution.DECODE_OFF),  # nobody can read whether it decodes
    (FOLLOW, moved(away(), version=(4, 20)), Precaution.NONE),
    (LET_GO, moved(away(), known=[ADD, "02:00.0"]), Precaution.NONE),
    (LET_GO, moved(away(), function("01:00.1", parent="00:1c.0", physfn=ADD), known=[ADD, "02:00.0"]),
     Precaution.NONE),  # Xen has forgotten the virtual function already
    (LET_GO, behind_bridge(moved(away(), known=[ADD])), Precaution.NONE),  # the old address goes first
    (FOLLOW, behind_bridge(moved(away(), dmar=EVERYWHERE)), Precaution.NONE),
    (RemoveDevice(S("01:02.0"), ""), behind_bridge(facts(known=["01:02.0"])), Precaution.NONE),
    (RemoveDevice(S("00:1c.0"), "", anew=True), behind_bridge(facts(known=["00:1c.0"])), Precaution.NONE),
    (LET_GO, with_region(moved(away(), known=[ADD, "02:00.0"]), ADD), Precaution.NONE),  # PVH: mapped again
    (LET_GO, with_region(moved(away(), known=[ADD, "02:00.0", GONE], pvh=False), ADD, GONE),
     Precaution.NONE),  # Xen counts another device of the region
    (LET_GO, with_region(moved(away(), known=[ADD, "02:00.0"], pvh=False), GONE), Precaution.NONE),
    (RemoveDevice(S(GONE), ""), with_region(facts(known=[GONE], pvh=False), GONE), Precaution.NONE),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "action", "situation", "words"), REFUSED)
def test_refused(rule, action, situation, words):
    verdict = check_action(action, situation)
    assert isinstance(verdict, Refusal)
    assert verdict.rule == rule
    assert words in verdict.why


def test_a_bridge_stays_while_xen_lists_a_function_behind_it_at_an_earlier_number():
    behind = moved(
        bridge("01:01.0", 3, 3, parent="00:1c.0"), function("03:00.0", parent="01:01.0"),
        moves={"01:01.0": "02:01.0"}, known=["01:01.0", "02:01.0", "04:00.0"],
    )  # fmt: skip
    followed = attrs.evolve(behind, followed={S("03:00.0"): (S("04:00.0"),)})
    removal = RemoveDevice(S("01:01.0"), "", moved_to=S("02:01.0"))
    assert check_action(removal, behind) is Precaution.NONE
    verdict = check_action(removal, followed)
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, "0000:04:00.0" in verdict.why) == ("children", True)


@pytest.mark.parametrize(("action", "situation", "precaution"), ALLOWED)
def test_allowed(action, situation, precaution):
    assert check_action(action, situation) is precaution


def test_every_rule_has_a_row():
    assert {(name, kind) for name, kind, _ in DEVICE_RULES} == {(row[0], type(row[1])) for row in REFUSED}


def test_a_function_that_does_not_answer_is_refused():
    gone = attrs.evolve(nic(), config=b"\xff" * 64)
    verdict = check_action(add(), facts(gone))
    assert isinstance(verdict, Refusal)
    assert "all ones" in verdict.why


def test_a_function_without_config_is_refused():
    verdict = check_action(add(), facts(attrs.evolve(nic(), config=None)))
    assert isinstance(verdict, Refusal)
    assert "cannot be read" in verdict.why


@pytest.mark.parametrize(
    ("version", "panics"), [((4, 17), True), ((4, 18), True), ((4, 19, 0), False), ((4, 21), False)]
)
def test_an_orphan_is_removed_where_that_is_safe(version, panics):
    verdict = check_action(RemoveDevice(S(GONE), ""), facts(known=[GONE], orphans=[GONE], version=version))
    assert isinstance(verdict, Refusal) if panics else verdict is Precaution.NONE
    if isinstance(verdict, Refusal):
        assert "panic" in verdict.why


@pytest.mark.parametrize(
    ("version", "precaution"), [((4, 17), Precaution.DECODE_OFF), ((4, 20), Precaution.NONE)]
)
def test_an_orphan_is_announced_again_whether_or_not_a_unit_covers_it(version, precaution):
    far = function("09:00.0", command=2)
    situation = attrs.evolve(
        facts(far, known=["09:00.0"], orphans=["09:00.0"], version=version), iommu=facts(nic()).iommu
    )
    assert check_action(AddDevice(S("09:00.0"), ""), situation) is precaution


def test_what_amds_table_may_not_name_is_not_added():
    unknown = attrs.evolve(facts(nic()).iommu, vendor=Vendor.AMD)
    situation = attrs.evolve(facts(function("01:05.0", parent="00:1c.0")), iommu=unknown)
    verdict = check_action(AddDevice(S("01:05.0"), ""), situation)
    assert isinstance(verdict, Refusal)
    assert (verdict.rule, "IVRS" in verdict.why) == ("iommu-coverage", True)
    assert check_action(add(), attrs.evolve(facts(nic()), iommu=unknown)) is Precaution.NONE


def test_what_amds_table_does_not_name_no_reboot_helps():
    named = struct.pack("<BHB", 2, S(ADD).bus << 8, 0)
    iommu = facts(nic()).iommu.with_tables([ivrs(ivhd(named))])
    there = attrs.evolve(facts(function("01:05.0", parent="00:1c.0")), iommu=iommu)
    verdict = check_action(AddDevice(S("01:05.0"), ""), there)
    assert isinstance(verdict, Refusal)
    assert verdict.rule == "iommu-coverage"
    assert "names neither it nor function 0" in verdict.why
    assert "reboot" not in verdict.why
    assert check_action(add(), attrs.evolve(facts(nic()), iommu=iommu)) is Precaution.NONE


@pytest.mark.parametrize("action", [add(), FOLLOW, LET_GO, RemoveDevice(S(GONE), "")])
def test_an_action_about_a_function_that_left_is_judged_by_all_rules(action):
    judged = judge_action(action, facts())
    assert len(judged) == sum(isinstance(action, kind) for _, kind, _ in RULES)
    assert any(why is not None for _, why in judged)


def test_at_most_four_drivers_are_named_and_their_functions_are_not_all_of_them():
    drivers = [function(f"01:0{n}.0", parent="00:1c.0", driver=f"driver{n}") for n in range(1, 6)]
    verdict = check_action(FOLLOW, moved(away(), *drivers))
    assert isinstance(verdict, Refusal)
    assert verdict.why.count("(driver") == 4
    kept = check_action(RemoveDevice(S(ADD), ""), facts(nic(), known=[ADD]))
    assert isinstance(kept, Refusal)
    assert kept.why == "Linux still has it"
