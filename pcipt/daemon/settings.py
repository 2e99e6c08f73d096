"""The settings file: TOML with the keys of setting_keys.py, and no others.

A wrong key or value is one clear line with file, line, key and suggestion; nothing is guessed.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from pcipt.daemon.setting_keys import ACTIONS, BY_NAME, DEFAULTS, KEYS, TABLES
from pcipt.errors import InputError, printable
from pcipt.host.regular_file import read_regular

PATH = "/etc/pcipt/pcipt.toml"
SIZE_LIMIT = 64 * 1024
_CLOSING = re.compile(r"[]}'\"]")  # what the last line of a statement of several lines holds


@attrs.frozen
class Settings:
    """What holds; a kind of action that `actions` does not name is performed."""

    mode: str = DEFAULTS["mode"]
    actions: Mapping[str, bool] = attrs.field(factory=lambda: dict.fromkeys(ACTIONS, True))
    watch_source: str = DEFAULTS["watch.source"]
    settle_ms: int = DEFAULTS["watch.settle-ms"]
    log_level: str = DEFAULTS["log.level"]
    metrics_textfile: str = DEFAULTS["metrics.textfile"]

    def performs(self, word: str) -> bool:
        return self.mode == "enforce" and self.actions.get(word, True)

    def value_of(self, name: str) -> Any:
        """Give the value of a key by its dotted name."""
        table, _, inner = name.partition(".")
        if table == "actions":
            return self.actions.get(inner, True)
        return getattr(self, _FIELDS[name])


# key: field of Settings
_FIELDS = {
    "mode": "mode",
    "watch.source": "watch_source",
    "watch.settle-ms": "settle_ms",
    "log.level": "log_level",
    "metrics.textfile": "metrics_textfile",
}


def read_settings(path: str, *, required: bool) -> Settings:
    """Read the file; a missing one means the defaults unless it was named by the user.

    Raises: InputError naming line and key, what was expected, and the nearest key where one was mistyped.
    """
    try:
        data = read_regular(path, SIZE_LIMIT)
    except FileNotFoundError as error:
        if required:
            raise InputError(path, "no such settings file") from error
        return Settings()
    except OSError as error:
        raise InputError(path, error.strerror or str(error)) from error
    return parse_settings(data, path)


def parse_settings(data: bytes, path: str) -> Settings:
    """Parse the text of a settings file.

    Raises: InputError, as `read_settings`.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(path, f"line {line}: not UTF-8") from error
    if text.startswith("\ufeff"):
        raise InputError(path, "line 1: begins with a byte order mark; save it as UTF-8 without one")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, _syntax(str(error), text)) from error
    except ValueError as error:  # Python bounds the digits that it reads
        raise InputError(path, f"{_line_of_most_digits(text)}a number with too many digits") from error
    except RecursionError as error:
        raise InputError(path, "nested too deeply") from error
    values = dict(DEFAULTS)
    for names, value in _flat(document):
        why = _wrong(names, value)
        if why is not None:
            raise InputError(path, _place(text, names) + printable(why))
        values[".".join(names)] = value
    switches = {word: values[f"actions.{word}"] for word in ACTIONS}
    return Settings(actions=switches, **{field: values[name] for name, field in _FIELDS.items()})


def _flat(document: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """List every value with its names; what stands where a table should be is a value itself."""
    found: list[tuple[list[str], Any]] = []
    for name, value in document.items():
        if name in TABLES and isinstance(value, dict):
            found += [([name, inner], each) for inner, each in value.items()]
        else:
            found.append(([name], value))
    return found


def _wrong(names: Sequence[str], value: object) -> str | None:
    name = ".".join(names)
    key = BY_NAME.get(name)
    if key is not None and key.path == list(names):
        return None if key.accepts.fits(value) else f"{name} is {_shown(value)}; expected {key.accepts.words}"
    if name in TABLES:
        return f"{name} is no table; expected [{name}]"
    return f"unknown key {name if all(names) else _shown(name)}; {_suggestion(names)}"


def _suggestion(names: Sequence[str]) -> str:
    beside = [key.path for key in KEYS if key.path[:-1] == list(names[:-1])]
    known = [path[-1] for path in beside] + (sorted(TABLES) if len(names) == 1 else [])
    prefix = "".join(f"{name}." for name in names[:-1])
    near = difflib.get_close_matches(names[-1], known, n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    elsewhere = [key.name for key in KEYS if key.path[-1] == names[-1]]  # the right key in the wrong table
    return f"did you mean {elsewhere[0]}?" if elsewhere else f"expected one of {', '.join(known)}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # hexadecimal digits are read without bound, and written with one
        return "a number with too many digits"
    return text if len(text) <= 80 else text[:79] + "…"


def _syntax(message: str, text: str) -> str:
    """Put the place in front of what the parser says."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match is not None:
        return f"line {match[2]}, column {match[3]}: {match[1]}"
    return f"line {max(1, len(text.splitlines()))}: {message.removesuffix(' (at end of document)')}"


def _line_of_most_digits(text: str) -> str:
    """Find the line with most digits in a row: the parser does not tell where it gave up."""
    lengths = [max(map(len, re.findall(r"[0-9_]+", line)), default=0) for line in text.split("\n")]
    return f"line {lengths.index(max(lengths)) + 1}: "


def _place(text: str, names: Sequence[str]) -> str:
    """Find the line on which the statement begins that sets this key: the parser does not tell.

    Each statement is parsed by itself, below the header that stands over it.
    """
    header = ""
    for number, statement in _statements(text.split("\n")):
        is_header = statement.lstrip().startswith("[")
        header = statement if is_header else header
        if _has(_parsed(header if is_header else header + statement), names):
            return f"line {number}: "
    return ""


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Cut a good document into its statements, each with the number of its first line."""
    start = 0
    while start < len(lines):
        end = start + 1
        while end < len(lines) and _parsed(_joined(lines[start:end])) is None:
            closing = (at for at in range(end, len(lines)) if _CLOSING.search(lines[at]))
            end = next(closing, len(lines) - 1) + 1
        yield start + 1, _joined(lines[start:end])
        start = end


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(document: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    at: object = document
    for name in names:
        if not isinstance(at, dict) or name not in at:
            return False
        at = at[name]
    return True
