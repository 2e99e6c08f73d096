"""Asks Xen which functions it lists and who owns them, and keeps the answers as a `XenView`."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet

from pcipt.engine.views.owner_from_console import ask_owners
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Finding, Machine, Sbdf
from pcipt.pci.address import functions_of_bus
from pcipt.remap.view import XenView
from pcipt.xen.interface import Hypervisor

Bus = tuple[int, int]  # segment, bus
BATCH = 16_384  # functions that one call asks about


class Questions:
    """The last answers of Xen. The sets of `view` change in place, so that a question costs the same on a
    machine of any size; the object `view` may be replaced.

    `trouble` is the finding that a question failed. It is None after a later question has succeeded, except
    `ask_if_listed`. While it is set, the view has older answers. `changes` has, for each question that found
    such functions, those that Xen lists with an owner and did not before, and those for which it is the other
    way round; who acts on them empties the list. `appeared` are the addresses that Xen lists now and did not
    list when it was asked before; who acts on them empties the set.
    """

    def __init__(self, xen: Hypervisor) -> None:
        self._xen = xen
        self._known: set[Sbdf] = set()
        self._orphans: set[Sbdf] = set()
        self._quarantined: set[Sbdf] = set()
        self._elsewhere: dict[Sbdf, str] = {}
        self._unread: set[Sbdf] = set()
        self._untold: set[Sbdf] = set()
        self._told = True
        self.view = self._viewed()
        self.trouble: Finding | None = None
        self.changes: list[tuple[frozenset[Sbdf], frozenset[Sbdf]]] = []
        self.appeared: set[Sbdf] = set()
        self._buses: AbstractSet[Bus] = frozenset()

    def ask_everything(
        self, functions: Iterable[Sbdf], given: Collection[Sbdf] = (), buses: AbstractSet[Bus] = frozenset()
    ) -> bool:
        """Ask about all functions that Xen may list, and replace all former answers; return True if Xen
        answered.

        `given` are the functions that are bound to xen-pciback. `buses` are those of which all addresses are
        in `functions`. If Xen cannot be asked, return False: the former answers stay and `trouble` is set.
        """
        answered = self._ask(functions, None, given, handed=True)
        self._buses = buses if answered else self._buses
        return answered

    def ask(self, functions: Collection[Sbdf], given: Collection[Sbdf] = (), *, handed: bool = False) -> bool:
        """Ask about these functions and replace the former answers about them; return True if Xen answered.

        `given` are those of them that are bound to xen-pciback; if `handed` is True, their owners are asked
        for again. If Xen cannot be asked, return False: the former answers stay and `trouble` is set.
        """
        return self._ask(functions, functions, given, handed=handed)

    def _ask(
        self,
        functions: Iterable[Sbdf],
        replaced: Collection[Sbdf] | None,
        given: Collection[Sbdf],
        *,
        handed: bool,
    ) -> bool:
        """Ask about functions; replace the answers about `replaced`, or all answers if `replaced` is None.

        `given`, `handed` and the result are those of `ask`.
        """
        begun = bool(self._known)
        before = XenView(quarantined=frozenset(self._quarantined)) if replaced is None else self.view
        try:
            known = frozenset(_known(self._xen, functions))
            answer = ask_owners(self._xen, known, before, given, handed=handed)
        except (UnsupportedError, HypervisorError) as error:
            self._say(error)
            return False
        self.trouble = None
        fresh = answer.known - self._known
        self.appeared |= {sbdf for sbdf in fresh if (sbdf.segment, sbdf.bus) in self._buses}
        owned = self._owned(replaced)
        for held in (self._known, self._orphans, self._quarantined, self._unread, self._untold):
            held.clear() if replaced is None else held.difference_update(replaced)
        for sbdf in list(self._elsewhere) if replaced is None else replaced:
            self._elsewhere.pop(sbdf, None)
        self._known |= answer.known
        self._orphans |= answer.orphans
        self._quarantined |= answer.quarantined
        self._unread |= answer.unread
        self._untold |= answer.untold
        self._elsewhere.update(answer.elsewhere)
        told = answer.custody_told if answer.known or replaced is None else self._told
        if told != self._told:
            self._told = told
            self.view = self._viewed()
        now = self._owned(replaced)
        if begun and now != owned:
            self.changes.append((now - owned, owned - now))
        return True

    def _owned(self, functions: Collection[Sbdf] | None) -> frozenset[Sbdf]:
        """Return those of the functions, all if it is None, that Xen lists with an owner."""
        known = self._known if functions is None else self._known.intersection(functions)
        return frozenset(known - self._orphans)

    def ask_if_listed(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf] | None:
        """Ask by one hypercall whether Xen lists these functions; by none if there are no functions.

        Return the functions that are listed now and not in the view, or in the view and not listed now. If
        Xen cannot be asked, None is returned and `trouble` is set. The view does not change.
        """
        asked = sorted(functions)
        if not asked:
            return frozenset()
        try:
            answers = self._xen.known(asked)
        except (UnsupportedError, HypervisorError) as error:
            self._say(error)
            return None
        pairs = zip(asked, answers, strict=True)
        return frozenset(sbdf for sbdf, known in pairs if known is not (sbdf in self._known))

    def ask_for_other_owners(
        self, functions: Iterable[Sbdf], owned: Collection[Sbdf], given: Collection[Sbdf]
    ) -> frozenset[Sbdf] | None:
        """Ask whether Xen lists these functions and those in `owned`, and who has those in `owned`.

        `given` are the functions in `owned` that are bound to xen-pciback. The console is read only if dom0
        or quarantine has one of them, because the hypercall does not tell these two apart.
        Return the functions for which the answer differs from the view, or for which the console could not be
        read. If Xen cannot be asked, None is returned and `trouble` is set. The view does not change.
        """
        asked = {*functions, *owned}
        before = self.view
        try:
            known = frozenset(_known(self._xen, sorted(asked)))
            at_home = [sbdf for sbdf in given if before.in_dom0(sbdf) or sbdf in before.quarantined]
            now = ask_owners(self._xen, known.intersection(owned), before, at_home, handed=True)
        except (UnsupportedError, HypervisorError) as error:
            self._say(error)
            return None
        self.trouble = None
        listed = known ^ (self._known & asked)
        return listed | now.unread | {sbdf for sbdf in owned if now.owner(sbdf) != before.owner(sbdf)}

    def _say(self, error: Exception) -> None:
        """Set `trouble` to the finding that Xen cannot be asked."""
        text = f"{error}; pcipt still watches hardware and Linux, but cannot compare them with Xen"
        self.trouble = Finding("xen-not-asked", text)

    def _viewed(self) -> XenView:
        """Return a view over the sets that the answers change in place."""
        return XenView(
            self._known,
            self._orphans,
            self._elsewhere,
            self._told,
            self._quarantined,
            self._unread,
            self._untold,
        )


def candidate_buses(machine: Machine) -> set[Bus]:
    """Return the buses on which Xen may list a function, whether or not the machine has it.

    They are the buses that have a function or that a bridge passes on. Segments above ffff are left out: Xen
    cannot name them.
    """
    buses = {(sbdf.segment, sbdf.bus) for sbdf in machine.functions if sbdf.fits_xen}
    for function in machine.functions.values():
        if function.bridge is not None and function.sbdf.fits_xen:
            last = max(function.bridge.secondary, function.bridge.subordinate)
            buses |= {(function.sbdf.segment, bus) for bus in range(function.bridge.secondary, last + 1)}
    return buses


def ghost_candidates(buses: Iterable[Bus]) -> Iterator[Sbdf]:
    """Return every address on these buses: Xen cannot be asked for a list, only about an address.

    Shape:  all 256 device and function numbers of each bus, the buses sorted.
    """
    return itertools.chain.from_iterable(itertools.starmap(functions_of_bus, sorted(buses)))


def _known(xen: Hypervisor, functions: Iterable[Sbdf]) -> Iterator[Sbdf]:
    """Yield the functions in `functions` that Xen lists; Xen is asked in batches of BATCH."""
    asked = iter(functions)
    while batch := list(itertools.islice(asked, BATCH)):
        yield from itertools.compress(batch, xen.known(batch))
