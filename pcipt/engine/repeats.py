"""Puts work that a reconciliation leaves open back into the queue; the queue decides when it is due."""

from collections.abc import Collection

from pcipt.engine.interfaces import Settings
from pcipt.engine.leftovers import unseen
from pcipt.engine.queue import CONSOLE, EVERYTHING, MESSAGES, OWNERS, Queue, Reason
from pcipt.engine.round import Round
from pcipt.engine.views.concerned import addresses_of
from pcipt.engine.views.silent import silent_functions
from pcipt.engine.views.vpci_picture import is_switched_off
from pcipt.pci import Sbdf
from pcipt.remap.actions import Quarantine, Result, WithdrawReserved
from pcipt.remap.view import DOM0

_MAY_CHANGE_HANDS = MESSAGES - {Reason.WRITTEN} | {Reason.REQUESTED}


def repeat(queue: Queue, now: Round, at: float, settings: Settings) -> None:
    """Put what a round leaves open back into the queue. `at` is the time (seconds of the queue's clock).

    Repeated are: functions whose action failed; functions found different while acting, except those that
    were unbound, because they wait for what follows that message; functions about which Xen could not be
    asked; functions bound to xen-pciback that have the same owner as before the round; functions that are
    being quarantined; functions with a finding about a guest's pages or ports; functions that are `unseen` or
    `is_switched_off`; functions with unmapped pages that Xen may map again; functions of `_not_announced`
    that are in the queue for no reason but WRITTEN. EVERYTHING is repeated if Xen could not be asked for the
    reserved regions of some function.
    OWNERS is due after the seconds of `settings`: soon if there are `silent_functions`, else after a long
    time, in which somebody may make Xen forget a function. A round of single functions looks for silent
    functions among its subjects only. CONSOLE is due after the seconds of `settings` if the
    console is readable, and several times soon after a region was withdrawn.
    """
    _put_back(queue, now, at, Reason.FAILED, _failed(now))
    _put_back(queue, now, at, Reason.DIFFERENT, now.views.take_different() - queue.unbound())
    _put_back(queue, now, at, Reason.NOT_ASKED, set(now.views.not_asked) - queue.keys_with(Reason.NOT_ASKED))
    _put_back(queue, now, at, Reason.OWNER, _unchanged_owners(now))
    _put_back(queue, now, at, Reason.TAKEN, _taken(now))
    doubted = {sbdf for sbdf in now.subjects if is_switched_off(now.views, sbdf)}
    doubted |= unseen(now.views) & now.scope.functions
    _put_back(queue, now, at, Reason.TIMER, _kept_by_guests(now) | doubted)
    _put_back(queue, now, at, Reason.UNMAPPED, _with_holes(now) - queue.keys_with(Reason.UNMAPPED))
    for sbdf in _not_announced(now):
        # The round of a waiting WRITTEN finds no change, because this round has read the function.
        if queue.reasons_of(sbdf) <= {Reason.WRITTEN}:
            queue.add(sbdf, Reason.DIFFERENT, at)
    reserved = now.views.reserved
    if reserved.open or reserved.plan_again:  # any region may be that of a function that is not known
        reserved.plan_again = False
        attempts = now.everything.attempts if now.everything is not None else 0
        queue.repeat(EVERYTHING, Reason.NOT_ASKED, at, attempts)
    whole = now.everything is not None or now.scope.owners is not None
    if silent_functions(now.views, None if whole else now.subjects | now.listed):
        queue.add(OWNERS, Reason.TIMER, at, quiet=settings.owners_s)
    elif settings.list_s:
        queue.add(OWNERS, Reason.TIMER, at, quiet=_spread(settings.list_s, at))
    _look_at_console(queue, now, at, settings)


def _spread(seconds: float, at: float) -> float:
    """Return the time, longer or shorter by up to a tenth: the hosts of a fleet do not ask at the same time.

    It depends on the fraction of a second at which it is asked for.
    """
    return seconds * (0.9 + 0.2 * (at % 1.0))


def _look_at_console(queue: Queue, now: Round, at: float, settings: Settings) -> None:
    """Put CONSOLE back: soon after a withdrawal of this round or an earlier one, else after the pause."""
    if not now.views.complaints.readable:
        return
    outcomes = (o.action for o in now.outcomes if o.result is Result.DONE)
    console = now.scope.console
    if any(isinstance(action, WithdrawReserved) for action in outcomes):
        queue.repeat(CONSOLE, Reason.WITHDRAWN, at, 0)
    elif console is not None and Reason.WITHDRAWN in console.reasons:
        queue.repeat(CONSOLE, Reason.WITHDRAWN, at, max(1, console.attempts))  # 0 if a timer joined it
    if settings.faults_s and not queue.reasons_of(CONSOLE):  # joined, it would begin the looks anew
        queue.add(CONSOLE, Reason.LISTEN, at, quiet=settings.faults_s)


def repeat_not_asked(queue: Queue, now: Round, at: float) -> None:
    """Put the functions of a round, or EVERYTHING, back with all their reasons and NOT_ASKED.

    If the round is not EVERYTHING, all other functions that it found changed are put back, too, because the
    next reading finds no change in them. STORE is not put back.
    """
    for work in now.scope.work:
        queue.repeat(work.key, Reason.NOT_ASKED, at, work.attempts, work.reasons)
    if now.everything is None:
        _put_back(queue, now, at, Reason.NOT_ASKED, now.changed - now.scope.functions)


def _put_back(queue: Queue, now: Round, at: float, reason: Reason, functions: Collection[Sbdf]) -> None:
    """Repeat each function for this reason, with the attempts that the round's scope has for it."""
    for sbdf in sorted(functions):
        queue.repeat(sbdf, reason, at, now.scope.attempts_of(sbdf))


def _failed(now: Round) -> set[Sbdf]:
    """Return the addresses of all actions of the round that failed, Linux's and Xen's."""
    failed = [outcome.action for outcome in now.outcomes if outcome.result is Result.FAILED]
    return {sbdf for action in failed for sbdf in addresses_of(action)}


def _taken(now: Round) -> set[Sbdf]:
    """Return the functions that this round has begun to quarantine, or has failed to."""
    tried = [outcome.action for outcome in now.outcomes if outcome.result in (Result.DONE, Result.FAILED)]
    return {action.sbdf for action in tried if isinstance(action, Quarantine)}


def _asked_for_owners(now: Round) -> Collection[Sbdf]:
    """Return the functions of the round that may have another owner now; for EVERYTHING all functions."""
    everything = now.everything is not None
    return now.views.machine.functions if everything else now.scope.with_reason(_MAY_CHANGE_HANDS)


def _unchanged_owners(now: Round) -> set[Sbdf]:
    """Return the functions bound to xen-pciback that have the same owner as before the round.

    Only functions that may have another owner now are looked at. They must be looked at again, because the
    toolstack binds a function first and changes its owner later. A function counts as dom0's before the round
    if Xen did not list it then, and always in a round of EVERYTHING.
    """
    owners = now.views.owners(_asked_for_owners(now))
    return {sbdf for sbdf, owner in owners.items() if owner == now.owners.get(sbdf, DOM0)}


def _not_announced(now: Round) -> list[Sbdf]:
    """Return the changed functions about which Linux and Xen disagree and for which no announcement was
    planned, sorted.

    A write to such a function is answered by its pages first, because somebody may be about to use them.
    """
    left = now.changed - now.listed if now.everything is None else set()
    return sorted(sbdf for sbdf in left if now.views.disagree_about(sbdf))


def _kept_by_guests(now: Round) -> set[Sbdf]:
    """Return the functions of the round that have a finding about a guest's pages or ports.

    Only functions that may have another owner now, or that have the reason TIMER, are looked at.
    """
    looked_at = {*_asked_for_owners(now), *now.scope.with_reason([Reason.TIMER])}
    return looked_at & now.views.guests.findings.keys()


def _with_holes(now: Round) -> set[Sbdf]:
    """Return the functions of the round with unmapped pages that Xen may map again, and that must be looked
    at.
    """
    holes = now.views.memory.holes
    if not now.views.pf_fixup.on or not holes.functions:
        return set()
    acted = {outcome.action.sbdf for outcome in now.outcomes}
    found = holes.functions if now.everything is not None else holes.functions & (now.subjects | acted)
    return {sbdf for sbdf in found if any(hole.wants_check for hole in holes.of(sbdf))}
