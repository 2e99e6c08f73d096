"""The table of all settings: name, accepted values, default, explanation.

The reader, its errors, the shipped settings file and pcipt.toml(5) all use this table.
"""

import json
import os
from typing import Any, Protocol

import attrs

from pcipt.errors import AddressError
from pcipt.pci.address import XEN_SEGMENT_LIMIT, parse_path
from pcipt.remap.actions import Action

MOST_PORTS = 256
LEVELS = ("debug", "info", "warning", "error")


class Accepts(Protocol):
    """The values that a setting accepts."""

    def fits(self, value: object) -> bool:
        """Return True if the setting accepts this value."""

    @property
    def words(self) -> str:
        """Return a description of the accepted values, for errors and the manual."""


@attrs.frozen
class OneOf:
    """The values of a setting: one of the words `choices`."""

    choices: tuple[str, ...]

    def fits(self, value: object) -> bool:
        return isinstance(value, str) and value in self.choices

    @property
    def words(self) -> str:
        return f"one of {', '.join(self.choices)}"


@attrs.frozen
class Flag:
    """The values of a setting: true or false."""

    words = "true or false"

    def fits(self, value: object) -> bool:
        return isinstance(value, bool)


@attrs.frozen
class Number:
    """The values of a setting: a whole number from `low` to `high`, both included."""

    low: int
    high: int

    def fits(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    @property
    def words(self) -> str:
        return f"a number from {self.low} to {self.high}"


@attrs.frozen
class TextfilePath:
    """The values of a setting: an absolute path that ends in .prom, or an empty text."""

    words = "an absolute path that ends in .prom, or an empty text"

    def fits(self, value: object) -> bool:
        if not isinstance(value, str) or not value.isprintable():
            return False
        return not value or (os.path.isabs(value) and value.endswith(".prom"))


@attrs.frozen
class PciPaths:
    """The values of a setting: a list of PCI paths of bridges, each once."""

    words = 'a list of PCI paths of ports, as in ["00_1c.0"]'

    def fits(self, value: object) -> bool:
        if not isinstance(value, list | tuple) or len(value) > MOST_PORTS:
            return False
        return all(map(_is_path, value)) and len(set(value)) == len(value)


def _is_path(value: object) -> bool:
    """Return True if a value is the text of a PCI path in a segment that Xen can name."""
    try:
        return isinstance(value, str) and parse_path(value).segment <= XEN_SEGMENT_LIMIT
    except AddressError:
        return False


@attrs.frozen
class Key:
    """One setting. `name` is "key", or "table.key" for a key in a table. `about` explains it on one line."""

    name: str
    accepts: Accepts
    default: Any
    about: str

    @property
    def path(self) -> list[str]:
        """Return the parts of the name: [table, key], or [key] if the setting is in no table."""
        return self.name.split(".")


_ABOUT_ACTIONS = {
    "add-device": "tell Xen of functions that it does not know",
    "remove-device": "make Xen forget functions that have left the machine",
    "map-mmio": "map memory of functions into dom0 where Xen does not do so itself (PVH)",
    "unmap-mmio": "remove mappings at which no function decodes any more (PVH)",
    "rewrite-bar": "write to a BAR again if Xen dropped the write and no driver is bound (PVH)",
    "rewrite-command": "write a Command register again unchanged, so that Xen corrects wrong mappings (PVH)",
    "withdraw-reserved": "take a reserved region out of dom0's map when its last device leaves dom0 (PVH)",
    "restore-reserved": "put a reserved region back into dom0's map when its first device returns (PVH)",
    "check-unmapped": "check whether Xen maps unmapped pages again, if Xen's dom0=pf-fixup may be on (PVH)",
    "guard-port": "let xen-pciback take each function that appears below a port of hotplug.below",
    "quarantine": "let xl quarantine each function that has appeared below a port of hotplug.below",
}

KEYS: tuple[Key, ...] = (
    Key("mode", OneOf(("enforce", "observe")), "enforce",
        "with enforce pcipt repairs; with observe pcipt only plans and reports"),
    *(Key(f"actions.{word}", Flag(), True, about) for word, about in _ABOUT_ACTIONS.items()),
    Key("watch.source", OneOf(("kprobe", "xentrace", "none")), "kprobe",
        "how pcipt sees configuration writes: by kprobe (in dom0's kernel) or by xentrace (in Xen's trace "
        "buffer, PVH); with none pcipt sees no writes; after a change, restart the service"),
    Key("watch.settle-ms", Number(1, 10_000), 50,
        "pcipt reads the registers when no further write has come for this many milliseconds"),
    Key("watch.owners-s", Number(1, 3600), 60,
        "seconds between two questions to Xen about the owners, while there is a function whose owner can "
        "change without a message: bound to xen-pciback, hidden, without an owner, unknown to Linux, or "
        "renumbered"),
    Key("watch.list-s", Number(0, 3600), 900,
        "seconds (about) between two questions to Xen whether all functions are still in Xen's list; with 0 "
        "pcipt asks only together with other work"),
    Key("watch.faults-s", Number(0, 3600), 60,
        "seconds between two readings of Xen's console for DMA that an IOMMU refused; with 0 pcipt reads the "
        "console only together with other work and after it has withdrawn a region"),
    Key("reserved.restore_on_fault", Flag(), False,
        "restore a withdrawn region if an IOMMU refuses DMA of a device of dom0 to this region (PVH)"),
    Key("hotplug.probe", Flag(), True,
        "if Xen was told late of a function without a driver, let Linux look for a driver once more"),
    Key("hotplug.below", PciPaths(), (),
        "a function that appears below one of these ports gets no driver of dom0, and stays in quarantine "
        "until pcipt admit"),
    Key("hotplug.action", OneOf(("quarantine", "tell")), "quarantine",
        "quarantine each function that appears below these ports, or only report the function (tell)"),
    Key("log.level", OneOf(LEVELS), "info",
        "only messages of this level and of more important levels are logged"),
    Key("metrics.textfile", TextfilePath(), "",
        "pcipt writes the metrics for node_exporter's textfile collector to this file; with an empty text "
        "pcipt writes no file"),
)  # fmt: skip
BY_NAME = {key.name: key for key in KEYS}
TABLES = frozenset(key.path[0] for key in KEYS if len(key.path) > 1)
ACTIONS: tuple[str, ...] = tuple(kind.word for kind in Action.__args__)


DEFAULTS: dict[str, Any] = {key.name: key.default for key in KEYS}


def file_from_keys() -> str:
    """Return the text of the shipped settings file: each key with its explanation, accepted values and
    default.

    The lines of the keys are comments, so the file changes no setting. The keys are in the order of KEYS.
    """
    lines = [
        "# Settings of pcipt, see pcipt.toml(5). Each key is here as a comment with its default value.",
        "# To change a value, remove the # before the key. Then: systemctl reload pcipt",
        "# Tables [[passthrough]] may be in this file too, but every user can read it, see pcipt.toml(5).",
        "",
    ]
    table = ""
    for key in KEYS:
        *above, name = key.path
        if above and above[0] != table:
            table = above[0]
            lines += ["", f"[{table}]"]
        lines += [f"# {key.about}:", f"#   {key.accepts.words}", f"#{name} = {toml_from_value(key.default)}"]
    return "\n".join(lines) + "\n"


def toml_from_value(value: object) -> str:
    """Return a value of a setting (text, number, bool, or a list of texts) as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)  # TOML quotes printable text as JSON does
