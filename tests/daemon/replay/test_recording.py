"""The recorded machines of fixtures/sysfs."""

import json
import shutil
from pathlib import Path

import pytest

from pcipt.daemon.replay.recording import Replay
from pcipt.daemon.settings import Settings
from pcipt.daemon.store import FileStore
from pcipt.daemon.watcher import no_watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.errors import InputError, MalformedError
from pcipt.host.recorded import RecordedHost
from pcipt.pci import parse_sbdf
from pcipt.pci.config import COMMAND
from tests.engine.stage import compare, look
from tests.trees import put

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "sysfs"
MACHINES = sorted(path.parent for path in FIXTURES.glob("*/expected.json"))


def played(directory, state, dom0=None):
    """Play a recording through the engine; give the actions done, in order."""
    replay = Replay(str(directory), dom0)
    engine = Engine(replay.host, replay.xen, FileStore(str(state)), Settings(), lambda: "now")
    engine.worker = Worker(engine, no_watch(), lambda _scope, _report: None)
    compare(engine)

    def settle():
        look(engine, {event.sbdf for event in replay.hotplug.read()})

    try:
        replay.play(settle, lambda _about: None, lambda _count: None)
    finally:
        replay.hotplug.close()
    return replay, engine


@pytest.mark.parametrize("name", ["lab-remap-pv", "lab-remap-pvh"])
def test_the_writes_between_the_steps_are_played_too(name, tmp_path):
    _, engine = played(FIXTURES / name, tmp_path)
    assert engine.finding_count == 0


def test_a_trace_with_holes_kills_the_simulated_host_and_nobody_else(tmp_path):
    machine = shutil.copytree(FIXTURES / "lab-remap-pvh", tmp_path / "machine", symlinks=True)
    (machine / "writes.jsonl").write_text("")
    with pytest.raises(InputError, match="the simulated host dies"):
        played(machine, tmp_path)


def test_there_are_recorded_machines():
    assert {path.name for path in MACHINES} >= {"lab-pv", "lab-pvh"}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda path: path.name)
def test_the_expected_actions_are_taken(machine, tmp_path):
    replay, engine = played(machine, tmp_path)
    outcomes = [record.outcome for record in engine.records]
    taken = [[o.action.word, str(o.action.sbdf), o.result.value] for o in outcomes]
    expected = json.loads((machine / "expected.json").read_text())
    assert taken == [each for each in expected if each[2] != "not-applicable"]  # what a PV dom0 only counts
    assert engine.findings == []
    assert set(replay.xen.devices) == set(engine.machine.functions)


@pytest.fixture
def copy(tmp_path):
    target = tmp_path / "machine"
    shutil.copytree(FIXTURES / "lab-pv", target, symlinks=True)
    return target


@pytest.mark.parametrize(
    ("file", "text", "error", "words"),
    [
        ("sequence.jsonl", "{}\n", MalformedError, '"tree"'),
        ("sequence.jsonl", '\n{"tree": "../x"}\n', MalformedError, "sequence.jsonl: line 2: expected"),
        ("sequence.jsonl", "[]\n", MalformedError, "not a JSON object"),
        ("sequence.jsonl", '{"tree": "a", "changed": 4}\n', MalformedError, "list of addresses"),
        ("sequence.jsonl", '{"tree": "a", "changed": ["00:zz.0"]}\n', MalformedError, "device 'zz'"),
        ("sequence.jsonl", '{"tree": "missing"}\n', InputError, "missing"),
        ("xen.json", "{", MalformedError, "not JSON"),
        ("xen.json", "[" * 50_000, MalformedError, "not JSON"),
        ("sequence.jsonl", '{"tree":' + "[" * 50_000 + "\n", MalformedError, "not JSON"),
        ("xen.json", '{"version": "new"}', InputError, "4.17.7"),
        ("xen.json", '{"dom0": "hvm"}', InputError, "hvm"),
    ],
)
def test_a_recording_that_is_wrong_says_so(copy, tmp_path, file, text, error, words):
    (copy / file).write_text(text)
    with pytest.raises(error) as caught:
        played(copy, tmp_path)
    assert words in str(caught.value)


def devices_after_each_step(directory):
    """Play the steps without an engine; return what the simulated Xen holds at the start and after each."""
    replay = Replay(str(directory))
    held = [dict(replay.xen.devices)]
    try:
        for step in replay.steps:
            replay.take(step)
            held.append(dict(replay.xen.devices))
    finally:
        replay.hotplug.close()
    return held


def set_announces(directory, value):
    path = directory / "xen.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "announces": value}))


@pytest.mark.parametrize("writes", [False, True], ids=["without-writes", "with-writes"])
def test_the_simulated_kernel_announces_at_each_step_if_the_recording_says_so(copy, writes):
    if writes:
        (copy / "writes.jsonl").write_text("")
    plugged = parse_sbdf("01:00.0")
    set_announces(copy, True)
    assert [plugged in held for held in devices_after_each_step(copy)] == [False, True, False]
    set_announces(copy, False)
    assert [plugged in held for held in devices_after_each_step(copy)] == [False, False, False]


def test_a_virtual_function_is_announced_with_its_physical_function(tmp_path):
    machine = shutil.copytree(FIXTURES / "lab-remap-pv", tmp_path / "machine", symlinks=True)
    (machine / "writes.jsonl").unlink()
    held = [each.get(parse_sbdf("03:00.1")) for each in devices_after_each_step(machine)]
    assert [each and each.flags.physfn for each in held] == [
        None, None, None, None, parse_sbdf("03:00.0"), None, None,
    ]  # fmt: skip


def test_without_xen_json_xen_knows_all_there_is_at_the_start(copy, tmp_path):
    (copy / "xen.json").unlink()
    (copy / "sequence.jsonl").unlink()
    replay, engine = played(copy, tmp_path)
    assert list(engine.records) == []
    assert replay.xen.identity.full.startswith("4.17")


@pytest.mark.parametrize(
    ("files", "text", "identity"),
    [
        ({}, None, ("4.17.7", "pvh")),
        ({"version/minor": "22", "version/extra": ".0"}, None, ("4.22.0", "pvh")),
        ({"version/extra": ".4-vendor"}, None, ("4.17.4-vendor", "pvh")),
        ({"version/minor": "23", "version/extra": "-unstable"}, None, ("4.23-unstable", "pvh")),
        ({"version/minor": "22", "version/extra": "-rc"}, None, ("4.22-rc", "pvh")),
        ({"version/minor": "22", "version/extra": "what?"}, None, ("4.22", "pvh")),
        ({}, '{"version": "4.22-unstable"}', ("4.22-unstable", "pvh")),
        ({"guest_type": "PV", "version/minor": "20"}, None, ("4.20.7", "pv")),
        ({"guest_type": None, "version/major": None}, None, ("4.17.7", "pv")),
        ({"version/major": "new"}, None, ("4.17.7", "pvh")),
        ({"version/minor": "22"}, '{"version": "4.19.6"}', ("4.19.6", "pvh")),
        ({"version/minor": "22"}, '{"dom0": "pv"}', ("4.22.7", "pv")),
    ],
)
def test_the_recording_tells_xens_version_and_the_kind_of_dom0(files, text, identity, tmp_path):
    machine = shutil.copytree(FIXTURES / "lab-pvh", tmp_path / "machine", symlinks=True)
    for name, content in files.items():
        put(machine / "sys/hypervisor" / name, None if content is None else f"{content}\n")
    put(machine / "xen.json", text)
    replay = Replay(str(machine))
    replay.hotplug.close()
    found = replay.xen.identity
    assert (found.full, found.dom0.value) == identity
    again = Replay(str(machine), "pv")
    again.hotplug.close()
    assert again.xen.identity.dom0.value == "pv"  # what was asked for counts


def test_a_written_command_register_is_remembered_and_not_stored(copy):
    host = RecordedHost(str(copy))
    sbdf = parse_sbdf("00:06.0")
    before = (copy / "sys/bus/pci/devices/0000:00:06.0/config").read_bytes()
    host.write_register(sbdf, COMMAND, 0x2)
    assert host.read_register(sbdf, COMMAND) == 2
    assert host.read_function(sbdf).config[4:6] == b"\x02\x00"
    assert (copy / "sys/bus/pci/devices/0000:00:06.0/config").read_bytes() == before


@pytest.mark.parametrize("name", ["xen.json", "sequence.jsonl"])
def test_a_file_that_cannot_be_opened_is_an_input_error(copy, name):
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to(name)  # a link to itself
    with pytest.raises(InputError, match=f"{name}: too many levels of symbolic links"):
        Replay(str(copy))


@pytest.mark.parametrize(("line", "count"), [("CPU:0 [LOST 40 EVENTS]\n", 40), ("CPU:1 [LOST EVENTS]\n", 1)])
def test_a_loss_in_the_trace_is_told_and_acted_on(copy, line, count):
    (copy / "writes.jsonl").write_text(line)
    replay, told = Replay(str(copy)), []
    replay.play(lambda: told.append("settle"), told.append, told.append)
    replay.hotplug.close()
    assert told[:2] == [count, "settle"]
    assert len(told) == 2 + 2 * len(replay.steps)
