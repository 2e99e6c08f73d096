"""The three views on which the engine decides: hardware and Linux, Xen, and what pcipt remembers.

All functions are read, or single functions. Right before an action, pcipt reads again everything that the
guards of this action look at; functions that have changed are collected in `different`.
"""

import copy
import itertools
from collections.abc import Collection, Iterable
from functools import partial

from pcipt.engine.interfaces import Host
from pcipt.engine.memory import Memory
from pcipt.engine.views.complaints import Complaints
from pcipt.engine.views.concerned import concerned_functions
from pcipt.engine.views.coverage import read_scope, with_absence
from pcipt.engine.views.guest_leftovers import GuestLeftovers
from pcipt.engine.views.machine_state import MachineState
from pcipt.engine.views.protection import read_pf_fixup, read_protection
from pcipt.engine.views.reserved import Reserved
from pcipt.engine.views.vpci_picture import counted_of, lost_of
from pcipt.engine.views.xen_questions import Questions, candidate_buses, ghost_candidates
from pcipt.errors import UnsupportedError
from pcipt.firmware.coverage import IommuScope, snapshot_of_boot
from pcipt.pci import Finding, Sbdf
from pcipt.pci.notation.read_log import ReadLog
from pcipt.remap.actions import Action, WithdrawReserved
from pcipt.remap.desired import PCIBACK, Desired, Followed, desired_of, place_of
from pcipt.remap.detour import Detour, plan_detour
from pcipt.remap.guard.facts import Facts
from pcipt.remap.guard.protected import Protected
from pcipt.remap.kinds.domains import CutOrphans, cut_orphans
from pcipt.remap.view import XenView
from pcipt.remap.vpci.shape import doubt_of
from pcipt.xen.interface import Dom0Kind, Hypervisor

NO_FUNCTIONS: frozenset[Sbdf] = frozenset()
EMPTY_BARS: frozenset[int] = frozenset()


class Views:
    """The machine, Xen's answers and the memory, as they were read last, and methods that read them again.

    `not_asked` are functions for which the last question to Xen failed: nothing may be concluded about them.
    `different` are functions that had changed when they were read right before an action. `machine` has all
    functions, with the registers of the last reading. `pvh` is True on a PVH dom0. `version` is the version
    of Xen. `memory_findings` are findings about the memory maps. `pf_fixup`: does Xen map unmapped pages
    again? `protected` are pages that must stay as they are. `restores_on_fault` is reserved.restore_on_fault.
    """

    def __init__(self, host: Host, xen: Hypervisor, memory: Memory) -> None:
        self.host = host
        self.questions = Questions(xen)
        self._xen = xen
        self.protected = Protected()
        self._iommu: IommuScope | None = None
        self._view: XenView | None = None  # what a dry run expects Xen to say
        self.memory = memory
        self.reserved = Reserved(xen)
        self.guests = GuestLeftovers(xen, self.reserved, memory)
        self.complaints = Complaints(xen, memory)
        self.log = ReadLog(host.read_log)
        self.pvh = xen.identity.dom0 is Dom0Kind.PVH
        self.version = xen.identity.version
        self.pf_fixup = read_pf_fixup(xen)
        self.state = MachineState(memory)
        self.machine = self.state.machine
        self.different: set[Sbdf] = set()
        self.restores_on_fault = False
        self.not_asked: frozenset[Sbdf] = NO_FUNCTIONS
        self.memory_findings: tuple[Finding, ...] = ()

    @property
    def view(self) -> XenView:
        """Return Xen's last answers; in a dry run, its answers after the planned actions."""
        return self._view or self.questions.view

    @property
    def trouble(self) -> Finding | None:
        """The finding that a question to Xen failed; see `Questions`."""
        return self.questions.trouble

    def rehearsed(self) -> "Views":
        """Return a copy of these views for a dry run. Its memory is a copy, too: a dry run changes it."""
        found = copy.copy(self)
        found.memory = self.memory.copy()
        return found

    def expect(self, view: XenView) -> None:
        """Use `view` instead of Xen's answers from now on, as a dry run does after a planned action."""
        self._view = view

    def take_different(self) -> set[Sbdf]:
        """Return the functions in `different`, and empty `different`."""
        found, self.different = self.different, set()
        return found

    # Reading.

    def load(self) -> frozenset[Sbdf]:
        """Read the whole machine again; return the functions that are different from the last reading."""
        return self.state.load(self.host.read_machine())

    def all_addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions that Linux has now or had at the last reading, sorted."""
        return sorted({*self.host.addresses(), *self.machine.functions})

    def read_protection(self) -> None:
        """Read memory maps, ACPI tables and reserved regions, and set from them which pages are protected.

        If the memory map cannot be read, all pages are protected. `memory_findings` is set to the findings
        about what could not be read.
        """
        self.protected, self.memory_findings = read_protection(self.host, self._xen)

    def read(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf]:
        """Read functions again. Return the functions that changed, and the functions that depend on these.

        See `MachineState.read`.
        """
        return self.state.read(functions, self.host.read_function)

    def know_boot(self) -> bool:
        """Make the boot snapshot if there is none or it was lost; read which functions the IOMMU units cover.

        Return True if this call made the snapshot. The tables of the IOMMUs are read only once.
        """
        before = self.memory.boot
        boot = self.memory.boot = snapshot_of_boot(before, self.host.boot_id, self.machine)
        if self._iommu is None:
            self._iommu = read_scope(self.host, self.machine, boot, self.version)
        return boot is not before

    # Asking Xen.

    def ask_everything(self) -> bool:
        """Ask Xen about all functions, removed functions and possible ghosts; return True if Xen answered.

        If Xen cannot be asked, return False and change nothing except `trouble`.
        """
        memory = self.memory
        others = {*memory.removed, *self.state.cut_addresses(), *self.view.known, *memory.ledger.announced()}
        others |= {*self.reserved.devices, *filter(None, self.state.renumbered.values())}
        buses = candidate_buses(self.machine)
        listed = itertools.chain(self.machine.functions, others, ghost_candidates(buses))
        if not self.questions.ask_everything(listed, self.given(self.machine.functions), buses):
            return False
        booted = memory.boot.functions if memory.boot is not None else ()
        self.reserved.read({*self.machine.functions, *booted, *others})
        memory.removed &= self.view.known
        self.not_asked = NO_FUNCTIONS
        self._learn_coverage()
        return True

    def ask(self, functions: Collection[Sbdf], *, owners: bool = False) -> bool:
        """Ask Xen about functions, at all their `addresses`; return True if Xen answered.

        If Xen cannot be asked, return False and add the addresses to `not_asked`. With `owners`, Xen is
        asked again who owns those of the functions that are bound to xen-pciback.
        """
        asked = {at for sbdf in functions for at in self.addresses(sbdf)}
        had = {sbdf: guest for sbdf in asked if (guest := self.view.guest(sbdf)) is not None}
        if not self.questions.ask(asked, self.given(asked), handed=owners):
            self.not_asked |= asked
            return False
        self.not_asked -= asked
        self.reserved.learn(functions)
        left = {sbdf: guest for sbdf, guest in had.items() if self.view.guest(sbdf) != guest}
        if left or (owners and self.guests.findings):
            self.memory.left_guests |= left
            self.look_at_guests()
        self.memory.removed -= {sbdf for sbdf in asked if sbdf not in self.view.known}
        self._learn_coverage()
        return True

    def ask_if_listed(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf] | None:
        """Return `Questions.ask_if_listed` of these functions."""
        return self.questions.ask_if_listed(frozenset(functions))

    def look_at_guests(self) -> list[int]:
        """Compare what guests may access with what their functions need; set `guests.findings`.

        Return the numbers of the guests that were looked at; empty if Xen cannot be asked.
        """
        return self.guests.look(self.machine, self.state.raws, self.view)

    # What follows.

    def owners(self, functions: Iterable[Sbdf]) -> dict[Sbdf, str]:
        """Return the owner, in words, of each of `functions` that xen-pciback or quarantine has."""
        functions = frozenset(functions)
        away = {*self.given(functions), *(functions & self.view.quarantined)}
        return {sbdf: self.view.owner(sbdf) for sbdf in away}

    def given(self, functions: Iterable[Sbdf]) -> list[Sbdf]:
        """Return the functions in `functions` that are bound to xen-pciback."""
        found = ((sbdf, self.machine.functions.get(sbdf)) for sbdf in functions)
        return [sbdf for sbdf, function in found if function is not None and function.driver == PCIBACK]

    def remembered(self) -> Facts:
        """Return the facts for the guards from the last reading, without a new reading."""
        assert self._iommu is not None  # known before anything is planned
        return Facts(
            machine=self.machine,
            xen=self.view,
            pvh=self.pvh,
            version=self.version,
            iommu=self._iommu,
            unserved=self.memory.unserved, untyped=self.memory.untyped, served=self.memory.served,
            bars=self.state.bars,
            mapped=self.memory.mapped,
            protected=self.protected,
            moves=self.state.renumbered,
            followed=self.announced_at(),
            unsized=self.memory.ledger.unsized(),
            bridges=self.state.bridges,
            regions=self.reserved.scopes,
            home=self.state.home_of,
            answered=self.state.answered,
            holes=self.memory.holes,
            outside_window=lambda place: self.memory.outside_window.get(place, EMPTY_BARS),
            lost=partial(lost_of, self),
            counted=counted_of(self),
            given_up=self.memory.without_vpci,
            faulty=self.memory.ledger.faulty, severed=self.memory.ledger.severed,
            hidden_msix=self.complaints.hidden_msix, altered=self.memory.altered,
            sizes=self.memory.ledger.sizes.get,
        )  # fmt: skip

    def facts(self, action: Action) -> Facts:
        """Read again what the guards of this action look at; return the facts, add changes to `different`.
        Before a region is withdrawn, Xen is asked again who owns its devices: one may be back by now.
        Raises: UnsupportedError if Xen cannot be asked.
        """
        about = concerned_functions(action, self.state, self.reserved.scopes)
        self.different |= self.read(about)
        owners = {sbdf: self.view.owner(sbdf) for sbdf in about if sbdf in self.view.known}
        if not self.ask(about, owners=isinstance(action, WithdrawReserved)):
            why = self.trouble.text if self.trouble is not None else "it failed"
            raise UnsupportedError("asking Xen", why)
        self.different |= {sbdf for sbdf in owners if self.view.owner(sbdf) != owners[sbdf]}
        return self.remembered()

    def detour(self, linux: Sbdf) -> Detour:
        """Return the bridges that need Linux's bus numbers so that a renumbered function answers at `linux`.
        Raises: UnsupportedError if the function cannot be reached at `linux`, its address in Linux.
        """
        return plan_detour(self.machine, linux, self.state.raws)

    def desired(self, sbdf: Sbdf) -> Desired | None:
        """Return the pages that the function at an address needs; None if Linux has no function there.

        If Xen cannot be asked about the function now, `hold_reason` of the result is set.
        """
        function = self.machine.functions.get(sbdf)
        if function is None:
            return None
        place = place_of(function)
        missed = self.memory.outside_window.get(place, EMPTY_BARS) | self.memory.intents.missed(function)
        if self.not_asked and not self.addresses(sbdf).isdisjoint(self.not_asked):
            return Desired(place, sbdf, hold_reason="Xen cannot be asked about it now", outside_window=missed)
        return desired_of(
            function, self.machine.functions, self.view, pvh=self.pvh, version=self.version,
            protected=self.protected, followed=self.announced_at(), outside_window=missed,
            lost=lost_of(self, sbdf), given_up=place in self.memory.without_vpci,
            sizes=self.memory.ledger.sizes.get(place), doubt=doubt_of(self.memory.altered, function),
        )  # fmt: skip

    def cut_orphans(self) -> list[CutOrphans]:
        """Return the orphans that Linux made by cutting segments (VMD)."""
        return cut_orphans(self.state.domains(), self.view, self.version)

    @property
    def given_places(self) -> set[str]:
        """The places of the functions that a guest, quarantine or Xen itself owns."""
        found = map(self.state.place_at, (*self.view.elsewhere, *self.view.quarantined))
        return {place for place in found if place is not None}

    def disagree_about(self, sbdf: Sbdf) -> bool:
        """Return True if only one of Linux and Xen has the function, or if Xen lists it without an owner."""
        return (sbdf in self.machine.functions) != (sbdf in self.view.known) or sbdf in self.view.orphans

    def announced_at(self) -> Followed:
        """Return, by Linux's address, the addresses at which pcipt told Xen of renumbered functions."""
        return self.memory.ledger.followed()

    def addresses(self, sbdf: Sbdf) -> set[Sbdf]:
        """Return `sbdf` and every other address at which Xen may list the function that Linux has there.

        For a function in a segment that Xen cannot name, Xen's address has the segment cut.
        """
        now = self.state.renumbered.get(sbdf)
        return {sbdf, sbdf.cut, *self.announced_at().get(sbdf, ()), *(() if now is None else (now,))}

    def _learn_coverage(self) -> None:
        """Update `coverage` if Xen runs without an IOMMU, and `served` by what Xen has taken for dom0."""
        if self._iommu is not None:
            self._iommu = with_absence(self._iommu, self.view, pvh=self.pvh)
        self.memory.served |= set(filter(self.view.in_dom0, self.questions.appeared))
        self.questions.appeared.clear()
