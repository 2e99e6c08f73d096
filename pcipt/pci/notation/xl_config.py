"""Read the syntax of xl's configuration files: assignments of numbers, strings and lists.

xl refuses a file with one error as a whole, and so does this module. It knows no key.
Source: tools/libs/util/libxlu_cfg_l.l, libxlu_cfg_y.y and libxlu_cfg.c (xlu__cfgl_dequote,
        xlu__cfg_set_store, xlu__cfg_concat_vals), alike from 4.17 to 4.22.
"""

import re
from collections.abc import Iterator, Mapping

from pcipt import values as attrs
from pcipt.errors import MalformedError

Value = str | tuple["Value", ...]

_TOKENS = re.compile(
    r"""(?P<space>[ \t]+)|(?P<newline>\n|\#[^\n]*(?:\n|\Z))|(?P<name>[a-z][._0-9a-z]*)
    |(?P<number>[0-9][0-9a-fx]*)|(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<mark>\+=|[,\[\]=;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7][0-9]{0,2})|(.))", re.DOTALL)
_LETTERS = {'"': '"', "'": "'", "\\": "\\", "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LETTERS["v"] = "\v"
_END = "the end of the file"
_DEEPEST = 16  # lists in lists; xl reads lists of lists for NUMA only


@attrs.frozen
class Setting:
    """One setting: its value and the line where it stands. With `+=`, the value is that of all its lines."""

    value: Value
    line: int


@attrs.frozen
class _Token:
    kind: str
    text: str
    line: int


def parse_xl_config(text: str, source: str) -> Mapping[str, Setting]:
    """Return the settings of a configuration file by name. The last assignment of a name holds.

    Raises: MalformedError with the line at which xl would stop. `source` is the file.
    """
    return _Reader(list(_tokens(text, source)), source).settings()


def _tokens(text: str, source: str) -> Iterator[_Token]:
    """Yield the words and marks of a file; a last one of the kind "end".

    Raises: MalformedError at a character that begins none.
    """
    at, line = 0, 1
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None or found.lastgroup is None:
            word = text[at:].split(maxsplit=1)[0] if text[at:].split() else "a control character"
            raise MalformedError(source, line, f"xl cannot read {word[:40]!r}", "line")
        if found.lastgroup != "space":
            yield _Token(found.lastgroup, found[0], line)
        line += found[0].count("\n")
        at = found.end()
    yield _Token("end", _END, line)


class _Reader:
    """Reads assignments from tokens, one after the other."""

    def __init__(self, tokens: list[_Token], source: str) -> None:
        self._tokens, self._source, self._at = tokens, source, 0

    def settings(self) -> Mapping[str, Setting]:
        """Return all settings. Raises: MalformedError."""
        found: dict[str, Setting] = {}
        while True:
            self._skip("newline", ";")
            if self._here.kind == "end":
                return found
            name = self._take("name", "a name in small letters")
            mark = self._here.text
            if mark not in ("=", "+="):
                raise self._wrong("= or +=")
            self._at += 1
            value = self._value(_DEEPEST)
            before = found.get(name.text)
            if mark == "+=" and before is not None:
                value = self._joined(before.value, value, name.line)
            found[name.text] = Setting(value, name.line)
            if self._here.kind not in ("newline", "end") and self._here.text != ";":
                raise self._wrong("the end of the line")

    @property
    def _here(self) -> _Token:
        return self._tokens[self._at]

    def _value(self, deepest: int) -> Value:
        """Return the value that begins here: a string, a number as text, or a list."""
        token = self._here
        if token.kind in ("string", "number"):
            self._at += 1
            return token.text if token.kind == "number" else self._dequoted(token)
        if token.text != "[" or not deepest:
            raise self._wrong("a string, a number or a list")
        self._at += 1
        values: list[Value] = []
        self._skip("newline")
        while self._here.text != "]":
            values.append(self._value(deepest - 1))
            self._skip("newline")
            if self._here.text == ",":
                self._at += 1
                self._skip("newline")
            elif self._here.text != "]":
                raise self._wrong(", or ]")
        self._at += 1
        return tuple(values)

    def _dequoted(self, token: _Token) -> str:
        """Return the text of a string. Raises: MalformedError for an escape that xl does not know."""

        def replace(found: re.Match[str]) -> str:
            if found[1] or found[2]:  # xl reads the digits after \0 to \7 as a decimal number
                return chr(int(found[1], 16) if found[1] else int(found[2]) & 0xFF)
            if found[3] not in _LETTERS:
                why = f"xl does not know \\{found[3]} in a string"
                raise MalformedError(self._source, token.line, why, "line")
            return _LETTERS[found[3]]

        return _ESCAPE.sub(replace, token.text[1:-1])

    def _joined(self, before: Value, more: Value, line: int) -> Value:
        """Return the value of `+=`: two strings or two lists in one."""
        if isinstance(before, str) and isinstance(more, str):
            return before + more
        if isinstance(before, tuple) and isinstance(more, tuple):
            return before + more
        raise MalformedError(self._source, line, "+= joins two strings or two lists", "line")

    def _skip(self, *kinds: str) -> None:
        """Go over tokens of these kinds or texts."""
        while self._here.kind in kinds or self._here.text in kinds:
            self._at += 1

    def _take(self, kind: str, expected: str) -> _Token:
        """Return the token here, which must be of `kind`, and go over it."""
        if self._here.kind != kind:
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1]

    def _wrong(self, expected: str) -> MalformedError:
        """Return the error that something else is expected here."""
        shown = "the end of the line" if self._here.kind == "newline" else self._here.text
        quoted = shown if shown in (_END, "the end of the line") else repr(shown[:40])
        return MalformedError(self._source, self._here.line, f"expected {expected}, found {quoted}", "line")
