"""What vPCI has mapped, as far as it differs from hardware: lost BARs and ignored writes.

Each function looks at what the views have read last.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pcipt.pci import Sbdf
from pcipt.remap.actions import RewriteBar
from pcipt.remap.desired import LostBar, place_of, untrapped_reason
from pcipt.remap.ignored import IgnoredWrite, plan_rewrites
from pcipt.remap.trapped import lost_bars, plan_returns

if TYPE_CHECKING:
    from pcipt.engine.views.views import Views


def lost_of(views: "Views", sbdf: Sbdf) -> tuple[LostBar, ...]:
    """Return the BARs of a function that vPCI takes for mapped although a reset has cleared them.

    See `lost_bars`. The result is empty on a PV dom0, and if vPCI does not handle the function.
    """
    function = views.machine.functions.get(sbdf) if views.pvh else None
    if function is None or not function.answers:
        return ()
    memory, lines = views.memory, views.state.raws[sbdf].resources
    if place_of(function) in memory.given_up:
        return ()
    ignored = {write.bar for write in memory.intents.ignored(function)}
    found = lost_bars(function, lines, memory.mapped.of(place_of(function)), memory.trapped, ignored)
    if found and untrapped_reason(function, views.view, pvh=views.pvh, version=views.version) is not None:
        return ()
    return found


def ignored_of(views: "Views", functions: Iterable[Sbdf]) -> list[IgnoredWrite]:
    """Return the BAR writes of these functions that vPCI dropped; those of lost BARs are left out.

    A PV dom0 has none.
    """
    if not views.pvh:
        return []
    found = (views.machine.functions.get(sbdf) for sbdf in functions)
    writes = views.memory.intents.among(function for function in found if function is not None)
    return [write for write in writes if write.bar not in {each.bar for each in lost_of(views, write.sbdf)}]


def rewrites_of(views: "Views", functions: Iterable[Sbdf]) -> Iterator[RewriteBar]:
    """Yield the actions that repeat ignored writes, then those that give lost BARs their addresses back."""
    functions = list(functions)
    yield from plan_rewrites(ignored_of(views, functions))
    for sbdf in functions:
        lost = lost_of(views, sbdf)
        if lost:
            yield from plan_returns(views.machine.functions[sbdf], lost)
