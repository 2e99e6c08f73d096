"""What the lines of the kernel's log tell of PCI functions that it found: where their BARs were. Pure.

For each function that it finds, Linux prints a line with its ids and header type, then a line for each BAR.
When it gives an address to a BAR, it prints a line with the address, and one when it enables the function for
a driver, if that changes the Command register. It prints nothing when the function leaves. Before Linux 6.8 a
BAR is named by its register or number: "reg 0x10: [mem …]", "BAR 0: assigned [mem …]". Later it is named by
its name: "BAR 0 [mem …]", "BAR 0 [mem …]: assigned". ROMs are left out: they decode only while somebody reads
them. No line tells where the BARs of a virtual function are.
Source: linux drivers/pci/probe.c (pci_setup_device, __pci_read_base), drivers/pci/setup-res.c
        (pci_assign_resource, pci_reassign_resource, pci_enable_resources), lib/vsprintf.c (resource_string).
"""

import functools
import re
from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.pci.units import Address, Range

_REGISTERS = range(0x10, 0x28, 4)  # of BAR 0 to 5
_FOUND = re.compile(r"\[[0-9a-f]{4}:[0-9a-f]{4}\] type [0-9a-f]{2}\b")
_SPAN = r"\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\b"
_ENABLED = re.compile(r"enabling device \([0-9a-f]{4} -> ([0-9a-f]{4})\)")
_BAR = re.compile(rf"(?:reg 0x([0-9a-f]+): |BAR ([0-5])(?:: (?:re)?assigned)? ){_SPAN}")


@attrs.frozen
class LogLine:
    """One line of the kernel's log about one PCI function.

    `number` is the kernel's number of the line: the numbers of a boot count all lines from 0. `text` is what
    follows the function's address.
    """

    number: int
    sbdf: Sbdf
    text: str


@attrs.frozen(slots=False)
class LogReading:
    """Lines of the kernel's log about PCI functions, and how far the log was read.

    `first` is the number of the oldest line of any kind that this reading had, None if it had none. `last` is
    that of the newest line of this or an earlier reading, None if the log cannot be read. `uevents` is the
    number of the kernel's last message about any device, None if it cannot be read.
    """

    lines: tuple[LogLine, ...] = ()
    first: int | None = None
    last: int | None = None
    uevents: int | None = None

    @functools.cached_property
    def arrivals(self) -> Mapping[Sbdf, list["Arrival"]]:
        """The arrivals that the lines tell of, by address; see `arrivals_from`."""
        return arrivals_from(self.lines)


@attrs.frozen
class Arrival:
    """A function that the kernel found: once for each time that it came to this address.

    `last` is the number of the last line about it. `bars` are the (BAR number, range) at which its memory
    BARs were. `enabled` is True if Linux told that it switched memory decode on for a driver.
    """

    sbdf: Sbdf
    last: int
    bars: frozenset[tuple[int, Range]] = frozenset()
    enabled: bool = False


def arrivals_from(lines: Iterable[LogLine]) -> dict[Sbdf, list[Arrival]]:
    """Return the arrivals at each address, in the order in which the functions came.

    If the oldest lines about a function are not in the log any more, what is left counts as one arrival.
    """
    found: dict[Sbdf, list[Arrival]] = {}
    for line in lines:
        here = found.setdefault(line.sbdf, [])
        if not here or _FOUND.match(line.text):
            here.append(Arrival(line.sbdf, line.number))
        before, told = here[-1], _ENABLED.match(line.text)
        enabled = before.enabled or (told is not None and bool(int(told[1], 16) & COMMAND_MEMORY))
        here[-1] = Arrival(line.sbdf, line.number, before.bars | _bars_in(line.text), enabled)
    return found


def _bars_in(text: str) -> frozenset[tuple[int, Range]]:
    """Return the memory BAR that a line tells of, with its range; empty if none has an address there."""
    told = _BAR.match(text)
    if told is None:
        return frozenset()
    register, number, *span = told.groups()
    start, last = (int(each, 16) for each in span)
    if register is not None and int(register, 16) not in _REGISTERS:
        return frozenset()  # the ROM, or a VF BAR of an older kernel
    if not 0 < start <= last:
        return frozenset()  # a BAR without an address reads as one from 0 on
    index = int(number) if number is not None else _REGISTERS.index(int(register, 16))
    return frozenset({(index, Range(Address(start), last + 1 - start))})
