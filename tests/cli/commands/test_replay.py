import json
import os
import shutil

import pytest

from pcipt.cli.main import main
from tests.trees import REPO

MACHINE = str(REPO / "fixtures/sysfs/lab-pvh")
NONE = str(REPO / "pyproject.toml")
KEYS = ["n", "action", "sbdf", "start", "size", "reason", "result"]


def run(capsys, *arguments):
    code = main(["replay", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def taken(capsys):
    """The actions that are taken on the recorded machine."""
    code, out, err = run(capsys, MACHINE, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_the_actions_are_told_in_both_forms(taken, capsys):
    assert taken
    assert all(list(action) == KEYS for action in taken)
    _, out, _ = run(capsys, MACHINE)
    lines = out.splitlines()
    assert len(lines) == len(taken)
    for line, action in zip(lines, taken, strict=True):
        number, sbdf, word = line.split()[:3]
        assert (int(number), sbdf, word.rstrip(":")) == (action["n"], action["sbdf"], action["action"])
        assert action["start"] is None or f" {action['start']}-0x" in line
        assert line.endswith(f": {action['result']}; planned because {action['reason']}")


def test_the_kind_of_dom0_can_be_chosen(capsys):
    _, out, _ = run(capsys, MACHINE, "--dom0", "pv", "--json")
    maps = [action for action in map(json.loads, out.splitlines()) if action["action"] == "map-mmio"]
    assert maps
    assert {action["result"] for action in maps} == {"not-applicable"}


REMAP = REPO / "fixtures/sysfs/lab-remap-pvh"
LOSS = """\
  setpci-394 [000] d..1. 45.838809: conf1: (pci_conf1_write+0x0/0xf0) seg=0 bus=0 devfn=48 reg=4 len=2 val=2
CPU:0 [LOST 3 EVENTS]
"""


def recorded(directory):
    """Copy a recorded machine without its steps, to be played with another trace."""
    shutil.copytree(REMAP, directory, symlinks=True)
    (directory / "sequence.jsonl").unlink()
    return directory


def test_what_a_trace_has_lost_is_said(tmp_path, capsys):
    (tmp_path / "trace").write_text(LOSS)
    _, _, err = run(capsys, recorded(tmp_path / "m"), "--trace", tmp_path / "trace")
    assert "3 records of the trace were lost" in err


def test_ecam_accesses_are_understood_by_the_machines_own_table(tmp_path, capsys):
    machine = recorded(tmp_path / "m")
    table = machine / "sys/firmware/acpi/tables/MCFG"
    data = bytearray(table.read_bytes())
    data[44:52], data[55], data[9] = (0xF800_0000).to_bytes(8, "little"), 0x3F, 0
    data[9] = -sum(data) & 0xFF
    table.write_bytes(data)
    writes = [(0x4, 2, 0x100), (0x10, 4, 0xFE10_0000), (0x4, 2, 0x102), (0x10, 4, 0xFE20_0000)]
    accesses = [
        {"n": n, "vcpu": 0, "dir": "w", "ecam": hex(0xF803_0000 + at), "size": size, "value": hex(value)}
        for n, (at, size, value) in enumerate(writes, 1)
    ]
    _, out, _ = run(capsys, machine, "--json", "--trace", written(tmp_path / "trace", accesses))
    assert [json.loads(line)["action"] for line in out.splitlines()] == ["rewrite-bar"]


def written(path, actions):
    path.write_text("".join(json.dumps(action) + "\n" for action in actions))
    return path


def test_what_was_expected_is_0(taken, tmp_path, capsys):
    expected = written(tmp_path / "all", taken)
    assert run(capsys, MACHINE, "--expect", expected) == (0, f"{len(taken)} actions, as expected\n", "")
    some = [{key: action[key] for key in ("action", "sbdf", "result")} for action in taken]
    assert run(capsys, MACHINE, "--expect", written(tmp_path / "some", some))[0] == 0


@pytest.mark.parametrize(
    ("change", "signs"),
    [
        (lambda actions: actions[:-1], "+"),
        (lambda actions: [*actions, actions[0]], "-"),
        (lambda actions: [{**actions[0], "result": "failed"}, *actions[1:]], "-+"),
        (lambda _actions: [], "+"),  # nothing was expected
    ],
)
def test_a_difference_is_shown_and_1(change, signs, taken, tmp_path, capsys):
    expected = written(tmp_path / "expected", change(taken))
    code, out, err = run(capsys, MACHINE, "--expect", expected)
    assert (code, err) == (1, "")
    shown = {line[0] for line in out.splitlines() if line[:3] not in {"---", "+++"}}
    assert shown & set("+-") == set(signs)
    code, out, err = run(capsys, MACHINE, "--json", "--expect", expected)
    assert code == 1
    assert [json.loads(line) for line in out.splitlines()] == taken  # stdout is for the program
    assert err.splitlines()[0].startswith("---")


def test_a_misspelt_key_of_what_is_expected_is_told(taken, tmp_path, capsys):
    misspelt = [{"sbfd" if key == "sbdf" else key: action[key] for key in action} for action in taken]
    code, _, err = run(capsys, MACHINE, "--expect", written(tmp_path / "expected", misspelt))
    assert code == 1
    assert err.startswith(f"pcipt: {tmp_path / 'expected'}: has the unknown key 'sbfd'; expected n, action")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--trace", "/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--trace", NONE], f"{NONE}: is no recording"),
        ([MACHINE, "--expect", "/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--expect", __file__], f"{__file__}: "),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(arguments, said, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert err.startswith(f"pcipt: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["xen.json", "sequence.jsonl", "writes.jsonl"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}\n" * 400_000, None])
def test_a_recording_that_is_nested_too_long_or_no_file_is_one_clear_line(name, content, tmp_path, capsys):
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    if content is None:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    code, out, err = run(capsys, tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"pcipt: {tmp_path / name}: ")
    assert err.count("\n") == 1
