"""The command line as plain values, read from the program's own parsers.

So the man page and the completions cannot differ from what the program accepts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pcipt.cli.main import COMMANDS, make_parser

#: metavar: kind of the value, for which a shell offers completions; any other metavar is free text
KINDS = {
    **dict.fromkeys(("SBDF", "SLOT"), "address"),
    **dict.fromkeys(("DIR", "SRC", "MACHINE"), "directory"),
    **dict.fromkeys(("FILE", "PATH"), "file"),
}


@dataclass(frozen=True)
class Value:
    """The value of an option, or an operand. `required` is False if it may be left out; `many`: repeatable.

    `kind` says what a shell completes; see KINDS. `words` holds the choices of the kind "words".
    """

    name: str
    kind: str
    words: tuple[str, ...] = ()
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class Option:
    """One option with all its names; `value` is None for an option without a value."""

    names: tuple[str, ...]
    about: str
    value: Value | None


@dataclass(frozen=True)
class Command:
    """One command, or one part of a command such as `pvh check`.

    `words` is what a user types, `about` one line of help, `text` the whole help. `parts` are the names of
    the command's parts.
    """

    words: tuple[str, ...]
    about: str
    text: str
    options: tuple[Option, ...]
    operands: tuple[Value, ...]
    parts: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Return the command as a user types it, such as "pvh check"."""
        return " ".join(self.words)


#: The only command without a module of its own.
HELP = Command(
    ("help",),
    "show how a command is used",
    "Show how a command is used, with examples.",
    options=(),
    operands=(Value("COMMAND", "words", tuple(COMMANDS), required=False),),
)


def read_commands() -> list[Command]:
    """Return all commands; each is followed by its parts, the last is `help`."""
    found: list[Command] = []
    for name, (_, about) in COMMANDS.items():
        module, parser = make_parser(name)
        first, *parts = _commands_of((name,), about, parser)
        found += [
            replace(first, text=(module.__doc__ or about).strip(), examples=tuple(module.EXAMPLES)),
            *parts,
        ]
    return [*found, HELP]


def _commands_of(words: tuple[str, ...], about: str, parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield the command that a parser parses, then the commands of its parts."""
    options, operands = [], []
    parts: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parts = action.choices
        elif action.option_strings:
            options.append(Option(tuple(action.option_strings), _about(action), _value_of(action)))
        else:
            operands.append(_operand(action))
    text = (parser.description or about).strip()
    yield Command(words, about, text, tuple(options), tuple(operands), tuple(parts))
    for name, part in parts.items():
        sentence, *_ = " ".join((part.description or "").split()).split(". ")
        first = sentence.rstrip(".")
        yield from _commands_of((*words, name), first, part)


def _about(action: argparse.Action) -> str:
    """Return the help text of an option or operand; its choices if it has no help text."""
    if isinstance(action, argparse._HelpAction):
        return "show how it is used, and end"
    if action.help:
        return (action.help % {"default": action.default, "prog": "pcipt"}).strip()
    return f"one of {', '.join(map(str, action.choices))}" if action.choices else ""


def _value_of(action: argparse.Action) -> Value | None:
    """Return the value that an option takes; None if it takes none."""
    return None if action.nargs == 0 else _operand(action)


def _operand(action: argparse.Action) -> Value:
    """Return the value of an option, or an operand, as argparse describes it."""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    words = tuple(map(str, action.choices or ()))
    return Value(
        name=metavar if not words or isinstance(action.metavar, str) else "|".join(words),
        kind="words" if words else KINDS.get(metavar, "text"),
        words=words,
        required=action.nargs not in ("?", "*"),
        many=action.nargs in ("+", "*"),
    )
