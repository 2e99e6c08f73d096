"""One connection and its patience: nobody delays anybody, and what is not read is bounded."""

import contextlib
import json
import socket
from types import SimpleNamespace

import pytest

from pcipt.daemon.control import connection as module
from pcipt.daemon.control import protocol
from pcipt.daemon.loop import Loop
from tests.daemon.served import Reader, Served, everything, frames


@pytest.fixture
def served(tmp_path):
    served = Served(str(tmp_path / "control"))
    yield served
    served.close()


@pytest.fixture
def impatient(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    served = Served(str(tmp_path / "control"))
    yield served
    served.close()


@pytest.fixture
def reader(served):
    """Subscribe to everything from event 2 on."""
    with served.connect() as peer:
        peer.sendall(protocol.request("Monitor", {"slot": "2"}, more=True))
        reader = Reader(peer)
        assert reader.frame()["parameters"]["kind"] == "start"
        yield reader


def test_several_requests_on_one_connection_and_a_half_closed_peer(served):
    with served.connect() as peer:
        first, second = (protocol.request("History", {"function": text}) for text in "ab")
        peer.sendall(first + second[:10])
        peer.sendall(second[10:])
        peer.shutdown(socket.SHUT_WR)
        told = frames(everything(peer))
    assert [frame["parameters"]["echo"]["function"] for frame in told] == ["a", "b"]


def test_a_flood_is_answered_one_by_one_while_others_are_served(served):
    """60 000 requests in one go: somebody else's is answered long before the last of them."""
    with served.connect() as flood:
        flood.sendall(b"\0" * 60_000)
        assert "asked" in served.ask(protocol.request("Status"))["parameters"]
        flood.setblocking(False)
        seen = 0
        with contextlib.suppress(BlockingIOError):
            while data := flood.recv(1 << 20):
                seen += data.count(b"\0")
    assert seen < 60_000


def test_pipelined_requests_wait_for_the_reader_and_all_are_answered(served):
    served.size = 300_000  # more than a socket's buffer takes
    with served.connect() as peer:
        peer.sendall(protocol.request("History", {"function": "x"}) * 20 + protocol.request("Status"))
        assert peer.recv(1) == b"{"
        assert served.ask(protocol.request("Status"))["parameters"] == {"asked": 1}  # so it waits
        assert max(p.waiting for p in list(served.server._peers.values())) < 400_000
        peer.shutdown(socket.SHUT_WR)
        told = frames(b"{" + everything(peer))
    assert len(told) == 21
    assert told[-1]["parameters"] == {"asked": 2}


def test_a_request_without_end_is_cut_short(served):
    """100 MB that never become a request: little of it is read."""
    sent = 0
    with served.connect() as peer:
        with contextlib.suppress(OSError):
            for _ in range(1600):
                peer.sendall(b"x" * 65536)
                sent += 65536
        told = frames(everything(peer))
    assert sent < 3_000_000
    assert [frame["error"] for frame in told] == ["org.pcipt.InvalidFrame"]


def test_a_long_request_is_refused_even_with_its_end(served):
    with served.connect() as peer:
        peer.sendall(protocol.request("History", {"function": "x" * 65_000}))
        assert "parameters" in json.loads(everything(peer, one=True))
    with served.connect() as peer:
        with contextlib.suppress(OSError):
            peer.sendall(protocol.request("History", {"function": "x" * 66_000}))
        assert "longer than" in json.loads(everything(peer, one=True))["parameters"]["reason"]


def test_a_peer_that_asks_and_does_not_read_is_dropped(impatient):
    impatient.size = 1_000_000
    with impatient.connect() as deaf:
        deaf.sendall(protocol.request("History", {"function": "x"}) * 3)
        for _ in range(2):  # who came later has lost its patience after it, and so has who came after that
            with impatient.connect() as other:
                assert everything(other) == b""
        assert deaf.recv(1) == b"{"
        assert len(everything(deaf)) < 1_000_000


def test_a_silent_peer_is_dropped(impatient):
    with impatient.connect() as silent:
        assert everything(silent) == b""


def test_a_slow_sender_is_dropped(impatient):
    """A byte now and then is no request: the time counts from the start."""
    with impatient.connect() as slow, contextlib.suppress(OSError):
        for byte in b'{"method": "org.pcipt.Status"}' * 1000:
            slow.send(bytes([byte]))
            if not impatient.server._peers:
                break
        assert everything(slow) == b""
    assert impatient.server._peers == {}


def test_a_peer_that_leaves_in_the_middle_is_forgotten(served):
    for data in (b"{", protocol.request("Status"), protocol.request("Monitor", more=True)):
        with served.connect() as peer:
            peer.sendall(data)
    while served.server._peers:
        served.ask(protocol.request("Status"))  # its own connection may still be there
    assert served.server.subscribers == 0


def test_a_stream_carries_the_events_that_are_wanted(served, reader):
    served.events = 5
    served.ask(protocol.request("History", {"function": "x"}))
    told = [reader.frame() for _ in range(3)]
    assert [frame["parameters"]["n"] for frame in told] == [2, 3, 4]
    assert all(frame["continues"] for frame in told)


def test_a_subscriber_may_go_on_asking(served):
    with served.connect() as peer:
        peer.sendall(protocol.request("Monitor", more=True) + protocol.request("Status") * 2)
        reader = Reader(peer)
        told = [reader.frame()["parameters"] for _ in range(3)]
    assert told == [{"version": 1, "kind": "start"}, {"asked": 1}, {"asked": 2}]


def test_a_slow_reader_loses_events_and_is_told_how_many_when_it_reads_again(served, reader):
    served.events = 3002
    served.ask(protocol.request("History", {"function": "x"}))
    *told, lost = reader.until(lambda event: event.get("kind") == "lost")
    assert lost["parameters"]["count"] + len({frame["parameters"]["n"] for frame in told}) == 3000


def test_a_subscriber_that_floods_and_does_not_read_keeps_little(served):
    served.size = 100_000
    with served.connect() as peer, contextlib.suppress(OSError):
        peer.settimeout(0.2)
        peer.sendall(
            protocol.request("Monitor", more=True) + protocol.request("History", {"function": "x"}) * 5000
        )
    assert all(p.waiting < 600_000 for p in list(served.server._peers.values()))
    assert "parameters" in served.ask(protocol.request("Status"))


def test_a_subscriber_may_be_silent(impatient):
    with impatient.connect() as peer:
        peer.sendall(protocol.request("Monitor", more=True))
        reader = Reader(peer)
        reader.frame()
        with impatient.connect() as silent:
            assert everything(silent) == b""  # by now PATIENCE is over
        impatient.events = 1
        impatient.ask(protocol.request("History", {"function": "x"}))
        assert reader.frame()["parameters"]["n"] == 0


def test_what_a_subscription_was_for_ends_with_its_reader(served):
    """However it ends: by another subscription in its place, or with the connection."""
    with served.connect() as peer:
        reader = Reader(peer)
        for slot in ("2", "5"):
            peer.sendall(protocol.request("Monitor", {"slot": slot}, more=True))
            assert reader.frame()["parameters"]["kind"] == "start"
    while len(served.over) < 2:
        served.ask(protocol.request("Status"))
    assert served.over == [2, 5]


# Answers that are given later

LATER, GIVE, STATUS = (protocol.request(name) for name in ("Metrics", "Rmrr", "Status"))


@pytest.mark.parametrize("order", [("give", "when"), ("when", "give")], ids="-".join)
def test_whoever_waits_for_an_answer_is_called_with_it_once(order):
    later, heard = module.Later(), []
    steps = {"give": lambda: later.give({"n": 1}), "when": lambda: later.when_given(heard.append)}
    steps[order[0]]()
    assert heard == []
    steps[order[1]]()
    assert heard == [{"n": 1}]


def test_an_answer_that_is_given_later_arrives_when_it_is_given(served):
    with served.connect() as peer:
        peer.sendall(LATER)
        served.until_waiting()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        assert served.ask(GIVE)["parameters"] == {"gave": 1}
        peer.settimeout(20)
        assert Reader(peer).frame()["parameters"] == {"given": 0, "pad": ""}


def test_each_of_several_peers_gets_its_answer_later(served):
    with served.connect() as first, served.connect() as second:
        for number, peer in enumerate((first, second), 1):
            peer.sendall(LATER)
            served.until_waiting(number)
        served.ask(GIVE)
        assert [Reader(peer).frame()["parameters"]["given"] for peer in (first, second)] == [0, 1]


def test_requests_that_have_arrived_behind_one_that_waits_are_answered_after_it(served):
    with served.connect() as peer:
        peer.sendall(LATER + STATUS + LATER + STATUS)
        reader = Reader(peer)
        served.until_waiting()
        before = served.asked
        served.ask(GIVE)
        assert reader.frame()["parameters"]["given"] == 0
        assert reader.frame()["parameters"] == {"asked": before + 1}
        served.until_waiting()
        served.ask(GIVE)
        assert reader.frame()["parameters"]["given"] == 0
        assert reader.frame()["parameters"]["asked"] > before + 1


def test_a_request_that_arrives_while_the_peer_waits_is_answered_after_that(served):
    with served.connect() as peer:
        peer.sendall(LATER)
        served.until_waiting()
        peer.sendall(STATUS)
        before = served.ask(STATUS)["parameters"]["asked"]
        served.ask(GIVE)
        reader = Reader(peer)
        assert [reader.frame()["parameters"] for _ in range(2)] == [
            {"given": 0, "pad": ""},
            {"asked": before + 1},
        ]


def test_a_long_answer_that_is_given_later_is_read_before_the_next_request(served):
    served.size = 300_000  # more than a socket's buffer takes
    with served.connect() as peer:
        peer.sendall(LATER + STATUS)
        served.until_waiting()
        served.ask(GIVE)
        asked = served.ask(STATUS)["parameters"]["asked"]
        reader = Reader(peer)
        assert len(reader.frame()["parameters"]["pad"]) == 300_000
        assert reader.frame()["parameters"] == {"asked": asked + 1}


def test_a_half_closed_peer_gets_its_answer_later_and_then_the_end(served):
    with served.connect() as peer:
        peer.sendall(STATUS + LATER)
        peer.shutdown(socket.SHUT_WR)
        served.until_waiting()
        served.ask(GIVE)
        told = [frame["parameters"] for frame in frames(everything(peer))]
    assert [sorted(each) for each in told] == [["asked"], ["given", "pad"]]


def test_nothing_is_read_from_a_peer_that_waits(served):
    sent = 0
    with served.connect() as peer:
        peer.sendall(LATER)
        served.until_waiting()
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(1600):
                sent += peer.send(STATUS * 1000)
        served.until_waiting()
        assert sent < 3_000_000
        assert sum(len(p._input) for p in list(served.server._peers.values())) == 0


@pytest.mark.parametrize("more", [b"", STATUS, STATUS[:10]], ids=len)
def test_a_peer_that_leaves_while_it_waits_disturbs_nobody(served, more):
    with served.connect() as stays:
        with served.connect() as leaves:
            leaves.sendall(LATER + more)
            served.until_waiting()
        stays.sendall(LATER)
        served.until_waiting(2)
        assert served.ask(GIVE)["parameters"] == {"gave": 2}
        assert Reader(stays).frame()["parameters"]["given"] == 1
        while len(served.server._peers) > 1:
            served.ask(STATUS)  # its own connection may still be there
        assert served.ask(STATUS)["parameters"]["asked"] > 0


def test_a_peer_may_wait_for_its_answer_for_any_time_and_loses_patience_after_it(impatient):
    with impatient.connect() as peer:
        peer.sendall(LATER)
        impatient.until_waiting()
        for _ in range(2):
            with impatient.connect() as silent:
                assert everything(silent) == b""  # PATIENCE was over for whoever came later
        impatient.ask(GIVE)
        (told,) = frames(everything(peer))  # and the end, for it does not ask again
        assert told["parameters"]["given"] == 0


def test_a_subscriber_that_waits_gets_events_and_then_its_answer(served):
    with served.connect() as peer:
        peer.sendall(protocol.request("Monitor", more=True) + LATER)
        served.until_waiting()
        served.events = 2
        served.ask(protocol.request("History", {"function": "x"}))
        served.ask(GIVE)
        served.ask(protocol.request("History", {"function": "x"}))
        reader = Reader(peer)
        assert reader.frame()["parameters"]["kind"] == "start"
        told = [reader.frame()["parameters"] for _ in range(5)]
    assert [each.get("n", "answer") for each in told] == [0, 1, "answer", 0, 1]


def test_a_connection_that_was_closed_while_it_waited_gets_no_answer():
    later, forgotten, loop = module.Later(), [], Loop()
    server = SimpleNamespace(
        answer=lambda _frame, _uid: (later, None), has_room_for=lambda _peer: True, forget=forgotten.append,
        wait_for_turn=lambda peer: loop.last(peer.take_turn),
    )  # fmt: skip
    here, there = socket.socketpair()
    with there:
        peer = module.Peer(here, 0, loop, server)
        there.sendall(LATER)
        loop.turn()
        peer.close()
        later.give({"too": "late"})
        assert there.recv(1) == b""
    assert forgotten == [peer]
    assert loop._timeout() is None
    loop.close()
