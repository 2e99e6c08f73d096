import json

import pytest

from pcipt.cli.text.render import count_text, print_json, table
from pcipt.words import size_text

ROWS = [("a", "1", "one two three"), ("bbb", "22", "")]


@pytest.mark.parametrize(
    ("rows", "options", "lines"),
    [
        ([], {}, []),
        (ROWS, {}, ["a    1   one two three", "bbb  22"]),  # nothing is padded at the end
        (ROWS, {"right": (1,)}, ["a     1  one two three", "bbb  22"]),
        (ROWS, {"paint": {0: {"a": "1"}.get}}, ["\033[1ma  \033[0m  1   one two three", "bbb  22"]),
        (
            [("a", "some words that go on and on and on")],
            {"width": 33},  # there is room behind the first cell: it is folded there
            ["a  some words that go on and on", "   and on"],
        ),
        (
            [("a" * 20, "b" * 20, "some words that go on and on")],
            {"width": 60},  # there is none: it stands below
            [f"{'a' * 20}  {'b' * 20}", "    some words that go on and on"],
        ),
        ([("a" * 20, "some words")], {"width": 32}, [f"{'a' * 20}  some words"]),  # it fits
    ],
)
def test_a_table(rows, options, lines):
    assert table(rows, **options) == lines


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0"), (1, "1"), (1024, "1K"), (1536, "1536"), (1 << 33, "8G"), (1 << 70, "1024E")]
)
def test_a_size(size, shown):
    assert size_text(size) == shown


def test_a_count():
    assert (count_text(1, "bus", "buses"), count_text(2, "bus", "buses"), count_text(0, "file")) == (
        "1 bus",
        "2 buses",
        "0 files",
    )


def test_json_has_a_version_and_two_forms(capsys):
    for form, lines in (("short", 1), ("pretty", 4)):
        print_json({"a": "\x1b"}, form)
        shown = capsys.readouterr().out
        assert json.loads(shown) == {"version": 1, "a": "\x1b"}
        assert shown.count("\n") == lines
        assert "\x1b" not in shown
