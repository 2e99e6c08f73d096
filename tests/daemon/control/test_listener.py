import grp
import os
import socket
import stat

import pytest

from pcipt.daemon.control import listener as listening
from pcipt.daemon.control.listener import credentials, group_of, listen, passed_listener, refuse_taken
from pcipt.errors import InputError


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "control")


def test_the_socket_is_made_for_its_group(path):
    group = grp.getgrgid(os.getgid())
    with listen(path) as listener:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert not listener.getblocking()
        expected = next((g.gr_gid for g in grp.getgrall() if g.gr_name == listening.GROUP), group.gr_gid)
        assert group_of(listener) == (expected if os.getuid() == 0 else group.gr_gid)


def test_a_leftover_is_replaced_but_nothing_else_is(tmp_path, path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with listen(path), pytest.raises(InputError, match="uses this socket"):
        listen(path)
    os.unlink(path)
    (tmp_path / "control").write_text("precious")
    with pytest.raises(InputError, match="this file is no socket"):
        listen(path)
    assert (tmp_path / "control").read_text() == "precious"


def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        listen(str(tmp_path / "none" / "control"))
    assert refuse_taken(str(tmp_path / "none" / "control")) is None


def passing(descriptor, **more):
    """Pass a descriptor as systemd does; it belongs to the receiver then."""
    environment = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "pcipt.socket",
        **more,
    }
    return environment, os.dup(descriptor)


def test_the_socket_that_systemd_passes_is_taken(path):
    with listen(path) as ours:
        environment, descriptor = passing(ours.fileno(), HOME="/")
        with passed_listener(environment, descriptor) as passed:
            assert passed.getsockname() == path
            assert not passed.getblocking()
            assert not os.get_inheritable(passed.fileno())
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                passed.accept()[0].close()
    assert environment == {"HOME": "/"}  # no child shall take it for its own


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},  # meant for somebody else
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(os.getpid())},
    ],
)
def test_nothing_passed_is_nothing(environment):
    assert passed_listener(dict(environment), 999) is None
    assert passed_listener({**environment, "LISTEN_PID": "x"}, 999) is None


@pytest.mark.parametrize("kind", ["datagram", "not-listening", "file", "closed", "two"])
def test_what_else_is_passed_is_refused(tmp_path, kind):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX) as stream,
        open(tmp_path / "file", "wb") as file,
    ):
        given = {"datagram": datagram, "file": file}.get(kind, stream).fileno()
        environment, descriptor = passing(given, **({"LISTEN_FDS": "2"} if kind == "two" else {}))
        if kind == "closed":
            os.close(descriptor)
        with pytest.raises(InputError, match="LISTEN_FDS"):
            passed_listener(environment, descriptor)
        if kind in {"two", "file"}:
            os.close(descriptor)


def test_credentials_are_those_of_the_peer():
    here, there = socket.socketpair()
    with here, there:
        _, uid, groups = credentials(here)
    assert uid == os.getuid()
    assert groups == {os.getgid(), *os.getgroups()}
