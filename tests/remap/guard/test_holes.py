"""The second unmap of pages is allowed for exactly what pcipt unmapped, and only while nobody needs it."""

import attrs
import pytest

from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci import Frames, Gfn, decode_machine
from pcipt.remap.actions import CheckUnmapped, NotApplicable, Refusal, WithdrawReserved
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.guard.holes import HOLE_RULES
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.guard.rules import check_action
from pcipt.remap.holes import Holes
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages
from pcipt.xen.releases import NEWEST
from tests.remap.devices import S, device, frames, holding, known, port, unmap_of
from tests.remap.guard.test_pages import AT, NIC, OTHER, PLACE, RAM, REGION
from tests.xen.versions import version_of

AWAY = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0")
PAGES = frames(OTHER, 4)
CHECK = CheckUnmapped(S("01:00.0"), "why", PAGES, region=False)
CHECK_REGION = CheckUnmapped(S("01:00.0"), "why", REGION, region=True)


def facts(
    *raws, xen=None, pvh=True, mapped=(), reserved=(REGION,), regions=None, holes=None, version=(4, 22)
):
    there = decode_machine([port(), *raws])
    made = Holes()
    for action in (unmap_of(PLACE, OTHER, 4), WithdrawReserved(S("01:00.0"), "why", REGION)):
        made.made(action)
    return Facts(
        machine=there, xen=xen or known("00:1c.0"), pvh=pvh, version=version_of(*version),
        iommu=IommuScope(BootSnapshot("boot", frozenset(there.functions), {})), mapped=MappedPages(mapped),
        protected=protected_ranges([RAM], reserved=reserved), regions=regions or {},
        holes=made if holes is None else holes,
    )  # fmt: skip


def other_pages(start, count):
    return attrs.evolve(CHECK, frames=Frames(Gfn(PAGES.start + start), count))


def made(frames_):
    holes = Holes()
    holes.made(attrs.evolve(unmap_of(PLACE, OTHER, 4), frames=frames_))
    return holes


LOW = frames(0x20_0000, 1)
NEEDED = {REGION: frozenset({S("01:00.0")})}
#  rule, action, facts in which it refuses, words of the refusal
REFUSED = [
    ("unmapped-before", CHECK, facts(holes=Holes()), "exactly these"),
    ("unmapped-before", other_pages(0, 3), facts(), "exactly these"),
    ("unmapped-before", other_pages(0, 5), facts(), "exactly these"),
    ("unmapped-before", other_pages(1, 4), facts(), "exactly these"),
    ("unmapped-before", attrs.evolve(CHECK, sbdf=S("02:00.0")), facts(), "exactly these"),
    ("unmapped-before", attrs.evolve(CHECK, region=True), facts(), "exactly these"),
    ("unmapped-before", attrs.evolve(CHECK_REGION, region=False), facts(reserved=()), "exactly these"),
    ("protected", attrs.evolve(CHECK, frames=LOW), facts(holes=made(LOW)), "RAM"),
    ("protected", attrs.evolve(CHECK, frames=REGION), facts(holes=made(REGION)), "reserved region"),
    ("no-bar", CHECK, facts(device("01:01.0", [(OTHER, 0x1000)], parent="00:1c.0")), "BAR 0 of 0000:01:01.0"),
    ("no-bar", CHECK, facts(
        device("01:01.0", [(OTHER + 0x3000, 0x1000)], parent="00:1c.0", command=0)), "BAR 0 of"),
    ("no-bar", CHECK, facts(device("01:00.0", [(OTHER, 0x4000)], parent="00:1c.0", command=0)), "BAR 0 of"),
    ("no-bar", CHECK, facts(mapped=[holding(PLACE, OTHER, 1)]), "mapped for"),
    ("no-bar", CHECK, facts(mapped=[holding(PLACE, OTHER + 0x3000, 1, state=State.DOUBTFUL)]), "mapped for"),
    ("no-bar", CHECK_REGION, facts(device("01:00.0", [(0x7D00_0000, 0x1000)], parent="00:1c.0")), "BAR 0 of"),
    ("scope-devices", CHECK_REGION, facts(NIC, xen=known("01:00.0"), regions=NEEDED), "needs a reserved"),
    ("scope-devices", CHECK_REGION, facts(NIC, regions={
        frames(0x7D00_3000, 2): frozenset({S("01:00.0")})}), "needs a reserved"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "action", "situation", "words"), REFUSED)
def test_refused(rule, action, situation, words):
    verdict = check_action(action, situation)
    assert isinstance(verdict, Refusal)
    assert verdict.rule == rule
    assert words in verdict.why


GUESTS = known("01:00.0", elsewhere={S("01:00.0"): "guest 2"})


@pytest.mark.parametrize("branch", NEWEST)
@pytest.mark.parametrize(
    ("action", "more"),
    [(CHECK, {}), (CHECK_REGION, {"regions": NEEDED, "xen": GUESTS}), (CHECK_REGION, {})],
)
def test_allowed(action, more, branch):
    major, minor = branch.split(".")
    raws = [AWAY] if "xen" in more else []
    assert check_action(action, facts(*raws, version=(int(major), int(minor)), **more)) is Precaution.NONE


def test_not_applicable_on_pv():
    assert isinstance(check_action(CHECK, facts(pvh=False)), NotApplicable)


def test_every_rule_has_a_row():
    assert {name for name, _, _ in HOLE_RULES} == {row[0] for row in REFUSED}
