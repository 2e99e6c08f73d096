"""Descriptions of functions in lspci's words, with names from pci.ids."""

import functools

from pcipt.errors import printable
from pcipt.host.pciids import PciIds, read_pciids
from pcipt.pci import Ids


class Names:
    """`numeric` ones need no pci.ids."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._pciids = PciIds() if numeric else read_pciids()
        self.row = functools.cache(self._row)

    def _row(self, ids: Ids) -> str:
        """Describe a function as `lspci -nn` does, or as `lspci -n` does."""
        return ": ".join(self.parts(ids))

    def parts(self, ids: Ids) -> tuple[str, str]:
        """Give both halves of such a description: the class, and the device."""
        revision = f" (rev {ids.revision:02x})" if ids.revision else ""
        numbers = f"{_digits(ids.vendor)}:{_digits(ids.device)}"
        code = "????" if ids.class_code is None else f"{ids.class_code >> 8:04x}"
        if self._numeric:
            return code, f"{numbers}{revision}"
        name = None if ids.class_code is None else self._pciids.class_name(ids.class_code)
        return f"{printable(name or 'Class')} [{code}]", f"{self._device(ids)} [{numbers}]{revision}"

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
