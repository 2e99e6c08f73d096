"""What actions are planned and guarded from: the machine, Xen's view, the ledger, protected pages.

It is read as a whole, or function by function; right before an action all that its guards decide from is read
once more. What was found different then is in `later`: it is planned for when the actions are over.
"""

import itertools
from collections.abc import Callable, Collection, Iterable

import attrs

from pcipt.engine.guest_leftovers import Guests
from pcipt.engine.interfaces import Host
from pcipt.engine.machine_state import Picture, bridge_numbers
from pcipt.engine.protection import read_protection
from pcipt.engine.reserved import Reserved
from pcipt.engine.xen_questions import Questions, ghost_candidates
from pcipt.errors import UnsupportedError
from pcipt.firmware.acpi.dmar import SIGNATURES, parse_dmar
from pcipt.firmware.acpi.ivrs import SIGNATURE as IVRS
from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.pci import Finding, Machine, Sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.desired import PCIBACK, By, Desired, desired_of, place_of
from pcipt.remap.detour import Detour, plan_detour
from pcipt.remap.explain import Explanation, explain
from pcipt.remap.guard.facts import Facts
from pcipt.remap.guard.protected import Protected
from pcipt.remap.guard.rules import quirks_of_version
from pcipt.remap.ignored import IgnoredWrite
from pcipt.remap.ledger import Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.plan_moves import bridges_above, subtree
from pcipt.remap.plan_reserved import plan_reserved
from pcipt.remap.view import XenView
from pcipt.xen.interface import Dom0Kind, Hypervisor


class Situation:
    def __init__(self, host: Host, xen: Hypervisor, ledger: Ledger) -> None:
        self._host = host
        self._xen = xen
        self._questions = Questions(xen)
        self._protected = Protected()
        self.reserved = Reserved(xen)
        self.guests = Guests(xen, self.reserved)
        self._iommu: IommuScope | None = None
        self._quirks = quirks_of_version(xen.identity.major, xen.identity.minor)
        self.pvh = xen.identity.dom0 is Dom0Kind.PVH
        self.picture = Picture()
        self.ledger = ledger
        self.followed: dict[Sbdf, tuple[Sbdf, ...]] = {}
        self.later: set[Sbdf] = set()
        self.unasked: set[Sbdf] = set()
        self.unplanned: set[Sbdf] = set()
        self.memory_findings: tuple[Finding, ...] = ()

    @property
    def machine(self) -> Machine:
        return self.picture.machine

    @property
    def view(self) -> XenView:
        return self._questions.view

    @property
    def trouble(self) -> Finding | None:
        return self._questions.trouble

    @property
    def boot(self) -> BootSnapshot | None:
        return self._iommu.snapshot if self._iommu is not None else None

    def know_boot(self, snapshot: BootSnapshot) -> None:
        self._iommu = _iommu_scope(IommuScope(snapshot), self._host.acpi_tables())

    def read_everything(self) -> frozenset[Sbdf]:
        """Read the machine and its memory maps; gives the functions that are different now."""
        changed = self.picture.load(self._host.read_machine())
        self._protected, self.memory_findings = read_protection(self._host, self._xen)
        return changed

    def read_for_plan(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf]:
        """Read these again; what is different includes what a mere question found so before."""
        found = self.read(functions) | self.unplanned
        self.unplanned = set()
        return found

    def read(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf]:
        """Read these functions again; gives what is different now, with what depends on them."""
        changed: set[Sbdf] = set()
        waiting = list(functions)
        seen = set(waiting)
        while waiting:
            sbdf = waiting.pop()
            before = self.machine.functions.get(sbdf)
            changed |= self.picture.put(sbdf, self._host.read_function(sbdf))
            after = self.machine.functions.get(sbdf)
            if before is None or after is None or before.bridge == after.bridge:
                continue
            below = {function.sbdf for function in subtree(self.machine, sbdf)}
            changed |= below  # the windows decide whether anything decodes there
            if bridge_numbers(before) != bridge_numbers(after):
                waiting += below - seen  # where they answer has changed
                seen |= below
        return frozenset(changed)

    def part(self, functions: Collection[Sbdf]) -> None:
        """Note that Linux has dropped these, whatever it has there by now."""
        for sbdf in functions:
            place = self.picture.place_at(sbdf)
            if place is not None:
                self.ledger.mapped.forsake(place)
        # Planned for as it was before, it would take back what it has left.
        self.later |= self.read(functions)

    def ask_everything(self) -> bool:
        """Ask Xen about all there is, all that left and all that might be ghosts."""
        others = {*self.picture.departed, *self.view.known, *self.ledger.announced()}
        others |= {now for now in self.picture.moves.values() if now is not None}
        listed = itertools.chain(self.machine.functions, others, ghost_candidates(self.machine))
        if not self._questions.ask_everything(listed, self.given(self.machine.functions)):
            return False
        booted = self.boot.functions if self.boot is not None else ()
        self.reserved.read({*self.machine.functions, *booted, *others})
        self.picture.departed &= self.view.known
        self.unasked.clear()
        self._learn_absence()
        return True

    def ask(self, functions: Collection[Sbdf], *, handed: bool = False) -> bool:
        """Ask Xen about these again, and about where renumbering has taken them.

        `handed` tells that those bound to xen-pciback may have changed hands. What Xen could not be asked
        about is in `unasked`: nothing is concluded about it.
        """
        asked = {at for sbdf in functions for at in self._addresses(sbdf)}
        had = {sbdf: guest for sbdf in asked if (guest := self.view.guest(sbdf)) is not None}
        if not self._questions.ask(asked, self.given(asked), handed=handed):
            self.unasked |= asked
            return False
        self.unasked -= asked
        self.reserved.learn(functions)
        left = {sbdf: guest for sbdf, guest in had.items() if self.view.guest(sbdf) != guest}
        if left or (handed and self.guests.findings):
            self.guests.left(left)
            self.look_at_guests()
        self.picture.departed -= {sbdf for sbdf in asked if sbdf not in self.view.known}
        self._learn_absence()
        return True

    def owners(self, functions: Iterable[Sbdf]) -> dict[Sbdf, str]:
        """Tell who has those of these functions that are bound to xen-pciback."""
        return {sbdf: self.view.owner(sbdf) for sbdf in self.given(functions)}

    def look_at_guests(self) -> list[int]:
        """Compare what guests may reach with what their functions decode; gives the guests looked at."""
        return self.guests.look(self.machine, self.picture.raws, self.view)

    def given(self, functions: Iterable[Sbdf]) -> list[Sbdf]:
        """List those of these functions that are bound to xen-pciback."""
        found = ((sbdf, self.machine.functions.get(sbdf)) for sbdf in functions)
        return [sbdf for sbdf, function in found if function is not None and function.driver == PCIBACK]

    def ask_if_listed(self, functions: Iterable[Sbdf]) -> frozenset[Sbdf] | None:
        """Give those of these functions whose membership in Xen's list has changed; None if nobody knows."""
        asked = frozenset(functions)
        found = self._questions.ask_if_listed(asked)
        if found is None:
            self.unasked |= asked
        return found

    def remembered(self) -> Facts:
        """Give the facts as they were read last."""
        assert self._iommu is not None  # known before anything is planned
        return Facts(
            machine=self.machine,
            xen=self.view,
            pvh=self.pvh,
            quirks=self._quirks,
            iommu=self._iommu,
            bars=self.picture.bars,
            mapped=self.ledger.mapped,
            protected=self._protected,
            moves=self.picture.moves,
            followed=self.followed,
            regions=self.reserved.scopes,
            outside_window=self.picture.outside_window,
        )

    def facts(self, action: Action) -> Facts:
        """Read again what the guards of this action decide from.

        Raises: UnsupportedError where Xen cannot be asked.
        """
        about = self._concerned(action)
        self.later |= self.read(about)
        if not self.ask(about):
            raise UnsupportedError(
                "asking Xen", self.trouble.text if self.trouble is not None else "it failed"
            )
        return self.remembered()

    def plan_regions(
        self, changed: Collection[Sbdf] | None, view: XenView
    ) -> tuple[RestoreReserved | WithdrawReserved, ...]:
        """Plan for the regions of these functions; None is for all."""
        scopes = self.reserved.scopes if changed is None else self.reserved.about(changed)
        return plan_reserved(
            scopes, self.machine, view, self.ledger, changed=changed or (), claimed=self.reserved.claimed,
            certain=not self.reserved.open,
        )  # fmt: skip

    def explain(
        self, sbdf: Sbdf, ignored: Callable[[Iterable[Sbdf]], Iterable[IgnoredWrite]],
        performs: Callable[[Action], bool],
    ) -> Explanation:  # fmt: skip
        """Explain one function, read again just now; `performs` tells whether the settings allow an action.

        Raises: KeyError where the machine does not have it.
        """
        self.unplanned |= self.read([sbdf])
        self.ask([sbdf])
        return explain(
            sbdf,
            self.remembered(),
            departed=self.picture.departed,
            ignored=ignored([sbdf]),
            regions=self.plan_regions([sbdf], self.view),
            performs=performs,
        )

    def disown(self, functions: Iterable[Sbdf]) -> None:
        """Take over what vPCI had mapped for functions that Xen has forgotten: nobody else unmaps it."""
        held = self.ledger.mapped
        for sbdf in functions:
            place = self.picture.place_at(sbdf) if sbdf not in self.view.known else None
            for run in held.of(place) if place is not None else ():
                if run.by is By.XEN:
                    held.put(attrs.evolve(run, by=By.US))

    def detour(self, linux: Sbdf) -> Detour:
        """Tell how a renumbered function is reached at Linux's address.

        Raises: UnsupportedError where it is not.
        """
        return plan_detour(self.machine, linux, self.picture.raws)

    def desired(self, sbdf: Sbdf, view: XenView | None = None) -> Desired | None:
        """Say what the function at an address needs, with another view than the present one if given."""
        function = self.machine.functions.get(sbdf)
        if function is None:
            return None
        place = place_of(function)
        if self.unasked and not self.unasked.isdisjoint(self._addresses(sbdf)):
            hold_reason = "Xen cannot be asked about it now"
            return Desired(
                place, sbdf, hold_reason=hold_reason, outside_window=self.picture.outside_window(place)
            )
        return desired_of(
            function, self.machine.functions, view or self.view, pvh=self.pvh, protected=self._protected,
            followed=self.followed, outside_window=self.picture.outside_window(place),
        )  # fmt: skip

    def follow_ledger(self) -> None:
        """Take in where Xen was told of renumbered functions."""
        self.followed = self.ledger.followed()

    def _addresses(self, sbdf: Sbdf) -> set[Sbdf]:
        """List what Xen may call a function, by the address that Linux has for it."""
        now = self.picture.moves.get(sbdf)
        return {sbdf, *self.followed.get(sbdf, ()), *(() if now is None else (now,))}

    def is_stale(self, held: MappedRun) -> bool:
        """Whether pages are held for a function that has left, or could not be taken down."""
        return held.state is State.STALE or self.picture.address_of(held.place) is None

    def _concerned(self, action: Action) -> set[Sbdf]:
        """List the functions that the guards of an action look at."""
        found = {action.sbdf}
        if isinstance(action, AddDevice):
            found |= {sbdf for sbdf in (action.moved_from, action.physfn) if sbdf is not None}
            if action.moved_from is not None:
                found |= {bridge.sbdf for bridge in bridges_above(self.machine, action.moved_from)}
        elif isinstance(action, RemoveDevice):
            found |= set(self.picture.bars.virtual(action.sbdf))
        elif isinstance(action, MapMmio | UnmapMmio):
            found |= {bar.sbdf for bar in self.picture.bars.over(action.frames)}
            function = self.machine.functions.get(action.sbdf)
            found |= {function.physfn} if function is not None and function.physfn is not None else set()
        elif isinstance(action, WithdrawReserved | RestoreReserved):
            found |= {bar.sbdf for bar in self.picture.bars.over(action.frames)}
            found |= self.reserved.scopes.get(action.frames, frozenset())
        elif isinstance(action, RewriteBar):
            found |= {function.sbdf for function in subtree(self.machine, action.sbdf)}
        return found

    def _learn_absence(self) -> None:
        # A PVH dom0 does not boot without one.
        absent = not self.pvh and bool(self.view.known) and not self.view.custody_told
        if self._iommu is not None and self._iommu.absent is not absent:
            self._iommu = attrs.evolve(self._iommu, absent=absent)


def _iommu_scope(scope: IommuScope, tables: Iterable[bytes]) -> IommuScope:
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            scope = attrs.evolve(scope, dmar=parse_dmar(table))
        elif table.signature == IVRS:
            scope = attrs.evolve(scope, ivrs=parse_ivrs(table))
    return scope
