"""The three views that decisions are made from: hardware and Linux, Xen, and what pcipt remembers.

Read as a whole or function by function. Right before an action, everything that its guards look at is read
again. `different` collects the functions that such a reading found changed: whoever reads takes them from
there.
"""

import copy
import itertools
from collections.abc import Collection, Iterable

import attrs

from pcipt.engine.interfaces import Host
from pcipt.engine.memory import Memory
from pcipt.engine.views.concerned import concerned_functions
from pcipt.engine.views.coverage import coverage_at_boot, with_absence
from pcipt.engine.views.guest_leftovers import GuestLeftovers
from pcipt.engine.views.machine_state import MachineState, bridge_numbers
from pcipt.engine.views.protection import read_protection
from pcipt.engine.views.reserved import Reserved
from pcipt.engine.views.xen_questions import Questions, ghost_candidates
from pcipt.errors import UnsupportedError
from pcipt.firmware.coverage import IommuScope, snapshot_from_machine
from pcipt.pci import Finding, Machine, Sbdf
from pcipt.remap.actions import Action, RestoreReserved, WithdrawReserved
from pcipt.remap.desired import PCIBACK, By, Desired, Followed, desired_of, place_of
from pcipt.remap.detour import Detour, plan_detour
from pcipt.remap.guard.facts import Facts
from pcipt.remap.guard.protected import Protected
from pcipt.remap.guard.rules import quirks_of_version
from pcipt.remap.ignored import IgnoredWrite
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.plan_moves import subtree
from pcipt.remap.plan_reserved import plan_reserved
from pcipt.remap.view import XenView
from pcipt.xen.interface import Dom0Kind, Hypervisor

NO_FUNCTIONS: frozenset[Sbdf] = frozenset()
EMPTY_BARS: frozenset[int] = frozenset()


class Views:
    """`not_asked` are functions about which Xen could not be asked: nothing is concluded about them."""

    def __init__(self, host: Host, xen: Hypervisor, memory: Memory) -> None:
        self._host = host
        self._questions = Questions(xen)
        self._xen = xen
        self._protected = Protected()
        self._iommu: IommuScope | None = None
        self._quirks = quirks_of_version(xen.identity.major, xen.identity.minor)
        self._view: XenView | None = None  # what a dry run expects Xen to say
        self.memory = memory
        self.reserved = Reserved(xen)
        self.guests = GuestLeftovers(xen, self.reserved, memory)
        self.pvh = xen.identity.dom0 is Dom0Kind.PVH
        self.state = MachineState(memory)
        self.different: set[Sbdf] = set()
        self.not_asked: frozenset[Sbdf] = NO_FUNCTIONS
        self.memory_findings: tuple[Finding, ...] = ()

    @property
    def machine(self) -> Machine:
        return self.state.machine

    @property
    def view(self) -> XenView:
        return self._view or self._questions.view

    @property
    def trouble(self) -> Finding | None:
        """The finding that Xen could not be asked last, None if it could."""
        return self._questions.trouble

    def rehearsed(self) -> "Views":
        """Return views with a memory of their own, which a dry run may change."""
        found = copy.copy(self)
        found.memory = self.memory.copy()
        return found

    def expect(self, view: XenView) -> None:
        """Use another view of Xen from now on: what it would say after actions that nobody performs."""
        self._view = view

    def take_different(self) -> set[Sbdf]:
        """Return the functions that were found changed since this was asked last."""
        found, self.different = self.different, set()
        return found

    # Reading.

    def load(self) -> frozenset[Sbdf]:
        """Read the whole machine at once; return the functions that are different now."""
        return self.state.load(self._host.read_machine())

    def all_addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions that Linux has now, or had at the last reading, in order."""
        return sorted({*self._host.addresses(), *self.machine.functions})

    def read_protection(self) -> None:
        """Read the memory maps: which pages may never be mapped."""
        self._protected, self.memory_findings = read_protection(self._host, self._xen)

    def read(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf]:
        """Read functions again; return those that are different now, with those that depend on them."""
        changed: set[Sbdf] = set()
        waiting = list(functions)
        seen = set(waiting)
        while waiting:
            sbdf = waiting.pop()
            before = self.machine.functions.get(sbdf)
            changed |= self.state.put(sbdf, self._host.read_function(sbdf))
            after = self.machine.functions.get(sbdf)
            if before is None or after is None or before.bridge == after.bridge:
                continue
            below = {function.sbdf for function in subtree(self.machine, sbdf)}
            changed |= below  # the windows decide whether anything decodes there
            if bridge_numbers(before) != bridge_numbers(after):
                waiting += below - seen  # where they answer has changed
                seen |= below
        return frozenset(changed)

    def know_boot(self) -> bool:
        """Learn which functions an IOMMU unit covers; return True if the boot snapshot was made just now."""
        made = self.memory.boot is None
        boot = self.memory.boot = self.memory.boot or snapshot_from_machine(self._host.boot_id, self.machine)
        if self._iommu is None:
            self._iommu = coverage_at_boot(boot, self._host.acpi_tables())
        return made

    # Asking Xen.

    def ask_everything(self) -> bool:
        """Ask Xen about all functions, removed ones and possible ghosts; return False if it failed."""
        memory = self.memory
        others = {*memory.removed, *self.view.known, *memory.ledger.announced()}
        others |= {now for now in self.state.renumbered.values() if now is not None}
        listed = itertools.chain(self.machine.functions, others, ghost_candidates(self.machine))
        if not self._questions.ask_everything(listed, self.given(self.machine.functions)):
            return False
        booted = memory.boot.functions if memory.boot is not None else ()
        self.reserved.read({*self.machine.functions, *booted, *others})
        memory.removed &= self.view.known
        self._learn_absence()
        return True

    def ask(self, functions: Collection[Sbdf], *, owners: bool = False) -> bool:
        """Ask Xen about functions, also at addresses to which they were renumbered; return False if it
        failed.

        With `owners` also ask again who owns the functions that are bound to xen-pciback.
        """
        asked = {at for sbdf in functions for at in self.addresses(sbdf)}
        had = {sbdf: guest for sbdf in asked if (guest := self.view.guest(sbdf)) is not None}
        if not self._questions.ask(asked, self.given(asked), handed=owners):
            self.not_asked |= asked
            return False
        self.not_asked -= asked
        self.reserved.learn(functions)
        left = {sbdf: guest for sbdf, guest in had.items() if self.view.guest(sbdf) != guest}
        if left or (owners and self.guests.findings):
            self.memory.left_guests |= left
            self.look_at_guests()
        self.memory.removed -= {sbdf for sbdf in asked if sbdf not in self.view.known}
        self._learn_absence()
        return True

    def ask_if_listed(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf] | None:
        """Return the functions whose membership in Xen's list has changed, None if Xen cannot be asked."""
        return self._questions.ask_if_listed(frozenset(functions))

    def look_at_guests(self) -> list[int]:
        """Compare the pages that guests may reach with the BARs of their functions; return the guests."""
        return self.guests.look(self.machine, self.state.raws, self.view)

    # What follows.

    def owners(self, functions: Iterable[Sbdf]) -> dict[Sbdf, str]:
        """Return the owners, in words, of those of the functions that are bound to xen-pciback."""
        return {sbdf: self.view.owner(sbdf) for sbdf in self.given(functions)}

    def given(self, functions: Iterable[Sbdf]) -> list[Sbdf]:
        """Return those of the functions that are bound to xen-pciback."""
        found = ((sbdf, self.machine.functions.get(sbdf)) for sbdf in functions)
        return [sbdf for sbdf, function in found if function is not None and function.driver == PCIBACK]

    def remembered(self) -> Facts:
        """Return the facts for the guards as they were read last."""
        assert self._iommu is not None  # known before anything is planned
        return Facts(
            machine=self.machine,
            xen=self.view,
            pvh=self.pvh,
            quirks=self._quirks,
            iommu=self._iommu,
            bars=self.state.bars,
            mapped=self.memory.mapped,
            protected=self._protected,
            moves=self.state.renumbered,
            followed=self.announced_at(),
            regions=self.reserved.scopes,
            outside_window=lambda place: self.memory.outside_window.get(place, EMPTY_BARS),
        )

    def facts(self, action: Action) -> Facts:
        """Read again what the guards of this action look at, and return it.

        Raises: UnsupportedError if Xen cannot be asked.
        """
        about = concerned_functions(action, self.state, self.reserved.scopes)
        self.different |= self.read(about)
        if not self.ask(about):
            raise UnsupportedError(
                "asking Xen", self.trouble.text if self.trouble is not None else "it failed"
            )
        return self.remembered()

    def plan_regions(
        self, changed: Collection[Sbdf] | None
    ) -> tuple[RestoreReserved | WithdrawReserved, ...]:
        """Plan for the reserved regions of these functions; None is for all regions."""
        scopes = self.reserved.scopes if changed is None else self.reserved.about(changed)
        return plan_reserved(
            scopes, self.machine, self.view, self.memory.ledger, changed=changed or (),
            claimed=self.memory.held_regions.keys(), certain=not self.reserved.open,
        )  # fmt: skip

    def detour(self, linux: Sbdf) -> Detour:
        """Return how a renumbered function is reached at Linux's address.

        Raises: UnsupportedError if there is no way.
        """
        return plan_detour(self.machine, linux, self.state.raws)

    def desired(self, sbdf: Sbdf) -> Desired | None:
        """Return the pages that the function at an address needs, None if Linux has no function there."""
        function = self.machine.functions.get(sbdf)
        if function is None:
            return None
        place = place_of(function)
        outside = self.memory.outside_window.get(place, EMPTY_BARS)
        if self.not_asked and not self.addresses(sbdf).isdisjoint(self.not_asked):
            reason = "Xen cannot be asked about it now"
            return Desired(place, sbdf, hold_reason=reason, outside_window=outside)
        return desired_of(
            function, self.machine.functions, self.view, pvh=self.pvh, protected=self._protected,
            followed=self.announced_at(), outside_window=outside,
        )  # fmt: skip

    def disagree_about(self, sbdf: Sbdf) -> bool:
        """Return True if only one of Linux and Xen has the function, or Xen has no owner for it."""
        return (sbdf in self.machine.functions) != (sbdf in self.view.known) or sbdf in self.view.orphans

    def ignored_writes(self, functions: Iterable[Sbdf]) -> list[IgnoredWrite]:
        """Return the BAR writes of these functions that vPCI dropped; a PV dom0 has none."""
        if not self.pvh:
            return []
        found = (self.machine.functions.get(sbdf) for sbdf in functions)
        return self.memory.intents.among(function for function in found if function is not None)

    def take_over_mappings(self, functions: Iterable[Sbdf]) -> None:
        """Let pcipt own the pages that vPCI mapped for functions that Xen has forgotten: vPCI keeps them."""
        mapped = self.memory.mapped
        for sbdf in functions:
            place = self.state.place_at(sbdf) if sbdf not in self.view.known else None
            for run in mapped.of(place) if place is not None else ():
                if run.by is By.XEN:
                    mapped.put(attrs.evolve(run, by=By.US))

    def announced_at(self) -> Followed:
        """Return at which other addresses Xen was told of renumbered functions, by Linux's address."""
        return self.memory.ledger.followed()

    def addresses(self, sbdf: Sbdf) -> set[Sbdf]:
        """Return every address that Xen may have for a function, by the address that Linux has for it."""
        now = self.state.renumbered.get(sbdf)
        return {sbdf, *self.announced_at().get(sbdf, ()), *(() if now is None else (now,))}

    def is_stale(self, run: MappedRun) -> bool:
        """Return True if pages are mapped for a function that has left, or could not be unmapped."""
        return run.state is State.STALE or self.state.address_of(run.place) is None

    def _learn_absence(self) -> None:
        if self._iommu is not None:
            self._iommu = with_absence(self._iommu, self.view, pvh=self.pvh)
