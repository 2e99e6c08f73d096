"""The settings file: TOML with the keys of setting_keys.py, and no other keys.

Tables [[passthrough]] may stand in it too: they are of the policy, which kept.py reads.
A wrong key or value is reported on one line with file, line, key and a suggestion; it is never guessed.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from pcipt.daemon.setting_keys import ACTIONS, BY_NAME, DEFAULTS, KEYS, TABLES
from pcipt.errors import InputError, printable
from pcipt.host.regular_file import read_regular
from pcipt.pci.address import PciPath, parse_path
from pcipt.pci.policy.entries import TABLE
from pcipt.remap.actions import GuardPort, Quarantine

PATH = "/etc/pcipt/pcipt.toml"
SIZE_LIMIT = 64 * 1024
_CLOSING = re.compile(r"[]}'\"]")  # is on the last line of a statement of several lines


@attrs.frozen
class Settings:
    """The settings in effect. A kind of action that is missing in `actions` is switched on."""

    mode: str = DEFAULTS["mode"]
    actions: Mapping[str, bool] = attrs.field(factory=lambda: dict.fromkeys(ACTIONS, True))
    watch_source: str = DEFAULTS["watch.source"]
    settle_ms: int = DEFAULTS["watch.settle-ms"]
    owners_s: int = DEFAULTS["watch.owners-s"]
    list_s: int = DEFAULTS["watch.list-s"]
    faults_s: int = DEFAULTS["watch.faults-s"]
    restore_on_fault: bool = DEFAULTS["reserved.restore_on_fault"]
    probe: bool = DEFAULTS["hotplug.probe"]
    below: Sequence[str] = attrs.field(default=(), converter=tuple)
    action: str = DEFAULTS["hotplug.action"]
    log_level: str = DEFAULTS["log.level"]
    metrics_textfile: str = DEFAULTS["metrics.textfile"]

    def performs(self, word: str) -> bool:
        """Return True if actions of kind `word` are performed: the mode is "enforce" and their switch is on,
        and hotplug.action is not "tell" where they are about policed ports.

        The switch of an unknown `word` is on.
        """
        tells = self.action == "tell" and word in AT_PORTS
        return self.mode == "enforce" and self.actions.get(word, True) and not tells

    def probes(self) -> bool:
        """Return True if Linux is asked to find a driver for a function that Xen was told of late."""
        return self.mode == "enforce" and self.probe

    @property
    def ports(self) -> tuple[PciPath, ...]:
        """Return the paths of the ports below which what appears is quarantined."""
        return tuple(map(parse_path, self.below))

    def value_of(self, name: str) -> Any:
        """Return the value of a key by its dotted name, such as "watch.source".

        Raises: KeyError if there is no such key; an unknown key in "actions." gives True instead.
        """
        table, _, inner = name.partition(".")
        if table == "actions":
            return self.actions.get(inner, True)
        return getattr(self, _FIELDS[name])


AT_PORTS = (GuardPort.word, Quarantine.word)
# key: field of Settings
_FIELDS = {
    "mode": "mode",
    "watch.source": "watch_source",
    "watch.settle-ms": "settle_ms",
    "watch.owners-s": "owners_s",
    "watch.list-s": "list_s",
    "watch.faults-s": "faults_s",
    "reserved.restore_on_fault": "restore_on_fault",
    "hotplug.probe": "probe",
    "hotplug.below": "below",
    "hotplug.action": "action",
    "log.level": "log_level",
    "metrics.textfile": "metrics_textfile",
}


def read_settings(path: str, *, required: bool) -> Settings:
    """Read the settings file. If it is missing and not `required`, return the defaults.

    Raises: InputError if the file is missing and `required`, cannot be read, is not regular, is longer than
            64 KiB, or has a wrong content (see `parse_settings`).
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
    """Return the settings in the bytes of a settings file. A key that is missing has its default.

    `path` is the name of the file in errors.

    Raises: InputError for text that is not TOML in UTF-8, for an unknown key and for a value that is not
            accepted. For a key or a value the error says the line (if it is found), the key and what is
            accepted; for an unknown key also the known key that is most similar, if one is.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(path, f"line {line}: not UTF-8") from error
    if text.startswith("\ufeff"):
        raise InputError(
            path, "line 1: begins with a byte order mark; save the file as UTF-8 without this mark"
        )
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, _syntax(str(error), text)) from error
    except ValueError as error:  # Python limits the digits of a number that it reads
        raise InputError(path, f"{_line_of_most_digits(text)}a number with too many digits") from error
    except RecursionError as error:
        raise InputError(path, "nested too deeply") from error
    document.pop(TABLE, None)
    values = dict(DEFAULTS)
    for names, value in _flat(document):
        why = _wrong(names, value)
        if why is not None:
            raise InputError(path, _place(text, names) + printable(why))
        values[".".join(names)] = value
    switches = {word: values[f"actions.{word}"] for word in ACTIONS}
    return Settings(actions=switches, **{field: values[name] for name, field in _FIELDS.items()})


def _flat(document: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Return every value of the document, in its order, with the names of its key: [table, key] or [key]."""
    found: list[tuple[list[str], Any]] = []
    for name, value in document.items():
        if name in TABLES and isinstance(value, dict):
            found += [([name, inner], each) for inner, each in value.items()]
        else:
            found.append(([name], value))
    return found


def _wrong(names: Sequence[str], value: object) -> str | None:
    """Return why a setting is wrong, in words for the user; None if it is right.

    `names` are those of `_flat`.
    """
    name = ".".join(names)
    key = BY_NAME.get(name)
    if key is not None and key.path == list(names):
        return None if key.accepts.fits(value) else f"{name} is {_shown(value)}; expected {key.accepts.words}"
    if name in TABLES:
        return f"{name} is no table; expected [{name}]"
    return f"unknown key {name if all(names) else _shown(name)}; {_suggestion(names)}"


def _suggestion(names: Sequence[str]) -> str:
    """Return "did you mean KEY?" for an unknown key; "expected one of …" if no known key is similar.

    `names` are those of `_flat`. If no key of the same table is similar, KEY is a key with exactly this name
    in another table.
    """
    beside = [key.path for key in KEYS if key.path[:-1] == list(names[:-1])]
    known = [path[-1] for path in beside] + (sorted({*TABLES, TABLE}) if len(names) == 1 else [])
    prefix = "".join(f"{name}." for name in names[:-1])
    import difflib  # the daemon needs it only for a settings file that is wrong

    near = difflib.get_close_matches(names[-1], known, n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    elsewhere = [key.name for key in KEYS if key.path[-1] == names[-1]]  # the key exists in another table
    return f"did you mean {elsewhere[0]}?" if elsewhere else f"expected one of {', '.join(known)}"


def _shown(value: object) -> str:
    """Return the Python form of a value, cut to 80 characters.

    If the value is, or contains, a number that is too long for Python to write, return words that say so.
    """
    try:
        text = repr(value)
    except (
        ValueError
    ):  # Python limits the digits that it writes in decimal, not those it reads in hexadecimal
        return "a number with too many digits"
    return text if len(text) <= 80 else text[:79] + "…"


def _syntax(message: str, text: str) -> str:
    """Return the message of the TOML parser with "line N, column M: " at its beginning.

    If the message has no position, the last line of `text` is named.
    """
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match is not None:
        return f"line {match[2]}, column {match[3]}: {match[1]}"
    return f"line {max(1, len(text.splitlines()))}: {message.removesuffix(' (at end of document)')}"


def _line_of_most_digits(text: str) -> str:
    """Return "line N: " for the first line with the longest number: the parser does not name the line."""
    lengths = [max(map(len, re.findall(r"[0-9_]+", line)), default=0) for line in text.split("\n")]
    return f"line {lengths.index(max(lengths)) + 1}: "


def _place(text: str, names: Sequence[str]) -> str:
    """Return "line N: " for the first line of the statement that sets this key; an empty text if none is
    found.

    tomllib does not report lines. So each statement is parsed alone, below the table header before it.
    """
    header = ""
    for number, statement in _statements(text.split("\n")):
        is_header = statement.lstrip().startswith("[")
        header = statement if is_header else header
        if _has(_parsed(header if is_header else header + statement), names):
            return f"line {number}: "
    return ""


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Split the lines of a valid document into statements; yield (number of its first line, text) of each."""
    start = 0
    while start < len(lines):
        end = start + 1
        while end < len(lines) and _parsed(_joined(lines[start:end])) is None:
            closing = (at for at in range(end, len(lines)) if _CLOSING.search(lines[at]))
            end = next(closing, len(lines) - 1) + 1
        yield start + 1, _joined(lines[start:end])
        start = end


def _joined(lines: Sequence[str]) -> str:
    """Return the lines as one text, with a newline after each."""
    return "".join(f"{line}\n" for line in lines)


def _parsed(text: str) -> dict[str, Any] | None:
    """Return the document in a TOML text; None if the text is wrong or incomplete."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(document: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    """Return True if the document has the key with these names; False if `document` is None."""
    at: object = document
    for name in names:
        if not isinstance(at, dict) or name not in at:
            return False
        at = at[name]
    return True
