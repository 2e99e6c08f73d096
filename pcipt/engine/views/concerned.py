"""Which functions the guards of an action look at. These are read again right before the action."""

from pcipt.engine.views.machine_state import MachineState
from pcipt.pci import Sbdf
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
    elif isinstance(action, MapMmio | UnmapMmio):
        found |= {bar.sbdf for bar in state.bars.over(action.frames)}
        function = functions.get(action.sbdf)
        found |= {function.physfn} if function is not None and function.physfn is not None else set()
    elif isinstance(action, WithdrawReserved | RestoreReserved):
        found |= {bar.sbdf for bar in state.bars.over(action.frames)}
        scope = regions.get(action.frames, frozenset())
        homes = map(state.home_of, scope)
        found |= {*scope, *(sbdf for sbdf in homes if sbdf is not None)}
    elif isinstance(action, CheckUnmapped):
        found |= {bar.sbdf for bar in state.bars.over(action.frames)}
        found |= {sbdf for frames in regions if frames.overlaps(action.frames) for sbdf in regions[frames]}
    elif isinstance(action, RewriteBar):
        found |= {function.sbdf for function in subtree(state.machine, action.sbdf)}
    if isinstance(action, AddDevice | RemoveDevice):
        named = (sbdf for sbdf in addresses_of(action) if sbdf in functions)
        tops = (state.bridges.top(state.machine, sbdf) for sbdf in named)
        found |= {each.sbdf for top in tops if top is not None for each in behind(state.machine, top.sbdf)}
    return found


def addresses_of(action: Action) -> set[Sbdf]:
    """Return the addresses in an action: those of Linux and, for a renumbered function, those of Xen."""
    others = (getattr(action, name, None) for name in ("moved_from", "moved_to"))
    return {action.sbdf, *(sbdf for sbdf in others if sbdf is not None)}
