"""Keep a decoded machine up to date, one function at a time. Usually the cost of one change does not grow
with the machine.

The cost grows with the segment if a bridge changes, or if the places in the segment must be computed all
together (an irregular segment: Linux does not name the bridges, or they form a loop). It grows with the
machine if a host bridge is found to translate addresses, or no longer.

After any sequence of changes, the machine equals `decode_machine` of the same raw functions. A change of one
function can also change others: a bridge changes the functions below it, and the findings that the bridges of
its segment have about their bus numbers; a physical function changes its virtual functions.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import TypeVar, overload

from pcipt.pci.address import Sbdf
from pcipt.pci.bridge import Bridge
from pcipt.pci.buses.numbers import check_buses
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function, decode_function
from pcipt.pci.machine import Machine, differences_of, raws_by_address
from pcipt.pci.raw import RawFunction
from pcipt.pci.space.translation import Translations, root_of
from pcipt.pci.topology import (
    Position,
    bridge_numbers,
    first_bus_below,
    parent_by_linux,
    place_at_root,
    place_below,
    place_functions,
)

_address_of = attrgetter("sbdf")
T = TypeVar("T")


class SortedFunctions(Mapping[Sbdf, Function]):
    """A mapping from address to function that can be changed in place. Iteration yields the addresses sorted
    by segment, bus, device, function.
    """

    def __init__(self) -> None:
        self._by_address: dict[Sbdf, Function] = {}
        self._order: list[Sbdf] = []

    def __getitem__(self, sbdf: Sbdf) -> Function:
        return self._by_address[sbdf]

    @overload
    def get(self, key: Sbdf, /) -> Function | None: ...
    @overload
    def get(self, key: Sbdf, /, default: Function | T) -> Function | T: ...
    def get(self, key: Sbdf, /, default: Function | T | None = None) -> Function | T | None:
        """Return the function at an address, or `default` if there is none."""
        return self._by_address.get(key, default)

    def __contains__(self, sbdf: object) -> bool:
        return sbdf in self._by_address

    def __iter__(self) -> Iterator[Sbdf]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._by_address)

    def put(self, function: Function) -> None:
        """Add a function, or replace the function with the same address."""
        if function.sbdf not in self._by_address:
            bisect.insort(self._order, function.sbdf)
        self._by_address[function.sbdf] = function

    def drop(self, sbdf: Sbdf) -> None:
        """Remove the function at `sbdf`. Raises: KeyError if there is none."""
        del self._by_address[sbdf]
        del self._order[bisect.bisect_left(self._order, sbdf)]


class Inventory:
    """A machine that can be updated one function at a time.

    `raws` holds the latest reading of each function. `machine` holds the decoded functions. `machine` is
    always the same object; `load` and `put` change its content. The content equals `decode_machine` of the
    values of `raws`.
    """

    def __init__(self, raws: Iterable[RawFunction] = ()) -> None:
        self.raws: dict[Sbdf, RawFunction] = {}
        self._positions: dict[Sbdf, Position] = {}  # of functions not decoded yet, and of those with findings
        self._children: dict[Sbdf, list[Sbdf]] = {}  # by the bridge that Linux names, even if it is missing
        self._virtual: dict[Sbdf, list[Sbdf]] = {}  # by the physical function that Linux names
        self._bridges: dict[int, dict[Sbdf, Bridge]] = {}  # by segment
        self._bus_findings: dict[Sbdf, tuple[Finding, ...]] = {}
        self._irregular: set[int] = set()  # segments whose positions must be computed all together
        self._translations = Translations()
        self._functions = SortedFunctions()
        self._below: dict[Sbdf | None, list[Function]] = {}
        self.machine = Machine(self._functions, self._below)
        self.load(raws)

    def load(self, raws: Iterable[RawFunction]) -> frozenset[Sbdf]:
        """Replace all functions by `raws`. If several raws have the same address, the first is used and gets
        the finding `address-repeated`.

        Shape:  the addresses of all functions that were added, removed, or are decoded differently than
                before; empty if nothing changed.
        """
        wanted = raws_by_address(raws)
        self._irregular.clear()
        gone = {sbdf for sbdf in self.raws if sbdf not in wanted}
        for sbdf in gone:
            self._index(sbdf, None)
        fresh = {sbdf for sbdf, raw in wanted.items() if self.raws.get(sbdf) != raw}
        for sbdf in fresh:
            self._index(sbdf, wanted[sbdf])
        changed = gone | self._set_positions(place_functions(_in_order(self.raws.values())), fresh)
        for sbdf in gone:
            changed |= self._remove(sbdf)
        return frozenset(changed)

    def put(self, sbdf: Sbdf, raw: RawFunction | None) -> frozenset[Sbdf]:
        """Replace the reading of the function `sbdf` by `raw`, or add it. Remove the function if `raw` is
        None.

        Removing a function that is not there changes nothing. The address in `raw` must be `sbdf`.

        Shape:  the addresses of all functions, this one and others, that were added, removed, or are decoded
                differently than before. A new reading that is decoded as before gives an empty set.
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
            changed |= self._set_positions(place_functions(part), {sbdf})
        else:
            changed |= self._replace(sbdf, before, raw)
        if raw is None:
            changed |= self._remove(sbdf)
        return frozenset(changed)

    def _is_irregular(self, sbdf: Sbdf, raw: RawFunction | None) -> bool:
        """Return True if the positions of the whole segment must be computed together.

        Return True if the segment was irregular before; a segment stays irregular until `load`. Return True
        if Linux names neither a parent nor a root bus for `raw`, because bus numbers then decide. Return True
        if the bridges above `raw` form a loop. Otherwise return False.
        """
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
        """Remove `sbdf` from `raws` and from the indexes (children, virtual functions, bridges), then add
        `raw` to them.

        If `raw` is None, nothing is added. `machine` is not changed.
        """
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

    def _set_positions(self, positions: Mapping[Sbdf, Position], changed: Iterable[Sbdf]) -> set[Sbdf]:
        """Store `positions`, which were computed for whole segments. Decode the functions with a new
        position, and the functions of `changed` that are in `raws`.

        Mark irregular segments, and check the bus numbers of the segments again. Return the addresses of the
        functions that are decoded differently than before.
        """
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
        """Check the bus numbers of a segment's bridges again, and store the findings. Return the bridges
        whose findings changed; a bridge that was removed can be among them.
        """
        bridges = self._bridges.get(segment, {})
        wrong = check_buses({sbdf: bridges[sbdf] for sbdf in sorted(bridges)})
        before = {sbdf: found for sbdf, found in self._bus_findings.items() if sbdf.segment == segment}
        if wrong == before:
            return set()
        for sbdf in before:
            del self._bus_findings[sbdf]
        self._bus_findings.update(wrong)
        return {sbdf for sbdf in {*wrong, *before} if wrong.get(sbdf) != before.get(sbdf)}

    def _replace(self, sbdf: Sbdf, before: RawFunction | None, raw: RawFunction | None) -> set[Sbdf]:
        """Compute positions again after the change of one function. Decode this function (unless it is
        removed), and the functions whose position changed.

        Positions can change for the function itself, for the functions below it, for its siblings, and for
        bridges with new findings. `before` is None if the function is new. `raw` is None if the function is
        removed. Return the addresses of the functions that are decoded differently than before.
        """
        waiting = [sbdf] if raw is not None else []
        for old in (before, raw):
            above = parent_by_linux(old, self.raws) if old is not None else None
            if above is not None and first_bus_below(self.raws[above]) is None:
                waiting += self._children_of(above)
        if any(old is not None and bridge_numbers(old) is not None for old in (before, raw)):
            waiting += [bridge for bridge in self._recheck(sbdf.segment) if bridge in self.raws]
        waiting += self._children_of(sbdf)
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
                waiting += self._children_of(at)
        return self._decode(touched)

    def _children_of(self, bridge: Sbdf) -> list[Sbdf]:
        """Return the functions in the segment of `bridge` for which Linux names `bridge` as the parent, in no
        particular order.

        Linux can place another segment below a bridge (VMD). The buses of that segment are numbered
        separately, so its functions are left out.
        """
        return [sbdf for sbdf in self._children.get(bridge, ()) if sbdf.segment == bridge.segment]

    def _place(self, sbdf: Sbdf) -> Position:
        """Return the position of one function, computed from the readings, from the stored findings about bus
        numbers, and from the stored position of its parent.
        """
        raw = self.raws[sbdf]
        parent, findings = parent_by_linux(raw, self.raws), self._bus_findings.get(sbdf, ())
        if parent is None:
            return place_at_root(raw, findings)
        first = first_bus_below(self.raws[parent])
        if first is None:
            first = min(child.bus for child in self._children_of(parent))
        above = self._position(parent)
        return place_below(sbdf, parent, above.path if above is not None else None, first, findings)

    def _position(self, sbdf: Sbdf) -> Position | None:
        """Return the stored position of a function, or None if it has none yet."""
        held, function = self._positions.get(sbdf), self._functions.get(sbdf)
        if held is not None or function is None:
            return held
        return Position(function.parent, function.path)

    def _decode(self, touched: Iterable[Sbdf]) -> set[Sbdf]:
        """Decode the functions `touched` and put them into the machine. All must be in `raws`.

        If that changes what is known of the host bridge's translation, all functions below it are decoded
        again. If a function is new, or its SR-IOV structure or `physfn` changed, its virtual functions are
        decoded too. Return the addresses of the functions that are decoded differently than before.
        """
        changed: set[Sbdf] = set()
        self._decode_each(touched, changed)
        while moved := self._translations.settle():
            below = (each for each in self._functions.values() if root_of(each.path) in moved)
            self._decode_each([function.sbdf for function in below], changed)
        return changed

    def _decode_each(self, touched: Iterable[Sbdf], changed: set[Sbdf]) -> None:
        """Decode the functions `touched`, and virtual functions that depend on them, once. Add those that are
        decoded differently than before to `changed`.
        """
        waiting = sorted(touched, key=lambda sbdf: self.raws[sbdf].physfn is not None)
        waiting.reverse()
        while waiting:
            sbdf = waiting.pop()
            raw = self.raws[sbdf]
            before, position = self._functions.get(sbdf), self._position(sbdf)
            root = root_of(position.path if position is not None else None)
            function = decode_function(raw, position, self._physfn(raw), self._translations.shift_of(root))
            self._translations.put(sbdf, root, differences_of(function, raw))
            if position is not None and not position.findings:
                self._positions.pop(sbdf, None)  # the function holds parent and path
            if function == before:
                continue
            changed.add(sbdf)
            self._store(before, function)
            if before is None or (before.sriov, before.physfn) != (function.sriov, function.physfn):
                waiting += [vf for vf in self._virtual.get(sbdf, ()) if vf in self._functions]

    def _physfn(self, raw: RawFunction) -> Function | None:
        """Return the decoded physical function of a virtual function. Return None if `raw` is not virtual, if
        the physical function is missing, or if it is itself marked as virtual.
        """
        above = self.raws.get(raw.physfn) if raw.physfn is not None else None
        return self._functions.get(above.sbdf) if above is not None and above.physfn is None else None

    def _store(self, before: Function | None, function: Function) -> None:
        """Put `function` into the machine and into the list of its siblings, in place of `before` (None if it
        is new).
        """
        if before is not None:
            self._unstore(before)
        self._functions.put(function)
        bisect.insort(self._below.setdefault(function.parent, []), function, key=_address_of)

    def _unstore(self, function: Function) -> None:
        """Remove `function` from the list of its siblings."""
        siblings = self._below[function.parent]
        del siblings[bisect.bisect_left(siblings, function.sbdf, key=_address_of)]
        if not siblings:
            del self._below[function.parent]

    def _remove(self, sbdf: Sbdf) -> set[Sbdf]:
        """Remove a function from the machine, and decode its virtual functions again. Return the addresses of
        the virtual functions that are decoded differently than before.
        """
        self._unstore(self._functions[sbdf])
        self._functions.drop(sbdf)
        self._positions.pop(sbdf, None)
        self._translations.put(sbdf, None, ())
        return self._decode(vf for vf in self._virtual.get(sbdf, ()) if vf in self._functions)


def _link(index: dict[Sbdf, list[Sbdf]], key: Sbdf | None, sbdf: Sbdf) -> None:
    """Add `sbdf` to the list under `key`. Do nothing if `key` is None."""
    if key is not None:
        index.setdefault(key, []).append(sbdf)


def _unlink(index: dict[Sbdf, list[Sbdf]], key: Sbdf | None, sbdf: Sbdf) -> None:
    """Remove `sbdf` from the list under `key`. Do nothing if `key` is None."""
    if key is not None:
        index[key].remove(sbdf)
        if not index[key]:
            del index[key]


def _in_order(raws: Iterable[RawFunction]) -> dict[Sbdf, RawFunction]:
    """Return the readings by address, in the order segment, bus, device, function."""
    return {raw.sbdf: raw for raw in sorted(raws, key=_address_of)}


def _topology(raw: RawFunction | None) -> tuple[object, ...] | None:
    """Return the values of a reading from which places are computed, the place of its own function and those
    of others. Return None if `raw` is None.

    If two readings of a function give equal values, no place changes.
    """
    if raw is None:
        return None
    config = raw.config or b""
    return raw.parent, raw.root_bus, raw.secondary, config[0x0E:0x0F], config[0x18:0x1B], raw.told
