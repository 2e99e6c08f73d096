"""The settings file: TOML, every key known, wrong ones refused with one clear line.

mode = "enforce"          # or "observe": plan and report, change nothing
[actions]                 # one switch per kind of action
add-device = true
remove-device = true
[watch]
source = "kprobe"         # or "xentrace" (a PVH dom0, see watch/xentrace_live.py), or "none"
settle-ms = 50            # how long it must be quiet before what was written is read back
"""

import difflib
import tomllib
from collections.abc import Mapping

import attrs

from pcipt.errors import InputError
from pcipt.remap.actions import AddDevice, RemoveDevice

PATH = "/etc/pcipt/pcipt.toml"
MODES = ("enforce", "observe")
ACTIONS = (AddDevice.word, RemoveDevice.word)
SOURCES = ("kprobe", "xentrace", "none")
SETTLE_MS = (1, 10_000)
WATCH = ("source", "settle-ms")


@attrs.frozen
class Settings:
    mode: str = "enforce"
    actions: Mapping[str, bool] = attrs.field(factory=lambda: dict.fromkeys(ACTIONS, True))
    watch_source: str = "kprobe"
    settle_ms: int = 50

    def performs(self, word: str) -> bool:
        return self.mode == "enforce" and self.actions[word]


def read_settings(path: str, *, required: bool) -> Settings:
    """Read the file; a missing one means the defaults unless it was named by the user.

    Raises: InputError naming the key, what was expected, and the nearest key where one was mistyped.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError as error:
        if required:
            raise InputError(path, "no such settings file") from error
        return Settings()
    except (OSError, ValueError) as error:
        raise InputError(path, getattr(error, "strerror", None) or str(error)) from error
    return _settings_from(path, values)


def _settings_from(path: str, values: Mapping[str, object]) -> Settings:
    _only(path, "", values, ("mode", "actions", "watch"))
    switches, watch = _table(path, values, "actions", ACTIONS), _table(path, values, "watch", WATCH)
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(path, f"actions.{key} is {value!r}; expected true or false")
    settle = watch.get("settle-ms", 50)
    low, high = SETTLE_MS
    if not isinstance(settle, int) or isinstance(settle, bool) or not low <= settle <= high:
        raise InputError(path, f"watch.settle-ms is {settle!r}; expected a number from {low} to {high}")
    return Settings(
        mode=_word(path, "mode", values.get("mode", MODES[0]), MODES),
        actions={word: bool(switches.get(word, True)) for word in ACTIONS},
        watch_source=_word(path, "watch.source", watch.get("source", SOURCES[0]), SOURCES),
        settle_ms=settle,
    )


def _word(path: str, key: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InputError(path, f"{key} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _table(path: str, values: Mapping[str, object], name: str, keys: tuple[str, ...]) -> Mapping[str, object]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise InputError(path, f"{name} is no table; expected [{name}]")
    _only(path, f"{name}.", table, keys)
    return table


def _only(path: str, prefix: str, values: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(allowed)}"
            raise InputError(path, f"unknown key {prefix}{key}; {hint}")
