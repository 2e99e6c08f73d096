"""Takes due work from the queue, lets the engine reconcile it, and tells the watcher what was read."""

from collections.abc import Callable

from pcipt.daemon.watcher import Watch
from pcipt.engine.engine import Engine
from pcipt.engine.queue import Reason
from pcipt.engine.report import Report, Scope
from pcipt.remap.actions import Outcome

Tell = Callable[[Scope, Report], None]


class Worker:
    """Does the work in the engine's queue.

    `tell` is called with the scope and the report of each reconciliation.
    """

    def __init__(self, engine: Engine, watch: Watch, tell: Tell) -> None:
        self._engine = engine
        self._watch = watch
        self._tell = tell

    def turn(self, *, whole: bool = True) -> Report | None:
        """Reconcile the work that is due now, or one slice of EVERYTHING, and return the report.

        Return None if nothing is due. If `whole` is False, work for EVERYTHING (the whole machine) stays in
        the queue and does not count as due.
        """
        if self._engine.next_due() != 0.0:
            return None
        self._watch.settle()
        scope = self._engine.take(whole=whole)
        if not scope.work:
            return None
        report = self._engine.reconcile(scope)
        if report.finished:
            self._refresh(scope, report)
        self._tell(scope, report)
        return report

    def work_off(self, *, whole: bool = True) -> list[Outcome]:
        """Call `turn` until nothing is due now; return the outcomes of all its reports, in their order.

        If SIGTERM or SIGINT has arrived, stop after the present reconciliation, but not between two slices of
        EVERYTHING. If `whole` is False, work for EVERYTHING (the whole machine) stays in the queue.
        """
        outcomes: list[Outcome] = []
        while (report := self.turn(whole=whole)) is not None:
            outcomes += report.outcomes
            if report.finished and self._engine.stopping():
                break
        return outcomes

    def _refresh(self, scope: Scope, report: Report) -> None:
        """Give the watcher the registers that were read.

        After EVERYTHING, and if functions may have been added, removed or given to another owner, the watcher
        gets the registers of all functions. Otherwise it gets those of the functions to which somebody has
        written.
        """
        raws = self._engine.raws
        if report.shape_changed:
            self._watch.begin(self._engine.machine, raws)
            return
        written = scope.with_reason([Reason.WRITTEN])
        self._watch.refresh(raws[sbdf] for sbdf in sorted(written) if sbdf in raws)
