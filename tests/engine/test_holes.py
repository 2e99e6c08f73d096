"""Pages that pcipt unmapped and that Xen maps again for dom0 (pf-fixup), on every release."""

import attrs
import pytest

from pcipt.engine.queue import Reason
from pcipt.pci import Frames, Gfn
from pcipt.remap.holes import CHECKS, SAMPLE
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.outcome import Op
from pcipt.xen.pf_fixup import pf_fixup_of
from pcipt.xen.releases import NEWEST, parse_version
from tests.engine.stage import BusStage, S, compare, dry_run, work_off
from tests.engine.views.test_reserved import NIC, ONE, OTHER, Scene
from tests.xen.devices import device
from tests.xen.truth import mapped_pages

RELEASES = [*(f"{branch}.{patch}" for branch, patch in NEWEST.items()), "4.19.1", "4.20.0", "4.21.0"]
LINES = ["", "dom0=pvh,pf-fixup", "dom0=pvh,no-pf-fixup"]
BAR = Frames(Gfn(0xFE000), 2)
PLUGGED = "00:07.0"


def versioned(release):
    return {"version": tuple(parse_version(release)[:3])}


def withdrawn(**more):
    """A scene in which the first region was withdrawn, and nothing is due."""
    scene = Scene(**more)
    scene.time += 100
    work_off(scene.engine)
    scene.give_away(NIC)
    assert scene.told(NIC) == [("withdraw", ONE, "done")]
    scene.time += 5  # the last look at the owner
    work_off(scene.engine)
    scene.xen.calls.clear()
    return scene


def later(scene, seconds):
    """Let time pass; return what the engine has done then."""
    scene.time += seconds
    return [(o.action.word, o.result.value, o.detail) for o in work_off(scene.engine)]


def codes(scene):
    return [finding.code for _, finding in scene.engine.findings]


HELD = ("check-unmapped", "done", "the pages were not mapped")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("line", LINES)
def test_a_withdrawn_region_that_dom0_accesses(release, line):
    scene = withdrawn(**versioned(release), command_line=line)
    how = pf_fixup_of(scene.xen.identity, line)
    came_back = how.on and how.reserved
    assert scene.xen.access(ONE) == (4 if came_back else 0)
    assert scene.mapped()[0] is came_back
    told = later(scene, 60)
    assert scene.mapped()[0] is False
    if not how.on:
        assert (told, scene.remaps(), codes(scene)) == ([], [], [])
        return
    detail = "4 of the 4 pages that pcipt checked were mapped again, because dom0 accessed them"
    assert told == ([("check-unmapped", "done", detail)] if came_back else [HELD])
    assert codes(scene) == (["unmap-undone"] if came_back else [])
    assert scene.engine.memory.holes.returned == (4 if came_back else 0)


@pytest.mark.parametrize("release", ["4.19.6", "4.20.4", "4.21.2", "4.22.0"])
def test_pages_of_a_bar_that_dom0_accesses(release):
    stage = BusStage(
        [device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))],
        **versioned(release), command_line="dom0=pvh,pf-fixup",
    )  # fmt: skip
    stage.engine = stage.start()
    compare(stage.engine)
    stage.pull("00:06.0")
    assert [o.action.word for o in stage.settle(stage.engine)] == ["unmap-mmio"]
    assert stage.xen.access(Frames(Gfn(0xFE001), 1)) == 1
    assert later(stage, 60) == [
        (
            "check-unmapped",
            "done",
            "1 of the 2 pages that pcipt checked were mapped again, because dom0 accessed them",
        )
    ]
    assert not stage.xen.p2m.touched(BAR)
    assert codes(stage) == ["unmap-undone"]
    assert later(stage, 600) == [HELD]
    assert codes(stage) == []


def test_a_hole_that_holds_is_looked_at_three_times_and_then_forgotten():
    scene = withdrawn(version=(4, 22, 0))
    assert [later(scene, pause) for pause in (54, 1, 599, 1, 3599, 1)] == [[], [HELD], [], [HELD], [], [HELD]]
    assert [later(scene, 3600) for _ in range(3)] == [[], [], []]
    assert CHECKS == 3
    assert len([call for call in scene.xen.calls if call.op is Op.UNMAP]) == CHECKS * ONE.count
    assert scene.engine.queue.keys_with(Reason.UNMAPPED) == set()


def test_pages_that_come_back_are_looked_at_as_long_as_they_do():
    scene = withdrawn(version=(4, 22, 0))
    for pause in (60, 600, 3600, 3600, 3600):
        scene.xen.access(ONE)
        assert later(scene, pause)[0][2].startswith("4 of the 4")
        assert codes(scene) == ["unmap-undone"]
    assert later(scene, 3600) == [HELD]
    assert codes(scene) == []
    assert scene.engine.memory.holes.returned == 20


def test_a_restart_looks_at_withdrawn_regions_again():
    scene = withdrawn(version=(4, 22, 0))
    scene.xen.access(ONE)
    scene.engine = scene.start()
    work_off(scene.engine)
    assert later(scene, 60)[-1][2].startswith("4 of the 4")
    assert scene.mapped()[0] is False


def test_a_long_hole_is_looked_at_in_places_and_taken_down_whole():
    stage = BusStage(
        [device("00:00.0"), device("00:06.0", (0xF000_0000, 0x10_0000))], version=(4, 22, 0)
    )  # fmt: skip
    stage.engine = stage.start()
    compare(stage.engine)
    stage.pull("00:06.0")
    stage.settle(stage.engine)
    whole = Frames(Gfn(0xF0000), 0x100)
    stage.xen.calls.clear()
    assert later(stage, 60) == [HELD]
    assert len([call for call in stage.xen.calls if call.op is Op.UNMAP]) == SAMPLE
    assert stage.xen.access(whole) == 0x100
    assert (
        later(stage, 600)[0][2]
        == f"{SAMPLE} of the {SAMPLE} pages that pcipt checked were mapped again, because dom0 accessed them"
    )
    assert mapped_pages(stage.xen) & set(range(whole.start, whole.end)) == set()


# What is needed by then


def test_a_region_that_is_needed_again_is_restored_and_not_taken_down():
    scene = withdrawn(version=(4, 22, 0))
    scene.take_back(NIC)  # and nobody tells
    scene.xen.access(ONE)
    told = later(scene, 60)
    assert "restore-reserved" in [word for word, _, _ in told]
    assert scene.mapped()[0] is True
    told += [each for _ in range(3) for each in later(scene, 3600)]
    assert "check-unmapped" not in [word for word, _, _ in told]
    assert scene.mapped()[0] is True


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_pages_of_a_function_that_came_to_the_same_place_are_not_taken_down(announced, told):
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))], version=(4, 22, 0))
    stage.engine = stage.start()
    compare(stage.engine)
    stage.pull("00:06.0")
    stage.settle(stage.engine)
    stage.plug(device(PLUGGED, (0xFE00_0000, 0x2000)), announced=announced)
    if not told:
        stage.hotplug.read()
    stage.xen.access(BAR)
    stage.xen.calls.clear()
    if told:
        stage.settle(stage.engine)
    later(stage, 60)
    later(stage, 600)
    if told:  # without a message nobody can know of it: then its driver's next access maps it again
        assert not [call for call in stage.xen.calls if call.op is Op.UNMAP]
        assert stage.xen.p2m.mapped(BAR)
    stage.xen.access(BAR)
    assert stage.xen.p2m.mapped(BAR)


def test_after_lost_messages_nothing_is_taken_down():
    scene = withdrawn(version=(4, 22, 0))
    scene.xen.access(ONE)
    scene.time += 60
    scene.engine.add_everything(Reason.LOST)
    scene.engine.reconcile(scene.engine.take(whole=False))
    assert scene.mapped()[0] is True
    assert [call.op for call in scene.xen.calls if call.op is Op.UNMAP] == []


def test_a_switch_keeps_pcipt_from_looking():
    scene = withdrawn(version=(4, 22, 0))
    scene.engine.settings = attrs.evolve(
        scene.settings, actions={**scene.settings.actions, "check-unmapped": False}
    )
    assert [(word, result) for word, result, _ in later(scene, 60)] == [("check-unmapped", "planned")]
    assert scene.remaps() == []


def test_a_failing_call_is_tried_again():
    scene = withdrawn(version=(4, 22, 0))
    scene.xen.access(ONE)
    scene.xen.fail(Op.UNMAP, 12)
    assert [(word, result) for word, result, _ in later(scene, 60)] == [("check-unmapped", "failed")]
    assert later(scene, 600)[0][2].startswith("4 of the 4")
    assert scene.mapped()[0] is False


def test_a_dry_run_looks_at_nothing():
    scene = withdrawn(version=(4, 22, 0))
    scene.time += 60
    dry_run(scene.engine)
    assert scene.remaps() == []
    assert scene.engine.memory.holes.of(S(NIC))[0].checks == 0


@pytest.mark.parametrize("release", RELEASES)
def test_a_pv_dom0_has_no_holes(release):
    scene = Scene(dom0="pv", **versioned(release), command_line="dom0=pf-fixup")
    scene.give_away(NIC)
    scene.told(NIC)
    assert list(scene.engine.memory.holes) == []
    assert scene.engine.views.pf_fixup.word == "off"


def test_an_unreadable_command_line_counts_as_on():
    scene = Scene(version=(4, 21, 2), command_line="<denied>")
    assert scene.engine.views.pf_fixup.word == "unknown"
    scene.give_away(OTHER)
    scene.told(OTHER)
    scene.give_away(NIC)
    scene.told(NIC)
    assert len(list(scene.engine.memory.holes)) == 3


def test_every_release_of_the_table_is_here():
    assert {XenIdentity(each, Dom0Kind.PVH).version.branch for each in RELEASES} == set(NEWEST)
