"""Receive the kernel's hot-plug messages. They only show where to look; the state is always read from sysfs.

pcipt uses its own netlink socket, and pyroute2 only to parse: pyroute2's sockets receive nothing more after
an overrun and hide the sender. Only messages of the kernel are accepted (port 0, and uid 0 in the
credentials). A `Rescan` is returned whenever a message may be missing: after an overrun, after another error
of the socket (which is then replaced), after a gap in SEQNUM (it counts the messages of all subsystems), and
after a message that was cut, has no SEQNUM or contradicts itself. After an overrun the messages that the
buffer holds are still read.
Source: linux lib/kobject_uevent.c, drivers/pci/pci-driver.c (pci_uevent); netlink(7);
        net/netlink/af_netlink.c, netlink_overrun (the error is reported before the messages in the queue).
"""

import errno
import re
import select
import socket
import struct
from collections.abc import Callable

from pcipt import values as attrs
from pcipt.errors import UnsupportedError
from pcipt.hints import Any, Protocol
from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.host.tree import reason
from pcipt.host.uevent_parser import make_parser
from pcipt.pci import Sbdf

KERNEL_GROUP = 1
RECEIVE_BUFFER = 16 << 20
_MESSAGE = 1 << 16  # bytes; a message has at most 2 KiB of keys (UEVENT_BUFFER_SIZE) and a path
_BATCH = 4096
_MAX_MISSING = 4096
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_KEY = re.compile(rb"[A-Z0-9_]+=")
_PCI_BACKEND = re.compile(r"/devices/pci-[0-9]+-[0-9]+")  # xen-pciback's device for one guest
_NETLINK_KOBJECT_UEVENT = 15  # not in Python's module socket
_SO_RCVBUFFORCE = 33  # not in Python's module socket


@attrs.frozen
class HotplugEvent:
    """A message about one function. `action` is the kernel's word: add, remove, bind, unbind, change, …

    `sbdf` is Linux's address of the function. `seqnum` is the kernel's number of the message. `synthetic` is
    True if somebody caused the message by writing to a file `uevent`.
    """

    action: str
    sbdf: Sbdf
    seqnum: int
    synthetic: bool


@attrs.frozen
class GuestsChanged:
    """A message that a guest's passthrough was set up or removed.

    So functions that are bound to xen-pciback may have new owners now. `seqnum` is the kernel's number of the
    message.
    """

    seqnum: int


@attrs.frozen
class Rescan:
    """A mark that messages may be lost, so the whole machine must be read again. `reason` is for people."""

    reason: str


HostEvent = HotplugEvent | GuestsChanged | Rescan


class UeventSocket(Protocol):
    """The part of a socket that `UeventSource` uses."""

    def recvmsg(self, size: int, ancillary: int, /) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive one message without waiting: the data, the ancillary data, the flags and the sender.

        `size` is the most bytes of data to receive, `ancillary` the most bytes of ancillary data.
        Raises: BlockingIOError if no message waits; OSError if messages were lost or the socket is broken.
        """

    def fileno(self) -> int:
        """Return the descriptor of the socket."""

    def close(self) -> None:
        """Close the socket."""


def open_uevent_socket(receive_buffer: int = RECEIVE_BUFFER) -> socket.socket:
    """Open a netlink socket that receives the hot-plug messages of the kernel. It receives no messages of
    udev.

    `receive_buffer` is in bytes. It is limited by the system's maximum if the process lacks CAP_NET_ADMIN.
    The socket does not block. The caller closes it.
    Raises: UnsupportedError if there is no netlink or permission is refused.
    """
    opened = None
    try:
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        opened = socket.socket(socket.AF_NETLINK, flags, _NETLINK_KOBJECT_UEVENT)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:  # exceeding the system's limit needs CAP_NET_ADMIN
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        opened.bind((0, KERNEL_GROUP))
    except OSError as error:
        if opened is not None:
            opened.close()
        raise UnsupportedError("hot-plug messages of the kernel", reason(error)) from error
    return opened


class UeventSource:
    """The stream of hot-plug messages.

    `overruns` counts all errors of the socket; an overrun is one of them. `gaps` counts calls of `read` that
    found a gap in SEQNUM. `forged` counts messages that were not accepted: not from the kernel, or
    contradicting themselves.
    Raises: UnsupportedError if the socket cannot be opened; ImportError if pyroute2 is not installed.
    """

    def __init__(self, open_socket: Callable[[], UeventSocket] = open_uevent_socket) -> None:
        self._open_socket = open_socket
        self._parser = make_parser()
        self._socket = open_socket()
        self._poll = select.epoll()
        self._poll.register(self._socket.fileno(), select.EPOLLIN)
        self._sequence = _Sequence()
        self.overruns = 0
        self.gaps = 0
        self.forged = 0

    def fileno(self) -> int:
        """Return a descriptor to poll. It is readable while `read` has something to receive.

        It stays the same if the socket is replaced.
        """
        return self._poll.fileno()

    def close(self) -> None:
        """Close the socket and the descriptor of `fileno`. Do not call `read` after it."""
        self._poll.close()
        self._socket.close()

    def read(self) -> list[HostEvent]:
        """Return the events that have arrived, without waiting. One call receives at most 4096 messages.

        Messages that are not from the kernel, and messages about other things than PCI functions and guests'
        passthrough, are left out. The list may be empty.
        Shape:  in the order of arrival; at most one `Rescan`, at the end, if a message may be missing. After
                an overrun the messages that waited come before it.
        Raises: UnsupportedError if the socket broke and cannot be replaced. Events that this call had
                received are then lost.
        """
        found: list[HostEvent] = []
        doubt: str | None = None
        lost: str | None = None
        for _ in range(_BATCH):
            try:
                data, ancillary, flags, sender = self._socket.recvmsg(
                    _MESSAGE, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                break
            except OSError as error:
                lost = f"the kernel's messages were lost ({reason(error)})"
                self.overruns += 1
                if error.errno == errno.ENOBUFS:
                    continue
                self._replace()
                return [*found, Rescan(lost)]
            if not _is_from_kernel(ancillary, sender):
                self.forged += 1
            elif flags & socket.MSG_TRUNC:
                doubt = "a message was cut short"
            else:
                event, strange = self._event_from(data)
                if event is not None:
                    found.append(event)
                doubt = strange or doubt
        if self._sequence.settle():
            self.gaps += 1
            doubt = "a gap in SEQNUM"
        doubt = lost or doubt
        return [*found, Rescan(doubt)] if doubt is not None else found

    def _replace(self) -> None:
        """Replace the socket after an error. Raises: UnsupportedError if a new one cannot be opened."""
        self._socket.close()  # closing also removes it from the epoll set
        self._sequence = _Sequence()
        self._socket = self._open_socket()
        self._poll.register(self._socket.fileno(), select.EPOLLIN)

    def _event_from(self, data: bytes) -> tuple[HotplugEvent | GuestsChanged | None, str | None]:
        """Parse one message of the kernel, and count its SEQNUM.

        Return its event, or None if it is not about a PCI function or a guest's passthrough. Return also the
        reason why a message may be missing, or None.
        """
        keys = self._parse(data)
        number = keys.get("SEQNUM", "")
        if not (number.isascii() and number.isdigit()) or len(number) > 20:
            return None, "a message without SEQNUM"
        seqnum = int(number)
        self._sequence.take(seqnum)
        path, action = keys.get("DEVPATH", ""), keys.get("ACTION", "")
        if keys.get("SUBSYSTEM") == "xen-backend":
            return GuestsChanged(seqnum) if _PCI_BACKEND.fullmatch(path) else None, None
        if keys.get("SUBSYSTEM") != "pci":
            return None, None
        parts = path.split("/")
        sbdf = sbdf_from_name(parts[-1])
        if parts[:2] != ["", "devices"] or ".." in parts or not action:
            sbdf = None
        if sbdf is None or keys.get("PCI_SLOT_NAME") != parts[-1]:
            self.forged += 1
            return None, "a message whose parts do not agree"
        return HotplugEvent(action, sbdf, seqnum, "SYNTH_UUID" in keys), None

    def _parse(self, data: bytes) -> dict[str, str]:
        """Return the keys and values of one message. Lines that are not KEY=value in UTF-8 are left out."""
        # pyroute2 stores keys beside its own fields (`header`, `attrs`, …), and 0.7.2 fails on bytes that are
        # not UTF-8. So it gets only lines that are KEY=… in UTF-8; its own fields are in small letters.
        lines = [line for line in data.split(b"\0")[1:] if _KEY.match(line) and _is_utf8(line)]
        found: dict[str, str] = {}
        for message in self._parser.parse(b"\0".join((b"@", *lines))):
            found.update((key, value) for key, value in message.items() if isinstance(value, str))
        return found


class _Sequence:
    """A check for missing messages by their numbers (SEQNUM).

    Numbers may arrive in the wrong order: since Linux 6.11, two processors can deliver messages at the same
    time.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._missing: set[int] = set()
        self._broken = False

    def take(self, seqnum: int) -> None:
        """Record the number of a message that has arrived.

        If it is higher than expected, the numbers that were skipped are missing until they arrive too.
        """
        expected = seqnum if self._next is None else self._next
        if seqnum < expected:
            self._broken |= seqnum not in self._missing
            self._missing.discard(seqnum)
            return
        if seqnum - expected > _MAX_MISSING:
            self._broken = True
        else:
            self._missing.update(range(expected, seqnum))
        self._next = seqnum + 1

    def settle(self) -> bool:
        """Return True if a message may be missing since the last call, else False.

        Call it when all waiting messages were received. The result is True if a number was skipped and has
        not arrived. It is also True if a number arrived that was not expected: for the second time, after the
        call of `settle` that reported it missing, or more than 4096 above the expected number. After the call
        nothing is missing any more.
        """
        broken = self._broken or bool(self._missing)
        self._broken = False
        self._missing.clear()
        return broken


def _is_from_kernel(ancillary: list[tuple[int, int, bytes]], sender: tuple[int, int] | None) -> bool:
    """Return True if a message was sent by the kernel, else False.

    The kernel's messages have port 0 as sender, and credentials with process 0 and user 0. A message without
    a sender or without credentials gives False.
    """
    if sender is None or sender[0] != 0:
        return False
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= _CREDENTIALS.size:
            pid, uid, _ = _CREDENTIALS.unpack_from(data)
            return bool(pid == 0 and uid == 0)
    return False


def _is_utf8(line: bytes) -> bool:
    """Return True if the bytes are valid UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
