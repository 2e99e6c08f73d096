"""Compares everything when a user asks for it: the reply is sent when the last slice is done.

The service does its other work between two slices. Each dry run is done separately, for one client.
"""

from collections.abc import Callable, Sequence

from pcipt.daemon.control.connection import Later
from pcipt.daemon.control.protocol import Message
from pcipt.daemon.control.status import actions_to_json, health_of
from pcipt.daemon.loop import Loop
from pcipt.engine.engine import Engine
from pcipt.engine.queue import Reason, Work
from pcipt.engine.report import Report, Scope
from pcipt.remap.actions import Outcome

WorkOff = Callable[..., list[Outcome]]


class Resyncs:
    """The comparisons of everything that clients have asked for.

    `work_off` does the work that is due and returns the outcomes. With `whole=False` the work for EVERYTHING
    (the whole machine) stays in the queue.
    """

    def __init__(self, engine: Engine, loop: Loop, work_off: WorkOff) -> None:
        self._engine = engine
        self._loop = loop
        self._work_off = work_off
        self._waiting: list[Later] = []  # asked since the present comparison began
        self._work: Work | None = None  # the present comparison, its clients, its outcomes so far
        self._served: list[Later] = []
        self._outcomes: list[Outcome] = []

    def begin(self, dry_run: bool) -> Later:
        """Begin to compare everything; return the reply to `Resync`, which is given when the comparison is
        finished.

        With `dry_run` no action is performed, and the comparison is for this client alone. Otherwise one
        comparison serves all clients that asked before it began. A client that asks later waits for the next
        comparison.
        """
        later = Later()
        if dry_run:
            self._rehearse(later, self._engine.rehearse())
        else:
            self._waiting.append(later)
            self._engine.add_everything(Reason.REQUESTED)
        return later

    def take(self, scope: Scope, report: Report) -> None:
        """Take the report of one reconciliation.

        If this reconciliation was the last slice of a comparison that clients asked for, answer these
        clients. The outcomes of the comparison's earlier slices are kept for the answer. Reports of other
        reconciliations are ignored. Before the answer, functions that are due are reconciled too, and their
        outcomes are added.
        """
        work = scope.everything
        if work is None or not scope.has(Reason.REQUESTED):
            return
        if work is not self._work:
            self._work = work
            self._served, self._waiting, self._outcomes = self._waiting, [], []
        self._outcomes += report.outcomes
        if not report.finished:
            return
        served, self._served = self._served, []
        outcomes = [*self._outcomes, *self._work_off(whole=False)]
        for later in served:
            later.give(self._answer(outcomes))

    def _rehearse(self, later: Later, one_slice: Callable[[], Report]) -> None:
        """Do the slices of a dry run by calling `one_slice`, after everything else of a turn of the loop.

        After the last slice, give the answer to `later`.
        """
        outcomes: list[Outcome] = []

        def advance() -> None:
            report = one_slice()
            outcomes.extend(report.outcomes)
            if report.finished:
                later.give(self._answer(outcomes))
            else:
                self._loop.last(advance)

        self._loop.last(advance)

    def _answer(self, outcomes: Sequence[Outcome]) -> Message:
        """Return the reply to `Resync`: the health now, and the outcomes as actions."""
        health = health_of(self._engine, besides_requests=True)
        return {"version": 1, "health": health, "actions": actions_to_json(outcomes)}
