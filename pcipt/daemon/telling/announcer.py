"""Tells what happens, once, to everybody who listens: the log, each function's history, monitors, metrics."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from pcipt.daemon.telling import events
from pcipt.daemon.telling.events import Event
from pcipt.daemon.telling.history import History
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.telling.metrics import Metrics
from pcipt.pci import Finding, Machine, PciPath, Sbdf
from pcipt.remap.actions import Action, Outcome, Result
from pcipt.remap.writes.changes import Change

Told = tuple[Sbdf | None, Finding]

# What becomes of an action that is no news for an administrator; the others are warnings.
_QUIET = frozenset({Result.DONE, Result.PLANNED, Result.NOT_APPLICABLE})
# Members of a change's event that the journal gets under these names.
_FIELDS = {"bar": "bar", "from": "old", "to": "new", "size": "size", "who": "who", "source": "source"}
# What the kernel tells of a function that is not about its coming and going.
_UEVENTS = {"bind": "driver bound", "unbind": "driver unbound", "owner": "a guest's passthrough changed"}


class Announcer:
    """`publish` reaches the monitors; until somebody sets it, nobody listens."""

    def __init__(self, log: Logs, metrics: Metrics, clock: Callable[[], str]) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._history = History()
        self.publish: Callable[[Event], None] = lambda _event: None
        self.last_change: Event | None = None

    def tell_outcome(self, outcome: Outcome, machine: Machine) -> None:
        action = outcome.action
        say = self._log.info if outcome.result in _QUIET else self._log.warning
        about: dict[str, Any] = {
            "range": getattr(action, "frames", None),
            "bar": getattr(action, "bar", None),
            "result": outcome.result.value,
            "reason": action.reason,
            "rule": outcome.rule or None,
            "detail": outcome.detail or None,
            "errno": outcome.errno,
        }
        given = {key: value for key, value in about.items() if value is not None}
        say(action.word, kind="action", sbdf=action.sbdf, action=action.word, **given)
        self._metrics.count_outcome(outcome)
        self._add(_place_of_action(action, machine), events.event_from_outcome(outcome, self._clock()))

    def tell_change(self, change: Change, *, read_back: bool) -> None:
        event = events.event_from_change(change, self._clock(), read_back=read_back)
        word = event.get("change", "change")
        given = {name: _plain(event[key]) for key, name in _FIELDS.items() if event.get(key) is not None}
        self._log.info(str(word), kind="change", sbdf=change.sbdf, change=word, **given)
        self._metrics.count_change(str(word))
        self.last_change = event
        self._add(change.place, event)

    def tell_hotplug(self, sbdf: Sbdf, action: str, place: Sbdf | str) -> None:
        """Tell what the kernel said of a function; a driver that is bound or unbound is said as such."""
        self._log.info(_UEVENTS.get(action, "hot-plug"), kind="hotplug", sbdf=sbdf, uevent=action)
        self._add(place, events.event_from_hotplug(sbdf, action, self._clock()))

    def tell_loss(self, what: str, count: int | None = None) -> None:
        missing = {"count": count} if count else {}
        self._log.warning("comparing everything", kind="lost", reason=what, **missing)
        self.publish(events.event_from_loss(self._clock(), count, what))

    def tell_findings(self, new: Iterable[Told], gone: Iterable[Told]) -> None:
        """Tell which findings are new and which are gone since the last time."""
        for told in new:
            self._tell_finding(told, gone=False)
        for told in gone:
            self._tell_finding(told, gone=True)

    def _tell_finding(self, told: Told, *, gone: bool) -> None:
        sbdf, finding = told
        where = {} if sbdf is None else {"sbdf": sbdf}
        if gone:
            self._log.info("finding gone", kind="finding-gone", code=finding.code, **where)
        else:
            self._log.warning("finding", kind="finding", code=finding.code, text=finding.text, **where)
        self.publish(events.event_from_finding(sbdf, finding, self._clock(), gone=gone))

    def history_of(self, machine: Machine, target: Sbdf | PciPath) -> list[Event]:
        return self._history.of(machine, target)

    def _add(self, place: PciPath | Sbdf | str, event: Event) -> None:
        self._history.add(place, event)
        self.publish(event)


def _plain(value: Any) -> str | int:
    return value if isinstance(value, str | int) else json.dumps(value)


def _place_of_action(action: Action, machine: Machine) -> PciPath | Sbdf | str:
    """Find where its function is, also when it has just been renumbered or has left."""
    told = getattr(action, "place", None)
    if told is not None:
        return str(told)
    for name in ("sbdf", "moved_from", "moved_to"):
        sbdf: Sbdf | None = getattr(action, name, None)
        if sbdf is not None and sbdf in machine.functions:
            return _place(sbdf, machine)
    return action.sbdf


def _place(sbdf: Sbdf, machine: Machine) -> PciPath | Sbdf:
    function = machine.functions.get(sbdf)
    return sbdf if function is None or function.path is None else function.path
