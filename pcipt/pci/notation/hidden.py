"""Read which functions the kernel's command line, or a file of modprobe, hides from dom0's drivers.

Sources: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_init, pcistub_device_id_add); kernel/params.c
         (parse_args: quotes, "-" and "_" are alike in names, the last value holds, a text needs "=");
         modprobe.d(5) (a backslash at the end of a line joins the next line to it);
         Qubes OS, qubes-core-admin-linux dracut/modules.d/90qubes-pciback/qubes-pciback.sh.
"""

import re
from collections.abc import Collection

from pcipt import values as attrs
from pcipt.pci.address import LIMITS, Sbdf, SlotFilter

PCIBACK, QUBES = "xen-pciback.hide", "rd.qubes.hide_pci"
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_HEX = r"(?:0x)?([0-9a-f]+)"
_ITEM = re.compile(
    rf"\s*\((?:{_HEX}:)?{_HEX}:(?:{_HEX}\.(?:{_HEX}|\*)|\*\.\*)\)\s*", re.ASCII | re.IGNORECASE
)
_PLAIN = re.compile(r"([0-9a-f]{2}):([01][0-9a-f])\.([0-7])", re.ASCII)  # segment 0 is meant
_MODULE = "xen_pciback"
_NOTHING = "nothing"  # no value, not even an empty one
_LIMITS = (0xFFFF, LIMITS["bus"], LIMITS["device"], LIMITS["function"])


@attrs.frozen
class Named:
    """One item of a line of another tool: its text, and the functions that it names.

    `slot` is None if the item is malformed. `options` follow the address.
    """

    text: str
    slot: SlotFilter | None
    options: str = ""

    def functions(self, machine: Collection[Sbdf]) -> list[Sbdf]:
        """Return the functions of `machine` that the item names, in address order."""
        slot = self.slot
        if slot is None:
            return []
        segment, bus, device, function = slot.segment, slot.bus, slot.device, slot.function
        if segment is not None and bus is not None and device is not None and function is not None:
            sbdf = Sbdf(segment, bus, device, function)  # the common case: no search
            return [sbdf] if sbdf in machine else []
        return sorted(each for each in machine if slot.matches(each))


def hidden_by(line: str) -> dict[str, tuple[Named, ...]]:
    """Return the items of `xen-pciback.hide` and `rd.qubes.hide_pci` of a command line, by option.

    An option that is not on the line, or is empty, is left out. If it is there several times, the last
    counts. The kernel reads up to the first malformed item: the rest is one item then. `xen-pciback.hide`
    without "=" is malformed as a whole.
    """
    values: dict[str, str] = {}
    for word in _WORD.findall(line):
        key, equals, value = word.replace('"', "").partition("=")
        for option in (PCIBACK, QUBES):
            if key.replace("-", "_") == option.replace("-", "_"):
                values[option] = value if equals or option == QUBES else _NOTHING
    read = {PCIBACK: _of_pciback, QUBES: _of_qubes}
    return {option: read[option](value) for option, value in values.items() if value}


def hidden_by_module(text: str) -> tuple[int, tuple[Named, ...]] | None:
    """Return the items of hide= in a file of modprobe.d, with the number of their line; None without items.

    The line is `options xen-pciback hide=(…)(…)`. If there are several, the last counts.
    """
    found, joined, start = None, "", 1
    for number, line in enumerate(text.splitlines(), 1):
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        command, *words = _WORD.findall(joined) or [""]
        if command == "options" and words and words[0].replace("-", "_") == _MODULE:
            for word in words[1:]:
                key, equals, value = word.replace('"', "").partition("=")
                if key == "hide":
                    found = start, value if equals else _NOTHING
        joined, start = "", number + 1
    return (found[0], _of_pciback(found[1])) if found is not None and found[1] else None


def _of_pciback(value: str) -> tuple[Named, ...]:
    """Return the items of hide=: (0000:03:00.0), (03:00.*), (03:*.*)."""
    items: list[Named] = []
    at = 0
    while at < len(value):
        found = _ITEM.match(value, at)
        if found is None:
            return (*items, Named(value[at:], None))
        numbers = [int(text, 16) if text is not None else None for text in found.groups()]
        numbers[0] = numbers[0] or 0
        fits = all(each is None or each <= limit for each, limit in zip(numbers, _LIMITS, strict=True))
        items.append(Named(found[0].strip(), SlotFilter(*numbers) if fits else None))
        at = found.end()
    return tuple(items)


def _of_qubes(value: str) -> tuple[Named, ...]:
    """Return the items of hide_pci=: bus:device.function in small letters, joined by commas."""
    items = []
    for text in filter(None, value.split(",")):
        found = _PLAIN.fullmatch(text)
        slot = SlotFilter(0, *(int(each, 16) for each in found.groups())) if found is not None else None
        items.append(Named(text, slot))
    return tuple(items)
