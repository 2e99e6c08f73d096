import contextlib
import json
import os
import socket
import stat
import threading

import pytest

from pcipt.errors import InputError, NoSuchDeviceError
from pcipt.service import protocol, server
from pcipt.service.loop import Loop


def no_such(_parameters):
    raise NoSuchDeviceError("0000:00:00.0")


class Running:
    """A server whose loop runs in a thread, so that a test can be the peer."""

    def __init__(self, path):
        self.path = path
        self.loop = Loop()
        handlers = {"Status": self.echo, "Resync": no_such}
        streams = {"Monitor": lambda p: lambda event: event["n"] >= p.get("from", 0)}
        self.server = server.Server(self.loop, path, handlers, streams)
        self._wake, self._waker = socket.socketpair()
        self.loop.watch(self._wake.fileno(), 1, lambda _: self.loop.stop())
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def echo(self, parameters):
        """Answer with what was asked; publish as many events before as it says."""
        for number in range(parameters.get("publish", 0)):
            self.server.publish({"when": "now", "n": number, "pad": "x" * 1000})
        return {"echo": parameters}

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(self.path)
        return peer

    def ask(self, data):
        with self.connect() as peer:
            peer.sendall(data)
            return json.loads(everything(peer, one=True))

    def close(self):
        self._waker.send(b"x")
        self._thread.join(10)
        self.server.close()
        self._wake.close()
        self._waker.close()
        self.loop.close()


def everything(peer, *, one=False):
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := peer.recv(65536):
            data += part
            if one and b"\0" in data:
                break
    return data.partition(b"\0")[0] if one else data


@pytest.fixture
def running(tmp_path):
    running = Running(str(tmp_path / "control"))
    yield running
    running.close()


def test_a_request_is_answered(running):
    assert running.ask(protocol.request("Status", {"a": 1})) == {"parameters": {"echo": {"a": 1}}}


def test_the_socket_is_for_root_and_its_group_only(running):
    assert stat.S_IMODE(os.stat(running.path).st_mode) == 0o660


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"\0", "InvalidFrame"),
        (b"[1]\0", "InvalidFrame"),
        (b"\xff\xff\0", "InvalidFrame"),
        (b'{"method":"org.other.Status"}\0', "MethodNotFound"),
        (b'{"method":"org.pcipt.Format"}\0', "MethodNotFound"),
        (b'{"method":7}\0', "MethodNotFound"),
        (b'{"method":"org.pcipt.Status","parameters":[1]}\0', "InvalidParameter"),
        (protocol.request("Resync"), "NoSuchDevice" if os.getuid() == 0 else "PermissionDenied"),
        (b"x" * (protocol.REQUEST_LIMIT + 1), "InvalidFrame"),
    ],
)
def test_bad_requests_get_an_error_and_the_server_lives(running, sent, error):
    assert running.ask(sent)["error"] == f"org.pcipt.{error}"
    assert "parameters" in running.ask(protocol.request("Status"))


def test_only_root_may_change(running):
    refused = json.loads(running.server.answer(protocol.request("Resync")[:-1], 1000)[0][:-1])
    assert refused["error"] == "org.pcipt.PermissionDenied"
    allowed = json.loads(running.server.answer(protocol.request("Resync")[:-1], 0)[0][:-1])
    assert allowed["error"] == "org.pcipt.NoSuchDevice"


def test_several_requests_on_one_connection_and_a_half_closed_peer(running):
    with running.connect() as peer:
        peer.sendall(protocol.request("Status", {"n": 1}) + protocol.request("Status", {"n": 2})[:10])
        peer.sendall(protocol.request("Status", {"n": 2})[10:])
        peer.shutdown(socket.SHUT_WR)
        frames = everything(peer).split(b"\0")
    assert [json.loads(frame)["parameters"]["echo"]["n"] for frame in frames if frame] == [1, 2]


def test_too_many_requests_in_one_go_are_told_so(running):
    with running.connect() as peer:
        peer.sendall(b"\0" * 60_000)
        frames = [json.loads(frame) for frame in everything(peer).split(b"\0") if frame]
    assert frames[-1]["error"] == "org.pcipt.Busy"
    assert len(frames) <= server.REQUESTS + 1


def test_too_many_connections_are_told_so(running):
    peers = [running.connect() for _ in range(server.CONNECTIONS_PER_UID)]
    for peer in peers:  # an answer proves that the server has accepted it
        peer.sendall(protocol.request("Status"))
        assert everything(peer, one=True)
    with running.connect() as late:
        assert json.loads(everything(late, one=True))["error"] == "org.pcipt.Busy"
    for peer in peers:
        peer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is root")
def test_root_finds_a_place_however_many_others_there_are(running, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 0)
    assert "parameters" in running.ask(protocol.request("Status"))


def test_a_peer_that_does_not_read_is_dropped(running, monkeypatch):
    monkeypatch.setattr(server, "OUTPUT_LIMIT", 100_000)
    with running.connect() as deaf:
        deaf.settimeout(10)
        with contextlib.suppress(OSError):
            for _ in range(2000):
                deaf.sendall(protocol.request("Status", {"a": "x" * 5000}))
        assert "parameters" in running.ask(protocol.request("Status"))


def test_a_silent_peer_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    running = Running(str(tmp_path / "control"))
    with running.connect() as silent:
        assert everything(silent) == b""
    running.close()


def test_closing_removes_the_socket(tmp_path):
    Running(str(tmp_path / "control")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_socket_is_replaced_but_nothing_else_is(tmp_path):
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    running = Running(str(path))
    with pytest.raises(InputError, match="listening there already"):
        server.listen(str(path))
    running.close()
    path.write_text("precious")
    with pytest.raises(InputError, match="in the way"):
        server.listen(str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        server.listen(str(tmp_path / "none" / "control"))


class Reader:
    """Reads a stream frame by frame; what came too early waits."""

    def __init__(self, peer):
        self._peer = peer
        self._data = b""

    def frame(self):
        while b"\0" not in self._data:
            self._data += self._peer.recv(65536)
        frame, _, self._data = self._data.partition(b"\0")
        return json.loads(frame)

    def until(self, enough):
        found = [self.frame()]
        while not enough(found[-1]["parameters"]):
            found.append(self.frame())
        return found


@pytest.fixture
def reader(running):
    """Subscribe to everything from event 2 on."""
    with running.connect() as peer:
        peer.sendall(protocol.request("Monitor", {"from": 2}, more=True))
        reader = Reader(peer)
        assert reader.frame()["parameters"]["kind"] == "start"
        yield reader


def test_a_stream_carries_the_events_that_are_wanted(running, reader):
    running.ask(protocol.request("Status", {"publish": 5}))
    frames = [reader.frame() for _ in range(3)]
    assert [frame["parameters"]["n"] for frame in frames] == [2, 3, 4]
    assert all(frame["continues"] for frame in frames)


def test_a_stream_must_be_asked_for_as_one(running):
    assert running.ask(protocol.request("Monitor"))["error"] == "org.pcipt.ExpectedMore"


def test_a_slow_reader_loses_events_and_is_told_how_many(running, reader):
    running.ask(protocol.request("Status", {"publish": 3002}))
    frames = reader.until(lambda event: event["n"] >= 100)
    while True:  # the next event that finds room says how many did not
        running.ask(protocol.request("Status", {"publish": 3}))
        frames += reader.until(lambda event: event.get("kind") == "lost" or event["n"] == 2)
        if frames[-1]["parameters"].get("kind") == "lost":
            break
    assert frames[-1]["parameters"]["count"] > 0
    seen = [frame["parameters"]["n"] for frame in frames[:-1]]
    assert len(seen) < 3000


def test_a_subscriber_may_be_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    running = Running(str(tmp_path / "control"))
    with running.connect() as peer:
        peer.sendall(protocol.request("Monitor", more=True))
        reader = Reader(peer)
        reader.frame()
        with running.connect() as silent:
            assert everything(silent) == b""  # by now PATIENCE is over
        running.ask(protocol.request("Status", {"publish": 1}))
        assert reader.frame()["parameters"]["n"] == 0
    running.close()
