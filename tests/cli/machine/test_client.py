import contextlib
import socket
import threading

import pytest

from pcipt import errors
from pcipt.cli.machine import client
from pcipt.daemon.control import protocol


@pytest.fixture
def peer(tmp_path):
    """Answer one connection with the bytes that the test sets; what was asked is kept."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "control"))
    listener.listen()

    class Peer:
        path = str(tmp_path / "control")
        says = b""
        heard = b""

        def serve(self):
            connection, _ = listener.accept()
            with connection:
                self.heard = connection.recv(65536)
                connection.sendall(self.says)

    peer = Peer()
    thread = threading.Thread(target=peer.serve)
    thread.start()
    yield peer
    thread.join(10)
    listener.close()


def test_a_reply_in_pieces_comes_back_whole(peer):
    peer.says = protocol.reply({"a": "x" * 200_000})
    assert client.call(peer.path, "Status", {"b": 1})["a"] == "x" * 200_000
    assert peer.heard == protocol.request("Status", {"b": 1})


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        (b"", errors.NotRunningError, "without an answer"),
        (b"{", errors.NotRunningError, "without an answer"),
        (b"hello\0", errors.InputError, "is not the pcipt daemon"),
        (b"[]\0", errors.InputError, "is not the pcipt daemon"),
        (b'{"parameters":3}\0', errors.InputError, "is not the pcipt daemon"),
        (protocol.error("PermissionDenied"), errors.NotPermittedError, "only root"),
        (protocol.error("NoSuchDevice", {"sbdf": "0000:00:00.0"}), errors.NoSuchDeviceError, "0000:00:00.0"),
        (
            protocol.error("NoSuchDevice", {"sbdf": "x", "nearest": ["0000:00:00.1"]}),
            errors.NoSuchDeviceError,
            r"did you mean 0000:00:00\.1\?",
        ),
        (protocol.error("NoSuchDevice", {"sbdf": "x", "nearest": 3}), errors.NoSuchDeviceError, "machine$"),
        (protocol.error("Failed", {"reason": "because"}), errors.InputError, "because"),
    ],
)
def test_what_is_no_reply_is_an_error(peer, says, error, words):
    peer.says = says
    with pytest.raises(error, match=words):
        client.call(peer.path, "Resync")


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.write_text("")])
def test_nobody_there_is_not_running(tmp_path, make):
    make(tmp_path / "control")
    with pytest.raises(errors.NotRunningError, match="not running"):
        client.call(str(tmp_path / "control"), "Status")


def test_a_path_too_long_for_a_socket_is_not_running():
    with pytest.raises(errors.NotRunningError):
        client.call("/" + "x" * 200, "Status")


def test_a_daemon_that_thinks_long_is_progress(peer, monkeypatch):
    told = []

    @contextlib.contextmanager
    def noted(what, far):
        told.append((what, far()))
        yield

    monkeypatch.setattr("pcipt.cli.text.progress.progress", noted)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    peer.says = protocol.reply({})
    client.call(peer.path, "Status")
    assert told == [("the daemon", "no answer yet")]
