"""Define the addresses of PCI functions, and parse every notation that people use for them.

    0000:00:1a.0  00:1a.0  1a.0      [[segment:]bus:]device.function, all hexadecimal
    (0000:00:1a.0)                   as in xen-pciback.hide=
    00_1a.0  dom0:00_1a.0            Qubes; with a segment 0000_00_1a.0
    pci_0000_00_1a_0                 libvirt
    00_1c.0-00_00.0, -s filters      a PCI path: see `PciPath`; filters of lspci: see `SlotFilter`
    pci@0000:00:1a.0 and others      what other programs print: see `notation/spellings.py`
Source: PCI Express Base 6.0 §2.2.6.2 (bus 8 bits, device 5, function 3); a segment has 32 bits in Linux (VMD
        uses 10000 and up), 16 in Xen.
"""

import functools
import itertools
import re
from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.errors import AddressError
from pcipt.hints import NamedTuple

LIMITS = {"segment": 0xFFFF_FFFF, "bus": 0xFF, "device": 0x1F, "function": 0x7}
XEN_SEGMENT_LIMIT = 0xFFFF


class Sbdf(NamedTuple):
    """The address of one PCI function: segment, bus, device, function.

    Addresses compare by segment, then bus, then device, then function. The constructor does not check the
    numbers against `LIMITS`. After buses were renumbered, the same function has another address.
    """

    # A tuple, because each decision looks many addresses up: tuples are hashed and compared in C.

    segment: int
    bus: int
    device: int
    function: int

    def __str__(self) -> str:
        return "%04x:%02x:%02x.%x" % self  # noqa: UP031 - an f-string takes more than twice as long

    @property
    def devfn(self) -> int:
        """Return device and function in one byte, as PCI and Linux encode them: device << 3 | function."""
        return self.device << 3 | self.function

    @property
    def fits_xen(self) -> bool:
        """Return True if the segment has at most 16 bits, so that Xen can name this function."""
        return self.segment <= XEN_SEGMENT_LIMIT

    @property
    def cut(self) -> "Sbdf":
        """Return the address with the segment cut to 16 bits.

        Linux before 6.15 tells Xen of a function in a segment above ffff (VMD) by this address.
        Source: linux drivers/xen/pci.c, xen_add_device; 5ccf1b8ae76d.
        """
        return self if self.fits_xen else self._replace(segment=self.segment & XEN_SEGMENT_LIMIT)


def functions_of_bus(segment: int, bus: int) -> Iterator[Sbdf]:
    """Yield all 256 addresses of a bus in ascending order."""
    # Hundreds of thousands are asked about on a large machine: no Python code runs for each.
    numbers = itertools.product((segment,), (bus,), range(32), range(8))
    return map(functools.partial(tuple.__new__, Sbdf), numbers)


def sbdf_from_devfn(segment: int, bus: int, devfn: int) -> Sbdf:
    """Return the `Sbdf` for a bus and a byte `devfn` that holds device << 3 | function."""
    return Sbdf(segment, bus, devfn >> 3 & 0x1F, devfn & 7)


@attrs.frozen(weakref_slot=False)
class PciPath:
    """The path of a function from its root bus down. A path stays the same if buses behind bridges are
    renumbered.

    The text form is Qubes' notation, for example 00_1c.0-00_00.0. A segment other than 0 is written in front.

    Shape:  `hops` holds one (bus, device, function) for each bridge from the root bus down, and a last one
            for the function itself. The first bus is the number of the root bus. Each further bus is the
            difference between the bus number and the secondary bus of the bridge in the hop before, so it is
            usually 0.
    """

    segment: int
    hops: tuple[tuple[int, int, int], ...]
    _text: str | None = attrs.field(default=None, init=False, eq=False, repr=False)

    def __str__(self) -> str:
        # The text is needed often (logs, ledger, JSON), so it is built once and kept.
        if self._text is None:
            hops = "-".join(f"{bus:02x}_{device:02x}.{function:x}" for bus, device, function in self.hops)
            text = hops if self.segment == 0 else f"{self.segment:04x}_{hops}"
            object.__setattr__(self, "_text", text)
            return text
        return self._text


@attrs.frozen
class SlotFilter:
    """A filter for addresses, as the option -s of lspci takes it. A field that is None matches every
    value.
    """

    segment: int | None = None
    bus: int | None = None
    device: int | None = None
    function: int | None = None

    def matches(self, sbdf: Sbdf) -> bool:
        """Return True if every field that is not None equals the same field of `sbdf`."""
        return (
            (self.segment is None or self.segment == sbdf.segment)
            and (self.bus is None or self.bus == sbdf.bus)
            and (self.device is None or self.device == sbdf.device)
            and (self.function is None or self.function == sbdf.function)
        )


Target = Sbdf | SlotFilter | PciPath

_ANY_VALUE = ("", "*")
# What no other program spells otherwise: digits and the separators of addresses.
PLAIN = re.compile(r"[0-9a-f:.*_]*[0-9a-f.*_]|[0-9a-f:*_]*", re.IGNORECASE | re.ASCII)
_HEX = re.compile(r"[0-9a-f]+", re.IGNORECASE | re.ASCII)
_EXPECTED = "expected [[segment:]bus:]device.function"


def parse_sbdf(text: str) -> Sbdf:
    """Return the address of the one function that `text` names.

    A segment or a bus that is left out together with its colon is 0. In Qubes' notation, a segment that is
    left out is 0.
    Raises: AddressError if `text` is no address (the error names the wrong field); if `text` is a filter (a
            part is empty or `*`, or the function is left out); if `text` is a PCI path of several hops (field
            "path").
    """
    target = parse_target(text)
    if isinstance(target, Sbdf):
        return target
    if isinstance(target, PciPath):
        raise AddressError(
            text, "path", ("this is a PCI path, and only an address can be used here; give the address")
        )
    wild = next(name for name in reversed(LIMITS) if getattr(target, name) is None)
    raise AddressError(
        text, wild, (f"{wild} is missing or *; the address of one function is expected, as in 0000:00:1a.0")
    )


def parse_slot(text: str) -> SlotFilter:
    """Return the filter for the text `[[[[segment]:]bus]:][device][.[function]]`. Each part is hexadecimal,
    empty or `*`.

    A part that is empty, `*` or left out matches every value, so `1a.0` matches that device on every bus. An
    address in the notation of Qubes or libvirt gives a filter that matches one function.
    Raises: AddressError if a field is wrong (the error names the field), if `text` is empty, or if it is a
            PCI path of several hops.
    Source: lspci(8), option -s; xl's `.*` is the same grammar.
    """
    body = _without_decoration(text)
    if "_" in body:
        target = _parse_underscored(text, body)
        if isinstance(target, PciPath):
            raise AddressError(
                text, "path", ("this is a PCI path, and only an address can be used here; give the address")
            )
        return SlotFilter(target.segment, target.bus, target.device, target.function)
    return SlotFilter(*_slot_fields(text, body))


def parse_target(text: str) -> Target:
    """Return the address, the filter or the PCI path that `text` means. A user gives such texts to commands.

    In an address, a segment or a bus that is left out together with its colon is 0. In a set of addresses it
    matches every value, as in `parse_slot`: a set means the same to each command.

    Shape:  an `Sbdf` if device and function are given; a `SlotFilter` if a part is empty or `*`, or if the
            function is left out; a `PciPath` if the text has several hops.
    Raises: AddressError if a field is wrong (the error names the field and, if the field is too large, its
            limit), or if `text` is empty.
    """
    body = _without_decoration(text)
    if "_" in body:
        return _parse_underscored(text, body)
    segment, bus, device, function = fields = _slot_fields(text, body)
    colons = body.count(":")
    segment = 0 if colons < 2 else segment
    bus = 0 if colons < 1 else bus
    if segment is None or bus is None or device is None or function is None:
        return SlotFilter(*fields)
    return Sbdf(segment, bus, device, function)


def parse_path(text: str) -> PciPath:
    """Return the PCI path that `text` is: one hop (a function on a root bus) or several.

    Raises: AddressError if it is no PCI path.
    """
    body = _without_decoration(text)
    if "_" not in body or body[:4].lower() == "pci_":
        raise AddressError(text, "path", "expected a PCI path, as in 00_1c.0-00_00.0")
    target = _parse_underscored(text, body)
    return target if isinstance(target, PciPath) else PciPath(target.segment, (target[1:],))


def names_functions_of_one_device(text: str) -> bool:
    """Return True if `text` is a set of addresses that ends in `.*`: all functions of one device, as xl takes
    it. The text must be one that `parse_target` takes.
    """
    target = parse_target(text)
    return (
        isinstance(target, SlotFilter)
        and target.bus is not None
        and target.device is not None
        and _without_decoration(text).endswith(".*")
    )


def _without_decoration(text: str) -> str:
    """Return the address inside `text`, in pcipt's notation (see `plain_address`): without enclosing
    parentheses and without Qubes' prefix `dom0:`.

    Raises: AddressError if nothing is left.
    """
    body = text
    if not PLAIN.fullmatch(text):
        from pcipt.pci.notation.spellings import plain_address  # its patterns take long to compile

        body = plain_address(text)
    if body.startswith("(") and body.endswith(")"):
        body = body[1:-1]
    if body[:5].lower() == "dom0:":
        body = body[5:]
    if not body:
        raise AddressError(text, "address", f"it is empty; {_EXPECTED}")
    return body


def _field(text: str, name: str, digits: str) -> int:
    """Return the value of the field `name` (a key of `LIMITS`) from its hexadecimal `digits`.

    Raises: AddressError, with the whole address `text`, if `digits` is empty, not hexadecimal or above the
            limit.
    """
    if not _HEX.fullmatch(digits):
        what = f"{name} {digits[:20]!r} is not hexadecimal" if digits else f"{name} is missing"
        raise AddressError(text, name, what)
    value = int(digits, 16)
    if value > LIMITS[name]:
        raise AddressError(text, name, f"{name} {digits[:20].lower()} is above {LIMITS[name]:x}")
    return value


def _optional(text: str, name: str, digits: str) -> int | None:
    """Return the value of one hexadecimal field (a key of `LIMITS`), or None if `digits` is empty or `*`.

    Raises: AddressError, with the whole address `text`, if `digits` is not hexadecimal or above the limit.
    """
    return None if digits in _ANY_VALUE else _field(text, name, digits)


def _slot_fields(text: str, body: str) -> tuple[int | None, int | None, int | None, int | None]:
    """Split `body` at its colons and dot, and return segment, bus, device and function. None means any value.

    Raises: AddressError about the whole address `text` if a field is wrong or if there are too many fields.
    """
    *buses, devfn = body.split(":")
    if len(buses) > 2:
        raise AddressError(text, "address", f"it has too many colons; {_EXPECTED}")
    segment, bus = ["", "", *buses][-2:]
    device, _, function = devfn.partition(".")
    if "." in function:
        raise AddressError(text, "function", f"there is more text after function {function[:20]!r}")
    return (
        _optional(text, "segment", segment),
        _optional(text, "bus", bus),
        _optional(text, "device", device),
        _optional(text, "function", function),
    )


def _parse_underscored(text: str, body: str) -> Sbdf | PciPath:
    """Return the address that `body` means, or the PCI path if `body` has several hops. `body` is in the
    notation of Qubes or libvirt (the notations with underscores).

    Raises: AddressError about the whole address `text` if `body` is neither.
    """
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
    """Return the address from the four fields of libvirt's pci_segment_bus_device_function.

    Raises: AddressError about the whole address `text` if there are not four fields or if a field is wrong.
    """
    if len(fields) != len(LIMITS):
        raise AddressError(text, "address", "expected pci_segment_bus_device_function, as libvirt writes it")
    return Sbdf(*(_field(text, name, part) for name, part in zip(LIMITS, fields, strict=True)))


def _hop(text: str, hop: str) -> tuple[int, int, int]:
    """Return (bus, device, function) of one hop `bus_device.function` of Qubes' notation.

    Raises: AddressError about the whole address `text` if `hop` does not have this form or if a field is
            wrong.
    """
    bus, underscore, devfn = hop.partition("_")
    device, dot, function = devfn.partition(".")
    if not underscore or not dot:
        raise AddressError(text, "path", f"hop {hop[:20]!r} is not bus_device.function")
    return _field(text, "bus", bus), _field(text, "device", device), _field(text, "function", function)
