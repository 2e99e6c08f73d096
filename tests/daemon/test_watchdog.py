"""The watchdog is fed only after a request has travelled: socket, server, handler, and back."""

import errno
import os

import pytest

from pcipt.daemon import watchdog as module
from pcipt.daemon.control import server
from pcipt.daemon.control.listener import listen
from pcipt.daemon.control.server import Server
from pcipt.daemon.loop import Loop
from pcipt.daemon.watchdog import Watchdog, watchdog_interval
from pcipt.errors import HypervisorError


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),  # nobody waits: nothing is ever woken
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # it is about another process
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_how_often(environment, seconds):
    assert watchdog_interval(environment) == seconds


class Scene:
    """A server that answers Check as the test says; `run` ends after so many words of the watchdog."""

    def __init__(self, path, check):
        self.loop = Loop()
        self.told = []
        self.server = Server(self.loop, listen(path), {"Check": check}, path=path)
        self.watchdog = Watchdog(self.loop, path, 0.01, lambda: self.hear("fed"), self.hear)

    def hear(self, what):
        self.told.append(what)
        self.loop.stop()

    def run(self, times=1):
        for _ in range(times):
            self.loop.run()
        return self.told

    def close(self):
        self.watchdog.close()
        self.server.close()
        self.loop.close()


def failing(_parameters):
    raise HypervisorError("known", 1)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda _: {"problems": []}, "fed"),
        (lambda _: {"problems": ["the source has ended", "x"]}, "the source has ended; x"),
        (lambda _: {}, "the answer to the check was not understood"),
        (lambda _: {"problems": "none"}, "the answer to the check was not understood"),
        (failing, "the check failed: org.pcipt.Failed"),
    ],
)
def test_what_the_check_says_decides(tmp_path, check, words):
    scene = Scene(str(tmp_path / "control"), check)
    assert scene.run(2) == [words, words]
    scene.close()


def test_the_own_question_finds_a_place_among_too_many_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_PER_UID", 0)
    scene = Scene(str(tmp_path / "control"), lambda _: {"problems": []})
    assert scene.run() == ["fed"]
    scene.close()


def test_a_socket_that_is_gone_feeds_nothing(tmp_path):
    path = str(tmp_path / "control")
    scene = Scene(path, lambda _: {"problems": []})
    os.unlink(path)
    assert scene.run()[0].startswith("the control socket cannot be reached: No such file")
    scene.close()


class Waiting:
    """A loop that never calls back: an engine that hangs in a hypercall does not come back to it either."""

    def __init__(self):
        self.deadlines = {}

    def after(self, name, seconds, callback):
        self.deadlines[name] = (seconds, callback)

    def cancel(self, name):
        self.deadlines.pop(name, None)

    def watch(self, *_):
        pass

    def forget(self, *_):
        pass


def test_no_answer_until_the_next_check_is_a_complaint(tmp_path):
    path, told = str(tmp_path / "control"), []
    loop = Waiting()
    with listen(path):
        watchdog = Watchdog(loop, path, 5, lambda: told.append("fed"), told.append)
        for _ in range(2):
            seconds, check = loop.deadlines["watchdog"]
            check()
        watchdog.close()
    assert told == ["the last check got no answer"]
    assert seconds == 5
    assert loop.deadlines == {}


@pytest.mark.parametrize("answer", [b"", b"x", b"[]", b'{"parameters":{"problems":0}}'])
def test_any_other_answer_is_a_complaint(answer):
    assert module._complaint(answer)


def test_no_free_descriptor_is_told_and_the_service_goes_on(tmp_path, monkeypatch):
    scene = Scene(str(tmp_path / "control"), lambda _: {"problems": []})
    make = module.socket.socket

    def full(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module.socket, "socket", full)
    assert scene.run() == ["the control socket cannot be reached: Too many open files"]
    monkeypatch.setattr(module.socket, "socket", make)
    assert scene.run()[-1] == "fed"
    scene.close()
