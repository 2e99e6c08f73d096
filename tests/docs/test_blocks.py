"""What the documents show can be typed, and gives what they say."""

import os
import re
import shlex
import subprocess

import pytest

from pcipt.cli.main import COMMANDS, make_parser
from pcipt.cli.options import with_explicit_values
from pcipt.host.pciids import PLACES as PCI_IDS
from tests.docs.blocks import REPOSITORY, Block, documents, filled, here, parse_blocks, run_here, runnable

DOCUMENTS = [str(path.relative_to(REPOSITORY)) for path in documents()]
ALL = [(name, block) for name in DOCUMENTS for block in parse_blocks((REPOSITORY / name).read_text())]
#: a link to a file, without its place in it
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def places(blocks):
    return [pytest.param(block, id=f"{name}:{block.line}") for name, block in blocks]


def calls_of(command):
    """Find the calls of pcipt in a line of shell."""
    words = shlex.split(command, comments=True)
    ends = [n for n, word in enumerate(words) if word in ("|", "&&", "||", ";", "&")] + [len(words)]
    begin = 0
    for end in ends:
        if words[begin:end][:1] == ["pcipt"]:
            yield words[begin + 1 : end]
        begin = end + 1


@pytest.mark.parametrize("name", DOCUMENTS)
def test_outputs_are_what_the_program_prints(name):
    text = (REPOSITORY / name).read_text()
    if runnable(text) and not any(map(os.path.exists, PCI_IDS)):
        pytest.skip("the names of devices are not installed (Debian: pci.ids)")
    assert filled(text, runnable(text), run_here) == text


@pytest.mark.parametrize("block", places(pair for pair in ALL if pair[1].info == "sh run"))
def test_scripts_end_well(block):
    words, environment = here(f"set -eu\n{block.body}")
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", places(pair for pair in ALL if pair[1].info.startswith(("console", "sh"))))
def test_commands_are_those_of_the_program(block, capsys):
    for words in (words for command in block.commands for words in calls_of(command)):
        if words == ["--version"]:
            continue
        assert words[0] in COMMANDS, words
        _, parser = make_parser(words[0])
        try:
            parser.parse_args(with_explicit_values(words[1:]))
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")


def test_links_lead_somewhere():
    links = [(name, link) for name in DOCUMENTS for link in LINK.findall((REPOSITORY / name).read_text())]
    assert [(name, link) for name, link in links if not ((REPOSITORY / name).parent / link).exists()] == []


#  what is parsed: blocks, what is typed, what the lab does before
PARSED = (
    ("```\ntext\n```\n", [("", [], None, ())]),
    ("```sh run\n# why\ntrue\n```\n", [("sh run", ["true"], None, ())]),
    ("```console\n$ a\nout\n$ b\n```\n", [("console", ["a", "b"], None, ())]),
    (
        "<!-- lab pvh\nqmp x\nwait y\n-->\n```console\n$ a\n```\n",
        [("console", ["a"], "pvh", ("qmp x", "wait y"))],
    ),
    ("<!-- lab pv -->\n```console\n$ a\n```\n", [("console", ["a"], "pv", ())]),
    # prose between comment and block parts them
    ("<!-- lab pv -->\ntext\n```console\n$ a\n```\n", [("console", ["a"], None, ())]),
)


@pytest.mark.parametrize(("text", "blocks"), PARSED)
def test_how_blocks_are_found(text, blocks):
    found = [(block.info, block.commands, block.lab, block.steps) for block in parse_blocks(text)]
    assert found == blocks


def test_only_the_chosen_blocks_are_filled():
    text = "a\n```console run\n$ x\nold\n$ y\n```\nb\n```console\n$ x\nkept\n```\n"
    assert runnable(text) == [Block("console run", "$ x\nold\n$ y\n", 17, 2)]
    assert filled(text, runnable(text), lambda command: f"new {command}\n") == text.replace(
        "$ x\nold\n$ y\n", "$ x\nnew x\n$ y\nnew y\n", 1
    )
