"""The engine: the queue, the memory, the views and the reconciliation, put together for one service.

It opens nothing: host, hypervisor, store and clocks are given, so the same engine runs live, on a recorded
machine and in every test. Whatever happens is added to `queue`; `reconcile` takes what is due.
"""

import time
from collections import deque
from collections.abc import Callable, Collection

import attrs

from pcipt.engine.calls import Tools
from pcipt.engine.findings import Told
from pcipt.engine.interfaces import Host, Settings, Store
from pcipt.engine.leftovers import unseen
from pcipt.engine.memory import Memory
from pcipt.engine.performer import Performer, Rehearsal
from pcipt.engine.queue import CONSOLE, EVERYTHING, LOOKS, OWNERS, UNHURRIED, Key, Queue, Reason
from pcipt.engine.reconcile import Reconciler
from pcipt.engine.registers import Registers
from pcipt.engine.report import Report, Scope
from pcipt.engine.saver import Saver
from pcipt.engine.views.host import HostView
from pcipt.engine.views.meanwhile import follow_log
from pcipt.engine.views.policy.ports import plan_ports
from pcipt.engine.views.regions import plan_regions
from pcipt.engine.views.unreached import commands_of
from pcipt.engine.views.views import Views
from pcipt.engine.views.vpci_picture import ignored_of
from pcipt.firmware.passthrough.host import Host as HostAbility
from pcipt.pci import Finding, Machine, RawFunction, Sbdf
from pcipt.remap.actions import Action, Outcome
from pcipt.remap.explain import Explanation, explain
from pcipt.remap.holes import holes_from
from pcipt.remap.ledger import Ledger
from pcipt.remap.view import XenView, ghosts
from pcipt.xen.interface import Hypervisor

HISTORY = 200


@attrs.frozen
class Record:
    """The outcome of an action, and the time at which it was told (UTC, RFC 3339)."""

    when: str
    outcome: Outcome


class Engine:
    """The engine of one service. Its user adds keys, takes due work, and reconciles it.

    The constructor gets `clock`, which returns the time (UTC, RFC 3339), and `monotonic`, which returns
    seconds and never goes back. The user may replace two attributes: `interrupted` returns True if no further
    action may begin; `take_messages` puts all messages that have arrived into the queue. The engine keeps
    `records`, the last outcomes that are applicable, at most HISTORY, and `service_findings`, those about the
    service itself. `readings` grows whenever machine, views or ledger may have changed.
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
        self.readings = 0
        ledger, boot, store_findings = store.load(host.boot_id)
        self.service_findings: list[Finding] = [*store_findings]
        self.memory = Memory(ledger, boot, inherited=bool(ledger.theirs()), holes=holes_from(ledger))
        self.memory.told_given_up = frozenset(ledger.given_up)
        self.queue = Queue()
        self.views = Views(host, xen, self.memory)
        if not self.views.pvh:  # on which vPCI maps nothing
            ledger.messages_lost = None
        self.use(settings)
        self._host = HostView(host, xen)
        self._saver = Saver(store)
        self._performer = Performer(Tools(xen, Registers(host), self._saver.append, self, host))
        self._reconciler = self._make_reconciler(self.queue, self._performer)
        self.queue.add(EVERYTHING, Reason.TIMER, monotonic())

    def _make_reconciler(self, queue: Queue, performer: Performer | Rehearsal) -> Reconciler:
        """Return a reconciler with this queue and performer, over the views of this engine."""
        return Reconciler(queue, self.views, performer, self, self._saver, self._monotonic)

    # Work.

    def use(self, settings: Settings) -> None:
        """Use these settings from now on; a shorter pause holds for the question to Xen that waits now."""
        self.settings, self.views.restores_on_fault = settings, settings.restore_on_fault
        self.views.state.below = settings.ports
        timers = (OWNERS, Reason.TIMER, settings.owners_s), (CONSOLE, Reason.LISTEN, settings.faults_s)
        for key, reason, pause in timers:
            if pause and self.queue.holds(key, reason):
                self.queue.add(key, reason, self._monotonic(), quiet=pause)

    def add(self, key: Key, reason: Reason, *, quiet: float = 0.0, leaves: bool = False) -> None:
        """Add a key to the queue; see `Queue.add`."""
        self.queue.add(key, reason, self._monotonic(), quiet=quiet, leaves=leaves)

    def add_everything(self, reason: Reason, *, quiet: float = 0.0) -> None:
        """Add EVERYTHING to the queue; see `Queue.add`."""
        self.queue.add(EVERYTHING, reason, self._monotonic(), quiet=quiet)

    def next_due(self) -> float | None:
        """Return in how many seconds the next work is due: 0.0 for now, None if the queue is empty."""
        return None if (at := self.queue.next_due()) is None else max(0.0, at - self._monotonic())

    def take(self, *, whole: bool = True) -> Scope:
        """Remove the work that is due from the queue and return it (`Queue.take`); empty if none is due."""
        return Scope(self.queue.take(self._monotonic(), whole=whole))

    def reconcile(self, scope: Scope) -> Report:
        """Reconcile the work in `scope` and return what came of it. Of EVERYTHING, a call does one slice."""
        report, self.readings = self._reconciler.reconcile(scope), self.readings + 1
        self.records.extend(Record(self._clock(), each) for each in report.outcomes if each.is_applicable)
        return report

    def rehearse(self) -> Callable[[], Report]:
        """Begin a dry run of EVERYTHING. Return a function: each call performs one slice of the dry run, and
        returns the report of this slice.
        No action is performed or recorded. Readings change the memory as always; plans do not change it.
        Xen's console is not read: what it holds is left to the service. After the last slice, all findings
        are replaced. Functions that the dry run found different are then added to the queue, but not while
        EVERYTHING is in the queue, because it plans for them. If the last question to Xen failed, EVERYTHING
        is added to the queue.
        """
        queue = Queue()
        queue.add(EVERYTHING, Reason.REQUESTED, self._monotonic())
        rehearsal = self._make_reconciler(queue, Rehearsal(self))

        def one_slice() -> Report:
            self.readings += 1
            report = rehearsal.reconcile(Scope(queue.take(self._monotonic())))
            if report.finished:
                different = {*report.changed, *self.views.take_different()}
                waits = bool(self.queue.reasons_of(EVERYTHING))  # which plans for all of them
                for sbdf in sorted(different) if not waits else ():
                    self.queue.add(sbdf, Reason.DIFFERENT, self._monotonic())
                if self.views.trouble is not None:
                    self.queue.repeat(EVERYTHING, Reason.NOT_ASKED, self._monotonic(), 0)
                self._reconciler.find_everything()
            return report

        return one_slice

    def save(self) -> None:
        """Write the ledger and the pages that vPCI mapped. A failure becomes a finding, not an error."""
        follow_log(self.views, self.queue, self.collect)
        self._saver.save(self.memory)

    def close(self) -> None:
        """Close the files of the store; nothing is written."""
        self._saver.close()

    def explain(self, sbdf: Sbdf, *, as_pvh: bool = False) -> Explanation:
        """Read one function again, ask Xen about it, and return what is, should be and would be done.

        All functions that the reading finds different are added to the queue. The function itself is added
        if Xen cannot be asked about it. `as_pvh`: what a PVH dom0 would need.
        Raises: KeyError if the machine does not have the function.
        """
        self.readings += 1
        views = self.views
        for changed in sorted(views.read([sbdf])):
            self.queue.add(changed, Reason.DIFFERENT, self._monotonic())
        if not views.ask([sbdf]):
            self.queue.repeat(sbdf, Reason.NOT_ASKED, self._monotonic(), 0)
        return explain(
            sbdf, views.remembered(), as_pvh=as_pvh, removed=self.memory.removed,
            ignored=ignored_of(views, [sbdf]), severed=views.state.severed,
            regions=(*plan_regions(views, [sbdf]), *plan_ports(views, [sbdf])),
            commands=commands_of(views, [sbdf]), performs=self.allows,
        )  # fmt: skip

    # What the performer asks.

    def allows(self, action: Action) -> bool:
        """Return True if the settings let this action be performed, not only planned."""
        return self.settings.performs(action.word)

    def stopping(self) -> bool:
        """Return True if no further action may begin."""
        return self.interrupted()

    def now(self) -> str:
        """Return the time (UTC, RFC 3339)."""
        return self._clock()

    def collect(self) -> None:
        """Put all messages that have arrived into the queue."""
        self.take_messages()

    # What is told.

    @property
    def machine(self) -> Machine:
        """Return all PCI functions as they were read last. The next reading changes this object in place."""
        return self.views.machine

    @property
    def raws(self) -> dict[Sbdf, RawFunction]:
        """Return the last reading of each function, before decoding; it changes in place."""
        return self.views.state.raws

    @property
    def view(self) -> XenView:
        """Return Xen's last answers. Its sets change in place, but the object may be replaced."""
        return self.views.view

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of this boot. A reconciliation of EVERYTHING may replace the object."""
        return self.memory.ledger

    @property
    def given_away(self) -> list[Sbdf]:
        """Return the functions that are bound to xen-pciback, in the order of their addresses."""
        return self.views.given(self.machine.functions)

    @property
    def added(self) -> list[Sbdf]:
        """Return the functions that pcipt added and that Xen lists with an owner, by address.

        A failed add may leave a function in Xen's list without one.
        """
        view = self.view
        return [sbdf for sbdf in self.ledger.added(view.known) if sbdf not in view.orphans]

    @property
    def ghosts(self) -> list[Sbdf]:
        """Return the addresses at which Xen lists a function and the machine has none.

        An address to which bus renumbering has moved a function is left out, and an address that is that of a
        function in a segment above ffff, cut to 16 bits (VMD).
        """
        here: Collection[Sbdf | None] = {
            *self.views.state.renumbered.values(),
            *self.views.state.cut_addresses(),
        }
        return [sbdf for sbdf in ghosts(self.machine, self.view) if sbdf not in here]

    @property
    def findings(self) -> list[Told]:
        """Return all findings that hold now: those of the service first, the others by address."""
        self._find_in_service()
        return self._reconciler.findings.all()

    @property
    def finding_count(self) -> int:
        """Return the number of findings that hold now."""
        self._find_in_service()
        return len(self._reconciler.findings)

    @property
    def host(self) -> HostAbility | None:
        """What this host can do; None while Xen has not been asked."""
        return self._host.of(self.views)

    @property
    def known_functions(self) -> int:
        """Return how many functions of the machine Xen lists.

        A function for which no findings were made yet counts as listed.
        """
        return len(self.machine.functions) - len(self._reconciler.findings.unlisted)

    @property
    def must_read_everything(self) -> bool:
        """Return True from a loss of hot-plug messages until EVERYTHING has been reconciled."""
        return Reason.LOST in self.queue.reasons_of(EVERYTHING)

    def unsettled(self, *, besides_requests: bool = False) -> bool:
        """Return True if something is not known or not done yet.

        That is so if work is due, if work waits because Xen could not be asked, if Xen's console could not be
        read for the owner of a function (`XenView.unread`), if writes show a function that Linux does not
        have (`unseen`), or if messages were lost. Lost messages count while `must_read_everything` is True.
        Work that only looks for refused DMA does not count. With `besides_requests`, work that is due only
        because of a timer or of a user's request does not count, either.
        """
        due = self.queue.has_change(self._monotonic(), UNHURRIED if besides_requests else LOOKS)
        unknown = bool(self.queue.keys_with(Reason.NOT_ASKED)) or bool(self.view.unread or unseen(self.views))
        return due or unknown or self.must_read_everything

    def news(self) -> tuple[list[Told], list[Told]]:
        """Return what `Findings.news` returns, after the findings of the service were brought up to date."""
        self._find_in_service()
        return self._reconciler.findings.news()

    def _find_in_service(self) -> None:
        """Replace the findings about the service itself by the present ones."""
        own = [*self.service_findings, *self._saver.findings, *self._host.findings(self.views)]
        self._reconciler.findings.find_in_service(self.views, own)
