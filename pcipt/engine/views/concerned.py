"""Which functions the guards of an action look at. These are read again right before the action."""

from pcipt.engine.views.machine_state import MachineState
from pcipt.pci import Range, Sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    CheckUnmapped,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.guard.pages import outside_window
from pcipt.remap.kinds.conventional import behind
from pcipt.remap.plan_moves import bridges_above, subtree
from pcipt.remap.plan_reserved import Scopes


def concerned_functions(action: Action, state: MachineState, regions: Scopes) -> set[Sbdf]:
    """Return the functions whose registers, driver or owner can make a guard refuse the action."""
    functions = state.machine.functions
    found = {action.sbdf}
    if isinstance(action, AddDevice):
        found |= {sbdf for sbdf in (action.moved_from, action.physfn) if sbdf is not None}
        if action.moved_from is not None:
            found |= {bridge.sbdf for bridge in bridges_above(state.machine, action.moved_from)}
    elif isinstance(action, RemoveDevice):
        found |= set(state.bars.virtual(action.sbdf))
        found |= {each.sbdf for each in subtree(state.machine, action.sbdf)} if action.anew else set()
        scopes = [scope for scope in regions.values() if action.sbdf in scope]
        found |= _devices_of(frozenset().union(*scopes), state)  # with the last of them Xen unmaps the region
    elif isinstance(action, MapMmio | UnmapMmio):
        found |= state.bars.functions_over(action.frames)
        function = functions.get(action.sbdf)
        found |= {function.physfn} if function is not None and function.physfn is not None else set()
    elif isinstance(action, WithdrawReserved | RestoreReserved):
        found |= state.bars.functions_over(action.frames)
        found |= _devices_of(regions.get(action.frames, frozenset()), state)
    elif isinstance(action, CheckUnmapped):
        found |= state.bars.functions_over(action.frames)
        found |= {sbdf for frames in regions if frames.overlaps(action.frames) for sbdf in regions[frames]}
    elif isinstance(action, RewriteBar):
        found |= {function.sbdf for function in subtree(state.machine, action.sbdf)}
        found |= _may_be_at_target(action, state)
    if isinstance(action, AddDevice | RemoveDevice):
        named = (sbdf for sbdf in addresses_of(action) if sbdf in functions)
        tops = (state.bridges.top(state.machine, sbdf) for sbdf in named)
        found |= {each.sbdf for top in tops if top is not None for each in behind(state.machine, top.sbdf)}
    return found


def _devices_of(scope: frozenset[Sbdf], state: MachineState) -> set[Sbdf]:
    """Return the addresses of a region's devices, as Xen names them and where Linux has them now."""
    return {*scope, *(sbdf for sbdf in map(state.home_of, scope) if sbdf is not None)}


def _may_be_at_target(action: RewriteBar, state: MachineState) -> set[Sbdf]:
    """Return the functions that hardware allows to have a BAR at the new address of the action's BAR.

    These are the functions on the same bus, and the functions behind bridges on this bus that pass the
    address on. One of them may have moved a BAR there without a message to pcipt yet. The set is empty if the
    size of the BAR is not known.
    """
    function = state.machine.functions.get(action.sbdf)
    if function is None or not action.size:
        return set()
    span, found = Range(action.address, action.size), set()
    waiting = state.machine.children(function.parent)
    while waiting:
        at = waiting.pop()
        found.add(at.sbdf)
        behind_it = state.machine.children(at.sbdf)
        if behind_it and outside_window(behind_it[0], span, state.machine) is None:
            waiting += behind_it
    return found


def addresses_of(action: Action) -> set[Sbdf]:
    """Return the addresses in an action: those of Linux and, for a renumbered function, those of Xen."""
    others = (getattr(action, name, None) for name in ("moved_from", "moved_to"))
    return {action.sbdf, *(sbdf for sbdf in others if sbdf is not None)}
