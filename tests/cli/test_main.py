import subprocess
import sys
from pathlib import Path

import pytest

from pcipt import __version__, errors
from pcipt.cli import main as entry
from pcipt.cli.main import COMMANDS, EXIT_CODES, main
from pcipt.cli.options import with_explicit_json

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


def test_a_mistyped_command_gets_a_suggestion(capsys):
    assert main(["lsit"]) == 2
    assert capsys.readouterr().err == "pcipt: unknown command 'lsit' (did you mean list?); see pcipt --help\n"
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


def test_status_loads_only_what_it_needs(tmp_path):
    program = (
        "import sys\n"
        "from pcipt.cli.main import main\n"
        f"main(['status', '--socket', {str(tmp_path / 'none')!r}])\n"
        "print(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded & FORBIDDEN == set()
    names = ("", ".cli", ".cli.main", ".cli.status", ".cli.client", ".cli.options", ".errors", ".service",
             ".service.protocol")  # fmt: skip
    assert {m for m in loaded if m.startswith("pcipt")} <= {f"pcipt{name}" for name in names}


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["--json", "00:1f.2"], ["--json=short", "00:1f.2"]),  # the address is not --json's value
        (["00:1f.2", "--json"], ["00:1f.2", "--json=short"]),
        (["--json=pretty"], ["--json=pretty"]),
        (["--", "--json"], ["--", "--json"]),
    ],
)
def test_a_bare_json_option_takes_no_value(given, parsed):
    assert with_explicit_json(given) == parsed
