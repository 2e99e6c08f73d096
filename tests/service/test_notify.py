import socket

import pytest

from pcipt.service.notify import Notifier


@pytest.mark.parametrize("name", ["path", "@abstract"])
def test_lines_arrive_in_one_datagram(tmp_path, name):
    address = str(tmp_path / name) if name == "path" else f"@{tmp_path}/x"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if address[0] == "@" else address)
        Notifier(address).send("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"


def test_nobody_listening_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Notifier().send("READY=1") is None
    assert Notifier(str(tmp_path / "none")).send("READY=1") is None
