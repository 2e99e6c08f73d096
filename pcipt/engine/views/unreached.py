"""Plans to repeat writes of Command registers that reached vPCI and not the hardware (`RewriteCommand`)."""

from collections.abc import Collection

from pcipt.engine.round import Round
from pcipt.pci import Sbdf
from pcipt.remap.actions import RewriteCommand
from pcipt.remap.ignored import plan_commands


def plan_unreached(now: Round, functions: Collection[Sbdf]) -> tuple[RewriteCommand, ...]:
    """Return the actions for functions that are in `functions` or in the round's scope and that dom0 owns.

    The functions of these actions are added to the subjects of the round.
    """
    views = now.views
    unreached = views.memory.intents.unreached if views.pvh else None
    if not unreached:
        return ()
    listed = [s for s in unreached if views.view.in_dom0(s) and (s in functions or s in now.scope.functions)]
    actions = plan_commands(listed, views.machine.functions)
    now.subjects |= {action.sbdf for action in actions}
    return actions
