"""Finds out what happened while no service ran. Functions left, other functions took their places, and some
functions came and left.

vPCI unmaps nothing of a function that leaves. At the start of the service, the roster in the ledger is held
against the machine, and the kernel's log is read from where it was last followed. Pages of functions that are
not there any more become STALE or DOUBTFUL, so that pcipt unmaps them. If the log does not reach back and the
kernel has told of any device since, nobody knows what came and left: `messages_lost` says so.
Source: Xen xen/drivers/vpci/vpci.c (vpci_deassign_device: it unmaps no BAR).
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

import attrs

from pcipt.engine.leftovers import put_pages
from pcipt.engine.queue import EVERYTHING, MESSAGES, Queue, Reason
from pcipt.engine.views.views import Views
from pcipt.errors import UnsupportedError
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import Frames, Sbdf, frames_from_range
from pcipt.pci.notation.kernel_log import Arrival, LogReading
from pcipt.remap.bar_ranges import decoding_range
from pcipt.remap.desired import Desired
from pcipt.remap.intervals import without
from pcipt.remap.life import State
from pcipt.remap.steps import AnyStep, Read
from pcipt.remap.vpci.roster import Listed, listed_from
from pcipt.xen.complaints import drop_words

Clock = Callable[[], str]
FAR = 256  # lines; a log of 128 KiB, the smallest that Debian's kernels have, holds about a thousand
_OPEN = MESSAGES | {Reason.NOT_ASKED, Reason.DIFFERENT}  # work that may show what is not known yet


def note_meanwhile(views: Views, log: LogReading | None, clock: Clock) -> bool:
    """Record what left while no service ran. Return True if this must be on disk before anything is done.

    Its addresses are added to `Memory.removed`: Xen is asked about them, and about their reserved regions.
    All functions must just have been read, and `log` before them: a function that came after that has a
    message. `clock` returns the time (UTC, RFC 3339). Nothing is done on a PV dom0, where vPCI maps nothing.
    """
    if not views.pvh:
        return False
    ledger = views.memory.ledger
    found = False
    for place, listed in list(ledger.roster.functions.items()):
        here = views.state.address_of(place)
        if here is None or listed.is_other(_listed_at(views, here)):
            _leave(views, place, listed, clock)
            found = True
        elif listed.shape is not None:
            views.memory.shapes[here] = listed.shape
            views.state.put(here, views.state.raws[here])  # it is compared with the shape now
    if log is None:
        return found
    for arrival in _visits(views, log):
        found = True
        views.memory.removed.add(arrival.sbdf)
        place = _place_of(views, arrival.sbdf)
        for bar, span in sorted(arrival.bars, key=lambda each: (each[0], each[1].start)):
            _doubt(views, place, arrival.sbdf, bar, frames_from_range(span), clock)
    if not ledger.roster.knows_from(log.first, log.last, log.uevents):
        found |= ledger.messages_lost is None
        ledger.messages_lost = ledger.messages_lost or clock()
    return found


def note_read(views: Views, desired: Iterable[Desired], noted: Iterable[AnyStep] = ()) -> list[AnyStep]:
    """Update the roster by what was read of these places; return `noted` and the steps that do so on disk."""
    roster, steps = views.memory.ledger.roster.functions, [*noted]
    for each in desired if views.pvh else ():
        if each.sbdf in views.memory.altered:
            continue  # what is on disk is how Xen has it
        here = each.sbdf in views.machine.functions and not each.gone
        now = _listed_at(views, each.sbdf, roster.get(each.place)) if here else None
        before = roster.get(each.place)
        if before and now and now == attrs.evolve(before, shape=now.shape):
            roster[each.place] = now  # a shape that became known is written with the files
        elif before != now:
            step = Read(each.place, now)
            step.apply(views.memory.ledger)
            steps.append(step)
    return steps


def follow_log(views: Views, queue: Queue, collect: Callable[[], None], taken: Collection[Sbdf] = ()) -> bool:
    """Note in the roster how far the kernel's log was followed, if all that it tells is in the ledger.

    The kernel tells its log of a function before it sends the message, so the messages are taken after the
    log was read (`collect`). Nothing is noted while work waits that may show more, or while functions were
    `taken` from the queue: the result is then False, and at the next start the log would tell of it again.
    """
    log = views.log.read() if views.pvh else None
    roster = views.memory.ledger.roster
    if log is None or (log.last, log.uevents) == (roster.line, roster.uevents):
        return True
    if taken:
        return False
    with suppress(UnsupportedError):  # it is raised again when the messages are needed
        collect()
        waits = any(map(queue.keys_with, _OPEN)) or queue.reasons_of(EVERYTHING)
        if not waits and not views.memory.trapped.unread:
            roster.line, roster.uevents = log.last, log.uevents
            return True
    return False


def is_far(views: Views) -> bool:
    """Return True if the kernel's log has grown so much that it should be noted how far it was followed.

    The kernel overwrites its oldest lines. A service that is killed long after it noted something must find
    the next line in the log.
    """
    log = views.log.read() if views.pvh else None
    return (
        log is not None and log.last is not None and log.last - (views.memory.ledger.roster.line or 0) > FAR
    )


def _leave(views: Views, place: str, listed: Listed, clock: Clock) -> None:
    """Record that the function of a place has left: Xen has forgotten it, and vPCI has unmapped nothing."""
    memory = views.memory
    del memory.ledger.roster.functions[place]
    memory.removed.add(listed.sbdf)
    memory.mapped.forsake(place)
    memory.ledger.sizes.pop(place, None)
    memory.ledger.given_up.discard(place)
    memory.ledger.faulty.discard(place)
    drop_words(memory.ledger.complaints, listed.sbdf)
    for bar, pages in listed.pages:
        _doubt(views, place, listed.sbdf, bar, pages, clock)


def _visits(views: Views, log: LogReading) -> Iterator[Arrival]:
    """Yield the functions of the log that are not there any more and may have left after it was followed.

    The last one that came to an address at which Linux has a function is that function. Left out are
    functions without a BAR that had an address, and those in segments that Xen cannot name. On a root bus
    Linux also finds functions that firmware hides: it unhides one to read its BAR, and hides it again. The
    firmware uses these addresses. So a function there counts only if Linux enabled it.
    Source: linux drivers/platform/x86/p2sb.c (p2sb_scan_and_cache).
    """
    line, buses = views.memory.ledger.roster.line, _buses_below_bridges(views)
    for sbdf, arrivals in log.arrivals.items():
        below = (sbdf.segment, sbdf.bus) in buses
        for arrival in arrivals[:-1] if sbdf in views.machine.functions else arrivals:
            fresh = line is None or arrival.last > line
            if fresh and arrival.bars and sbdf.fits_xen and (below or arrival.enabled):
                yield arrival


def _doubt(views: Views, place: str, sbdf: Sbdf, bar: int, pages: Frames, clock: Clock) -> None:
    """Record pages as DOUBTFUL that vPCI may have mapped for a function that is gone.

    Left out are pages that are recorded for the BAR already, protected pages, and pages where the function
    that is at the place now decodes: whoever maps its pages keeps them mapped.
    """
    here = views.state.address_of(place)
    function = views.machine.functions.get(here) if here is not None else None
    spans = map(decoding_range, function.bars) if function is not None else ()
    needed = [frames_from_range(span) for span in spans if span is not None]
    for part in without((pages,), needed):
        put_pages(views, place, sbdf, bar, part, clock, State.DOUBTFUL)


def _buses_below_bridges(views: Views) -> set[tuple[int, int]]:
    """Return (segment, bus) of each bus that is, or was at boot, below a bridge."""
    boot = views.memory.boot
    spans = [*boot.bridges.items()] if boot is not None else []
    spans += snapshot_from_machine(views.host.boot_id, views.machine).bridges.items()
    found = ((at.segment, range(first, last + 1)) for at, (first, last) in spans if first)
    return {(segment, bus) for segment, buses in found for bus in buses}


def _listed_at(views: Views, sbdf: Sbdf, before: Listed | None = None) -> Listed:
    """Return how the function that Linux has at an address is kept in the roster."""
    raw = views.state.raws.get(sbdf)
    instance, shape = raw.instance if raw is not None else None, views.memory.shapes.get(sbdf)
    return listed_from(views.machine.functions[sbdf], instance, before, shape)


def _place_of(views: Views, sbdf: Sbdf) -> str:
    """Return the place of a function that is or was at Linux's address `sbdf`; the address if unknown."""
    place = views.state.place_at(sbdf)
    if place is not None:
        return place
    boot = views.memory.boot
    path = boot.path_of(sbdf) if boot is not None else None
    return str(path or sbdf)
