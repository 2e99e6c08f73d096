"""The shadow of a machine: the registers of all functions, computed from the accesses that reached them.

Pure. Functions are keyed by their place in the topology, so a renumbered bus changes the addresses behind it
and nothing else. `step` applies one access: the same state and access give the same result. An access that no
hardware can make is an error and changes nothing; a write of unknown width asks for a re-read.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import attrs

from pcipt.errors import StateError
from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.config import HEADER_SIZE, HeaderType
from pcipt.pci.write import ConfigRead, ConfigWrite, Lost
from pcipt.remap.writes import routing
from pcipt.remap.writes.changes import BusRenumbered, Change, FunctionReset, Numbers, RereadWanted, ResetKind
from pcipt.remap.writes.decoding import Mapped, numbers_of, own_bars, virtual_bars
from pcipt.remap.writes.function_shadow import FunctionShadow
from pcipt.remap.writes.learning import inferred_header, rebar_sizes, taught
from pcipt.remap.writes.overlay import overlay_of
from pcipt.remap.writes.registers import WORD, Part, is_possible, split
from pcipt.remap.writes.resets import after_reset, in_secondary_reset, starts_function_reset
from pcipt.remap.writes.tracking import Step, compare, ignored, released, settled
from pcipt.remap.writes.vpci import NOTHING, Counted, after_write, taken_for_mapped

IDS_AT = 0x00

# Header words on which no range, window or number depends: cache line size, interrupt line and the like.
_INERT: Mapping[HeaderType | None, tuple[int, ...]] = {
    HeaderType.ENDPOINT: (0x0C, 0x34, 0x3C),
    HeaderType.BRIDGE: (0x0C, 0x34),
}


@attrs.frozen
class Shadow:
    """The shadow of a machine. It never changes: `step` and `settle` return a new shadow.

    `functions` are by place. `roots` are the root buses (segment, bus). `routes` lead from (segment, bus) to
    the bridge of that bus (`build_routes`). `obeys` is False if Xen's vPCI drops writes to BARs that decode.
    `doubtful` is True once an access was lost. `waiting` are the places of functions with pending writes, the
    longest waiting first. `endpoints` are places that are known not to be bridges: their registers need not
    be looked at for routes. `counted` are by place (as text) the BARs that vPCI takes for mapped although
    hardware has lost them in a reset; it is empty if `obeys` is True.
    """

    functions: Mapping[PciPath, FunctionShadow] = attrs.field(factory=dict)
    roots: frozenset[tuple[int, int]] = frozenset({(0, 0)})
    routes: routing.Routes = attrs.field(factory=dict)
    obeys: bool = True
    doubtful: bool = False
    waiting: Mapping[PciPath, None] = attrs.field(factory=dict, eq=False)
    endpoints: AbstractSet[PciPath] = attrs.field(default=frozenset(), eq=False)
    counted: Mapping[str, Counted] = attrs.field(factory=dict)

    def place_of(self, sbdf: Sbdf) -> PciPath:
        """Return the place that answers at an address now. The shadow need not have a function there.

        A bus that no bridge passes on is taken for a root bus.
        """
        route = self.routes.get((sbdf.segment, sbdf.bus)) or routing.Route((), sbdf.bus)
        return route.to(sbdf)

    def address_of(self, place: PciPath) -> Sbdf:
        """Return the address at which a place answers now, by the secondary bus of the bridge above it.

        The shadow need not have a function at the place. If the bridge above or its secondary bus is not
        known, the secondary bus is taken for 0; `reach` returns None then. A place on a root bus keeps its
        address.
        """
        relative, device, function = place.hops[-1]
        if len(place.hops) == 1:
            return Sbdf(place.segment, relative, device, function)
        above = self.functions.get(PciPath(place.segment, place.hops[:-1]))
        secondary = (above.read(0x19, 1) if above is not None else None) or 0
        return Sbdf(place.segment, secondary + relative & 0xFF, device, function)

    def reach(self, place: PciPath) -> Sbdf | None:
        """Return the address of a place, or None if a bridge above it has a secondary bus of 0 or unknown."""
        for depth in range(1, len(place.hops)):
            above = self.functions.get(PciPath(place.segment, place.hops[:depth]))
            if above is None or not above.read(0x19, 1):
                return None
        return self.address_of(place)

    def counted_at(self, place: PciPath) -> Counted:
        """Return the BARs of a place that vPCI takes for mapped although hardware has lost them."""
        return self.counted.get(str(place), NOTHING) if self.counted else NOTHING

    def at(self, sbdf: Sbdf) -> FunctionShadow | None:
        """Return the shadow of the function that answers at this address, or None if there is none."""
        return self.functions.get(self.place_of(sbdf))

    def mapped(self) -> list[Mapped]:
        """Return the BARs, I/O BARs and ROMs included, that decode a known range by the registers.

        Sorted by address of the function, then by BAR number. BARs of virtual functions are left out
        (`virtual`).
        """
        found: list[Mapped] = []
        for place, function in self.functions.items():
            found += own_bars(function, self.address_of(place))
        return sorted(found, key=lambda entry: (entry.sbdf, entry.bar))

    def virtual(self) -> list[Mapped]:
        """Return the BARs of virtual functions that decode a known range, each virtual function by itself.

        Sorted by address of the virtual function, then by BAR number (0 to 5).
        """
        found: list[Mapped] = []
        for place, function in self.functions.items():
            found += virtual_bars(function, self.address_of(place))
        return sorted(found, key=lambda entry: (entry.sbdf, entry.bar))

    def bridges(self) -> list[tuple[Sbdf, Numbers]]:
        """Return the addresses and bus numbers of all PCI and CardBus bridges, sorted by address."""
        found = []
        for place, function in self.functions.items():
            numbers = numbers_of(function)
            if numbers is not None:
                found.append((self.address_of(place), numbers))
        return sorted(found, key=lambda entry: entry[0])


def step(state: Shadow, event: ConfigWrite | ConfigRead | Lost) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow after one access, and the changes that it made, in order.

    A `Lost` event only sets `doubtful`. A write of unknown width changes nothing and gives a `RereadWanted`;
    a read of unknown width changes nothing.
    Raises: StateError for an offset, width or value that no access can have.
    """
    if isinstance(event, Lost):
        return attrs.evolve(state, doubtful=True), ()
    if event.size is None:
        place = state.place_of(event.sbdf)
        wanted = RereadWanted(sbdf=event.sbdf, place=place, causes=(event,))
        return state, (wanted,) if isinstance(event, ConfigWrite) else ()
    if not is_possible(event.offset, event.size) or not 0 <= event.value <= WORD:
        raise StateError(f"no access of {event.size} bytes at {event.offset:#x} of {event.sbdf}")
    parts = list(split(event.offset, event.size, event.value))
    if isinstance(event, ConfigRead):
        return fold_read(state, event, parts)
    return _write(state, event, parts)


def settle(state: Shadow, *, halves: bool = True) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow after the pending writes have ended, and the changes that they made.

    Call it when no writes have arrived for a while; then read the registers back. 64-bit BARs stay pending if
    `halves` is False. Whatever `halves` is, a BAR that decodes nothing or an unknown range may stay pending.
    """
    changes: list[Change] = []
    for place in state.waiting:
        function = state.functions.get(place)
        if function is not None and function.pending:
            function, found = settled(function, state.address_of(place), halves=halves)
            changes += found
            state = with_function(state, function)
    return state, tuple(changes)


def with_routes(state: Shadow) -> Shadow:
    """Return the shadow with its routes computed again from the bridges' bus numbers."""
    return attrs.evolve(state, routes=routing.build_routes(_bridges_with_numbers(state), state.roots))


def _write(state: Shadow, write: ConfigWrite, parts: list[Part]) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow after a write, and the changes by the write. `parts` are its words (`split`)."""
    place = state.place_of(write.sbdf)
    before = state.functions.get(place) or FunctionShadow(place)
    action = Step(write.sbdf, write, parts)
    before, decided = released(before, action)
    header = inferred_header(before, write.offset, write.size or 0, write.value)
    after = before if header is before.header else attrs.evolve(before, header=header)
    if any(starts_function_reset(before, part) for part in parts):
        after, changes = _reset(before, action, ResetKind.FUNCTION)
        return with_function(_with_reset(state, before), after), (*decided, *changes)
    if not decided and after is state.functions.get(place) and all(_is_inert(after, part) for part in parts):
        return state, ()
    for part in parts:
        after = after.written(part)
    after = _resized(after)
    dropped: list[Change] = []
    if not state.obeys:
        counted = state.counted_at(place)
        after, dropped = ignored(before, after, action, counted)
        state = _with_counted(state, place, after_write(after, counted, parts))
        if (after.header, after.words, after.ones) == (before.header, before.words, before.ones):
            return with_function(state, before) if decided else state, (*decided, *dropped)
    after, changes = compare(before, after, action)
    moved, renumbered = _renumbered(state, before, after, action)
    return moved, (*decided, *dropped, *changes, *renumbered)


def _is_inert(function: FunctionShadow, part: Part) -> bool:
    """Return True if no range, window or bus number depends on this word (interrupt line, MSI mask, …).

    The result is False for a word behind the header while the function has pending writes.
    """
    if part.offset < HEADER_SIZE:
        return part.offset in _INERT.get(function.header, ())
    return not function.pending and function.written(part) is function


def fold_read(state: Shadow, read: ConfigRead, parts: list[Part]) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow after a read, and the changes: a known value that was read differently is a change.

    A value that was not known before is not a change. A read of vendor ffff removes the function and all
    functions behind it, unless it is virtual. A read of other ids than the known ones also removes them, and
    then adds a new function. A read of all ones adds no function.
    """
    place = state.place_of(read.sbdf)
    before = state.functions.get(place)
    action = Step(read.sbdf, read, parts)
    ids = next((part for part in parts if part.offset == IDS_AT), None)
    if ids is not None and ids.lanes & 0xFFFF == 0xFFFF:
        if ids.value & 0xFFFF == 0xFFFF:
            return _without(state, action) if before is not None and not before.virtual else (state, ())
        if before is not None and _is_other(before, ids):
            state, changes = _without(state, action)
            state, more = fold_read(state, read, parts)
            return state, (*changes, *more)
    if before is None:
        if all(part.value == part.lanes for part in parts):
            return state, ()  # no function answers there
        before = FunctionShadow(place)
    after, decided = released(before, action)
    for part in parts:
        after = taught(after, part)
    if after is before and place in state.functions:
        return state, ()
    after, changes_list = compare(before, after, action)
    state, renumbered = _renumbered(state, before, after, action)
    return state, (*decided, *changes_list, *renumbered)


def _is_other(function: FunctionShadow, ids: Part) -> bool:
    """Return True if these ids differ from the function's known ids: another device answers there."""
    value, known = function.words.get(IDS_AT, (0, 0))
    return bool((value ^ ids.value) & known & ids.lanes)


def _without(state: Shadow, action: Step) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow without the function of this step and all functions behind it, and the changes.

    The changes are those of a reset: what decoded does not decode any more. The shadow must have the
    function.
    """
    place = state.place_of(action.sbdf)
    changes: list[Change] = []
    functions = dict(state.functions)
    for each in [place, *_below(state, place)]:
        function = functions.pop(each)
        there = attrs.evolve(action, sbdf=state.address_of(each))
        changes += compare(function, after_reset(function), there)[1]
    return with_routes(attrs.evolve(state, functions=functions)), tuple(changes)


def _resized(function: FunctionShadow) -> FunctionShadow:
    """Return the shadow of a function with the BAR sizes that its Resizable BAR Control words set.

    `initial_sizes` keeps the sizes before the first such change.
    """
    sizes = {i: size for i, size in rebar_sizes(function).items() if function.sizes.get(i) != size}
    if not sizes:
        return function
    initial = {**{i: function.sizes[i] for i in sizes if i in function.sizes}, **function.initial_sizes}
    return attrs.evolve(function, sizes={**function.sizes, **sizes}, initial_sizes=initial)


def _reset(before: FunctionShadow, action: Step, kind: ResetKind) -> tuple[FunctionShadow, list[Change]]:
    """Return a function's shadow after a reset, and the changes: `FunctionReset`, then others."""
    reset = FunctionReset(sbdf=action.sbdf, place=before.place, causes=(action.cause,), kind=kind)
    after, changes = compare(before, after_reset(before), action)
    return after, [reset, *changes]


def _with_reset(state: Shadow, before: FunctionShadow) -> Shadow:
    """Return the shadow with what vPCI counts after a reset; `before` is the function before the reset."""
    if state.obeys:
        return state
    return _with_counted(state, before.place, taken_for_mapped(before, state.counted_at(before.place)))


def _with_counted(state: Shadow, place: PciPath, counted: Counted) -> Shadow:
    """Return the shadow with the BARs of one place that vPCI counts replaced."""
    if counted == state.counted_at(place):
        return state
    others = {other: bars for other, bars in state.counted.items() if other != str(place)}
    return attrs.evolve(state, counted={**others, str(place): counted} if counted else others)


def _renumbered(
    state: Shadow, before: FunctionShadow, after: FunctionShadow, action: Step
) -> tuple[Shadow, list[Change]]:
    """Return the machine's shadow with the bridge or function `after` in it, and the changes of its buses.

    A write that starts a secondary bus reset resets all functions behind the bridge. New bus numbers give a
    `BusRenumbered`; if a read shows them, only if all three numbers were known before.
    """
    one, other = numbers_of(before), numbers_of(after)
    result = with_function(state, after)
    resets = in_secondary_reset(after) and not in_secondary_reset(before)
    if other is None or (one == other and in_secondary_reset(before) == in_secondary_reset(after)):
        return result, []
    changes: list[Change] = []
    if resets and action.is_write:
        result, changes = _reset_below(result, after.place, action)
    result = with_routes(result)
    if not action.is_write and (one is None or one.secondary is None):
        result = _adopted(result, after)
    if one == other or not (action.is_write or (one is not None and None not in attrs.astuple(one))):
        return result, changes
    moved = []
    for place in _below(result, after.place):
        was, now = state.reach(place), result.reach(place)
        if was != now:
            moved.append((was, now))
    renumbered = BusRenumbered(
        sbdf=action.sbdf, place=after.place, causes=(action.cause,),
        before=one or Numbers(None, None, None), after=other, moved=tuple(moved),
    )  # fmt: skip
    return result, [*changes, renumbered]


def _reset_below(state: Shadow, bridge: PciPath, action: Step) -> tuple[Shadow, list[Change]]:
    """Return the shadow after a reset of all functions behind a bridge, and the changes."""
    changes: list[Change] = []
    functions = dict(state.functions)
    for place in _below(state, bridge):
        there = attrs.evolve(action, sbdf=state.address_of(place))
        state = _with_reset(state, functions[place])
        functions[place], found = _reset(functions[place], there, ResetKind.SECONDARY_BUS)
        changes += found
    return attrs.evolve(state, functions=functions), changes


def _adopted(state: Shadow, bridge: FunctionShadow) -> Shadow:
    """Return the shadow after a read has shown for the first time which buses a bridge passes on.

    Functions on these buses were taken for functions on a root bus; they get their places behind the bridge.
    """
    functions = {}
    for place, function in state.functions.items():
        bus = place.hops[0][0]
        home = place
        route = state.routes.get((place.segment, bus))
        if (
            (place.segment, bus) not in state.roots
            and route is not None
            and place.hops[0] != bridge.place.hops[0]
        ):
            home = PciPath(
                place.segment, (*route.hops, (route.relative, *place.hops[0][1:]), *place.hops[1:])
            )
        functions[home] = function if home == place else attrs.evolve(function, place=home)
    waiting = {place: None for place, function in functions.items() if function.pending}
    return with_routes(attrs.evolve(state, functions=functions, waiting=waiting))


def with_function(state: Shadow, function: FunctionShadow) -> Shadow:
    """Return the machine's shadow with the shadow of one function replaced or added, by its place.

    Routes are not computed again (`with_routes`). Most calls cost the same for any number of functions.
    """
    place, waiting = function.place, state.waiting
    if function.pending:
        waiting = {**waiting, place: None}
    elif place in waiting:
        waiting = {other: None for other in waiting if other != place}
    functions = overlay_of(state.functions).put(place, function)
    return attrs.evolve(state, functions=functions, waiting=waiting)


def _below(state: Shadow, bridge: PciPath) -> list[PciPath]:
    """Return the places of all functions behind a bridge, at any depth, in no particular order."""
    depth = len(bridge.hops)
    return [
        place
        for place in state.functions
        if place.segment == bridge.segment and len(place.hops) > depth and place.hops[:depth] == bridge.hops
    ]


def _bridges_with_numbers(state: Shadow) -> Iterator[routing.BridgeBuses]:
    """Yield the bus numbers of all bridges whose secondary and subordinate bus are known.

    A bridge that holds its secondary bus in reset is left out.
    """
    for place in state.functions:
        if place in state.endpoints:
            continue
        function = state.functions[place]
        numbers = numbers_of(function)
        if numbers is None or in_secondary_reset(function):
            continue
        if numbers.secondary is not None and numbers.subordinate is not None:
            yield routing.BridgeBuses(place, numbers.secondary, numbers.subordinate)
