"""Recorded boots: every change beside what the emulated hardware did at that moment."""

import gzip
import json
from pathlib import Path

import pytest

from pcipt.pci import parse_sbdf
from pcipt.pci.write import ConfigWrite
from pcipt.remap.writes.changes import BarMapped, BarMoved, BarUnmapped
from pcipt.remap.writes.shadow import Shadow, step, with_routes
from pcipt.watch.recording import Damaged, Options, Reader

BOOTS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "boots"
NAMES = sorted(path.parent.name for path in BOOTS.glob("*/ports.jsonl.gz")) or ["switch"]

pytestmark = pytest.mark.skipif(
    not BOOTS.is_dir(), reason="the recorded boots are not there (../shared/data/boots)"
)


def lines(boot, name):
    with gzip.open(BOOTS / boot / f"{name}.jsonl.gz") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module", params=NAMES)
def boot(request):
    return request.param


@pytest.fixture(scope="module")
def events(boot):
    reader = Reader(Options())
    found = list(reader.read(str(BOOTS / boot / "ports.jsonl.gz")))
    assert not any(isinstance(item, Damaged) for item in found)
    assert (reader.unknown, reader.outside) == (0, 0)
    return found


def test_every_write_is_decoded_as_the_function_received_it(boot, events):
    ours = {
        event.number + 1: (str(event.sbdf), hex(event.offset), event.size, hex(event.value))
        for event in events
        if isinstance(event, ConfigWrite)
    }
    theirs = {
        line["n"]: (line["sbdf"], line["offset"], line["size"], line["value"])
        for line in lines(boot, "writes")
    }
    assert {n: ours[n] for n in theirs} == theirs
    if boot == "switch":
        assert len(theirs) == 774
        assert {ours[n][0] for n in ours.keys() - theirs} == {"0000:00:1f.1"}  # where no function is


def apply(hardware, state, line):
    key = (state.place_of(parse_sbdf(line["sbdf"])), line["bar"])
    if line["event"] == "map":
        hardware[key] = (line["address"], line["size"])
    else:
        hardware.pop(key)


def test_every_change_is_the_hardwares(boot, events):
    """Between two accesses nothing else happens: the mappings are equal after each of them.

    Functions are compared by place: QEMU says nothing when a renumbered bridge changes their addresses.
    """
    pending = lines(boot, "mappings")[::-1]
    state, ours, hardware = with_routes(Shadow()), {}, {}
    for event in events:
        while pending and event.number > pending[-1]["n"]:
            apply(hardware, state, pending.pop())
        assert ours == hardware, event
        state, changes = step(state, event)
        for change in changes:
            if isinstance(change, BarUnmapped):
                ours.pop((change.place, change.bar))
            elif isinstance(change, BarMapped | BarMoved):
                ours[change.place, change.bar] = (hex(change.after.start), change.after.size)
    for line in reversed(pending):
        apply(hardware, state, line)
    assert ours == hardware
    final = {
        (state.place_of(entry.sbdf), entry.bar): (hex(entry.range.start), entry.range.size)
        for entry in state.mapped()
    }
    assert final == hardware


def test_the_bridges_have_their_numbers(boot, events):
    if boot != "switch":
        pytest.skip("its README has no table of bus numbers")
    state = with_routes(Shadow())
    for event in events:
        state, _ = step(state, event)
    assert [(str(sbdf)[5:], n.primary, n.secondary, n.subordinate) for sbdf, n in state.bridges()] == [
        ("00:04.0", 0, 1, 4),
        ("01:00.0", 1, 2, 4),
        ("02:00.0", 2, 3, 3),
        ("02:01.0", 2, 4, 4),
    ]
