"""Where nothing is found, a sentence says so: on a terminal, in a pipe and in a file."""

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.answers import ANSWERS, answering
from tests.trees import REPO

MACHINE = str(REPO / "fixtures/sysfs/lab-pv")
#  command -> what it says; EMPTY is a machine without functions, NONE a policy without entries
CASES = [
    (["list", "--root", MACHINE, "-s", "99:"], "no function fits 99:"),
    (["list", "--root", "EMPTY"], "this machine has no PCI functions"),
    (["tree", "--root", "EMPTY"], "this machine has no PCI functions"),
    (["groups", "--root", "EMPTY"], "this machine has no function that a guest can be given"),
    (["space", "--root", "EMPTY"], "this machine has no buses"),
    (["rmrr", "--root", MACHINE], "no reserved regions (source: "),
    (["diff", MACHINE, MACHINE], "no changes"),
    (["policy", "check", "--root", MACHINE, "--policy", "NONE"], "the policy keeps no function for guests; "),
    (["decode", "--format", "writes-jsonl", "/dev/null"], "no write of configuration space was found"),
    (["policy", "list", "--root", MACHINE, "--policy", "NONE"], "the policy keeps no function for guests; "),
    (["policy", "snippet", "--xl", "--root", MACHINE, "--policy", "NONE"], "the policy keeps no function "),
]


def run(arguments):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(("arguments", "said"), CASES, ids=lambda each: " ".join(each[:2]))
def test_nothing_is_said_in_a_pipe(arguments, said, tmp_path):
    (tmp_path / "empty/sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    places = {"EMPTY": str(tmp_path / "empty"), "NONE": str(tmp_path / "none")}
    code, out, err = run([places.get(each, each) for each in arguments])
    assert code == 0
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"note: {said}")


@pytest.mark.parametrize("arguments", [["list"], ["tree"], ["groups"], ["space"]], ids=lambda each: each[0])
def test_something_is_found_without_a_note(arguments):
    _, out, err = run([*arguments, "--root", MACHINE])
    assert out != ""
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "method", "answer"),
    [
        (["mappings"], "Mappings", {**ANSWERS["Mappings"], "mappings": [], "why": None}),
        (["history", "02:00.0"], "History", {**ANSWERS["History"], "events": []}),
        (["resync"], "Resync", {"version": 1, "health": "healthy", "actions": []}),
    ],
    ids=["mappings", "history", "resync"],
)
@pytest.mark.parametrize("json", [False, True])
def test_the_services_commands_say_it_too(arguments, method, answer, tmp_path, json):
    with answering(tmp_path / "control", {**ANSWERS, method: answer}) as path:
        code, out, err = run([*arguments, *(["--json"] if json else []), "--socket", path])
    assert code == 0
    if json:
        assert out.startswith('{"version": 1')
        assert err == ""
        return
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("note: ")
    assert len(line.split()) > 3


def test_a_service_that_does_not_run_is_told_with_the_command_that_starts_it(tmp_path):
    code, _, err = run(["status", "--socket", str(tmp_path / "none")])
    assert code == 3
    assert err.endswith("`systemctl status pcipt` shows why, `systemctl start pcipt` starts it\n")
