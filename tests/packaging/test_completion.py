"""The completions, in the shells they are for. What they offer is compared with the program's own parsers."""

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from pcipt.cli.main import COMMANDS, make_parser
from tests.packaging.described import describe

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = "fixtures/sysfs/lab-pv"
ADDRESSES = sorted(os.listdir(REPOSITORY / MACHINE / "sys/bus/pci/devices"))
SHORT = [name.removeprefix("0000:") for name in ADDRESSES]


def options_of(name):
    """Ask the parser of a command for its options."""
    _, parser = make_parser(name)
    return {option for action in parser._actions for option in action.option_strings}


#  what is typed, what is offered; {M} is a recorded machine
CASES = (
    ("pcipt sta", {"status"}),
    ("pcipt pvh ch", {"check"}),
    ("pcipt help dec", {"decode"}),
    # values that are words
    ("pcipt daemon --dom0 p", {"pv", "pvh"}),
    ("pcipt pvh check --domain g", {"guest"}),
    # live addresses, with and without segment, of the machine that --root names
    ("pcipt show --root {M} 0000:00:1f", {name for name in ADDRESSES if name.startswith("0000:00:1f")}),
    ("pcipt show --root {M} 00:1f", {name for name in SHORT if name.startswith("00:1f")}),
    ("pcipt show --root={M} 00:1f.2", {"00:1f.2"}),
    ("pcipt list --root {M} -s 0000:02", {name for name in ADDRESSES if name.startswith("0000:02")}),
    # nothing fits
    ("pcipt show --root {M} ffff:", set()),
)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp("completion")
    for shell, name in (("bash", "pcipt"), ("zsh", "_pcipt"), ("fish", "pcipt.fish")):
        (place / name).write_text(describe(shell))
    return place


def bash_offers(written, line, breaks=" \t\n\"'><=;|&(:"):
    """Call the function as readline does; give back whole words, as readline would make of them."""
    program = (
        f"source {written}/pcipt; COMP_WORDBREAKS=$1 COMP_LINE=$2 COMP_POINT=${{#2}}; _pcipt;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", breaks, line],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    typed = re.split(f"[{re.escape(breaks)}]", line)[-1]
    last = line.split(" ")[-1]
    kept = last[: len(last) - len(typed)]
    return {f"{kept}{word}" for word in done.stdout.split()}


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash(written, line, offered):
    line = line.format(M=MACHINE)
    assert bash_offers(written, line) == offered
    assert bash_offers(written, line, " \t\n\"'><=;|&(") == offered  # some take the colon out


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_fish(written, tool, line, offered):
    program = f"source {written}/pcipt.fish; complete -C $argv[1]"
    done = subprocess.run(
        [tool("fish"), "--no-config", "-c", program, line.format(M=MACHINE)],
        cwd=REPOSITORY, env={"HOME": str(written), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {row.split("\t")[0] for row in done.stdout.splitlines()} == offered


def type_into(shell, setup, line, ended):
    """Type a line and TAB into an interactive shell on a terminal; give what it shows then."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(REPOSITORY)
        os.execve(shell[0], list(shell), {"PATH": "/usr/bin:/bin", "TERM": "dumb", "HOME": "/nonexistent"})
    shown = b""

    def wait_for(mark):
        nonlocal shown
        limit = time.monotonic() + 30
        while mark not in shown:
            ready, _, _ = select.select([terminal], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{mark!r} is not in {shown!r}"
            shown += os.read(terminal, 65536)

    try:
        os.write(terminal, setup.encode() + b"\n")
        wait_for(b"READY>")
        shown = b""
        os.write(terminal, line.encode() + b"\t")
        wait_for(ended)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    return shown.decode()


#  what is typed, what stands there after TAB
TYPED = (
    ("pcipt mon", "pcipt monitor "),
    ("pcipt show --root {M} 0000:00:1f.2", "0000:00:1f.2 "),
    ("pcipt show --root {M} 00:06", "00:06.0 "),
)


@pytest.mark.parametrize(("line", "result"), TYPED)
def test_bash_on_a_terminal(written, line, result):
    setup = f"source {written}/pcipt; bind 'set enable-bracketed-paste off'; PS1=; PS1=READ''Y\\>"
    type_into(["/bin/bash", "--norc", "--noprofile", "-i"], setup, line.format(M=MACHINE), result.encode())


@pytest.mark.parametrize(("line", "result"), TYPED)
def test_zsh_on_a_terminal(written, tool, line, result):
    setup = f"fpath=({written} $fpath); autoload -U compinit; compinit -D -u; PS1=REA''DY\\>"
    type_into([tool("zsh"), "-f", "-i"], setup, line.format(M=MACHINE), result.encode())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_offered(written, name):
    assert options_of(name) - bash_offers(written, f"pcipt {name} -") == set()
    fish, zsh = (written / "pcipt.fish").read_text(), (written / "_pcipt").read_text()
    for option in options_of(name) - {"-h", "--help"}:
        flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
        assert re.search(rf"__pcipt_is {name}'.* {flag}( |$)", fish, re.MULTILINE), option
        body = zsh[zsh.index(f"_pcipt_{name}() {{") :]
        assert f"'*{option}" in body[: body.index("\n}\n")], option
