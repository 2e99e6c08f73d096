"""What `import pcipt` offers other programs: few names, each with words, types and examples that run."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import typing

import pytest

import pcipt
from pcipt import Client
from pcipt.api import client as client_module
from pcipt.api import machine as machine_module
from pcipt.daemon.control.protocol import METHODS
from pcipt.host.report.archive import pack
from tests.answers import ANSWERS, EVENTS, answering
from tests.test_architecture import isort_key
from tests.trees import REPO

PAGE = REPO / "docs/python.md"
MACHINE = "fixtures/sysfs/lab-pv"


@pytest.fixture
def client(tmp_path):
    start = {"version": 1, "kind": "start"}
    with answering(tmp_path / "control", {**ANSWERS, "Monitor": [start, *EVENTS]}) as path:
        yield Client(path)


def test_the_names_are_few_and_sorted():
    assert len(pcipt.__all__) <= 25
    assert list(pcipt.__all__) == sorted(set(pcipt.__all__), key=isort_key)


def test_each_name_is_in_the_table_and_loads():
    tabled = [name for names in pcipt._MODULES.values() for name in names]
    assert sorted([*tabled, "__version__"]) == sorted(pcipt.__all__)
    for module, names in pcipt._MODULES.items():
        for name in names:
            assert getattr(pcipt, name) is getattr(importlib.import_module(f"pcipt.{module}"), name)
    assert set(pcipt.__all__) <= set(dir(pcipt))


def test_a_name_that_is_not_offered_is_an_error_and_loads_nothing():
    with pytest.raises(AttributeError, match="module 'pcipt' has no attribute 'absent'"):
        _ = pcipt.absent


@pytest.mark.parametrize("name", [name for name in pcipt.__all__ if name != "__version__"])
def test_each_name_has_words_and_stands_in_the_page(name):
    assert f"`{name}" in PAGE.read_text()
    value = getattr(pcipt, name)
    assert value.__doc__.strip()
    if not inspect.isclass(value):
        assert typing.get_type_hints(value).keys() == {*inspect.signature(value).parameters, "return"}
        return
    for member, method in inspect.getmembers(value, inspect.isfunction):
        if not member.startswith("_"):
            assert method.__doc__, f"{name}.{member}"
            hints = typing.get_type_hints(method, vars(importlib.import_module(method.__module__)))
            assert hints.keys() == {*list(inspect.signature(method).parameters)[1:], "return"}


def test_the_client_asks_every_method_of_the_protocol():
    offered = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"}
    assert offered == {name.lower() for name in METHODS}


def loaded_by(statement):
    program = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_loads_nothing_else():
    assert loaded_by("import pcipt") == {"pcipt"}
    assert loaded_by("import pcipt\nhasattr(pcipt, 'absent')") == {"pcipt"}


def test_the_client_needs_no_decoder():
    loaded = loaded_by("from pcipt import Client")
    assert not {each for each in loaded if each.startswith(("pcipt.pci", "pcipt.host", "attr", "cffi"))}


def checked(examples, name, more):
    """Run examples; give how many there were, and what was wrong."""
    test = doctest.DocTestParser().get_doctest(examples, more, name, name, 0)
    said = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=said.append, clear_globs=False)
    return runner.tries, "".join(said)


def test_the_examples_of_the_page_run(client, monkeypatch):
    monkeypatch.chdir(REPO)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    tries, said = checked("\n".join(blocks), "python.md", {"client": client})
    assert said == ""
    assert tries >= 12


@pytest.mark.parametrize("module", [client_module, machine_module], ids=lambda module: module.__name__)
def test_the_examples_of_the_docstrings_run(module, client, monkeypatch):
    monkeypatch.chdir(REPO)
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [each for each in finder.find(module, extraglobs={"client": client}) if each.examples]
    assert tests
    for test in tests:
        said = []
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        assert "".join(said) == ""


def test_a_recording_and_its_archive_are_the_same_machine(tmp_path):
    pack(str(REPO / MACHINE), str(tmp_path / "report.tar.gz"))
    recorded = pcipt.read_machine(REPO / MACHINE)
    assert recorded.functions
    assert pcipt.read_machine(tmp_path / "report.tar.gz") == recorded


def test_a_machine_that_is_not_there_is_told(tmp_path):
    with pytest.raises(pcipt.InputError) as caught:
        pcipt.read_machine(tmp_path)
    assert caught.value.why == "no such file or directory"


def test_the_answers_are_those_of_the_service(client):
    assert client.status() == ANSWERS["Status"]
    assert client.mappings() == ANSWERS["Mappings"]
    assert client.history("02:00.0") == ANSWERS["History"]


def test_events_come_as_they_happen_and_end_with_the_service(client):
    kinds = []
    with pytest.raises(pcipt.NotRunningError, match="it has stopped"):
        kinds.extend(event["kind"] for event in client.monitor("02:"))
    assert kinds == ["start", *(event["kind"] for event in EVENTS)]


def test_reclaim_keeps_its_connection_during_the_block(monkeypatch):
    said = []

    def stream(*question):
        said.append(question)
        try:
            yield {"version": 1, "kind": "start"}
        finally:
            said.append("closed")

    monkeypatch.setattr("pcipt.cli.machine.client.stream", stream)
    with Client("/x").reclaim("02:00.0") as answer:
        assert answer["kind"] == "start"
        assert said == [("/x", "Reclaim", {"function": "02:00.0"})]
    assert said[1:] == ["closed"]
    assert METHODS["Reclaim"].stream


@pytest.mark.parametrize(
    ("method", "arguments", "asked"),
    [
        ("explain", {"function": "02:00.0", "as_pvh": True}, {"function": "02:00.0", "as": "pvh"}),
        ("explain", {"function": "02:00.0"}, {"function": "02:00.0"}),
        ("resync", {"dry_run": True}, {"dry_run": True}),
        ("release", {"function": "02:00.0"}, {"function": "02:00.0"}),
        ("guests", {}, {}),
        ("rmrr", {}, {}),
        ("check", {}, {}),
    ],
)
def test_questions_are_those_of_the_protocol(method, arguments, asked, monkeypatch):
    sent = []
    monkeypatch.setattr(client_module, "ask", lambda *question: sent.append(question) or {})
    getattr(Client("/x"), method)(**arguments)
    assert sent == [("/x", method.capitalize(), asked)]
    assert set(asked) <= set(METHODS[method.capitalize()].parameters)


def test_the_client_says_nothing_on_a_terminal(client, monkeypatch):
    """The command line shows after two seconds that no answer came; a program's terminal is its own."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: pytest.fail("the client looks at the terminal"))
    assert client.status()["version"] == 1
