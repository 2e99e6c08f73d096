"""One reconciliation: observe, desire, plan, guard, record, perform, read back, conclude.

It is the same for one function and for EVERYTHING, which is done in slices: `reconcile` returns after each
slice and goes on when EVERYTHING is taken again. It is idempotent: the end does not depend on which message
caused it, how often, or in which order. A dry run is the same code with a `Rehearsal` for a performer.
"""

from collections.abc import Callable, Generator, Iterable

from pcipt.engine.desire import conclude_places, desired_places
from pcipt.engine.findings import Findings
from pcipt.engine.open_actions import OpenActions
from pcipt.engine.performer import Performer, Policy, Rehearsal
from pcipt.engine.queue import EVERYTHING, MESSAGES, STORE, Queue, Reason
from pcipt.engine.repeats import repeat, repeat_not_asked
from pcipt.engine.report import ASKED_IN_FULL, HANDED_OVER, Report, Scope
from pcipt.engine.round import Round
from pcipt.engine.saver import Saver
from pcipt.engine.views.concerned import addresses_of
from pcipt.engine.views.views import Views
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Sbdf
from pcipt.remap.actions import Action, RemoveDevice, Result, UnmapMmio, WithdrawReserved
from pcipt.remap.ignored import plan_rewrites
from pcipt.remap.plan import plan_announcements
from pcipt.remap.plan_mappings import note, plan_mappings

SLICE = 256  # functions that are read or planned for between two turns of the loop
_TAKING_AWAY = (UnmapMmio, RemoveDevice, WithdrawReserved)

Slices = Generator[None, None, None]


class Reconciler:
    """`clock` never goes back; it tells seconds."""

    def __init__(
        self,
        queue: Queue,
        views: Views,
        performer: Performer | Rehearsal,
        policy: Policy,
        saver: Saver,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._views = views
        self._performer = performer
        self._policy = policy
        self._saver = saver
        self._clock = clock
        self._sweep: tuple[Round, Generator[None, None, Report]] | None = None
        self._all_read = True  # False while EVERYTHING is being read
        self.open_actions = OpenActions()
        self.findings = Findings()

    def reconcile(self, scope: Scope) -> Report:
        """Do what the scope asks for; of EVERYTHING the next slice."""
        if scope.store is not None and not self._saver.save(self._views.memory):
            self._queue.repeat(STORE, Reason.FAILED, self._clock(), scope.store.attempts)
        work = scope.everything
        if work is None:
            return _result(self._steps(Round(scope, self._views)))
        if self._sweep is None or self._sweep[0].everything is not work:
            started = Round(scope, self._views)
            self._sweep = started, self._steps(started)
        now, steps = self._sweep
        try:
            next(steps)
        except StopIteration as end:
            self._sweep = None
            self._queue.finished()
            report: Report = end.value
            return report
        return Report(now.fresh(), finished=False)

    def _steps(self, now: Round) -> Generator[None, None, Report]:
        yield from self._read(now)
        if not self._ask(now):
            return self._conclude_nothing(now)
        self._settle_memory(now)
        yield from self._announce(now)
        yield from self._restore_or_withdraw_regions(now)
        yield from self._repeat_ignored_writes(now)
        yield from self._map_and_unmap(now)
        return self._conclude(now)

    # Observe.

    def _read(self, now: Round) -> Slices:
        """Read the functions of the scope, and those that have just been added."""
        views = now.views
        self._policy.collect()
        now.scope = Scope((*now.scope.work, *self._queue.take_arrived()))
        self._mark_removed(now.scope.with_reason([Reason.DISAPPEARED]))
        self._mark_removed(self._keys_with(Reason.DISAPPEARED))
        if now.everything is not None:
            yield from self._read_everything(now)
            return
        functions = now.scope.functions
        now.owners = {sbdf: views.view.owner(sbdf) for sbdf in functions if sbdf in views.view.known}
        now.pages |= {frames for sbdf in functions for frames in views.state.bars.pages_of(sbdf)}
        now.relatives |= views.state.relatives(functions)
        now.changed |= views.read(functions)
        now.subjects |= functions | now.changed

    def _read_everything(self, now: Round) -> Slices:
        views = now.views
        self._all_read = False
        views.read_protection()
        if not views.machine.functions:
            now.changed |= views.load()
        for part in _sliced(views.all_addresses() if not now.changed else ()):
            now.changed |= views.read(part)
            yield
        self._all_read = True
        if views.know_boot() and views.memory.boot is not None:
            self._save_boot(views.memory.boot)

    def _save_boot(self, boot: BootSnapshot) -> None:
        if not self._saver.save_boot(boot):
            self._queue.repeat(STORE, Reason.FAILED, self._clock(), 0)

    def _see_arrivals(self, now: Round) -> None:
        """Read functions that have been added meanwhile: they may need what is about to be taken away."""
        self._policy.collect()
        self._mark_removed(self._keys_with(Reason.DISAPPEARED))
        arrived = Scope(self._queue.take_arrived())
        if not arrived.work:
            return
        now.scope = Scope((*now.scope.work, *arrived.work))
        changed = now.views.read(arrived.functions)
        asked = changed | arrived.functions
        now.views.ask(asked, owners=True)
        now.changed |= changed
        now.listed |= asked
        now.subjects |= asked

    def _mark_removed(self, functions: Iterable[Sbdf]) -> None:
        """Mark the pages of functions that Linux has dropped: vPCI unmaps nothing of theirs any more."""
        for sbdf in functions:
            place = self._views.state.place_at(sbdf)
            if place is not None:
                self._views.memory.mapped.forsake(place)

    def _ask(self, now: Round) -> bool:
        """Ask Xen about the functions; return False if it could not be asked."""
        views, scope = now.views, now.scope
        waiting = {key for key in self._queue.keys_with(Reason.NOT_ASKED) if isinstance(key, Sbdf)}
        views.not_asked = frozenset(waiting - scope.functions)
        asked = views.ask_everything() if now.everything is not None else self._ask_some(now)
        if asked:
            self._queue.hasten(Reason.NOT_ASKED, self._clock())
        now.views = self._performer.views_for(views)
        return asked

    def _ask_some(self, now: Round) -> bool:
        """Ask in full where an owner may have changed; else only whether Xen still lists what has changed."""
        views, scope = now.views, now.scope
        full = scope.with_reason(ASKED_IN_FULL)
        full |= now.changed if full else set()
        full |= {sbdf for sbdf in now.changed if views.disagree_about(sbdf)}
        related = now.relatives | views.state.relatives(now.subjects)
        full |= self.open_actions.announcements_among(related)
        moved = {s for s in now.subjects if s in views.state.renumbered or s in views.announced_at()}
        lapsed = views.ask_if_listed(now.changed - full)
        if lapsed is None:
            return False
        now.listed = full | moved | lapsed
        handed = not scope.with_reason(HANDED_OVER).isdisjoint(now.listed)
        return not now.listed or views.ask(now.listed, owners=handed)

    def _settle_memory(self, now: Round) -> None:
        """Bring what a crash left open, and what Xen forgot, into line with what Xen says now."""
        views = now.views
        memory = views.memory
        if now.everything is None:
            asked = {at for sbdf in now.listed for at in views.addresses(sbdf)}
            now.touched |= memory.ledger.settle(asked, views.view.known)
            views.take_over_mappings(now.listed)
            return
        first = not memory.mapped.places
        settled = memory.ledger.reconciled(views.view.known)
        now.touched = settled != memory.ledger
        memory.ledger = settled if now.touched else memory.ledger
        if views.pvh and self._lost_messages() and memory.ledger.messages_lost is None:
            memory.ledger.messages_lost = self._policy.now()
            now.touched = True
        if first and not views.pvh:
            self._adopt(views)
            now.touched = True
        views.take_over_mappings(views.machine.functions)

    def _adopt(self, views: Views) -> None:
        """Take the pages that a PV dom0 uses when pcipt first sees them for mapped: they are no change."""
        desired = (views.desired(sbdf) for sbdf in views.machine.functions)
        plan = plan_mappings([each for each in desired if each is not None], views.memory.mapped)
        for action in plan.actions:
            views.memory.ledger.noted(action, self._policy.now())

    # Plan and perform.

    def _announce(self, now: Round) -> Slices:
        """Tell Xen of functions that it does not know, and make it forget those that have left."""
        views, everything = now.views, now.everything is not None
        if not everything and not now.listed:
            return
        actions = plan_announcements(
            views.machine, views.view, removed=views.memory.removed, only=None if everything else now.listed,
            moves=views.state.renumbered, followed=views.announced_at(),
        )  # fmt: skip
        yield from self._perform(now, actions)
        now.subjects |= {sbdf for action in actions for sbdf in addresses_of(action)}
        views.take_over_mappings(now.subjects)  # Xen may have been made to forget some

    def _restore_or_withdraw_regions(self, now: Round) -> Slices:
        self._see_arrivals(now)
        views = now.views
        actions = views.plan_regions(None if now.everything is not None else now.subjects)
        yield from self._perform(now, actions)
        scopes = views.reserved.scopes
        now.subjects |= {sbdf for action in actions for sbdf in scopes.get(action.frames, ())}

    def _repeat_ignored_writes(self, now: Round) -> Slices:
        functions = now.views.machine.functions if now.everything is not None else now.subjects
        yield from self._perform(now, plan_rewrites(now.views.ignored_writes(functions)))

    def _map_and_unmap(self, now: Round) -> Slices:
        """Plan the pages of the subjects and perform the plan, for EVERYTHING in slices."""
        self._see_arrivals(now)
        views = now.views
        subjects = {*now.subjects, *(views.machine.functions if now.everything is not None else ())}
        parts = _sliced(sorted(subjects)) or [[]]
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            desired = desired_places(now, part, self.open_actions, first=number == 1, last=last)
            plan = plan_mappings(
                desired, views.memory.mapped, views.state.bars, messages_lost=self._lost_messages(),
            )  # fmt: skip
            conclude_places(views, desired)
            note(plan, views.memory.mapped, self._policy.now())
            now.touched |= bool(plan.left or plan.taken or plan.moved)
            now.subjects |= {each.sbdf for each in desired}
            yield from self._perform(now, plan.actions)
            yield

    def _perform(self, now: Round, actions: Iterable[Action]) -> Slices:
        """Perform actions in batches; before everything was read again nothing is taken away."""
        if self._must_hold_back():
            actions = [action for action in actions if not isinstance(action, _TAKING_AWAY)]
        actions = tuple(actions)
        now.planned += actions
        for outcomes in self._performer.perform(actions, now.views):
            now.outcomes += outcomes
            yield

    # Conclude.

    def _conclude_nothing(self, now: Round) -> Report:
        """Put the work back: Xen could not be asked, so nothing is known about it."""
        repeat_not_asked(self._queue, now, self._clock())
        self._find(now, now.subjects)
        return Report(read=frozenset(now.subjects), shape_changed=_changes_shape(now.scope))

    def _conclude(self, now: Round) -> Report:
        everything = now.everything is not None
        subjects = now.subjects | ({*self.open_actions.subjects} if everything else set())
        news = self.open_actions.replace(
            now.planned, now.outcomes, subjects, listed=None if everything else now.listed
        )
        repeat(self._queue, now, self._clock())
        acted = any(outcome.result in (Result.DONE, Result.FAILED) for outcome in now.outcomes)
        if now.touched or acted:
            self._queue.add(STORE, Reason.TIMER, self._clock())
        if everything and now.scope.has(Reason.REQUESTED) and self._saver.findings:
            self._queue.add(STORE, Reason.REQUESTED, self._clock())
        touched = {sbdf for outcome in now.outcomes for sbdf in addresses_of(outcome.action)}
        self._find(now, subjects | now.listed | touched)
        return Report(
            outcomes=now.fresh() if everything else tuple(news),
            changed=frozenset(now.changed),
            read=frozenset(now.subjects),
            shape_changed=_changes_shape(now.scope),
        )

    def _find(self, now: Round, scope: Iterable[Sbdf]) -> None:
        if now.everything is not None:
            self.find_everything()
        else:
            found = {*scope, *now.scope.functions}
            self.findings.find_in_functions(self._views, self.open_actions, found)

    def find_everything(self) -> None:
        """Replace the findings of all functions, by what was read and asked last."""
        views = self._views
        found = {*views.machine.functions, *views.view.known}
        found |= {*self.findings.subjects, *self.open_actions.subjects}
        self.findings.find_in_functions(views, self.open_actions, found)

    def _keys_with(self, reason: Reason) -> set[Sbdf]:
        return {key for key in self._queue.keys_with(reason) if isinstance(key, Sbdf)}

    def _must_hold_back(self) -> bool:
        """Return True if messages were lost and not everything was read since: pages may have a new owner."""
        return self._queue.holds(EVERYTHING, Reason.LOST) or (self._lost_messages() and not self._all_read)

    def _lost_messages(self) -> bool:
        return Reason.LOST in self._queue.reasons_of(EVERYTHING)


def _changes_shape(scope: Scope) -> bool:
    """Return True if functions may have come or gone, or changed hands."""
    return scope.everything is not None or bool(scope.with_reason(MESSAGES - {Reason.WRITTEN}))


def _sliced(functions: Iterable[Sbdf]) -> list[list[Sbdf]]:
    waiting = list(functions)
    return [waiting[at : at + SLICE] for at in range(0, len(waiting), SLICE)]


def _result(steps: Generator[None, None, Report]) -> Report:
    """Run all steps at once and return the report."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            report: Report = end.value
            return report
