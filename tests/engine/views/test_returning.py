"""A reserved region is back before Linux can bind the former driver of a function that leaves xen-pciback."""

import errno
import itertools

import pytest

from pcipt.daemon.intake import LEAVING
from pcipt.daemon.settings import Settings
from pcipt.engine.queue import Reason
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from tests.engine.stage import S, codes, rests, work_off
from tests.engine.views.test_reserved import DOM0, IN, NIC, ONE, OTHER, OUT, QUARANTINE, SHARED, Scene
from tests.engine.views.test_silent import RELEASES, tick

GUEST = Owner(OwnerKind.DOMAIN, 3)


def released(*functions, **more):
    """Give a scene in which xl gave functions away, and pcipt withdrew what is reserved for them."""
    scene = Scene(**more)
    for address in functions or (NIC,):
        scene.give_away(address)
        scene.told(address)
    rest(scene)
    scene.xen.calls.clear()
    return scene


def rest(scene):
    while not rests(scene.engine):
        scene.time += scene.engine.next_due()
        work_off(scene.engine)


def message(scene, word, address=NIC, driver=None):
    """Let Linux bind or unbind a function and tell it."""
    scene.bind(address, driver)
    scene.hotplug.push(word, S(address))
    return scene.settle(scene.engine)


def remaps(scene):
    return [(call.op, call.frames) for call in scene.xen.changes]


@pytest.mark.parametrize("version", RELEASES)
def test_the_region_is_mapped_at_the_first_message_whoever_owns_it(version):
    """No time passes, and Xen still says quarantine."""
    scene = released(version=version)
    message(scene, "unbind")
    assert remaps(scene) == [(Op.MAP, ONE)]
    assert scene.mapped() == (IN, IN, IN)
    assert scene.xen.devices[S(NIC)].owner == QUARANTINE
    assert not any(call.op is Op.KEY for call in scene.xen.calls)  # before it is asked who owns it


@pytest.mark.parametrize("version", RELEASES)
def test_as_xl_gives_a_function_back(version):
    """`xl pci-assignable-remove -r`: out of quarantine, unbind, bind, in one process."""
    scene = released(version=version)
    scene.xen.give(S(NIC), DOM0)
    message(scene, "unbind")
    assert remaps(scene) == [(Op.MAP, ONE)]
    message(scene, "bind", driver="e1000e")
    rest(scene)
    assert remaps(scene) == [(Op.MAP, ONE)]
    assert (scene.engine.view.owner(S(NIC)), scene.engine.findings) == ("dom0", [])


@pytest.mark.parametrize("version", RELEASES)
def test_what_stays_in_quarantine_loses_its_region_again(version):
    scene = released(version=version)
    message(scene, "unbind")
    assert tick(scene, LEAVING - 0.01) == []
    assert tick(scene, 0.01) == [("withdraw", ONE, "done")]
    assert scene.engine.view.owner(S(NIC)) == "quarantine"
    rest(scene)
    assert tick(scene, 3600) == []
    assert scene.mapped() == (OUT, IN, IN)


def test_no_other_work_withdraws_it_before_that():
    scene = released(OTHER, NIC)
    message(scene, "unbind")
    assert scene.mapped() == (IN, IN, OUT)
    scene.bind(OTHER, "e1000e")
    scene.xen.give(S(OTHER), DOM0)
    scene.engine.add(S(OTHER), Reason.REQUESTED)
    work_off(scene.engine)
    assert scene.mapped()[:2] == (IN, IN)


def test_a_region_that_others_share_is_back_as_well():
    scene = released(NIC, OTHER)
    message(scene, "unbind")
    assert remaps(scene) == [(Op.MAP, ONE), (Op.MAP, SHARED)]
    assert scene.mapped() == (IN, IN, OUT)


def test_bound_to_pciback_again_it_is_withdrawn_again():
    """As a toolstack does that resets the slot."""
    scene = released()
    message(scene, "unbind")
    message(scene, "bind", driver="pciback")
    rest(scene)
    assert remaps(scene) == [(Op.MAP, ONE), (Op.UNMAP, ONE)]


def test_hot_unplug_while_it_is_given_away():
    scene = released()
    message(scene, "unbind")
    scene.pull(NIC)
    scene.hotplug.push("remove", S(NIC))
    scene.settle(scene.engine)
    scene.time += LEAVING
    work_off(scene.engine)
    rest(scene)
    assert scene.mapped() == (OUT, IN, IN)
    assert scene.engine.findings == []


def test_unbind_and_remove_that_arrive_together_restore_nothing():
    scene = released()
    scene.hotplug.push("unbind", S(NIC))
    scene.hotplug.push("remove", S(NIC))
    scene.pull(NIC)
    scene.settle(scene.engine)
    rest(scene)
    assert (Op.MAP, ONE) not in remaps(scene)


def test_what_release_does_itself_restores_nothing():
    """`pcipt release`: xl unbinds the driver, binds pciback, quarantines; then the service is asked."""
    scene = Scene()
    message(scene, "unbind")
    message(scene, "bind", driver="pciback")
    rest(scene)
    scene.xen.give(S(NIC), QUARANTINE)
    scene.told(NIC)
    assert remaps(scene) == [(Op.UNMAP, ONE)]


def test_a_second_function_that_is_released_leaves_a_shared_region_alone():
    scene = released()
    message(scene, "unbind", OTHER)
    message(scene, "bind", OTHER, driver="pciback")
    scene.xen.give(S(OTHER), QUARANTINE)
    scene.told(OTHER)
    rest(scene)
    assert not any(op is Op.MAP for op, _ in remaps(scene))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY])
def test_a_region_that_cannot_be_mapped_is_told_and_tried_again(number):
    scene = released()
    scene.xen.fail(Op.MAP, number)
    message(scene, "unbind")
    assert "region-missing" in codes(scene.engine)
    scene.xen.give(S(NIC), DOM0)
    rest(scene)
    assert scene.mapped() == (IN, IN, IN)
    assert scene.engine.findings == []


def test_observing_it_is_only_planned():
    scene = released(settings=Settings("observe"))
    message(scene, "unbind")
    assert remaps(scene) == []


def test_on_a_pv_dom0_it_is_not_applicable():
    scene = released(dom0="pv")
    message(scene, "unbind")
    assert remaps(scene) == []
    assert scene.engine.findings == []


@pytest.mark.parametrize("words", [*itertools.permutations(["unbind", "bind", "change"])], ids="-".join)
def test_in_whatever_order_messages_arrive_it_ends_in_dom0(words):
    scene = released()
    scene.xen.give(S(NIC), DOM0)
    scene.bind(NIC, "e1000e")
    for word in words:
        scene.hotplug.push(word, S(NIC))
    scene.settle(scene.engine)
    rest(scene)
    assert scene.mapped() == (IN, IN, IN)
    assert scene.engine.view.owner(S(NIC)) == "dom0"
