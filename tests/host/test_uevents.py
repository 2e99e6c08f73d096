import errno
import os
import select
import socket
import struct

import pytest

from pcipt.errors import UnsupportedError
from pcipt.host.uevents import GuestsChanged, HotplugEvent, Rescan, UeventSource, open_uevent_socket
from pcipt.pci import Sbdf

KERNEL = (0, 1)  # port and group of the sender
PORT = "/devices/pci0000:00/0000:00:1c.0/0000:01:00.0"
FUNCTION = Sbdf(0, 1, 0, 0)


def credentials(pid=0, uid=0, gid=0):
    return [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", pid, uid, gid))]


def message(seqnum=1, action="add", path=PORT, **keys):
    """One message of the kernel; a key that is None is left out."""
    default = {
        "ACTION": action,
        "DEVPATH": path,
        "SUBSYSTEM": "pci",
        "PCI_CLASS": "20000",
        "PCI_ID": "8086:10D3",
        "PCI_SLOT_NAME": path.rpartition("/")[2],
        "SEQNUM": str(seqnum),
    }
    lines = [f"{key}={value}".encode() for key, value in {**default, **keys}.items() if value is not None]
    return b"\0".join([f"{action}@{path}".encode(), *lines, b""])


class FakeSocket:
    """Hands out what it is given: (data, ancillary, flags, sender), bytes from the kernel, or an error."""

    def __init__(self, *items):
        self._items = list(items)
        self._ours, self._theirs = socket.socketpair()
        self.closed = False

    def give(self, *items):
        self._items += items

    def recvmsg(self, _size, _ancillary):
        if not self._items:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        item = self._items.pop(0)
        if isinstance(item, OSError):
            raise item
        return (item, credentials(), 0, KERNEL) if isinstance(item, bytes) else item

    def wake(self):
        self._theirs.send(b"x")

    def fileno(self):
        return self._ours.fileno()

    def close(self):
        self.closed = True
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def make():
    """Make a source on fake sockets: the first one, and those that replace it."""
    opened, sources = [], []

    def make_source(*sockets):
        opened.extend(sockets)
        waiting = list(sockets)

        def open_next():
            if not waiting:
                raise UnsupportedError("hot-plug messages of the kernel", "no more")
            return waiting.pop(0)

        sources.append(UeventSource(open_next))
        return sources[-1]

    yield make_source
    for source in sources:
        source.close()
    for one in opened:
        if not one.closed:
            one.close()


UNDERSTOOD = [
    (message(), HotplugEvent("add", FUNCTION, 1, False)),
    (message(action="remove"), HotplugEvent("remove", FUNCTION, 1, False)),
    (message(action="bind", DRIVER="e1000e"), HotplugEvent("bind", FUNCTION, 1, False)),
    # somebody wrote to the file `uevent`, with or without a name for it
    (message(action="change", SYNTH_UUID="0"), HotplugEvent("change", FUNCTION, 1, True)),
    (message(SYNTH_UUID="fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed"), HotplugEvent("add", FUNCTION, 1, True)),
    (
        message(path="/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0"),
        HotplugEvent("add", Sbdf(0x10000, 0xE0, 6, 0), 1, False),
    ),
    # keys that would overwrite the parser's own fields, or that are no text, are left out
    (message(header="x", attrs="x", value="x", event="x"), HotplugEvent("add", FUNCTION, 1, False)),
    (message() + b"MODALIAS=\xff\xfe\0", HotplugEvent("add", FUNCTION, 1, False)),
    (message() + b"=\0no equals sign\0\0", HotplugEvent("add", FUNCTION, 1, False)),
    (message().replace(b"add@", b"\xff@", 1), HotplugEvent("add", FUNCTION, 1, False)),
    # a guest's passthrough comes and goes (seen at `xl create` and `xl destroy`); no other backend counts
    (message(path="/devices/pci-2-0", SUBSYSTEM="xen-backend", PCI_SLOT_NAME=None), GuestsChanged(1)),
    (message(path="/devices/vif-2-0", SUBSYSTEM="xen-backend", PCI_SLOT_NAME=None), None),
    (message(path="/devices/pci-2-0/..", SUBSYSTEM="xen-backend"), None),
    # not about PCI functions
    (message(SUBSYSTEM="net"), None),
    (message(SUBSYSTEM=None), None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), UNDERSTOOD)
def test_a_message_of_the_kernel_is_understood(make, data, expected):
    source = make(FakeSocket(data))
    assert source.read() == ([expected] if expected else [])
    assert (source.overruns, source.gaps, source.forged) == (0, 0, 0)


NOT_THE_KERNEL = [
    (credentials(), (4711, 1)),  # a process' port: somebody may send to this group
    (credentials(), (4711, 0)),  # sent to us alone
    (credentials(uid=1000), KERNEL),
    (credentials(pid=4711), KERNEL),
    ([], KERNEL),  # no credentials at all
    ([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0" * 12)], KERNEL),
    ([(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, b"\0" * 4)], KERNEL),
    (credentials(), None),
]


@pytest.mark.parametrize(("ancillary", "sender"), NOT_THE_KERNEL)
def test_only_the_kernel_is_believed(make, ancillary, sender):
    source = make(FakeSocket((message(7), ancillary, 0, sender), message(1), message(2, "remove")))
    assert [event.action for event in source.read()] == ["add", "remove"]  # and no gap: 7 was not heard
    assert source.forged == 1


CONTRADICTIONS = [
    {"PCI_SLOT_NAME": "0000:02:00.0"},
    {"PCI_SLOT_NAME": None},
    {"path": "/devices/../etc/0000:01:00.0"},
    {"path": "/bus/pci/devices/0000:01:00.0"},
    {"path": "devices/0000:01:00.0"},
    {"path": "/devices/pci0000:00/not-an-address"},
    {"path": ""},
    {"ACTION": ""},
    {"ACTION": None},
]


@pytest.mark.parametrize("keys", CONTRADICTIONS)
def test_a_message_that_contradicts_itself_only_asks_for_a_look(make, keys):
    source = make(FakeSocket(message(**keys)))
    assert source.read() == [Rescan("a message whose parts do not agree")]
    assert source.forged == 1


ODD_NUMBERS = [None, "", "-1", "1e3", "x", "9" * 21, "\u0661"]


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_a_message_without_seqnum_asks_for_a_look(make, number):
    source = make(FakeSocket(message(SEQNUM=number)))
    assert source.read() == [Rescan("a message without SEQNUM")]


SEQUENCES = [
    # SEQNUMs as they arrive in one reading, whether something is missing
    ([5, 6, 7], False),
    ([5, 7], True),
    ([5, 7, 6], False),  # two processors, since Linux 6.11
    ([5, 9, 7, 6, 8], False),
    ([5, 9, 7, 6], True),
    ([5, 5], True),  # repeated: not the kernel's order of things
    ([5, 4], True),
    ([5, 1 << 62], True),  # a leap must not cost memory
]


@pytest.mark.parametrize(("numbers", "gap"), SEQUENCES)
def test_a_gap_in_seqnum_asks_for_a_rescan(make, numbers, gap):
    # SEQNUM counts all subsystems: half of the messages are not ours
    items = [message(number, SUBSYSTEM="pci" if number % 2 else "block") for number in numbers]
    source = make(FakeSocket(*items))
    events = source.read()
    assert ([event for event in events if isinstance(event, Rescan)] == [Rescan("a gap in SEQNUM")]) == gap
    assert source.gaps == gap
    assert sum(isinstance(event, HotplugEvent) for event in events) == sum(number % 2 for number in numbers)


def test_the_sequence_goes_on_over_readings(make):
    fake = FakeSocket(message(5))
    source = make(fake)
    assert len(source.read()) == 1
    fake.give(message(6))
    assert len(source.read()) == 1
    assert source.read() == []
    fake.give(message(8))
    assert source.read()[-1] == Rescan("a gap in SEQNUM")
    fake.give(message(9))
    assert len(source.read()) == 1  # a gap is told once


def test_after_an_overrun_what_the_buffer_holds_is_read(make):
    """The kernel reports the overrun first: the messages from before it still wait."""
    fake = FakeSocket(message(1), OSError(errno.ENOBUFS, "No buffer space available"), message(2), message(3))
    source = make(fake)
    *events, rescan = source.read()
    assert [event.seqnum for event in events] == [1, 2, 3]
    assert rescan == Rescan("the kernel's messages were lost (no buffer space available)")
    assert (source.overruns, source.gaps, fake.closed) == (1, 0, False)
    fake.give(message(900))
    assert source.read()[-1] == Rescan("a gap in SEQNUM")  # those that the kernel dropped
    assert source.read() == []


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EBADF])
def test_after_another_error_the_socket_is_replaced_and_a_rescan_asked_for(make, number):
    first = FakeSocket(message(1), OSError(number, os.strerror(number)), message(2))
    second = FakeSocket(message(900))
    source = make(first, second)
    before = source.fileno()
    event, rescan = source.read()
    assert isinstance(event, HotplugEvent)
    assert isinstance(rescan, Rescan)
    assert (source.overruns, source.gaps, first.closed) == (1, 0, True)
    assert source.fileno() == before
    assert [event.seqnum for event in source.read()] == [900]  # no gap to what the old socket heard
    assert source.gaps == 0


def test_a_socket_that_cannot_be_replaced_is_an_error(make):
    source = make(FakeSocket(OSError(errno.EBADF, "bad file descriptor")))
    with pytest.raises(UnsupportedError):
        source.read()


def test_a_message_that_was_cut_asks_for_a_rescan(make):
    source = make(FakeSocket((message(), credentials(), socket.MSG_TRUNC, KERNEL)))
    assert source.read() == [Rescan("a message was cut short")]


def readable(source):
    return bool(select.select([source.fileno()], [], [], 0)[0])


def test_one_descriptor_tells_of_messages_before_and_after_a_replacement(make):
    first, second = FakeSocket(), FakeSocket()
    source = make(first, second)
    assert not readable(source)
    first.wake()
    assert readable(source)
    first.give(OSError(errno.EBADF, "bad file descriptor"))
    source.read()
    assert not readable(source)
    second.wake()
    assert readable(source)


# The real kernel.

REAL = pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask the kernel for uevents")
QUIET = "/sys/class/mem/null/uevent"


@pytest.fixture
def pci_uevent():
    try:
        names = sorted(os.listdir("/sys/bus/pci/devices"))
    except FileNotFoundError:
        names = []
    if not names:
        pytest.skip("this machine has no PCI")
    return names[0], f"/sys/bus/pci/devices/{names[0]}/uevent"


def ask(path, count=1):
    try:
        for _ in range(count):
            with open(path, "w", encoding="ascii") as out:
                out.write("change")
    except OSError as error:
        pytest.skip(f"the kernel takes no synthetic uevents here: {error}")


def read_all(source, *, until):
    """Read until `until` holds of what came; the kernel delivers before the write returns."""
    found = []
    for _ in range(100):
        found += source.read()
        if until(found):
            break
        select.select([source.fileno()], [], [], 0.1)
    return found


@REAL
def test_a_real_synthetic_change_is_seen_and_marked(pci_uevent):
    name, path = pci_uevent
    source = UeventSource()
    try:
        ask(path)
        events = read_all(source, until=lambda found: any(isinstance(e, HotplugEvent) for e in found))
    finally:
        source.close()
    (event,) = [event for event in events if isinstance(event, HotplugEvent)]
    assert (event.action, str(event.sbdf), event.synthetic) == ("change", name, True)
    assert (source.overruns, source.forged) == (0, 0)


@REAL
def test_a_real_overrun_is_survived_and_told(pci_uevent):
    _, path = pci_uevent
    source = UeventSource(lambda: open_uevent_socket(receive_buffer=4096))
    try:
        ask(QUIET, 500)
        events = read_all(source, until=lambda found: any(isinstance(e, Rescan) for e in found))
        assert source.overruns == 1
        assert isinstance(events[-1], Rescan)
        ask(path)
        after = read_all(source, until=bool)
    finally:
        source.close()
    assert [event.action for event in after if isinstance(event, HotplugEvent)] == ["change"]


@REAL
def test_a_burst_of_ten_thousand_fits_the_buffer():
    source = UeventSource()
    found = []
    try:
        ask(QUIET, 10_000)
        while readable(source):
            found += source.read()
    finally:
        source.close()
    assert (source.overruns, source.forged) == (0, 0)
    assert not any(isinstance(event, HotplugEvent) for event in found)  # they were about another subsystem


@REAL
def test_a_process_cannot_pass_for_the_kernel():
    source = UeventSource()
    sender = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
    try:
        sender.sendto(message(1), (0, 1))  # root may send to the kernel's group
        events = read_all(source, until=lambda _: source.forged)
    except PermissionError:
        pytest.skip("the kernel lets nobody send to its group")
    finally:
        sender.close()
        source.close()
    assert source.forged == 1
    assert not any(isinstance(event, HotplugEvent) for event in events)
