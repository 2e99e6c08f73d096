"""Maps once what vPCI may not map any more: BARs of a function that came back from xen-pciback.

From Xen 4.19 on, vPCI forgets a function before it is assigned to another domain and is built anew when it
returns. If the assignment fails, nothing builds it anew: dom0 still owns the function, and vPCI neither traps
nor maps it. No call tells whether that has happened. So when a driver of dom0 is bound again, the BARs are
mapped once by pcipt, which changes nothing where vPCI has mapped them.
If it left and returned between two readings, the pages of its former record stay mapped: those that it does
not need any more are unmapped then.
Before Xen 4.19, vPCI keeps its record of such a function, and maps nothing when it returns. A page that
the function shares may be missing then: vPCI does not spare it when another function stops to decode there.
A function may have left and returned between two readings. So such pages are mapped once whenever a message
about its owner came, and when nobody listened.
What was written right before a function left dom0 may have come with the message that it left: nobody knows
then whether vPCI saw the writes.
Source: Xen drivers/passthrough/pci.c (assign_device), 4.19.0 to 4.22.0 (`VPCI_BUILT_AT_ASSIGN`);
        drivers/vpci/header.c (modify_bars: it looks at the functions of the same domain).
"""

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet

from pcipt.engine.leftovers import put_pages
from pcipt.engine.queue import Reason
from pcipt.engine.report import Scope
from pcipt.engine.views.views import Views
from pcipt.pci import Frames, Function, Sbdf, frames_from_range
from pcipt.remap.bar_ranges import decoding_range
from pcipt.remap.desired import PCIBACK, By, Desired
from pcipt.remap.intervals import without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.vpci.msix import msix_frames
from pcipt.remap.vpci.trapped import has_no_address
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN

_NOBODY_LISTENED = (Reason.TIMER, Reason.LOST)  # of EVERYTHING: the service started, messages were lost


def note_unproven(views: Views, given: Iterable[Sbdf]) -> None:
    """Remember the functions in `given` that have left xen-pciback by the last reading."""
    if not views.pvh or not VPCI_BUILT_AT_ASSIGN.of(views.version):
        return
    for sbdf in given:
        function, place = views.machine.functions.get(sbdf), views.state.place_at(sbdf)
        if function is not None and place is not None and function.driver != PCIBACK:
            views.memory.unproven.add(place)


def doubt_unproven(views: Views, scope: Scope, desired: Collection[Desired], when: str) -> bool:
    """Record as DOUBTFUL the pages that vPCI should have mapped for unproven functions: the plan maps them.

    A function without a driver, and one that does not decode yet, stay unproven. When the service has
    started again, all functions without a driver are. `scope` is that of the round: it tells which functions
    may have been away from dom0 unseen (`_doubt_unseen`). `when` is the time (UTC, RFC 3339). Return True if
    something is in doubt for which nothing is planned: it must be on disk before the function returns.
    """
    memory, found = views.memory, False
    if views.pvh:
        found = _doubt_unseen(views, scope, desired, when)
        found |= _doubt_given(views, desired, when)
    _doubt_missed(views, desired)
    if memory.inherited and views.pvh and VPCI_BUILT_AT_ASSIGN.of(views.version):
        memory.unproven |= {
            each.place for each in desired if _is_idle(views.machine.functions.get(each.sbdf))
        }
    for each in [each for each in desired if each.place in memory.unproven]:
        function = views.machine.functions.get(each.sbdf)
        if function is None or each.by is By.US:
            memory.unproven.discard(each.place)
        elif function.driver not in (None, PCIBACK) and each.bars:
            memory.unproven.discard(each.place)
            for bar in each.bars:
                for span in bar.spans:
                    run = MappedRun(each.place, each.sbdf, bar.bar, span, By.XEN, when, State.DOUBTFUL)
                    memory.mapped.put(run)
    return found


def doubt_shared(views: Views, functions: Iterable[Sbdf], returned: AbstractSet[str]) -> bool:
    """Record as DOUBTFUL the pages that functions away from dom0 share with others; return True if there are
    such pages.

    These are the functions among `functions` that dom0 does not own now, and those at the places `returned`,
    which dom0 has again. The next plan after their return maps the pages. The doubt begins when they leave:
    a service that starts when they are back cannot see that they were away.
    """
    if not views.pvh or VPCI_BUILT_AT_ASSIGN.of(views.version):
        return False
    mapped, found = views.memory.mapped, False
    away = views.given_places
    places = {place for sbdf in functions if (place := views.state.place_at(sbdf)) in away} if away else set()
    for place in places | returned:
        for run in mapped.of(place):
            others = [bar.place for bar in views.state.bars.over(run.frames)]
            others += [other.place for other in mapped.over(run.frames)]
            if run.state is State.HELD and any(other != place for other in others):
                mapped.mark(place, run.bar, run.frames, State.DOUBTFUL)
                found = True
    return found


def _is_idle(function: Function | None) -> bool:
    """Return True if a function has no driver."""
    return function is not None and function.driver is None


def _doubt_missed(views: Views, desired: Iterable[Desired]) -> None:
    """Record as DOUBTFUL what vPCI had mapped of BARs that it may have elsewhere now (`Intents.missed`)."""
    memory = views.memory
    for each in desired if memory.intents else ():
        function = views.machine.functions.get(each.sbdf)
        missed = memory.intents.missed(function) if function is not None else ()
        for run in memory.mapped.of(each.place) if missed else ():
            if run.bar in missed and (run.by, run.state) == (By.XEN, State.HELD):
                memory.mapped.mark(run.place, run.bar, run.frames, State.DOUBTFUL)


def _doubt_given(views: Views, desired: Iterable[Desired], when: str) -> bool:
    """Record as DOUBTFUL what vPCI may have unmapped and mapped for functions right before they left dom0.

    The writes and the message that the function has left came together. If memory decode was switched before
    the function left, vPCI has unmapped the BAR where it was, and mapped it where it is; if it was switched
    later, vPCI did not see the write. A BAR that a reset has cleared stays recorded: vPCI takes it for mapped
    (`remap/vpci/trapped.py`). `when` is the time (UTC, RFC 3339). Return True if there are such pages.
    """
    given, mapped, found = views.given_places, views.memory.mapped, False
    for each in desired if given else ():
        function = views.machine.functions.get(each.sbdf)
        if function is None or each.place not in given or function.decodes_memory is None:
            continue
        ranges = ((bar.index, decoding_range(bar)) for bar in function.bars)
        spans = {bar: (frames_from_range(span),) for bar, span in ranges if span is not None}
        cleared = {bar.index for bar in function.bars if has_no_address(bar)}
        for run in mapped.of(each.place):
            if (run.by, run.state) == (By.XEN, State.HELD) and run.bar not in cleared:
                for pages in without((run.frames,), spans.get(run.bar, ())):
                    mapped.mark(run.place, run.bar, pages, State.DOUBTFUL)
                    found = True
        for bar in views.memory.trapped.mapped.get(each.place, {}):
            for pages in without(spans.get(bar, ()), msix_frames(function)):
                put_pages(views, each.place, each.sbdf, bar, pages, lambda: when, State.DOUBTFUL)
                found = True
    return found


def _doubt_unseen(views: Views, scope: Scope, desired: Iterable[Desired], when: str) -> bool:
    """Record as DOUBTFUL what may be mapped otherwise if functions have been away from dom0 unseen.

    These are the functions in `scope` with a message about their owner; all functions, if nobody listened.
    From Xen 4.19 on, see `_doubt_forgotten`. Before, it is the needed pages that they share: the plan maps
    the pages, which changes nothing where they are mapped. Nothing is recorded of lost BARs, and of pages
    where Xen traps MSI-X structures. `when` is the time (UTC, RFC 3339). Return True if there are pages for
    which nothing is planned.
    """
    everything = scope.everything is not None and not scope.everything.reasons.isdisjoint(_NOBODY_LISTENED)
    told = set() if everything else scope.with_reason([Reason.OWNER])
    unseen = [
        each
        for each in desired
        if each.by is By.XEN and each.hold_reason is None and (everything or each.sbdf in told)
    ]
    if VPCI_BUILT_AT_ASSIGN.of(views.version):
        return _doubt_forgotten(views, unseen)
    for each in unseen:
        for bar, frames in _shared(views, each):
            run = MappedRun(each.place, each.sbdf, bar, frames, By.XEN, when, State.DOUBTFUL)
            views.memory.mapped.put(run)
    return False


def _doubt_forgotten(views: Views, desired: Iterable[Desired]) -> bool:
    """Record as DOUBTFUL the pages that these functions do not need any more and that no write has unmapped.

    vPCI may have forgotten them while the function was away from dom0: then they are still mapped. Nothing is
    recorded of lost BARs. Return True if there are such pages.
    """
    memory, found = views.memory, False
    for each in desired:
        known = memory.trapped.unmapped.get(each.place, set()) | {bar.bar for bar in each.lost}
        for run in memory.mapped.of(each.place):
            if (run.by, run.state) == (By.XEN, State.HELD) and run.bar not in known:
                for pages in without((run.frames,), each.spans(run.bar)):
                    memory.mapped.mark(run.place, run.bar, pages, State.DOUBTFUL)
                    found = True
    return found


def _shared(views: Views, each: Desired) -> list[tuple[int, Frames]]:
    """Return (BAR number, pages) that a function needs and shares with others; vPCI should have mapped them.

    A run of pages is whole if any of them is shared. BARs in segments that Xen cannot name lie inside those
    of their controller: they do not count.
    """
    lost = {bar.bar for bar in each.lost}
    theirs = [bar for bar in each.bars if bar.by is By.XEN and bar.bar not in lost]
    return [(bar.bar, span) for bar in theirs for span in bar.spans if _is_shared(views, each.place, span)]


def _is_shared(views: Views, place: str, span: Frames) -> bool:
    """Return True if the pages `span` of the function at `place` are shared and can be mapped again.

    The pages are shared if another function of dom0 has a BAR or mapped pages there. A function at
    one of `Views.given_places` does not count: vPCI does not see when its memory decode is switched. The
    pages cannot be mapped if a function has MSI-X structures there, or if a BAR of another function decodes
    the same bytes as a BAR of this one: the guards refuse that.
    """
    bars, left_out = views.state.bars.over(span), {place, *views.given_places}
    others = [(other.place, other.sbdf) for other in bars]
    others += [(other.place, other.sbdf) for other in views.memory.mapped.over(span)]
    shared = any(other not in left_out and sbdf.fits_xen for other, sbdf in others)
    decoding = [bar for bar in bars if bar.decoding]
    own = [bar.range for bar in decoding if bar.place == place]
    clash = any(bar.range.overlaps(mine) for bar in decoding if bar.place != place for mine in own)
    return shared and not clash and not views.state.bars.tables_over(span)
