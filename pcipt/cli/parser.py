"""The option parser of every command: its help fits the terminal and has examples; an error is one line."""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from pcipt.cli.text.terminal import columns, folded, tell
from pcipt.errors import printable
from pcipt.hints import Any, NoReturn

WIDEST = 100
_CHOICE = r"invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)"  # the text of argparse's error
_WORDS = (  # argparse's words and ours
    ("the following arguments are required: ", "missing: "),
    ("one of the arguments ", "one of the options "),
    ("unrecognized arguments: ", "unknown argument or option: "),
)
Examples = Sequence[tuple[str, str]]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """The formatter of argparse, with its width but at most WIDEST; it would load shutil at every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(WIDEST, _terminal_width()) - 2)


class Parser(argparse.ArgumentParser):
    """The option parser of one command. Long options cannot be abbreviated.

    `about` is the help text: paragraphs with an empty line between them. `examples` are pairs: a command line
    and what it does. `more` is passed to argparse.ArgumentParser.
    """

    def __init__(self, *, about: str, examples: Examples = (), **more: Any) -> None:
        super().__init__(
            description=filled(about),
            epilog=_examples_text(examples),
            allow_abbrev=False,
            formatter_class=_Formatter,
            **more,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments as argparse does. An unknown argument is an error of the part that was chosen.

        Raises: SystemExit(2) if the arguments are wrong; SystemExit(0) after --help.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(found, "refuse", self.error)(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print `message` as one line on stderr and exit with code 2.

        If `message` is about an unknown long option or a wrong choice, the line also names the most similar
        option or choice, if there is a similar one.

        Raises: SystemExit(2), always.
        """
        options = re.findall(r"--[a-z0-9-]+", self.format_usage())
        unknown = message.partition("unrecognized arguments: ")[2].split()
        hint = "".join(suggestion(word.partition("=")[0], options) for word in unknown if word[:2] == "--")
        if (choice := re.search(_CHOICE, message)) is not None:
            hint = suggestion(choice["word"], re.findall(r"[\w-]+", choice["known"]))
        for theirs, ours in _WORDS:
            message = message.replace(theirs, ours)
        tell(f"{self.prog}: {printable(message)}{hint}; `{self.prog} --help` explains it")
        self.exit(2)


def _terminal_width() -> int:
    """Return $COLUMNS, else the width of the terminal, else 80, as shutil.get_terminal_size does."""
    told = os.environ.get("COLUMNS", "")
    width = int(told) if told.isdecimal() else 0
    if not width:
        try:
            width = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            width = 0
    return width or 80


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean X?)", where X is the word of `known` that is most similar to `word`.

    Return an empty text if no word of `known` is similar, or if the most similar one is `word` itself.
    """
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {found[0]}?)" if found and found[0] != word else ""


def filled(text: str) -> str:
    """Return a help text folded to the width of the terminal minus 2 columns, at most 98 columns.

    If the width is unknown, lines have at most 78 columns. Paragraphs are separated by empty lines. A
    paragraph that has two spaces in a row is a list with columns: each of its lines is folded alone. The
    lines of any other paragraph are joined before folding.
    """
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
    """Return the help text of the examples, in their order; None if there are none.

    Each explanation stands to the right of its command. If one of them does not fit there, every explanation
    stands below its command.
    """
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
