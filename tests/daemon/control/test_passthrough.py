"""What the commands ask of the daemon, on a machine whose NIC needs a reserved region."""

import errno
import os
import signal
import threading
import time

import attrs
import pytest

from pcipt.cli.machine.client import call, stream
from pcipt.daemon.control.passthrough import Passthrough
from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.replay.recording import RecordedHotplug
from pcipt.daemon.settings import Settings
from pcipt.daemon.telling.log import Logs
from pcipt.engine.queue import Reason
from pcipt.errors import StateError, UnsupportedError
from pcipt.host.uevents import HotplugEvent
from pcipt.pci import Frames, Gfn, Range, Resource
from pcipt.xen.interface import Permissions
from pcipt.xen.outcome import Op
from tests.engine.stage import S, look, work_off
from tests.engine.views.test_reserved import (
    HOT,
    IN,
    LATE,
    NIC,
    ONE,
    OTHER,
    OUT,
    QUARANTINE,
    SHARED,
    Scene,
    guest,
)
from tests.xen.devices import device

BAR, ROM, PORTS = Frames(Gfn(0xFE200), 0x20), Frames(Gfn(0xFE300), 4), Range(0xC000, 0x20)


class Asked:
    """A daemon's part: what is to be done soon is done by `turn`."""

    def __init__(self, **more):
        self.scene = Scene(**more)
        self.soon, self.looked = [], []
        self.passthrough = Passthrough(self.scene.engine, self._look, self.soon.append)

    def _look(self, functions):
        self.looked.append([str(sbdf)[5:] for sbdf in functions])
        return look(self.scene.engine, functions, Reason.REQUESTED)

    def quarantine(self, *addresses):
        for address in addresses:
            self.scene.give_away(address)
            self.passthrough.release(S(address))
        self.looked.clear()

    def held(self):
        return dict(self.scene.engine.memory.held_regions)

    def turn(self):
        while self.soon:
            self.soon.pop()()


def states(told):
    return [region["mapped"] for region in told["regions"]]


def test_a_release_tells_who_has_it_and_what_became_of_its_regions():
    asked = Asked()
    assert states(asked.passthrough.release(S(NIC))) == ["by-xen", "by-xen"]
    asked.scene.give_away(NIC)
    told = asked.passthrough.release(S(NIC))
    assert (told["owner"], states(told)) == ("quarantine", ["withdrawn", "by-xen"])
    assert [(action["action"], action["result"]) for action in told["actions"]] == [
        ("withdraw-reserved", "done")
    ]
    again = asked.passthrough.release(S(NIC))
    assert (states(again), again["actions"]) == (["withdrawn", "by-xen"], [])


def test_on_pv_regions_are_not_applicable():
    asked = Asked(dom0="pv")
    asked.scene.give_away(NIC)
    told = asked.passthrough.release(S(NIC))
    assert (states(told), told["actions"]) == (["not-applicable", "not-applicable"], [])
    assert states(asked.passthrough.reclaim(S(NIC)).first) == ["not-applicable", "not-applicable"]


@pytest.mark.parametrize("returns", [True, False])
def test_a_reclaim_holds_the_regions_until_it_is_over(returns):
    asked = Asked()
    asked.scene.give_away(NIC)
    asked.passthrough.release(S(NIC))
    subscription = asked.passthrough.reclaim(S(NIC))
    assert (subscription.first["kind"], states(subscription.first)) == ("start", ["by-pcipt", "by-xen"])
    assert not subscription.wanted({"kind": "hotplug"})
    assert asked.scene.told(NIC) == []  # held, although it is in quarantine
    if returns:
        asked.scene.take_back(NIC)
    subscription.over()  # also where the command was killed
    asked.turn()
    assert asked.scene.mapped() == (IN if returns else OUT, IN, IN)


@pytest.fixture
def survivor():
    """Outlive a SIGTERM that comes after the daemon in this process has ended by itself."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


class Asking:
    """A daemon in this process, asked by a thread; its source of hot-plug messages wakes nobody."""

    def __init__(self, directory):
        self.scene, self.hotplug, self.told = Scene(), RecordedHotplug(), []
        self.options = Options(
            str(directory / "control"), str(directory / "state"), str(directory / "no"), False
        )
        os.mkdir(self.options.state)

    def run(self, steps):
        def ask():
            try:
                steps()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        asks = threading.Timer(0.2, ask)
        options, log = self.options, Logs(lambda *_: None)
        Daemon(self.scene.host, self.scene.xen, self.hotplug, options, Settings(), log).run(asks.start)
        asks.join()

    def arrive(self):
        self.scene.plug(device(LATE))
        self.hotplug.push([HotplugEvent("add", S(LATE), 1, False)])

    def release(self):
        self.told.append(call(self.options.socket, "Release", {"function": OTHER})["owner"])

    def wait_given(self):
        """Wait until the service has found out by itself whose it is now."""
        while call(self.options.socket, "Status")["given_away"][0]["owner"] != "quarantine":
            time.sleep(0.05)


@pytest.mark.usefixtures("survivor")
@pytest.mark.parametrize("late", [False, True], ids=["asked", "looked again"])
def test_what_arrived_a_moment_ago_keeps_the_region_that_it_needs(tmp_path, late):
    """The kernel's message of it is still unread when another function is seen to leave dom0."""
    asking = Asking(tmp_path)

    def steps():
        asking.scene.bind(OTHER, "pciback")
        if late:
            asking.release()
        asking.arrive()
        asking.scene.give_away(OTHER)
        if late:
            asking.wait_given()
        asking.release()

    asking.run(steps)
    assert asking.told == ["dom0", "quarantine"][not late :]
    assert asking.scene.mapped() == (IN, IN, IN)


def test_two_reclaims_of_one_region_hold_it_until_both_are_over():
    asked = Asked()
    for address in (NIC, OTHER):
        asked.scene.give_away(address)
        asked.passthrough.release(S(address))
    first, second = (asked.passthrough.reclaim(S(address)) for address in (NIC, OTHER))
    first.over()
    asked.turn()
    assert asked.scene.mapped() == (OUT, IN, IN)
    second.over()
    asked.turn()
    assert asked.scene.mapped() == (OUT, OUT, OUT)


def test_two_clients_that_reclaim_one_device_hold_its_regions_until_both_have_left():
    asked = Asked()
    asked.quarantine(NIC)
    first, second = (asked.passthrough.reclaim(S(NIC)) for _ in range(2))
    assert [states(each.first) for each in (first, second)] == [["by-pcipt", "by-xen"]] * 2
    assert second.first["actions"] == []
    assert asked.held() == {ONE: 2, SHARED: 2}
    first.over()
    asked.turn()
    assert asked.held() == {ONE: 1, SHARED: 1}
    assert asked.scene.mapped() == (IN, IN, IN)
    second.over()
    asked.turn()
    assert asked.held() == {}
    assert asked.scene.mapped() == (OUT, IN, IN)


def test_a_region_of_two_devices_is_counted_for_each_client():
    asked = Asked()
    asked.quarantine(NIC, OTHER)
    subscriptions = [asked.passthrough.reclaim(S(address)) for address in (NIC, NIC, OTHER)]
    assert asked.held() == {ONE: 2, SHARED: 3, HOT: 1}
    for subscription, held in zip(
        subscriptions, ({ONE: 1, SHARED: 2, HOT: 1}, {SHARED: 1, HOT: 1}, {}), strict=True
    ):
        subscription.over()
        assert asked.held() == held


def test_the_device_is_looked_at_again_after_its_client_has_left_and_not_before():
    asked = Asked()
    asked.quarantine(NIC)
    subscription = asked.passthrough.reclaim(S(NIC))
    assert asked.looked == [[NIC]]
    subscription.over()
    assert asked.looked == [[NIC]]  # the connection is being closed: nothing is done from within that
    assert asked.scene.mapped() == (IN, IN, IN)
    asked.turn()
    assert asked.looked == [[NIC], [NIC]]
    assert asked.scene.mapped() == (OUT, IN, IN)


def test_a_reclaim_that_fails_takes_nothing_from_the_client_that_holds_the_region():
    asked = Asked()
    asked.quarantine(NIC)
    first = asked.passthrough.reclaim(S(NIC))
    asked.scene.give_away(OTHER)
    asked.scene.told(OTHER)
    asked.scene.xen.fail(Op.MAP, errno.EBUSY)
    with pytest.raises(StateError):
        asked.passthrough.reclaim(S(OTHER))  # HOT cannot be put back
    asked.turn()
    assert asked.held() == {ONE: 1, SHARED: 1}
    assert asked.scene.mapped() == (IN, IN, OUT)
    first.over()
    asked.turn()
    assert (asked.held(), asked.scene.mapped()) == ({}, (OUT, OUT, OUT))


@pytest.mark.usefixtures("survivor")
def test_clients_that_leave_give_back_what_they_held(tmp_path):
    """Their connections are closed, as if the commands were killed; the last of them ends it."""
    asking, seen = Asking(tmp_path), []

    def withdrawn():
        told = call(asking.options.socket, "Rmrr")["regions"]
        return [region["mapped"] for region in told].count("withdrawn")

    def reclaim():
        client = stream(asking.options.socket, "Reclaim", {"function": NIC})
        seen.append(states(next(client)))
        return client

    def steps():
        asking.scene.give_away(NIC)
        call(asking.options.socket, "Release", {"function": NIC})
        seen.append(withdrawn())
        first, second = reclaim(), reclaim()
        first.close()
        while call(asking.options.socket, "Status")["monitors"] > 1:
            pass
        seen.append(withdrawn())
        second.close()
        while not withdrawn():
            pass

    asking.run(steps)
    assert seen == [1, ["by-pcipt", "by-xen"], ["by-pcipt", "by-xen"], 0]
    assert asking.scene.mapped() == (OUT, IN, IN)


def test_a_region_that_cannot_be_put_back_is_an_error_and_nothing_is_held():
    asked = Asked()
    asked.scene.give_away(NIC)
    asked.passthrough.release(S(NIC))
    asked.scene.xen.fail(Op.MAP, errno.EBUSY)
    with pytest.raises(
        StateError,
        match=r"0000:02:00.0: its reserved region .* cannot be mapped into dom0 again: .*memory_mapping",
    ):
        asked.passthrough.reclaim(S(NIC))
    asked.turn()
    assert asked.scene.mapped() == (OUT, IN, IN)
    assert list(asked.scene.engine.memory.held_regions) == []


def test_in_observe_mode_a_withdrawn_region_is_not_put_back_and_that_is_said():
    asked = Asked()
    asked.scene.give_away(NIC)
    asked.passthrough.release(S(NIC))
    asked.scene.engine.settings = Settings(mode="observe")
    with pytest.raises(StateError, match="the settings do not allow this"):
        asked.passthrough.reclaim(S(NIC))


# What guests may reach


def owned(*memory, ports=(), number=3):
    """Let a guest have the NIC, and these permissions."""
    asked = Asked()
    asked.scene.give_away(NIC, guest(number))
    asked.scene.xen.grants[number] = Permissions(tuple(memory), tuple(ports))
    asked.scene.told(NIC)
    return asked


def codes(told):
    return [(finding["sbdf"], finding["code"]) for finding in told["findings"]]


def test_a_guest_that_reaches_what_it_has_is_clean():
    asked = owned(BAR, ONE, SHARED)
    assert asked.passthrough.guests() == {"version": 1, "guests": [3], "findings": []}


def test_the_place_of_a_rom_whose_register_is_zero_is_rightful():
    asked = owned(BAR, ROM)
    assert codes(asked.passthrough.guests()) == [("0000:02:00.0", "guest-leftover")]
    raw = asked.scene.files.raws[S(NIC)]
    line = Resource(ROM.range.start, ROM.range.size, Resource.MEMORY)
    lines = (*raw.resources[:6], line, *raw.resources[7:])
    asked.scene.files.raws[S(NIC)] = attrs.evolve(raw, resources=lines)
    asked.scene.told(NIC)
    assert codes(asked.passthrough.guests()) == []


def test_a_bar_that_moved_under_a_guest():
    asked = owned(Frames(Gfn(0xFE400), 0x20))
    told = asked.passthrough.guests()
    assert sorted(codes(told)) == [
        ("0000:02:00.0", "guest-bar-moved"),
        ("0000:02:00.0", "guest-leftover"),
    ]
    assert {finding.code for _, finding in asked.scene.engine.findings} == {
        "guest-bar-moved",
        "guest-leftover",
    }


def test_what_stays_with_a_guest_after_a_detach_is_a_finding_until_it_is_gone():
    asked = owned(BAR, ports=[PORTS])
    scene = asked.scene
    scene.xen.give(S(NIC), QUARANTINE)
    scene.told(NIC)
    assert [finding.code for _, finding in scene.engine.findings] == ["guest-leftover"] * 2  # pages and ports
    del scene.xen.grants[3]  # the guest was about to end
    while scene.engine.findings:
        assert scene.engine.next_due() is not None
        scene.time += scene.engine.next_due()
        work_off(scene.engine)
    assert scene.time < 10


def test_a_detach_that_took_everything_is_clean():
    asked = owned()
    asked.scene.xen.give(S(NIC), QUARANTINE)
    asked.scene.told(NIC)
    assert asked.scene.engine.findings == []


def test_permissions_are_not_asked_where_no_guest_has_anything():
    asked = Asked()
    asked.scene.give_away(NIC)
    asked.scene.told(NIC)
    before = [call.op for call in asked.scene.xen.calls].count(Op.KEY)
    assert asked.passthrough.guests()["guests"] == []
    assert [call.op for call in asked.scene.xen.calls].count(Op.KEY) == before + 1  # who has it


def test_a_xen_that_does_not_tell_is_an_error():
    asked = owned(BAR)
    asked.scene.xen.fail(Op.KEY, errno.EPERM)
    with pytest.raises(UnsupportedError, match="permissions of guests"):
        asked.passthrough.guests()


def test_who_left_is_remembered_while_xen_does_not_tell():
    asked = owned(BAR)
    asked.scene.xen.give(S(NIC), QUARANTINE)
    asked.scene.xen.fail(Op.KEY, errno.EAGAIN, call=2)  # who has it, and then who reaches what
    asked.scene.told(NIC)
    asked.scene.xen.fail(Op.KEY, errno.EAGAIN)
    with pytest.raises(UnsupportedError):
        asked.passthrough.guests()
    assert codes(asked.passthrough.guests()) == [("0000:02:00.0", "guest-leftover")]
    del asked.scene.xen.grants[3]
    assert asked.passthrough.guests() == {"version": 1, "guests": [], "findings": []}
    assert asked.passthrough.guests() == {"version": 1, "guests": [], "findings": []}  # no old trouble
