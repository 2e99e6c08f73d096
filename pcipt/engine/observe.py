"""Reads the functions of a round, and asks Xen about those for which its answer may have changed."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from pcipt.engine.interfaces import Policy
from pcipt.engine.leftovers import mark_removed, mark_unseen
from pcipt.engine.open_actions import OpenActions
from pcipt.engine.performer import Performer, Rehearsal
from pcipt.engine.queue import STORE, Queue, Reason, Work
from pcipt.engine.report import ASKED_IN_FULL, HANDED_OVER, Scope
from pcipt.engine.round import Round, Slices, sliced
from pcipt.engine.saver import Saver
from pcipt.engine.unproven import note_unproven
from pcipt.engine.views.altered import note_shapes
from pcipt.engine.views.complaints import forget_bars
from pcipt.engine.views.faults import note_faults
from pcipt.engine.views.meanwhile import is_far, note_meanwhile
from pcipt.engine.views.regions import sharing_regions
from pcipt.engine.views.shared_entries import concerned_by_entries, note_entries
from pcipt.engine.views.silent import ask_for_other_owners
from pcipt.engine.views.views import Views
from pcipt.pci import Sbdf
from pcipt.remap.actions import Result, RewriteBar
from pcipt.xen.complaints import Code

ALL = frozenset(Code)


class Observer:
    """Reads the functions of a round again and asks Xen about them; one for each reconciler.

    `all_read` is False while EVERYTHING is being read.
    """

    def __init__(
        self,
        queue: Queue,
        performer: Performer | Rehearsal,
        policy: Policy,
        saver: Saver,
        clock: Callable[[], float],
        open_actions: OpenActions,
    ) -> None:
        self._queue = queue
        self._performer = performer
        self._policy = policy
        self._saver = saver
        self._clock = clock
        self._open_actions = open_actions
        self.all_read = True

    def read(self, now: Round) -> Slices:
        """Read the functions of the round again, and functions that the kernel has just added.

        The work for added functions is taken from the queue into the round. Mapped pages of functions that
        the kernel has removed become STALE. If the round is EVERYTHING, the memory maps and
        all functions are read instead, with a yield after each slice. Nothing is read before it is iterated.
        If OWNERS is in the round, functions that have another owner than before are taken into the round.
        """
        self._policy.collect()
        if arrived := self._queue.take_arrived():
            now.scope = Scope((*now.scope.work, *arrived))
        if now.scope.owners is not None:
            self._find_other_owners(now)
        self._mark_removed(now, now.scope.with_reason([Reason.DISAPPEARED]))
        if now.everything is not None:
            yield from self._read_everything(now)
            return
        read_functions(now, self._open_actions)
        memory = now.views.memory
        if memory.vacated:  # functions that Linux does not have yet have vacated nothing
            self._mark_removed(now, [sbdf for sbdf in memory.vacated.values() if sbdf in now.subjects])
        if memory.trapped.unread:
            mark_unseen(now.views, self._policy.now, now.scope.with_reason([Reason.TIMER]))

    def _find_other_owners(self, now: Round) -> None:
        """Ask Xen whether owners have changed without a message, and add those functions to the round."""
        changed = ask_for_other_owners(now.views)
        now.asked = changed is not None
        work = (Work(sbdf, frozenset({Reason.OWNER}), self._clock()) for sbdf in sorted(changed or ()))
        now.scope = Scope((*now.scope.work, *work))

    def _read_everything(self, now: Round) -> Slices:
        """Read the memory maps and all functions that Linux has or had: in slices, except the first time.

        The first time, find out what happened while no service ran (`note_meanwhile`). Then make and save the
        boot snapshot, if there is none.
        """
        views = now.views
        self.all_read = False
        views.read_protection()
        if not views.machine.functions:
            log = views.log.read()  # before the functions are read: later ones have messages
            now.changed |= views.load()
            now.touched |= note_meanwhile(views, log, self._policy.now)
        for part in sliced(views.all_addresses() if not now.changed else ()):
            now.changed |= views.read(part)
            yield
        self.all_read = True
        self._mark_removed(now, views.memory.vacated.values())
        mark_unseen(views, self._policy.now)
        saved = not now.touched or self._saver.save(views.memory)  # nothing shows it later
        if views.know_boot() and views.memory.boot is not None:
            saved &= self._saver.save_boot(views.memory.boot)
        if not saved:
            self._queue.repeat(STORE, Reason.FAILED, self._clock(), 0)

    def see_arrivals(self, now: Round) -> None:
        """Read functions that the kernel has added since the round began, and ask Xen about them.

        They may need pages or regions that the round is about to take away. Their work stays in the queue,
        because the announcements of this round are already made. Mapped pages of functions that the kernel
        has removed become STALE.
        """
        self._policy.collect()
        self._mark_removed(now)
        arrived = self._queue.arrived()
        if arrived:
            changed = now.views.read(arrived)
            now.views.ask(changed | arrived, owners=True)
            now.changed |= changed

    def _mark_removed(self, now: Round, functions: Iterable[Sbdf] = ()) -> None:
        """Mark mapped pages of functions that the kernel has removed as STALE; vPCI leaves such pages mapped.

        These are `functions`, and those whose removal is in the queue.
        """
        removed = {*functions, *self._queue.functions_with(Reason.DISAPPEARED)}
        mark_removed(now.views, removed, self._policy.now)

    def ask(self, now: Round) -> bool:
        """Ask Xen about the functions of the round. If the round is EVERYTHING, ask about all functions.

        Where owners are asked, and for CONSOLE, Xen's console is read. Where owners are asked, complaints
        about failed assignments are over then; in a round of EVERYTHING, all that do not last. Return False
        if Xen could not be asked: nothing may be concluded then.
        """
        views, given = now.views, now.views.given_places
        if now.everything is not None:
            asked = views.ask_everything()
        else:
            asked = now.asked and ask_some(now, self._open_actions)
        if asked:
            about = views.machine.functions if now.everything is not None else now.subjects
            steps = note_shapes(views.memory, views.state.raws, views.view, views.version, about)
            now.touched |= not self._saver.note(steps)
            now.returned = given - views.given_places
            back = map(views.state.address_of, now.returned)
            now.subjects |= {sbdf for sbdf in back if sbdf is not None}
            severed = note_entries(views)
            if severed:  # nothing in Xen tells it later
                now.touched |= not self._saver.save(views.memory)
            if severed or views.memory.ledger.severed:
                now.subjects |= concerned_by_entries(views, now.listed)
            self._queue.hasten(Reason.NOT_ASKED, self._clock())
        else:
            views.not_asked |= now.subjects
        now.views = self._performer.views_for(views)
        if not asked or now.views is not views:  # Xen prints a line once: a dry run leaves it to its reader
            return asked
        if now.everything is not None:
            self._read_console(now, ALL)
        elif not now.scope.with_reason(HANDED_OVER).isdisjoint(now.listed):
            self._read_console(now, {Code.ASSIGN})
        elif now.scope.console is not None:
            self._read_console(now, ())
            now.touched |= is_far(views)
        return True

    def hear(self, now: Round) -> None:
        """Read Xen's console again if actions of the round were tried: Xen may have printed lines about them.

        A dropped write that the round has repeated is no complaint any more.
        """
        if not now.acted:
            return
        self._read_console(now, ())
        done = [o.action for o in now.outcomes if o.result is Result.DONE]
        rewritten = [action.sbdf for action in done if isinstance(action, RewriteBar)]
        forget_bars(now.views.memory, rewritten, {Code.DROPPED})

    def _read_console(self, now: Round, over: Collection[Code]) -> None:
        """Read Xen's console, and note all that a line may tell: nothing is printed again.

        Former complaints with a code in `over` end; with ALL, what was noted of refused DMA ends, too. Added
        to the queue are functions whose DMA was refused, and functions that vPCI could not be set up for on
        their return to dom0: the line may be newer than the last answer about their owner.
        """
        views, at = now.views, self._clock()
        heard = views.complaints.read(
            views.machine, views.state.bars, over=over, traps=partial(_may_trap, views)
        )
        faults, faulted = note_faults(views, heard.text, self._policy.now, whole=over is ALL)
        now.faults += faults
        now.complained |= heard.about | faulted
        for sbdf in sorted(faulted):
            self._queue.add(sbdf, Reason.FAULTED, at)
        for sbdf in sorted(heard.not_built) if views.pvh else ():
            if (place := views.state.place_at(sbdf)) is not None:
                now.subjects.add(sbdf)
                now.not_built.add(place)
                self._queue.add(sbdf, Reason.OWNER, at)
        found = map(views.state.place_at, heard.may_not_be_built)
        doubted = {place for place in found if place is not None}
        views.memory.told_given_up |= doubted
        views.memory.ledger.given_up |= now.not_built | doubted


def _may_trap(views: Views, sbdf: Sbdf) -> bool:
    """Return True if vPCI handles a function of dom0, as far as is known; never on a PV dom0."""
    if not views.pvh or sbdf not in views.machine.functions or not views.view.in_dom0(sbdf):
        return False
    return views.state.place_at(sbdf) not in views.memory.without_vpci


def read_functions(now: Round, open_actions: OpenActions) -> None:
    """Read the functions in the scope of the round again, and functions that share pages with them or with
    vacated places.

    Set in `now`: `owners`, the owners of the functions in the scope before the reading; `changed`, the
    functions that the reading found changed; `subjects`, both. If there are open actions, also set `pages`
    (the former BAR pages of the functions in the scope) and `relatives`.
    """
    views, functions = now.views, now.scope.functions
    now.owners = {sbdf: views.view.owner(sbdf) for sbdf in functions if sbdf in views.view.known}
    if open_actions.concern_pages:
        now.pages |= {frames for sbdf in functions for frames in views.state.bars.pages_of(sbdf)}
    if open_actions.concern_others(functions):
        now.relatives |= views.state.relatives(functions)
    given = views.given(functions)
    now.changed |= views.read(functions)
    if given:
        note_unproven(views, given)
    if views.memory.vacated:
        now.changed |= views.read(_sharing_pages(views, functions))
    now.sharing = _sharing_mapped(views, functions | now.changed) - functions
    if now.sharing:
        now.changed |= views.read(now.sharing)
    now.subjects |= functions | now.changed | now.sharing


def _sharing_pages(views: Views, functions: Collection[Sbdf]) -> set[Sbdf]:
    """Return the functions with a BAR on pages that are mapped for places that these functions vacated.

    If such a BAR still decodes, vPCI unmaps the pages with it later. If it stopped to decode, nobody knows
    whether that was before the function left, and the pages stay mapped for ever, or after it.
    """
    vacated = (place for place, sbdf in views.memory.vacated.items() if sbdf in functions)
    runs = [run for place in vacated for run in views.memory.mapped.of(place)]
    return {sbdf for run in runs for sbdf in views.state.bars.functions_over(run.frames)}


def _sharing_mapped(views: Views, functions: Collection[Sbdf]) -> set[Sbdf]:
    """Return other functions with pages that are mapped for these functions as well; none on a PV dom0.

    If one of these functions does not decode there any more, vPCI spares the pages for functions of dom0, not
    for those that a guest has. So it is asked who has them, whether or not their message has come.
    Source: xen/drivers/vpci/header.c (modify_bars: it looks at the functions of the same domain).
    """
    places = {views.state.place_at(sbdf) for sbdf in functions} if views.pvh else set()
    mapped = views.memory.mapped
    over = [
        other
        for place in places
        if place is not None
        for run in mapped.of(place)
        for other in mapped.over(run.frames)
        if other.place != place
    ]
    found = {views.state.address_of(other.place) for other in over}
    return {sbdf for sbdf in found if sbdf is not None}


def ask_some(now: Round, open_actions: OpenActions) -> bool:
    """Ask Xen about the functions of the round. Return False if Xen could not be asked.

    Xen is asked in full, with the owner, about: functions that are in the round for another reason than
    WRITTEN; if there is such a function, all functions that changed; functions of the round that are
    renumbered or that pcipt announced at another address; functions that have an open announcement and are
    relatives of the round's functions, or share a reserved region with them; and functions that share pages
    with those of the round. About all other functions that changed, Xen is first asked only whether it lists
    them. Xen is then asked in full about those for which the answer is not as before.
    """
    views, scope = now.views, now.scope
    full = scope.with_reason(ASKED_IN_FULL)
    full |= now.changed if full else set()
    if open_actions.concern_others(now.subjects):
        near = now.relatives | views.state.relatives(now.subjects) | sharing_regions(views, now.subjects)
        full |= open_actions.announcements_among(near)
    full |= {s for s in now.subjects if s in views.state.renumbered or s in views.announced_at()}
    full |= now.subjects & views.memory.ledger.unsized()
    full |= now.sharing
    full |= {sbdf.cut for sbdf in full}
    lapsed = views.ask_if_listed(now.changed - full)
    if lapsed is None:
        return False
    now.listed = full | lapsed
    handed = not (scope.with_reason(HANDED_OVER) | now.sharing).isdisjoint(now.listed)
    return not now.listed or views.ask(now.listed, owners=handed)
