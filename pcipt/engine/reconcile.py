"""One reconciliation: observe, desire, plan, guard, record, perform, read back, conclude.

It is the same for one function and for EVERYTHING. EVERYTHING is done in slices: `reconcile` returns after
each slice, and goes on when EVERYTHING is taken again. The result does not depend on which message caused it,
how often, or in which order. A dry run is the same code with a `Rehearsal` in the place of a `Performer`.
"""

from collections.abc import Callable, Generator, Iterable

from pcipt.engine import desire
from pcipt.engine.findings import Findings
from pcipt.engine.interfaces import Policy
from pcipt.engine.late import follow_late, note_bound_anew
from pcipt.engine.observe import Observer
from pcipt.engine.open_actions import OpenActions, subject_of
from pcipt.engine.performer import Performer, Rehearsal
from pcipt.engine.queue import EVERYTHING, STORE, Queue, Reason
from pcipt.engine.repeats import repeat, repeat_not_asked
from pcipt.engine.report import Report, Scope
from pcipt.engine.round import Round, Slices, result_of, sliced
from pcipt.engine.saver import Saver
from pcipt.engine.settle import settle_memory, take_over_mappings
from pcipt.engine.unproven import doubt_unproven
from pcipt.engine.views.concerned import addresses_of
from pcipt.engine.views.meanwhile import follow_log, note_read
from pcipt.engine.views.regions import plan_regions, sharing_regions
from pcipt.engine.views.unreached import note_returned, plan_unreached
from pcipt.engine.views.views import Views
from pcipt.engine.views.vpci_picture import rewrites_of
from pcipt.pci import Sbdf
from pcipt.remap.actions import Action, CheckUnmapped, RemoveDevice, UnmapMmio, WithdrawReserved
from pcipt.remap.plan import plan_announcements
from pcipt.remap.plan_mappings import note, plan_mappings

_TAKING_AWAY = (UnmapMmio, RemoveDevice, WithdrawReserved, CheckUnmapped)


class Reconciler:
    """Does the steps of a reconciliation, for work that its caller has taken from `queue`.

    The service has one reconciler; each dry run has its own. `clock` returns seconds and never goes back.
    `open_actions` and `findings` are the last ones of each function.
    """

    def __init__(
        self, queue: Queue, views: Views, performer: Performer | Rehearsal, policy: Policy, saver: Saver,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._queue = queue
        self._views = views
        self._performer = performer
        self._policy = policy
        self._saver = saver
        self._clock = clock
        self._sweep: tuple[Round, Generator[None, None, Report]] | None = None
        self._meanwhile: set[Sbdf] = set()  # reconciled alone since the sweep began
        self.open_actions = OpenActions()
        self.findings = Findings()
        self._observer = Observer(queue, performer, policy, saver, clock, self.open_actions)

    def reconcile(self, scope: Scope) -> Report:
        """Reconcile the functions of a scope, or the next slice of EVERYTHING; return what came of it.

        If STORE is in it, write the files first. `finished` is False while slices of EVERYTHING are left.
        """
        if scope.store is not None:
            followed = follow_log(self._views, self._queue, self._policy.collect, scope.functions)
            if not (self._saver.save(self._views.memory) and followed):
                why = Reason.FAILED if self._saver.findings else Reason.TIMER
                self._queue.repeat(STORE, why, self._clock(), scope.store.attempts)
        work = scope.everything
        if work is None:
            return result_of(self._steps(Round(scope, self._views)))
        if self._sweep is None or self._sweep[0].everything is not work:
            started = Round(scope, self._views)
            self._sweep, self._meanwhile = (started, self._steps(started)), set()
        now, steps = self._sweep
        try:
            next(steps)
        except StopIteration as end:
            self._sweep = None
            self._queue.finished(self._clock())
            now.views.memory.inherited = False
            report: Report = end.value
            return report
        return Report(now.fresh(), finished=False)

    def _steps(self, now: Round) -> Generator[None, None, Report]:
        """Do the steps of one reconciliation, in their order; yield after each slice; return the report.
        If Xen cannot be asked, nothing is planned.
        """
        yield from self._restore_at_once(now)
        yield from self._observer.read(now)
        if not self._observer.ask(now):
            return self._conclude_nothing(now)
        if settle_memory(now, self._policy.now, messages_lost=self._lost_messages()):
            self._save_at_once(now)
        note_bound_anew(now)
        yield from self._announce(now)
        yield from self._perform(now, desire.actions_at_ports(now))
        if now.views.reserved.scopes:
            yield from self._restore_or_withdraw_regions(now)
        yield from self._repeat_ignored_writes(now)
        yield from self._map_and_unmap(now)
        yield from self._check_holes(now)
        follow_late(now, self._performer, self._queue, self._clock())
        return self._conclude(now)

    def _save_at_once(self, now: Round) -> None:
        """Write to the store what no later reading shows; do nothing in a dry run."""
        self._write_noted(now)
        if now.views is self._views:
            self._saver.save(self._views.memory)

    def _take_over(self, now: Round, functions: Iterable[Sbdf]) -> None:
        """Do `take_over_mappings` for functions that Xen may have forgotten, and write that to the store."""
        now.noted += take_over_mappings(now.views, functions, self._policy.now)
        self._write_noted(now)

    def _write_noted(self, now: Round) -> None:
        now.touched |= now.views is self._views and not self._saver.note(now.noted)
        now.noted.clear()

    def _save_if_long(self, now: Round) -> None:
        """Write the files if the ledger's file of steps has become long; do nothing in a dry run."""
        if now.views is self._views and self._saver.is_due and not self._saver.save(self._views.memory):
            self._queue.repeat(STORE, Reason.FAILED, self._clock(), 0)

    # Plan and perform.

    def _announce(self, now: Round) -> Slices:
        """Plan and perform additions to Xen and removals from Xen.

        Added are functions that Xen does not list or lists without an owner; removed are functions that have
        left the machine; for renumbered functions see `plan_moves`. If the round is not EVERYTHING, only the
        functions in `now.listed` are planned for.
        """
        views, everything = now.views, now.everything is not None
        if not everything and not now.listed:
            return
        actions = plan_announcements(
            views.machine, views.view, removed=views.memory.removed, only=None if everything else now.listed,
            moves=views.state.renumbered, followed=views.announced_at(), bridges=views.state.bridges,
            unsized=views.memory.ledger.unsized(), severed=views.state.severed,
        )  # fmt: skip
        yield from self._perform(now, actions)
        now.subjects |= {sbdf for action in actions for sbdf in addresses_of(action)}
        self._take_over(now, now.subjects)

    def _restore_at_once(self, now: Round) -> Slices:
        """If REGIONS is in the round, restore the regions of functions that were unbound from xen-pciback.
        This comes before all reading and asking: the toolstack lets Linux bind the former driver right after
        the unbind, and its DMA would fault. If the function stays away, they are withdrawn again later.
        Source: Xen tools/libs/light/libxl_pci.c (libxl__device_pci_assignable_remove).
        """
        if now.scope.regions is not None:
            unbound = self._queue.unbound()
            yield from self._perform(now, plan_regions(now.views, unbound, unbound))

    def _restore_or_withdraw_regions(self, now: Round) -> Slices:
        """Restore reserved regions that dom0 needs, and withdraw regions that dom0 does not need.

        See `plan_reserved`. If the round is not EVERYTHING, only regions of its subjects are planned for.
        """
        self._observer.see_arrivals(now)
        changed = None if now.everything is not None else now.subjects
        actions = plan_regions(now.views, changed, self._queue.unbound())
        yield from self._perform(now, actions)
        scopes = now.views.reserved.scopes
        now.subjects |= {sbdf for action in actions for sbdf in scopes.get(action.frames, ())}

    def _repeat_ignored_writes(self, now: Round) -> Slices:
        """Repeat BAR writes that vPCI ignored, write lost BARs back, repeat writes that only vPCI saw."""
        functions = note_returned(now)
        yield from self._perform(now, rewrites_of(now.views, functions))
        self._take_over(now, functions)
        yield from self._perform(now, plan_unreached(now, functions))

    def _map_and_unmap(self, now: Round) -> Slices:
        """Plan the pages of the round's functions and perform the plan, slice by slice."""
        self._observer.see_arrivals(now)
        views, lasting = now.views, now.views is self._views and now.views.pvh
        subjects = {*now.subjects, *(views.machine.functions if now.everything is not None else ())}
        parts = sliced(sorted(subjects)) or [[]]
        planned_for: set[Sbdf] = set()  # added to the subjects last: each part looks at all subjects
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            desired = desire.desired_places(now, part, self.open_actions, first=number == 1, last=last)
            doubted = doubt_unproven(views, now.scope, desired, self._policy.now())
            plan = plan_mappings(
                desired, views.memory.mapped, views.state.bars,
                messages_lost=self._lost_messages() or views.memory.inherited, given=views.given_places,
            )  # fmt: skip
            if desire.conclude_places(now, desired) or doubted:
                self._save_at_once(now)
            noted = note_read(views, desired, note(plan, views.memory.mapped, self._policy.now()))
            self._saver.hold(noted if lasting else ())
            self._save_if_long(now)
            now.touched |= bool(noted or plan.left or plan.taken or plan.moved)
            planned_for |= {each.sbdf for each in desired}
            yield from self._perform(now, plan.actions)
            if lasting and not self._saver.write_held():
                self._queue.repeat(STORE, Reason.FAILED, self._clock(), 0)
            yield
        now.subjects |= planned_for

    def _check_holes(self, now: Round) -> Slices:
        """Unmap once more what was unmapped for the functions that are in the round for this reason."""
        if now.scope.with_reason([Reason.UNMAPPED]):
            self._observer.see_arrivals(now)
            yield from self._perform(now, desire.checks_of_holes(now))
            desire.forget_refused_holes(now)

    def _perform(self, now: Round, actions: Iterable[Action]) -> Slices:
        """Perform actions in batches and keep their outcomes in the round.

        After a loss of hot-plug messages, until everything was read, actions of the types in _TAKING_AWAY are
        left out. The next reconciliation of EVERYTHING plans them again.
        """
        actions = tuple(actions)
        if actions and self._must_hold_back():
            actions = tuple(action for action in actions if not isinstance(action, _TAKING_AWAY))
        now.planned += actions
        for outcomes in self._performer.perform(actions, now.views) if actions else ():
            now.outcomes += outcomes
            self._save_if_long(now)
            yield

    # Conclude.

    def _conclude_nothing(self, now: Round) -> Report:
        """Put the round's work back, because Xen could not be asked; replace findings, report no outcomes."""
        repeat_not_asked(self._queue, now, self._clock())
        self._find(now, now.subjects)
        return now.report()

    def _conclude(self, now: Round) -> Report:
        """Replace the open actions and findings of the round's functions, and put functions that must be
        looked at again back into the queue; return the report.
        """
        everything = now.everything is not None
        if everything:
            self._leave_to_later_rounds(now)
        elif self._sweep is not None:
            self._meanwhile |= now.subjects
        subjects = now.subjects | ({*self.open_actions.subjects} - self._meanwhile if everything else set())
        touched = {at for outcome in now.outcomes for at in addresses_of(outcome.action)}
        told_at = set().union(*map(now.views.addresses, subjects if everything else now.listed))
        former = {at for at in touched | told_at if at not in now.views.machine.functions}
        news = self.open_actions.replace(
            now.planned, now.outcomes, subjects | former, listed=None if everything else now.listed | former
        )
        repeat(self._queue, now, self._clock(), self._policy.settings)
        self._observer.hear(now)
        if now.touched or now.acted:
            self._queue.add(STORE, Reason.TIMER, self._clock())
        again = now.scope.has(Reason.REQUESTED) and self._saver.findings
        if everything and (again or now.scope.has(Reason.LOST)):
            self._queue.add(STORE, Reason.REQUESTED, self._clock())
        self._find(now, subjects | now.listed | touched | former | now.complained)
        return now.report(now.fresh() if everything else tuple(news))

    def _leave_to_later_rounds(self, now: Round) -> None:
        """Remove from the round the functions that were reconciled alone between its slices, which is newer.
        They go back into the queue: possibly no announcements were planned.
        """
        for sbdf in sorted(self._meanwhile):
            self._queue.repeat(sbdf, Reason.DIFFERENT, self._clock(), 0)
        now.subjects -= self._meanwhile
        now.planned = [action for action in now.planned if subject_of(action) not in self._meanwhile]

    def _find(self, now: Round, scope: Iterable[Sbdf]) -> None:
        """Replace the findings of the functions in `scope` and in that of the round, and of functions that
        share a reserved region with these; in EVERYTHING, of all.
        """
        if now.everything is not None:
            self.find_everything()
        else:
            about = {*scope, *now.scope.functions}
            about |= sharing_regions(self._views, about)
            self.findings.find_in_functions(self._views, self.open_actions, about)

    def find_everything(self) -> None:
        """Replace the findings of all functions, by what was read and asked last."""
        found = {*self._views.machine.functions, *self._views.view.known}
        found |= {*self.findings.subjects, *self.open_actions.subjects}
        self.findings.find_in_functions(self._views, self.open_actions, found)

    def _must_hold_back(self) -> bool:
        """Return True if hot-plug messages were lost and not everything was read since.

        Pages that look unused may then belong to a function that nobody has seen.
        """
        return self._queue.holds(EVERYTHING, Reason.LOST) or (
            not self._observer.all_read and self._lost_messages()
        )

    def _lost_messages(self) -> bool:
        """Return True from a loss of messages until EVERYTHING is finished."""
        return Reason.LOST in self._queue.reasons_of(EVERYTHING)
