"""The man pages pcipt(1) and pcipt.toml(5): templates in docs/man, filled with commands, options and keys."""

from __future__ import annotations

import pathlib
import re
import textwrap
from collections.abc import Iterable

from commands import Command, Option, Value

from pcipt.daemon.setting_keys import Key, toml_from_value

PAGES = pathlib.Path(__file__).parents[2] / "docs" / "man"


def command_page(commands: list[Command]) -> str:
    """Return the text of pcipt(1)."""
    return _filled("pcipt.1.in", "COMMANDS", "".join(_section(command) for command in commands))


def settings_page(keys: Iterable[Key]) -> str:
    """Return the text of pcipt.toml(5)."""
    return _filled("pcipt.toml.5.in", "KEYS", "".join(_key(key) for key in keys))


def _filled(name: str, place: str, text: str) -> str:
    """Return the template `name` with the line @place@ replaced by `text`."""
    template = (PAGES / name).read_text(encoding="utf-8")
    mark = f'.\\" @{place}@\n'
    if mark not in template:
        raise SystemExit(f"docs/man/{name}: has no line {mark!r}")
    return template.replace(mark, text)


def _key(key: Key) -> str:
    """Return the paragraph about one setting."""
    about = [*_sentences(f"{key.about}."), ".br", *_sentences(f"Accepted: {key.accepts.words}.")]
    default = f"Default: \\fB{_option(toml_from_value(key.default))}\\fR."
    return "\n".join([".TP", f"\\fB{_option(key.name)}\\fR", *about, default]) + "\n"


def _section(command: Command) -> str:
    """Return the section about one command: synopsis, text, options, examples."""
    lines = [f'.SS "{_plain("pcipt " + command.name)}"', *_synopsis(command), *_paragraphs(command.text)]
    for option in command.options:
        if "--help" not in option.names:
            lines += [".TP", _heading(option), *_sentences(option.about)]
    if command.examples:
        lines += [".PP", "Examples:"]
    for typed, about in command.examples:
        lines += [".TP", f"\\fB{_option(typed)}\\fR", *_sentences(about)]
    return "\n".join(lines) + "\n"


def _synopsis(command: Command) -> list[str]:
    words = [f"\\fBpcipt {_plain(command.name)}\\fR"]
    words += ["[\\fIoptions\\fR]"] if len(command.options) > 1 else []
    words += ["\\fIPART\\fR"] if command.parts else []
    words += [_operand(value) for value in command.operands]
    return [" ".join(words), ".PP"]


def _operand(value: Value) -> str:
    text = f"\\fI{_plain(value.name)}\\fR" + (" ..." if value.many else "")
    return text if value.required else f"[{text}]"


def _heading(option: Option) -> str:
    names = ", ".join(f"\\fB{_option(name)}\\fR" for name in option.names)
    if option.value is None:
        return names
    value = f"\\fI{_plain(option.value.name)}\\fR"
    return f"{names} {value}" if option.value.required else f"{names}[={value}]"


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring as roff lines; a paragraph that has columns is not filled."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        rows = [row.rstrip() for row in paragraph.splitlines()]
        if any(re.search(r"\S {2,}\S", row) or row.startswith("    ") for row in rows):
            lines += [".RS 4", ".nf", *map(_plain, rows), ".fi", ".RE"]
        else:
            lines += _sentences(" ".join(paragraph.split()))
        lines.append(".PP")
    while lines and lines[-1] == ".PP":
        lines.pop()
    return lines


def _sentences(text: str) -> list[str]:
    """Return text as roff lines. Each sentence starts a line; text in backquotes is not broken."""
    quoted = re.sub(r"`[^`]+`", lambda match: match[0].replace(" ", "\0"), text)
    sentences = re.split(r"(?<=[a-z)][.;:]) (?=[A-Z])", quoted)
    rows = [textwrap.wrap(sentence, 68, break_on_hyphens=False) for sentence in sentences]
    return [_plain(row.replace("\0", " ")) for wrapped in rows for row in wrapped]


def _plain(text: str) -> str:
    """Escape text for roff; text in backquotes becomes bold."""
    text = _escaped(text).replace("--", "\\-\\-")
    return re.sub(r"`([^`]+)`", lambda match: f"\\fB{match[1]}\\fR", text).replace("`", "\\(ga")


def _option(text: str) -> str:
    """Escape text for roff; all hyphens become minus signs, so that a user can copy them."""
    return _escaped(text).replace("-", "\\-")


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith(".") else text
