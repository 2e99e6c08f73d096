"""One function explained: what is, what should be, which actions and what the guards say."""

import json

import pytest

from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci import Address, decode_machine
from pcipt.remap.actions import Refusal
from pcipt.remap.desired import By
from pcipt.remap.explain import explain, json_from_explanation
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.ignored import IgnoredWrite
from pcipt.remap.mapped_pages import MappedPages
from tests.remap.devices import S, device, holding, known, port
from tests.xen.versions import version_of

AT, NEW = 0xE000_0000, 0xE100_0000
PLACE = "00_1c.0-00_00.0"
NIC = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0")
BOUND = device("01:00.0", [(AT, 0x4000)], parent="00:1c.0", driver="e1000e")
WRITE = IgnoredWrite(PLACE, S("01:00.0"), 0, Address(NEW), Address(AT), 0x4000)


def facts(raw, xen, *, pvh=True, held=(), covered=True):
    there = decode_machine([port(), raw])
    numbers = {S("00:1c.0"): (1, 1)} if covered else {}
    snapshot = BootSnapshot("boot", frozenset({S("00:1c.0")}), numbers)
    return Facts(
        machine=there, xen=xen, pvh=pvh, version=version_of(4, 17), iommu=IommuScope(snapshot),
        mapped=MappedPages(held),
    )  # fmt: skip


def shown(explanation):
    return [(step.action.word, step.verdict) for step in explanation.steps]


def words(steps):
    return [
        (word, verdict.rule if isinstance(verdict, Refusal) else type(verdict).__name__)
        for word, verdict in steps
    ]


KNOWN = known("00:1c.0", "01:00.0")

#   facts, more, expected steps, who maps in the end
CASES = [
    (facts(NIC, KNOWN), {}, [], By.XEN),  # all agrees
    # unknown to Xen: it is announced, then vPCI maps it
    (facts(NIC, known("00:1c.0")), {}, [("add-device", "Precaution")], By.XEN),
    # no IOMMU unit covers it: it is not announced, so pcipt maps it
    (facts(NIC, known("00:1c.0"), covered=False), {},
     [("add-device", "iommu-coverage"), ("map-mmio", "Precaution")], By.US),
    # a BAR write that Xen ignored
    (facts(NIC, KNOWN), {"ignored": [WRITE]}, [("rewrite-bar", "Precaution")], By.XEN),
    (facts(BOUND, KNOWN), {"ignored": [WRITE]}, [("rewrite-bar", "unbound")], By.XEN),
    # PV: there is no map, so no action on pages follows, but an addition does
    (facts(NIC, KNOWN, pvh=False), {}, [], By.US),
    (facts(NIC, KNOWN, pvh=False), {"ignored": [WRITE]}, [], By.US),
    (facts(NIC, known("00:1c.0"), pvh=False), {}, [("add-device", "Precaution")], By.US),
]  # fmt: skip


@pytest.mark.parametrize(("situation", "more", "expected", "by"), CASES)
def test_explained(situation, more, expected, by):
    explanation = explain(S("01:00.0"), situation, **more)
    assert words(shown(explanation)) == expected
    assert explanation.desired.by is by
    json.dumps(json_from_explanation(explanation))


def test_what_is_held_and_every_guard_is_shown():
    situation = facts(NIC, known("00:1c.0"), held=[holding(PLACE, NEW, 4)], covered=False)
    shown_as = json_from_explanation(explain(S("01:00.0"), situation))
    assert shown_as["path"] == PLACE
    assert shown_as["is"]["known_to_xen"] is False
    assert shown_as["is"]["mappings"][0]["start"] == hex(NEW)
    assert shown_as["should_be"]["mappings"] == [{"bar": 0, "start": hex(AT), "size": 0x4000}]
    add, unmap, mapped = shown_as["actions"]
    assert (add["verdict"], add["rule"]) == ("refused", "iommu-coverage")
    assert (unmap["action"], unmap["verdict"]) == ("unmap-mmio", "allowed")
    assert (mapped["start"], mapped["size"], mapped["precaution"]) == (hex(AT), 0x4000, None)
    assert {guard["rule"] for guard in mapped["guards"]} >= {"protected", "other-owner", "bridge-window"}
    assert all(guard["refuses"] is None for guard in mapped["guards"])


HELD = [holding(PLACE, NEW, 4)]  # what the ledger of a PV dom0 has noted of a plan


def test_on_pv_nothing_is_mapped_and_nothing_should_be():
    told = json_from_explanation(explain(S("01:00.0"), facts(NIC, KNOWN, pvh=False, held=HELD)))
    assert (told["dom0"], told["as"], told["is"]["mappings"], told["actions"]) == ("pv", "pv", [], [])
    should_be = {"mapped_by": None, "inside": None, "because": "a PV dom0 has no 1:1 map", "kept": None}
    assert told["should_be"] == {**should_be, "mappings": []}


@pytest.mark.parametrize(
    ("xen", "covered", "by", "because"),
    [
        (KNOWN, True, "xen", None),
        (known("00:1c.0"), False, "us", "Xen does not handle it for dom0"),
    ],
)
def test_on_pv_as_pvh_shows_what_a_pvh_dom0_would_need_and_does_nothing(xen, covered, by, because):
    there = facts(NIC, xen, pvh=False, held=HELD, covered=covered)
    told = json_from_explanation(explain(S("01:00.0"), there, as_pvh=True, ignored=[WRITE]))
    assert (told["dom0"], told["as"], told["is"]["mappings"]) == ("pv", "pvh", [])
    assert {action["action"] for action in told["actions"]} <= {"add-device"}
    wanted = told["should_be"]
    assert (wanted["mapped_by"], wanted["because"]) == (by, because)
    assert wanted["mappings"] == [{"bar": 0, "start": hex(AT), "size": 0x4000}]


@pytest.mark.parametrize("held", [[], HELD])
def test_on_pvh_as_pvh_changes_nothing(held):
    there = facts(NIC, KNOWN, held=held)
    once, asked = (json_from_explanation(explain(S("01:00.0"), there, as_pvh=each)) for each in (False, True))
    assert once == asked
    assert (once["dom0"], once["as"]) == ("pvh", "pvh")


def test_the_precaution_is_told():
    (step,) = explain(S("01:00.0"), facts(NIC, known("00:1c.0"))).steps
    assert step.verdict is Precaution.DECODE_OFF
    shown_as = json_from_explanation(explain(S("01:00.0"), facts(NIC, known("00:1c.0"))))
    assert shown_as["actions"][0]["precaution"] == "decode-off"


@pytest.mark.parametrize(
    ("xen", "owner"),
    [
        (KNOWN, "dom0"),
        (known(), "unknown to Xen"),
        (known("01:00.0", orphans=frozenset({S("01:00.0")})), "nobody (orphan)"),
        (known("01:00.0", quarantined=frozenset({S("01:00.0")})), "quarantine"),
        (known("01:00.0", elsewhere={S("01:00.0"): "domain 3"}), "domain 3"),
    ],
)
def test_the_owner_in_words(xen, owner):
    assert explain(S("01:00.0"), facts(NIC, xen)).owner == owner
