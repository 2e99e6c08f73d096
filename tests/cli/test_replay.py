import json

import pytest

from pcipt.cli.main import main
from tests.trees import REPO

MACHINE = str(REPO / "fixtures/sysfs/lab-pvh")
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
        assert line.endswith(f": {action['result']}: {action['reason']}")


def test_the_kind_of_dom0_can_be_chosen(capsys):
    _, out, _ = run(capsys, MACHINE, "--dom0", "pv", "--json")
    maps = [action for action in map(json.loads, out.splitlines()) if action["action"] == "map-mmio"]
    assert maps
    assert {action["result"] for action in maps} == {"not-applicable"}


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--trace", "/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--trace", __file__], f"{__file__}: is no recording"),
        ([MACHINE, "--expect", "/nonexistent"], "/nonexistent: "),
        ([MACHINE, "--expect", __file__], f"{__file__}: "),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(arguments, said, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert err.startswith(f"pcipt: {said}")
    assert err.count("\n") == 1
