"""The settings file: TOML, every key known, wrong ones refused with one clear line.

mode = "enforce"          # or "observe": plan and report, change nothing
[actions]                 # one switch per kind of action
add-device = true
remove-device = true
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


@attrs.frozen
class Settings:
    mode: str = "enforce"
    actions: Mapping[str, bool] = attrs.field(factory=lambda: dict.fromkeys(ACTIONS, True))

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
    _only(path, "", values, ("mode", "actions"))
    mode = values.get("mode", "enforce")
    if mode not in MODES:
        raise InputError(path, f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    switches = values.get("actions", {})
    if not isinstance(switches, dict):
        raise InputError(path, "actions is no table; expected [actions]")
    _only(path, "actions.", switches, ACTIONS)
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(path, f"actions.{key} is {value!r}; expected true or false")
    return Settings(str(mode), {word: bool(switches.get(word, True)) for word in ACTIONS})


def _only(path: str, prefix: str, values: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(allowed)}"
            raise InputError(path, f"unknown key {prefix}{key}; {hint}")
