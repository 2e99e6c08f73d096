import pytest

from pcipt.cli.parser import Parser, filled, suggestion


@pytest.fixture
def parser():
    parser = Parser(prog="pcipt x", about="What it does.", examples=(("pcipt x", "this"),))
    parser.add_argument("--json")
    parser.add_argument("--no-legend", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jsn=1"], "unknown argument or option: --jsn=1 (did you mean --json?)"),
        (["--zzz"], "unknown argument or option: --zzz"),
        (["--no-leg"], "unknown argument or option: --no-leg (did you mean --no-legend?)"),
        (["--json"], "argument --json: expected one argument"),
        (["\x1b[31m"], "unknown argument or option: \\x1b[31m"),
    ],
)
def test_wrong_usage_is_one_line_and_2(parser, arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"pcipt x: {said}; `pcipt x --help` explains it\n"


def test_help_has_examples(parser):
    assert "\nexamples:\n  pcipt x  this\n" in parser.format_help()


def test_paragraphs_are_fitted_and_tables_are_left(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    about = "One sentence that is too long\nfor a line.\n\na      first\nbbb    second\n"
    shown = ["One sentence that is too", "long for a line.", "", "a      first", "bbb    second"]
    assert filled(about).splitlines() == shown


@pytest.mark.parametrize(("word", "hint"), [("lsit", " (did you mean list?)"), ("list", ""), ("zzz", "")])
def test_suggestions(word, hint):
    assert suggestion(word, ["list", "show"]) == hint


@pytest.mark.parametrize(("word", "hint"), [("layuot", " (did you mean layout?)"), ("zzz", "")])
def test_a_near_miss_of_a_choice_is_told(word, hint, capsys):
    parser = Parser(prog="pcipt pvh", about="The parts.")
    parser.add_argument("part", choices=("startinfo", "layout"))
    with pytest.raises(SystemExit):
        parser.parse_args([word])
    assert f"){hint}; `pcipt pvh --help` explains it\n" in capsys.readouterr().err
