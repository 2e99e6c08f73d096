"""The announcer: it sends each event to the log, the function's history, the monitors and the metrics."""

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
from pcipt.xen.dma_faults import DmaFault

Told = tuple[Sbdf | None, Finding]

# Results that are logged as information; all other results are warnings.
_QUIET = frozenset({Result.DONE, Result.PLANNED})
# Member of a change's event: name of its journal field.
_FIELDS = {"bar": "bar", "from": "old", "to": "new", "size": "size", "who": "who", "source": "source"}
# Hot-plug messages that are not about adding or removing a function: how they are logged.
_UEVENTS = {"bind": "driver bound", "unbind": "driver unbound", "owner": "a guest's passthrough changed"}


class Announcer:
    """Sends each event to the log, the metrics, the history of its function, and the monitors.

    `publish` sends an event to the monitors; until it is set, the monitors get nothing. `clock` returns the
    present time as RFC 3339 text. `last_change` is the event of the last register change, None before the
    first.
    """

    def __init__(self, log: Logs, metrics: Metrics, clock: Callable[[], str]) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._history = History()
        self.publish: Callable[[Event], None] = lambda _event: None
        self.last_change: Event | None = None

    def tell_outcome(self, outcome: Outcome, machine: Machine) -> None:
        """Announce an action and its outcome.

        It is logged as information if the result is done or planned, else as a warning. `machine` is needed
        to find the function's history. An action that is not applicable is only counted: on this kind of dom0
        there is nothing that it could change.
        """
        self._metrics.count_outcome(outcome)
        if not outcome.is_applicable:
            return
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
        self._add(_place_of_action(action, machine), events.event_from_outcome(outcome, self._clock()))

    def tell_change(self, change: Change, *, read_back: bool) -> None:
        """Announce a change of a function's registers.

        `read_back` is True if reading back found the change, False if a write made it.
        """
        event = events.event_from_change(change, self._clock(), read_back=read_back)
        word = event.get("change", "change")
        given = {name: _plain(event[key]) for key, name in _FIELDS.items() if event.get(key) is not None}
        self._log.info(str(word), kind="change", sbdf=change.sbdf, change=word, **given)
        self._metrics.count_change(str(word))
        self.last_change = event
        self._add(change.place, event)

    def tell_hotplug(self, sbdf: Sbdf, action: str, place: Sbdf | str) -> None:
        """Announce a hot-plug message about a function. `action` is the kernel's word, or "owner".

        `place` is the key of the function's history: its PCI path, or its address if it has none.
        """
        self._log.info(_UEVENTS.get(action, "hot-plug"), kind="hotplug", sbdf=sbdf, uevent=action)
        self._add(place, events.event_from_hotplug(sbdf, action, self._clock()))

    def tell_loss(self, what: str, count: int | None = None) -> None:
        """Announce to log and monitors that events were lost. The caller lets everything be compared again.

        `what` says which events were lost. A `count` of None is an unknown number. No history gets the event.
        """
        missing = {"count": count} if count else {}
        self._log.warning(
            "something may have been missed, everything is compared again",
            kind="lost",
            reason=what,
            **missing,
        )
        self.publish(events.event_from_loss(self._clock(), count, what))

    def tell_fault(self, fault: DmaFault, machine: Machine) -> None:
        """Announce refused DMA of one device. `machine` is needed to find the function's history."""
        given = {"owner": fault.owner, "access": fault.access, "address": f"{fault.at:#x}"}
        about = {"there": fault.what, "count": fault.count, "reason": fault.cause.value}
        self._log.warning("DMA refused", kind="dma-fault", sbdf=fault.sbdf, **given, **about)
        self._add(_place(fault.sbdf, machine), events.event_from_fault(fault))

    def tell_findings(self, new: Iterable[Told], gone: Iterable[Told]) -> None:
        """Announce the findings in `new`, then those in `gone`, to log and monitors. No history gets them.

        A new finding is logged as a warning, a finding that is gone as information.
        """
        for told in new:
            self._tell_finding(told, gone=False)
        for told in gone:
            self._tell_finding(told, gone=True)

    def _tell_finding(self, told: Told, *, gone: bool) -> None:
        """Announce one finding to log and monitors. `told` is (function or None, finding)."""
        sbdf, finding = told
        where = {} if sbdf is None else {"sbdf": sbdf}
        if gone:
            self._log.info("finding gone", kind="finding-gone", code=finding.code, **where)
        else:
            self._log.warning("finding", kind="finding", code=finding.code, text=finding.text, **where)
        self.publish(events.event_from_finding(sbdf, finding, self._clock(), gone=gone))

    def history_of(self, machine: Machine, target: Sbdf | PciPath) -> list[Event]:
        """Return the events of the function at an address or PCI path, oldest first; see `History.of`."""
        return self._history.of(machine, target)

    def _add(self, place: PciPath | Sbdf | str, event: Event) -> None:
        """Append an event to the history of the function at `place`, and send it to the monitors."""
        self._history.add(place, event)
        self.publish(event)


def _plain(value: Any) -> str | int:
    """Return text and numbers unchanged, any other value as JSON text."""
    return value if isinstance(value, str | int) else json.dumps(value)


def _place_of_action(action: Action, machine: Machine) -> PciPath | Sbdf | str:
    """Return the key of the history of the action's function.

    The key is the action's `place` if it has one. Otherwise the machine is searched for the function, at its
    address and at the addresses of its renumbering. If the function is not found, the key is the action's
    address.
    """
    told = getattr(action, "place", None)
    if told is not None:
        return str(told)
    for name in ("sbdf", "moved_from", "moved_to"):
        sbdf: Sbdf | None = getattr(action, name, None)
        if sbdf is not None and sbdf in machine.functions:
            return _place(sbdf, machine)
    return action.sbdf


def _place(sbdf: Sbdf, machine: Machine) -> PciPath | Sbdf:
    """Return the function's PCI path; its address if the machine does not have it or its path is unknown."""
    function = machine.functions.get(sbdf)
    return sbdf if function is None or function.path is None else function.path
