"""Performs actions: guard, ledger, guard again, hypercall, read-back, ledger; in this order and no other.

The intents of a batch are written to disk together before its first hypercall, and the results after its last
one. Each action is guarded twice: by what is known when the batch is made, and by what is read again right
before its own call. After a failed action the others are tried all the same. `Rehearsal` has the same
interface and performs nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from errno import EINVAL, ENODEV

import attrs

from pcipt.engine.calls import PERFORM, Tools
from pcipt.engine.interfaces import Policy
from pcipt.engine.views.concerned import addresses_of
from pcipt.engine.views.shared_entries import note_entries
from pcipt.engine.views.views import Views
from pcipt.errors import PciptError
from pcipt.pci import Sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    NotApplicable,
    Outcome,
    Refusal,
    RemoveDevice,
    Result,
    RewriteBar,
    RewriteCommand,
    WithdrawReserved,
)
from pcipt.remap.guard.facts import Facts, Precaution
from pcipt.remap.guard.rules import check_action
from pcipt.remap.ledger import Event
from pcipt.remap.plan import expected_view
from pcipt.remap.steps import Step
from pcipt.remap.vpci.msix import refuses_msix
from pcipt.xen.releases import ORPHAN_REMOVAL_PANICS

BATCH = 64


class Performer:
    """Performs actions. Nothing else changes Xen, and nothing else adds steps to the ledger."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._policy = tools.policy

    def views_for(self, views: Views) -> Views:
        """Return the views that plans and actions change: these ones."""
        return views

    def perform(self, actions: Iterable[Action], views: Views) -> Iterator[list[Outcome]]:
        """Perform the actions that guards and settings allow, in their order; yield the outcomes of each
        batch.

        Each action has one outcome: DONE, FAILED, REFUSED, NOT_APPLICABLE, or PLANNED if the settings forbid
        it. Actions that had not begun when the policy said stop have no outcome.
        """
        waiting = deque(actions)
        while waiting and not self._policy.stopping():
            batch = self._allowed(waiting, views)
            yield self._batch(batch, views) if batch else self._alone(waiting.popleft(), views)

    def probe(self, sbdf: Sbdf) -> str:
        """Let Linux find a driver for a function, if the settings allow it; return why it failed, else ""."""
        try:
            if self._policy.settings.probes():
                self._tools.host.probe(sbdf)
        except PciptError as error:
            return str(error)
        return ""

    def _allowed(self, waiting: deque[Action], views: Views) -> list[Action]:
        """Remove and return actions from the front of `waiting`, at most BATCH, as far as all are allowed.

        Settings and guards judge by what is known. The result is empty if the first action is not allowed.
        """
        batch: list[Action] = []
        facts: Facts | None = None
        while waiting and len(batch) < BATCH and self._policy.allows(waiting[0]):
            facts = facts or views.remembered()
            if not isinstance(check_action(waiting[0], facts), Precaution):
                break
            batch.append(waiting.popleft())
        return batch

    def _alone(self, action: Action, views: Views) -> list[Outcome]:
        """Guard one action again by what is read now, and perform it if nothing forbids it any more.

        An action that the settings forbid is guarded by what is known: nothing is read for it. An action that
        is not applicable is noted in the ledger as if it was done, so that it is told once.
        """
        known = _known(action, views)
        if isinstance(known, Outcome) and known.result is Result.NOT_APPLICABLE:
            views.memory.ledger.noted(action, self._policy.now())
            return [known]
        if not self._policy.allows(action):
            return [known if isinstance(known, Outcome) else Outcome(action, Result.PLANNED)]
        judged = _judged(action, views)
        return [judged] if isinstance(judged, Outcome) else self._batch([action], views)

    def _batch(self, batch: list[Action], views: Views) -> list[Outcome]:
        """Record intents, guard each action again and perform it, record the results; return the outcomes.

        If the intents cannot be written, all actions fail and none is performed. Actions that had not begun
        when the policy said stop are recorded as failed and have no outcome.
        """
        ledger = views.memory.ledger
        intended = [self._step(action, Event.INTEND) for action in batch]
        try:
            self._tools.append(intended)
        except OSError as error:
            return [Outcome(action, Result.FAILED, _unwritten(error)) for action in batch]
        for step in intended:
            step.apply(ledger)
        done: list[Step] = []
        found: list[Outcome] = []
        for action in batch:
            if self._policy.stopping():
                done.append(self._step(action, Event.FAILED))  # not begun; the next start plans it again
                done[-1].apply(ledger)
                continue
            judged = _judged(action, views)
            outcome = judged if isinstance(judged, Outcome) else self._call(action, judged, views)
            event = Event.PERFORMED if outcome.result is Result.DONE else Event.FAILED
            done.append(self._step(action, event))
            done[-1].apply(ledger)
            _read_back(outcome, views)
            if event is Event.PERFORMED and isinstance(action, WithdrawReserved):
                views.memory.withdrawn_at[action.frames] = self._policy.now()
            found.append(outcome)
        try:
            self._tools.append(done)
        except OSError as error:  # what was done is done; a start that finds only the intent asks Xen
            return [_remarked(outcome, _unwritten(error)) for outcome in found]
        return found

    def _call(self, action: Action, precaution: Precaution, views: Views) -> Outcome:
        """Perform one action; return its outcome: DONE with a remark, or FAILED with the error."""
        try:
            detail = PERFORM[type(action)](self._tools, views, action, precaution)
        except PciptError as error:
            return Outcome(action, Result.FAILED, str(error), errno=getattr(error, "errno", None))
        return Outcome(action, Result.DONE, detail)

    def _step(self, action: Action, event: Event) -> Step:
        """Return a step of the ledger for this action, with the present time."""
        return Step(action, event, self._policy.now())


class Rehearsal:
    """Performs nothing. The views change as if each announcement that guards and settings allow was done."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def views_for(self, views: Views) -> Views:
        """Return views whose memory is a copy: the plan of a dry run must not change the memory."""
        return views.rehearsed()

    def perform(self, actions: Iterable[Action], views: Views) -> Iterator[list[Outcome]]:
        """Guard each action by what is read now; yield its outcome: PLANNED if the guards allow it."""
        for action in actions:
            if self._policy.stopping():
                return
            judged = _known(action, views)
            if not (isinstance(judged, Outcome) and judged.result is Result.NOT_APPLICABLE):
                judged = _judged(action, views)
            if isinstance(judged, Outcome):
                yield [judged]
                continue
            if self._policy.allows(action):
                views.expect(expected_view(views.view, [action]))
            yield [Outcome(action, Result.PLANNED)]

    def probe(self, _sbdf: Sbdf) -> str:
        """Do nothing; return ""."""
        return ""


def _known(action: Action, views: Views) -> Outcome | Precaution:
    """Guard an action by what is known; see `_verdict`."""
    return _verdict(action, views.remembered())


def _judged(action: Action, views: Views) -> Outcome | Precaution:
    """Guard an action by what is read now; see `_verdict`. The outcome is FAILED if Xen cannot be asked."""
    try:
        return _verdict(action, views.facts(action))
    except PciptError as error:
        return Outcome(action, Result.FAILED, str(error))


def _verdict(action: Action, facts: Facts) -> Outcome | Precaution:
    """Return the precaution of an action that the guards allow.

    Else return its outcome: REFUSED, or NOT_APPLICABLE if it has no effect on this kind of dom0.
    """
    verdict = check_action(action, facts)
    if isinstance(verdict, Refusal):
        return Outcome(action, Result.REFUSED, verdict.why, verdict.rule)
    if isinstance(verdict, NotApplicable):
        return Outcome(action, Result.NOT_APPLICABLE, verdict.why)
    return verdict


def _read_back(outcome: Outcome, views: Views) -> None:
    """Read again what an action that was tried has changed, before the next action is guarded.

    After an announcement Xen is asked again, and it is remembered if no IOMMU unit serves the function
    (`unserved`), and if Xen does not know what the function is and cannot forget it (`untyped`). After a
    rewrite the function is read again, and after an add: where vPCI cannot make the hole for MSI-X it leaves
    memory decode off (xen/drivers/vpci/header.c, modify_decoding). After a failed map all other functions
    with mapped pages in its frames are marked as different: they may be unmapped.
    """
    action = outcome.action
    if outcome.result not in (Result.DONE, Result.FAILED):
        return
    if outcome.result is Result.DONE and isinstance(action, AddDevice | RewriteCommand):
        views.memory.intents.unreached.discard(action.sbdf)  # vPCI is built anew, or agrees with the hardware
    if isinstance(action, AddDevice | RemoveDevice):
        views.ask(addresses_of(action))  # a failed one may have been done all the same
        note_entries(views)
        if isinstance(action, AddDevice):
            views.different |= views.read([action.moved_from or action.sbdf])
            if outcome.errno == ENODEV and _no_unit_serves(action, views):
                views.memory.unserved.add(action.sbdf)
            stays = action.sbdf in views.view.orphans and ORPHAN_REMOVAL_PANICS.of(views.version)
            if outcome.errno == EINVAL and stays:  # else the record was made anew (`calls`)
                views.memory.untyped.add(action.sbdf)
    elif isinstance(action, RewriteBar | RewriteCommand):
        views.different |= views.read([action.sbdf])
        if outcome.result is Result.FAILED:
            views.ask(addresses_of(action))  # Xen may have been made to forget it meanwhile
    elif isinstance(action, MapMmio) and outcome.result is Result.FAILED:
        over = views.memory.mapped.over(action.frames)  # the pages of other owners there are gone too
        views.different |= {run.sbdf for run in over if run.place != action.place}


def _no_unit_serves(action: AddDevice, views: Views) -> bool:
    """Return True if ENODEV, the answer to an add, means that no IOMMU unit serves the function.

    Xen has made an orphan of it then. It has not if ENODEV is about the physical function of a virtual one.
    Some versions answer the same, and make an orphan, if they do not take an MSI-X structure (PVH): then the
    result is False if the function has one, or if nobody has read it.
    Source: Xen drivers/passthrough/pci.c (pci_add_device), drivers/vpci/msix.c (init_msix).
    """
    if action.sbdf not in views.view.orphans:
        return False
    function = views.state.answered(action.moved_from or action.sbdf)
    return not (views.pvh and refuses_msix(views.version)) or (function is not None and function.msix is None)


def _unwritten(error: OSError) -> str:
    """Return the detail of an outcome: the ledger cannot be written."""
    return f"the ledger cannot be written: {error}"


def _remarked(outcome: Outcome, remark: str) -> Outcome:
    """Return the outcome with a remark behind its detail."""
    return attrs.evolve(outcome, detail="; ".join(filter(None, (outcome.detail, remark))))
