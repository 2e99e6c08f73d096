"""The engine: the one place where the rooms meet.

It reads the machine, asks Xen, plans, has every action guarded and performed, and keeps what is told of it.
It opens nothing itself: host, hypervisor, keeper and clocks are given, so the same engine runs live, on a
recorded machine and in every test. On a machine whose three views agree it changes nothing. What one change
costs does not grow with the machine: only what was read anew is planned for.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs

from pcipt.daemon.settings import Settings
from pcipt.engine.findings import Complaints, Told
from pcipt.engine.handovers import Handovers
from pcipt.engine.interfaces import Host, Keeper
from pcipt.engine.judge import Judge
from pcipt.engine.needs import adopt, gather_needs
from pcipt.engine.open_actions import Standing, addresses_of
from pcipt.engine.papers import Papers
from pcipt.engine.performer import Performer, Tools
from pcipt.engine.registers import Registers
from pcipt.engine.retries import Retries
from pcipt.engine.unasked import Unasked
from pcipt.engine.views import Situation
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import Finding, Machine, RawFunction, Sbdf
from pcipt.remap.actions import Action, AddDevice, MapMmio, Outcome, RemoveDevice, Result, RewriteBar
from pcipt.remap.explain import Explanation
from pcipt.remap.ignored import IgnoredWrite, Intents, plan_rewrites
from pcipt.remap.ledger import Ledger
from pcipt.remap.plan import expected_view, plan_announcements
from pcipt.remap.plan_mappings import note, plan_mappings
from pcipt.remap.view import DOM0, XenView, ghosts
from pcipt.xen.interface import Hypervisor

HISTORY = 200
ROUNDS = 3  # of planning again for what was found different while acting
TIDY_AGAIN = 60.0  # seconds until that is tried again where the disk did not take it
TIDY_AFTER = 5.0  # seconds without an action until the ledger is written as a whole


@attrs.frozen
class Record:
    """What came of an action, and when (UTC, RFC 3339)."""

    when: str
    outcome: Outcome


class Engine:
    """`now` is a clock that never goes back, for pauses; `due` tells on it when `tick` wants to be called."""

    def __init__(
        self, host: Host, xen: Hypervisor, keeper: Keeper, settings: Settings, clock: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._now = now
        self._papers = Papers(keeper)
        self._standing = Standing()
        self._retries = Retries()
        self._handovers = Handovers()
        self._unasked = Unasked()
        self._tidy_at: float | None = None
        self.service_findings: list[Finding] = []
        self.interrupted: Callable[[], bool] = lambda: False
        self.wake: Callable[[], None] = lambda: None  # has `tick` called soon
        self.listen: Callable[[], None] = lambda: None  # takes what the kernel has told by now; see `part`
        self.intents = Intents()
        self.settings = settings
        self.records: deque[Record] = deque(maxlen=HISTORY)
        self.since = clock()
        ledger, snapshot, keeper_findings = keeper.load(host.boot_id)
        self.service_findings += keeper_findings
        self._situation = Situation(host, xen, ledger)
        self._judge = Judge(self._situation, self._standing)
        self._performer = Performer(Tools(xen, Registers(host), self._situation, keeper, self))
        self._situation.read_everything()
        self.missed = False  # others may have come in the places of some, without a message
        self._just_read = True  # and whatever has happened since tells of itself
        if snapshot is None:
            snapshot = snapshot_from_machine(host.boot_id, self.machine)
            self._papers.save_snapshot(snapshot)
        self._situation.know_boot(snapshot)

    def reconcile(self, *, dry_run: bool = False, insist: bool = True) -> list[Outcome]:
        """Compare everything and repair what may be repaired; nothing remembered is trusted.

        With `insist` what failed too often is tried again: somebody asked for it.
        """
        self._papers.save_snapshot()
        if not self._just_read:
            different = self._situation.read_everything()
            # After a dry run its own message will find it unchanged, and the shadow of writes sees no write.
            self._situation.unplanned = {*self._situation.unplanned, *different} if dry_run else set()
        self._just_read = False
        if not self._situation.ask_everything():
            return self._left(None)
        self._unasked.everything = False
        if insist and not dry_run:
            self._retries.reset()
        first = not self.ledger.mapped.places
        settled = self.ledger.reconciled(self.view.known)
        if settled != self.ledger:
            self._situation.ledger = settled
            self._tidy_at = self._now()
        self._situation.follow_ledger()
        if self._tidy_at is not None and not dry_run:
            self.tidy()
        if first and not self._situation.pvh:
            adopt(self._situation, self._clock())
        self._situation.disown(self.machine.functions)
        outcomes = self._act(None, self.machine.functions, dry_run=dry_run)
        if not dry_run:
            self.missed = False
            outcomes += self._again()
        self._wait_for_owners(self.machine.functions, {})
        self._look_again()
        self._complain()
        return outcomes

    def follow(self, changed: Collection[Sbdf]) -> list[Outcome]:
        """Do the same for these functions only: they came, went or changed hands."""
        before = {sbdf: self.view.owner(sbdf) for sbdf in changed}
        outcomes = self._follow(changed, handed=True)
        self._wait_for_owners(changed, before)
        return outcomes

    def _wait_for_owners(self, functions: Collection[Sbdf], before: Mapping[Sbdf, str]) -> None:
        """Have those looked at again that may be about to change hands: they had the same owner before."""
        owners = self._situation.owners(functions)
        same = {sbdf: owner for sbdf, owner in owners.items() if owner == before.get(sbdf, DOM0)}
        self._handovers.begin(same, self._situation.guests.findings.keys() & {*functions}, self._now())

    def part(self, functions: Collection[Sbdf]) -> None:
        """Note that Linux has dropped these, whatever it has there by now: vPCI unmaps nothing of theirs."""
        self._situation.part(functions)

    def _follow(self, changed: Collection[Sbdf], *, handed: bool) -> list[Outcome]:
        changed = {*changed, *self._situation.unasked}
        different = self._situation.read_for_plan(changed)
        scope = changed | different
        if not self._situation.ask(scope, handed=handed):
            return self._left(scope)
        return self._round(scope, scope)

    def reread(self, written: Collection[Sbdf]) -> list[Outcome]:
        """Read these functions again: they were written to. Xen is asked in full only where it matters."""
        if self._situation.unasked:
            return self._follow(written, handed=False)
        different = self._situation.read_for_plan(written)
        scope = {*written, *different}
        moved = {
            sbdf
            for sbdf in scope
            if sbdf in self._situation.picture.moves or sbdf in self._situation.followed
        }
        lapsed = self._situation.ask_if_listed(different)
        if lapsed is None or (lapsed | moved and not self._situation.ask(lapsed | moved)):
            return self._left(scope)
        lapsed |= moved
        return self._round(lapsed, scope)

    def tick(self) -> list[Outcome]:
        """Do what is due by now: try again what failed, look who has what, tidy the papers."""
        now = self._now()
        if self._unasked.is_ripe(now):
            return self.reconcile(insist=False) if self._unasked.everything else self._follow((), handed=True)
        ripe = self._retries.ripe(now)
        outcomes: list[Outcome] = []
        if ripe:
            scope = {sbdf for action in ripe for sbdf in addresses_of(action)}
            outcomes = self._follow(scope, handed=False)
            self._retries.forget(self._retries.untried(ripe, now))
        if self._situation.unplanned:
            outcomes += self._follow((), handed=False)
        if self._handovers.due is not None and self._handovers.due <= now:
            waiting = self._handovers.waiting
            outcomes += self._follow(waiting, handed=True)
            clinging = self._situation.guests.findings.keys()
            self._handovers.looked(self._situation.owners(waiting), clinging, now)
        if self._tidy_at is not None and self._tidy_at <= now:
            self.tidy()
        return outcomes

    @property
    def due(self) -> float | None:
        """In how many seconds `tick` is to be called; None while nothing waits."""
        if self._situation.unplanned:
            return 0.0
        waits = (self._retries.due, self._unasked.due, self._handovers.due, self._tidy_at)
        times = [at for at in waits if at is not None]
        return max(0.0, min(times) - self._now()) if times else None

    def tidy(self) -> None:
        """Write the ledger as a whole, and what vPCI was seen to map."""
        self._tidy_at = None
        if not self._papers.save_ledger(self.ledger):
            self._tidy_at = self._now() + TIDY_AGAIN
        self._complain(())

    def close(self) -> None:
        self._papers.close()

    def explain(self, sbdf: Sbdf) -> Explanation:
        """Explain one function, read again just now.

        Raises: KeyError where the machine does not have it.
        """
        explained = self._situation.explain(sbdf, self._ignored, self.allows)
        if self._situation.unplanned:
            self.wake()
        return explained

    # What the performer asks.

    def allows(self, action: Action) -> bool:
        return self.settings.performs(action.word)

    def stopping(self) -> bool:
        return self.interrupted()

    def now(self) -> str:
        return self._clock()

    def came(self, outcome: Outcome) -> None:
        """Take in what came of an action, before the next one is guarded."""
        action = outcome.action
        if outcome.result in (Result.DONE, Result.FAILED):
            self._tidy_at = self._now() + TIDY_AFTER
            if isinstance(action, AddDevice | RemoveDevice):
                self._situation.ask(addresses_of(action))  # a failed one may have been done all the same
            if isinstance(action, RewriteBar):
                self._situation.later |= self._situation.read([action.sbdf])
        self._retries.came(outcome, self._now())
        if outcome.result is Result.FAILED and isinstance(action, MapMmio):
            held = self.ledger.mapped.over(action.frames)  # others' pages there are gone too
            self._situation.later |= {run.sbdf for run in held if run.place != action.place}

    # Planning.

    def _left(self, functions: Collection[Sbdf] | None) -> list[Outcome]:
        """Leave these for now (None is all), for Xen could not be asked about them."""
        self._situation.unasked.update(functions or ())
        self._unasked.look(self._now(), open_questions=True, everything=functions is None)
        self._complain(functions)
        return []

    def _round(self, listed: Collection[Sbdf], scope: Collection[Sbdf]) -> list[Outcome]:
        """Act for what was read; what is found different meanwhile is acted on after that."""
        self._situation.disown(listed)
        outcomes = self._act(listed, scope, dry_run=False) + self._again()
        self._look_again()
        touched = {sbdf for outcome in outcomes for sbdf in addresses_of(outcome.action)}
        self._complain({*listed, *scope, *touched})
        return outcomes

    def _again(self) -> list[Outcome]:
        """Act on what was found different while acting; what still changes then is left to its own events."""
        outcomes: list[Outcome] = []
        for _ in range(ROUNDS):
            later, self._situation.later = self._situation.later, set()
            if not later or self.interrupted():
                break
            outcomes += self._act(later, later, dry_run=False)
            self._complain(later)
        return outcomes

    def _act(self, listed: Collection[Sbdf] | None, scope: Iterable[Sbdf], *, dry_run: bool) -> list[Outcome]:
        """Announce for `listed` (None is all), repeat ignored writes and map for `scope`."""
        picture, view = self._situation.picture, self.view
        everything = listed is None
        announcements: tuple[Action, ...] = ()
        if everything or listed:
            announcements = plan_announcements(
                self.machine, view, departed=picture.departed, only=listed, moves=picture.moves,
                followed=self._situation.followed,
            )  # fmt: skip
        outcomes = self._perform(announcements, dry_run=dry_run)
        if dry_run:
            done = [o.action for o in outcomes if o.result is Result.PLANNED and self.allows(o.action)]
            view = expected_view(view, done)
        elif announcements:
            self._situation.follow_ledger()
        subjects = {*scope, *(sbdf for action in announcements for sbdf in addresses_of(action))}
        regions = self._situation.plan_regions(None if everything else subjects, view)
        outcomes += self._perform(regions, dry_run=dry_run)
        scopes = self._situation.reserved.scopes
        subjects |= {sbdf for action in regions for sbdf in scopes.get(action.frames, ())}
        rewrites = plan_rewrites(self._ignored(subjects))
        outcomes += self._perform(rewrites, dry_run=dry_run)
        self.listen()  # what was read may have come after another one had left, and nobody unmaps for that
        places = self._standing.places
        desired = gather_needs(self._situation, subjects, view, places, everything=everything)
        plan = plan_mappings(desired, self.ledger.mapped, picture.bars, missed=self.missed)
        if dry_run:
            return outcomes + self._perform(plan.actions, dry_run=True)
        picture.concluded(desired)
        for each in desired:
            if each.gone:
                self.intents.drop(each.place)
        note(plan, self.ledger.mapped, self._clock())
        if plan.left or plan.taken or plan.moved:
            self._tidy_at = self._now() + TIDY_AFTER
        outcomes += self._perform(plan.actions, dry_run=False)
        planned = (*announcements, *regions, *rewrites, *plan.actions)
        subjects |= {each.sbdf for each in desired}
        news, lapsed = self._standing.replace(
            planned, outcomes, None if everything else subjects, announced=everything or bool(listed)
        )
        self._retries.forget(lapsed)
        told = outcomes if everything else news
        self.records.extend(Record(self._clock(), outcome) for outcome in told)
        return told

    def _ignored(self, scope: Iterable[Sbdf]) -> list[IgnoredWrite]:
        if not self._situation.pvh:
            return []
        functions = (self.machine.functions.get(sbdf) for sbdf in scope)
        return self.intents.among(function for function in functions if function is not None)

    def _perform(self, actions: Iterable[Action], *, dry_run: bool) -> list[Outcome]:
        """Have actions performed, but those that failed a moment ago."""
        now = self._now()
        ripe = [action for action in actions if dry_run or self._retries.may(action, now)]
        return self._performer.perform(ripe, dry_run=dry_run)

    def _look_again(self) -> None:
        """Have Xen asked again about what is open: where regions are, everything is compared again."""
        regions = bool(self._situation.reserved.open)
        some = regions or bool(self._situation.unasked)
        self._unasked.look(self._now(), open_questions=some, everything=regions)

    # What is told.

    @property
    def machine(self) -> Machine:
        return self._situation.machine

    @property
    def view(self) -> XenView:
        return self._situation.view

    @property
    def ledger(self) -> Ledger:
        return self._situation.ledger

    @property
    def given_away(self) -> list[Sbdf]:
        """The functions bound to xen-pciback: whose they are changes without a message about themselves."""
        return self._situation.given(self.machine.functions)

    @property
    def situation(self) -> Situation:
        """What actions are planned from, for those who tell of it."""
        return self._situation

    @property
    def raws(self) -> Mapping[Sbdf, RawFunction]:
        """What was read of each function last."""
        return self._situation.picture.raws

    @property
    def added(self) -> list[Sbdf]:
        """The functions that Xen knows because pcipt told it, in this boot."""
        return self.ledger.added(self.view.known)

    @property
    def ghosts(self) -> list[Sbdf]:
        here = frozenset(self._situation.picture.moves.values())
        return [sbdf for sbdf in ghosts(self.machine, self.view) if sbdf not in here]

    @property
    def findings(self) -> list[Told]:
        """Everything that is wrong now: in the service, between the views, in single functions."""
        return self._complain(()).all()

    @property
    def complaints(self) -> int:
        """How many findings there are."""
        return len(self._complain(()))

    @property
    def known_functions(self) -> int:
        """How many functions of the machine Xen lists."""
        return len(self.machine.functions) - len(self._judge.unlisted)

    def news(self) -> tuple[list[Told], list[Told]]:
        """Tell which findings are new and which are gone since this was asked last."""
        return self._complain(()).news()

    def _complain(self, scope: Collection[Sbdf] | None = None) -> Complaints:
        """Find anew what is wrong with the functions in `scope` (None is all) and with the service."""
        self._judge.judge_service([*self.service_findings, *self._papers.findings])
        self._judge.judge_functions(scope, self._ignored)
        return self._judge.complaints
