"""Build the DSDT of a guest: its processors and, if functions are passed through, one PCI root bridge.

The windows of the root bridge cover exactly the BARs of the passed-through functions. Each kind of window is
computed separately; windows of one kind that touch or overlap are joined. So a BAR that the guest's kernel
moves stays inside the addresses that the hypervisor has mapped. The functions appear on bus 0 of segment 0,
because a virtual PCI bus has them there.
"""

from collections.abc import Iterable, Sequence

from pcipt import values as attrs
from pcipt.errors import UnsupportedError
from pcipt.firmware.acpi import aml
from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.pci import Address, Bar, BarKind, Function, Range

IO_LIMIT = 1 << 16
MAX_PROCESSORS = 1 << 12  # names C000 to CFFF


@attrs.frozen
class Windows:
    """The addresses that a root bridge forwards.

    Shape:  each field is sorted by address; its ranges neither overlap nor touch each other.
    Units:  `io` counts I/O ports, the other two count byte addresses.
    """

    io: tuple[Range, ...] = ()
    memory: tuple[Range, ...] = ()
    prefetchable: tuple[Range, ...] = ()


def windows_for(functions: Iterable[Function]) -> Windows:
    """Return the windows that cover all BARs of `functions`, whether or not a BAR decodes.

    A ROM is a BAR here. A ROM without an address is left out. A memory BAR is in `prefetchable` if it is
    prefetchable, else in `memory`.
    Raises: UnsupportedError for a BAR that is not left out, if its size is unknown, it has no address, or it
            is an I/O BAR that ends above port FFFF.
    """
    io: list[Range] = []
    memory: list[Range] = []
    prefetchable: list[Range] = []
    for function in functions:
        for bar in function.bars:
            if bar.kind is BarKind.ROM and not bar.address:
                continue
            span = _needed(function, bar)
            (io if bar.kind is BarKind.IO else prefetchable if bar.prefetchable else memory).append(span)
    return Windows(join_ranges(io), join_ranges(memory), join_ranges(prefetchable))


def _needed(function: Function, bar: Bar) -> Range:
    """Return the addresses of one BAR.

    Raises: UnsupportedError if its size is unknown, its address is 0, or its ports end above FFFF.
    """
    title = f"{function.sbdf} {'ROM' if bar.kind is BarKind.ROM else f'BAR {bar.index}'}"
    if bar.range is None:
        raise UnsupportedError(title, "its size is unknown; read the machine itself, not a dump")
    if not bar.address:
        raise UnsupportedError(title, "it has no address yet; let Linux assign one (rescan the bus)")
    if bar.kind is BarKind.IO and bar.range.last >= IO_LIMIT:
        raise UnsupportedError(title, f"its ports {bar.range} are above ffff")
    return bar.range


def join_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Return the ranges sorted by address; ranges that touch or overlap are joined into one."""
    found: list[Range] = []
    for span in sorted(ranges):
        if found and span.start <= found[-1].last + 1:
            end = max(span.last, found[-1].last) + 1
            found[-1] = Range(found[-1].start, end - found[-1].start)
        else:
            found.append(Range(Address(span.start), span.size))
    return tuple(found)


def build_dsdt(header: Header, vcpus: int, windows: Windows | None = None) -> bytes:
    """Return the bytes of a DSDT with `vcpus` processors, whose UIDs are 0, 1, 2, …

    `windows` are those of the root bridge for bus 0; None means that the DSDT has no root bridge.
    Raises: ValueError if `vcpus` is above MAX_PROCESSORS (4096), or if a window is too large for every
            descriptor (see `aml.io_window`).
    """
    processors = (
        aml.device(
            f"C{number:03X}",
            aml.name("_HID", aml.string("ACPI0007")),
            aml.name("_UID", aml.integer(number)),
        )
        for number in range(vcpus)
    )
    bridge = _root_bridge(windows) if windows is not None else b""
    return build_table(header, aml.scope("_SB", *processors, bridge))


def _root_bridge(windows: Windows) -> bytes:
    """Return the AML of the root bridge PCI0 for bus 0 of segment 0."""
    descriptors = [aml.bus_window(0, 0)]
    descriptors += [aml.io_window(span.start, span.last) for span in windows.io]
    descriptors += [aml.memory_window(span.start, span.last, prefetchable=False) for span in windows.memory]
    descriptors += [
        aml.memory_window(span.start, span.last, prefetchable=True) for span in windows.prefetchable
    ]
    return aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_SEG", aml.integer(0)),
        aml.name("_BBN", aml.integer(0)),
        aml.name("_CRS", aml.resources(*descriptors)),
    )
