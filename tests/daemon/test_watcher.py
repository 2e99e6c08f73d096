"""What the watch tells of its source: losses, and a breakdown, which is a finding and not the end."""

import errno

import attrs
import pytest

from pcipt.daemon.live import watch_by
from pcipt.daemon.watcher import Watch, open_watch
from pcipt.errors import UnsupportedError
from pcipt.pci import decode_machine
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.remap.writes.changes import BarMapped
from tests.engine.stage import ListSource
from tests.xen.devices import device


class BreakingSource:
    """A source whose program ends, and which is not taken down cleanly either."""

    def __init__(self):
        self.problems = ()

    def fileno(self):
        return 0

    def read(self):
        self.problems = ("the program ended with 1",)
        return [Lost()]

    def overrun(self):
        return None

    def blind(self):
        return "; ".join(self.problems) or None

    def close(self):
        self.problems = (*self.problems, "it will not go")


def test_a_source_that_breaks_down_is_a_finding_once():
    found, lost = [], []
    watch = Watch(BreakingSource(), "fake")
    watch.on_finding, watch.on_lost = found.append, lost.append
    watch.settle()
    assert found == lost == []
    watch.take()
    watch.settle()
    assert lost == [1]
    assert watch.blind() == "the program ended with 1"
    watch.take()
    watch.settle()
    (finding,) = found
    assert finding.code == "watch-unavailable"
    assert finding.text.startswith("the program ended with 1; pcipt does not see writes to config space")
    assert watch.close() == ("it will not go",)


class Unreadable(BreakingSource):
    """A source of which `broken` is the name of a method that raises OSError."""

    def __init__(self, broken, fileno=0):
        super().__init__()
        self.broken, self._fileno = broken, fileno

    def fileno(self):
        return self._fileno

    def read(self):
        return self._answer("read", [])

    def overrun(self):
        return self._answer("overrun", None)

    def _answer(self, name, answer):
        if name == self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return answer


@pytest.mark.parametrize("broken", ["read", "overrun"])
def test_a_source_that_cannot_be_read_is_a_finding_and_a_loss_and_not_the_end(broken):
    found, lost = [], []
    watch = Watch(Unreadable(broken), "fake")
    watch.on_finding, watch.on_lost = found.append, lost.append
    assert watch.fileno == 0
    for _ in range(2):
        watch.take()
        watch.settle()
    why = "the source of configuration writes cannot be read (Input/output error)"
    assert [(each.code, each.text.startswith(f"{why}; pcipt does not see writes")) for each in found] == [
        ("watch-unavailable", True)
    ]
    assert (lost, watch.fileno, watch.blind()) == ([1], None, why)
    assert watch.close() == ("it will not go",)


def refused():
    raise UnsupportedError("watching by fakes", "there are none")


# what is asked for, the beginning of the finding
UNAVAILABLE = [
    (
        lambda: open_watch(refused, "fake", obeys=True),
        "watching by fakes: there are none; pcipt does not see writes to",
    ),
    (lambda: watch_by("xentrace", pvh=False), "watching by xentrace: Xen traces the accesses of a PVH dom0"),
]


@pytest.mark.parametrize(("make", "text"), UNAVAILABLE)
def test_a_source_that_cannot_be_had_is_a_finding(make, text):
    watch = make()
    assert watch.fileno is None
    assert watch.counters()["source"] is None
    assert watch.findings[0].text.startswith(text)


def test_none_is_asked_for_and_nothing_is_missing():
    watch = watch_by("none", pvh=True)
    assert (watch.fileno, watch.findings) == (None, [])


@pytest.mark.parametrize(("reads", "start"), [("nothing", 0xFE10_0000), ("all", 0xFE00_0000)])
def test_a_function_written_to_and_not_read_since_keeps_its_shadow_registers(reads, start):
    """The registers of all functions begin anew when one comes or goes, from readings that may be older."""
    raw = device("00:06.0", (0xFE00_0000, 0x1000), command=0)
    source, raws, changes = ListSource(), {raw.sbdf: raw}, []
    watch = Watch(source, "test")
    watch.on_change = lambda change, _read_back: changes.append(change)
    watch.begin(decode_machine([raw]), raws)
    source.push(ConfigWrite(raw.sbdf, 0x10, 4, 0xFE10_0000))
    watch.take()
    if reads == "all":
        raws = {raw.sbdf: attrs.evolve(raw)}
    watch.begin(decode_machine([raw]), raws)
    source.push(ConfigWrite(raw.sbdf, 0x04, 2, 0x2))
    watch.take()
    assert [each.after.start for each in changes if isinstance(each, BarMapped)] == [start]
