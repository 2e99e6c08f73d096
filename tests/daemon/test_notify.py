import socket

import pytest

from pcipt.daemon import notify
from pcipt.daemon.notify import Notifier


class Manager:
    """systemd's end; `lines` takes what has come."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setblocking(False)

    def lines(self):
        found = []
        while True:
            try:
                found += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


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


def test_a_long_start_asks_for_time_once_a_second_then_feeds_the_watchdog(tmp_path, manager):
    now = [0.0]
    notifier = Notifier(str(tmp_path / "notify"), lambda: now[0])
    notifier.ask_for_time()
    more = f"EXTEND_TIMEOUT_USEC={int(notify.MORE_TIME * 1_000_000)}"
    assert manager.lines() == [more]
    for now[0] in (0.5, 0.9, 1.0, 1.1, 2.5):
        notifier.show_progress()
    assert manager.lines() == [more, more]
    notifier.send("READY=1")
    for now[0] in (2.6, 3.5, 3.6):
        notifier.show_progress()
    assert manager.lines() == ["READY=1", "WATCHDOG=1"]


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path, manager, monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE", 0.01)
    notifier = Notifier(str(tmp_path / "notify"))
    for number in range(2000):  # more than its queue takes
        notifier.send(f"STATUS={number}")
    notifier.send("STOPPING=1")
    assert manager.lines()[0] == "STATUS=0"
