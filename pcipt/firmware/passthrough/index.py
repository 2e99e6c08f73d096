"""Compute once, for a whole machine, the relations between functions that the passthrough rules need."""

import heapq
from collections.abc import Iterator, Mapping

from pcipt import values as attrs
from pcipt.hints import TypeVar
from pcipt.pci import Address, BarKind, Frames, Function, Machine, Range, Sbdf, frames_from_range

_Key = TypeVar("_Key")

SMALLEST_BAR = 16  # bytes: the size of the smallest memory BAR, used if the size is unknown
_ARI_PORTS = (0x4, 0x6)  # root and downstream ports
_MOST = 64  # limit of compared BARs per page; real machines have a few


# class code >> 8 of interrupt controllers and IOMMUs, which are part of the machine itself
_OF_MACHINE = (0x0800, 0x0806)
_BRIDGES, _DISPLAY = 0x06, 0x03  # base classes


@attrs.frozen
class Index:
    """The relations between the functions of a machine. Keys and members are addresses.

    `pages`: for each function the other functions whose BARs share a page with its BARs, each with the first
    pages that both use. `devices`: the functions of each device (see `device_of`), without virtual functions.
    `virtual`: the virtual functions of each physical function. `below`: for each bridge all functions below
    it, at any depth, without bridges.
    """

    pages: Mapping[Sbdf, Mapping[Sbdf, Frames]]
    devices: Mapping[tuple[int, int, int], tuple[Sbdf, ...]]
    virtual: Mapping[Sbdf, tuple[Sbdf, ...]]
    below: Mapping[Sbdf, tuple[Sbdf, ...]]


def index_machine(machine: Machine) -> Index:
    """Return the index of a machine. Each tuple of functions is in the machine's order, by address."""
    devices: dict[tuple[int, int, int], list[Sbdf]] = {}
    virtual: dict[Sbdf, list[Sbdf]] = {}
    below: dict[Sbdf, list[Sbdf]] = {}
    for function in machine.functions.values():
        sbdf = function.sbdf
        if function.physfn is not None:
            virtual.setdefault(function.physfn, []).append(sbdf)
        else:
            devices.setdefault(device_of(function, machine), []).append(sbdf)
        at = function.parent
        while at is not None and function.bridge is None:
            below.setdefault(at, []).append(sbdf)
            at = machine.functions[at].parent
    return Index(_shared_pages(machine), _frozen(devices), _frozen(virtual), _frozen(below))


def _frozen(lists: Mapping[_Key, list[Sbdf]]) -> dict[_Key, tuple[Sbdf, ...]]:
    """Return the mapping with a tuple in place of each list."""
    return {key: tuple(found) for key, found in lists.items()}


def device_of(function: Function, machine: Machine) -> tuple[int, int, int]:
    """Return (segment, bus, device number) of the device to which a function belongs.

    If the port directly above forwards ARI, all functions of the bus belong to device 0.
    Source: PCI Express Base 6.0 §6.13.
    Raises: KeyError if the function's parent is not in `machine`.
    """
    sbdf = function.sbdf
    above = machine.functions[function.parent].express if function.parent is not None else None
    ari = above is not None and above.port_type in _ARI_PORTS and above.ari_forwarding
    return sbdf.segment, sbdf.bus, 0 if ari else sbdf.device


def is_display(function: Function) -> bool:
    """Return True for a display controller, by its class."""
    return (function.ids.class_code or 0) >> 16 == _DISPLAY


def belongs_to_machine(function: Function) -> bool:
    """Return True if the function is a bridge of any kind, an interrupt controller or an IOMMU.

    Such a function cannot be given to a guest. If the class of the function is not known, its header decides:
    the result is True for the header of a bridge, else False.
    """
    code = function.ids.class_code or 0
    return function.bridge is not None or code >> 16 == _BRIDGES or code >> 8 in _OF_MACHINE


def _shared_pages(machine: Machine) -> dict[Sbdf, dict[Sbdf, Frames]]:
    """Return, for each function, the other functions that have a BAR in the same pages as one of its BARs.

    The value of each other function is the lowest range of pages that the two share. A BAR is compared with
    at most `_MOST` (64) BARs that come before it by address, so pairs can be missing if more BARs share a
    page. A function that shares no page is not in the result.
    """
    found: dict[Sbdf, dict[Sbdf, Frames]] = {}
    open_ones: list[tuple[int, Sbdf]] = []  # a heap of (end, function)
    for frames, sbdf in sorted(_pages(machine)):
        while open_ones and open_ones[0][0] <= frames.start:
            heapq.heappop(open_ones)
        for end, other in open_ones[:_MOST]:
            if other != sbdf:
                common = Frames(frames.start, min(end, frames.end) - frames.start)
                found.setdefault(sbdf, {}).setdefault(other, common)
                found.setdefault(other, {}).setdefault(sbdf, common)
        heapq.heappush(open_ones, (frames.end, sbdf))
    return found


def _pages(machine: Machine) -> Iterator[tuple[Frames, Sbdf]]:
    """Yield the pages of each memory BAR that has an address, with its function, in the machine's order.

    A BAR is yielded whether or not it decodes. A ROM is yielded only if it is known to decode. A BAR of
    unknown size is assumed to have `SMALLEST_BAR` (16) bytes. Pages are those of the processor, which a host
    bridge may have elsewhere than on its bus: two root buses may use the same addresses. Functions that Xen
    cannot name are left out: their BARs lie inside those of their controller (VMD).
    """
    for function in machine.functions.values():
        if not function.sbdf.fits_xen:
            continue
        for bar in function.bars:
            off = bar.kind is BarKind.ROM and not bar.decoding
            if bar.kind is not BarKind.IO and bar.address and not off:
                start = Address(bar.address + function.shift.memory)
                span = Range(start, bar.range.size if bar.range is not None else SMALLEST_BAR)
                yield frames_from_range(span), function.sbdf
