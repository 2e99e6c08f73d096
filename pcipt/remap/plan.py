"""Plan the announcements: additions and removals that make Xen's list agree with the machine. Pure.

Order: physical functions before their virtual functions, bridges before the functions behind them; removals
in the opposite order. Nothing is planned for a function if Linux and Xen agree about it. Whether vPCI or
pcipt maps the pages of a function depends on Xen's list. So `plan_mappings` must get the list that Xen has
after the announcements: Xen is asked again, or in a dry run the list is computed (`expected_view`).
"""

import itertools
from collections.abc import Collection, Iterable

from pcipt.pci import Function, Machine, Sbdf
from pcipt.pci.requester import is_extended
from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.desired import NOWHERE, PCIBACK, Followed
from pcipt.remap.kinds.conventional import NO_BRIDGES, Bridges
from pcipt.remap.kinds.virtual import plan_sizing, vfs_are_on
from pcipt.remap.plan_moves import NO_MOVES, Moves, parents_first, plan_entries, plan_moves
from pcipt.remap.view import XenView, ghosts, missing


def plan_announcements(
    machine: Machine,
    xen: XenView,
    *,
    removed: Collection[Sbdf] = (),
    only: Collection[Sbdf] | None = None,
    moves: Moves = NO_MOVES,
    followed: Followed = NOWHERE,
    unsized: Collection[Sbdf] = (),
    bridges: Bridges = NO_BRIDGES,
    severed: Collection[Sbdf] = (),
) -> tuple[AddDevice | RemoveDevice, ...]:
    """Return additions of missing functions and of orphans, removals of ghosts, and actions of `plan_moves`.

    If `only` is given, the plan has only these functions, by Linux's address. `removed` are addresses that
    Linux had and dropped while pcipt watched. `moves`, `followed` and `bridges` mean the same as in
    `plan_moves`, which alone adds the functions in them. A ghost (Xen lists it, the machine does not have it)
    is removed only if it is in `removed`, or if pcipt told Xen of it after a renumbering and Linux has
    dropped the function since. A ghost that Linux never had stays: Linux may have been told to hide the
    hardware. A ghost is left to `plan_moves` if its address is a new address in `moves`, or is in `followed`
    for a function that Linux still has. Of the physical functions `unsized` (`Ledger.unsized`), those whose
    virtual functions are off now are added again (`plan_sizing`). `severed` are the conventional bridges
    whose shared entry is gone (`plan_entries`).

    Shape:  removals of ghosts first, highest address first, so that an address is free before it is used
            again; then additions, sorted as `parents_first` does; then second additions; then the actions for
            renumbered buses; then those of `plan_entries`.
    """
    mine = moves if only is None else {linux: now for linux, now in moves.items() if linux in only}
    told = followed if only is None else {linux: at for linux, at in followed.items() if linux in only}
    wanted = [sbdf for sbdf in missing(machine, xen, only) if sbdf not in moves and sbdf not in followed]
    left = {sbdf for sbdf in removed if only is None or sbdf in only}
    left |= {at for linux, others in told.items() if linux not in machine.functions for at in others}
    here = (others for linux, others in followed.items() if linux in machine.functions)
    in_use = {*moves.values(), *itertools.chain.from_iterable(here)}
    leaving = [sbdf for sbdf in ghosts(machine, xen, left) if sbdf not in in_use]
    removals = [
        RemoveDevice(sbdf, "it has left the machine but Xen still lists it") for sbdf in reversed(leaving)
    ]
    additions = [_announce(machine.functions[sbdf], xen, machine) for sbdf in parents_first(machine, wanted)]
    again = plan_sizing(machine, xen, unsized, only) if unsized else ()
    entries = plan_entries(machine, xen, _near(machine, bridges, severed, only), moves) if severed else ()
    return (*removals, *additions, *again, *plan_moves(machine, xen, mine, told, bridges), *entries)


def _near(
    machine: Machine, bridges: Bridges, severed: Collection[Sbdf], only: Collection[Sbdf] | None
) -> Collection[Sbdf]:
    """Return the bridges of `severed` that lead to the bus of a function in `only`; all if that is None."""
    if only is None:
        return severed
    above = (bridges.above_bus(machine, sbdf) for sbdf in only)
    return {bridge.sbdf for bridge in above if bridge is not None and bridge.sbdf in severed}


def expected_view(xen: XenView, actions: Iterable[Action]) -> XenView:
    """Return the view that Xen will have if all these actions succeed.

    Actions other than additions and removals are ignored. A dry run plans the mappings with this view. `xen`
    is unchanged.
    """
    for action in actions:
        if isinstance(action, AddDevice):
            xen = xen.with_known(action.sbdf)
        elif isinstance(action, RemoveDevice):
            xen = xen.without(action.sbdf)
    return xen


def _announce(function: Function, xen: XenView, machine: Machine) -> AddDevice:
    """Return the action that tells Xen of a function at Linux's address."""
    if function.sbdf in xen.orphans:
        reason = "Xen lists it without an owner; announcing it again gives it to dom0"
    else:
        reason = "Linux has it but Xen does not know it"
    extended = is_extended(function, machine, function.sbdf.device)
    late = (function.driver or "") if function.driver != PCIBACK else None  # xen-pciback has no interrupts
    on = vfs_are_on(function, ())  # one that does not answer is not added
    return AddDevice(function.sbdf, reason, extended=extended, physfn=function.physfn, late=late, vfs_on=on)
