"""The live source on a fake tracefs: it sets up, reads, counts what was lost, and leaves nothing behind."""

import errno
import selectors
from pathlib import Path

import pytest

from pcipt.errors import UnsupportedError
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch.kprobe import ARGUMENTS, KprobeSource
from pcipt.watch.tracefs import Tracefs
from tests.watch.fake_tracefs import FakeTracefs

LINE = (
    " setpci-{pid} [000] d..1. {when}: conf1: (pci_conf1_write+0x0/0xf0) "
    "seg=0 bus=0 devfn=8 reg=4 len=2 val={val}\n"
)
FOREIGN = "p:other/probe vfs_read\n"


@pytest.fixture
def tracefs(tmp_path):
    fake = FakeTracefs(tmp_path / "tracing")
    yield fake
    fake.close_feeder()


@pytest.fixture
def source(tracefs):
    with KprobeSource(tracefs, own={77}) as made:
        yield made


def values(items):
    return [item.value if isinstance(item, ConfigWrite) else item for item in items]


def test_sets_up_as_the_reference_says(tracefs, source):
    events = tracefs.read("kprobe_events").splitlines()
    assert events[1:] == [
        f"p:pcipt/conf1 pci_conf1_write {ARGUMENTS}",
        f"p:pcipt/mmcfg pci_mmcfg_write {ARGUMENTS}",
    ]
    assert tracefs.read("instances/pcipt/events/pcipt/enable") == "1"
    assert tracefs.read("instances/pcipt/buffer_percent") == "0"
    assert tracefs.read("instances/pcipt/trace_clock") == "mono"


def test_closing_leaves_what_was_there_before(tracefs):
    source = KprobeSource(tracefs)
    source.close()
    assert source.problems == ()
    assert tracefs.read("kprobe_events") == FOREIGN
    assert list(tracefs.names("instances")) == []
    source.close()  # twice does no harm
    assert source.problems == ()


def test_closing_goes_on_after_a_step_that_fails(tracefs):
    source = KprobeSource(tracefs)
    tracefs.refuse = {"rmdir": errno.EBUSY}
    tracefs.write("instances/pcipt/events/pcipt/enable", "0")
    source.close()
    assert len(source.problems) == 1
    assert tracefs.read("kprobe_events") == FOREIGN


def test_reading_never_waits_and_joins_cut_lines(tracefs, source):
    assert source.read() == []
    text = "".join(LINE.format(pid=5, when=f"1.{n}", val=n) for n in range(3))
    tracefs.feed(text[:-20])
    first = source.read()
    tracefs.feed(text[-20:])
    assert values(first + source.read()) == [0, 1, 2]


def test_its_descriptor_wakes_a_selector(tracefs, source):
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        assert selector.select(0) == []
        tracefs.feed(LINE.format(pid=5, when="1.0", val=1))
        assert len(selector.select(0)) == 1


def test_own_writes_are_marked(tracefs, source):
    tracefs.feed(LINE.format(pid=77, when="1.0", val=1) + LINE.format(pid=78, when="1.1", val=2))
    assert [item.own for item in source.read()] == [True, False]


def test_lost_records_are_told_once_whoever_tells_them(tracefs, source):
    assert source.overrun() is None
    tracefs.feed("CPU:0 [LOST 40 EVENTS]\n" + LINE.format(pid=5, when="1.0", val=1))
    assert values(source.read()) == [Lost(40), 1]
    tracefs.count(0, overrun=40)
    assert source.overrun() is None
    tracefs.count(1, overrun=2, dropped=3)
    assert source.overrun() == Lost(5)
    assert source.overrun() is None
    tracefs.feed("CPU:1 [LOST 2 EVENTS]\n" + LINE.format(pid=5, when="1.2", val=2))
    assert values(source.read()) == [2]  # the counters were faster
    tracefs.feed("CPU:1 [LOST 7 EVENTS]\n")  # the pipe does not show dropped ones: all seven are new
    assert values(source.read()) == [Lost(7)]
    tracefs.count(1, overrun=9, dropped=3)
    assert source.overrun() is None


#  the counters of CPU 0 and CPU 1 at each look (None: the CPU is offline) -> what is told at each look
COUNTERS = [
    ([({"overrun": 5}, {"overrun": 0}), (None, {"overrun": 3})], [Lost(5), Lost(3)]),
    ([({"overrun": 5}, {"overrun": 0}), (None, {"overrun": 0}), ({"overrun": 6}, {"overrun": 0})],
     [Lost(5), None, Lost(1)]),
    ([({"overrun": 5}, {"overrun": 0}), ({"overrun": 2}, {"overrun": 0})], [Lost(5), Lost(2)]),  # cleared
    ([({"overrun": 0, "commit": 4}, {"overrun": 1}), ({"overrun": 0, "commit": 4}, {"overrun": 1})],
     [Lost(5), None]),
]  # fmt: skip


@pytest.mark.parametrize(("looks", "expected"), COUNTERS)
def test_the_losses_of_each_cpu_are_counted(tracefs, source, looks, expected):
    told = []
    for look in looks:
        for cpu, counters in enumerate(look):
            tracefs.online(cpu, counters is not None)
            if counters is not None:
                tracefs.count(cpu, **counters)
        told.append(source.overrun())
    assert told == expected


def test_a_line_that_is_not_understood_is_a_loss(tracefs, source):
    tracefs.feed("garbage\n" + LINE.format(pid=5, when="1.0", val=1))
    assert values(source.read()) == [Lost(), 1]


def test_what_a_killed_predecessor_left_is_removed(tracefs):
    dead = KprobeSource(tracefs)
    tracefs.close_feeder()
    with KprobeSource(tracefs) as source:
        assert source.fileno() != dead.fileno()
        assert len(tracefs.read("kprobe_events").splitlines()) == 3
    import os

    os.close(dead.fileno())


def test_a_living_other_is_not_disturbed(tracefs, source):
    tracefs.busy = True
    with pytest.raises(UnsupportedError) as caught:
        KprobeSource(tracefs)
    assert "probably another pcipt is running" in str(caught.value)
    assert tracefs.enabled()
    assert len(tracefs.read("kprobe_events").splitlines()) == 3
    tracefs.busy = False


# what is missing or refused, the end of the one clear line
REFUSALS = [
    (
        "kprobe_events",
        errno.EPERM,
        "pcipt must be root, and the kernel must not be in lockdown mode confidentiality",
    ),
    (
        "kprobe_events",
        errno.EACCES,
        "pcipt must be root, and the kernel must not be in lockdown mode confidentiality",
    ),
    ("kprobe_events", errno.EINVAL, "no function pci_conf1_write that can be probed"),
    ("mkdir", errno.ENOMEM, "refused (mkdir)"),
    ("instances/pcipt/buffer_size_kb", errno.ENOMEM, "refused (instances/pcipt/buffer_size_kb)"),
    (
        "instances/pcipt/events/pcipt/enable",
        errno.EPERM,
        "pcipt must be root, and the kernel must not be in lockdown mode confidentiality",
    ),
]


@pytest.mark.parametrize(("name", "number", "ending"), REFUSALS)
def test_a_refusal_is_one_clear_line_and_undone(tracefs, name, number, ending):
    tracefs.refuse = {name: number}
    with pytest.raises(UnsupportedError) as caught:
        KprobeSource(tracefs)
    assert str(caught.value).endswith(ending)
    assert "\n" not in str(caught.value)
    assert list(tracefs.names("instances")) == []
    assert tracefs.read("kprobe_events") == FOREIGN


@pytest.mark.parametrize("missing", ["pci_conf1_write", "pci_mmcfg_write"])
def test_a_kernel_without_the_function(tmp_path, missing):
    symbols = {"pci_conf1_write", "pci_mmcfg_write"} - {missing}
    tracefs = FakeTracefs(tmp_path / "tracing", symbols=symbols)
    with pytest.raises(UnsupportedError, match=f"no function {missing}"):
        KprobeSource(tracefs)
    assert tracefs.read("kprobe_events") == FOREIGN


def test_no_tracefs(tmp_path):
    with pytest.raises(UnsupportedError, match="no tracefs is mounted"):
        KprobeSource(Tracefs(str(tmp_path)))
    (tmp_path / "instances").mkdir()
    with pytest.raises(UnsupportedError, match="no kprobe events"):
        KprobeSource(Tracefs(str(tmp_path)))


@pytest.mark.parametrize(("name", "text"), [("events/pcipt/enable", "0"), ("tracing_on", "0\n")])
def test_that_somebody_switched_it_off_is_seen(tracefs, source, name, text):
    assert source.blind() is None
    (Path(tracefs.path) / "instances/pcipt" / name).write_text(text)
    assert source.blind() == f"instances/pcipt/{name} has been switched off"
    (Path(tracefs.path) / "instances/pcipt" / name).unlink()
    assert "No such file" in source.blind()
