"""Mask what identifies a machine or its users: the same value gets the same pseudonym everywhere in a report.

A pseudonym is a number in the order of first occurrence, in a form that pcipt still reads. It tells nothing
of the value, and the same machine gives the same pseudonyms again. KINDS has all kinds of secrets, each with
its name for `--keep`. Links, directories and files of hardware keep their names, except for UUIDs and MAC
addresses in them.

Source: PCI Express Base 6.0 §7.9.3 (Device Serial Number: often made of a MAC address), §7.9.18 (VPD); linux
        kernel/resource.c (the kernel's own place in /proc/iomem tells what KASLR hides).
"""

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial

from pcipt import values as attrs
from pcipt.hints import Any
from pcipt.pci.capabilities.walk import walk_capabilities
from pcipt.pci.config import ConfigSpace
from pcipt.pci.structures import SERIAL_NUMBER

BOOT_ID = "proc/sys/kernel/random/boot_id"
IOMEM = "proc/iomem"
CONFIG = "config"
ROUTES = {"proc/net/route": 2, "proc/net/ipv6_route": 4}  # the column of the gateway
TABLES = "sys/firmware/acpi/tables/"
# names that half of all machines have: they tell nothing, and pcipt's own words contain them
COMMON_NAMES = frozenset(
    {"", "localhost", "localhost.localdomain", "dom0", "xen", "debian", "linux", "pcipt", "(none)"}
)
_VPD = 0x03
_DSN_AT, _DSN_SIZE, _VPD_AT, _VPD_SIZE = 4, 8, 4, 4


@attrs.frozen
class Kind:
    """One kind of secret: its name for --keep, what it is, and an example of its pseudonyms."""

    name: str
    about: str
    example: str


SERIAL = Kind("serial", "serial numbers of devices (config space, log)", "00-00-00-00-00-00-00-01, serial-1")
MAC = Kind("mac", "MAC addresses, also in names of interfaces", "02:00:00:00:00:01")
BOOT = Kind("boot-id", "the id of this boot", "00000000-0000-4000-8000-000000000001")
UUID = Kind("uuid", "ids of file systems, disks and guests", "00000000-0000-4000-9000-000000000001")
HOST = Kind("host-name", "the name of this host", "host-1")
USER = Kind("user", "names of users in paths (/home, /media)", "user-1")
GATEWAY = Kind("gateway", "addresses of routers", "00000001")
KERNEL = Kind("kernel-address", "addresses of kernel code and data", "ffff000000000001, lines left out")
KINDS = (SERIAL, MAC, BOOT, UUID, HOST, USER, GATEWAY, KERNEL)

_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
# six pairs of digits or more: an EUI-64, and the serial number of a card, contain a MAC address
_MAC = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4,}(?![0-9a-f])", re.IGNORECASE
)
_INTERFACE = re.compile(r"(?<=enx)[0-9a-f]{12}(?![0-9a-f])")
_SERIAL = re.compile(
    r"(serial ?(?:number|no\.?|num)?|\bS/N)(\s*[:=]\s*\"?|\s+)(?=\S*\d)([^\s\",;]+)", re.IGNORECASE
)
_HOME = re.compile(r"(/home/|/media/)([^/\s\"]+)")
_KERNEL = re.compile(r"(?<![0-9a-f])(0x)?(?!f{16})ffff[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
_KERNEL_LINE = re.compile(r"^\s*[0-9a-f]+-[0-9a-f]+ : Kernel .*\n?", re.MULTILINE | re.IGNORECASE)


@attrs.frozen
class Masked:
    """One row of the table of what was masked: the kind, how many different values, how often, or kept."""

    kind: Kind
    values: int
    times: int
    kept: bool


class Masks:
    """The pseudonyms of one report. `host_name` is masked where it stands as a word of its own.

    `keep` has the names of the kinds that stay as they are.
    """

    def __init__(self, host_name: str = "", boot_id: str = "", keep: Collection[str] = ()) -> None:
        self._keep = frozenset(keep)
        self._boot_id = boot_id.strip().lower()
        self._numbers: dict[Kind, dict[str | bytes, int]] = {kind: {} for kind in KINDS}
        self._times = dict.fromkeys(KINDS, 0)
        self._rules = (*_RULES, *_host_rules(host_name))

    def text(self, text: str) -> str:
        """Return a text with all secrets replaced."""
        for pattern, replaced in self._rules:
            text = pattern.sub(partial(replaced, self), text)
        return text

    def name(self, path: str) -> str:
        """Return the path of a file or the text of a link: only UUIDs and MAC addresses are replaced."""
        for pattern, replaced in _RULES[:NAMES]:
            path = pattern.sub(partial(replaced, self), path)
        return path

    def json(self, value: Any) -> Any:
        """Return a JSON value with the secrets in all its texts replaced. The keys of objects stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.json(each) for key, each in value.items()}
        return [self.json(each) for each in value] if isinstance(value, list) else value

    def file(self, path: str, data: bytes) -> bytes:
        """Return the content of the file of a recording at `path` (below the root), masked."""
        if path.rpartition("/")[2] == CONFIG:
            return self._config(data)
        if path.startswith(TABLES):
            return data
        text = data.decode("utf-8", "surrogateescape")
        if path in ROUTES:
            text = "".join(self._route(line, ROUTES[path]) for line in text.splitlines(keepends=True))
        if path == IOMEM and not self._keeps(KERNEL):
            for line in _KERNEL_LINE.findall(text):
                self.number(KERNEL, line)
            text = _KERNEL_LINE.sub("", text)
        return self.text(text).encode("utf-8", "surrogateescape")

    def table(self) -> list[Masked]:
        """Return a row for each kind: those that were found, and those that were kept."""
        return [
            Masked(kind, len(self._numbers[kind]), self._times[kind], self._keeps(kind))
            for kind in KINDS
            if self._times[kind] or self._keeps(kind)
        ]

    def number(self, kind: Kind, value: str | bytes) -> int | None:
        """Return the number of a value, from 1; None if its kind is kept."""
        if self._keeps(kind):
            return None
        self._times[kind] += 1
        numbers = self._numbers[kind]
        return numbers.setdefault(value, len(numbers) + 1)

    def is_boot_id(self, text: str) -> bool:
        """Return True if a UUID is the id of this boot."""
        return text.lower() == self._boot_id

    def _keeps(self, kind: Kind) -> bool:
        return kind.name in self._keep

    def _config(self, data: bytes) -> bytes:
        """Return a config space with its serial number numbered, and the data register of VPD cleared."""
        masked = bytearray(data)
        for start, end, is_serial in _secret_bytes(data):
            value = data[start:end]
            if any(value) and (number := self.number(SERIAL, value)) is not None:
                masked[start:end] = (number if is_serial else 0).to_bytes(end - start, "little")
        return bytes(masked)

    def _route(self, line: str, column: int) -> str:
        """Return a line of a routing table with its gateway numbered, in as many digits."""
        fields = line.split()
        if len(fields) <= column or not set(fields[column]) <= set("0123456789abcdefABCDEF"):
            return line
        gateway = fields[column]
        if not gateway.strip("0") or (number := self.number(GATEWAY, gateway.lower())) is None:
            return line
        return line.replace(gateway, f"{number:0{len(gateway)}x}", 1)


def _secret_bytes(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield the spans of a config space that may hold a serial number: start, end, and True for a DSN."""
    capabilities, _ = walk_capabilities(ConfigSpace(data))
    for each in capabilities:
        if each.extended and each.id == SERIAL_NUMBER:
            yield each.offset + _DSN_AT, min(each.offset + _DSN_AT + _DSN_SIZE, len(data)), True
        elif not each.extended and each.id == _VPD:
            yield each.offset + _VPD_AT, min(each.offset + _VPD_AT + _VPD_SIZE, len(data)), False


Replace = Callable[[Masks, re.Match[str]], str]
Rule = tuple[re.Pattern[str], Replace]


def _uuid(masks: Masks, match: re.Match[str]) -> str:
    kind, group = (BOOT, 8) if masks.is_boot_id(match[0]) else (UUID, 9)
    number = masks.number(kind, match[0].lower())
    return match[0] if number is None else f"00000000-0000-4000-{group}000-{number:012x}"


def _mac(masks: Masks, match: re.Match[str]) -> str:
    value, separator = match[0].replace("-", "").replace(":", "").lower(), match[0][2]
    if not value.strip("0") or not value.strip("f"):
        return match[0]  # no address, or that of all
    number = masks.number(MAC, value)
    return match[0] if number is None else separator.join(re.findall("..", _numbered_mac(number, len(value))))


def _interface(masks: Masks, match: re.Match[str]) -> str:
    number = masks.number(MAC, match[0])
    return match[0] if number is None else _numbered_mac(number, len(match[0]))


def _numbered_mac(number: int, digits: int) -> str:
    """Return the digits of a pseudonym: a locally administered address."""
    return f"02{number:0{digits - 2}x}"


def _serial(masks: Masks, match: re.Match[str]) -> str:
    number = masks.number(SERIAL, match[3])
    return match[0] if number is None else f"{match[1]}{match[2]}serial-{number}"


def _user(masks: Masks, match: re.Match[str]) -> str:
    number = masks.number(USER, match[2])
    return match[0] if number is None else f"{match[1]}user-{number}"


def _kernel(masks: Masks, match: re.Match[str]) -> str:
    number = masks.number(KERNEL, match[0].lower().removeprefix("0x"))
    return match[0] if number is None else f"{match[1] or ''}ffff{number:012x}"


#  in this order: a UUID is no serial number; the first NAMES rules hold for names of files too
_RULES: tuple[Rule, ...] = (
    (_UUID, _uuid),
    (_MAC, _mac),
    (_INTERFACE, _interface),
    (_SERIAL, _serial),
    (_HOME, _user),
    (_KERNEL, _kernel),
)
NAMES = 3


def _host_rules(host_name: str) -> Iterator[Rule]:
    """Yield a rule for each spelling of the host's name, the longest first: with its domain, without, as in
    LVM.

    LVM doubles hyphens in names of mapped devices.
    """
    full = host_name.strip().lower()
    short = full.partition(".")[0]
    names = {full, short} - COMMON_NAMES
    spellings = {*names, *(name.replace("-", "--") for name in names)}

    def replaced(masks: Masks, match: re.Match[str]) -> str:
        number = masks.number(HOST, short)
        return match[0] if number is None else f"host-{number}"

    for name in sorted(spellings, key=len, reverse=True):
        yield re.compile(rf"(?<![0-9a-z]){re.escape(name)}(?![0-9a-z])", re.IGNORECASE), replaced
