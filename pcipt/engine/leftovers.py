"""Pages that vPCI has mapped and forgotten: it unmaps nothing when its record of a function goes.

Xen drops the record when a function is removed. From Xen 4.19 on it also drops the record of a function that
leaves dom0, and makes a new one when the function returns. The pages are then STALE, and pcipt unmaps them.
Source: Xen xen/drivers/vpci/vpci.c (vpci_deassign_device), xen/drivers/passthrough/pci.c (assign_device).
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from pcipt.engine.views.views import Views
from pcipt.pci import Frames, Sbdf
from pcipt.remap.desired import By
from pcipt.remap.intervals import without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.vpci.trapped import pages_of_unread
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN

Clock = Callable[[], str]


def mark_removed(views: Views, functions: AbstractSet[Sbdf], clock: Clock) -> None:
    """Record as STALE what vPCI had mapped for functions that the kernel has removed, whether a message told
    that or a reading.

    This includes what it mapped, by the writes that it trapped, for a function that nobody has read. `clock`
    returns the time (UTC, RFC 3339).
    """
    if not functions:
        return
    for sbdf in functions:
        views.memory.ledger.sized(sbdf)  # a new function there was announced with its VFs off
        views.memory.complaints.pop(sbdf, None)  # Xen sets up what comes back anew
    vacated = views.memory.vacated.items()
    places = {place: sbdf for place, sbdf in vacated if sbdf in functions}
    _forsake(views, places | _places_at(views, functions))
    _mark_unread(views, functions, clock)


def mark_unseen(views: Views, clock: Clock) -> None:
    """Record as STALE what vPCI mapped for functions that came and left while nobody looked.

    Everything must just have been read.
    """
    there = views.machine.functions
    gone = {unread.sbdf for unread in views.memory.trapped.unread.values() if unread.sbdf not in there}
    _mark_unread(views, gone, clock)


def mark_handed_over(views: Views, functions: Iterable[Sbdf], clock: Clock) -> bool:
    """Record as STALE what vPCI had mapped for functions that dom0 does not have, if Xen forgets it then.

    Return True if there are such pages.
    """
    if not views.pvh or not VPCI_BUILT_AT_ASSIGN.of(views.version):
        return False
    away = {sbdf for sbdf in functions if sbdf in views.view.elsewhere or sbdf in views.view.quarantined}
    places = _places_at(views, away)
    found = _forsake(views, places)
    _mark_unread(views, frozenset(places.values()), clock)
    return found


def _places_at(views: Views, functions: Iterable[Sbdf]) -> dict[str, Sbdf]:
    """Return the places of those of the functions that Linux has, each with the function's address."""
    found = ((views.state.place_at(sbdf), sbdf) for sbdf in functions)
    return {place: sbdf for place, sbdf in found if place is not None}


def _forsake(views: Views, places: Mapping[str, Sbdf]) -> bool:
    """Record the pages of places whose functions were read as STALE. Return True if there are such pages.

    What vPCI has mapped since the last plan is left to `_mark_unread`.
    """
    memory, found = views.memory, False
    for place, sbdf in places.items():
        if views.pvh and sbdf in views.machine.functions:
            memory.former[place] = views.machine.functions[sbdf]
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
    """Record as STALE what vPCI may have mapped for functions of which nobody knows the sizes of the BARs.

    If they may have left pages that pcipt cannot find, the time is noted as that of a loss of messages.
    """
    memory = views.memory
    for place, unread in list(memory.trapped.unread.items()):
        if unread.sbdf not in functions:
            continue
        del memory.trapped.unread[place]
        pages, certain = pages_of_unread(unread, views.machine, memory.former.get(place))
        for bar, frames in pages:
            _put_stale(views, place, unread.sbdf, bar, frames, clock)
        if not certain:
            memory.ledger.messages_lost = memory.ledger.messages_lost or clock()
        if views.state.address_of(place) is None:
            memory.vacated[place] = unread.sbdf


def _put_stale(views: Views, place: str, sbdf: Sbdf, bar: int, pages: Frames, clock: Clock) -> None:
    """Record pages as STALE, but for pages that the BAR has recorded already and for protected pages."""
    mapped = views.memory.mapped
    known = [run.frames for run in mapped.of(place) if run.bar == bar]
    for frames in without((pages,), known):
        if views.protected.why(frames) is None:
            mapped.put(MappedRun(place, sbdf, bar, frames, By.XEN, clock(), State.STALE))
