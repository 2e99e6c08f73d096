"""How reading commands put things on paper: names, colour, sizes, JSON, the closing line."""

import functools
import json
import os
import sys

from pcipt.errors import printable
from pcipt.host.pciids import PciIds, read_pciids
from pcipt.pci import Ids

SIZE_UNITS = ("", "K", "M", "G", "T", "P", "E")


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour() -> bool:
    return on_terminal() and not os.environ.get("NO_COLOR")


def painted(text: str, colour: str | None) -> str:
    """Wrap a text into an SGR colour; None leaves it plain."""
    return text if colour is None else f"\033[{colour}m{text}\033[0m"


def print_json(value: dict[str, object], form: str) -> None:
    """Print one object with its version: `short` on one line, `pretty` indented."""
    print(json.dumps({"version": 1, **value}, indent=2 if form == "pretty" else None))


def size_text(size: int) -> str:
    """Write a size as lspci does: 16K, 8G; bytes where it is no whole number of units."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(SIZE_UNITS) - 1:
        size //= 1024
        unit += 1
    return f"{size}{SIZE_UNITS[unit]}"


def count_text(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


class Names:
    """Descriptions in lspci's words; `numeric` ones need no pci.ids."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._pciids = PciIds() if numeric else read_pciids()
        self.row = functools.cache(self._row)

    def _row(self, ids: Ids) -> str:
        """Describe a function as `lspci -nn` does, or as `lspci -n` does."""
        revision = f" (rev {ids.revision:02x})" if ids.revision else ""
        numbers = f"{_digits(ids.vendor)}:{_digits(ids.device)}"
        code = "????" if ids.class_code is None else f"{ids.class_code >> 8:04x}"
        if self._numeric:
            return f"{code}: {numbers}{revision}"
        name = None if ids.class_code is None else self._pciids.class_name(ids.class_code)
        return f"{printable(name or 'Class')} [{code}]: {self._device(ids)} [{numbers}]{revision}"

    def device(self, ids: Ids) -> str:
        """Name vendor and device, as the leaves of `lspci -tv` are named."""
        numbers = f"{_digits(ids.vendor)}:{_digits(ids.device)}"
        return numbers if self._numeric else self._device(ids, numbers)

    def subsystem(self, ids: Ids) -> str:
        numbers = f"{_digits(ids.subsystem_vendor)}:{_digits(ids.subsystem_device)}"
        name = None if ids.subsystem_vendor is None else self._pciids.vendor(ids.subsystem_vendor)
        return numbers if name is None else f"{printable(name)} [{numbers}]"

    def _device(self, ids: Ids, numbers: str = "") -> str:
        vendor = None if ids.vendor is None else self._pciids.vendor(ids.vendor)
        if vendor is None or ids.vendor is None:
            return f"Device {numbers}".rstrip()
        device = None if ids.device is None else self._pciids.device(ids.vendor, ids.device)
        unknown = f"Device {_digits(ids.device)}" if numbers else "Device"
        return printable(f"{vendor} {device or unknown}")


def _digits(value: int | None) -> str:
    return "????" if value is None else f"{value:04x}"
