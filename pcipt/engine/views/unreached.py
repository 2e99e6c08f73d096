"""Writes that reached vPCI and not the hardware: they were made at an address that a function has left.

A write of the Command register is repeated (`RewriteCommand`). A write of another address to a BAR becomes an
intent (`Intents.returned`): the BAR is rewritten, once no driver is bound.
"""

from collections.abc import Collection

from pcipt.engine.round import Round
from pcipt.engine.views.views import Views
from pcipt.pci import Sbdf
from pcipt.remap.actions import RewriteCommand
from pcipt.remap.ignored import plan_commands


def note_returned(now: Round) -> Collection[Sbdf]:
    """Make intents of the BAR writes that went astray, for functions that answer where Linux has them again.

    Return the functions of the round: its subjects, or all. They include those that have returned.
    """
    views, intents = now.views, now.views.memory.intents
    functions = views.machine.functions if now.everything is not None else now.subjects
    for sbdf in list(intents.astray) if views.pvh else ():
        function = views.machine.functions.get(sbdf)
        there = function is not None and function.answers and sbdf not in intents.away
        if function is not None and there and (sbdf in functions or sbdf in now.scope.functions):
            intents.returned(function)
            now.subjects.add(sbdf)
    return functions


def plan_unreached(now: Round, functions: Collection[Sbdf]) -> tuple[RewriteCommand, ...]:
    """Return the actions for functions that are in `functions` or in the round's scope (`commands_of`).

    The functions of these actions are added to the subjects of the round.
    """
    actions = commands_of(now.views, {*functions, *now.scope.functions})
    now.subjects |= {action.sbdf for action in actions}
    return actions


def commands_of(views: Views, functions: Collection[Sbdf]) -> tuple[RewriteCommand, ...]:
    """Return the actions that repeat writes of the Command register, for functions that dom0 owns.

    There is none for a function that decodes and has a BAR elsewhere in vPCI: vPCI would map the BAR there.
    """
    unreached = views.memory.intents.unreached if views.pvh else None
    if not unreached:
        return ()
    listed = [sbdf for sbdf in unreached if sbdf in functions and views.view.in_dom0(sbdf)]
    return plan_commands([s for s in listed if not _would_map_elsewhere(views, s)], views.machine.functions)


def _would_map_elsewhere(views: Views, sbdf: Sbdf) -> bool:
    """Return True if a function decodes and vPCI may have one of its BARs at another address."""
    function = views.machine.functions.get(sbdf)
    return function is not None and bool(function.decodes_memory and views.memory.intents.missed(function))
