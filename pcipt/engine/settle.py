"""Updates memory by what was read and asked just now, before anything is planned."""

from collections.abc import Callable, Iterable

import attrs

from pcipt.engine.round import Round, sliced
from pcipt.engine.views.regions import forget_counts
from pcipt.engine.views.views import Views
from pcipt.pci import Sbdf
from pcipt.remap.desired import By
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.plan_mappings import plan_mappings


def settle_memory(now: Round, clock: Callable[[], str], *, messages_lost: bool) -> bool:
    """Settle the ledger by what Xen lists now (`Ledger.reconciled`), and update who mapped which pages.

    Return True if pcipt has taken over pages that vPCI mapped (`take_over_mappings`).

    If the round is EVERYTHING, the whole ledger is settled. Else only the entries of AddDevice and
    RemoveDevice actions are settled, for functions about which Xen was asked in full. `clock` returns the
    time (UTC, RFC 3339). `messages_lost` is True if hot-plug messages were lost: in a round of EVERYTHING on
    a PVH dom0, the ledger then gets the present time as the time of the loss, unless it has one already. In a
    round of EVERYTHING on a PV dom0, all needed pages are recorded as mapped if none was before (`_adopt`).
    """
    views = now.views
    memory = views.memory
    now.touched |= forget_counts(views)
    if now.everything is None:
        asked = {at for sbdf in now.listed for at in views.addresses(sbdf)}
        now.touched |= memory.ledger.settle(asked, views.view.known)
        return take_over_mappings(views, now.listed)
    first = not memory.mapped.places
    settled = memory.ledger.reconciled(views.view.known)
    if settled != memory.ledger:
        memory.ledger = settled
        now.touched = True
    if views.pvh and messages_lost and memory.ledger.messages_lost is None:
        memory.ledger.messages_lost = clock()
        now.touched = True
    if first and not views.pvh:
        now.touched |= _adopt(views, clock())
    return take_over_mappings(views, views.machine.functions)


def take_over_mappings(views: Views, functions: Iterable[Sbdf]) -> bool:
    """Record pcipt, not vPCI, as the mapper of the pages of functions that Xen does not list any more.

    vPCI does not unmap these pages, so pcipt must unmap them. Return True if there are such pages.
    """
    mapped, found = views.memory.mapped, False
    for sbdf in functions:
        place = views.state.place_at(sbdf) if sbdf not in views.view.known else None
        for run in mapped.of(place) if place is not None else ():
            if run.by is By.XEN:
                mapped.put(attrs.evolve(run, by=By.US))
                found = True
    return found


def _adopt(views: Views, when: str) -> bool:
    """Record as mapped all pages that functions of a PV dom0 need; return True if there are any.

    Called when pcipt first sees the machine: because the pages are recorded, no map is planned for them. The
    plan of each function is made as if no page was mapped, in slices: one plan of all needs much memory.
    """
    found = False
    for part in sliced(views.machine.functions):
        desired = (views.desired(sbdf) for sbdf in part)
        plan = plan_mappings([each for each in desired if each is not None], MappedPages())
        for action in plan.actions:
            views.memory.ledger.noted(action, when)
            found = True
    return found
