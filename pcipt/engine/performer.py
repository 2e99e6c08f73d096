"""Performs actions: guard, ledger, guard again, hypercall, read-back, ledger; in this order and no other.

Intentions of a batch are put on disk together before the first of its hypercalls, what came of them after the
last. Each action is guarded twice: by what is known when the batch is made, so that nothing is intended in
vain, and by what is read anew right before its own call. One that fails does not keep the others from trying.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from errno import EINVAL
from typing import Any, Protocol

import attrs

from pcipt.engine.interfaces import Keeper
from pcipt.engine.registers import Registers
from pcipt.engine.views import Situation
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    NotApplicable,
    Outcome,
    Refusal,
    RemoveDevice,
    RestoreReserved,
    Result,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.guard.facts import Precaution
from pcipt.remap.guard.rules import check_action
from pcipt.remap.ledger import Event
from pcipt.remap.steps import Step
from pcipt.xen.interface import DeviceFlags, Hypervisor

BATCH = 64


class Policy(Protocol):
    """What the performer asks of the engine."""

    def allows(self, action: Action) -> bool:
        """Whether this action is to be performed, and not only planned."""

    def stopping(self) -> bool: ...

    def now(self) -> str: ...

    def came(self, outcome: Outcome) -> None:
        """Take in what came of an action, before the next one is guarded."""


@attrs.frozen
class Tools:
    """What actions are performed with."""

    xen: Hypervisor
    registers: Registers
    situation: Situation
    keeper: Keeper
    policy: Policy


class Performer:
    """Changes the ledger; whoever changes Xen does it through here."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._situation = tools.situation
        self._policy = tools.policy

    def perform(self, actions: Iterable[Action], *, dry_run: bool = False) -> list[Outcome]:
        """Do what the guards and the settings allow, and say of each action what came of it."""
        waiting = deque(actions)
        found: list[Outcome] = []
        while waiting and not self._policy.stopping():
            batch = [] if dry_run else self._allowed(waiting)
            found += self._batch(batch) if batch else self._lone(waiting.popleft(), dry_run=dry_run)
        return found

    def _allowed(self, waiting: deque[Action]) -> list[Action]:
        """Take those off the beginning that nothing known speaks against."""
        batch: list[Action] = []
        while waiting and len(batch) < BATCH and self._policy.allows(waiting[0]):
            if not isinstance(check_action(waiting[0], self._situation.remembered()), Precaution):
                break
            batch.append(waiting.popleft())
        return batch

    def _lone(self, action: Action, *, dry_run: bool) -> list[Outcome]:
        """Treat an action that something speaks against; it is performed if that is no longer so."""
        known = check_action(action, self._situation.remembered())
        if isinstance(known, NotApplicable):
            judged: Outcome | Precaution = Outcome(action, Result.NOT_APPLICABLE, known.why)
        else:
            judged = self._judged(action)
        if isinstance(judged, Outcome):
            if judged.result is Result.NOT_APPLICABLE and not dry_run:
                self._situation.ledger.noted(action, self._policy.now())
        elif dry_run or not self._policy.allows(action):
            judged = Outcome(action, Result.PLANNED)
        else:
            return self._batch([action])
        if not dry_run:
            self._policy.came(judged)
        return [judged]

    def _judged(self, action: Action) -> Outcome | Precaution:
        """Guard an action by what is read now."""
        try:
            verdict = check_action(action, self._situation.facts(action))
        except PciptError as error:
            return Outcome(action, Result.FAILED, str(error))
        if isinstance(verdict, Refusal):
            return Outcome(action, Result.REFUSED, verdict.why, verdict.rule)
        assert not isinstance(verdict, NotApplicable)  # which depends on the kind of dom0 alone
        return verdict

    def _batch(self, batch: list[Action]) -> list[Outcome]:
        intended = [self._step(action, Event.INTEND) for action in batch]
        try:
            self._tools.keeper.append(intended)
        except OSError as error:
            return [self._not_begun(action, error) for action in batch]
        for step in intended:
            step.apply(self._situation.ledger)
        done: list[Step] = []
        found: list[Outcome] = []
        for action in batch:
            if self._policy.stopping():
                done.append(self._step(action, Event.FAILED))  # not begun; the next start plans it anew
                continue
            judged = self._judged(action)
            outcome = judged if isinstance(judged, Outcome) else self._call(action, judged)
            event = Event.PERFORMED if outcome.result is Result.DONE else Event.FAILED
            done.append(self._step(action, event))
            done[-1].apply(self._situation.ledger)
            self._policy.came(outcome)
            found.append(outcome)
        try:
            self._tools.keeper.append(done)
        except OSError as error:  # what was done is done; a start that finds only the intent asks Xen
            return [_remarked(outcome, _unwritten(error)) for outcome in found]
        return found

    def _not_begun(self, action: Action, error: OSError) -> Outcome:
        outcome = Outcome(action, Result.FAILED, _unwritten(error))
        self._policy.came(outcome)
        return outcome

    def _call(self, action: Action, precaution: Precaution) -> Outcome:
        try:
            detail = _PERFORM[type(action)](self._tools, action, precaution)
        except PciptError as error:
            return Outcome(action, Result.FAILED, str(error), errno=getattr(error, "errno", None))
        return Outcome(action, Result.DONE, detail)

    def _step(self, action: Action, event: Event) -> Step:
        return Step(action, event, self._policy.now())


def _unwritten(error: OSError) -> str:
    return f"the ledger cannot be written: {error}"


def _remarked(outcome: Outcome, remark: str) -> Outcome:
    return attrs.evolve(outcome, detail="; ".join(filter(None, (outcome.detail, remark))))


def _add(tools: Tools, action: AddDevice, precaution: Precaution) -> str:
    def call() -> None:
        tools.xen.add_device(action.sbdf, DeviceFlags(action.extended, action.physfn))

    decode_off = precaution is Precaution.DECODE_OFF
    if action.moved_from is not None:
        detour = tools.situation.detour(action.moved_from)
        tools.registers.add_by_detour(action.moved_from, detour, call, decode_off=decode_off)
    elif decode_off:
        with tools.registers.memory_decode_off(action.sbdf):
            call()
    else:
        call()
    if not tools.xen.known([action.sbdf])[0]:
        raise UnsupportedError("add-device", "Xen reported success, but does not list it")
    return ""


def _remove(tools: Tools, action: RemoveDevice, _precaution: Precaution) -> str:
    tools.xen.remove_device(action.sbdf)
    if tools.xen.known([action.sbdf])[0]:
        raise UnsupportedError("remove-device", "Xen reported success, but still lists it")
    return ""


def _map(tools: Tools, action: MapMmio | RestoreReserved, _precaution: Precaution) -> str:
    tools.xen.map_mmio(action.frames)
    return ""


def _unmap(tools: Tools, action: UnmapMmio | WithdrawReserved, _precaution: Precaution) -> str:
    try:
        tools.xen.unmap_mmio(action.frames)
    except HypervisorError as error:
        if error.errno != EINVAL:
            raise
        return "some of it was not mapped any more"
    return ""


def _rewrite(tools: Tools, action: RewriteBar, _precaution: Precaution) -> str:
    tools.registers.rewrite_bar(action.sbdf, action.bar, action.address)
    return ""


_PERFORM: Mapping[type[Action], Callable[[Tools, Any, Precaution], str]] = {
    AddDevice: _add,
    RemoveDevice: _remove,
    MapMmio: _map,
    UnmapMmio: _unmap,
    RewriteBar: _rewrite,
    WithdrawReserved: _unmap,
    RestoreReserved: _map,
}
