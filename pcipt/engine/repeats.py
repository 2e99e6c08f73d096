"""Which work comes again after a reconciliation: it goes back to the queue, which decides when it is due."""

from collections.abc import Collection

from pcipt.engine.queue import EVERYTHING, MESSAGES, Queue, Reason
from pcipt.engine.round import Round
from pcipt.engine.views.concerned import addresses_of
from pcipt.pci import Sbdf
from pcipt.remap.actions import Result
from pcipt.remap.view import DOM0

_MAY_CHANGE_HANDS = MESSAGES - {Reason.WRITTEN} | {Reason.REQUESTED}


def repeat(queue: Queue, now: Round, at: float) -> None:
    """Put everything that a round leaves open back into the queue; `at` is the time."""
    _again(queue, now, at, Reason.FAILED, _failed(now))
    _again(queue, now, at, Reason.DIFFERENT, now.views.take_different())
    _again(queue, now, at, Reason.NOT_ASKED, set(now.views.not_asked) - queue.keys_with(Reason.NOT_ASKED))
    _again(queue, now, at, Reason.OWNER, _unchanged_owners(now))
    _again(queue, now, at, Reason.TIMER, _kept_by_guests(now))
    if now.views.reserved.open:  # any region may be theirs
        attempts = now.everything.attempts if now.everything is not None else 0
        queue.repeat(EVERYTHING, Reason.NOT_ASKED, at, attempts)


def repeat_not_asked(queue: Queue, now: Round, at: float) -> None:
    """Put the whole work of a round back, with its reasons: Xen could not be asked, nothing was concluded."""
    for work in now.scope.work:
        queue.repeat(work.key, Reason.NOT_ASKED, at, work.attempts, work.reasons)


def _again(queue: Queue, now: Round, at: float, reason: Reason, functions: Collection[Sbdf]) -> None:
    for sbdf in sorted(functions):
        queue.repeat(sbdf, reason, at, now.scope.attempts_of(sbdf))


def _failed(now: Round) -> set[Sbdf]:
    failed = [outcome.action for outcome in now.outcomes if outcome.result is Result.FAILED]
    return {sbdf for action in failed for sbdf in addresses_of(action)}


def _asked_for_owners(now: Round) -> Collection[Sbdf]:
    """Return the functions of the round that may have changed hands."""
    everything = now.everything is not None
    return now.views.machine.functions if everything else now.scope.with_reason(_MAY_CHANGE_HANDS)


def _unchanged_owners(now: Round) -> set[Sbdf]:
    """Return functions bound to xen-pciback whose owner is as before: the toolstack may not be done yet."""
    owners = now.views.owners(_asked_for_owners(now))
    return {sbdf for sbdf, owner in owners.items() if owner == now.owners.get(sbdf, DOM0)}


def _kept_by_guests(now: Round) -> set[Sbdf]:
    """Return the functions of the round of which a guest keeps something that it should not have any more."""
    looked_at = {*_asked_for_owners(now), *now.scope.with_reason([Reason.TIMER])}
    return looked_at & now.views.guests.findings.keys()
