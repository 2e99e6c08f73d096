import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pcipt import __version__, errors
from pcipt.cli import main as entry
from pcipt.cli.commands.policy import group as policy
from pcipt.cli.commands.pvh import group as pvh
from pcipt.cli.main import COMMANDS, EXIT_CODES, main, make_parser
from pcipt.cli.options import with_explicit_values
from tests.answers import ANSWERS, EVENTS, answering
from tests.trees import add

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_command_has_a_module_and_help(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert f"usage: pcipt {name}" in capsys.readouterr().out


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pcipt {__version__}\n"
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "walks"), [(["--version"], False), (["daemon", "--help"], True)])
def test_a_short_command_collects_no_garbage(words, walks):
    code = "import gc, sys; from pcipt.cli.main import main; gc.collect(); before = gc.get_stats()\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([[] for _ in range(9000)] and gc.get_stats() != before, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True, text=True)
    assert ran.stderr == f"{walks}\n"


def test_a_mistyped_command_gets_a_suggestion(capsys):
    assert main(["lsit"]) == 2
    assert capsys.readouterr().err == (
        "pcipt: there is no command 'lsit' (did you mean list?); `pcipt help` lists all commands\n"
    )
    assert main(["\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.AddressError("x", "bus", "why"), 2),
        (errors.NotRunningError("/run", "why"), 3),
        (errors.NotPermittedError("what", "needed"), 5),
        (errors.NoSuchDeviceError("00:00.0", ("0000:00:00.1",)), 6),
        (errors.InputError("p", "why"), 1),
        (errors.MalformedError("p", 3, "why"), 1),
        (errors.MalformedError("p", 3, "why", "line"), 1),
        (errors.HypervisorError("add", 1), 1),
        (errors.UnsupportedError("f", "why"), 1),
        (PermissionError(13, "Permission denied", "/x"), 5),
        (FileNotFoundError(2, "No such file", "/x"), 1),
        (RuntimeError("surprise"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes_and_one_line(error, code, capsys, monkeypatch):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(entry, "_dispatch", fail)
    monkeypatch.delenv("PCIPT_TRACEBACK", raising=False)
    assert main(["list"]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == (0 if code == 130 else 1)
    assert "Traceback" not in said


def test_every_error_class_has_an_exit_code():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 8
    for kind in kinds:
        assert any(issubclass(kind, listed) for listed, _ in EXIT_CODES)


def test_a_closed_pipe_ends_quietly():
    command = f"{sys.executable} -m pcipt.cli.main --help | true"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_closed_by_the_caller_are_no_error(closed):
    command = f"{sys.executable} -m pcipt.cli.main list --root fixtures/sysfs/lab-pv {closed}"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FORBIDDEN = {
    "asyncio",
    "structlog",
    "attrs",
    "attr",
    "pyroute2",
    "cffi",
    "pcipt.pci",
    "logging",
    "typing_extensions",
}


LOADED = "import sys\nfrom pcipt.cli.main import main\nmain(sys.argv[1:])\nprint(' '.join(sys.modules))\n"
LIGHT = {
    "pcipt", "pcipt.errors", "pcipt.daemon", "pcipt.daemon.control", "pcipt.daemon.control.protocol",
    *(f"pcipt.cli.{name}" for name in
      ("main", "options", "parser", "commands", "machine", "machine.client", "text",
       "text.clock", "text.event_text", "text.render", "text.terminal")),
    "pcipt.cli", "pcipt.words", "pcipt.hints",
}  # fmt: skip

#  what asks the daemon, and what it may load beside its own module
ASKING = [
    (["status"], set()),
    (["mappings"], set()),
    (["resync", "--dry-run"], {"pcipt.cli.commands.status"}),
    (["history", "02:00.0"], set()),
    (["explain", "02:00.0"], set()),
    (["monitor", "-s", "02:"], set()),
]


@pytest.mark.parametrize(("command", "more"), ASKING, ids=[command[0] for command, _ in ASKING])
def test_what_asks_the_daemon_loads_only_what_it_needs(command, more, tmp_path):
    stream = [{"version": 1, "kind": "start"}, *EVENTS]
    with answering(tmp_path / "control", {**ANSWERS, "Monitor": stream}) as control:
        done = subprocess.run(
            [sys.executable, "-c", LOADED, *command, "--socket", control],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stderr.count("\n") == (1 if command[0] == "monitor" else 0)  # it tells of the end
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & FORBIDDEN == set()
    assert {m for m in loaded if m.startswith("pcipt")} <= LIGHT | more | {f"pcipt.cli.commands.{command[0]}"}


#  what only another option, or tables that only root may read, needs
NOT_NEEDED = [
    (["show", "00:1f.0"], {
        "json", "socket", "pcipt.host.paste.tables", "pcipt.firmware.coverage", "pcipt.xen.interface",
    }),
    (["check", "00:1f.0"], {
        "json", "socket", "tempfile", "tomllib",
        "pcipt.host.policy.policy_files", "pcipt.pci.notation.xl_config",
        "pcipt.firmware.acceptance.judge", "pcipt.firmware.regions.tables", "pcipt.firmware.pvh.layout",
        "pcipt.xen.boot_words", "pcipt.host.paste.tables",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("command", "left_out"), NOT_NEEDED, ids=[command[0] for command, _ in NOT_NEEDED])
def test_what_reads_a_machine_loads_only_what_it_needs(command, left_out, tmp_path):
    add(tmp_path, "pci0000:00/0000:00:1f.0")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command, "--root", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode in (0, 4), done.stderr) == (True, "")
    assert set(done.stdout.splitlines()[-1].split()) & left_out == set()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["history", "00:82.0"], 2, "malformed address 00:82.0: device 82 is above 1f"),
        (["explain", "02:"], 2, "malformed address 02:: function is missing or *"),
        (["monitor", "-s", "x"], 2, "malformed address x: device 'x' is not hexadecimal"),
        (["explain", "00_1c.0-00_00.0"], 3, "the pcipt daemon is not running"),
        (["history", "02:00.0"], 3, "the pcipt daemon is not running"),
        (["monitor"], 3, "the pcipt daemon is not running"),
    ],
)
def test_an_address_is_judged_before_the_daemon_is_missed(command, code, said, tmp_path, capsys):
    assert main([*command, "--socket", str(tmp_path / "none")]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pcipt: {said}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_valid_command_line(name):
    module, _ = make_parser(name)
    assert module.EXAMPLES
    for line, about in module.EXAMPLES:
        assert about
        calls = re.findall(r"pcipt ([^|&(>]+)", line)
        assert any(call.split()[0] == name or call.startswith(f"help {name}") for call in calls), line
        for call in calls:
            command, *arguments = shlex.split(call)
            if command != "help":
                make_parser(command)[1].parse_args(with_explicit_values(arguments))


def test_help_is_found_by_either_name(capsys):
    for asked in (["help", "pvh", "check"], ["pvh", "check", "--help"], ["--help", "pvh", "check"]):
        with pytest.raises(SystemExit) as ended:
            main(asked)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("usage: pcipt pvh check ")
    assert main(["help", "lsit"]) == 2
    assert "did you mean list?" in capsys.readouterr().err
    assert main(["help", "--help"]) == 0
    assert "usage: pcipt COMMAND" in capsys.readouterr().out


def test_a_name_that_the_encoding_lacks_ends_nothing(tmp_path):
    command = [sys.executable, "-m", "pcipt.cli.main", "status", "--socket"]
    status = {**ANSWERS["Status"], "mode": "caf\u00e9 \u2026"}
    with answering(tmp_path / "control", {"Status": status}) as control:
        done = subprocess.run(
            [*command, control], cwd=REPOSITORY, capture_output=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, b"")
    assert rb"Mode: caf\xe9 \u2026" in done.stdout


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["--json", "00:1f.2"], ["--json=short", "00:1f.2"]),  # the address is not --json's value
        (["00:1f.2", "--json"], ["00:1f.2", "--json=short"]),
        (["--json=pretty"], ["--json=pretty"]),
        (["--color", "00:1f.2"], ["--color=always", "00:1f.2"]),
        (["--", "--json"], ["--", "--json"]),
    ],
)
def test_a_bare_option_takes_no_value(given, parsed):
    assert with_explicit_values(given) == parsed


@pytest.mark.parametrize(("unit", "expected"), [("byte", "p: at 0x1f: why"), ("line", "p: line 31: why")])
def test_a_byte_offset_is_hexadecimal_and_a_line_number_is_not(unit, expected):
    assert str(errors.MalformedError("p", 31, "why", unit)) == expected


PART_NAMES = [
    (name, part) for name, parts in (("policy", policy.PARTS), ("pvh", pvh.PARTS)) for part in parts
]
HELPS = [*((name,) for name in COMMANDS if name not in {"policy", "pvh"}), *PART_NAMES]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_every_help_says_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["help", *command])
    assert ended.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Exit codes: [02] \w+", words)
