"""Takes due work from the queue, has it reconciled, and lets the watcher know what was read."""

from collections.abc import Callable

from pcipt.daemon.watcher import Watch
from pcipt.engine.engine import Engine
from pcipt.engine.queue import Reason
from pcipt.engine.report import Report, Scope
from pcipt.remap.actions import Outcome

Tell = Callable[[Scope, Report], None]


class Worker:
    """`tell` is called with each scope and what came of it. Without `whole` EVERYTHING waits."""

    def __init__(self, engine: Engine, watch: Watch, tell: Tell) -> None:
        self._engine = engine
        self._watch = watch
        self._tell = tell

    def turn(self, *, whole: bool = True) -> Report | None:
        """Do one piece of work that is due; return None if nothing is due."""
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
        """Work until nothing is due now; return the outcomes worth telling."""
        outcomes: list[Outcome] = []
        while (report := self.turn(whole=whole)) is not None:
            outcomes += report.outcomes
            if report.finished and self._engine.stopping():
                break
        return outcomes

    def _refresh(self, scope: Scope, report: Report) -> None:
        """Give the watcher what hardware says now: of all functions if some may have come or gone."""
        raws = self._engine.raws
        if report.shape_changed:
            self._watch.begin(self._engine.machine, raws)
            return
        written = scope.with_reason([Reason.WRITTEN])
        self._watch.refresh(raws[sbdf] for sbdf in sorted(written) if sbdf in raws)
