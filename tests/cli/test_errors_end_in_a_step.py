"""Every error of the command line ends in a command, or says that nothing can be done and why.

All places of the program that raise an error are walked, and many wrong command lines are run.
"""

import ast
import errno
import re
import shlex
from pathlib import Path

import pytest

from pcipt import errors
from pcipt.cli.commands.policy.remove import NoSuchEntryError
from pcipt.cli.main import COMMANDS, main, make_parser
from pcipt.cli.options import with_explicit_values
from pcipt.cli.text import error_steps
from pcipt.cli.text.error_steps import error_text, has_step
from tests.trees import REPO

LIST = "`pcipt list` shows the addresses"
ROOM = Path(__file__).resolve().parents[2] / "pcipt"
MACHINE = str(REPO / "fixtures/sysfs/lab-pv")
KINDS = {
    name: kind for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PciptError)
} | {"NoSuchEntryError": NoSuchEntryError}  # fmt: skip
FILLED = {
    errors.AddressError: ("x", "bus", "w"),
    errors.MalformedError: ("f", 1, "w"),
    errors.HypervisorError: ("op", 1),
}


def text_of(node):
    """The text that an argument has as far as the source says it; X for what it fills in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return "X"


def raised():
    """Yield (place, error) for each error of pcipt.errors that is raised anywhere."""
    for path in sorted(ROOM.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.exc if isinstance(node, ast.Raise) else None
            name = (
                getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
            )
            if name not in KINDS:
                continue
            given = [text_of(each) for each in call.args]
            usual = FILLED.get(KINDS[name], ())
            if KINDS[name] in FILLED:  # offsets and numbers are no texts
                given = [word if isinstance(usual[at], str) else usual[at]
                         for at, word in enumerate(given[: len(usual)])]  # fmt: skip
            if name in ("NoSuchDeviceError", "NoSuchEntryError"):
                given = given[:1]
            yield f"{path.relative_to(ROOM)}:{node.lineno}", KINDS[name](*given)


RAISED = list(raised())


def steps_in(text):
    return re.findall(r"`([^`]+)`", text)


def check_step(text):
    assert has_step(text), text
    for step in steps_in(text):
        words = shlex.split(step.replace("sudo ", ""))
        if words[:1] == ["pcipt"] and words[1] != "help":
            assert words[1] in COMMANDS, step
    assert not re.search(r"see pcipt|run pcipt|use pcipt|run it with sudo", text), text


def test_the_walk_finds_the_places():
    assert len(RAISED) > 150
    assert {type(error) for _, error in RAISED} == set(KINDS.values()) - {errors.PciptError}


@pytest.mark.parametrize(("place", "error"), RAISED, ids=[place for place, _ in RAISED])
def test_each_error_that_is_raised_ends_in_a_step(place, error):
    for command in (["list"], ["policy", "add", "X"], ["daemon"], []):
        check_step(error_text(error, command))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EIO, errno.EISDIR])
@pytest.mark.parametrize("euid", [0, 1000])
def test_an_error_of_the_system_gets_the_step_of_its_number(number, euid, monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: euid)
    place = str(tmp_path / "no" / "such")
    wrapped = errors.InputError(place, "why")
    wrapped.__cause__ = OSError(number, "why", place)
    said = {error_text(each, ["list", "--root", place]) for each in (wrapped, OSError(number, "why", place))}
    for each in said:
        check_step(each)
    if number == errno.ENOENT:
        assert said == {f"{place}: why; `ls {tmp_path}` shows what is there"}
    if number == errno.EACCES and euid:
        assert said == {f"{place}: why; run it as root: `sudo pcipt list --root {place}`"}


@pytest.mark.parametrize(
    ("error", "command", "step"),
    [
        (errors.NoSuchDeviceError("x"), ["show", "x"], LIST),
        (errors.NoSuchDeviceError("x"), ["show", "x", "--root", "a b"],
         "`pcipt list --root 'a b'` shows the addresses"),
        (errors.AddressError("x", "bus", "w"), ["show", "x", "--dump=d"],
         "`pcipt list --dump=d` shows the addresses"),
        (errors.NoSuchDeviceError("x"), ["policy", "add", "x"], LIST),
        (errors.AddressError("x", "bus", "w"), ["policy", "add", "x", "--root", "d"],
         "`pcipt list --root d` shows the addresses"),
        (NoSuchEntryError("x"), ["policy", "remove", "x"], "`pcipt policy list` shows what is kept"),
        (errors.InputError("f", "bad"), ["pvh", "tables"],
         "`pcipt help pvh tables` shows how to use this command, with examples"),
        (errors.InputError("xl x", "bad"), ["release"], "`xl dmesg` and `dmesg` show more"),
        (errors.StateError("`ls` it"), ["release"], None),
        (errors.StateError("nothing can be done: why"), ["release"], None),
        (errors.AddressError("`ls`", "bus", "w"), ["show"], LIST),  # the user's backticks
        (RuntimeError("x"), ["list"],
         "please send this line and the archive of `pcipt report` to the makers of pcipt"),
    ],
)  # fmt: skip
def test_the_step_fits_the_error_and_the_command(error, command, step):
    said = error_text(error, command)
    assert said.count("; ") == (0 if step is None else 1)
    assert step is None or said.endswith(f"; {step}")


WRONG = [
    ["show", "99:00.0", "--root", MACHINE],
    ["show", "zz"],
    ["list", "--root", "/nonexist"],
    ["list", "--root", MACHINE, "-s", "99:99"],
    ["list", "--dump", "/dev/null"],
    ["tree", "--root", MACHINE, "--svg=/nonexist/x"],
    ["rmrr", "--table", "/dev/null"],
    ["check", "--xl", "/nonexist"],
    ["decode", "/nonexist"],
    ["diff", "/nonexist"],
    ["record", MACHINE],
    ["report", "/nonexist/x.tar.gz", "--root", MACHINE],
    ["report", "/dev/null", "--root", MACHINE],
    ["replay", "/nonexist"],
    ["policy", "add", "00:00.0", "--root", MACHINE],
    ["policy", "remove", "00:00.0", "--root", MACHINE],
    ["status", "--socket", "/nonexist"],
    ["release", "02:00.0", "--socket", "/nonexist"],
    ["daemon", "--settings", "/nonexist"],
    ["pvh", "layout", "--root", "/nonexist"],
    ["lsit"],
]
USAGE = [
    ["list", "--foo"],
    ["show"],
    ["list", "--json=foo"],
    ["pvh", "foo"],
    ["pvh", "check", "/nonexist"],
    ["policy", "snippet"],
    ["record"],
    ["check", "00:1f.0", "--xl", "/dev/null"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_command_line_ends_in_a_step(arguments, capsys):
    assert main(arguments) != 0
    (line,) = capsys.readouterr().err.splitlines()
    check_step(line)


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_a_wrong_option_ends_in_the_help_of_the_command_or_its_part(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    check_step(line)
    part = [each for each in arguments[1:2] if each in ("check", "snippet")]
    assert f"`pcipt {' '.join([arguments[0], *part])} --help`" in line


def test_a_command_in_a_step_can_be_typed(capsys):
    """The commands that the module itself builds are parsed by their own parsers."""
    for error, command in (
        (errors.NoSuchDeviceError("x"), ["show", "x", "--root", "d"]),
        (errors.StateError("x"), ["release", "x"]),
        (errors.StateError("x"), ["policy", "add", "x"]),
        (errors.UnsupportedError("x", "y"), ["daemon"]),
    ):
        for step in steps_in(error_text(error, command)):
            name, *rest = shlex.split(step)[1:]
            make_parser(name)[1].parse_args(with_explicit_values(rest))
    assert error_steps.has_step("`ls`")
