"""Tells what happens, once, to everybody who listens: the log, each function's history, the monitors."""

from collections.abc import Callable
from typing import Any

from pcipt.pci import Finding, Machine, PciPath, Sbdf
from pcipt.remap.actions import Outcome, Result
from pcipt.remap.changes import Change
from pcipt.service import events
from pcipt.service.events import Event
from pcipt.service.history import History

Told = list[tuple[Sbdf | None, Finding]]


class Chronicle:
    """`publish` reaches the monitors; until somebody sets it, nobody listens."""

    def __init__(self, log: Any, clock: Callable[[], str]) -> None:
        self._log = log
        self._clock = clock
        self._history = History()
        self._findings: Told = []
        self.publish: Callable[[Event], None] = lambda _event: None
        self.last_change: Event | None = None

    def tell_outcome(self, outcome: Outcome, machine: Machine) -> None:
        action = outcome.action
        say = self._log.info if outcome.result in (Result.DONE, Result.PLANNED) else self._log.warning
        detail = {"detail": outcome.detail} if outcome.detail else {}
        say(action.word, sbdf=str(action.sbdf), result=outcome.result.value, reason=action.reason, **detail)
        self._add(_place(action.sbdf, machine), events.event_from_outcome(outcome, self._clock()))

    def tell_change(self, change: Change, *, read_back: bool) -> None:
        self.last_change = events.event_from_change(change, self._clock(), read_back=read_back)
        self._add(change.place, self.last_change)

    def tell_hotplug(self, sbdf: Sbdf, machine: Machine) -> None:
        self._log.info("hot-plug", sbdf=str(sbdf))
        self._add(_place(sbdf, machine), events.event_from_hotplug(sbdf, self._clock()))

    def tell_loss(self, what: str, count: int | None = None) -> None:
        self._log.warning("comparing everything", reason=what)
        self.publish(events.event_from_loss(self._clock(), count, what))

    def tell_findings(self, findings: Told) -> None:
        """Tell which findings are new and which are gone since the last time."""
        before, self._findings = self._findings, findings
        for told, other, gone in ((findings, before, False), (before, findings, True)):
            for sbdf, finding in told:
                if (sbdf, finding) not in other:
                    self.publish(events.event_from_finding(sbdf, finding, self._clock(), gone=gone))

    def history_of(self, machine: Machine, target: Sbdf | PciPath) -> list[Event]:
        return self._history.of(machine, target)

    def _add(self, place: PciPath | Sbdf, event: Event) -> None:
        self._history.add(place, event)
        self.publish(event)


def _place(sbdf: Sbdf, machine: Machine) -> PciPath | Sbdf:
    function = machine.functions.get(sbdf)
    return sbdf if function is None or function.path is None else function.path
