"""Find the functions that bus renumbering moved, and plan how Xen follows without Linux's help. Pure.

Example: a function that Linux still has at 02:00.0 does not answer there, and the secondary bus register of
the bridge above reads 05. Then the function is at 05:00.0. Xen is first told of the new addresses, parents
first; then it is made to forget the old addresses, children first. Guards make sure that no function behind
the bridge has a driver and that the IOMMU covers the new bus. Measured with Xen 4.17, PV and PVH: the
function is reachable all the time, and vPCI handles it at the new address. Functions behind a conventional
bridge share an entry of the IOMMU, and Xen removes this entry when it removes one of them: so for them the
removals of the old addresses come before the additions.
"""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from pcipt.pci import Function, Machine, Sbdf
from pcipt.pci.requester import is_extended
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.desired import NOWHERE, Followed, place_of
from pcipt.remap.kinds.conventional import NO_BRIDGES, Bridges, behind
from pcipt.remap.kinds.virtual import physical_functions, vfs_are_on
from pcipt.remap.view import XenView

Moves = Mapping[Sbdf, Sbdf | None]
NO_MOVES: Moves = MappingProxyType({})
Numbers = Mapping[str, tuple[int, int]]  # secondary and subordinate of bridges, by place
NOTHING: Numbers = MappingProxyType({})
BUSES, NONE = range(0x100), range(0)


def find_moves(
    machine: Machine, numbers: Numbers = NOTHING, bridges: Collection[Sbdf] | None = None
) -> Moves:
    """Return the functions that hardware does not have at Linux's address, with their addresses in hardware.

    The address in hardware follows from the bus numbers of the bridges. A function is returned only if it was
    read, does not answer at Linux's address and is behind a bridge.
    `numbers` are the last known bus numbers, by place, of bridges that cannot be read at Linux's address now.
    If `bridges` is given, only functions behind these bridges are looked at, at any depth.

    Shape:  from Linux's address to the address in hardware, or to None if no bus leads to the function; a
            bridge before the functions behind it.
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
    """The buses that each bridge passes on in hardware, computed when they are first asked for.

    A bridge passes a bus on only if all bridges above it pass the bus on. It passes nothing on if another
    bridge beside it passes on its secondary bus.
    """

    def __init__(self, machine: Machine, numbers: Numbers, found: Moves) -> None:
        self._machine = machine
        self._numbers = numbers
        self._found = found
        self._behind: dict[Sbdf, range] = {}

    def behind(self, bridge: Function) -> range:
        """Return the buses behind a bridge in ascending order, its secondary bus first.

        Empty if no bus number leads to the bridge, if its bus numbers are not known, if its secondary bus is
        not above the bus that the bridge is on or is above its subordinate bus, if the bridges above do not
        pass its secondary bus on, or if another bridge below the same parent passes it on as well.
        """
        if bridge.sbdf not in self._behind:
            self._behind[bridge.sbdf] = self._find(bridge)
        return self._behind[bridge.sbdf]

    def _find(self, bridge: Function) -> range:
        """Compute what `behind` returns, from the registers."""
        above = self._machine.parent_of(bridge)
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
        """Return a bridge's secondary and subordinate bus, as read or as in `numbers`; (0, 0) if unknown."""
        own = bridge.bridge
        if own is not None:
            return own.secondary, own.subordinate
        return self._numbers.get(place_of(bridge), (0, 0))


def plan_moves(
    machine: Machine,
    xen: XenView,
    moves: Moves,
    followed: Followed = NOWHERE,
    bridges: Bridges = NO_BRIDGES,
) -> tuple[AddDevice | RemoveDevice, ...]:
    """Return the actions that make Xen's list agree with renumbered buses: additions, then removals.

    `moves` are those of `find_moves`. `followed` are the addresses at which pcipt told Xen of a renumbered
    function and Xen may still list it (`Ledger.followed`): with it a second move, and a return to Linux's
    address, work like the first move. Nothing is planned for a function to which no bus leads. Nothing is
    planned for a function in `followed` that is not in `moves` and does not answer or cannot be read. Nothing
    is planned for a function whose new address belongs to another function (`disagreements` returns a finding
    for it). Nothing is planned for a virtual function if no bus leads to its physical function: Xen must be
    told of a virtual function with the address of its physical function.

    A conventional bridge (`bridges`) that keeps its address, and that Xen does not know to lead to the bus of
    added functions, is removed and added again before them. If such a bridge is renumbered itself, the
    functions behind it that keep their addresses are removed and added, too.

    Shape:  removals of functions behind conventional bridges; such bridges, removed and added; additions
            sorted as `parents_first` does; other removals. Removals are in the opposite order.
    """
    additions: list[AddDevice] = []
    removals: list[RemoveDevice] = []
    first: list[RemoveDevice] = []
    anew: dict[Sbdf, Function] = {}
    below: list[Function] = []
    taken = frozenset(moves.values())
    wanted = [linux for linux in {**moves, **followed} if linux in machine.functions]
    physical = physical_functions(machine) if moves else frozenset()
    for linux in parents_first(machine, wanted):
        function, now, told = machine.functions[linux], moves.get(linux, linux), followed.get(linux, ())
        if now is None or (linux not in moves and not function.answers):
            continue
        if function.physfn is not None and moves.get(function.physfn, function.physfn) is None:
            continue
        if _is_another_functions(machine, xen, linux, now, followed):
            continue
        top = bridges.top(machine, linux)
        if now not in xen.known or now in xen.orphans:
            additions.append(_follow(machine, function, now, moves, physical))
            if top is not None and top.sbdf not in moves and bridges.must_be_told_anew(machine, top):
                anew[top.sbdf] = top
            if bridges.is_conventional(linux):
                below += [each for each in behind(machine, linux) if each.sbdf not in moves]
        for old in sorted({*told, linux} - {now}):
            here = machine.functions.get(old)
            reused = old in taken or (old != linux and here is not None and here.answers)
            if old in xen.known and not reused:
                reason = f"bus renumbering moved it to {now}, but Xen still lists it here"
                (removals if top is None else first).append(RemoveDevice(old, reason, moved_to=now))
    why = (
        "Xen must read its new bus numbers, because Xen finds the bridge above a conventional function by "
        "them"
    )
    again = [action for bridge in anew.values() for action in _tell_anew(machine, bridge, xen, why)]
    why = "the bridge above it was renumbered, and DMA of the function carries the address of that bridge"
    pairs = [_tell_anew(machine, function, xen, why) for function in below]
    first += [pair[0] for pair in pairs if pair]
    additions += [pair[1] for pair in pairs if pair]
    return (*reversed(first), *again, *additions, *reversed(removals))


def plan_entries(
    machine: Machine, xen: XenView, severed: Collection[Sbdf], moves: Collection[Sbdf]
) -> Iterator[AddDevice | RemoveDevice]:
    """Yield the actions that make Xen make the shared entries of conventional bridges again.

    `severed` are the bridges whose entry is gone, `moves` the renumbered functions. For each bridge, one
    function of dom0 behind it that has no driver is removed and added: with the addition Xen makes the entry
    for all. Nothing is yielded for a bridge without such a function.
    """
    why = "Xen must make the IOMMU's entry again that all functions behind its bridge share"
    for bridge in sorted(severed):
        idle = [each for each in behind(machine, bridge) if each.driver is None and each.answers]
        found = (_tell_anew(machine, each, xen, why) for each in idle if each.sbdf not in moves)
        yield from next(filter(None, found), ())


def _tell_anew(
    machine: Machine, function: Function, xen: XenView, why: str
) -> tuple[RemoveDevice, AddDevice] | tuple[()]:
    """Return the removal and the addition of a function that has not moved; () if it is missing anyway."""
    sbdf = function.sbdf
    if not xen.in_dom0(sbdf):
        return ()
    return RemoveDevice(sbdf, why, anew=True), AddDevice(
        sbdf, why, is_extended(function, machine, sbdf.device)
    )


def _is_another_functions(machine: Machine, xen: XenView, linux: Sbdf, now: Sbdf, followed: Followed) -> bool:
    """Return True if `now`, the new address of the function `linux`, is the address of another function.

    There are two such cases. Another function of Linux answers at `now`: then Linux itself tells Xen of that
    function. Or Xen lists `now`, and Linux has another function there or pcipt told Xen of another function
    there. The result is False if pcipt told Xen of this function at `now`. It is False, too, if Xen lists
    `now` and nobody knows why: the ledger that said why may be lost.
    """
    if now == linux or now in followed.get(linux, ()):
        return False
    other = machine.functions.get(now)
    if other is not None and other.answers:
        return True
    return now in xen.known and (other is not None or any(now in told for told in followed.values()))


def parents_first(machine: Machine, wanted: Collection[Sbdf]) -> list[Sbdf]:
    """Return the addresses sorted: bridges before functions behind them, physical before virtual functions.

    Among equals the order is by address. Functions without a path are first.
    Raises: KeyError if the machine does not have one of them.
    """

    def rank(sbdf: Sbdf) -> tuple[int, bool, Sbdf]:
        """Return the sort key of a function: length of its path, virtual or not, address."""
        function = machine.functions[sbdf]
        depth = len(function.path.hops) if function.path is not None else 0
        return depth, function.physfn is not None, sbdf

    return sorted(wanted, key=rank)


def subtree(machine: Machine, top: Sbdf) -> Iterator[Function]:
    """Yield all functions behind a bridge, at any depth, as Linux has them; `top` itself is not yielded.

    A bridge is yielded before the functions behind it. Nothing is yielded if the machine has no function at
    `top`.
    """
    waiting = machine.children(top)
    while waiting:
        at = waiting.pop()
        yield at
        waiting += machine.children(at.sbdf)


def bridges_above(machine: Machine, sbdf: Sbdf) -> Iterator[Function]:
    """Return the bridges between a function and the root, as Linux has them, the nearest first.

    There are none if the machine has no function at `sbdf`.
    """
    function = machine.functions.get(sbdf)
    return machine.above(function) if function is not None else iter(())


def top_of_move(machine: Machine, moves: Moves, linux: Sbdf) -> Function | None:
    """Return the bridge whose changed bus numbers moved the function that Linux has at `linux`, or None.

    That is the nearest bridge above the function that has not moved itself (is not in `moves`). None if there
    is no such bridge, or if the machine has no function at `linux`.
    """
    return next((bridge for bridge in bridges_above(machine, linux) if bridge.sbdf not in moves), None)


def _address_in(child: Function, buses: range) -> Sbdf | None:
    """Return the address of a function behind a bridge that passes `buses` on; None if it is on none of them.

    The path of the function says on which bus it is, counted from the bridge's secondary bus. A function
    without a path keeps Linux's address: nobody knows its place.
    """
    if child.path is None:
        return child.sbdf  # nobody knows its place
    relative = child.path.hops[-1][0]
    return child.sbdf._replace(bus=buses[relative]) if relative < len(buses) else None


def _follow(
    machine: Machine, function: Function, now: Sbdf, moves: Moves, physical: Collection[Sbdf]
) -> AddDevice:
    """Return the action that tells Xen of a renumbered function at its address `now`.

    If `now` is Linux's address, `moved_from` is None: the function has come back. `physfn` is the present
    address of the physical function; a bus must lead to it. `physical` are `physical_functions`.
    """
    linux = function.sbdf
    physfn = function.physfn and moves.get(function.physfn, function.physfn)
    if now == linux:
        reason = "it is back at the number that Linux has for it, but Xen does not know it here"
    else:
        reason = f"bus renumbering moved it here from {linux}, but Xen does not know it here"
    extended = is_extended(function, machine, now.device)
    on, moved_from = vfs_are_on(function, physical), None if now == linux else linux
    return AddDevice(now, reason, extended, physfn, moved_from=moved_from, vfs_on=on)
