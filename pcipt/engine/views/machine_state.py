"""All PCI functions, as pcipt read them last. A reading of one function updates this function alone.

When Linux drops a function, its address in Xen is added to `memory.removed` and its place to
`memory.vacated`.
"""

from collections.abc import Callable, Collection, Iterable

from pcipt.engine.memory import Memory
from pcipt.engine.views.altered import believed
from pcipt.engine.views.policy.kept import Kept
from pcipt.pci import Function, PciPath, RawFunction, Sbdf
from pcipt.pci.inventory import Inventory
from pcipt.remap.actions import AddDevice
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import place_of
from pcipt.remap.kinds.conventional import Bridges, is_conventional_bridge
from pcipt.remap.kinds.domains import Domain, controller_of, domains
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.plan_moves import bridges_above, find_moves, subtree
from pcipt.remap.plan_reserved import Locations
from pcipt.xen.complaints import drop_words


class MachineState:
    """The functions of the machine, their places, BARs and renumberings.

    `bars` is an index of the BARs of all functions. `renumbered` maps Linux's address of each function
    whose buses were renumbered to the address at which the function answers now, or to None if no bus number
    leads to the function. `machine` changes in place. `kept` is the policy: which functions are for guests.
    `below` are the ports that the settings police (hotplug.below), `guarded` those in the list of
    xen-pciback when it was read last, None if it was not loaded.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._inventory = Inventory()
        self.machine = self._inventory.machine
        self._places: dict[Sbdf, str] = {}
        self._addresses: dict[str, Sbdf] = {}
        self.bars = BarIndex()
        self.renumbered: dict[Sbdf, Sbdf | None] = {}
        self.kept = Kept()
        self.below: tuple[PciPath, ...] = ()
        self.guarded: frozenset[Sbdf] | None = frozenset()

    @property
    def raws(self) -> dict[Sbdf, RawFunction]:
        """Return the last reading of each function, before decoding."""
        return self._inventory.raws

    def load(self, raws: Iterable[RawFunction]) -> frozenset[Sbdf]:
        """Replace all functions by a reading of the machine; return the functions that are different now."""
        return self._absorb(self._inventory.load(map(self._believed, raws)))

    def put(self, sbdf: Sbdf, raw: RawFunction | None) -> frozenset[Sbdf]:
        """Replace one function; `raw` is None if Linux does not have it any more.

        Return the functions that are different now: this one, and others that depend on it.
        """
        before = self._memory.altered.get(sbdf)
        changed = self._inventory.put(sbdf, raw and self._believed(raw))
        now = self._memory.altered.get(sbdf)
        return self._absorb(changed | {sbdf} if raw is not None and now != before else changed)

    def place_at(self, sbdf: Sbdf) -> str | None:
        """Return the place of the function that Linux has at an address, None if it has none there."""
        return self._places.get(sbdf)

    def address_of(self, place: str) -> Sbdf | None:
        """Return the address at which Linux has the function of a place, None if it has none."""
        return self._addresses.get(place)

    def home_of(self, sbdf: Sbdf) -> Sbdf | None:
        """Return Linux's present address of the function that was at `sbdf` at boot (`Locations.home`)."""
        boot = self._memory.boot
        path = boot.path_of(sbdf) if boot is not None else None
        linux = self.address_of(str(path)) if path is not None else sbdf
        if linux is not None:
            return linux
        return None if sbdf in self.machine.functions else sbdf

    @property
    def where(self) -> Locations:
        """Where the devices of reserved regions are now."""
        return Locations(self.home_of, self.renumbered, self._memory.ledger.followed())

    @property
    def bridges(self) -> Bridges:
        """What is known of conventional bridges."""
        return Bridges(self._conventional, self._told_numbers)

    def _conventional(self) -> frozenset[Sbdf]:
        """Return Linux's addresses of the bridges in `memory.conventional`."""
        return self._addresses_of(self._memory.conventional)

    @property
    def severed(self) -> frozenset[Sbdf]:
        """Linux's addresses of the bridges in `Ledger.severed`."""
        return self._addresses_of(self._memory.ledger.severed)

    def _addresses_of(self, places: Collection[str]) -> frozenset[Sbdf]:
        """Return Linux's addresses of the functions at these places; places without one are left out."""
        found = map(self._addresses.get, places)
        return frozenset(sbdf for sbdf in found if sbdf is not None)

    def _told_numbers(self, bridge: Sbdf) -> tuple[int, int] | None:
        """Return the bus numbers that a bridge had at boot, if Xen was told of the bridge then; else None."""
        added = self._memory.ledger.find(AddDevice.word, bridge) is not None
        return None if added or self._memory.boot is None else self._memory.boot.bridges.get(bridge)

    def is_stale(self, run: MappedRun) -> bool:
        """Return True if a mapped run is STALE, or if Linux has no function at its place any more."""
        return run.state is State.STALE or self.address_of(run.place) is None

    def answered(self, sbdf: Sbdf) -> Function | None:
        """Return the function at Linux's address `sbdf`, with the registers of the last reading in which the
        function answered; None if it has not answered yet.
        """
        function = self.machine.functions.get(sbdf)
        if function is not None and function.answers:
            return function
        return self._memory.answered.get(self._places.get(sbdf, ""))

    def relatives(self, functions: Iterable[Sbdf]) -> set[Sbdf]:
        """Return, for each function, the bridges above it, all functions behind it, its PF and its VFs.

        For a renumbered function, all renumbered functions behind the bridges above it are returned, too:
        while a driver is bound to one of them, the others must not be added to Xen.
        """
        found: set[Sbdf] = set()
        for sbdf in functions:
            above = [bridge.sbdf for bridge in bridges_above(self.machine, sbdf)]
            found |= {*above, *(each.sbdf for each in subtree(self.machine, sbdf))}
            for bridge in above if sbdf in self.renumbered else ():
                found |= {each.sbdf for each in subtree(self.machine, bridge)} & self.renumbered.keys()
            found.update(self.bars.virtual(sbdf))
            function = self.machine.functions.get(sbdf)
            if function is not None and function.physfn is not None:
                found.add(function.physfn)
        return found

    def read(
        self, functions: Iterable[Sbdf], read_function: Callable[[Sbdf], RawFunction | None]
    ) -> frozenset[Sbdf]:
        """Read functions again; return the functions that changed, and the functions that depend on them.

        If the windows or bus numbers of a bridge have changed, all functions behind it are returned, whether
        or not they are different. If its bus numbers have changed, they are also read again. If a function in
        a segment that Xen cannot name has changed, its controller is returned, too.
        """
        changed: set[Sbdf] = set()
        waiting = list(functions)
        seen = set(waiting)
        while waiting:
            sbdf = waiting.pop()
            before = self.machine.functions.get(sbdf)
            above = self.controllers(sbdf)
            different = self.put(sbdf, read_function(sbdf))
            changed |= different
            if different and not sbdf.fits_xen:
                changed |= above | self.controllers(sbdf)  # its findings depend on this function
            after = self.machine.functions.get(sbdf)
            if before is None or after is None or before.bridge == after.bridge:
                continue
            below = {function.sbdf for function in subtree(self.machine, sbdf)}
            changed |= below  # the windows decide whether anything decodes there
            if bridge_numbers(before) != bridge_numbers(after):
                waiting += below - seen  # where they answer has changed
                seen |= below
        return frozenset(changed)

    def domains(self) -> list[Domain]:
        """Return the segments that Xen cannot name, with their controllers (VMD)."""
        return domains(self.machine, self.bars)

    def cut_addresses(self) -> dict[Sbdf, Sbdf]:
        """Return the functions in segments that Xen cannot name, by their address with the segment cut."""
        return {sbdf.cut: sbdf for domain in self.domains() for sbdf in domain.functions}

    def controllers(self, sbdf: Sbdf) -> set[Sbdf]:
        """Return the controller of a function's segment; empty if Xen can name it, or if it is unknown."""
        found = None if sbdf.fits_xen else controller_of(sbdf.segment, self.machine, self.bars)
        return set() if found is None else {found}

    def _believed(self, raw: RawFunction) -> RawFunction:
        """Return a reading as it may be believed; at the address of a renumbered function others answer."""
        if raw.sbdf in self.renumbered:
            self._memory.altered.pop(raw.sbdf, None)
            return raw
        return believed(raw, self.raws.get(raw.sbdf), self._memory, self._places.get(raw.sbdf))

    def _absorb(self, changed: frozenset[Sbdf]) -> frozenset[Sbdf]:
        """Update places, BARs, renumberings and memory for functions that changed; return them."""
        memory = self._memory
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
                self._drop(sbdf, place)
                continue
            memory.removed.discard(sbdf.cut)
            before = self.bars.put(function)
            now = place_of(function)
            self._places[sbdf] = now
            self._addresses[now] = sbdf
            taken.add(now)
            if place is None or function.answers is not True or sbdf in self.renumbered:
                uncertain.add(sbdf)
            self._note_kind(function, now, before if place == now else None)
            numbers = bridge_numbers(function)
            if numbers is not None and memory.bridge_numbers.get(now) != numbers:
                memory.bridge_numbers[now] = numbers
                uncertain |= {sbdf, *self._above_renumbered()}  # may have been in the way of other functions
        for place, sbdf in left.items():
            if place not in taken:
                memory.vacated[place] = sbdf
                memory.bridge_numbers.pop(place, None)
                memory.conventional.discard(place)
                memory.ledger.severed.discard(place)
                memory.given_up.discard(place)
                memory.complaints.pop(sbdf, None)
                memory.faults.pop(sbdf, None)
                memory.answered.pop(place, None)
        for place in taken:
            memory.vacated.pop(place, None)
        self._find_renumbered(uncertain)
        return changed

    def _drop(self, sbdf: Sbdf, place: str | None) -> None:
        """Update BARs, renumberings and memory for a function that Linux has dropped from a place."""
        former = self.bars.drop(sbdf)
        if former is not None and place is not None:
            self._memory.note_former(place, former)
        self._memory.removed.add(sbdf.cut)
        self._memory.unserved.discard(sbdf)
        self._memory.untyped.discard(sbdf)
        drop_words(self._memory.ledger.complaints, sbdf)
        self._memory.forget_shape(sbdf)
        self.renumbered.pop(sbdf, None)

    def _note_kind(self, function: Function, place: str, before: Function | None) -> None:
        """Update `memory.answered` and `memory.conventional` for a function.

        `before` is what was read of it before, None if nothing was.
        """
        if function.answers:
            self._memory.answered.pop(place, None)
        elif before is not None and before.answers:
            self._memory.answered[place] = before
        if is_conventional_bridge(function):
            self._memory.conventional.add(place)
        elif function.answers:
            self._memory.conventional.discard(place)

    def _find_renumbered(self, uncertain: Iterable[Sbdf]) -> None:
        """Update `renumbered` for functions that may be renumbered.

        For a bridge that is not renumbered, the search begins at the bridge itself. For any other function,
        it begins at the nearest bridge above that is not renumbered.
        """
        tops: set[Sbdf] = set()
        for sbdf in uncertain:
            function = self.machine.functions[sbdf]
            top = sbdf if function.bridge is not None and sbdf not in self.renumbered else function.parent
            while top is not None and top in self.renumbered:
                top = self.machine.functions[top].parent
            if top is not None:
                tops.add(top)
        for top in tops:
            waiting = self.machine.children(top) if self.renumbered else []
            while waiting:
                at = waiting.pop()
                self.renumbered.pop(at.sbdf, None)
                waiting += self.machine.children(at.sbdf)
        before = {*self.renumbered, *self._memory.intents.away}
        if tops:
            self.renumbered.update(find_moves(self.machine, self._memory.bridge_numbers, sorted(tops)))
            back = {sbdf for sbdf in before if sbdf not in self.renumbered and sbdf in self.machine.functions}
            self._memory.intents.moved(self.renumbered, back)

    def _above_renumbered(self) -> set[Sbdf]:
        """Return the parents of all renumbered functions."""
        functions = self.machine.functions
        parents = {functions[sbdf].parent for sbdf in self.renumbered if sbdf in functions}
        return {sbdf for sbdf in parents if sbdf is not None and sbdf in functions}


def bridge_numbers(function: Function) -> tuple[int, int] | None:
    """Return the secondary and subordinate bus of a bridge, None if unreadable or if it is no bridge."""
    bridge = function.bridge
    return (bridge.secondary, bridge.subordinate) if bridge is not None else None
