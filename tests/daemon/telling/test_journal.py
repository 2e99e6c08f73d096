"""journald's protocol against a stand-in socket, and against the real one's rules for names and lengths."""

import array
import os
import socket
import struct

import pytest

from pcipt.daemon.telling.journal import Journal, encode_fields, stderr_is_journal


class Journald:
    """Receives datagrams as journald does; a message in a file comes as its descriptor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(10)

    def take(self):
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not ancillary:
            return data, False
        (descriptor,) = array.array("i", ancillary[0][2][:4])
        with open(descriptor, "rb") as file:
            file.seek(0)
            return file.read(), True


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "socket")


@pytest.fixture
def journald(path):
    journald = Journald(path)
    yield journald
    journald.socket.close()


@pytest.fixture
def journal(path):
    journal = Journal(path)
    yield journal
    journal.close()


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"MESSAGE": "hello", "PRIORITY": "6"}, b"MESSAGE=hello\nPRIORITY=6\n"),
        ({"MESSAGE": "a=b"}, b"MESSAGE=a=b\n"),
        ({"MESSAGE": ""}, b"MESSAGE=\n"),
        ({"MESSAGE": "two\nlines"}, b"MESSAGE\n" + struct.pack("<Q", 9) + b"two\nlines\n"),
        ({"MESSAGE": "\u00e4"}, b"MESSAGE=\xc3\xa4\n"),
        ({"MESSAGE": "\ud800"}, b"MESSAGE=\\ud800\n"),  # half a character, as a hostile peer may send it
    ],
)
def test_fields_as_the_protocol_has_them(fields, data):
    assert encode_fields(fields) == data


@pytest.mark.parametrize("key", ["lower", "_TRUSTED", "A B", "A=B", "A" * 65, ""])
def test_a_name_that_journald_would_drop_is_a_mistake_of_ours(key):
    with pytest.raises(AssertionError):
        encode_fields({key: "x"})


def test_a_message_arrives(journald, journal):
    journal.send({"MESSAGE": "hello"})
    assert journald.take() == (b"MESSAGE=hello\n", False)
    assert journal.dropped == 0


def test_a_message_too_long_for_a_datagram_goes_as_a_sealed_file(journald, journal):
    long = "x" * (9 << 20)
    journal.send({"MESSAGE": long})
    data, as_file = journald.take()
    assert as_file
    assert data == f"MESSAGE={long}\n".encode()
    assert journal.dropped == 0


def test_no_journald_is_counted_and_no_error(path, journal):
    journal.send({"MESSAGE": "nobody has ever listened"})
    journald = Journald(path)
    journald.socket.close()
    journal.send({"MESSAGE": "nobody listens any more"})
    assert journal.dropped == 2
    os.unlink(path)
    restarted = Journald(path)
    journal.send({"MESSAGE": "it is back"})
    assert restarted.take() == (b"MESSAGE=it is back\n", False)
    restarted.socket.close()


def test_a_journald_that_does_not_read_is_not_waited_for(journald, journal):
    sent = 0
    while not journal.dropped:
        journal.send({"MESSAGE": "x" * 1000})
        sent += 1
        assert sent < 100_000
    assert journald.take()[0].startswith(b"MESSAGE=x")


def test_whether_stderr_is_the_journal_is_asked_of_the_pipe_itself(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        status = os.fstat(file.fileno())
        here = f"{status.st_dev}:{status.st_ino}"
        assert stderr_is_journal(here, file.fileno())
        assert not stderr_is_journal("1:2", file.fileno())  # inherited by a shell, but redirected
        assert not stderr_is_journal(None, file.fileno())
    assert not stderr_is_journal(here, 9999)
