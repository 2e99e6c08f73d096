"""Where the state of vPCI differs from the registers of the hardware: lost BARs and ignored writes.

Each function uses the last reading in `views` and reads nothing.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pcipt.pci import Finding, Function, Sbdf
from pcipt.remap.actions import RewriteBar
from pcipt.remap.desired import LostBar, place_of, untrapped_reason
from pcipt.remap.ignored import IgnoredWrite, plan_rewrites
from pcipt.remap.vpci.hazards import Refusal, finding_of_given_up, finding_of_refusal, hazards, why_refused
from pcipt.remap.vpci.msix import may_have_vpci
from pcipt.remap.vpci.sizes import NO_SIZES, Sizes, sees_resizing
from pcipt.remap.vpci.trapped import has_no_address, lost_bars, plan_returns
from pcipt.remap.writes.vpci import Counted
from pcipt.xen.releases import VPCI_SURVIVES_FAILURE

if TYPE_CHECKING:
    from pcipt.engine.views.views import Views


def lost_of(views: "Views", sbdf: Sbdf) -> tuple[LostBar, ...]:
    """Return the BARs of a function that vPCI takes for mapped although a reset has cleared them.

    See `lost_bars`. The result is empty on a PV dom0, and if vPCI does not handle the function.
    """
    function = views.machine.functions.get(sbdf) if views.pvh else None
    if function is None or not function.answers or not any(map(has_no_address, function.bars)):
        return ()
    memory, lines = views.memory, views.state.raws[sbdf].resources
    if place_of(function) in memory.without_vpci:
        return ()
    ignored = {write.bar for write in memory.intents.ignored(function)}
    found = lost_bars(function, lines, memory.mapped.of(place_of(function)), memory.trapped, ignored)
    if found and untrapped_reason(function, views.view, pvh=views.pvh, version=views.version) is not None:
        return ()
    return found


def counted_of(views: "Views") -> dict[Sbdf, Counted]:
    """Return where vPCI has lost BARs, by function, as far as that is known (`Trapped`)."""
    found = ((views.state.address_of(place), bars) for place, bars in views.memory.trapped.counted.items())
    return {sbdf: bars for sbdf, bars in found if sbdf is not None}


def ignored_of(views: "Views", functions: Iterable[Sbdf]) -> list[IgnoredWrite]:
    """Return the BAR writes of these functions that vPCI dropped; those of lost BARs are left out.

    A PV dom0 has none.
    """
    if not views.pvh or not views.memory.intents:
        return []
    found = (views.machine.functions.get(sbdf) for sbdf in functions)
    writes = views.memory.intents.among(function for function in found if function is not None)
    return [write for write in writes if write.bar not in {each.bar for each in lost_of(views, write.sbdf)}]


def rewrites_of(views: "Views", functions: Iterable[Sbdf]) -> Iterator[RewriteBar]:
    """Yield the actions that repeat ignored writes, then the actions that write lost BARs back."""
    functions = list(functions)
    yield from plan_rewrites(ignored_of(views, functions))
    for sbdf in functions:
        lost = lost_of(views, sbdf)
        if lost:
            yield from plan_returns(views.machine.functions[sbdf], lost)


def refusal_of(views: "Views", function: Function) -> Refusal | None:
    """Return why vPCI refuses to switch a function's memory decode on, by its registers.

    None is returned if vPCI does not handle the function, if the function decodes memory, and if the
    registers show no reason.
    """
    if function.decodes_memory is not False or not (_is_trapped(views, function) or _may_be(views, function)):
        return None
    return why_refused(function, views.protected, views.version)


def is_switched_off(views: "Views", sbdf: Sbdf) -> bool:
    """Return True if a function does not decode memory although a write has switched it on.

    In a version of Xen whose vPCI gives a function up when it cannot map a page, that is how it looks then:
    vPCI leaves decode off and takes its handlers away. They stay where the MSI-X structures alone are in the
    way. It looks the same until the record arrives of a later write that switches decode off.
    Source: Xen drivers/vpci/header.c (vpci_process_pending, modify_decoding), before 4.19.
    """
    function = views.machine.functions.get(sbdf)
    if function is None or VPCI_SURVIVES_FAILURE.of(views.version):
        return False
    place = place_of(function)
    if not views.memory.intents.wants_decode(place):
        return False
    on = views.memory.trapped.mapped.get(place, {})
    there = {bar.index: bar.address for bar in function.bars}
    if function.decodes_memory or all(there.get(bar) != span.start for bar, span in on.items()):
        return False
    if place in views.memory.without_vpci or not _is_trapped(views, function):
        return False
    refusal = refusal_of(views, function)
    return refusal is None or not refusal.msix


def hazards_of(views: "Views", function: Function) -> list[Finding]:
    """Return the findings about a function of dom0: what vPCI has refused, what it would do, or that it has
    given the function up.
    """
    if not (_is_trapped(views, function) or _may_be(views, function)):
        return []
    place = place_of(function)
    refusal = refusal_of(views, function) if place in views.memory.refused else None
    told = [finding_of_refusal(refusal, views.version)] if refusal is not None else []
    if place in views.memory.ledger.given_up:
        return [*told, finding_of_given_up(function, views.version)]
    return [*told, *hazards(function, views.version)]


def sizes_in_vpci(views: "Views", function: Function) -> Sizes:
    """Return the sizes that vPCI has noted for a function's Resizable BARs; empty if it sees a resize."""
    if not function.rebar or sees_resizing(views.version, pvh=views.pvh) or not _is_trapped(views, function):
        return NO_SIZES
    return views.memory.ledger.sizes.get(place_of(function), NO_SIZES)


def _may_be(views: "Views", function: Function) -> bool:
    """Return True if dom0 owns a function and it is not known whether this build of Xen has vPCI for it."""
    return views.view.in_dom0(function.sbdf) and may_have_vpci(function, views.version)


def _is_trapped(views: "Views", function: Function) -> bool:
    """Return True if vPCI handles a function."""
    return untrapped_reason(function, views.view, pvh=views.pvh, version=views.version) is None
