"""Look up names of vendors, devices and classes in pci.ids. The file is searched, not parsed.

pci.ids is a text with one section for each vendor and class. A section begins at the start of a line; the
lines of its members begin with tabs. Without the file there are no names, and nothing fails.

Source: pci.ids, header comment ("Syntax").
"""

import functools
import os
import re
from collections.abc import Iterable

from pcipt.host.tree import text_of

PLACES = (
    "/usr/share/misc/pci.ids",
    "/usr/share/hwdata/pci.ids",
    "/usr/share/pci.ids",
    "/usr/share/misc/pci.ids.gz",
    "/usr/share/hwdata/pci.ids.gz",
)
MAX_BYTES = 32 << 20
_MEMBER = re.compile(rb"\n\t[^\t#\n]")
_SECTION = re.compile(rb"\n[^\t#\n]")


class PciIds:
    """The names of one pci.ids file; `data` is its text. Without text, every name is None.

    `vendor(vendor)`, `device(vendor, device)` and `class_name(class_code)` return a name, or None if the file
    has none. Results are cached. So do `subsystem` and `interface`, without a cache. Nothing is raised.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._data = b"\n" + data
        self.vendor = functools.cache(self._vendor)
        self.device = functools.cache(self._device)
        self.class_name = functools.cache(self._class_name)
        self._section = functools.cache(self._find_section)

    def _vendor(self, vendor: int) -> str | None:
        """Return the name of a vendor id, or None if the file has none."""
        return self._name(self._section(b"%04x" % vendor), b"")

    def _device(self, vendor: int, device: int) -> str | None:
        """Return the name of a device id of this vendor, or None if the file has none."""
        return self._name(self._section(b"%04x" % vendor), b"\n\t%04x  " % device)

    def _class_name(self, class_code: int) -> str | None:
        """Return the name of the subclass of a 24-bit class code.

        If the subclass has no name, return the name of the base class. Return None if the file has neither.
        """
        section = self._section(b"C %02x" % (class_code >> 16))
        return self._name(section, b"\n\t%02x  " % (class_code >> 8 & 0xFF)) or self._name(section, b"")

    def subsystem(self, vendor: int, device: int, subvendor: int, subdevice: int) -> str | None:
        """Return the name of a subsystem of a device, or None if the file has none."""
        members = self._members(self._section(b"%04x" % vendor), b"\n\t%04x  " % device)
        return self._name(members, b"\n\t\t%04x %04x  " % (subvendor, subdevice))

    def interface(self, class_code: int) -> str | None:
        """Return the name of the programming interface of a 24-bit class code, or None if it has none."""
        section = self._section(b"C %02x" % (class_code >> 16))
        members = self._members(section, b"\n\t%02x  " % (class_code >> 8 & 0xFF))
        return self._name(members, b"\n\t\t%02x  " % (class_code & 0xFF))

    @staticmethod
    def _members(section: bytes, key: bytes) -> bytes:
        """Return the part of a section that belongs to the member `key`: up to the next member."""
        start = section.find(key)
        if start < 0:
            return b""
        following = _MEMBER.search(section, start + len(key))
        return section[start : following.start() if following is not None else len(section)]

    def _find_section(self, key: bytes) -> bytes:
        """Return the section whose first line begins with `key`, without `key`: its name, then the lines of
        its members.

        Return no bytes if there is no such section.
        """
        start = self._data.find(b"\n" + key + b"  ")
        if start < 0:
            return b""
        start += len(key) + 3
        following = _SECTION.search(self._data, start)
        return self._data[start : following.start() if following is not None else len(self._data)]

    @staticmethod
    def _name(section: bytes, key: bytes) -> str | None:
        """Return the text after the first `key` in a section, up to the end of the line.

        An empty `key` gives the first line of the section. Return None if the section is empty, has no such
        key, or if the text is empty.
        """
        start = section.find(key)
        if not section or start < 0:
            return None
        start += len(key)
        end = section.find(b"\n", start)
        name = section[start : end if end >= 0 else len(section)]
        return text_of(os.fsdecode(name.strip())) or None


def read_pciids(places: Iterable[str] = PLACES) -> PciIds:
    """Read the first file of `places` that can be read, at most 32 MiB of it. Raises nothing.

    A damaged .gz file is skipped. If no file can be read, the result has no names.
    """
    for place in places:
        try:
            with open(place, "rb") as source:
                data = source.read(MAX_BYTES)
            return PciIds(_unpacked(data) if place.endswith(".gz") else data)
        except (OSError, EOFError, ValueError):
            continue
    return PciIds()


def _unpacked(data: bytes) -> bytes:
    """Return decompressed gzip data, at most `MAX_BYTES`.

    Raises: ValueError, OSError or EOFError if it is damaged.
    """
    import io
    import zlib
    from gzip import GzipFile

    try:
        with GzipFile(fileobj=io.BytesIO(data)) as packed:
            return packed.read(MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
