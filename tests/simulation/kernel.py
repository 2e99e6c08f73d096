"""dom0's kernel as the daemon hears of it: a netlink socket of messages, a trace of configuration writes."""

import contextlib
import errno
import os
import socket
import struct
from collections import deque

from pcipt.watch.kprobe_text import parse_line


class Ready:
    """A descriptor that can be polled: readable while something waits."""

    def __init__(self):
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self):
        return self._descriptor

    def show(self, *, waits):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        if waits:
            os.eventfd_write(self._descriptor, 1)

    def close(self):
        os.close(self._descriptor)


class Netlink(Ready):
    """The socket that `UeventSource` opens."""

    def __init__(self):
        super().__init__()
        self._waiting = deque()
        self._overrun = False

    def send(self, data, *, pid=0, uid=0, port=0):
        rights = struct.pack("iII", pid, uid, 0)
        self._waiting.append((data, [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, rights)], 0, (port, 1)))
        self.show(waits=True)

    def overrun(self):
        """Lose what waits; the next call is told so."""
        self._waiting.clear()
        self._overrun = True
        self.show(waits=True)

    def recvmsg(self, _size, _ancillary):
        if self._overrun:
            self._overrun = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        if not self._waiting:
            self.show(waits=False)
            raise BlockingIOError
        return self._waiting.popleft()


class Trace(Ready):
    """The trace that `KprobeSource` reads: lines, parsed as it parses them."""

    def __init__(self):
        super().__init__()
        self._lines = []

    def write(self, write, when):
        sbdf = write.sbdf
        self._lines.append(
            f"  setpci-394 [000] d..1. {when:.6f}: conf1: (pci_conf1_write+0x0/0xf0) seg={sbdf.segment}"
            f" bus={sbdf.bus} devfn={sbdf.devfn} reg={write.offset} len={write.size} val={write.value:#x}"
            ' comm="setpci"'
        )
        self.show(waits=True)

    def lose(self):
        """Lose the lines that wait; return how many."""
        lost, self._lines = len(self._lines), []
        if lost:
            self._lines = [f"CPU:0 [LOST {lost} EVENTS]"]
            self.show(waits=True)
        return lost

    def read(self):
        lines, self._lines = self._lines, []
        self.show(waits=False)
        return [parse_line(line) for line in lines]

    def overrun(self):
        return None

    def blind(self):
        return None


def uevent(action, sbdf, number):
    """Make the kernel's message about a function (lib/kobject_uevent.c)."""
    name = str(sbdf)
    path = f"/devices/pci0000:00/{name}"
    keys = (
        f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=pci", f"PCI_SLOT_NAME={name}",
        f"SEQNUM={number}",
    )  # fmt: skip
    return "\0".join((*keys, "")).encode()
