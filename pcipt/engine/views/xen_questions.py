"""Asks Xen what it knows, and keeps a `XenView` of the answers."""

import itertools
from collections.abc import Collection, Iterable, Iterator

from pcipt.engine.views.owner_from_console import ask_owners
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Finding, Machine, Sbdf, sbdf_from_devfn
from pcipt.remap.view import XenView
from pcipt.xen.interface import Hypervisor

BATCH = 16_384  # functions that one call asks about


class Questions:
    """What Xen said last. `view` changes in place: asking about one function costs the same in any machine.

    `trouble` is set where Xen could not be asked: then no action is taken, for the view is a partial one.
    """

    def __init__(self, xen: Hypervisor) -> None:
        self._xen = xen
        self._known: set[Sbdf] = set()
        self._orphans: set[Sbdf] = set()
        self._quarantined: set[Sbdf] = set()
        self._elsewhere: dict[Sbdf, str] = {}
        self._told = True
        self.view = self._viewed()
        self.trouble: Finding | None = None

    def ask_everything(self, functions: Iterable[Sbdf], given: Collection[Sbdf] = ()) -> bool:
        """Ask about all that may be known; nothing that was said before counts any more.

        `given` are those bound to xen-pciback.
        """
        return self._ask(functions, None, given, handed=True)

    def ask(self, functions: Collection[Sbdf], given: Collection[Sbdf] = (), *, handed: bool = False) -> bool:
        """Ask about these anew; `handed` tells that the given ones may have another owner than before."""
        return self._ask(functions, functions, given, handed=handed)

    def _ask(
        self,
        functions: Iterable[Sbdf],
        replaced: Collection[Sbdf] | None,
        given: Collection[Sbdf],
        *,
        handed: bool,
    ) -> bool:
        before = XenView() if replaced is None else self.view
        try:
            known = frozenset(_known(self._xen, functions))
            answer = ask_owners(self._xen, known, before, given, handed=handed)
        except (UnsupportedError, HypervisorError) as error:
            self._say(error)
            return False
        self.trouble = None
        for held in (self._known, self._orphans, self._quarantined):
            held.clear() if replaced is None else held.difference_update(replaced)
        for sbdf in list(self._elsewhere) if replaced is None else replaced:
            self._elsewhere.pop(sbdf, None)
        self._known |= answer.known
        self._orphans |= answer.orphans
        self._quarantined |= answer.quarantined
        self._elsewhere.update(answer.elsewhere)
        told = answer.custody_told if answer.known or replaced is None else self._told
        if told is not self._told:
            self._told = told
            self.view = self._viewed()
        return True

    def ask_if_listed(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf] | None:
        """Ask only whether Xen lists these, in one silent call; give those of which it says otherwise.

        None where Xen could not be asked.
        """
        asked = sorted(functions)
        try:
            answers = self._xen.known(asked)
        except (UnsupportedError, HypervisorError) as error:
            self._say(error)
            return None
        pairs = zip(asked, answers, strict=True)
        return frozenset(sbdf for sbdf, known in pairs if known is not (sbdf in self._known))

    def _say(self, error: Exception) -> None:
        text = f"{error}; hardware and Linux are watched, nothing can be compared with Xen"
        self.trouble = Finding("xen-not-asked", text)

    def _viewed(self) -> XenView:
        return XenView(self._known, self._orphans, self._elsewhere, self._told, self._quarantined)


def ghost_candidates(machine: Machine) -> Iterator[Sbdf]:
    """Yield every address on the buses in use: Xen can be asked about a function, not for a list.

    Shape:  all devices and functions of each bus that has a function or that a bridge passes on.
    """
    buses = {(sbdf.segment, sbdf.bus) for sbdf in machine.functions if sbdf.fits_xen}
    for function in machine.functions.values():
        if function.bridge is not None and function.sbdf.fits_xen:
            last = max(function.bridge.secondary, function.bridge.subordinate)
            buses |= {(function.sbdf.segment, bus) for bus in range(function.bridge.secondary, last + 1)}
    for segment, bus in sorted(buses):
        yield from (sbdf_from_devfn(segment, bus, devfn) for devfn in range(256))


def _known(xen: Hypervisor, functions: Iterable[Sbdf]) -> Iterator[Sbdf]:
    """Ask in batches, so that what may be ghosts on a large machine is never all in memory."""
    asked = iter(functions)
    while batch := list(itertools.islice(asked, BATCH)):
        yield from itertools.compress(batch, xen.known(batch))
