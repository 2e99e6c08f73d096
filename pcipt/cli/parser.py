"""The parser that every command has: help fitted to the terminal, with examples; errors are one line."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pcipt.cli.text.terminal import columns, folded
from pcipt.errors import printable

WIDEST = 100
_CHOICE = re.compile(r"invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)")  # argparse's words
Examples = Sequence[tuple[str, str]]


class Parser(argparse.ArgumentParser):
    """`about` may have several paragraphs; `examples` are pairs of a command line and what it does."""

    def __init__(self, *, about: str, examples: Examples = (), **more: Any) -> None:
        super().__init__(
            description=filled(about),
            epilog=_examples_text(examples),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        options = re.findall(r"--[a-z0-9-]+", self.format_usage())
        unknown = message.partition("unrecognized arguments: ")[2].split()
        hint = "".join(suggestion(word.partition("=")[0], options) for word in unknown if word[:2] == "--")
        if (choice := _CHOICE.search(message)) is not None:
            hint = suggestion(choice["word"], re.findall(r"[\w-]+", choice["known"]))
        self.exit(2, f"{self.prog}: {printable(message)}{hint}; see {self.prog} --help\n")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Say which known word one may have meant; nothing where none is alike."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {found[0]}?)" if found and found[0] != word else ""


def filled(text: str) -> str:
    """Fit paragraphs to the terminal; a paragraph with columns of its own stays as it is written."""
    width = min(WIDEST, columns() or 80) - 2
    shown = []
    for paragraph in text.strip().split("\n\n"):
        if "  " in paragraph.strip():
            shown += [line for row in paragraph.splitlines() for line in folded(row, width, 12)]
        else:
            shown += folded(" ".join(paragraph.split()), width, 0)
        shown.append("")
    return "\n".join(shown[:-1])


def _examples_text(examples: Examples) -> str | None:
    """Lay examples out: what each does beside it, or below it where the terminal is narrow."""
    if not examples:
        return None
    width = min(WIDEST, columns() or 80) - 2
    room = max(len(command) for command, _ in examples) + 2
    beside = all(2 + room + len(about) <= width for _, about in examples)
    shown = ["examples:"]
    for command, about in examples:
        if beside:
            shown.append(f"  {command:{room}}{about}")
        else:
            shown += [f"  {command}", *folded(f"      {about}", width, 6)]
    return "\n".join(shown)
