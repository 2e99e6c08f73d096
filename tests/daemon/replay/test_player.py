"""A recorded machine and a trace give actions, each with the number of what led to it."""

import json
import shutil
from pathlib import Path

import pytest

from pcipt.daemon.replay.player import KEYS, differences, replayed
from pcipt.errors import InputError, MalformedError

LAB = Path(__file__).resolve().parents[3] / "fixtures" / "sysfs" / "lab-pvh"
DEV = "0000:00:06.0"


def write(n, offset, value, size=4, **more):
    return {"n": n, "sbdf": DEV, "offset": hex(offset), "size": size, "value": hex(value), **more}


MOVE = [
    write(1, 4, 0, 2, when=1.0), write(2, 0x10, 0xFEB0_0000, when=1.001), write(3, 4, 2, 2, when=1.002),
    write(5, 0x10, 0xFEB4_0000, when=2.0),
]  # fmt: skip
FORGOTTEN = [{"n": 4, "forget": [DEV], "about": "somebody made Xen forget it"}]


@pytest.fixture
def machine(tmp_path):
    target = tmp_path / "machine"
    shutil.copytree(LAB, target, symlinks=True)
    (target / "sequence.jsonl").unlink()
    lines(target / "writes.jsonl", MOVE)
    return target


def lines(path, values):
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return str(path)


def rows(actions):
    return [(a["n"], a["action"], a["start"], a["result"]) for a in actions]


def test_vpci_follows_a_move_by_itself_but_drops_a_write_while_decoding(machine):
    assert rows(replayed(str(machine))) == [
        (0, "add-device", None, "done"),
        (5, "rewrite-bar", "0xfeb40000", "done"),
    ]


def test_a_step_comes_after_the_writes_up_to_its_number(machine):
    lines(machine / "sequence.jsonl", FORGOTTEN)
    actions = list(replayed(str(machine)))
    assert rows(actions) == [
        (0, "add-device", None, "done"),
        (5, "add-device", None, "done"),
        (5, "unmap-mmio", "0xfeb00000", "done"),
    ]
    assert tuple(actions[0]) == KEYS


def test_a_trace_that_kills_the_simulated_host_is_said(tmp_path):
    """The trace lacks the write that makes virtual functions decode, and a step has them all the same."""
    machine = shutil.copytree(LAB.with_name("lab-remap-pvh"), tmp_path / "machine", symlinks=True)
    trace = machine / "writes.jsonl"
    kept = [
        row for row in trace.read_text().splitlines(True) if json.loads(row)["offset"] not in ("0x128", 0x128)
    ]
    assert kept != trace.read_text().splitlines(True)
    trace.write_text("".join(kept))
    with pytest.raises(InputError, match="the simulated host dies"):
        list(replayed(str(machine)))


def test_on_pv_the_same_is_not_applicable(machine):
    lines(machine / "sequence.jsonl", FORGOTTEN)
    actions = rows(replayed(str(machine), dom0="pv"))
    assert ("map-mmio", "not-applicable") in {(word, result) for _, word, _, result in actions}
    assert {result for _, word, _, result in actions if word.endswith("-mmio")} == {"not-applicable"}


def test_another_trace_may_be_given_and_own_writes_are_left_out(machine, tmp_path):
    own = [{**each, "own": True} for each in MOVE]
    trace = lines(tmp_path / "other.jsonl", own)
    lines(machine / "sequence.jsonl", FORGOTTEN)
    assert rows(replayed(str(machine), trace=trace))[1:] == []


def test_a_replay_is_the_same_each_time_and_writes_nothing(machine):
    lines(machine / "sequence.jsonl", FORGOTTEN)
    before = sorted(path for path in machine.rglob("*"))
    first = list(replayed(str(machine)))
    assert first
    assert list(replayed(str(machine))) == first
    assert sorted(path for path in machine.rglob("*")) == before


def test_expected_actions_are_compared_by_the_keys_they_have(machine, tmp_path):
    actions = list(replayed(str(machine)))
    assert differences(lines(tmp_path / "same", actions), actions) == []
    few = [{key: action[key] for key in ("action", "result")} for action in actions]
    assert differences(lines(tmp_path / "few", few), actions) == []
    other = [{**few[0], "result": "refused"}]
    diff = differences(lines(tmp_path / "other", other), actions)
    assert [line[0] for line in diff[2:]] == ["@", "-", "+", "+"]
    assert differences(lines(tmp_path / "none", []), []) == []


@pytest.mark.parametrize("text", ["{", "[1]\n", "3\n"])
def test_what_is_no_list_of_actions_is_said(tmp_path, text):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(InputError, match="JSON"):
        differences(str(tmp_path / "bad"), [])


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("writes.jsonl", '{"n": 1, "sbdf": "zz", "offset": 4, "size": 2, "value": 0}\n', InputError),
        (
            "writes.jsonl",
            f'{{"n": 1, "sbdf": "{DEV}", "offset": 4, "size": 2, "value": 0, "when": "x"}}\n',
            InputError,
        ),
        ("sequence.jsonl", '{"n": -1, "forget": []}\n', MalformedError),
    ],
)
def test_a_damaged_recording_is_said(machine, file, text, error):
    (machine / file).write_text(text)
    with pytest.raises(error):
        list(replayed(str(machine)))
