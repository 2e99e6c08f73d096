"""An entry of the policy: a place, the identity that is expected there, and for which guest it is kept.

An entry is a table `[[passthrough]]` of TOML. What it leaves out is not insisted on.
"""

import re
from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.errors import AddressError, InputError, printable
from pcipt.pci.address import XEN_SEGMENT_LIMIT, PciPath, parse_path
from pcipt.pci.identity import ACPI_NAME, Identity, Place, parse_serial, place_of, serial_text
from pcipt.pci.ids import Ids

TABLE = "passthrough"
#: keys of ids: the field of Ids, the number of hexadecimal digits
ID_KEYS = {
    "vendor": ("vendor", 4),
    "device": ("device", 4),
    "subsystem_vendor": ("subsystem_vendor", 4),
    "subsystem_device": ("subsystem_device", 4),
    "revision": ("revision", 2),
    "class": ("class_code", 6),
}
KEYS = ("path", "root", *ID_KEYS, "serial", "guest", "note")
_GUEST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", re.ASCII)


@attrs.frozen
class Entry:
    """One function that is kept for guests.

    `expected` has a path; of its other fields those that are None accept everything. `guest` is the name of
    the guest that gets the function, or empty. `note` is the user's own text. `source` is the file it is in.
    """

    expected: Identity
    guest: str = ""
    note: str = ""
    source: str = ""

    @property
    def path(self) -> PciPath:
        """Return the PCI path of the entry."""
        if self.expected.path is None:
            raise ValueError("an entry without a path")
        return self.expected.path


def insisted_on(identity: Identity) -> Identity:
    """Return what a new entry insists on: everything but the class and the label of the slot.

    Linux corrects classes, and not every kernel the same. Slots have labels only after a hot-plug driver has
    started, which is after the time at which the initramfs compares.
    """
    return attrs.evolve(identity, ids=attrs.evolve(identity.ids, class_code=None), slot=None)


def entry_from_table(table: Mapping[str, object], source: str) -> Entry:
    """Return the entry that a table `[[passthrough]]` of the file `source` describes.

    Raises: InputError that names the file and the wrong key.
    """
    for name in table:
        if name not in KEYS:
            raise InputError(source, f"unknown key {printable(name)}; expected one of {', '.join(KEYS)}")
    texts = {name: _text(table, name, source) for name in ("path", "root", "serial", "guest", "note")}
    if not texts["path"]:
        raise InputError(source, f"a table [[{TABLE}]] has no path")
    try:
        path = parse_path(texts["path"])
    except AddressError as error:
        raise InputError(source, f"path: {error}") from error
    if path.segment > XEN_SEGMENT_LIMIT:
        raise InputError(source, f"path: segment {path.segment:x} is above ffff: Xen cannot name it (VMD)")
    serial = parse_serial(texts["serial"]) if texts["serial"] else None
    if texts["serial"] and serial is None:
        raise InputError(source, "serial is neither eight bytes, as in 00-1b-21-ff-ff-30-4c-d8, nor none")
    if texts["root"] and not ACPI_NAME.fullmatch(texts["root"]):
        raise InputError(source, "root is not the ACPI name of a host bridge, as in '\\_SB_.PCI0'")
    numbers = {field: _number(table, name, digits, source) for name, (field, digits) in ID_KEYS.items()}
    expected = Identity(path, texts["root"] or None, Ids(**numbers), serial)
    return Entry(expected, checked_guest(texts["guest"], source), texts["note"], source)


def places_of(entry: Entry) -> list[PciPath | Place]:
    """Return what no other entry may have: the path, and the place below the host bridge if that has a name.

    The firmware may have numbered the root bus anew between two entries: then one place has two paths.
    """
    place = place_of(entry.expected, by_root=True) if entry.expected.root is not None else None
    return [entry.path, *([place] if place is not None else [])]


def also(entry: Entry, other: Entry) -> str:
    """Return under which path `other` has the place of `entry`, in words; empty if it is the same path."""
    return f", as {other.path}" if other.path != entry.path else ""


def distinct(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries. Raises: InputError if two of them have one place."""
    found: dict[PciPath | Place, Entry] = {}
    every = tuple(entries)
    for entry in every:
        for where in places_of(entry):
            other = found.setdefault(where, entry)
            if other is not entry:
                raise InputError(entry.source, f"{entry.path} is in {other.source} too{also(entry, other)}")
    return every


def checked_guest(guest: str, source: str) -> str:
    """Return the name of a guest. Raises: InputError about `source` if it can be none; empty is no guest."""
    if guest and not _GUEST.fullmatch(guest):
        raise InputError(source, "guest is not a name of letters, digits and _.+- (at most 64)")
    return guest


def text_from_entry(entry: Entry) -> str:
    """Return the TOML table of an entry. `entry_from_table` reads it back."""
    expected = entry.expected
    lines = [f"[[{TABLE}]]", f"path = {_quoted(str(expected.path))}"]
    if expected.root is not None:
        lines.append(f"root = {_quoted(expected.root)}")
    for name, (field, digits) in ID_KEYS.items():
        value = getattr(expected.ids, field)
        if value is not None:
            lines.append(f"{name} = 0x{value:0{digits}x}")
    if expected.serial is not None:
        lines.append(f"serial = {_quoted(serial_text(expected.serial) or '')}")
    lines += [
        f"{name} = {_quoted(text)}" for name, text in (("guest", entry.guest), ("note", entry.note)) if text
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as a basic string of TOML; control characters become spaces."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(table: Mapping[str, object], name: str, source: str) -> str:
    """Return the text of a key; an empty text if it is missing. Raises: InputError if it is no text."""
    value = table.get(name, "")
    if not isinstance(value, str) or not value.isprintable():
        raise InputError(source, f"{name} is not a text of printable characters")
    return value


def _number(table: Mapping[str, object], name: str, digits: int, source: str) -> int | None:
    """Return the number of a key; None if it is missing. Raises: InputError if it is none, or too large."""
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 4 * digits:
        raise InputError(source, f"{name} is not a number up to 0x{'f' * digits}")
    return value
