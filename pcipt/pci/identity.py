"""Hold the identity of a function: what stays while buses are renumbered, drivers change and guests come and
go. Compare what was expected with what is there.

Sources: PCI Express Base 6.0 §7.9.3 (Device Serial Number); Qubes OS 4.3 (PCI paths); ACPI 6.5 §6.1
        (a host bridge keeps its name in the namespace when firmware gives it another root bus).
"""

import re
from collections.abc import Callable, Mapping, Sequence

from pcipt import values as attrs
from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.capabilities import Capability
from pcipt.pci.config import LEGACY_SIZE, ConfigSpace
from pcipt.pci.function import Function
from pcipt.pci.ids import UNKNOWN_IDS, Ids
from pcipt.pci.machine import Machine
from pcipt.pci.structures import EXPRESS, SERIAL_NUMBER

NO_SERIAL = 0  # a function that has no serial number, which is known
_NONE = "none"
_NO_NUMBERS = (0, (1 << 64) - 1)  # what vendors leave there who gave no number
SECRET = "serial"  # noqa: S105 - the one field that only root may see
_NOTHING = ConfigSpace(b"")
ACPI_NAME = re.compile(r"[\\A-Z0-9_.^]{1,255}", re.ASCII)  # of a host bridge; ACPI 6.5 §5.3
_SERIAL = r"[0-9a-f]{2}(-[0-9a-f]{2}){7}"


@attrs.frozen
class Identity:
    """The identity of one function. The same value says what is expected of a function: a field that is None
    then accepts everything.

    `path` is its PCI path. `root` is the ACPI name of the host bridge at which the path begins. `ids` has
    vendor, device, subsystem, revision and class. `serial` is the 64-bit Device Serial Number, which all
    functions of a device share, or NO_SERIAL. `slot` is the label of the physical slot. None is unknown, or
    absent where only that can be.
    """

    path: PciPath | None = None
    root: str | None = None
    ids: Ids = UNKNOWN_IDS
    serial: int | None = None
    slot: str | None = None


@attrs.frozen
class Difference:
    """One field in which a function is not what was expected.

    `expected` and `found` are text; `found` is None if the function has no such field or it is not known.
    """

    field: str
    expected: str
    found: str | None


def _words(value: int | None, digits: int) -> str | None:
    """Return an id as "0x" and `digits` digits, as sysfs has it; None for None."""
    return None if value is None else f"0x{value:0{digits}x}"


#: the fields in the order in which they are told: the name in files and JSON, the value as text
FIELDS: Mapping[str, Callable[[Identity], str | None]] = {
    "path": lambda one: str(one.path) if one.path is not None else None,
    "root": lambda one: one.root,
    "vendor": lambda one: _words(one.ids.vendor, 4),
    "device": lambda one: _words(one.ids.device, 4),
    "subsystem_vendor": lambda one: _words(one.ids.subsystem_vendor, 4),
    "subsystem_device": lambda one: _words(one.ids.subsystem_device, 4),
    "revision": lambda one: _words(one.ids.revision, 2),
    "class": lambda one: _words(one.ids.class_code, 6),
    "serial": lambda one: serial_text(one.serial),
    "slot": lambda one: one.slot,
}


def identity_of(
    function: Function, config: ConfigSpace, root: str | None = None, slot: str | None = None
) -> Identity:
    """Return the identity of a function. `config` is its configuration space.

    `root` is the ACPI name of its host bridge, `slot` the label of its slot; None is unknown.
    """
    serial = serial_number(config, function.capabilities)
    return Identity(function.path, root, function.ids, serial, slot)


def identities_of(
    machine: Machine,
    configs: Mapping[Sbdf, ConfigSpace],
    bridges: Mapping[tuple[int, int], str],
    slots: Mapping[tuple[int, int, int], str],
) -> dict[Sbdf, Identity]:
    """Return the identity of each function of a machine.

    `configs` has their configuration spaces. `bridges` has the ACPI names of host bridges by (segment, root
    bus), `slots` the labels of slots by (segment, bus, device). What is missing there is unknown.
    """
    return {
        sbdf: identity_of(
            function,
            configs.get(sbdf, _NOTHING),
            host_bridge_of(function, bridges),
            slots.get(sbdf[:3]),
        )
        for sbdf, function in machine.functions.items()
    }


def host_bridge_of(function: Function, bridges: Mapping[tuple[int, int], str]) -> str | None:
    """Return the name of the host bridge at which the path of a function begins, or None if it is unknown.

    `bridges` has the names by (segment, root bus).
    """
    if function.path is None:
        return None
    return bridges.get((function.path.segment, function.path.hops[0][0]))


def serial_number(config: ConfigSpace, capabilities: Sequence[Capability]) -> int | None:
    """Return the Device Serial Number; NO_SERIAL if the function has none; None if that is not known.

    A number of only zeros or only ones is none. It is not known if fewer than 256 bytes were read, or if the
    function is one of PCI Express whose extended registers were not read, or does not answer.
    """
    if len(config) < LEGACY_SIZE or config.answers is not True:
        return None
    for each in capabilities:
        if each.extended and each.id == SERIAL_NUMBER:
            low, high = config.u32(each.offset + 4), config.u32(each.offset + 8)
            if low is None or high is None:
                return None
            return NO_SERIAL if high << 32 | low in _NO_NUMBERS else high << 32 | low
    express = any(each.id == EXPRESS and not each.extended for each in capabilities)
    return None if express and len(config) == LEGACY_SIZE else NO_SERIAL


def serial_text(serial: int | None) -> str | None:
    """Return a serial number as lspci prints it, the highest byte first: 00-1b-21-ff-ff-30-4c-d8.

    NO_SERIAL is "none"; None is None.
    """
    if serial == NO_SERIAL:
        return _NONE
    return None if serial is None else serial.to_bytes(8, "big").hex("-")


def parse_serial(text: str) -> int | None:
    """Return the serial number that a text of `serial_text` stands for; None if it has another form.

    A number of only zeros or only ones is none, as in `serial_number`.
    """
    if text == _NONE:
        return NO_SERIAL
    if not re.fullmatch(_SERIAL, text):
        return None
    number = int(text.replace("-", ""), 16)
    return NO_SERIAL if number in _NO_NUMBERS else number


def differences(expected: Identity, found: Identity) -> tuple[Difference, ...]:
    """Return the fields of `found` that are not as expected, in the order of `FIELDS`; nothing if all are.

    A field that is None in `expected` is not compared. A field that is None in `found` only is different:
    what cannot be seen is not taken for right. The path is compared without the number of its root bus if
    `expected` names the host bridge: the firmware may number it anew.
    """
    return tuple(
        Difference(name, wanted, text_of(found))
        for name, text_of in FIELDS.items()
        if (wanted := text_of(expected)) is not None
        and wanted != text_of(found)
        and not (name == "path" and same_place(expected, found))
    )


def same_place(one: Identity, other: Identity) -> bool:
    """Return True if two identities have the same path, wherever their host bridge's root bus is.

    If the host bridge of `one` is not known, the number of the root bus counts.
    """
    return one.path is not None and place_of(one, by_root=True) == place_of(
        other, by_root=one.root is not None
    )


Place = tuple[str | int, tuple[tuple[int, int, int], ...]]


def place_of(identity: Identity, *, by_root: bool) -> Place | None:
    """Return a value that is equal for equal places: where the path begins, and its hops.

    `by_root` begins at the host bridge if its ACPI name is known; else, and without the name, the path begins
    at the root bus of its segment. Return None without a path.
    """
    if identity.path is None:
        return None
    (bus, device, function), *below = identity.path.hops
    if by_root and identity.root is not None:
        return identity.root, ((0, device, function), *below)
    return identity.path.segment, ((bus, device, function), *below)


def shown_fields(identity: Identity, *, secret: bool) -> dict[str, str]:
    """Return the known fields of an identity by name, as text, in the order of `FIELDS`.

    Without `secret` the serial number is left out.
    """
    texts = {name: text_of(identity) for name, text_of in FIELDS.items() if secret or name != SECRET}
    return {name: text for name, text in texts.items() if text is not None}


def shown_difference(difference: Difference, *, secret: bool) -> str:
    """Return a difference as words. Without `secret` a serial number is not told, only that it differs."""
    name = difference.field.replace("_", " ")
    if difference.field == SECRET and (not secret or difference.found is None):
        if difference.found is None:
            return "serial number not known"
        return "no serial number" if difference.found == _NONE else "another serial number"
    return f"{name} {difference.found or 'unknown'} instead of {difference.expected}"
