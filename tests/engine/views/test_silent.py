"""Owners that change without a message: Xen is asked slowly, in one question, and only where needed."""

import errno
import itertools

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.engine.queue import OWNERS, Reason
from pcipt.engine.views.silent import silent_functions
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.releases import NEWEST
from tests.engine.stage import S, Stage, codes, compare, dry_run, rests, settled, told, usual_raws, work_off
from tests.engine.views.test_reserved import DOM0, IN, NIC, ONE, OTHER, OUT, QUARANTINE, Scene, guest
from tests.xen.versions import BUILDS

RELEASES = [*(tuple(map(int, branch.split("."))) for branch in NEWEST), *BUILDS]
NOBODY, XEN = Owner(OwnerKind.NOBODY), Owner(OwnerKind.XEN)
PAUSE = 60
OBSERVE = Settings("observe", list_s=0, faults_s=0)


def drain(scene):
    """Let all looks pass that follow a message."""
    while not rests(scene.engine):
        scene.time += scene.engine.next_due()
        work_off(scene.engine)


def tick(scene, seconds=PAUSE):
    """Let time pass, and give what is done about reserved regions then."""
    scene.time += seconds
    return [
        (o.action.word.removesuffix("-reserved"), o.action.frames, o.result.value)
        for o in work_off(scene.engine)
    ]


def held_by_pciback(**more):
    """Give a scene in which the NIC is bound to xen-pciback, as by xen-pciback.hide=, and still dom0's."""
    scene = Scene(**more)
    scene.bind(NIC, "pciback")
    scene.told(NIC)
    drain(scene)
    scene.xen.calls.clear()
    return scene


@pytest.mark.parametrize("version", RELEASES)
def test_quarantine_without_a_message_is_found_within_the_pause(version):
    """`xl pci-assignable-add` of what pciback holds already: libxl only calls xc_assign_device(DOMID_IO)."""
    scene = held_by_pciback(version=version)
    scene.xen.give(S(NIC), QUARANTINE)
    due = scene.engine.next_due()
    assert due <= PAUSE
    assert tick(scene, due - 0.1) == []
    assert tick(scene, 0.1) == [("withdraw", ONE, "done")]
    assert scene.mapped() == (OUT, IN, IN)
    assert scene.engine.view.owner(S(NIC)) == "quarantine"


@pytest.mark.parametrize("version", RELEASES)
def test_the_reverse_restores_the_region_within_the_pause(version):
    scene = Scene(version=version)
    scene.give_away(NIC)
    scene.told(NIC)
    drain(scene)
    scene.xen.give(S(NIC), DOM0)  # only xc_deassign_device, as another toolstack does
    assert tick(scene) == [("restore", ONE, "done")]
    assert scene.mapped() == (IN, IN, IN)


@pytest.mark.parametrize("changes", [[guest(3)], [guest(3), QUARANTINE], [guest(3), DOM0]])
def test_a_guest_that_comes_and_goes_is_seen_as_well(changes):
    scene = held_by_pciback()
    for owner in changes:
        scene.xen.give(S(NIC), owner)
        tick(scene)
        drain(scene)
    expected = {guest(3): "guest 3", QUARANTINE: "quarantine", DOM0: "dom0"}[changes[-1]]
    assert scene.engine.view.owner(S(NIC)) == expected
    assert scene.mapped()[0] is (changes[-1] == DOM0)


@pytest.mark.parametrize("seconds", [5, 600])
def test_the_pause_is_a_setting(seconds):
    scene = held_by_pciback(settings=Settings(list_s=0, faults_s=0, owners_s=seconds))
    scene.xen.give(S(NIC), QUARANTINE)
    assert scene.engine.next_due() == pytest.approx(seconds, abs=seconds / 2)
    assert tick(scene, scene.engine.next_due()) == [("withdraw", ONE, "done")]


def test_a_shorter_pause_holds_at_once():
    scene = held_by_pciback(settings=Settings(list_s=0, faults_s=0, owners_s=3600))
    scene.engine.use(Settings(list_s=0, faults_s=0, owners_s=10))
    assert scene.engine.next_due() == pytest.approx(10)
    scene.engine.use(
        Settings(list_s=0, faults_s=0, owners_s=3600)
    )  # the question that waits is not postponed
    assert scene.engine.next_due() == pytest.approx(10)


def test_a_pause_is_not_made_for_a_question_that_does_not_wait():
    engine = settled(Stage())
    engine.use(Settings(list_s=0, faults_s=0, owners_s=10))
    assert engine.next_due() is None


def test_it_is_one_question_and_changes_nothing():
    scene = held_by_pciback()
    assert tick(scene) == []
    asked = [call.op for call in scene.xen.calls]
    assert asked == [Op.KNOWN, Op.CUSTODY, Op.KEY, Op.CONSOLE]
    assert {S(NIC), S(OTHER)} <= set(scene.xen.calls[0].functions)  # all functions in one call
    assert scene.engine.next_due() == PAUSE


@pytest.mark.parametrize("owner", [guest(3), XEN, NOBODY])
def test_xens_console_is_read_only_if_the_hypercall_does_not_tell(owner):
    """A debug key prints on Xen's console: not each minute while a guest has a function."""
    scene = held_by_pciback(settings=OBSERVE)
    scene.xen.give(S(NIC), owner)
    scene.time += PAUSE
    work_off(scene.engine)
    drain(scene)
    scene.xen.calls.clear()
    assert tick(scene) == []
    assert [call.op for call in scene.xen.calls] == [Op.KNOWN, Op.CUSTODY]


def test_a_sleeping_function_is_not_woken():
    """Reading config space wakes a function from D3cold; only what has changed is read."""
    scene = held_by_pciback()
    read = []
    scene.host.read_function = lambda sbdf, former=scene.host.read_function: read.append(sbdf) or former(sbdf)
    tick(scene)
    assert read == []
    scene.xen.give(S(NIC), QUARANTINE)
    tick(scene)
    assert set(read) == {S(NIC)}


ALL = ["00:00.0", "00:1c.0", "01:00.0", "01:00.1"]


def changed(number, **change):
    raws = usual_raws()
    raws[number] = attrs.evolve(raws[number], **change)
    return raws


#  what the machine has: which functions are asked about
SILENT = {
    "nothing": (Stage, None, set()),
    "pciback": (lambda: Stage(changed(2, driver="pciback")), None, {"01:00.0"}),
    "hidden": (Stage, ("01:00.0", XEN), {"01:00.0"}),
    "a guest's": (Stage, ("01:00.0", guest(3)), {"01:00.0"}),
    "orphan": (lambda: Stage(changed(0, driver="x"), settings=OBSERVE), ("01:00.0", NOBODY),
               {"01:00.0"}),
    "ghost": (lambda: Stage(known=[*ALL, "01:00.5"]), None, {"01:00.5"}),
    "unknown to Xen": (lambda: Stage(known=ALL[:3], settings=OBSERVE), None, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_only_while_there_is_such_a_function(name):
    make, given, expected = SILENT[name]
    stage = make()
    if given is not None:
        stage.xen.give(S(given[0]), given[1])
    engine = stage.start()
    compare(engine)
    while not rests(engine):
        stage.time += engine.next_due()
        work_off(engine)
    assert set(map(str, silent_functions(engine.views))) == {f"0000:{each}" for each in expected}
    assert engine.queue.holds(OWNERS, Reason.TIMER) is bool(expected)
    assert (engine.next_due() is None) is not bool(expected)


def test_a_function_that_is_followed_is_asked_about_at_its_other_address():
    engine = settled(Stage())
    engine.views.state.renumbered[S("01:00.0")] = S("03:00.0")
    assert silent_functions(engine.views, [S("01:00.0"), S("01:00.1")]) == {S("01:00.0")}


def test_when_the_last_one_is_back_the_question_ends():
    scene = held_by_pciback()
    scene.bind(NIC, "e1000e")
    scene.told(NIC)
    tick(scene)
    assert scene.engine.next_due() is None
    scene.xen.calls.clear()
    tick(scene)
    assert scene.xen.calls == []


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("version", RELEASES)
def test_a_function_that_xen_was_made_to_forget_is_announced_again(version, dom0):
    scene = held_by_pciback(version=version, dom0=dom0)
    scene.xen.kernel_remove(S(OTHER))  # somebody else calls PHYSDEVOP_pci_device_remove
    scene.time += PAUSE
    assert ("add-device", f"0000:{OTHER}", "done") in told(work_off(scene.engine))
    assert scene.xen.devices[S(OTHER)].owner == DOM0


def test_what_cannot_be_announced_again_is_told():
    scene = held_by_pciback(settings=OBSERVE)
    scene.xen.kernel_remove(S(OTHER))
    scene.time += PAUSE
    work_off(scene.engine)
    assert "unknown-to-xen" in codes(scene.engine)


@pytest.mark.parametrize("op", [Op.KNOWN, Op.CUSTODY])
def test_while_xen_cannot_be_asked_it_is_not_healthy_and_asked_again(op):
    scene = held_by_pciback()
    scene.xen.give(S(NIC), QUARANTINE)
    scene.xen.fail(op, errno.ENOMEM)
    assert tick(scene) == []
    assert "xen-not-asked" in codes(scene.engine)
    assert health_of(scene.engine) == "degraded"
    assert scene.engine.next_due() == 1.0
    assert tick(scene, 1.0) == [("withdraw", ONE, "done")]
    drain(scene)
    assert (codes(scene.engine), health_of(scene.engine)) == (set(), "healthy")


def test_it_is_asked_again_less_and_less_often_while_xen_does_not_answer():
    scene = held_by_pciback()
    pauses = []
    for _ in range(5):
        scene.xen.fail(Op.KNOWN, errno.ENOMEM)
        tick(scene, scene.engine.next_due())
        pauses.append(scene.engine.next_due())
    assert pauses == [1.0, 5.0, 25.0, 60.0, 60.0]


def test_a_console_that_fails_once_is_read_again_in_the_same_round():
    scene = held_by_pciback()
    scene.xen.give(S(NIC), QUARANTINE)
    scene.xen.fail(Op.KEY, errno.ENOMEM)
    assert tick(scene) == [("withdraw", ONE, "done")]


def test_a_dry_run_leaves_the_question_where_it_is():
    scene = held_by_pciback()
    due = scene.engine.next_due()
    dry_run(scene.engine)
    assert scene.engine.next_due() == due


@pytest.mark.parametrize("owners", [*itertools.permutations([DOM0, QUARANTINE, guest(3)], 2)])
def test_what_it_finds_is_what_a_comparison_of_everything_finds(owners):
    """The owner of one function changes while nobody is told, twice in a row."""
    found = []
    for ask in (tick, lambda scene: compare(scene.engine)):
        scene = held_by_pciback()
        for owner in owners:
            scene.xen.give(S(NIC), owner)
            ask(scene)
            drain(scene)
        found.append((scene.engine.view.owner(S(NIC)), scene.mapped(), codes(scene.engine)))
    assert found[0] == found[1]


def test_a_function_that_somebody_makes_xen_forget_is_told_again_though_nothing_else_happens():
    """No message of Linux, no function whose owner may change, no user who asks."""
    stage = Stage(settings=Settings(faults_s=0, list_s=900))
    engine = settled(stage)
    due = engine.next_due()
    assert 0.7 * 900 <= due <= 1.1 * 900  # the machine has rested for a while
    stage.xen.remove_device(S("01:00.0"))
    stage.xen.calls.clear()
    stage.time += due
    work_off(engine)
    assert stage.xen.calls[0].op is Op.KNOWN
    assert set(stage.xen.calls[0].functions) >= set(engine.machine.functions)  # one question about all
    assert S("01:00.0") in engine.view.known
    assert [str(o.outcome.action.sbdf) for o in engine.records][-1] == "0000:01:00.0"


def test_hosts_do_not_ask_at_the_same_time():
    pauses = set()
    for fraction in (0.0, 0.25, 0.5, 0.75):
        stage = Stage(settings=Settings(faults_s=0, list_s=1000))
        stage.time += fraction
        pauses.add(round(settled(stage).next_due()))
    assert len(pauses) == 4
    assert max(pauses) - min(pauses) == 150
