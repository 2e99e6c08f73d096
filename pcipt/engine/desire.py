"""Chooses the places that a plan is made for, and computes the pages that each of them needs.

The places are: those of the round's functions, whether or not Linux still has them; those for which these
functions have open maps or unmaps; and those that have an open map or unmap on pages of these functions.
`desired_places` names the other places.
"""

from collections.abc import Collection, Iterable

import attrs

from pcipt.engine.open_actions import OpenActions
from pcipt.engine.queue import Reason
from pcipt.engine.round import Round
from pcipt.engine.views.policy.ports import Plan, plan_ports
from pcipt.engine.views.views import Views
from pcipt.engine.views.vpci_picture import is_switched_off
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import CheckUnmapped, Result
from pcipt.remap.desired import Desired, gone, place_of
from pcipt.remap.holes import plan_checks
from pcipt.remap.intervals import without
from pcipt.remap.vpci.hazards import why_refused
from pcipt.remap.vpci.msix import msix_frames


def desired_places(
    now: Round, part: Iterable[Sbdf], open_actions: OpenActions, *, first: bool, last: bool
) -> list[Desired]:
    """Return what each place of one part of the round needs; a place whose function is gone needs nothing.

    `first` and `last` tell whether the part is the first and the last one. If there are several parts, each
    function with a BAR on pages that are mapped for a function of this part is added to the part. The last
    part of EVERYTHING also has all vacated places, and all places with mapped pages and no function in Linux.
    Shape:  each place once.
    """
    views = now.views
    wanted: dict[str, Desired] = {}
    waiting = dict.fromkeys(part)
    pages: set[Frames] = set()
    while waiting:
        sbdf, _ = waiting.popitem()
        each = views.desired(sbdf)
        if each is None or each.place in wanted:
            continue
        each = _without_doubted_tables(views, each)
        wanted[each.place] = each
        if first and last:
            continue
        # Firmware that is wrong gives the same pages to many functions: they are looked up only once.
        runs = {run.frames for run in views.memory.mapped.of(each.place)} - pages
        pages |= runs
        for frames in sorted(runs):
            over = views.state.bars.over(frames)
            waiting |= {bar.sbdf: None for bar in over if bar.place not in wanted}
    left = {place: sbdf for place, sbdf in views.memory.vacated.items() if sbdf in now.subjects}
    if last and now.everything is not None:
        left |= views.memory.vacated | _mapped_without_function(views)
    left |= open_actions.places_of(now.subjects)
    if open_actions.concern_pages:
        left |= open_actions.places_over(_pages_of(now, wanted.values(), left))
    for place, sbdf in left.items():
        if place not in wanted:
            at = views.state.address_of(place)
            wanted[place] = (views.desired(at) if at is not None else None) or gone(place, sbdf)
    return list(wanted.values())


def _without_doubted_tables(views: Views, each: Desired) -> Desired:
    """Return what a place needs without the MSI-X pages that vPCI may trap again.

    vPCI had given the function up when an earlier service ran (`Memory.told_given_up`). If Linux has removed
    and added it since, Xen traps nothing any more at pages that pcipt maps. Pages that are mapped stay.
    """
    function = views.machine.functions.get(each.sbdf)
    memory = views.memory
    if function is None or each.place not in memory.told_given_up & memory.ledger.given_up:
        return each
    held = [run.frames for run in memory.mapped.of(each.place)]
    tables = without(msix_frames(function), held)
    cut = (attrs.evolve(bar, spans=without(bar.spans, tables)) for bar in each.bars)
    return attrs.evolve(each, bars=tuple(bar for bar in cut if bar.spans))


def conclude_places(now: Round, desired: Collection[Desired]) -> bool:
    """Remember that a plan was made for these places; return True if vPCI has given up a function.

    Their desired pages are no holes any more (`memory.holes`). The places leave `memory.vacated`. What writes
    made vPCI do at a place (`memory.trapped`) is forgotten, except the BARs that are lost, and except where
    vPCI may have given the function up (`is_switched_off`): that is looked at again.
    `memory.outside_window` gets their `Desired.outside_window`. The ignored writes (`memory.intents`) of a
    place whose function is gone are forgotten, the sizes that vPCI had of its BARs, and that vPCI gave it up
    or does not take it.
    """
    views = now.views
    memory, found = views.memory, False
    again = now.scope.with_reason([Reason.TIMER])
    memory.holes.needed(desired)
    for each in desired:
        memory.vacated.pop(each.place, None)
        memory.outside_window.pop(each.place, None)
        function = views.machine.functions.get(each.sbdf)
        if outside := each.outside_window - (memory.intents.missed(function) if function else frozenset()):
            memory.outside_window[each.place] = outside
        if each.hold_reason is None:
            failed = is_switched_off(views, each.sbdf)
            if failed and (each.sbdf in again or _must_fail(views, each.sbdf)):
                memory.ledger.given_up.add(each.place)
                failed, found = False, True
            if not failed:
                memory.trapped.concluded(each.place, each.lost)
        if each.gone:
            memory.intents.drop(each.place)
            memory.ledger.sizes.pop(each.place, None)
            memory.ledger.given_up.discard(each.place)
            memory.ledger.faulty.discard(each.place)
            memory.refused.discard(each.place)
    return found


def _must_fail(views: Views, sbdf: Sbdf) -> bool:
    """Return True if vPCI cannot map the BARs of a function where they are: no other look at it is needed."""
    function = views.machine.functions[sbdf]
    return why_refused(function, views.protected, views.version) is not None


def checks_of_holes(now: Round) -> list[CheckUnmapped]:
    """Return the second unmaps of pages for the functions that are in the round for this reason.

    Pages that somebody has come to need are no holes any more.
    """
    due, memory = now.scope.with_reason([Reason.UNMAPPED]), now.views.memory
    for sbdf in due:
        memory.holes.tidy(sbdf, memory.mapped, now.views.state.bars)
    return plan_checks(due, memory.holes)


def forget_refused_holes(now: Round) -> None:
    """Forget the holes whose check a guard has refused in this round: somebody needs the pages."""
    for outcome in now.outcomes:
        if isinstance(outcome.action, CheckUnmapped) and outcome.result is Result.REFUSED:
            now.views.memory.holes.filled(outcome.action.frames)


def _mapped_without_function(views: Views) -> dict[str, Sbdf]:
    """Return the places that have mapped pages but no function in Linux, each with its address."""
    mapped = views.memory.mapped
    there = {place_of(function) for function in views.machine.functions.values()}
    return {place: mapped.of(place)[0].sbdf for place in mapped.places if place not in there}


def _pages_of(now: Round, desired: Iterable[Desired], left: Iterable[str]) -> set[Frames]:
    """Return the pages on which open actions are planned again.

    These are: the pages that the round's BARs had before the reading, and those that they have now; the pages
    that are mapped for the places in `desired` and `left`; the pages that the places in `desired` need.
    """
    desired = list(desired)
    places = [*(each.place for each in desired), *left]
    found = {run.frames for place in places for run in now.views.memory.mapped.of(place)}
    found |= {span for each in desired for bar in each.bars for span in bar.spans}
    found |= {frames for sbdf in now.subjects for frames in now.views.state.bars.pages_of(sbdf)}
    return found | now.pages


def actions_at_ports(now: Round) -> Plan:
    """Return the actions that guard policed ports and quarantine what has appeared below them.

    Their functions become subjects of the round.
    """
    whole = now.everything is not None
    actions = plan_ports(now.views, now.views.machine.functions if whole else now.subjects)
    now.subjects |= {action.sbdf for action in actions}
    return actions
