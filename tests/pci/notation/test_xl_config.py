"""The syntax of xl's configuration files, as xl reads it."""

import pytest

from pcipt.errors import MalformedError
from pcipt.pci.notation.xl_config import parse_xl_config

READ = [
    # text, the settings
    ("", {}),
    ("# nothing\n\n;\n", {}),
    ('name = "web"', {"name": "web"}),  # the last line may have no end
    ("name = 'web' # a comment\n", {"name": "web"}),
    ('a = "#"; b = 0x1f ; c=3', {"a": "#", "b": "0x1f", "c": "3"}),
    (r'a = "1\"2\\3\x41\t"', {"a": '1"2\\3A\t'}),
    ("pci = []", {"pci": ()}),
    ("pci = [ \"01:00.0,permissive=1\", '02:00.0' ]\n", {"pci": ("01:00.0,permissive=1", "02:00.0")}),
    ('pci = [\n  "01:00.0", # the first\n\n  "02:00.0",\n]\n', {"pci": ("01:00.0", "02:00.0")}),
    ('vnuma = [ [ "pnode=0", "size=8" ], [ "pnode=1" ] ]', {"vnuma": (("pnode=0", "size=8"), ("pnode=1",))}),
    ("a = 1\na = 2\n", {"a": "2"}),  # the last holds
    ('pci = ["01:00.0"]\npci += ["02:00.0"]', {"pci": ("01:00.0", "02:00.0")}),
    ('a += "1"\na += "2"', {"a": "12"}),
]


@pytest.mark.parametrize(("text", "settings"), READ)
def test_what_xl_reads(text, settings):
    assert {name: each.value for name, each in parse_xl_config(text, "f").items()} == settings


def test_a_setting_has_its_line():
    found = parse_xl_config('# 1\nname = "w"\npci = [\n "01:00.0" ]\nmemory = 512', "f")
    assert {name: each.line for name, each in found.items()} == {"name": 2, "pci": 3, "memory": 5}


REFUSED = [
    # text, the line, what is told
    ("a = 1\nImport os\n", 2, "cannot read 'Import'"),
    ("a = 1\nb = f(2)\n", 2, "cannot read '(2)'"),
    ("a = b", 1, "expected a string, a number or a list, found 'b'"),
    ("a = (1)\n", 1, "cannot read '(1)'"),
    ("a = -1\n", 1, "cannot read '-1'"),
    ('a = "1\n', 1, "cannot read"),
    ("a = \n1", 1, "found the end of the line"),
    ("a = 1 2", 1, "expected the end of the line, found '2'"),
    ("a\n", 1, "expected = or +="),
    ('pci = [ "1" "2" ]', 1, "expected , or ]"),
    ("pci = [\n,]", 2, "found ','"),
    ("pci = [\n'1'\n", 3, "found the end of the file"),
    ('a = "1"\na += [ "2" ]', 2, "+= joins two strings or two lists"),
    (r'a = "\q"', 1, "xl does not know"),
    ("a = " + "[" * 100, 1, "a string, a number or a list"),
    ("a = 1\x00", 1, "cannot read"),
]


@pytest.mark.parametrize(("text", "line", "why"), REFUSED)
def test_what_xl_refuses(text, line, why):
    with pytest.raises(MalformedError) as caught:
        parse_xl_config(text, "web.cfg")
    assert (caught.value.offset, caught.value.unit) == (line, "line")
    assert why in caught.value.why
    assert str(caught.value).startswith(f"web.cfg: line {line}: ")
