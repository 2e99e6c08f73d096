"""Mutation testing of a small project whose tests notice some changes and miss others."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("coverage", reason="coverage is not here: make mutate needs it")

TOOL = Path(__file__).resolve().parents[2] / "scripts" / "mutate.py"

MODULE = '''"""Counts."""

STEP = 1


def count(limit: int) -> int:
    found = 0
    while found < limit:
        found += STEP
    return found


def is_small(number: int) -> bool:
    return number <= 9  # nobody asks at the limit


def is_forgotten(number: int) -> bool:
    return not number
'''
TESTS = """from pkg.counting import count, is_small


def test_count():
    assert [count(limit) for limit in (0, 3)] == [0, 3]


def test_is_small():
    assert is_small(1)
    assert not is_small(100)
"""


@pytest.fixture
def project(tmp_path):
    for path, text in {
        "pkg/__init__.py": "",
        "pkg/counting.py": MODULE,
        "tests/test_counting.py": TESTS,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def command(modules, *options):
    return [sys.executable, TOOL, modules, "--patience", "1", *map(str, options)]


def mutate(project, *options, modules="pkg"):
    words = command(modules, *options)
    return subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)


def content(project):
    files = (path for path in project.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if project / "build" not in path.parents}


def write_untested(project):
    (project / "pkg/counting.py").write_text("def is_small(number: int) -> bool:\n    return number < 9\n")
    test = "from pkg.counting import is_small\n\n\ndef test_it():\n    is_small(1)\n"
    (project / "tests/test_counting.py").write_text(test)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mutate", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(tool, source):
    """Give the changes without their place."""
    return {change[3].partition(": ")[2] for change in tool.changes_of("it.py", source.encode())}


def test_what_is_killed_what_survives_what_nobody_reaches_and_what_takes_too_long(project):
    before = content(project)
    done = mutate(project, "--sample", 100)
    assert done.returncode == 0, done.stderr
    *survivors, late, last = done.stdout.splitlines()
    assert survivors == [
        "pkg/counting.py:14: `9` -> `10`",
        "pkg/counting.py:14: `number <= 9` -> `number < 9`",
        "pkg/counting.py:18: `not number` -> `(number)` (no test reaches it)",
        "pkg/counting.py:18: `not number` -> `None` (no test reaches it)",
    ]
    assert late == "took too long: pkg/counting.py:3, pkg/counting.py:9, pkg/counting.py:9"
    killed = [line for line in done.stderr.splitlines() if line.endswith(" (killed)")]
    assert last == f"{len(killed)} of {len(killed) + 4} killed"
    assert "pkg/counting.py:8: `found < limit` -> `found <= limit` (killed)" in killed
    assert content(project) == before


def test_one_seed_gives_one_sample(project):
    first, again, other = (mutate(project, "--sample", 3, "--seed", seed) for seed in (4, 4, 5))
    assert (again.stdout, again.stderr) == (first.stdout, first.stderr)
    assert first.stdout.splitlines()[-1].endswith(" of 3 killed")
    assert (other.stdout, other.stderr) != (first.stdout, first.stderr)


def test_what_tests_reach_is_measured_again_when_one_is_gone(project):
    write_untested(project)
    assert "reaches" not in mutate(project).stdout
    (project / "tests/test_counting.py").write_text("from pkg.counting import is_small\n")
    assert "(no test reaches it)" in mutate(project).stdout


def test_tests_that_fail_without_a_change_are_told(project):
    (project / "tests/test_counting.py").write_text(
        TESTS + "\n\ndef test_wrong():\n    assert count(1) == 2\n"
    )
    done = mutate(project)
    wrong = "mutate: the tests fail without a change: tests/test_counting.py::test_wrong\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wrong)


def test_too_few_killed_is_a_failure_where_a_least_is_given(project):
    write_untested(project)
    assert [mutate(project, "--least", least).returncode for least in (0, 1)] == [0, 1]


def test_no_module_is_a_mistake(project):
    done = mutate(project, modules="none")
    assert done.returncode == 2
    assert "no module is there" in done.stderr


def test_killed_it_leaves_the_tree_as_it_was_and_nobody_behind(project):
    before = content(project)
    with subprocess.Popen(
        command("pkg"), cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as started:
        assert started.stdout.readline()  # the first that survived: changes are being made
        started.send_signal(signal.SIGKILL)
    assert content(project) == before
    until = time.monotonic() + 10
    while children_in(project) and time.monotonic() < until:
        time.sleep(0.05)
    assert children_in(project) == []


def children_in(project):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [process] * os.readlink(process / "cwd").startswith(str(project))
        except OSError:
            continue  # it has ended, or is another's
    return found


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a < b", {"`a < b` -> `a <= b`"}),
        ("x = a is not None", {"`a is not None` -> `a is None`"}),
        ("x = a in b", {"`a in b` -> `a not in b`"}),
        ("x = a and b", {"`a and b` -> `a or b`"}),
        ("x = c < (not a)", {"`c < (not a)` -> `c <= (not a)`", "`not a` -> `(a)`"}),
        ("x = a - b | c", {"`a - b | c` -> `a - b & c`", "`a - b` -> `a + b`"}),
        ("x |= a", {"`x |= a` -> `x &= a`", "`x |= a` -> `pass`"}),
        ("x = 0, 1, True", {"`0` -> `1`", "`1` -> `0`", "`True` -> `False`"}),
        ("x = 0x10", {"`16` -> `17`"}),
        ("x.add(a)", {"`x.add(a)` -> `pass`", "`x.add` -> `x.discard`"}),
        ("x = any(a)", {"`any` -> `all`"}),
        ("x.a = b", {"`x.a = b` -> `pass`"}),
        ("del x[a]", {"`del x[a]` -> `pass`"}),
        ("x = b if a else c", {"`a` -> `True`", "`a` -> `False`"}),
        ("if a:\n    b", {"`a` -> `True`", "`a` -> `False`"}),
        ("def f():\n    return a", {"`a` -> `None`"}),
        ("for x in a:\n    break", {"`break` -> `continue`"}),
        ("x = {a, *b}", {"`a` -> `*()`", "`*b` -> `*()`"}),
        ("x = sorted(a, key=b)", {"`key=b` -> `**{}`"}),
    ],
)  # fmt: skip
def test_each_kind_of_change(tool, source, changes):
    assert told(tool, f"{source}\n") == changes


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "import a",
        "from a import b as c",
        '__all__ = ["a", "b"]',
        "x: dict[int, 3 | 4]",
        "def f(x: 1 | 2) -> 3 | 4:\n    ...",
        "@f(1)\ndef g():\n    ...",
        "assert a < 1",
        "if TYPE_CHECKING:\n    import a",
        "class A(Protocol):\n    def f(self) -> int: ...",
        'x = f"{a + 1}"',
        "x, y = z",
    ],
)
def test_what_is_left_alone(tool, source):
    assert told(tool, f"{source}\n") == set()


def test_nothing_else_in_the_text_is_touched(tool):
    text = "# \u00e4\nx = [\n    '\u00e4', a  <  b,  # why\n]\n"
    after = {change[4].decode() for change in tool.changes_of("it.py", text.encode())}
    assert after == {text.replace("a  <  b", "a <= b"), text.replace("a  <  b", "*()")}


def test_it_keeps_to_its_limit():
    assert len(TOOL.read_text().splitlines()) <= 200
