"""Find the address inside the spellings of other programs.

    pci@0000:01:00.0                            lshw
    pci-pt-01_00.0                              the device's id in QEMU under Xen, and in Qubes
    pci-0000:01:00.0-nvme-1                     udev's ID_PATH
    PCI:1:0:0, PCI:1@0:0:0                      Xorg's BusID: decimal; bus@domain
    PCI bus 1, device 0, function 0             Windows: decimal
    0x0000:0x01:0x00.0x0, {01:00.0}, "01:00.0"  fields with 0x; in brackets or quotes
    domain='0x0000' bus='0x01' slot='0x00' …    libvirt's XML: hexadecimal with 0x, octal with 0, or decimal
    <domain>0</domain><bus>1</bus><slot>0…      libvirt's node devices, in the same numbers
    0/0000:01:00.0                              xapi's other-config:pci
    01:00.0@5,permissive=1                      xl's pci=, with slot and options; Proxmox' hostpci
    host=01:00.0, hostaddr=…, bdf=…, pci=[…]    options of QEMU and xl; PCI_SLOT_NAME= of uevent
    /sys/bus/pci/devices/0000:01:00.0/driver    paths: the last function in it; /proc/bus/pci/01/00.0
    00:1c.0/00.0, 00:1c.0/01:00.0               lspci -P (a PCI path) and -PP
    01_00.0:0x8086:0x10d3::p020000              Qubes, with the ids of the device
    0000:01:00.0:                               with the colon that follows it in a log
Source: xl-pci-configuration(5); xorg.conf(5), BusID; libvirt docs/formatdomain, "Device addresses"; lspci(8),
        options -P and -PP; libxl tools/libs/light/libxl_pci.c (PCI_PT_QDEV_ID).
"""

import re
from collections.abc import Callable

from pcipt.pci.address import PLAIN

_FLAGS = re.ASCII | re.IGNORECASE
_ONE = r"[0-9a-f]{1,2}:[0-9a-f]{1,2}\.[0-7]"  # bus:device.function
_FULL = rf"[0-9a-f]{{4,8}}:{_ONE}"

_BRACKETS = ("()", "{}", "[]", "<>", '""', "''", "``")
_LIMIT = 4000  # characters; more is no address in any spelling

_PREFIXED = re.compile(
    rf"pci[-@: ](?:pt-)?(?P<plain>(?:[0-9a-f]{{4,8}}[:_])?{_ONE}|[0-9a-f_]+\.[0-7])", _FLAGS
)
_UDEV = re.compile(rf"pci-(?P<plain>{_FULL})-[\w.:-]+", _FLAGS)
_XORG = re.compile(
    r"\s*(?:(?:Option\s+)?\"?BusID\"?\s+)?\"?PCI:(?P<bus>\d{1,5})(?:@(?P<domain>\d{1,10}))?:(?P<slot>\d{1,5}):(?P<function>\d{1,5})\"?\s*",
    _FLAGS,
)
_WINDOWS = re.compile(
    r"(?:PCI Slot \d+ \()?PCI bus (?P<bus>\d+), device (?P<slot>\d+), function (?P<function>\d+)\)?", _FLAGS
)
_LOGGED = re.compile(r"(?P<plain>.*\.[0-7])[:;,]", re.DOTALL)
_QUBES = re.compile(r"(?P<plain>(?:dom0:)?[0-9a-f_.-]+):(?:0x[0-9a-f]{4}|\*).*", _FLAGS)
_LIST = re.compile(r"pci ?= ?(?P<plain>\[.*\])", _FLAGS)
_KEYED = re.compile(
    r"(?:[\w-]+,)?(?:host|hostaddr|bdf|pci|slot|PCI_SLOT_NAME) ?= ?(?P<plain>[^,=]+)(?:,.*)?", _FLAGS
)
_OPTIONS = re.compile(r"(?P<plain>[^,@=]+)(?:@[0-9a-f]{1,2})?(?: *, *[a-z_][\w-]*(?:=[^,]*)?)*", _FLAGS)
_PREFIX_0X = re.compile(r"\b0x(?=[0-9a-f])", _FLAGS)
_WITH_0X = re.compile(r"[0-9a-fx:._*]+", _FLAGS)
_ATTRIBUTE = re.compile(r"\b(domain|bus|slot|function)\s*=\s*['\"]?(0x[0-9a-f]+|\d+)\b", _FLAGS)
_ELEMENT = re.compile(r"<(domain|bus|slot|function)[^>]{0,40}>\s*(0x[0-9a-f]+|\d+)\s*</\1>", _FLAGS)
_SOURCE = re.compile(r"<source\b.*?</source>", re.DOTALL)
_PROC = re.compile(
    r"/proc/bus/pci/(?P<bus>(?:[0-9a-f]{4,8}:)?[0-9a-f]{2})/(?P<devfn>[0-9a-f]{2}\.[0-7])", _FLAGS
)
_IS_FULL, _IS_ONE = re.compile(_FULL, _FLAGS), re.compile(rf"(?:[0-9a-f]{{4,8}}:)?{_ONE}", _FLAGS)
_IS_DEVFN = re.compile(r"[0-9a-f]{1,2}\.[0-7]", _FLAGS)


def plain_address(text: str) -> str:
    """Return the address inside `text` as `[[segment:]bus:]device.function`, or as a set of addresses or a
    PCI path in pcipt's notation. If no spelling of the module fits, return `text` unchanged.

    The result is not checked: a field may be too large.
    """
    if PLAIN.fullmatch(text) or len(text) > _LIMIT:
        return text
    for read in _SPELLINGS:
        found = read(text)
        if found is not None:
            return found if found == text else plain_address(found)
    return text


def _matched(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    """Return a reader that returns the group `plain` where the whole text fits `pattern`; None where not."""

    def read(text: str) -> str | None:
        found = pattern.fullmatch(text)
        return found["plain"] if found is not None and found["plain"] != text else None

    return read


def _decimal(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    """Return a reader for a text of decimal numbers that fits `pattern` as a whole."""

    def read(text: str) -> str | None:
        found = pattern.fullmatch(text)
        return (
            _joined({name: int(number) for name, number in found.groupdict("0").items()}) if found else None
        )

    return read


def _joined(fields: dict[str, int]) -> str:
    """Return the plain address of numbers by libvirt's names of the fields; a domain left out is 0."""
    return "{:04x}:{:02x}:{:02x}.{:x}".format(
        fields.get("domain", 0), fields["bus"], fields["slot"], fields["function"]
    )


def _xml(text: str) -> str | None:
    """Return the address in libvirt's attributes or elements, or None if bus, slot or function is missing.

    Of a whole <hostdev>, the address in its <source> is the host's; the other is the guest's.
    """
    within = found[0] if (found := _SOURCE.search(text)) is not None else text
    for pattern in (_ATTRIBUTE, _ELEMENT):
        fields: dict[str, int] = {}
        for name, digits in pattern.findall(within):
            base = 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10
            try:
                fields.setdefault(name.lower(), int(digits, base))
            except ValueError:  # 08: not octal
                return None
        if {"bus", "slot", "function"} <= fields.keys():
            return _joined(fields)
    return None


def _path(text: str) -> str | None:
    """Return the last function that a path names, or the PCI path of lspci -P; None if there is none."""
    parts = [part for part in text.split("/") if part]
    if "/" not in text or "," in text or not parts:
        return None
    if (found := _PROC.match(text)) is not None:
        return f"{found['bus']}:{found['devfn']}"
    if (named := [part for part in parts if _IS_FULL.fullmatch(part)]) and text[0] == "/":
        return named[-1]
    if _IS_ONE.fullmatch(parts[-1]):
        return parts[-1]
    if _IS_ONE.fullmatch(parts[0]) and all(_IS_DEVFN.fullmatch(part) for part in parts[1:]):
        first = parts[0].replace(":", "_")
        return "-".join([first, *(f"00_{part}" for part in parts[1:])])
    return None


def _unwrapped(text: str) -> str | None:
    """Return the text without one pair of brackets or quotes around it and the spaces inside; None if it has
    none.
    """
    if len(text) > 2 and text[0] + text[-1] in _BRACKETS:
        inner = text[1:-1]
        if text[0] not in inner and text[-1] not in inner:
            return inner.strip()
    return None


def _without_0x(text: str) -> str | None:
    """Return an address without the 0x of its fields; None if it has none."""
    return _PREFIX_0X.sub("", text) if _WITH_0X.fullmatch(text) and _PREFIX_0X.search(text) else None


#  The first that fits is taken, and what it leaves is looked at again.
_SPELLINGS: tuple[Callable[[str], str | None], ...] = (
    _unwrapped,
    _decimal(_XORG),
    _decimal(_WINDOWS),
    _matched(_UDEV),
    _matched(_PREFIXED),
    _without_0x,
    _xml,
    _path,
    _matched(_LOGGED),
    _matched(_QUBES),
    _matched(_LIST),
    _matched(_KEYED),
    _matched(_OPTIONS),
)
