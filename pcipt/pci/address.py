"""Addresses of PCI functions and the one parser of every notation people use for them.

    0000:00:1a.0  00:1a.0  1a.0      [[segment:]bus:]device.function, all hexadecimal
    (0000:00:1a.0)                   as in xen-pciback.hide=
    00_1a.0  dom0:00_1a.0            Qubes; with a segment 0000_00_1a.0
    pci_0000_00_1a_0                 libvirt
    00_1c.0-00_00.0                  a PCI path, see `PciPath`
    slot filters                     as lspci's -s; see `SlotFilter`

Source: PCI Express Base 6.0 §2.2.6.2 (8-bit bus, 5-bit device, 3-bit function); Linux lets a segment
have 32 bits (VMD uses 10000 and up), Xen has 16.
"""

import re
from collections.abc import Iterable

import attrs

from pcipt.errors import AddressError

LIMITS = {"segment": 0xFFFF_FFFF, "bus": 0xFF, "device": 0x1F, "function": 0x7}
XEN_SEGMENT_LIMIT = 0xFFFF


@attrs.frozen(order=True, weakref_slot=False)
class Sbdf:
    """Segment, bus, device, function: the address of one function at one moment."""

    segment: int
    bus: int
    device: int
    function: int

    def __str__(self) -> str:
        return f"{self.segment:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"

    @property
    def devfn(self) -> int:
        return self.device << 3 | self.function

    @property
    def fits_xen(self) -> bool:
        """Whether Xen, whose segments have 16 bits, can name this function."""
        return self.segment <= XEN_SEGMENT_LIMIT


def nearest(existing: Iterable[Sbdf], meant: Sbdf) -> Sbdf | None:
    """Find the function that somebody may have meant: the fewest slips of typing, then the least distance."""
    return min(existing, key=lambda sbdf: (_slips(sbdf, meant), _distance(sbdf, meant)), default=None)


def _slips(one: Sbdf, other: Sbdf) -> int:
    """Count the digits that differ; two that changed places are one slip."""
    a, b = (f"{s.segment:08x}{s.bus:02x}{s.device:02x}{s.function:x}" for s in (one, other))
    at = slips = 0
    while at < len(a):
        slips += a[at] != b[at]
        swapped = a[at] != b[at] and a[at : at + 2] == b[at : at + 2][::-1]
        at += 2 if swapped else 1
    return slips


def _distance(one: Sbdf, other: Sbdf) -> tuple[int, ...]:
    return tuple(abs(getattr(one, name) - getattr(other, name)) for name in LIMITS)


def sbdf_from_devfn(segment: int, bus: int, devfn: int) -> Sbdf:
    return Sbdf(segment, bus, devfn >> 3 & 0x1F, devfn & 7)


@attrs.frozen(weakref_slot=False)
class PciPath:
    """Where a function sits, independent of bus numbers behind bridges (Qubes' notation).

    Shape:  `hops` holds (bus, device, function) for each step from the root bus down; the first bus is the
            root bus itself, each further one is relative to the secondary bus of the bridge before it.
    """

    segment: int
    hops: tuple[tuple[int, int, int], ...]
    _text: str | None = attrs.field(default=None, init=False, eq=False, repr=False)

    def __str__(self) -> str:
        # It names a function's place wherever one is told or held, so there is one text of it.
        if self._text is None:
            hops = "-".join(f"{bus:02x}_{device:02x}.{function:x}" for bus, device, function in self.hops)
            text = hops if self.segment == 0 else f"{self.segment:04x}_{hops}"
            object.__setattr__(self, "_text", text)
            return text
        return self._text


@attrs.frozen
class SlotFilter:
    """A set of addresses as lspci's -s names it; None is any value."""

    segment: int | None = None
    bus: int | None = None
    device: int | None = None
    function: int | None = None

    def matches(self, sbdf: Sbdf) -> bool:
        return (
            (self.segment is None or self.segment == sbdf.segment)
            and (self.bus is None or self.bus == sbdf.bus)
            and (self.device is None or self.device == sbdf.device)
            and (self.function is None or self.function == sbdf.function)
        )


Target = Sbdf | SlotFilter | PciPath

_ANY = ("", "*")
_HEX = re.compile(r"[0-9a-f]+", re.IGNORECASE | re.ASCII)
_EXPECTED = "expected [[segment:]bus:]device.function"


def parse_sbdf(text: str) -> Sbdf:
    """Read the address of exactly one function; a missing segment or bus is 0.

    Raises: AddressError naming the wrong field; also for a filter or for a path of several hops.
    """
    target = parse_target(text)
    if isinstance(target, Sbdf):
        return target
    if isinstance(target, PciPath):
        raise AddressError(text, "path", "a PCI path needs a machine to be resolved on; give the address")
    wild = next(name for name in reversed(LIMITS) if getattr(target, name) is None)
    raise AddressError(text, wild, f"{wild} is missing or any; one function is expected, as in 0000:00:1a.0")


def parse_slot(text: str) -> SlotFilter:
    """Read a slot filter: `[[[[segment]:]bus]:][device][.[function]]`, each part hex, empty or `*`.

    A part that is not given is any, so `1a.0` means that device on every bus (as lspci -s does).
    Source: lspci(8), option -s; xl's `.*` is the same grammar.
    """
    body = _bare(text)
    if "_" in body:
        target = _parse_underscored(text, body)
        if isinstance(target, PciPath):
            raise AddressError(text, "path", "a PCI path is no slot filter; give the address")
        return SlotFilter(target.segment, target.bus, target.device, target.function)
    return SlotFilter(*_slot_fields(text, body))


def parse_target(text: str) -> Target:
    """Read what a command may be pointed at: one function, a set of them, or a PCI path.

    Shape:  an `Sbdf` if device and function are given (a segment or bus that is left out is 0);
            a `SlotFilter` if a part is empty or `*` or the function is left out;
            a `PciPath` if it has several hops.
    Raises: AddressError naming the wrong field and its limit.
    """
    body = _bare(text)
    if "_" in body:
        return _parse_underscored(text, body)
    segment, bus, device, function = _slot_fields(text, body)
    colons = body.count(":")
    segment = 0 if colons < 2 else segment
    bus = 0 if colons < 1 else bus
    if segment is None or bus is None or device is None or function is None:
        return SlotFilter(segment, bus, device, function)
    return Sbdf(segment, bus, device, function)


def _bare(text: str) -> str:
    """Take off what only decorates an address: parentheses, and Qubes' name of the domain."""
    body = text
    if body.startswith("(") and body.endswith(")"):
        body = body[1:-1]
    if body[:5].lower() == "dom0:":
        body = body[5:]
    if not body:
        raise AddressError(text, "address", f"it is empty; {_EXPECTED}")
    return body


def _field(text: str, name: str, digits: str) -> int:
    if not _HEX.fullmatch(digits):
        what = f"{name} {digits[:20]!r} is not hexadecimal" if digits else f"{name} is missing"
        raise AddressError(text, name, what)
    value = int(digits, 16)
    if value > LIMITS[name]:
        raise AddressError(text, name, f"{name} {digits[:20].lower()} is above {LIMITS[name]:x}")
    return value


def _optional(text: str, name: str, digits: str) -> int | None:
    return None if digits in _ANY else _field(text, name, digits)


def _slot_fields(text: str, body: str) -> tuple[int | None, int | None, int | None, int | None]:
    *buses, devfn = body.split(":")
    if len(buses) > 2:
        raise AddressError(text, "address", f"it has too many colons; {_EXPECTED}")
    segment, bus = ["", "", *buses][-2:]
    device, _, function = devfn.partition(".")
    if "." in function:
        raise AddressError(text, "function", f"function {function[:20]!r} is followed by more than expected")
    return (
        _optional(text, "segment", segment),
        _optional(text, "bus", bus),
        _optional(text, "device", device),
        _optional(text, "function", function),
    )


def _parse_underscored(text: str, body: str) -> Sbdf | PciPath:
    prefix, _, fields = body.partition("_")
    if prefix.lower() == "pci":
        return _parse_libvirt(text, fields.split("_"))
    first, *rest = body.split("-")
    segment, hops = 0, [first, *rest]
    if first.count("_") == 2:
        digits, _, hops[0] = first.partition("_")
        segment = _field(text, "segment", digits)
    path = PciPath(segment, tuple(_hop(text, hop) for hop in hops))
    return path if rest else Sbdf(segment, *path.hops[0])


def _parse_libvirt(text: str, fields: list[str]) -> Sbdf:
    if len(fields) != len(LIMITS):
        raise AddressError(
            text, "address", "expected pci_segment_bus_device_function after libvirt's fashion"
        )
    return Sbdf(*(_field(text, name, part) for name, part in zip(LIMITS, fields, strict=True)))


def _hop(text: str, hop: str) -> tuple[int, int, int]:
    bus, underscore, devfn = hop.partition("_")
    device, dot, function = devfn.partition(".")
    if not underscore or not dot:
        raise AddressError(text, "path", f"hop {hop[:20]!r} is not bus_device.function")
    return _field(text, "bus", bus), _field(text, "device", device), _field(text, "function", function)
