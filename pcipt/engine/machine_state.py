"""The machine as the engine knows it: the inventory and what is derived from it, function by function.

`gone` are places that Linux has dropped and that nothing has been concluded about yet. `moves` are functions
that renumbered buses have taken elsewhere, by Linux's address.
"""

from collections.abc import Iterable

from pcipt.pci import Function, Machine, RawFunction, Sbdf
from pcipt.pci.inventory import Inventory
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import Desired, place_of
from pcipt.remap.plan_moves import find_moves


class Picture:
    def __init__(self) -> None:
        self._inventory = Inventory()
        self._places: dict[Sbdf, str] = {}
        self._addresses: dict[str, Sbdf] = {}
        self._numbers: dict[str, tuple[int, int]] = {}
        self.bars = BarIndex()
        self.moves: dict[Sbdf, Sbdf | None] = {}
        self.departed: set[Sbdf] = set()
        self.gone: dict[str, Sbdf] = {}
        self._outside_window: dict[str, frozenset[int]] = {}

    @property
    def machine(self) -> Machine:
        return self._inventory.machine

    @property
    def raws(self) -> dict[Sbdf, RawFunction]:
        return self._inventory.raws

    def load(self, raws: Iterable[RawFunction]) -> frozenset[Sbdf]:
        """Take a reading of the whole machine; gives the functions that are different now."""
        return self._absorb(self._inventory.load(raws))

    def put(self, sbdf: Sbdf, raw: RawFunction | None) -> frozenset[Sbdf]:
        """Take a reading of one function, None where Linux does not have it; gives what is different now."""
        return self._absorb(self._inventory.put(sbdf, raw))

    def place_at(self, sbdf: Sbdf) -> str | None:
        return self._places.get(sbdf)

    def address_of(self, place: str) -> Sbdf | None:
        """Tell at which address Linux has the function of a place."""
        return self._addresses.get(place)

    def outside_window(self, place: str) -> frozenset[int]:
        """List the BARs of a place that decoded where vPCI maps none when it was planned for last."""
        return self._outside_window.get(place, frozenset())

    def concluded(self, desired: Iterable[Desired]) -> None:
        """Note that a plan was made from these."""
        self.gone.clear()
        for each in desired:
            if each.outside_window:
                self._outside_window[each.place] = each.outside_window
            else:
                self._outside_window.pop(each.place, None)

    def _absorb(self, changed: frozenset[Sbdf]) -> frozenset[Sbdf]:
        left: dict[str, Sbdf] = {}
        uncertain: set[Sbdf] = set()
        taken: set[str] = set()
        for sbdf in changed:
            function, place = self.machine.functions.get(sbdf), self._places.pop(sbdf, None)
            if place is not None:
                left[place] = sbdf
                if self._addresses.get(place) == sbdf:
                    del self._addresses[place]
            if function is None:
                self.bars.drop(sbdf)
                self.departed.add(sbdf)
                self.moves.pop(sbdf, None)
                continue
            self.departed.discard(sbdf)
            self.bars.put(function)
            now = place_of(function)
            self._places[sbdf] = now
            self._addresses[now] = sbdf
            taken.add(now)
            if place is None or function.answers is not True or sbdf in self.moves:
                uncertain.add(sbdf)
            numbers = bridge_numbers(function)
            if numbers is not None and self._numbers.get(now) != numbers:
                self._numbers[now] = numbers
                uncertain |= {sbdf, *self._above_moved()}  # which may have been in the way of others
        for place, sbdf in left.items():
            if place not in taken:
                self.gone[place] = sbdf
                self._numbers.pop(place, None)
        for place in taken:
            self.gone.pop(place, None)
        self._find_moves(uncertain)
        return changed

    def _find_moves(self, uncertain: Iterable[Sbdf]) -> None:
        """Look anew where functions are that may have moved, from the first bridge that has not."""
        tops: set[Sbdf] = set()
        for sbdf in uncertain:
            function = self.machine.functions[sbdf]
            top = sbdf if function.bridge is not None and sbdf not in self.moves else function.parent
            while top is not None and top in self.moves:
                top = self.machine.functions[top].parent
            if top is not None:
                tops.add(top)
        for top in tops:
            waiting = self.machine.children(top) if self.moves else []
            while waiting:
                at = waiting.pop()
                self.moves.pop(at.sbdf, None)
                waiting += self.machine.children(at.sbdf)
        if tops:
            self.moves.update(find_moves(self.machine, self._numbers, sorted(tops)))

    def _above_moved(self) -> set[Sbdf]:
        functions = self.machine.functions
        parents = {functions[sbdf].parent for sbdf in self.moves if sbdf in functions}
        return {sbdf for sbdf in parents if sbdf is not None and sbdf in functions}


def bridge_numbers(function: Function) -> tuple[int, int] | None:
    """Give the secondary and subordinate bus of a bridge that can be read."""
    bridge = function.bridge
    return (bridge.secondary, bridge.subordinate) if bridge is not None else None
