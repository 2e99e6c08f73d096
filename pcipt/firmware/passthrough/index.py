"""What rules of passthrough ask of a whole machine, worked out once: neighbours of all kinds."""

import heapq
from collections.abc import Iterator, Mapping
from typing import TypeVar

import attrs

from pcipt.pci import BarKind, Frames, Function, HeaderType, Machine, Range, Sbdf, frames_from_range

_Key = TypeVar("_Key")

SMALLEST_BAR = 16  # bytes of memory: what is certain where the size is not known
PCIE_TO_PCI = 0x7
_ARI_PORTS = (0x4, 0x6)  # root and downstream ports
_MOST = 64  # BARs in one page that are compared with a further one: on a real machine there are a few


#  class code >> 8 of what is no bridge and yet part of the machine: interrupt controllers, IOMMUs
_OF_MACHINE = (0x0800, 0x0806)
_BRIDGES = 0x06


@attrs.frozen
class Index:
    """Keys and members are addresses; bridges are members of `devices` only.

    `pages`: whose BARs lie in the same pages. `devices`: the functions of each device. `virtual`: VFs of a
    PF. `groups`: the bridge that takes a function's requester id away; `members`: whom it does that to.
    `below`: everything behind a bridge.
    """

    pages: Mapping[Sbdf, Mapping[Sbdf, Frames]]
    devices: Mapping[tuple[int, int, int], tuple[Sbdf, ...]]
    virtual: Mapping[Sbdf, tuple[Sbdf, ...]]
    groups: Mapping[Sbdf, Sbdf]
    members: Mapping[Sbdf, tuple[Sbdf, ...]]
    below: Mapping[Sbdf, tuple[Sbdf, ...]]


def index_machine(machine: Machine) -> Index:
    devices: dict[tuple[int, int, int], list[Sbdf]] = {}
    virtual: dict[Sbdf, list[Sbdf]] = {}
    groups: dict[Sbdf, Sbdf] = {}
    members: dict[Sbdf, list[Sbdf]] = {}
    below: dict[Sbdf, list[Sbdf]] = {}
    for function in machine.functions.values():
        sbdf = function.sbdf
        if function.physfn is not None:
            virtual.setdefault(function.physfn, []).append(sbdf)
        else:
            devices.setdefault(device_of(function, machine), []).append(sbdf)
        top = _requester_bridge(machine, function)
        if top is not None and function.bridge is None:
            groups[sbdf] = top
            members.setdefault(top, []).append(sbdf)
        at = function.parent
        while at is not None and function.bridge is None:
            below.setdefault(at, []).append(sbdf)
            at = machine.functions[at].parent
    return Index(
        _shared_pages(machine), _frozen(devices), _frozen(virtual), groups, _frozen(members), _frozen(below)
    )


def _frozen(lists: Mapping[_Key, list[Sbdf]]) -> dict[_Key, tuple[Sbdf, ...]]:
    return {key: tuple(found) for key, found in lists.items()}


def device_of(function: Function, machine: Machine) -> tuple[int, int, int]:
    """Tell the device of a function; below a port that forwards ARI all of a bus are functions of device 0.

    Source: PCI Express Base 6.0 §6.13.
    """
    sbdf = function.sbdf
    above = machine.functions[function.parent].express if function.parent is not None else None
    ari = above is not None and above.port_type in _ARI_PORTS and above.ari_forwarding
    return sbdf.segment, sbdf.bus, 0 if ari else sbdf.device


def belongs_to_machine(function: Function) -> bool:
    """Tell bridges of all kinds, interrupt controllers and IOMMUs: nobody can be given these."""
    code = function.ids.class_code or 0
    return function.bridge is not None or code >> 16 == _BRIDGES or code >> 8 in _OF_MACHINE


def _requester_bridge(machine: Machine, function: Function) -> Sbdf | None:
    """Find the highest bridge above with conventional PCI below it: all behind it share its id."""
    found = None
    at = function.parent
    while at is not None:
        bridge = machine.functions[at]
        if is_conventional(bridge):
            found = at
        at = bridge.parent
    return found


def is_conventional(bridge: Function) -> bool:
    """Tell whether a bridge has conventional PCI below it; one whose capabilities are not known has not."""
    if bridge.express is not None:
        return bridge.express.port_type == PCIE_TO_PCI
    return bool(bridge.capabilities) and bridge.header in (HeaderType.BRIDGE, HeaderType.CARDBUS)


def _shared_pages(machine: Machine) -> dict[Sbdf, dict[Sbdf, Frames]]:
    found: dict[Sbdf, dict[Sbdf, Frames]] = {}
    open_ones: list[tuple[int, Sbdf]] = []  # a heap of (end, whose)
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
    for function in machine.functions.values():
        for bar in function.bars:
            off = bar.kind is BarKind.ROM and not bar.decoding
            if bar.kind is not BarKind.IO and bar.address and not off:
                span = bar.range or Range(bar.address, SMALLEST_BAR)
                yield frames_from_range(span), function.sbdf
