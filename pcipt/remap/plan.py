"""The plan: an ordered tuple of actions that would make Xen agree with the machine. Pure.

Order: physical functions before their virtual ones, bridges before what is behind them; removals go the
other way round. Nothing is planned for a function about which the views agree. What is announced decides who
maps: `plan_mappings` comes when Xen was asked again, in a dry run with `expected_view`.
"""

import itertools
from collections.abc import Collection, Iterable

from pcipt.pci import Function, Machine, Sbdf
from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.desired import NOWHERE, Followed
from pcipt.remap.plan_moves import NO_MOVES, Moves, is_extended, parents_first, plan_moves
from pcipt.remap.view import XenView, ghosts, missing


def plan_announcements(
    machine: Machine,
    xen: XenView,
    *,
    departed: Collection[Sbdf] = (),
    only: Collection[Sbdf] | None = None,
    moves: Moves = NO_MOVES,
    followed: Followed = NOWHERE,
) -> tuple[AddDevice | RemoveDevice, ...]:
    """Plan the announcements that are missing, the removal of ghosts that were seen to leave, and moves.

    Shape:  removals of ghosts first, so that a number is free before it is given anew; then additions; then
            what renumbered buses ask for. `only` limits the plan to these functions, by Linux's address.
            `departed` are functions that Linux had and lost while we watched: a ghost that Linux never had
            may be hardware it was told to hide, so it is reported and not removed.
    """
    mine = moves if only is None else {linux: now for linux, now in moves.items() if linux in only}
    told = followed if only is None else {linux: at for linux, at in followed.items() if linux in only}
    wanted = [sbdf for sbdf in missing(machine, xen, only) if sbdf not in moves and sbdf not in followed]
    left = {sbdf for sbdf in departed if only is None or sbdf in only}
    left |= {at for linux, others in told.items() if linux not in machine.functions for at in others}
    here = (others for linux, others in followed.items() if linux in machine.functions)
    in_use = {*moves.values(), *itertools.chain.from_iterable(here)}
    leaving = [sbdf for sbdf in ghosts(machine, xen, left) if sbdf not in in_use]
    removals = [
        RemoveDevice(sbdf, "it has left the machine but Xen still lists it") for sbdf in reversed(leaving)
    ]
    additions = [_announce(machine.functions[sbdf], xen, machine) for sbdf in parents_first(machine, wanted)]
    return (*removals, *additions, *plan_moves(machine, xen, mine, told))


def expected_view(xen: XenView, actions: Iterable[Action]) -> XenView:
    """Tell what Xen would list after these actions; a dry run plans the mappings with it."""
    for action in actions:
        if isinstance(action, AddDevice):
            xen = xen.with_known(action.sbdf)
        elif isinstance(action, RemoveDevice):
            xen = xen.without(action.sbdf)
    return xen


def _announce(function: Function, xen: XenView, machine: Machine) -> AddDevice:
    if function.sbdf in xen.orphans:
        reason = "Xen lists it without an owner; announcing it again gives it to dom0"
    else:
        reason = "Linux has it but Xen does not know it"
    extended = is_extended(function, machine, function.sbdf.device)
    return AddDevice(function.sbdf, reason, extended=extended, physfn=function.physfn)
