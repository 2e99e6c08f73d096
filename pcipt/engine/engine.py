"""The engine: the queue, the memory, the views and the reconciliation, put together for one service.

It opens nothing: host, hypervisor, store and clocks are given, so the same engine runs live, on a recorded
machine and in every test. Whatever happens is added to `queue`; `reconcile` takes what is due.
"""

import time
from collections import deque
from collections.abc import Callable, Collection

import attrs

from pcipt.engine.findings import Told
from pcipt.engine.interfaces import Host, Settings, Store
from pcipt.engine.memory import Memory
from pcipt.engine.performer import Performer, Rehearsal, Tools
from pcipt.engine.queue import EVERYTHING, Queue, Reason
from pcipt.engine.reconcile import Reconciler
from pcipt.engine.registers import Registers
from pcipt.engine.report import Report, Scope
from pcipt.engine.saver import Saver
from pcipt.engine.views.views import Views
from pcipt.pci import Finding, Machine, RawFunction, Sbdf
from pcipt.remap.actions import Action, Outcome
from pcipt.remap.explain import Explanation, explain
from pcipt.remap.ledger import Ledger
from pcipt.remap.view import XenView, ghosts
from pcipt.xen.interface import Hypervisor

HISTORY = 200


@attrs.frozen
class Record:
    """The outcome of an action, and when it was taken (UTC, RFC 3339)."""

    when: str
    outcome: Outcome


class Engine:
    """`clock` tells the time in words, `monotonic` is a clock that never goes back, in seconds.

    `interrupted` returns True if no further action may begin. `take_messages` puts the messages that have
    arrived into the queue; it does nothing else.
    """

    def __init__(
        self, host: Host, xen: Hypervisor, store: Store, settings: Settings, clock: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._monotonic = monotonic
        self.interrupted: Callable[[], bool] = lambda: False
        self.take_messages: Callable[[], None] = lambda: None
        self.settings = settings
        self.records: deque[Record] = deque(maxlen=HISTORY)
        self.since = clock()
        ledger, boot, store_findings = store.load(host.boot_id)
        self.service_findings: list[Finding] = [*store_findings]
        self.memory = Memory(ledger, boot)
        self.queue = Queue()
        self.views = Views(host, xen, self.memory)
        self._saver = Saver(store)
        self._performer = Performer(Tools(xen, Registers(host), store, self))
        self._reconciler = self._make_reconciler(self.queue, self._performer)
        self.queue.add(EVERYTHING, Reason.TIMER, monotonic())

    def _make_reconciler(self, queue: Queue, performer: Performer | Rehearsal) -> Reconciler:
        return Reconciler(queue, self.views, performer, self, self._saver, self._monotonic)

    # Work.

    def add(self, key: Sbdf, reason: Reason, *, quiet: float = 0.0) -> None:
        """Add a function to the queue."""
        self.queue.add(key, reason, self._monotonic(), quiet=quiet)

    def add_everything(self, reason: Reason, *, quiet: float = 0.0) -> None:
        """Add EVERYTHING to the queue."""
        self.queue.add(EVERYTHING, reason, self._monotonic(), quiet=quiet)

    def next_due(self) -> float | None:
        """Return in how many seconds work is due, None if there is none."""
        at = self.queue.next_due()
        return None if at is None else max(0.0, at - self._monotonic())

    def take(self, *, whole: bool = True) -> Scope:
        """Take the work that is due now; without `whole` none for EVERYTHING."""
        return Scope(self.queue.take(self._monotonic(), whole=whole))

    def reconcile(self, scope: Scope) -> Report:
        """Reconcile what was taken from the queue; of EVERYTHING one slice."""
        report = self._reconciler.reconcile(scope)
        self.records.extend(Record(self._clock(), outcome) for outcome in report.outcomes)
        self._find_in_service()
        return report

    def work_off(self, *, whole: bool = True) -> list[Report]:
        """Reconcile until nothing is due now, except for EVERYTHING if not `whole`; return the reports."""
        reports: list[Report] = []
        while (scope := self.take(whole=whole)).work:
            reports.append(self.reconcile(scope))
            if self.interrupted():
                break
        return reports

    def rehearse(self) -> Callable[[], Report]:
        """Begin a dry run of EVERYTHING; each call of the returned function does one slice of it.

        Nothing is performed, recorded or remembered. What its reading finds different becomes work.
        """
        queue = Queue()
        queue.add(EVERYTHING, Reason.REQUESTED, self._monotonic())
        rehearsal = self._make_reconciler(queue, Rehearsal(self))

        def one_slice() -> Report:
            report = rehearsal.reconcile(Scope(queue.take(self._monotonic())))
            if report.finished:
                different = {*report.changed, *self.views.take_different()}
                waits = bool(self.queue.reasons_of(EVERYTHING))  # which plans for all of them
                for sbdf in sorted(different) if not waits else ():
                    self.queue.add(sbdf, Reason.DIFFERENT, self._monotonic())
                self._reconciler.find_everything()
                self._find_in_service()
            return report

        return one_slice

    def save(self) -> None:
        """Write the ledger as a whole: the service ends."""
        self._saver.save(self.memory)

    def close(self) -> None:
        self._saver.close()

    def explain(self, sbdf: Sbdf) -> Explanation:
        """Explain one function, read again just now; if it is different it becomes work.

        Raises: KeyError if the machine does not have it.
        """
        views = self.views
        for changed in sorted(views.read([sbdf])):
            self.queue.add(changed, Reason.DIFFERENT, self._monotonic())
        if not views.ask([sbdf]):
            self.queue.repeat(sbdf, Reason.NOT_ASKED, self._monotonic(), 0)
        return explain(
            sbdf,
            views.remembered(),
            removed=self.memory.removed,
            ignored=views.ignored_writes([sbdf]),
            regions=views.plan_regions([sbdf]),
            performs=self.allows,
        )

    # What the performer asks.

    def allows(self, action: Action) -> bool:
        return self.settings.performs(action.word)

    def stopping(self) -> bool:
        return self.interrupted()

    def now(self) -> str:
        return self._clock()

    def collect(self) -> None:
        self.take_messages()

    # What is told.

    @property
    def machine(self) -> Machine:
        return self.views.machine

    @property
    def raws(self) -> dict[Sbdf, RawFunction]:
        return self.views.state.raws

    @property
    def view(self) -> XenView:
        return self.views.view

    @property
    def ledger(self) -> Ledger:
        return self.memory.ledger

    @property
    def given_away(self) -> list[Sbdf]:
        """The functions that are bound to xen-pciback."""
        return self.views.given(self.machine.functions)

    @property
    def added(self) -> list[Sbdf]:
        """The functions that Xen knows because pcipt told it."""
        return self.ledger.added(self.view.known)

    @property
    def ghosts(self) -> list[Sbdf]:
        """The functions that Xen lists and the machine does not have."""
        here: Collection[Sbdf | None] = frozenset(self.views.state.renumbered.values())
        return [sbdf for sbdf in ghosts(self.machine, self.view) if sbdf not in here]

    @property
    def findings(self) -> list[Told]:
        """Everything that is wrong now: in the service, between the views, in single functions."""
        self._find_in_service()
        return self._reconciler.findings.all()

    @property
    def finding_count(self) -> int:
        self._find_in_service()
        return len(self._reconciler.findings)

    @property
    def known_functions(self) -> int:
        """How many functions of the machine Xen lists."""
        return len(self.machine.functions) - len(self._reconciler.findings.unlisted)

    @property
    def must_read_everything(self) -> bool:
        """True while messages were lost and EVERYTHING is not finished since."""
        return Reason.LOST in self.queue.reasons_of(EVERYTHING)

    def unsettled(self) -> bool:
        """Return True if work is due, or messages were lost, or Xen could not be asked about something."""
        unknown = bool(self.queue.keys_with(Reason.NOT_ASKED))
        return unknown or self.must_read_everything or self.queue.is_due(self._monotonic())

    def news(self) -> tuple[list[Told], list[Told]]:
        """Return the findings that are new and those that are gone since the last call."""
        self._find_in_service()
        return self._reconciler.findings.news()

    def _find_in_service(self) -> None:
        own = [*self.service_findings, *self._saver.findings]
        self._reconciler.findings.find_in_service(self.views, own)
