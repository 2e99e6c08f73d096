"""A machine that is kept up to date function by function: what one reading costs does not grow with the rest.

An `Inventory` owns its `Machine`, which changes with it. Whatever was put in, in whatever order, the machine
equals `decode_machine` of the same raws. What one function can change of others is bounded: a bridge its
subtree and the findings of its segment's bridges, a physical function its virtual ones.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from pcipt.pci.address import Sbdf
from pcipt.pci.bridge import Bridge
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function, decode_function
from pcipt.pci.machine import Machine
from pcipt.pci.raw import RawFunction
from pcipt.pci.topology import (
    Position,
    bridge_numbers,
    check_buses,
    first_bus_below,
    parent_by_linux,
    place_at_root,
    place_below,
    place_functions,
)

_order = attrgetter("segment", "bus", "device", "function")
_of_function = attrgetter("sbdf.segment", "sbdf.bus", "sbdf.device", "sbdf.function")


class SortedFunctions(Mapping[Sbdf, Function]):
    """A mapping in address order that grows and shrinks in place."""

    def __init__(self) -> None:
        self._by_address: dict[Sbdf, Function] = {}
        self._order: list[Sbdf] = []

    def __getitem__(self, sbdf: Sbdf) -> Function:
        return self._by_address[sbdf]

    def __contains__(self, sbdf: object) -> bool:
        return sbdf in self._by_address

    def __iter__(self) -> Iterator[Sbdf]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._by_address)

    def put(self, function: Function) -> None:
        if function.sbdf not in self._by_address:
            bisect.insort(self._order, function.sbdf, key=_order)
        self._by_address[function.sbdf] = function

    def drop(self, sbdf: Sbdf) -> None:
        del self._by_address[sbdf]
        del self._order[bisect.bisect_left(self._order, _order(sbdf), key=_order)]


class Inventory:
    """`raws` is what was read last of each function, `machine` what that means."""

    def __init__(self, raws: Iterable[RawFunction] = ()) -> None:
        self.raws: dict[Sbdf, RawFunction] = {}
        self._positions: dict[Sbdf, Position] = {}  # those not decoded yet, and those with findings
        self._children: dict[Sbdf, list[Sbdf]] = {}  # by the bridge that Linux names, there or not
        self._virtual: dict[Sbdf, list[Sbdf]] = {}  # by the physical function that Linux names
        self._bridges: dict[int, dict[Sbdf, Bridge]] = {}  # by segment
        self._wrong: dict[Sbdf, tuple[Finding, ...]] = {}
        self._irregular: set[int] = set()  # segments whose topology must be computed as a whole
        self._functions = SortedFunctions()
        self._below: dict[Sbdf | None, list[Function]] = {}
        self.machine = Machine(self._functions, self._below)
        self.load(raws)

    def load(self, raws: Iterable[RawFunction]) -> frozenset[Sbdf]:
        """Replace everything; of several raws with one address the first counts.

        Shape:  the functions that are decoded differently now, those that left included.
        """
        wanted: dict[Sbdf, RawFunction] = {}
        for raw in raws:
            wanted.setdefault(raw.sbdf, raw)
        self._irregular.clear()
        gone = {sbdf for sbdf in self.raws if sbdf not in wanted}
        for sbdf in gone:
            self._index(sbdf, None)
        fresh = {sbdf for sbdf, raw in wanted.items() if self.raws.get(sbdf) != raw}
        for sbdf in fresh:
            self._index(sbdf, wanted[sbdf])
        changed = gone | self._adopt(place_functions(_in_order(self.raws.values())), fresh)
        for sbdf in gone:
            changed |= self._forget(sbdf)
        return frozenset(changed)

    def put(self, sbdf: Sbdf, raw: RawFunction | None) -> frozenset[Sbdf]:
        """Take what was read of one function now; None takes it out.

        Shape:  as of `load`.
        """
        before = self.raws.get(sbdf)
        if raw == before:
            return frozenset()
        moved = _topology(raw) != _topology(before)
        self._index(sbdf, raw)
        if not moved:
            return frozenset(self._decode([sbdf]))
        changed = {sbdf} if raw is None else set()
        if self._is_irregular(sbdf, raw):
            self._irregular.add(sbdf.segment)
            part = _in_order(raw for raw in self.raws.values() if raw.sbdf.segment == sbdf.segment)
            changed |= self._adopt(place_functions(part), {sbdf})
        else:
            changed |= self._replace(sbdf, before, raw)
        if raw is None:
            changed |= self._forget(sbdf)
        return frozenset(changed)

    def _is_irregular(self, sbdf: Sbdf, raw: RawFunction | None) -> bool:
        """Whether bus numbers must tell parents here, or bridges form a loop."""
        if sbdf.segment in self._irregular:
            return True
        if raw is None:
            return False
        if raw.parent is None and raw.root_bus is None:
            return True
        seen = {sbdf}
        above = parent_by_linux(raw, self.raws)
        while above is not None:
            if above in seen:
                return True
            seen.add(above)
            above = parent_by_linux(self.raws[above], self.raws)
        return False

    def _index(self, sbdf: Sbdf, raw: RawFunction | None) -> None:
        """Put a raw in, or take one out, of everything that finds functions by what was read."""
        before = self.raws.pop(sbdf, None)
        self._bridges.get(sbdf.segment, {}).pop(sbdf, None)
        if before is not None:
            _unlink(self._children, before.parent, sbdf)
            _unlink(self._virtual, before.physfn, sbdf)
        if raw is None:
            return
        self.raws[sbdf] = raw
        _link(self._children, raw.parent, sbdf)
        _link(self._virtual, raw.physfn, sbdf)
        numbers = bridge_numbers(raw)
        if numbers is not None:
            self._bridges.setdefault(sbdf.segment, {})[sbdf] = numbers

    def _adopt(self, positions: Mapping[Sbdf, Position], changed: Iterable[Sbdf]) -> set[Sbdf]:
        """Take positions that were computed as a whole; decode what they or `changed` make different."""
        touched = {sbdf for sbdf in changed if sbdf in self.raws}
        for sbdf, position in positions.items():
            if self._position(sbdf) != position:
                self._positions[sbdf] = position
                touched.add(sbdf)
            raw = self.raws[sbdf]
            looped = position.parent is None and parent_by_linux(raw, self.raws) is not None
            if looped or (raw.parent is None and raw.root_bus is None):
                self._irregular.add(sbdf.segment)
        for segment in {sbdf.segment for sbdf in positions}:
            self._recheck(segment)
        return self._decode(touched)

    def _recheck(self, segment: int) -> set[Sbdf]:
        """Judge the bus numbers of a segment's bridges anew; give those of which something else is said."""
        bridges = self._bridges.get(segment, {})
        wrong = check_buses({sbdf: bridges[sbdf] for sbdf in sorted(bridges, key=_order)})
        before = {sbdf: found for sbdf, found in self._wrong.items() if sbdf.segment == segment}
        if wrong == before:
            return set()
        for sbdf in before:
            del self._wrong[sbdf]
        self._wrong.update(wrong)
        return {sbdf for sbdf in {*wrong, *before} if wrong.get(sbdf) != before.get(sbdf)}

    def _replace(self, sbdf: Sbdf, before: RawFunction | None, raw: RawFunction | None) -> set[Sbdf]:
        """Compute the positions that one function may have changed: its own, those below, its siblings'."""
        waiting = [sbdf] if raw is not None else []
        for old in (before, raw):
            above = parent_by_linux(old, self.raws) if old is not None else None
            if above is not None and first_bus_below(self.raws[above]) is None:
                waiting += self._family(above)
        if any(old is not None and bridge_numbers(old) is not None for old in (before, raw)):
            waiting += [bridge for bridge in self._recheck(sbdf.segment) if bridge in self.raws]
        waiting += self._family(sbdf)
        touched = {sbdf} if raw is not None else set()
        while waiting:
            at = waiting.pop()
            position = self._place(at)
            held = self._position(at)
            if held == position:
                continue
            self._positions[at] = position
            touched.add(at)
            if held is None or held.path != position.path:
                waiting += self._family(at)
        return self._decode(touched)

    def _family(self, bridge: Sbdf) -> list[Sbdf]:
        """List the functions right below; a segment's buses begin anew, so those of another do not count."""
        return [sbdf for sbdf in self._children.get(bridge, ()) if sbdf.segment == bridge.segment]

    def _place(self, sbdf: Sbdf) -> Position:
        raw = self.raws[sbdf]
        parent, findings = parent_by_linux(raw, self.raws), self._wrong.get(sbdf, ())
        if parent is None:
            return place_at_root(raw, findings)
        first = first_bus_below(self.raws[parent])
        if first is None:
            first = min(child.bus for child in self._family(parent))
        above = self._position(parent)
        return place_below(sbdf, parent, above.path if above is not None else None, first, findings)

    def _position(self, sbdf: Sbdf) -> Position | None:
        held, function = self._positions.get(sbdf), self._functions.get(sbdf)
        if held is not None or function is None:
            return held
        return Position(function.parent, function.path)

    def _decode(self, touched: Iterable[Sbdf]) -> set[Sbdf]:
        """Decode these anew, and the virtual functions of those whose structure changed."""
        changed: set[Sbdf] = set()
        waiting = sorted(touched, key=lambda sbdf: self.raws[sbdf].physfn is not None)
        waiting.reverse()
        while waiting:
            sbdf = waiting.pop()
            raw = self.raws[sbdf]
            before, position = self._functions.get(sbdf), self._position(sbdf)
            function = decode_function(raw, position, self._physfn(raw))
            if position is not None and not position.findings:
                self._positions.pop(sbdf, None)  # the function tells it
            if function == before:
                continue
            changed.add(sbdf)
            self._file(before, function)
            if before is None or (before.sriov, before.physfn) != (function.sriov, function.physfn):
                waiting += [vf for vf in self._virtual.get(sbdf, ()) if vf in self._functions]
        return changed

    def _physfn(self, raw: RawFunction) -> Function | None:
        """Find the physical function of a virtual one; a function that is virtual itself is nobody's."""
        above = self.raws.get(raw.physfn) if raw.physfn is not None else None
        return self._functions.get(above.sbdf) if above is not None and above.physfn is None else None

    def _file(self, before: Function | None, function: Function) -> None:
        if before is not None:
            self._unfile(before)
        self._functions.put(function)
        bisect.insort(self._below.setdefault(function.parent, []), function, key=_of_function)

    def _unfile(self, function: Function) -> None:
        siblings = self._below[function.parent]
        del siblings[bisect.bisect_left(siblings, _of_function(function), key=_of_function)]
        if not siblings:
            del self._below[function.parent]

    def _forget(self, sbdf: Sbdf) -> set[Sbdf]:
        """Drop a function that was taken out; gives the virtual functions that this makes different."""
        self._unfile(self._functions[sbdf])
        self._functions.drop(sbdf)
        self._positions.pop(sbdf, None)
        return self._decode(vf for vf in self._virtual.get(sbdf, ()) if vf in self._functions)


def _link(index: dict[Sbdf, list[Sbdf]], key: Sbdf | None, sbdf: Sbdf) -> None:
    if key is not None:
        index.setdefault(key, []).append(sbdf)


def _unlink(index: dict[Sbdf, list[Sbdf]], key: Sbdf | None, sbdf: Sbdf) -> None:
    if key is not None:
        index[key].remove(sbdf)
        if not index[key]:
            del index[key]


def _in_order(raws: Iterable[RawFunction]) -> dict[Sbdf, RawFunction]:
    return {raw.sbdf: raw for raw in sorted(raws, key=lambda raw: _order(raw.sbdf))}


def _topology(raw: RawFunction | None) -> tuple[object, ...] | None:
    """What of a function decides where it and others sit."""
    if raw is None:
        return None
    config = raw.config or b""
    return raw.parent, raw.root_bus, raw.secondary, config[0x0E:0x0F], config[0x18:0x1B]
