"""Nobody takes the turns of another: first the engine, then the watchdog, then one answer for each user.

Turns of the loop are counted, not seconds.
"""

import json
import os
import socket
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from pcipt.daemon.control import protocol, server
from pcipt.daemon.control.listener import listen
from pcipt.daemon.control.status import mappings_to_json
from pcipt.daemon.control.turns import Turns
from pcipt.daemon.loop import Loop
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.remap.desired import By
from pcipt.remap.mapped_pages import MappedRun
from tests.engine.stage import Stage

ROOT = os.geteuid() == 0
FUNCTIONS = 10_000


class Named:
    def __init__(self, name, uid, *, own=False):
        self.name, self.uid, self.own = name, uid, own


def order(turns):
    taken = []
    while turns:
        taken.append(turns.take().name)
    return taken


def test_each_uid_has_its_turn_and_the_watchdog_the_first():
    turns, peers = Turns(), [Named(f"a{n}", 1000) for n in range(16)]
    for peer in [*peers, Named("root", 0), Named("watchdog", 0, own=True), peers[0]]:
        turns.add(peer)
    assert order(turns)[:5] == ["watchdog", "a0", "root", "a1", "a2"]


def test_a_uid_that_asks_again_at_once_goes_to_the_end():
    turns = Turns()
    greedy, other = Named("greedy", 1000), Named("other", 1001)
    turns.add(greedy)
    turns.add(other)
    seen = []
    for _ in range(4):
        seen.append(turns.take())
        turns.add(seen[-1])
    assert [peer.name for peer in seen] == ["greedy", "other", "greedy", "other"]


def test_who_has_left_has_no_turn():
    turns, one, other = Turns(), Named("one", 0), Named("other", 0)
    for peer in (one, other):
        turns.add(peer)
        turns.forget(peer)
        turns.forget(peer)
    assert not turns
    turns.add(one)
    turns.add(other)
    turns.forget(one)
    assert order(turns) == ["other"]


class Scene:
    """A server beside a hot-plug source: `worked` has how many answers came before each event's work."""

    def __init__(self, tmp_path, monkeypatch):
        self.loop, self.answers, self.worked = Loop(), 0, []
        monkeypatch.setattr(
            server, "credentials", lambda _connection: (1, self.next_uid, frozenset({os.getgid()}))
        )
        monkeypatch.setattr(server, "group_of", lambda _listener: os.getgid())
        self.next_uid, self.readings = 0, 1
        self.engine = held_engine()
        self.path = str(tmp_path / "control")
        self.server = server.Server(
            self.loop, listen(self.path),
            {"Mappings": lambda _: self.answer("Mappings"), "Status": lambda _: self.answer("Status")},
            {"Monitor": lambda _: server.Subscription(lambda _: True)},
            stamps={"Mappings": lambda: self.readings}, path=self.path,
        )  # fmt: skip
        self.events, self.kernel = socket.socketpair()
        self.loop.watch(self.events.fileno(), 1, lambda _: self.hotplug())

    def answer(self, name):
        self.answers += 1
        if name == "Mappings":
            return mappings_to_json(self.engine, SimpleNamespace(dom0=SimpleNamespace(value="pvh")))
        return {"answers": self.answers}

    def hotplug(self):
        """What Intake and Worker do: the message becomes work, the work is done in the loop."""
        self.events.recv(1)
        self.loop.after("work", 0.0, lambda: self.worked.append(self.answers))

    def connect(self, uid):
        self.next_uid = uid
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.path)
        peer.setblocking(False)
        self.loop.after("tick", 0.0, lambda: None)
        self.loop.turn()
        return peer

    def turn(self):
        self.loop.after("tick", 0.0, lambda: None)  # no turn of a test waits
        self.loop.turn()

    def close(self):
        self.server.close()
        self.loop.close()
        self.events.close()
        self.kernel.close()


def held_engine():
    """Return what `mappings_to_json` needs of an engine that holds the pages of 10,000 functions."""
    engine = Stage().start()
    for number in range(FUNCTIONS):
        sbdf = Sbdf(1 + number // 65536, number >> 8 & 0xFF, number >> 3 & 0x1F, number & 7)
        engine.ledger.mapped.put(
            MappedRun(str(sbdf), sbdf, 0, Frames(Gfn(0x100000 + 8 * number), 4), By.US, "now")
        )
    return engine


@pytest.fixture
def scene(tmp_path, monkeypatch):
    scene = Scene(tmp_path, monkeypatch)
    yield scene
    scene.close()


def drained(peer):
    """Read what has arrived."""
    data = b""
    try:
        while part := peer.recv(1 << 20):
            data += part
    except BlockingIOError:
        pass
    return data


def test_sixteen_readers_of_one_uid_delay_a_hotplug_by_one_answer(scene):
    ask = protocol.request("Mappings")
    with ExitStack() as held:
        peers = [held.enter_context(scene.connect(1000)) for _ in range(server.CONNECTIONS_PER_UID)]
        for peer in peers:
            peer.sendall(ask * 20)  # as fast as they can
        for number in range(30):
            scene.readings += 1  # so that no answer is kept: each costs
            for peer in peers:
                drained(peer)
            scene.kernel.send(b"x")
            before, done = scene.answers, len(scene.worked)
            scene.turn()
            scene.turn()
            assert len(scene.worked) == done + 1, number
            assert scene.worked[-1] - before <= 1
        assert scene.answers >= 20  # they were served all the while


def test_sixteen_readers_of_one_uid_delay_roots_question_by_one_answer(scene):
    with ExitStack() as held:
        peers = [held.enter_context(scene.connect(1000)) for _ in range(server.CONNECTIONS_PER_UID)]
        root = held.enter_context(scene.connect(0))
        for peer in peers:
            peer.sendall(protocol.request("Mappings") * 20)
        for _ in range(5):
            scene.turn()
        before = scene.answers
        root.sendall(protocol.request("Status"))
        answered = b""
        for _ in range(4):
            scene.readings += 1
            scene.turn()
            answered += drained(root)
        assert json.loads(answered[:-1])["parameters"]["answers"] <= before + 2


def test_an_answer_is_kept_until_something_changes(scene):
    with scene.connect(1000) as peer:
        told = []
        for readings in (1, 1, 1, 2):
            scene.readings = readings
            peer.sendall(protocol.request("Mappings"))
            data = b""
            while b"\0" not in data:
                scene.turn()
                data += drained(peer)
            told.append(data)
    assert len(set(told)) == 1
    assert len(told[0]) > 1_000_000
    assert scene.answers == 2


@pytest.mark.parametrize("uid", [0, 1000])
def test_monitors_leave_places_for_questions(scene, uid):
    with ExitStack() as held:
        peers = [held.enter_context(scene.connect(uid)) for _ in range(server.CONNECTIONS_PER_UID)]
        told = []
        for peer in peers:
            peer.sendall(protocol.request("Monitor", more=True))
            scene.turn()
            scene.turn()
            told.append(json.loads(drained(peer)[:-1]))
        assert scene.server.subscribers == server.SUBSCRIPTIONS_PER_UID
        assert [each.get("error") for each in told[server.SUBSCRIPTIONS_PER_UID :]] == ["org.pcipt.Busy"] * 4
        peers[-1].sendall(protocol.request("Status"))
        scene.turn()
        scene.turn()
        assert "parameters" in json.loads(drained(peers[-1])[:-1])


def test_of_what_may_take_long_a_loop_calls_one_in_a_turn_after_everything_else():
    loop, called = Loop(), []

    def late(name):
        return lambda: called.append(name)

    first, second = late("first"), late("second")
    for callback in (first, second, first):
        loop.last(callback)
    for _ in range(3):
        loop.after("work", 0.0, lambda: called.append("work"))
        loop.turn()
    assert called == ["work", "first", "work", "second", "work"]
    loop.close()
