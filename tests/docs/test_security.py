"""Each sentence of the security page names the tests that hold it, and these tests exist."""

import ast
import re

import pytest

from tests.docs.blocks import REPOSITORY

PAGE = (REPOSITORY / "docs" / "security.md").read_text()
SENTENCES = [" ".join(part.split()) for part in re.findall(r"^- (.*(?:\n  .*)*)", PAGE, re.MULTILINE)]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TESTS = sorted({test for sentence in SENTENCES for test in NAMED.findall(sentence)})


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_names_a_test(sentence):
    said, _, held = sentence.partition(" (`tests/")
    assert said
    assert not said.endswith((".", " "))
    assert NAMED.findall(f"(`tests/{held}")
    assert sentence.count("tests/") == len(NAMED.findall(sentence))
    assert sentence.endswith(").")


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_named_test_exists(path, name):
    tree = ast.parse((REPOSITORY / path).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in tests


def test_a_named_test_can_fail():
    """Each asserts something, itself or by the class or the script that it runs."""
    for path, name in TESTS:
        tree = ast.parse((REPOSITORY / path).read_text())
        node = next(each for each in tree.body if getattr(each, "name", None) == name)
        asserts = (ast.Assert, ast.With, ast.Call)
        assert any(isinstance(part, asserts) for part in ast.walk(node)), name


def test_every_kind_of_attacker_has_its_chapter():
    chapters = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    for who in ("rights", "device", "guest", "not root's", "group pcipt"):
        assert any(who in chapter for chapter in chapters), who
    assert "CAP_SYS_ADMIN` is root in all but name" in PAGE
