"""What status says of the service's own doubts: healthy only if nothing is due, lost or unknown."""

import errno

import attrs
import pytest

from pcipt.daemon.control.status import (
    NO_MAP,
    UNSETTLED,
    explanation_to_json,
    health_of,
    mappings_to_json,
    release_to_json,
    status_to_json,
)
from pcipt.daemon.settings import Settings
from pcipt.engine import round as rounds
from pcipt.engine.queue import LOOKS, Reason
from pcipt.pci import Frames, Gfn, Resource
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.outcome import Op
from pcipt.xen.releases import (
    DETACH_CUTS_ADDRESSES,
    IVMD_MEMORY_CHECK_INVERTED,
    MAPPINGS_INTERLEAVE,
    MSIX_CHECKED,
    TPM_TABLES_GIVEN,
    WITHOUT_VPCI_PANICS,
    parse_version,
)
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import BusStage, S, work_off
from tests.xen.devices import device

ADDRESSES = [f"00:{number:02x}.0" for number in range(2, 7)]
ONE = S(ADDRESSES[0])
NEW = "00:0a.0"


class Scene:
    """A service at rest on a machine where nothing is wrong."""

    def __init__(self, *, dom0="pvh", rested=True, **more):
        raws = [
            device(address, (0xC000_0000 + 0x1_0000 * number, 0x1000))
            for number, address in enumerate(ADDRESSES)
        ]
        self.stage = BusStage(raws, dom0=dom0, **more)
        self.engine = self.stage.start()
        if rested:
            self.pass_time(0.0)

    def pass_time(self, seconds):
        self.stage.time += seconds
        work_off(self.engine)

    def told(self):
        told = status_to_json(self.engine, self.stage.xen.identity, "enforce", {}, {})
        assert told["health"] == health_of(self.engine)
        assert told["counts"]["findings"] == len(told["findings"])
        return told["health"], [finding["code"] for finding in told["findings"]]


HEALTHY, UNSETTLED_ONLY = ("healthy", []), ("degraded", ["unsettled"])


def test_a_service_at_rest_is_healthy():
    assert Scene().told() == HEALTHY


def test_the_finding_is_about_no_function_and_says_what_to_do():
    scene = Scene(rested=False)
    (finding,) = status_to_json(scene.engine, scene.stage.xen.identity, "enforce", {}, {})["findings"]
    assert finding == {"sbdf": None, **UNSETTLED.to_json()}
    assert finding["next"] == "`pcipt status` again after a minute"


@pytest.mark.parametrize(
    ("full", "version", "basis", "safer"),
    [
        ("4.17.7", "4.17.7", "read", {}),
        ("4.22.0", "4.22.0", "read", {}),
        (
            "4.17.4-qubes",
            "4.17.x",
            "build",
            dict.fromkeys(
                (
                    WITHOUT_VPCI_PANICS.name,
                    IVMD_MEMORY_CHECK_INVERTED.name,
                    MAPPINGS_INTERLEAVE.name,
                    DETACH_CUTS_ADDRESSES.name,
                ),
                True,
            ),
        ),
        ("4.99.1", "4.99.1", "newer", {}),
    ],
)
def test_status_tells_what_is_known_of_this_xen(full, version, basis, safer):
    scene = Scene()
    told = status_to_json(scene.engine, XenIdentity(full, Dom0Kind.PVH), "enforce", {}, {})
    assert told["xen"] == full
    assert told["xen_release"] == {
        "version": version,
        "basis": basis,
        "safer": [{"fact": name, "taken": taken} for name, taken in safer.items()],
    }
    assert told["health"] == "healthy"  # a version that is not known is no fault


def test_a_vf_bar_without_an_address_is_told_and_is_no_fault():
    vfs = (8, 0x80, 2, [(0, 0x4000)])
    raw = attrs.evolve(device("00:02.0", (0xC000_0000, 0x1000), sriov=vfs), resources=())
    lines = [
        Resource(0xC000_0000, 0x1000, 0x200),
        *[Resource(0, 0, 0)] * 6,
        Resource(0, 0x2_0000, 0x2000_0200),
    ]
    stage = BusStage([attrs.evolve(raw, resources=(*lines, *[Resource(0, 0, 0)] * 5))])
    engine = stage.start()
    work_off(engine)
    told = status_to_json(engine, stage.xen.identity, "enforce", {}, {})
    (note,) = told["unassigned"]
    assert (told["health"], note["sbdf"], note["code"]) == ("healthy", "0000:00:02.0", "vf-bar-unassigned")
    assert "VF BAR 0 (16K memory) has no address" in note["text"]
    assert "pci=realloc" in note["text"]


def test_facts_that_are_safer_if_untrue_are_told_as_that():
    taken = {each["fact"]: each["taken"] for each in release_to_json(parse_version("4.20.3-vendor"))["safer"]}
    assert taken[TPM_TABLES_GIVEN.name] is False
    assert taken[MSIX_CHECKED.name] is True


def test_before_the_first_comparison_nothing_is_settled():
    scene = Scene(rested=False)
    assert scene.told() == UNSETTLED_ONLY
    work_off(scene.engine)
    assert scene.told() == HEALTHY


@pytest.mark.parametrize("reason", [each for each in Reason if each not in LOOKS], ids=lambda each: each.name)
def test_work_that_is_due_is_not_settled_until_it_is_done(reason):
    scene = Scene()
    scene.engine.add(ONE, reason)
    scene.stage.time += 60.0
    assert scene.told() == UNSETTLED_ONLY
    work_off(scene.engine)
    assert scene.told() == HEALTHY


@pytest.mark.parametrize("reason", sorted(LOOKS, key=str), ids=lambda each: each.name)
def test_work_that_only_looks_is_settled(reason):
    scene = Scene()
    scene.engine.add(ONE, reason)
    scene.stage.time += 60.0
    assert scene.told() == HEALTHY


def test_work_that_waits_for_more_messages_is_not_settled_once_it_is_due():
    scene = Scene()
    scene.engine.add(ONE, Reason.APPEARED, quiet=0.05)
    assert scene.told() == HEALTHY
    scene.stage.time += 0.05
    assert scene.told() == UNSETTLED_ONLY


def test_a_comparison_is_not_settled_between_its_slices(monkeypatch):
    monkeypatch.setattr(rounds, "SLICE", 2)
    scene = Scene()
    scene.engine.add_everything(Reason.REQUESTED)
    while not scene.engine.worker.turn().finished:
        assert scene.told() == UNSETTLED_ONLY
    assert scene.told() == HEALTHY


#  kind of dom0, what is told once everything was read: only Xen's vPCI may have left pages of what nobody saw
LOST = [("pv", HEALTHY), ("pvh", ("degraded", ["messages-lost"]))]


@pytest.mark.parametrize(("dom0", "after"), LOST)
def test_lost_messages_are_not_settled_from_the_first_moment(dom0, after):
    scene = Scene(dom0=dom0)
    scene.engine.add_everything(Reason.LOST, quiet=0.05)  # not due yet
    assert scene.told() == UNSETTLED_ONLY
    scene.pass_time(0.05)
    assert scene.told() == after


@pytest.mark.parametrize(("dom0", "after"), LOST)
def test_lost_messages_are_not_settled_while_everything_is_read(monkeypatch, dom0, after):
    monkeypatch.setattr(rounds, "SLICE", 2)
    scene = Scene(dom0=dom0)
    scene.engine.add_everything(Reason.LOST)
    while not scene.engine.worker.turn().finished:
        health, codes = scene.told()
        assert (health, codes[-1]) == ("degraded", "unsettled")
    scene.engine.worker.turn()  # the store
    assert scene.told() == after


@pytest.mark.parametrize("everything", [False, True])
def test_what_xen_could_not_be_asked_is_not_settled_until_it_answers(everything):
    scene = Scene()
    scene.stage.xen.fail(Op.KNOWN, errno.EBUSY)
    if everything:
        scene.engine.add_everything(Reason.REQUESTED)
    else:
        scene.stage.plug(device(NEW, (0xC010_0000, 0x1000)))
    scene.stage.settle(scene.engine)
    assert scene.told() == ("degraded", ["xen-not-asked", "unsettled"])
    assert scene.engine.next_due() > 0.0
    scene.pass_time(1.0)
    assert scene.told() == HEALTHY


def test_a_finding_and_doubt_are_told_beside_each_other():
    scene = Scene(known=ADDRESSES[1:], settings=Settings(mode="observe"))
    assert scene.told() == ("degraded", ["unknown-to-xen"])
    scene.engine.add(ONE, Reason.REQUESTED)
    assert scene.told() == ("degraded", ["unknown-to-xen", "unsettled"])


def test_a_file_that_is_to_be_written_leaves_the_service_healthy_until_it_is_due():
    """The files of the store are written some seconds after an action: nothing of the machine is unknown."""
    scene = Scene(known=ADDRESSES[1:])
    assert scene.engine.next_due() == pytest.approx(5.0)
    assert scene.told() == HEALTHY


def restless(dom0):
    """Give a service that has seen a function appear; the ledger of any kind of dom0 has its pages."""
    scene = Scene(dom0=dom0)
    scene.stage.plug(device(NEW, (0xD000_0000, 0x1000)))
    scene.stage.settle(scene.engine)
    assert len(scene.engine.ledger.mapped) == len(ADDRESSES) + 1
    return scene


@pytest.mark.parametrize(("dom0", "count"), [("pv", 0), ("pvh", len(ADDRESSES) + 1)])
def test_a_pv_dom0_has_no_mappings_and_no_actions_about_them(dom0, count):
    scene = restless(dom0)
    engine, identity = scene.engine, scene.stage.xen.identity
    told = status_to_json(engine, identity, "enforce", {}, {})
    assert (told["counts"]["mappings"], told["counts"]["stale"]) == (count, 0)
    assert {action["result"] for action in told["actions"]} <= {"done"}
    mappings = mappings_to_json(engine, identity)
    assert len(mappings["mappings"]) == count
    assert mappings["why"] == (NO_MAP if dom0 == "pv" else None)


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_explained_as_on_a_pvh_dom0(dom0):
    scene = restless(dom0)
    plain, asked = (explanation_to_json(scene.engine, S(NEW), as_pvh=each) for each in (False, True))
    assert (plain["as"], asked["as"], asked["dom0"]) == (dom0, "pvh", dom0)
    assert asked["should_be"]["mappings"] == [{"bar": 0, "start": "0xd0000000", "size": 0x1000}]
    assert plain["should_be"]["mappings"] == (asked["should_be"]["mappings"] if dom0 == "pvh" else [])


def test_reserved_regions_are_counted():
    one, two = (Frames(Gfn(0x7F000 + at), 4) for at in (0, 16))
    scopes = ((one, ADDRESSES[:1]), (two, ADDRESSES[:2]))
    scene = Scene(reserved=[ReservedRegion(frames, tuple(map(S, scope))) for frames, scope in scopes])
    counts = status_to_json(scene.engine, scene.stage.xen.identity, "enforce", {}, {})["counts"]
    assert (counts["reserved"], counts["reserved_shared"]) == (2, 1)
