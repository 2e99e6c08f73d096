"""Updates memory by what was read and asked just now, before anything is planned."""

from collections.abc import Callable, Collection, Iterable, Iterator

import attrs

from pcipt.engine.leftovers import mark_forgotten, mark_handed_over
from pcipt.engine.round import Round, sliced
from pcipt.engine.unproven import doubt_shared
from pcipt.engine.views.complaints import forget_bars
from pcipt.engine.views.policy.ports import settle_ports
from pcipt.engine.views.regions import note_listed
from pcipt.engine.views.views import Views
from pcipt.engine.views.vpci_picture import refusal_of
from pcipt.pci import Function, Sbdf
from pcipt.remap.desired import PCIBACK, By, place_of, untrapped_reason
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages, MappedRun
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.steps import Noted
from pcipt.remap.vpci.hazards import pages_of_bars
from pcipt.remap.vpci.msix import has_faulty_msix, is_unplaced, may_have_vpci, refuses_msix
from pcipt.remap.vpci.sizes import sees_resizing, sizes_at_setup
from pcipt.xen.complaints import OF_BARS, Code
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN


def settle_memory(now: Round, clock: Callable[[], str], *, messages_lost: bool) -> bool:
    """Settle the ledger by what Xen lists now (`Ledger.reconciled`), and update who mapped which pages.

    Return True if what has changed must be on disk before anything is done: pcipt has taken over pages that
    vPCI mapped (`take_over_mappings`), a function has an MSI-X structure that this Xen does not take, vPCI
    could not be set up for a function that returned to dom0, pages of a function that is or was away are in
    doubt (`doubt_shared`), it has changed what dom0 may have below policed ports (`settle_ports`), or Xen has
    made a complaint that lasts or said that vPCI gave a function up.

    If the round is EVERYTHING, the whole ledger is settled. Else only the entries of AddDevice and
    RemoveDevice actions are settled, for functions about which Xen was asked in full. `clock` returns the
    time (UTC, RFC 3339). `messages_lost` is True if hot-plug messages were lost: in a round of EVERYTHING on
    a PVH dom0, the ledger then gets the present time as the time of the loss, unless it has one already. In a
    round of EVERYTHING on a PV dom0, all needed pages are recorded as mapped if none was before (`_adopt`).
    """
    views = now.views
    memory = views.memory
    now.touched |= _announced_by_linux(views)
    subjects = views.machine.functions if now.everything is not None else now.listed | now.subjects
    now.touched |= _learn_sizes(views, subjects)
    fresh = _learn_faulty(views, subjects)
    lasting = bool(fresh) | doubt_shared(views, subjects, now.returned) | bool(now.not_built)
    lasting |= settle_ports(views, everything=now.everything is not None)
    now.touched |= lasting
    now.touched |= _learn_refusals(views, subjects, fresh, clock)
    now.touched |= note_listed(views)
    lasting |= _learn_untrapped(views, subjects)
    if now.everything is None and not now.listed:
        return lasting  # nothing new is known of what Xen lists
    if now.everything is None:
        asked = {at for sbdf in now.listed for at in views.addresses(sbdf)}
        now.touched |= memory.ledger.settle(asked, views.view.known)
        now.touched |= _mark_handed_over(now, now.listed, clock)
        now.noted += take_over_mappings(views, now.listed, clock)
        return bool(now.noted) or lasting
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
    now.touched |= _mark_handed_over(now, views.machine.functions, clock)
    now.noted += take_over_mappings(views, views.machine.functions, clock)
    return bool(now.noted) or lasting


def _mark_handed_over(now: Round, functions: Iterable[Sbdf], clock: Callable[[], str]) -> bool:
    """Do what `mark_handed_over` does, and keep what Xen's console said in this round (`Round.not_built`).

    The line may be newer than Xen's answer: a function that was a guest's by the answer may be dom0's again.
    """
    found = mark_handed_over(now.views, functions, clock)
    now.views.memory.ledger.given_up |= now.not_built
    return found


def _learn_sizes(views: Views, functions: Iterable[Sbdf]) -> bool:
    """Record which sizes vPCI has of Resizable BARs that it does not see change; return True if some are new.

    They are recorded when vPCI is first seen to handle a function. They are forgotten when Xen forgets the
    function, and where Xen sets vPCI up anew for a function that returns, when dom0 does not own it.
    """
    found, sizes = False, views.memory.ledger.sizes
    if sees_resizing(views.version, pvh=views.pvh):
        return False
    for sbdf in functions:
        function = views.machine.functions.get(sbdf)
        if function is None or not function.rebar:
            continue
        place = place_of(function)
        reason = untrapped_reason(function, views.view, pvh=views.pvh, version=views.version)
        if reason is None and function.driver != PCIBACK:
            found |= place not in sizes
            sizes.setdefault(place, sizes_at_setup(function))
        elif sbdf not in views.view.known or (reason is not None and VPCI_BUILT_AT_ASSIGN.of(views.version)):
            found |= sizes.pop(place, None) is not None
    return found


def _learn_faulty(views: Views, functions: Iterable[Sbdf]) -> set[str]:
    """Record which of the functions have an MSI-X structure that this Xen does not take now.

    Return the places of functions that were not recorded before. For a function that does not answer, for
    example because its bus was renumbered, the former record stays. Nothing is recorded if this Xen takes
    every MSI-X structure.
    """
    if not views.pvh or not refuses_msix(views.version):
        return set()
    faulty = views.memory.ledger.faulty
    answering = (views.machine.functions.get(sbdf) for sbdf in functions)
    read = [function for function in answering if function is not None and function.answers]
    found = {place_of(function) for function in read if has_faulty_msix(function) or is_unplaced(function)}
    fresh = found - faulty
    faulty -= {place_of(function) for function in read} - found
    faulty |= found
    return fresh


def _learn_refusals(
    views: Views, functions: Collection[Sbdf], fresh: Collection[str], clock: Callable[[], str]
) -> bool:
    """Record for which of the functions vPCI has refused to switch memory decode on; return True if one is
    new.

    vPCI may have mapped a part of their BARs before it failed, and forgotten it: these pages become DOUBTFUL.
    `fresh` is what `_learn_faulty` has returned. `clock` returns the present time.
    """
    memory, found = views.memory, False
    lasting = {place_of(each) for each in _never_decoding(views, functions, fresh)}
    for place in {*memory.refused, *memory.intents.wanting, *lasting} if views.pvh else ():
        sbdf = views.state.address_of(place)
        function = views.machine.functions.get(sbdf) if sbdf is not None and sbdf in functions else None
        if function is None:
            continue
        refusal = refusal_of(views, function)
        stays = refusal is not None and refusal.is_lasting(views.version) and place in memory.refused
        if refusal is None or not (stays or place in lasting or memory.intents.wants_decode(place)):
            memory.refused.discard(place)
        elif place not in memory.refused or place in memory.trapped.mapped:
            if not may_have_vpci(function, views.version) or memory.intents.wants_decode(place):
                memory.refused.add(place)
            found = True
            when = clock()
            for bar, frames in pages_of_bars(function):
                if views.protected.why(frames) is None:
                    run = MappedRun(place, function.sbdf, bar, frames, By.US, when, State.DOUBTFUL)
                    memory.mapped.put(run)
    return found


def _learn_untrapped(views: Views, functions: Collection[Sbdf]) -> bool:
    """Remember two facts that Xen's console told of the functions: no IOMMU unit serves them (`unserved`);
    dom0 has them without vPCI (`given_up`). Return True if the ledger has something new to keep.

    Xen says each of it once, and later lines push it out of the console. So the ledger keeps which functions
    vPCI gave up, and the complaints that last: a service that starts then remembers them as if Xen had just
    said it.
    """
    memory, complaints, kept = views.memory, views.complaints, views.memory.ledger.complaints
    about = functions if memory.complaints or kept else ()
    here = {sbdf for sbdf in about if sbdf in views.machine.functions}
    found = complaints.remember(kept, here)
    memory.unserved |= complaints.unserved.intersection(here)
    for sbdf in complaints.untrapped if views.pvh and memory.complaints else ():
        place = views.state.place_at(sbdf)
        if sbdf in functions and place is not None and views.view.in_dom0(sbdf):
            lost = complaints.has_lost(sbdf)
            found |= lost and place not in memory.without_vpci
            (memory.ledger.given_up if lost else memory.given_up).add(place)
    return found


def _never_decoding(views: Views, functions: Iterable[Sbdf], fresh: Collection[str]) -> Iterator[Function]:
    """Yield the functions for which vPCI would refuse to switch memory decode on wherever their BARs are.

    Nobody need have asked for it: firmware may have left it on, and vPCI has mapped the BARs at boot then.
    A function for which nobody knows whether this build of Xen has vPCI is yielded only if it is in `fresh`,
    once in a boot: nothing shows later what vPCI has mapped.
    """
    for sbdf in functions:
        function = views.machine.functions.get(sbdf)
        if function is not None and views.pvh and has_faulty_msix(function):
            refusal = refusal_of(views, function)
            told = not may_have_vpci(function, views.version) or place_of(function) in fresh
            if refusal is not None and refusal.no_address_helps and told:
                yield function


def _announced_by_linux(views: Views) -> bool:
    """Record that Xen has sized the virtual functions of followed physical functions that Linux has found.

    Linux tells Xen of a function that it finds at its new address. Return True if there are such functions.
    """
    ledger, functions = views.memory.ledger, views.machine.functions
    unsized = ledger.unsized()
    moved = {at for others in ledger.followed().values() for at in others} if unsized else set()
    found = [sbdf for sbdf in unsized & moved if sbdf in functions]
    for sbdf in found:
        ledger.sized(sbdf)
    return bool(found)


def take_over_mappings(views: Views, functions: Iterable[Sbdf], clock: Callable[[], str]) -> list[Noted]:
    """Record pcipt, not vPCI, as the mapper of the pages of functions that Xen does not list any more.

    vPCI does not unmap these pages, so pcipt must unmap them. Xen's complaints about their BARs and owners
    are forgotten. `clock` returns the time (UTC, RFC 3339). Return the steps that record it on disk: what
    pcipt mapped and what vPCI mapped are in two files, and a kill between their writes must not lose a page.
    """
    mapped, steps = views.memory.mapped, list[Noted]()
    forgotten = [sbdf for sbdf in functions if sbdf not in views.view.known]
    told_of_vpci = {Code.ASSIGN} if VPCI_BUILT_AT_ASSIGN.of(views.version) else set()
    forget_bars(views.memory, forgotten, OF_BARS | told_of_vpci)
    for sbdf in forgotten:
        place = views.state.place_at(sbdf)
        if place is None:
            continue
        views.memory.ledger.given_up.discard(place)
        views.memory.given_up.discard(place)
        if views.pvh:
            mark_forgotten(views, place, sbdf, clock)
        for run in mapped.of(place):
            if run.by is By.XEN:
                step = Noted(attrs.evolve(run, by=By.US), held=True)
                step.record(mapped)
                steps.append(step)
    return steps


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
