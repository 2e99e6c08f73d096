"""Read the reserved regions that Xen's command line adds: rmrr= for VT-d, ivmd= for AMD-Vi. Pure.

Page numbers and addresses are hexadecimal there. Xen keeps what it has read before a fault, and passes over
the rest of that option; of a region of rmrr= whose functions it cannot read, the functions before the fault
stay for the region of the next option.
Source: Xen drivers/passthrough/vtd/dmar.c (parse_rmrr_param), amd/iommu_acpi.c (parse_ivmd_param),
        drivers/pci/pci.c (parse_pci_seg), common/kernel.c (parse_params: longer words are cut); all of it is
        the same in 4.17 to 4.22.
"""

import re
from collections.abc import Sized

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.xen.command_line import words_in

MOST_RMRR, MOST_PAGES, MOST_FUNCTIONS, MOST_IVMD = 10, 16, 20, 8
_LONGEST = 127  # bytes of a word
_HEX = re.compile(r"(?:0x)?([0-9a-f]+)", re.IGNORECASE | re.ASCII)
_PLACE = re.compile(
    r"([0-9a-f]+):([0-9a-f]+)(?::([0-9a-f]+))?\.(0x[0-9a-f]+|[0-9]+)", re.IGNORECASE | re.ASCII
)
_64 = (1 << 64) - 1


@attrs.frozen
class AddedRegions:
    """What the options say. Pages are numbers of 4 KiB pages, both inclusive.

    `rmrr`: (first page, last page, functions). `ivmd`: (first page, last page, first routing id, last routing
    id); the last id is None for one function, both are None for all functions. `faults`: one sentence for
    each option that Xen does not read to its end, or of which it passes something over.
    """

    rmrr: tuple[tuple[int, int, tuple[Sbdf, ...]], ...] = ()
    ivmd: tuple[tuple[int, int, int | None, int | None], ...] = ()
    faults: tuple[str, ...] = ()


def parse_added_regions(line: str) -> AddedRegions:
    """Return the regions that a command line of Xen adds, in the order in which Xen has them."""
    rmrr, ivmd = _Rmrr(), _Ivmd()
    readers: dict[str, _Rmrr | _Ivmd] = {"rmrr": rmrr, "ivmd": ivmd}
    faults: list[str] = []
    for word in words_in(line):
        key, equals, value = word[:_LONGEST].partition("=")
        reader = readers.get(key)
        if reader is None or not equals:
            continue
        try:
            reader.read(value)
        except _FaultError as fault:
            faults.append(f"{key}={value}: {fault}: Xen reads no further")
        faults += (f"{key}={value}: {each}" for each in reader.passed_over)
        reader.passed_over.clear()
        if len(word) > _LONGEST:
            faults.append(f"{key}=: Xen cuts the option after {_LONGEST} bytes; give it in several options")
    return AddedRegions(tuple(rmrr.found), tuple(ivmd.found), tuple(faults))


class _FaultError(Exception):
    """Xen reads an option no further."""


class _Text:
    """An option's value, and how far it was read."""

    def __init__(self, value: str) -> None:
        self._value, self._at = value, 0

    def taken(self, sign: str) -> bool:
        """Go past a sign if it is next; return whether it was."""
        found = self._value[self._at : self._at + 1] == sign
        self._at += found
        return found

    def page(self) -> int:
        match = _HEX.match(self._value, self._at)
        if match is None:
            raise _FaultError(f"{self._rest} is no page number")
        self._at = match.end()
        return int(match[1], 16) & _64

    def place(self) -> tuple[Sbdf, bool]:
        """Return an address, and whether it has a segment."""
        match = _PLACE.match(self._value, self._at)
        if match is None:
            raise _FaultError(f"{self._rest} is no address of a function")
        segment, bus, device = (int(each, 16) for each in match.groups("0")[:3])
        if match[3] is None:
            segment, bus, device = 0, segment, bus
        digits = match[4]
        octal = digits.startswith("0") and digits != "0" and not digits.lower().startswith("0x")
        try:
            function = int(digits, 8 if octal else 0)
        except ValueError:
            function = 8
        if segment > 0xFFFF or bus > 0xFF or device > 0x1F or function > 7:
            raise _FaultError(f"{match[0]} is no address of a function")
        self._at = match.end()
        return Sbdf(segment, bus, device, function), match[3] is not None

    def pages(self) -> tuple[int, int]:
        """Read the first and the last page of a region; the last one may be left out."""
        first = self.page()
        return first, self.page() if self.taken("-") else first

    def end(self) -> None:
        if self._at < len(self._value):
            raise _FaultError(f"{self._rest} is not understood")

    @property
    def _rest(self) -> str:
        return repr(self._value[self._at :])


class _Rmrr:
    """Reads each rmrr= in turn. `passed_over` has what it leaves out without a fault."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int, tuple[Sbdf, ...]]] = []
        self.passed_over: list[str] = []
        self._functions: list[Sbdf] = []

    def read(self, value: str) -> None:
        text = _Text(value)
        while True:
            _room(self.found, MOST_RMRR)
            first, last = text.pages()
            if (last - first) & _64 >= MOST_PAGES:
                raise _FaultError(f"{_pages(first, last)} are not 1 to {MOST_PAGES} pages")
            if text.taken("="):
                self._place(text)
                while len(self._functions) < MOST_FUNCTIONS and text.taken(","):
                    self._place(text)
                self.found.append((first, last, tuple(self._functions)))
                self._functions = []
            else:
                self.passed_over.append(f"{_pages(first, last)} names no function: Xen ignores it")
            if not text.taken(";"):
                return text.end()

    def _place(self, text: _Text) -> None:
        function, has_segment = text.place()
        if self._functions and not has_segment:
            function = function._replace(segment=self._functions[0].segment)
        self._functions.append(function)


class _Ivmd:
    """Reads each ivmd= in turn."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int | None, int | None]] = []
        self.passed_over: list[str] = []

    def read(self, value: str) -> None:
        text = _Text(value)
        while True:
            _room(self.found, MOST_IVMD)
            first, last = text.pages()
            if last < first:
                raise _FaultError(f"{_pages(first, last)} end before they begin")
            if text.taken("="):
                self._functions(text, first, last)
                while text.taken(","):
                    _room(self.found, MOST_IVMD)
                    self._functions(text, first, last)
            else:
                self.found.append((first, last, None, None))
            if not text.taken(";"):
                return text.end()

    def _functions(self, text: _Text, first: int, last: int) -> None:
        begin = _routing(text)
        until = _routing(text) if text.taken("-") else None
        if until is not None and until < begin:
            raise _FaultError(f"the ids {begin:#06x} to {until:#06x} end before they begin")
        self.found.append((first, last, begin, until))


def _routing(text: _Text) -> int:
    function, _ = text.place()
    if function.segment:
        raise _FaultError(f"{function} is not in segment 0")
    return function.bus << 8 | function.devfn


def _room(found: Sized, most: int) -> None:
    if len(found) >= most:
        raise _FaultError(f"there are more than {most} regions")


def _pages(first: int, last: int) -> str:
    return f"the pages {first:#x}-{last:#x}"
