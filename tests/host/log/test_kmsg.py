"""The kernel's log, as /dev/kmsg gives it: one record with each read."""

import errno
import os
import socket

import pytest

from pcipt.host.files import Depth
from pcipt.host.live import LinuxHost
from pcipt.host.log.kmsg import KernelLog
from pcipt.host.sysfs import SysfsReader, read_function
from pcipt.pci import parse_sbdf
from pcipt.pci.notation.kernel_log import LogLine, LogReading
from tests.trees import add

NIC = parse_sbdf("1a:00.0")
HOME = "pci0000:00/0000:00:1c.0/0000:1a:00.0"
KEYS = "\n SUBSYSTEM=pci\n DEVICE=+pci:0000:1a:00.0\n"
FOUND = "[1af4:1041] type 00 class 0x020000"


class Device:
    """A kmsg device: a socket that keeps the borders of records; `lost` makes the next read fail."""

    def __init__(self, monkeypatch):
        self.kernel, self.reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader.setblocking(False)
        self.lost = 0
        self.error = None
        opened, read = os.open, os.read
        monkeypatch.setattr(os, "open", lambda path, *more: self.open(path, more, opened))
        monkeypatch.setattr(os, "read", lambda file, size: self.read(file, size, read))

    def open(self, path, more, opened):
        if path != "kmsg":
            return opened(path, *more)
        if self.error is not None:
            raise self.error
        return os.dup(self.reader.fileno())

    def read(self, file, size, read):
        if self.lost:
            self.lost -= 1
            raise OSError(errno.EPIPE, "overwritten")
        return read(file, size)

    def print(self, number, text, *, keys=KEYS, level=6, prefix="virtio-pci 0000:1a:00.0: "):
        self.kernel.send(f"{level},{number},5140900,-;{prefix}{text}{keys}".encode())


@pytest.fixture
def device(monkeypatch):
    made = Device(monkeypatch)
    yield made
    made.kernel.close()
    made.reader.close()


@pytest.fixture
def log(device, tmp_path):
    (tmp_path / "uevent_seqnum").write_text("4711\n")
    made = KernelLog("kmsg", str(tmp_path / "uevent_seqnum"))
    yield made
    made.close()


def test_lines_about_pci_functions_are_read_once(device, log):
    device.print(7, "Linux version 6.1", keys="\n", prefix="")
    device.print(8, FOUND, prefix="pci 0000:1a:00.0: ")
    device.print(9, "enabling device (0000 -> 0002)")
    expected = (LogLine(8, NIC, FOUND), LogLine(9, NIC, "enabling device (0000 -> 0002)"))
    assert log.read() == LogReading(expected, 7, 9, 4711)
    assert log.read() == LogReading((), None, 9, 4711)
    device.print(10, "BAR 0: assigned [mem 0xfd040000-0xfd05ffff]")
    assert [line.number for line in log.read().lines] == [10]


def test_records_that_were_overwritten_are_passed_over(device, log):
    device.print(90, FOUND)
    device.lost = 2
    assert (log.read().first, log.read().last) == (90, 90)


def test_only_the_kernel_is_believed(device, log):
    device.print(1, FOUND, level=14)  # facility 1: written by a program
    device.print(2, FOUND, keys="\n")
    device.print(3, FOUND, keys="\n SUBSYSTEM=net\n DEVICE=n2\n")
    device.print(4, FOUND, keys="\n DEVICE=+pci:nonsense\n")
    device.kernel.send(b"nonsense")
    assert log.read() == LogReading((), 1, 4, 4711)


@pytest.mark.parametrize("error", [PermissionError(errno.EPERM, "no"), FileNotFoundError(errno.ENOENT, "no")])
def test_a_log_that_cannot_be_opened_has_no_last_line(device, log, error):
    device.error = error
    assert log.read() == LogReading((), None, None, 4711)


def test_a_number_that_cannot_be_read_is_not_known(device, tmp_path):
    log = KernelLog("kmsg", str(tmp_path / "none"))
    device.print(1, FOUND)
    assert log.read().uevents is None
    log.close()


def test_a_recorded_machine_has_no_log_and_no_numbers_of_directories(tmp_path):
    add(tmp_path, HOME)
    assert LinuxHost(str(tmp_path)).read_log() is None
    assert read_function(str(tmp_path), NIC).instance is None


def test_the_number_of_a_directory_is_its_inode(tmp_path):
    add(tmp_path, HOME)
    with SysfsReader(str(tmp_path)) as reader:
        reader.is_live = True
        (raw,) = reader.read([NIC], Depth.FULL)
    assert raw.instance == (tmp_path / "sys/devices" / HOME).stat().st_ino
