"""Who may ask what, and what comes back."""

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from pcipt.daemon.control import protocol, server
from pcipt.daemon.control.listener import listen
from pcipt.daemon.loop import Loop
from pcipt.errors import InputError
from tests.daemon.served import Served, everything

ROOT = os.getuid() == 0
V = "org.varlink.service"


@pytest.fixture
def served(tmp_path):
    served = Served(str(tmp_path / "control"))
    yield served
    served.close()


def test_a_request_is_answered(served):
    asked = protocol.request("History", {"function": "x"})
    assert served.ask(asked) == {"parameters": {"echo": {"function": "x"}, "pad": ""}}


def test_the_socket_is_for_root_and_its_group_only(served):
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o660


#  what is sent, the error that comes back, and the parameter or reason that it names
BAD = [
    (b"\0", "org.pcipt.InvalidFrame", "not JSON"),
    (b"[1]\0", "org.pcipt.InvalidFrame", "not a JSON object"),
    (b"\xff\xff\0", "org.pcipt.InvalidFrame", "not JSON in UTF-8"),
    (b'{"a":' + b"[" * 30_000 + b"\0", "org.pcipt.InvalidFrame", "nested deeper than 16"),
    (b"x" * (protocol.REQUEST_LIMIT + 1), "org.pcipt.InvalidFrame", "longer than"),
    (b"{}\0", f"{V}.InterfaceNotFound", ""),
    (b'{"method":7}\0', f"{V}.InterfaceNotFound", ""),
    (b'{"method":"org.other.Status"}\0', f"{V}.InterfaceNotFound", "org.other"),
    (b'{"method":"org.pcipt.Format"}\0', f"{V}.MethodNotFound", "org.pcipt.Format"),
    (b'{"method":"org.pcipt.Status","parameters":[1]}\0', f"{V}.InvalidParameter", "parameters"),
    (protocol.request("Status", {"x": 1}), f"{V}.InvalidParameter", "Status has none"),
    (protocol.request("History", {"functoin": "x"}), f"{V}.InvalidParameter", "expected function"),
    (protocol.request("History", {"function": 7}), f"{V}.InvalidParameter", "must be a text"),
    (protocol.request("Monitor"), f"{V}.ExpectedMore", "org.pcipt.Monitor"),
    (b'{"method":"org.varlink.service.Get"}\0', f"{V}.MethodNotFound", "service.Get"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "error", "words"), BAD, ids=range(len(BAD)))
def test_bad_requests_get_an_error_and_the_server_lives(served, sent, error, words):
    told = served.ask(sent)
    assert told["error"] == error
    assert words in json.dumps(told["parameters"])
    assert "parameters" in served.ask(protocol.request("Status"))


@pytest.mark.parametrize(
    ("uid", "request_", "error"),
    [
        (0, protocol.request("Resync", {"dry_run": None}), "org.pcipt.NoSuchDevice"),  # it was let through
        (1000, protocol.request("Resync"), f"{V}.PermissionDenied"),
        (1000, protocol.request("Resync", {"dry_run": True}), f"{V}.PermissionDenied"),
        (1000, protocol.request("Resync", {"nonsense": 1}), f"{V}.PermissionDenied"),
        (1000, protocol.request("Status"), None),
    ],
)
def test_only_root_may_change(served, uid, request_, error):
    answer, _ = served.server.answer(request_[:-1], uid)
    assert json.loads(answer[:-1]).get("error") == error


def test_every_method_that_changes_is_for_root_only():
    assert {name for name, method in protocol.METHODS.items() if method.changes} <= {
        "Resync", "Release", "Reclaim", "Admit", "Guests",
    }  # fmt: skip
    assert protocol.METHODS["Resync"].changes


def test_a_oneway_call_is_done_and_not_answered(served):
    with served.connect() as peer:
        peer.sendall(protocol.encode_frame({"method": "org.pcipt.Status", "oneway": True}))
        peer.sendall(protocol.request("Status"))
        assert json.loads(everything(peer, one=True))["parameters"] == {"asked": 2}


# Connects as uid 12345 with the given groups, and prints what comes before anything was sent, then an answer.
STRANGER = """
import os, socket, sys
os.setgroups([int(group) for group in sys.argv[2].split(",") if group])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect(sys.argv[1])
peer.settimeout(float(sys.argv[3]))
try:
    print(peer.recv(9999))
except TimeoutError:
    peer.settimeout(20)
    peer.sendall(b'{"method":"org.pcipt.Status"}' + bytes(1))
    print(peer.recv(9999))
"""


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("groups", "patience", "words"),
    [
        (
            "",
            "20",
            f"{V}.PermissionDenied",
        ),  # neither root nor in the group: not one byte is read
        ("23456,34567", "0.3", "asked"),  # in the group by a supplementary one
    ],
)
def test_others_are_refused_before_anything_is_read(tmp_path, groups, patience, words):
    os.chmod(tmp_path, 0o755)
    for above in tmp_path.parents:
        if above.name.startswith(("pytest-", "popen-")):
            os.chmod(above, 0o755)
    path = str(tmp_path / "control")
    before = listen(path)
    before.close()
    os.chown(path, -1, 34567)
    served = Served(path)
    os.chown(path, -1, 34567)
    os.chmod(path, 0o666)  # an administrator opened it wider than it should be
    served.server._group = 34567
    try:
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, path, groups, patience],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        served.close()
    assert words in done.stdout


def test_too_many_connections_are_told_so(served):
    served.server._own = 0  # the test shares the server's process, its peers shall not count as the watchdog
    peers = [served.connect() for _ in range(server.CONNECTIONS_PER_UID)]
    for peer in peers:  # an answer proves that the server has accepted it
        peer.sendall(protocol.request("Status"))
        assert everything(peer, one=True)
    with served.connect() as late:
        assert json.loads(everything(late, one=True))["error"] == "org.pcipt.Busy"
    for peer in peers:
        peer.close()


def test_a_thousand_connections_leave_it_answering(served):
    """All held open: the first few get an answer, the others are told at once that there are too many."""
    served.server._own = 0
    with contextlib.ExitStack() as held:
        peers = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1000)]
        for peer in peers:
            peer.connect(served.path)
        told = [
            json.loads(everything(peer, one=True))["error"] for peer in peers[server.CONNECTIONS_PER_UID :]
        ]
        assert set(told) == {"org.pcipt.Busy"}
        peers[0].sendall(protocol.request("Status"))
        assert "parameters" in json.loads(everything(peers[0], one=True))


@pytest.mark.skipif(not ROOT, reason="only root is root")
def test_root_finds_a_place_however_many_others_there_are(served, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 0)
    assert "parameters" in served.ask(protocol.request("Status"))


def test_what_all_together_leave_unread_is_bounded(served, monkeypatch):
    """The greediest reader is sent away; the others are served."""
    monkeypatch.setattr(server, "WAITING_LIMIT", 1_000_000)
    served.size = 800_000
    with served.connect() as first, served.connect() as second:
        first.sendall(protocol.request("History", {"function": "x"}))
        assert first.recv(1) == b"{"  # it reads no more than that
        served.size = 900_000
        second.sendall(protocol.request("History", {"function": "x"}))
        assert json.loads(everything(second, one=True))["error"] == "org.pcipt.Busy"
        served.size = 0
        assert "parameters" in served.ask(protocol.request("Status"))
        assert len(everything(first, one=True)) > 800_000


def test_closing_removes_the_socket_it_made(tmp_path):
    Served(str(tmp_path / "control")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_taken_socket_is_refused(served):
    with pytest.raises(InputError, match="uses this socket"):
        listen(served.path)


def test_an_answer_may_be_given_later(served):
    answer, subscription = served.server.answer(protocol.request("Metrics")[:-1], 0)
    assert (answer, subscription) == (served.waiting[0], None)


def test_a_oneway_call_whose_answer_is_given_later_is_done_and_not_answered(served):
    with served.connect() as peer:
        peer.sendall(protocol.encode_frame({"method": "org.pcipt.Metrics", "oneway": True}))
        peer.sendall(protocol.request("Rmrr"))
        assert json.loads(everything(peer, one=True))["parameters"] == {"gave": 1}


def test_an_answer_that_is_given_later_has_no_room_either_if_all_leave_too_much_unread(served, monkeypatch):
    monkeypatch.setattr(server, "WAITING_LIMIT", 1_000_000)
    served.size = 1_500_000
    with served.connect() as peer:
        peer.sendall(protocol.request("Metrics"))
        served.until_waiting()
        served.ask(protocol.request("Rmrr"))
        assert json.loads(everything(peer, one=True))["error"] == "org.pcipt.Busy"
        assert everything(peer) == b""


def connected(served):
    """Connect as the last peer for which there is room: the server may still count one that has closed."""
    while True:
        peer = served.connect()
        with contextlib.suppress(BrokenPipeError):  # it may be refused before it asks
            peer.sendall(protocol.request("Status"))
        if "error" not in json.loads(everything(peer, one=True)):
            return peer
        peer.close()


def test_peers_that_wait_count_as_connections(served):
    served.server._own = 0  # the test shares the server's process, its peers shall not count as the watchdog
    with contextlib.ExitStack() as held:
        peers = [held.enter_context(served.connect()) for _ in range(server.CONNECTIONS_PER_UID - 1)]
        for number, peer in enumerate(peers, 1):
            peer.sendall(protocol.request("Metrics"))
            served.until_waiting(number)
        with connected(served) as last:
            with served.connect() as late:
                assert json.loads(everything(late, one=True))["error"] == "org.pcipt.Busy"
            last.sendall(protocol.request("Rmrr"))
            assert json.loads(everything(last, one=True))["parameters"] == {"gave": len(peers)}
        assert all("parameters" in json.loads(everything(peer, one=True)) for peer in peers)


#  a call that fails, by root or by uid 1000
FAILING = [
    ({"method": "org.other.Status"}, 0),
    ({"method": 7}, 0),
    ({"method": "org.pcipt.Format"}, 0),
    ({"method": "org.pcipt.Status", "parameters": [1]}, 0),
    ({"method": "org.pcipt.Resync"}, 1000),
    ({"method": "org.pcipt.Resync"}, 0),  # the handler raises
    ({"method": "org.pcipt.Monitor"}, 0),
    ({"method": "org.varlink.service.Get"}, 0),
]


@pytest.mark.parametrize(("call", "uid"), FAILING)
def test_a_oneway_call_that_fails_is_not_answered(served, call, uid):
    def answer(message):
        return served.server.answer(protocol.encode_frame(message)[:-1], uid)

    assert "error" in json.loads(answer(call)[0][:-1])
    assert answer({**call, "oneway": True}) == (b"", None)


def test_a_oneway_call_starts_no_subscription(served):
    call = {"method": "org.pcipt.Monitor", "more": True, "oneway": True}
    assert served.server.answer(protocol.encode_frame(call)[:-1], 0) == (b"", None)
    assert served.over == [0]


class Listener:
    """A listening socket whose `accept` first raises errors."""

    def __init__(self, path, *errors):
        self._real, self._errors = listen(path), list(errors)

    def __getattr__(self, name):
        return getattr(self._real, name)

    def accept(self):
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._real.accept()


def serving(path, *errors):
    """Make a server in a loop of its own, which ends when nothing is ready."""
    loop = Loop()
    return loop, server.Server(
        loop, Listener(path, *errors), {"Status": lambda _parameters: {"fine": 1}}, path=path
    )


@contextlib.contextmanager
def asking(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(path)
        peer.sendall(protocol.request("Status"))
        yield peer


def turn(loop, seconds=0.0):
    loop.after("end", seconds, loop.stop)
    loop.run()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_a_connection_that_cannot_be_accepted_is_tried_again_after_a_pause(tmp_path, monkeypatch, number):
    monkeypatch.setattr(server, "PAUSE", 0.05)
    loop, served = serving(str(tmp_path / "control"), number)
    listener = served._listener.fileno()
    with asking(str(tmp_path / "control")) as peer:
        turn(loop)
        assert listener not in loop._selector.get_map()  # it is ready all the time: the loop would not sleep
        turn(loop, 0.2)
        assert json.loads(everything(peer, one=True)) == {"parameters": {"fine": 1}}
    assert listener in loop._selector.get_map()
    served.close()
    loop.close()


def test_closing_ends_the_pause(tmp_path):
    loop, served = serving(str(tmp_path / "control"), errno.EMFILE)
    with asking(str(tmp_path / "control")):
        turn(loop)
    served.close()
    assert loop._timeout() is None
    loop.close()


def test_a_peer_that_went_away_does_not_hold_up_the_next(tmp_path):
    loop, served = serving(str(tmp_path / "control"), errno.ECONNABORTED)
    with asking(str(tmp_path / "control")) as peer:
        turn(loop, 0.1)
        assert json.loads(everything(peer, one=True)) == {"parameters": {"fine": 1}}
    served.close()
    loop.close()


def test_a_peer_that_the_kernel_does_not_name_is_closed_and_the_service_goes_on(tmp_path, monkeypatch):
    def unknown(_connection):
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    loop, served = serving(str(tmp_path / "control"))
    with monkeypatch.context() as patch, asking(str(tmp_path / "control")) as peer:
        patch.setattr(server, "credentials", unknown)
        turn(loop)
        assert everything(peer) == b""
    with asking(str(tmp_path / "control")) as peer:
        turn(loop, 0.1)
        assert json.loads(everything(peer, one=True)) == {"parameters": {"fine": 1}}
    served.close()
    loop.close()


class Failing:
    """A selector that fails when the test says so, as epoll_ctl does without memory."""

    def __init__(self, selector):
        self._selector, self.fails = selector, 0

    def __getattr__(self, name):
        return getattr(self._selector, name)

    def register(self, *arguments):
        self._fail()
        return self._selector.register(*arguments)

    def modify(self, fileno, *arguments):
        if self.fails:
            self._selector.unregister(fileno)
        self._fail()
        return self._selector.modify(fileno, *arguments)

    def _fail(self):
        if self.fails:
            self.fails -= 1
            raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize("after", range(3))
def test_an_epoll_ctl_that_fails_ends_one_connection_and_not_the_service(tmp_path, after):
    """When it is accepted, when its request was read, when its answer was sent."""
    loop, served = serving(str(tmp_path / "control"))
    loop._selector = selector = Failing(loop._selector)
    with asking(str(tmp_path / "control")) as peer:
        for _ in range(after):
            turn(loop)
        selector.fails = 1
        for _ in range(3):
            turn(loop)
        selector.fails = 0
        peer.shutdown(socket.SHUT_WR)
        turn(loop, 0.05)
        assert everything(peer) in (b"", b'{"parameters":{"fine":1}}\0')
    with asking(str(tmp_path / "control")) as peer:
        turn(loop, 0.1)
        assert json.loads(everything(peer, one=True)) == {"parameters": {"fine": 1}}
    served.close()
    loop.close()


def test_a_listener_that_cannot_be_polled_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PAUSE", 0.05)
    loop, served = serving(str(tmp_path / "control"), errno.EMFILE)
    loop._selector = selector = Failing(loop._selector)
    with asking(str(tmp_path / "control")) as peer:
        turn(loop)
        selector.fails = 1
        turn(loop, 0.3)
        assert json.loads(everything(peer, one=True)) == {"parameters": {"fine": 1}}
    served.close()
    loop.close()
