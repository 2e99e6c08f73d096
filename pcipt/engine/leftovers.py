"""Pages that vPCI has mapped and forgotten: it unmaps nothing when its record of a function goes.

Xen drops the record when a function is removed. From Xen 4.19 on it also drops the record of a function that
leaves dom0, and makes a new one when the function returns. The pages are then STALE, or DOUBTFUL if it is
not certain that vPCI had mapped them, and pcipt unmaps them.
Source: Xen xen/drivers/vpci/vpci.c (vpci_deassign_device), xen/drivers/passthrough/pci.c (assign_device).
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from pcipt.engine.views.complaints import forget_bars
from pcipt.engine.views.views import Views
from pcipt.pci import Frames, Sbdf, frames_from_range
from pcipt.remap.desired import By
from pcipt.remap.intervals import without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.vpci.trapped import has_no_address, pages_of_unread
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN

Clock = Callable[[], str]


def mark_removed(views: Views, functions: AbstractSet[Sbdf], clock: Clock) -> None:
    """Record as STALE the pages that vPCI had mapped for functions that the kernel has removed.

    A message or a reading has shown the removal. Pages of a function that pcipt has not read, and that vPCI
    may have mapped after a trapped write, become DOUBTFUL. `clock` returns the time (UTC, RFC 3339).
    """
    if not functions:
        return
    for sbdf in functions:
        views.memory.ledger.sized(sbdf)  # a new function there was announced with its VFs off
        views.memory.complaints.pop(sbdf, None)  # Xen sets up what comes back anew
        views.memory.faults.pop(sbdf, None)
    vacated = views.memory.vacated.items()
    places = {place: sbdf for place, sbdf in vacated if sbdf in functions}
    _forsake(views, places | _places_at(views, functions))
    _mark_unread(views, functions, clock)


def mark_unseen(views: Views, clock: Clock, among: AbstractSet[Sbdf] | None = None) -> None:
    """Record as DOUBTFUL what vPCI may have mapped for functions that came and left between readings.

    pcipt knows these functions only by their writes (`Trapped.unread`). With `among`, only these functions
    are looked at. All functions, or those of `among`, must just have been read.
    """
    gone = unseen(views)
    _mark_unread(views, gone if among is None else gone & among, clock)


def unseen(views: Views) -> set[Sbdf]:
    """Return the functions that Linux does not have and that have decoded since pages were planned for them.

    The kernel is about to add such a function, or has removed it: records of writes may come after the
    message of the removal.
    """
    unread = views.memory.trapped.unread.values()
    return {each.sbdf for each in unread if each.sbdf not in views.machine.functions}


def mark_handed_over(views: Views, functions: Iterable[Sbdf], clock: Clock) -> bool:
    """Record as STALE the pages that vPCI had mapped for functions that dom0 does not own now.

    Xen's complaints about their BARs are forgotten. Nothing is done if this Xen keeps vPCI's record when a
    function leaves dom0. Return True if there are such pages.
    """
    if not views.pvh or not VPCI_BUILT_AT_ASSIGN.of(views.version):
        return False
    away = {sbdf for sbdf in functions if sbdf in views.view.elsewhere or sbdf in views.view.quarantined}
    forget_bars(views.memory, away)
    places = _places_at(views, away)
    found = _forsake(views, places)
    _mark_unread(views, frozenset(places.values()), clock)
    return found


def mark_forgotten(views: Views, place: str, sbdf: Sbdf, clock: Clock) -> None:
    """Record the pages of lost BARs as DOUBTFUL, because Xen has forgotten the function.

    A lost BAR has no address, and vPCI took it for mapped. When Xen is told of the function again, vPCI knows
    nothing of these pages, so nobody else unmaps them.
    """
    memory, function = views.memory, views.machine.functions[sbdf]
    bars = {bar.index for bar in function.bars if has_no_address(bar)}
    since = memory.trapped.mapped.get(place, {})
    since_plan = {bar: since.pop(bar) for bar in bars & since.keys()}
    counted = {**memory.trapped.counted.pop(place, {}), **since_plan}
    for bar, span in counted.items():
        put_pages(views, place, sbdf, bar, frames_from_range(span), clock, State.DOUBTFUL)


def _places_at(views: Views, functions: Iterable[Sbdf]) -> dict[str, Sbdf]:
    """Return the places of those of the functions that Linux has, each with the function's address."""
    found = ((views.state.place_at(sbdf), sbdf) for sbdf in functions)
    return {place: sbdf for place, sbdf in found if place is not None}


def _forsake(views: Views, places: Mapping[str, Sbdf]) -> bool:
    """Record the pages of places whose functions were read as STALE. Return True if there are such pages.

    `_mark_unread` records the pages that vPCI has mapped since the last plan.
    """
    memory, found = views.memory, False
    for place, sbdf in places.items():
        if views.pvh and sbdf in views.machine.functions:
            memory.note_former(place, views.machine.functions[sbdf])
        found |= any(run.state is State.HELD for run in memory.mapped.of(place))
        memory.mapped.forsake(place)
        memory.trapped.leave(place, sbdf)
        memory.ledger.given_up.discard(place)
        memory.given_up.discard(place)
        memory.ledger.sizes.pop(place, None)
        memory.refused.discard(place)
        memory.intents.drop(place)
    return found


def _mark_unread(views: Views, functions: AbstractSet[Sbdf], clock: Clock) -> None:
    """Record as DOUBTFUL the pages that vPCI may have mapped for functions with unknown BAR sizes.

    These are the `functions` that are in `Trapped.unread`; their entries are deleted. If vPCI may have mapped
    more pages than pcipt can find, `ledger.messages_lost` is set to the present time if it is not set.
    """
    memory = views.memory
    for place, unread in list(memory.trapped.unread.items()):
        if unread.sbdf not in functions:
            continue
        del memory.trapped.unread[place]
        told = views.log.sizes(unread.sbdf)
        pages, certain = pages_of_unread(unread, views.machine, memory.former.get(place), told)
        for bar, frames in pages:
            put_pages(views, place, unread.sbdf, bar, frames, clock, State.DOUBTFUL)
        if not certain:
            memory.ledger.messages_lost = memory.ledger.messages_lost or clock()
        if views.state.address_of(place) is None:
            memory.vacated[place] = unread.sbdf


def put_pages(
    views: Views, place: str, sbdf: Sbdf, bar: int, pages: Frames, clock: Clock, state: State
) -> None:
    """Record pages in a state, except protected pages and pages that are recorded for the BAR already."""
    mapped = views.memory.mapped
    known = [run.frames for run in mapped.of(place) if run.bar == bar]
    for frames in without((pages,), known):
        if views.protected.why(frames) is None:
            mapped.put(MappedRun(place, sbdf, bar, frames, By.XEN, clock(), state))
