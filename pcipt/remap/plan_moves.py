"""Renumbered buses: where each function is in hardware, and how Xen is told without Linux's help. Pure.

A function that Linux still calls 02:00.0 and that does not answer there, while the secondary register of the
bridge above reads 05, is at 05:00.0. Xen is told the new address, parents first, and then rid of the old one,
children first. Guards see to it that the whole subtree has no driver and that the IOMMU covers the new bus.
Measured with Xen 4.17, PV and PVH: the function stays reachable throughout, vPCI follows at the new address.
"""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import attrs

from pcipt.pci import Function, Machine, Sbdf
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.desired import NOWHERE, Followed, place_of
from pcipt.remap.view import XenView

Moves = Mapping[Sbdf, Sbdf | None]
NO_MOVES: Moves = MappingProxyType({})
Numbers = Mapping[str, tuple[int, int]]  # secondary and subordinate of bridges, by place
NOTHING: Numbers = MappingProxyType({})
BUSES, NONE = range(0x100), range(0)


def find_moves(
    machine: Machine, numbers: Numbers = NOTHING, bridges: Collection[Sbdf] | None = None
) -> Moves:
    """Find the functions that are elsewhere in hardware than where Linux has them.

    Shape:  by Linux's address: the address in hardware, None where no bus leads there any more; parents
            first. A function that answers at Linux's address is there, whatever registers say.
            `numbers` are the last known registers of bridges that cannot be read through Linux now. `bridges`
            limits the search to what is below these.
    """
    found: dict[Sbdf, Sbdf | None] = {}
    buses = _Buses(machine, numbers, found)
    waiting = machine.children(None) if bridges is None else []
    waiting += [machine.functions[sbdf] for sbdf in bridges or () if sbdf in machine.functions]
    while waiting:
        bridge = waiting.pop()
        children = machine.children(bridge.sbdf)
        for child in children:
            if child.answers is False:
                now = _address_in(child, buses.behind(bridge))
                if now != child.sbdf:
                    found[child.sbdf] = now
        waiting += children
    return found


class _Buses:
    """Which buses hardware reaches behind a bridge: all bridges above must pass them on, and no other one."""

    def __init__(self, machine: Machine, numbers: Numbers, found: Moves) -> None:
        self._machine = machine
        self._numbers = numbers
        self._found = found
        self._behind: dict[Sbdf, range] = {}

    def behind(self, bridge: Function) -> range:
        """Give them, the bridge's secondary bus first; none where it is not reached, or not alone."""
        if bridge.sbdf not in self._behind:
            self._behind[bridge.sbdf] = self._find(bridge)
        return self._behind[bridge.sbdf]

    def _find(self, bridge: Function) -> range:
        above = self._machine.functions.get(bridge.parent) if bridge.parent is not None else None
        passed = self.behind(above) if above is not None else BUSES
        at = self._found.get(bridge.sbdf, bridge.sbdf)
        first, last = self._registers(bridge)
        if at is None or first not in passed or first <= at.bus or last < first:
            return NONE
        others = (
            self._registers(other)
            for other in self._machine.children(bridge.parent)
            if other.sbdf != bridge.sbdf and other.sbdf.segment == bridge.sbdf.segment
        )
        if any(low <= first <= high for low, high in others if low):
            return NONE
        return range(first, min(last + 1, passed.stop))

    def _registers(self, bridge: Function) -> tuple[int, int]:
        own = bridge.bridge
        if own is not None:
            return own.secondary, own.subordinate
        return self._numbers.get(place_of(bridge), (0, 0))


def plan_moves(
    machine: Machine, xen: XenView, moves: Moves, followed: Followed = NOWHERE
) -> tuple[AddDevice | RemoveDevice, ...]:
    """Plan how Xen follows: additions parents first, then removals children first.

    `followed` tells at which addresses Xen was told of a function and lists it still (`Ledger.followed`): so
    a second move and a return work as the first. Where Xen lists another function at the new address nothing
    is planned; `disagreements` says so.
    """
    additions: list[AddDevice] = []
    removals: list[RemoveDevice] = []
    taken = frozenset(moves.values())
    wanted = [linux for linux in {**moves, **followed} if linux in machine.functions]
    for linux in parents_first(machine, wanted):
        function, now, told = machine.functions[linux], moves.get(linux, linux), followed.get(linux, ())
        if now is None or (linux not in moves and not function.answers):
            continue
        if now in xen.known and is_taken(machine, linux, now, followed):
            continue
        if now not in xen.known or now in xen.orphans:
            additions.append(_follow(machine, function, now, moves))
        for old in sorted({*told, linux} - {now}):
            here = machine.functions.get(old)
            reused = old in taken or (old != linux and here is not None and here.answers)
            if old in xen.known and not reused:
                reason = f"bus renumbering moved it to {now}, but Xen still lists it here"
                removals.append(RemoveDevice(old, reason, moved_to=now))
    return (*additions, *reversed(removals))


def is_taken(machine: Machine, linux: Sbdf, now: Sbdf, followed: Followed) -> bool:
    """Whether what Xen lists at the new address of a function is another one's record."""
    if now == linux or now in followed.get(linux, ()):
        return False
    return now in machine.functions or any(now in others for others in followed.values())


def parents_first(machine: Machine, wanted: Collection[Sbdf]) -> list[Sbdf]:
    """Order bridges before what is behind them, physical functions before their virtual ones."""

    def rank(sbdf: Sbdf) -> tuple[int, bool, Sbdf]:
        function = machine.functions[sbdf]
        depth = len(function.path.hops) if function.path is not None else 0
        return depth, function.physfn is not None, sbdf

    return sorted(wanted, key=rank)


def is_extended(function: Function, machine: Machine, device: int) -> bool:
    """Whether the kernel would set EXTFN: a function above 7 behind a port that forwards ARI.

    Source: linux drivers/xen/pci.c (pci_ari_enabled and PCI_SLOT != 0); PCIe 6.0 §7.5.3.15 bit 5.
    """
    if function.physfn is not None or device == 0 or function.parent is None:
        return False
    port = machine.functions.get(function.parent)
    return port is not None and port.express is not None and bool(port.express.ari_forwarding)


def subtree(machine: Machine, top: Sbdf) -> Iterator[Function]:
    """Yield what is behind a bridge, as Linux has it."""
    waiting = machine.children(top)
    while waiting:
        at = waiting.pop()
        yield at
        waiting += machine.children(at.sbdf)


def bridges_above(machine: Machine, sbdf: Sbdf) -> Iterator[Function]:
    """Yield the bridges between a function and the root, as Linux has them, the nearest first."""
    function = machine.functions.get(sbdf)
    while function is not None and function.parent is not None:
        function = machine.functions.get(function.parent)
        if function is not None:
            yield function


def top_of_move(machine: Machine, moves: Moves, linux: Sbdf) -> Function | None:
    """Find the bridge whose register moved a function: the nearest above that has not moved itself."""
    return next((bridge for bridge in bridges_above(machine, linux) if bridge.sbdf not in moves), None)


def _address_in(child: Function, buses: range) -> Sbdf | None:
    """Tell where a function is behind a bridge leading to these buses; its path counts from the first."""
    if child.path is None:
        return child.sbdf  # nobody knows its place: nothing is concluded
    relative = child.path.hops[-1][0]
    return attrs.evolve(child.sbdf, bus=buses[relative]) if relative < len(buses) else None


def _follow(machine: Machine, function: Function, now: Sbdf, moves: Moves) -> AddDevice:
    linux = function.sbdf
    physfn = function.physfn
    if physfn is not None:
        physfn = moves.get(physfn, physfn)
    if now == linux:
        reason = "it is back at the number that Linux has for it, but Xen does not know it here"
    else:
        reason = f"bus renumbering moved it here from {linux}, but Xen does not know it here"
    extended = is_extended(function, machine, now.device)
    return AddDevice(now, reason, extended, physfn, moved_from=None if now == linux else linux)
