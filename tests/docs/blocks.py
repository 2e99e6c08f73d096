"""The code blocks of the documents: found, run, and filled in again.

A block's first line says what it is: ```sh run (must end with 0), ```console run (each `$ command`, followed
by exactly what it prints), or a bare ```console whose outputs come from the lab: the comment above it, which
begins with `lab pv` or `lab pvh`, tells in which dom0, and what happens to it first. All else is prose.

`python -m tests.docs.blocks` runs the `console run` blocks in this checkout and writes their outputs anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<info>.*)\n(?P<body>(?:.*\n)*?)```$", re.MULTILINE)
LAB = re.compile(r"<!-- lab (?P<mode>pvh?)(?P<steps>(?:(?!-->)[^!])*?)-->\n\Z")
PROMPT = "$ "
#: What tells one run from another.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "COLUMNS": "100", "HOME": "/nonexistent", "TZ": "UTC"}

Runner = Callable[[str], str]


@dataclass(frozen=True)
class Block:
    """One fenced block; `steps` is what the lab does to the machine before it."""

    info: str
    body: str
    start: int
    line: int
    lab: str | None = None
    steps: tuple[str, ...] = ()

    @property
    def commands(self) -> list[str]:
        """List what is typed in it."""
        if self.info.startswith("console"):
            return [line.removeprefix(PROMPT) for line in self.body.splitlines() if line.startswith(PROMPT)]
        return [line for line in self.body.splitlines() if self.info and line and not line.startswith("#")]


def documents() -> list[Path]:
    """List the documents of this project."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def parse_blocks(text: str) -> Iterator[Block]:
    """Give the fenced blocks in their order."""
    for match in FENCE.finditer(text):
        above = LAB.search(text[: match.start()])
        yield Block(
            match["info"].strip(),
            match["body"],
            match.start("body"),
            text.count("\n", 0, match.start()) + 1,
            above["mode"] if above else None,
            tuple(line.strip() for line in above["steps"].splitlines() if line.strip()) if above else (),
        )


def filled(text: str, blocks: list[Block], run: Runner) -> str:
    """Give the text with the outputs of these blocks as `run` has them now."""
    parts, at = [], 0
    for block in blocks:
        parts += [text[at : block.start], *(f"{PROMPT}{c}\n{run(c)}" for c in block.commands)]
        at = block.start + len(block.body)
    return "".join([*parts, text[at:]])


def here(command: str) -> tuple[list[str], dict[str, str]]:
    """Give the words and the environment that run a shell command with this checkout's pcipt."""
    program = shlex.join([sys.executable, "-P", "-m", "pcipt.cli.main"])
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
    return ["sh", "-c", f'pcipt() {{ {program} "$@"; }}\n{command}'], environment


def run_here(command: str) -> str:
    """Run a command in this checkout; give what it prints, both streams."""
    words, environment = here(command)
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout


def runnable(text: str) -> list[Block]:
    """Choose the blocks whose outputs this checkout can give."""
    return [block for block in parse_blocks(text) if block.info == "console run"]


if __name__ == "__main__":
    for document in documents():
        old = document.read_text(encoding="utf-8")
        new = filled(old, runnable(old), run_here)
        if new != old:
            document.write_text(new, encoding="utf-8")
            print(document.relative_to(REPOSITORY))
