"""The live source on a program that stands for xentrace: what it gives, how it ends, what is left behind."""

import os
import select
import stat
import struct
import sys
import time

import pytest

from pcipt.errors import UnsupportedError
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch import xentrace_live
from pcipt.watch.xentrace_live import XentraceSource, find_xentrace

FN = 0x8000_FB04  # 00:1f.3, command


def record(event, *words):
    return struct.pack(f"<{len(words) + 1}I", event | len(words) << 28, *words)


def write(value):
    return record(0x82216, 0xCF8, FN) + record(0x82216, 0xCFC, value)


START = record(0x1F003, 0, 4096)
LOST = struct.pack("<4IQ", 0x1F001 | 4 << 28, 9, 0, 0, 0)[:20]

# The program gives `first`, then waits for a line from a FIFO; `term` is what it does on SIGTERM.
PROGRAM = """\
#!{python}
import os, signal, sys
{term}
assert sys.argv[1:] == ["-D", "-e", "0x82000", "/dev/stdout"], sys.argv
os.write(2, b"change evtmask to 0x82000\\n")
os.write(1, {first!r})
with open({fifo!r}, "rb", buffering=0) as more:
    while data := more.read(65536):
        os.write(1, data)
os.write(2, b"ERROR: out of tape\\n")
sys.exit(3)
"""
GENTLE = f"signal.signal(signal.SIGTERM, lambda *_: (os.write(1, bytes({1 << 17})), os._exit(0)))"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Xentrace:
    """The program, and the end through which a test gives it more to say."""

    def __init__(self, directory, term=GENTLE, first=START):
        self.path, self.fifo = str(directory / "xentrace"), str(directory / "more")
        os.mkfifo(self.fifo)
        text = PROGRAM.format(python=sys.executable, term=term, first=first, fifo=self.fifo)
        (directory / "xentrace").write_text(text)
        os.chmod(self.path, stat.S_IRWXU)
        self._end = -1

    def give(self, data):
        if self._end < 0:
            self._end = os.open(self.fifo, os.O_WRONLY)
        os.write(self._end, data)

    def end(self):
        if self._end >= 0:
            os.close(self._end)
            self._end = -1


@pytest.fixture
def program(tmp_path):
    made = Xentrace(tmp_path)
    yield made
    made.end()


def take(source, count):
    """Read until `count` items have come."""
    found = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        select.select([source], [], [], 10)
        found += source.read()
    return found


def test_writes_come_without_width_and_writer(program):
    with XentraceSource(command=program.path) as source:
        program.give(write(6)[:13])
        program.give(write(6)[13:])  # cut anywhere
        (item,) = take(source, 1)
        assert source.read() == []  # never waits
    assert isinstance(item, ConfigWrite)
    assert (str(item.sbdf), item.offset, item.size, item.value) == ("0000:00:1f.3", 4, None, 6)
    assert (item.own, item.who.pid) == (False, None)
    assert source.overrun() is None


def test_what_xen_lost_is_a_loss(program):
    with XentraceSource(command=program.path) as source:
        program.give(LOST + write(1))
        items = take(source, 2)
    assert items[0] == Lost(9)


def test_a_damaged_record_is_a_loss(program):
    with XentraceSource(command=program.path) as source:
        program.give(struct.pack("<2I", 0x82216 | 1 << 28, 0xCF8) + write(1))  # a write without its data
        assert isinstance(take(source, 2)[0], Lost)


def test_closing_ends_the_child_even_if_it_waits_to_write(program):
    source = XentraceSource(command=program.path)
    child = source._child
    source.close()
    assert child.returncode == 0
    assert source.problems == ()
    source.close()  # twice does no harm


def test_a_child_that_will_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(xentrace_live, "LAST_WORD", 0.05)
    source = XentraceSource(command=Xentrace(tmp_path, term=STUBBORN).path)
    child = source._child
    source.close()
    assert child.returncode == -9
    assert source.problems == ("xentrace had to be killed: Xen's tracing may still be on",)


LEAVES_A_HEIR = """
def leave(*_):
    if os.fork():
        os._exit(0)
    os.close(2)
    with open({fifo!r}, "rb", buffering=0) as more:
        os.write(1, more.read(65536))
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
"""


def test_output_after_closing_harms_no_other_descriptor(tmp_path, monkeypatch):
    """Another process can hold the pipe open after the child has ended: the thread then outlives `close`."""
    monkeypatch.setattr(xentrace_live, "LAST_WORD", 0.3)
    program = Xentrace(tmp_path, term=LEAVES_A_HEIR.format(fifo=str(tmp_path / "more")))
    source = XentraceSource(command=program.path)
    thread, freed = source._thread, {source.fileno(), source._child.stdout.fileno()}
    source.close()
    assert thread.is_alive()
    others = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(4)]
    assert source.fileno() == -1
    assert freed & set(others)
    program.give(write(1))
    program.end()
    thread.join(10)
    assert not thread.is_alive()
    for other in others:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(other)
        os.close(other)


def test_the_childs_end_is_one_loss_and_a_problem(program):
    with XentraceSource(command=program.path) as source:
        child = source._child
        program.give(write(1))
        assert len(take(source, 1)) == 1
        assert source.blind() is None
        program.end()
        assert take(source, 1) == [Lost()]
        assert source.blind() == "xentrace has ended"
        assert source.problems == ("xentrace ended with 3: ERROR: out of tape",)
        assert child.returncode == 3
        assert select.select([source], [], [], 0)[0] == []  # a loop that watches it does not spin
        assert source.read() == []
    assert len(source.problems) == 1


# the program, the end of the one clear line
REFUSALS = [
    ("#!/bin/sh\necho 'ERROR: Failure to get event channel' >&2; exit 1\n",
     "cannot be run here: ERROR: Failure to get event channel"),
    ("#!/bin/sh\nexit 1\n", "cannot be run here: it printed no message"),
    ("#!/bin/sh\necho 'no such Xen'; exit 1\n", "cannot be run here: no such Xen"),
    ("#!/bin/sh\nexec sleep 60\n", "gave no record within 0 s"),
    ("no program\n", "xentrace: Exec format error"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ending"), REFUSALS)
def test_a_refusal_is_one_clear_line(tmp_path, monkeypatch, text, ending):
    monkeypatch.setattr(xentrace_live, "FIRST_RECORD", 0.2 if "sleep" in text else 10.0)
    (tmp_path / "xentrace").write_text(text)
    os.chmod(tmp_path / "xentrace", stat.S_IRWXU)
    with pytest.raises(UnsupportedError) as caught:
        XentraceSource(command=str(tmp_path / "xentrace"))
    assert str(caught.value).endswith(ending)
    assert "\n" not in str(caught.value)


def test_a_pv_dom0_is_told_why_not():
    with pytest.raises(UnsupportedError, match="of a PVH dom0 only"):
        XentraceSource(pvh=False, command="/nonexistent")


def test_where_the_program_is_found(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_xentrace() == program.path
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(xentrace_live, "PLACES", str(tmp_path / "xen*"))
    assert find_xentrace() == program.path
    monkeypatch.setattr(xentrace_live, "PLACES", str(tmp_path / "none*"))
    with pytest.raises(UnsupportedError, match="xen-utils"):
        find_xentrace()


# installed versions, running version, the version whose xentrace is taken
VERSIONS = [
    (["4.9", "4.17"], None, "4.17"),  # not by the order of the text
    (["4.17", "5.0"], None, "5.0"),
    (["4.17", "4.19"], ("4\n", "17\n"), "4.17"),  # xentrace of another Xen may not work
    (["4.9", "4.17"], ("4\n", "20\n"), "4.17"),  # none for the running one
    (["4.9", "4.17"], ("", "17\n"), "4.17"),
    (["unstable", "4.17"], None, "4.17"),
]


@pytest.mark.parametrize(("installed", "running", "expected"), VERSIONS)
def test_the_program_of_the_running_xen_is_taken_else_the_newest(
    monkeypatch, tmp_path, installed, running, expected
):
    for version in installed:
        (tmp_path / f"xen-{version}" / "bin").mkdir(parents=True)
        (tmp_path / f"xen-{version}" / "bin" / "xentrace").touch()
    if running is not None:
        for name, text in zip(("major", "minor"), running, strict=True):
            (tmp_path / name).write_text(text)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(xentrace_live, "PLACES", str(tmp_path / "xen-*/bin/xentrace"))
    monkeypatch.setattr(xentrace_live, "RUNNING", str(tmp_path))
    assert find_xentrace() == str(tmp_path / f"xen-{expected}" / "bin" / "xentrace")
