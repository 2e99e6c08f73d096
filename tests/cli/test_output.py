"""Where output goes: a full disk, a reader that has left, an interruption. One rule for all subcommands.

full        exit code 1 and one line that says so
left        exit code 1 and no words: the reader wanted no more
interrupted exit code 130 and no words
Each runs with arguments with which it prints; those of the service ask one with fixed answers.
"""

import io
import os
import sys
from pathlib import Path

import pytest

from pcipt.cli.main import COMMANDS, main
from tests.answers import ANSWERS, EVENTS, answering

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "sysfs"
MACHINE, REMAP = str(FIXTURES / "lab-pv"), FIXTURES / "lab-remap-pvh"
PLUGGED = str(FIXTURES / "lab-pv/steps/1-plugged")
HERE, NONE = ["--root", MACHINE], list[str]()
NIC = "00:06.0"
FROM_DAEMON = {"status", "mappings", "explain", "monitor", "history", "resync", "metrics"}
#  command: arguments with which it prints; None: see `NOT_RUN`
ARGUMENTS = {
    "status": NONE, "list": HERE, "tree": HERE, "show": [*HERE, "00:00.0"], "space": HERE, "mappings": NONE,
    "explain": [NIC], "rmrr": HERE, "host": HERE, "check": [*HERE, NIC], "groups": HERE, "release": None,
    "reclaim": None, "admit": None, "monitor": NONE, "history": [NIC], "resync": NONE,
    "record": [*HERE, "DIR"],
    "decode": [str(REMAP / "writes.jsonl")], "replay": [str(REMAP)], "pvh": ["layout", "--root", str(REMAP)],
    "metrics": NONE, "daemon": ["--check-settings"], "diff": [MACHINE, PLUGGED], "policy": None,
    "report": None,
}  # fmt: skip
ANSWERED = {
    **ANSWERS,
    "Monitor": EVENTS,
    "Metrics": {"version": 1, "content_type": "text", "text": "# EOF\n"},
}
#: The first two need a toolstack (test_release.py), the others print what depends on the host's files.
NOT_RUN = dict.fromkeys(("release", "reclaim", "admit", "policy", "report"), "--help")


def test_every_subcommand_is_here():
    assert set(ARGUMENTS) == set(COMMANDS)


@pytest.fixture
def service(tmp_path):
    """A service that answers, or else says that it cannot; its path."""
    with answering(tmp_path / "control", dict(ANSWERED)) as path:
        yield path


class Interrupting(io.StringIO):
    """Is written to when Ctrl-C comes."""

    def write(self, _text):
        raise KeyboardInterrupt


def full(_tmp_path):
    return open("/dev/full", "w", encoding="utf-8")


def left(_tmp_path):
    read, write = os.pipe()
    os.close(read)
    return open(write, "w", encoding="utf-8")


def interrupted(_tmp_path):
    return Interrupting()


RULES = {
    full: (1, "pcipt: no space left on device; `df -h` shows the space that is left\n"),
    left: (1, ""),
    interrupted: (130, ""),
}


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("where", list(RULES), ids=lambda where: where.__name__)
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_one_rule_for_all(service, tmp_path, monkeypatch, capsys, command, where, more):
    arguments = ARGUMENTS[command]
    if arguments is None:
        arguments = [NOT_RUN[command]]
        if where is interrupted:
            pytest.skip("argparse prints the help")
    if more and command in {"daemon", "record"}:
        more = []
    if command == "rmrr":  # the machine has no regions: a text of no lines
        more = ["--json"]
    if command in FROM_DAEMON:
        arguments = [*arguments, "--socket", service]
    arguments = [str(tmp_path / "new") if each == "DIR" else each for each in arguments]
    stdout = where(tmp_path)
    monkeypatch.setattr(sys, "stdout", stdout)
    code, words = RULES[where]
    try:
        assert main([command, *arguments, *more]) == code
    finally:
        monkeypatch.undo()
        stdout.close()  # what could not be written was dropped
    said = [
        line for line in capsys.readouterr().err.splitlines(keepends=True) if not line.startswith("note: ")
    ]
    assert "".join(said) == words
