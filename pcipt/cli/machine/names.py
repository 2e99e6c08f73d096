"""Descriptions of functions in lspci's words, with names from pci.ids."""

import functools

from pcipt.errors import printable
from pcipt.host.pciids import PciIds, read_pciids
from pcipt.pci import Ids


class Names:
    """Descriptions of functions in lspci's words.

    With `numeric` they have numbers only, and pci.ids is not read. If no pci.ids can be read, every name is
    unknown. `row(ids)` returns the whole description of a function on one line; results are cached.
    """

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._pciids = PciIds() if numeric else read_pciids()
        self.row = functools.cache(self._row)

    def _row(self, ids: Ids, title: str = "") -> str:
        """Return a function's description on one line, as `lspci -nn` prints it; with `numeric` as `lspci -n`
        does. For `title` see `parts`.
        """
        return ": ".join(self.parts(ids, title))

    def parts(self, ids: Ids, title: str = "") -> tuple[str, str]:
        """Return the two halves of lspci's description: (class, vendor with device and revision).

        An unknown class name is "Class", an unknown id is "????". The revision is left out if it is 0. With
        `numeric` both halves have numbers only. If the vendor is unknown and there is a `title`, the heading
        that lspci printed of the function, the halves are those of the title.
        """
        if ids.vendor is None and title:
            kind, _, about = printable(title).partition(": ")
            return kind, about
        revision = f" (rev {ids.revision:02x})" if ids.revision else ""
        numbers = f"{_digits(ids.vendor)}:{_digits(ids.device)}"
        code = "????" if ids.class_code is None else f"{ids.class_code >> 8:04x}"
        if self._numeric:
            return code, f"{numbers}{revision}"
        name = None if ids.class_code is None else self._pciids.class_name(ids.class_code)
        return f"{printable(name or 'Class')} [{code}]", f"{self._device(ids)} [{numbers}]{revision}"

    def device(self, ids: Ids, title: str = "") -> str:
        """Return the names of vendor and device, as `lspci -tv` prints them; with `numeric` their numbers.

        If the vendor has no name, return "Device" and the numbers. If only the device has no name, "Device"
        and its number follow the vendor's name. For `title` see `parts`.
        """
        if ids.vendor is None and title:
            return self.parts(ids, title)[1]
        numbers = f"{_digits(ids.vendor)}:{_digits(ids.device)}"
        return numbers if self._numeric else self._device(ids, numbers)

    def subsystem(self, ids: Ids) -> str:
        """Return the subsystem's vendor and own name and its ids: "VENDOR NAME [8086:1234]".

        What has no name is left out; an unknown id is "????".
        """
        numbers = f"{_digits(ids.subsystem_vendor)}:{_digits(ids.subsystem_device)}"
        vendor = None if ids.subsystem_vendor is None else self._pciids.vendor(ids.subsystem_vendor)
        named = " ".join(name for name in (vendor, self.subsystem_name(ids)) if name is not None)
        return f"{printable(named)} [{numbers}]" if named else numbers

    def subsystem_name(self, ids: Ids) -> str | None:
        """Return the subsystem's own name, or None if it has none or an id is unknown."""
        if ids.vendor is None or ids.device is None:
            return None
        if ids.subsystem_vendor is None or ids.subsystem_device is None:
            return None
        return self._pciids.subsystem(ids.vendor, ids.device, ids.subsystem_vendor, ids.subsystem_device)

    def interface(self, ids: Ids) -> str | None:
        """Return the name of the programming interface; None if it has none or the class is unknown."""
        return None if ids.class_code is None else self._pciids.interface(ids.class_code)

    def _device(self, ids: Ids, numbers: str = "") -> str:
        """Return the names of vendor and device.

        If the vendor has no name, return "Device" and `numbers`. If only the device has no name, "Device"
        follows the vendor's name, with the device's number unless `numbers` is empty.
        """
        vendor = None if ids.vendor is None else self._pciids.vendor(ids.vendor)
        if vendor is None or ids.vendor is None:
            return f"Device {numbers}".rstrip()
        device = None if ids.device is None else self._pciids.device(ids.vendor, ids.device)
        unknown = f"Device {_digits(ids.device)}" if numbers else "Device"
        return printable(f"{vendor} {device or unknown}")


def _digits(value: int | None) -> str:
    """Return an id as four hexadecimal digits; "????" for None (unknown)."""
    return "????" if value is None else f"{value:04x}"
