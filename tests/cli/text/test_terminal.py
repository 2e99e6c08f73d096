import functools
import re

import pytest

from pcipt.cli.main import COMMANDS, main
from pcipt.cli.text import terminal
from tests.answers import ANSWERS, EVENTS, NIC, answering, on_terminal
from tests.trees import REPO

MACHINE = str(REPO / "fixtures/sysfs/lab-pv")
SGR = re.compile(r"\x1b\[[0-9;]*m")
WHOLE = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|0x[0-9a-f]+(?:-0x[0-9a-f]+)?")
HERE = f"--root={MACHINE}"

#  command line, without the socket; whether its names may be cut
SHOWN = [
    (["list", HERE], False),
    (["list", "-n", HERE], False),
    (["tree", HERE], True),
    (["show", NIC, HERE], False),
    (["show", "04.0", HERE], False),
    (["pvh", "layout", HERE], False),
    (["pvh", "check", HERE], False),
    (["replay", MACHINE], False),
    (["check", HERE], False),
    (["rmrr", HERE], False),
    (["groups", HERE], False),
    (["space", HERE], False),
    (["host", HERE], False),
    (["diff", MACHINE, str(REPO / "fixtures/sysfs/lab-remap-pv")], False),
    (["status"], False),
    (["mappings"], False),
    (["history", NIC], False),
    (["explain", NIC], False),
    (["resync"], False),
    (["monitor"], False),
    (["--help"], False),
]
ASKING = {"status", "mappings", "history", "resync", "monitor", "explain"}


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    stream = [{"version": 1, "kind": "start"}, *EVENTS]
    with answering(tmp_path_factory.mktemp("socket") / "control", {**ANSWERS, "Monitor": stream}) as path:
        yield path


@pytest.mark.parametrize("columns", ["80", "160"])
def test_help_fits(columns, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    for name in [*COMMANDS, "pvh startinfo", "pvh layout", "pvh tables", "pvh check"]:
        with pytest.raises(SystemExit):
            main(["help", *name.split()])
        shown = capsys.readouterr().out
        assert "\nexamples:\n" in shown
        assert max(map(len, shown.splitlines())) <= int(columns), name


def shown_at(columns, command, control, **environment):
    arguments = (*command, f"--socket={control}") if command[0] in ASKING else tuple(command)
    return shown_once(columns, arguments, tuple(environment.items()))


@functools.cache
def shown_once(columns, arguments, environment):
    return on_terminal(*arguments, columns=columns, **dict(environment))[0]


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize(
    ("command", "cut"), SHOWN, ids=lambda v: " ".join(v)[:30] if isinstance(v, list) else str(v)
)
def test_nothing_wraps_badly_or_is_lost(command, cut, columns, control):
    text = shown_at(columns, command, control, NO_COLOR="1").partition("pcipt: ")[0]  # the end of the daemon
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if len(line) > columns and line.lstrip()[0] != "`"] == []
    wide = shown_at(1000, command, control, NO_COLOR="1").partition("pcipt: ")[0]
    assert WHOLE.findall(wide) == WHOLE.findall(text)  # what one copies is never broken
    if cut:
        assert all(columns - 1 <= len(line) <= columns for line in text.splitlines() if line.endswith("…"))
    elif not {"help", "--help", "list", "mappings", "diff"} & set(command):  # which lay out anew
        assert " ".join(text.split()) == " ".join(wide.split())


@pytest.mark.parametrize("command", ["check", "host", "replay", "status", "resync", "explain"])
def test_a_wide_terminal_does_not_make_paragraphs_unreadable(command, control):
    arguments = {"replay": [MACHINE], "explain": [NIC]}.get(command, [])
    arguments += [HERE] if command in ("check", "host") else []
    text = shown_at(160, [command, *arguments], control, NO_COLOR="1")
    assert max(map(len, text.splitlines())) <= terminal.READABLE


def test_a_row_of_a_policy_fits(tmp_path):
    policy = f"--policy={tmp_path}"
    assert main(["policy", "add", NIC, "--guest", "web", HERE, policy]) == 0
    text, _ = on_terminal("policy", "list", HERE, policy, columns=60)
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize("command", [command for command, _ in SHOWN if "help" not in command[0]])
def test_colour_changes_nothing_but_colour(command, control):
    plain = shown_at(100, command, control, NO_COLOR="1")
    coloured = shown_at(100, command, control)
    assert SGR.sub("", coloured) == plain
    assert (coloured != plain) is (command[0] not in {"rmrr", "diff"})  # this machine has no region


@pytest.mark.parametrize(
    ("choice", "environment", "coloured"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"NO_COLOR": ""}, True),  # as no-color.org has it: set and not empty
        ([], {"TERM": "dumb"}, False),
        (["--color=never"], {}, False),
        (["--color=auto"], {}, True),
        (["--color=always"], {"NO_COLOR": "1"}, True),  # what is said on the command line counts most
        (["--color"], {"TERM": "dumb"}, True),
    ],
)
def test_who_decides_about_colour(choice, environment, coloured):
    text, code = on_terminal("list", *choice, HERE, **environment)
    assert code == 0
    assert ("\x1b[" in text) is coloured


def test_an_encoding_without_the_characters_gets_others(control):
    environment = {"PYTHONIOENCODING": "latin-1", "NO_COLOR": "1"}
    assert "..." in shown_at(40, ["tree", HERE], control, **environment)
    assert shown_at(40, ["status"], control, **environment).startswith("* pcipt")


@pytest.mark.parametrize(
    ("text", "width", "hang", "lines"),
    [
        ("a b c", None, 2, ["a b c"]),  # a pipe
        ("a b c", 5, 2, ["a b c"]),
        ("aa bb cc", 5, 2, ["aa bb", "  cc"]),
        ("  aa bb", 5, 2, ["  aa", "  bb"]),
        ("aaaaaaa bb", 5, 2, ["aaaaaaa", "  bb"]),  # an address is never broken
        ("a bbbbbbb", 5, 2, ["a", "  bbbbbbb"]),
        ("a bb", 3, 90, ["a", " bb"]),  # an indent that leaves no room
        ("", 5, 2, [""]),
        ("a `b c d` e", 5, 2, ["a", "  `b c d`", "  e"]),  # a command can be pasted
        ("a `b c d` e", None, 2, ["a `b c d` e"]),
    ],
)
def test_folding(text, width, hang, lines):
    assert terminal.folded(text, width, hang) == lines


@pytest.mark.parametrize(
    ("width", "keep", "shown"),
    [(None, 0, "0123456789"), (10, 0, "0123456789"), (5, 0, "0123…"), (5, 7, "0123456…")],
)
def test_cutting(width, keep, shown, monkeypatch):
    monkeypatch.setattr(terminal, "can_show", lambda _character: True)
    assert terminal.clipped("0123456789", width, keep) == shown
