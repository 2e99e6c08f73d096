"""The queue of work: which keys must be reconciled, for which reasons, and at which earliest time.

A key is a function's address or one of `Whole`. Whatever happens adds a key with a reason, and does nothing
else. Adding a key again joins the reasons and keeps the earlier time. Work for messages is due once no
message has arrived for a short time. Repeated work is due after a pause that grows with each attempt. The
table DELAYS bounds each delay. All times are seconds of a clock that the caller reads.
"""

import enum
from collections.abc import Mapping

import attrs

from pcipt.pci import Sbdf


class Reason(enum.Enum):
    """The reasons for which a key is in the queue."""

    WRITTEN = "a configuration register was written"
    APPEARED = "the kernel added the function"
    DISAPPEARED = "the kernel removed the function"
    OWNER = "the owner may have changed"
    UNBOUND = "it was unbound from xen-pciback and may return to dom0"
    NOT_ASKED = "Xen could not be asked"
    FAILED = "an action failed and is due again"
    DIFFERENT = "an action found it different"
    LATE = "Xen was told of it while its driver was bound"
    TAKEN = "xl was started to quarantine it"
    REQUESTED = "a user asked for it"
    LOST = "messages were lost"
    SETTINGS = "the settings changed"
    TIMER = "a timer"
    UNMAPPED = "unmapped pages may have come back"
    WITHDRAWN = "a reserved region was withdrawn"
    LISTEN = "DMA may have been refused"
    FAULTED = "its DMA was refused"


class Whole(enum.Enum):
    """The keys that are not the address of one function."""

    EVERYTHING = "everything"  # the whole machine
    OWNERS = "owners"  # all functions whose owner may change without a message
    REGIONS = "regions"  # the reserved regions of functions that were unbound
    CONSOLE = "console"  # what Xen prints about refused DMA
    STORE = "store"  # the files on disk


EVERYTHING, OWNERS, REGIONS, CONSOLE, STORE = Whole
Key = Sbdf | Whole
PLACE = "place"  # in DELAYS: any function's address
MESSAGES = frozenset({Reason.WRITTEN, Reason.APPEARED, Reason.DISAPPEARED, Reason.OWNER, Reason.LOST})
_COMES_OR_GOES = frozenset({Reason.APPEARED, Reason.DISAPPEARED})
LOOKS = frozenset({Reason.LISTEN, Reason.WITHDRAWN})  # nothing is known to be open
UNHURRIED = LOOKS | {Reason.REQUESTED, Reason.TIMER, Reason.UNMAPPED}  # a user's request, or time has passed


@attrs.frozen
class Delay:
    """The bounds of a delay, in seconds.

    `shortest` and `longest` bound the first delay of work that is added. `pauses` are the delays before the
    repeated attempts, in order. If `endless` is True, the last pause is used again and again after that.
    """

    shortest: float
    longest: float
    pauses: tuple[float, ...] = ()
    endless: bool = False


def _repeated(*pauses: float, endless: bool = False) -> Delay:
    """Return the delay of work that is only repeated, with these pauses."""
    return Delay(min(pauses), max(pauses), pauses, endless)


_UNTIL_ASKED = _repeated(1.0, 5.0, 25.0, 60.0, endless=True)
#  (key, reason): how long work may be postponed; without a row it never is
DELAYS: Mapping[tuple[str | Whole, Reason], Delay] = {
    **{(PLACE, reason): Delay(0.0, 1.0) for reason in (Reason.WRITTEN, Reason.APPEARED, Reason.DISAPPEARED)},
    **{(EVERYTHING, reason): Delay(0.0, 1.0) for reason in (Reason.LOST, Reason.WRITTEN)},  # lost records
    # The toolstack binds a function to xen-pciback first and gives it away after that, silently.
    (PLACE, Reason.OWNER): Delay(0.0, 1.0, (0.2, 0.5, 1.0)),
    # A guest that keeps pages may end, a function that writes show may be added, a last write be recorded.
    (PLACE, Reason.TIMER): _repeated(0.2, 0.5, 1.0, 4.0, 10.0, 20.0),
    (PLACE, Reason.FAILED): _repeated(1.0, 5.0, 25.0),
    # What is found different while acting is planned for at once; what never rests is left alone.
    (PLACE, Reason.DIFFERENT): _repeated(0.0, 0.0, 0.0, 1.0, 5.0, 25.0),
    # A driver that began too early may still give up; only then Linux can be asked again. xl tells no end.
    (PLACE, Reason.LATE): _repeated(1.0, 5.0, 25.0),
    (PLACE, Reason.TAKEN): _repeated(0.2, 1.0, 5.0, 25.0, 60.0, endless=True),
    **{(key, Reason.NOT_ASKED): _UNTIL_ASKED for key in (PLACE, EVERYTHING, OWNERS, CONSOLE)},
    # A slow question, as often as the settings say; more often while a function's owner may change silently.
    (OWNERS, Reason.TIMER): Delay(1.0, 3600.0),
    # Xen's console tells of refused DMA: read soon after a withdrawal, else as often as the settings say.
    (CONSOLE, Reason.LISTEN): Delay(1.0, 3600.0),
    (CONSOLE, Reason.WITHDRAWN): _repeated(1.0, 5.0, 25.0),
    # dom0 must have had time to access what was unmapped; each look prints lines on Xen's console.
    (PLACE, Reason.UNMAPPED): _repeated(60.0, 600.0, 3600.0, endless=True),
    # The ledger is written whole some seconds after an action, and again once it tells how far the kernel's
    # log was followed, which it does when nothing waits; a disk that does not take it is tried again.
    (STORE, Reason.TIMER): Delay(5.0, 60.0, (5.0, 25.0, 60.0)),
    (STORE, Reason.FAILED): _repeated(60.0, endless=True),
}
REST = 60.0  # seconds: lost messages that follow lost messages wait as long as EVERYTHING took, at most this


def delay_of(key: Key, reason: Reason) -> Delay:
    """Return the row of DELAYS for a key and a reason, or that of no delay."""
    return DELAYS.get((key if isinstance(key, Whole) else PLACE, reason), Delay(0.0, 0.0))


@attrs.frozen
class Work:
    """One key with all its reasons. Times are seconds.

    `first` is when the key was added. `not_before` is when the work is due at the latest, None if only
    messages asked for it. `quiet_until` is when the quiet time of its last message ends, None if no message
    asked for it. `attempts` is the number of repeated attempts in a row. `leaves` is True if the function
    lost its driver: the kernel may be about to remove it.
    """

    key: Key
    reasons: frozenset[Reason]
    first: float
    not_before: float | None = None
    quiet_until: float | None = None
    attempts: int = 0
    leaves: bool = False

    def joined(self, added: "Work") -> "Work":
        """Return this work joined with work that was added for the same key later.

        Shape:  all reasons, the earlier `first` and `not_before`, the fewer `attempts`, the `quiet_until` of
                `added` unless it is None, and `leaves` True if one of the two has it True.
        """
        times = [at for at in (self.not_before, added.not_before) if at is not None]
        return Work(
            key=self.key,
            reasons=self.reasons | added.reasons,
            first=min(self.first, added.first),
            not_before=min(times, default=None),
            quiet_until=self.quiet_until if added.quiet_until is None else added.quiet_until,
            attempts=min(self.attempts, added.attempts),
            leaves=self.leaves or added.leaves,
        )


class Queue:
    """The queue. Each key is in it once.

    Work for EVERYTHING is returned again by each `take` until `finished` is called: it is done in slices.
    """

    def __init__(self) -> None:
        self._work: dict[Key, Work] = {}
        self._unfinished: Work | None = None  # EVERYTHING, taken in slices
        self._begun = self._rested = 0.0  # when that one began, and when the next one may for lost messages
        self._passed_over = True  # EVERYTHING comes next: nothing is known before the machine was read once

    def __len__(self) -> int:
        """Return the number of keys. EVERYTHING counts until finished, and again if added meanwhile."""
        return len(self._work) + (self._unfinished is not None)

    def add(self, key: Key, reason: Reason, now: float, *, quiet: float = 0.0, leaves: bool = False) -> None:
        """Add a key for a reason, or join the reason to the work that the key has already.

        For a reason in MESSAGES, `quiet` is the quiet time after this message, and `leaves` is True if the
        message says that the function lost its driver. All work for messages is due together when all quiet
        times are over, but at most the longest delay (DELAYS) after the first message. For a reason that is
        not in MESSAGES, the work is due after `quiet` seconds, within the bounds of DELAYS.
        """
        if reason in MESSAGES:
            work = Work(key, frozenset({reason}), now, quiet_until=now + quiet, leaves=leaves)
        else:
            delay = delay_of(key, reason)
            pause = min(max(quiet, delay.shortest), delay.longest)
            work = Work(key, frozenset({reason}), now, not_before=now + pause)
        self._join(work)

    def repeat(
        self, key: Key, reason: Reason, now: float, attempts: int, reasons: frozenset[Reason] = frozenset()
    ) -> bool:
        """Add a key again that was repeated `attempts` times in a row; it is due after the next pause of
        DELAYS.

        `reasons` are joined to `reason`. Return True if the key was added, False if there is no further
        pause: then the queue is unchanged.
        """
        delay = delay_of(key, reason)
        if attempts >= len(delay.pauses) and not delay.endless:
            return False
        pause = delay.pauses[min(attempts, len(delay.pauses) - 1)]
        self._join(Work(key, reasons | {reason}, now, not_before=now + pause, attempts=attempts + 1))
        return True

    def hasten(self, reason: Reason, now: float) -> None:
        """Make work that has this reason due earlier: functions at `now`, EVERYTHING after its shortest
        pause.

        Work that only waits for messages to stop stays as it is.
        """
        for key, work in self._work.items():
            if reason in work.reasons and work.not_before is not None:
                at = now + (delay_of(key, reason).shortest if key is EVERYTHING else 0.0)
                self._work[key] = attrs.evolve(work, not_before=min(work.not_before, at))

    def keys_with(self, reason: Reason) -> set[Key]:
        """Return the keys that wait in the queue with this reason; work that was taken does not count."""
        return {key for key, work in self._work.items() if reason in work.reasons}

    def functions_with(self, reason: Reason) -> set[Sbdf]:
        """Return the addresses among `keys_with`."""
        return {key for key in self.keys_with(reason) if isinstance(key, Sbdf)}

    def reasons_of(self, key: Key) -> frozenset[Reason]:
        """Return all reasons of a key, if any. EVERYTHING keeps its reasons from `take` until `finished`."""
        works = (self._work.get(key), self._unfinished if key is EVERYTHING else None)
        return frozenset(reason for work in works if work is not None for reason in work.reasons)

    def holds(self, key: Key, reason: Reason) -> bool:
        """Return True if the key is in `keys_with` for this reason."""
        return key in self._work and reason in self._work[key].reasons

    def next_due(self) -> float | None:
        """Return the time at which the next work is due: 0.0 while EVERYTHING was taken and is not finished,
        None if the queue is empty.
        """
        if self._unfinished is not None:
            return 0.0
        quiet = self._quiet_at()
        return min((self._due(work, quiet) for work in self._work.values()), default=None)

    def take(self, now: float, *, whole: bool = True) -> tuple[Work, ...]:
        """Return the work that is due, and remove it from the queue.

        A call returns EVERYTHING alone, or all other keys that are due, in the order of the adds, or nothing.
        If EVERYTHING and other keys are due, the calls return them in turn. EVERYTHING that was taken stays
        due until `finished` is called. If `whole` is False, a call never returns EVERYTHING.
        """
        quiet = self._quiet_at()
        due = [work for work in self._work.values() if self._due(work, quiet) <= now]
        single = [work for work in due if work.key is not EVERYTHING]
        has_everything = whole and (self._unfinished is not None or len(single) < len(due))
        if has_everything and (self._passed_over or not single):
            self._passed_over = False
            if self._unfinished is None:
                self._unfinished, self._begun = self._work.pop(EVERYTHING), now
            return (self._unfinished,)
        self._passed_over = has_everything
        return tuple(self._work.pop(work.key) for work in single)

    def finished(self, now: float) -> None:
        """Remove the work for EVERYTHING that was taken. See REST for when the next one is due."""
        if self._unfinished is not None and self._unfinished.reasons <= MESSAGES:
            self._rested = now + min(now - self._begun, REST)
        self._unfinished = None

    def take_arrived(self) -> tuple[Work, ...]:
        """Remove and return the work of all functions in `arrived`, whether it is due or not."""
        return tuple(self._work.pop(sbdf) for sbdf in self.arrived())

    def arrived(self) -> set[Sbdf]:
        """Return the functions that the kernel has added and shows no sign of removing."""
        found = [work for work in self._work.values() if work.reasons & _COMES_OR_GOES == {Reason.APPEARED}]
        return {work.key for work in found if isinstance(work.key, Sbdf) and not work.leaves}

    def unbound(self) -> set[Sbdf]:
        """Return the functions that lost their driver and that the kernel has not removed."""
        leaving = (w for w in self._work.values() if w.leaves and Reason.DISAPPEARED not in w.reasons)
        return {work.key for work in leaving if isinstance(work.key, Sbdf)}

    def has_change(self, now: float, besides: frozenset[Reason] = UNHURRIED) -> bool:
        """Return True if work on the machine (any but STORE) is due for a reason that is not in `besides`."""
        quiet = self._quiet_at()
        due = [work for key, work in self._work.items() if key is not STORE and self._due(work, quiet) <= now]
        due += [self._unfinished] if self._unfinished is not None else []
        return any(work.reasons - besides for work in due)

    def _join(self, work: Work) -> None:
        """Add work, joined with the work that its key has already."""
        self._work[work.key] = self._work[work.key].joined(work) if work.key in self._work else work

    def _quiet_at(self) -> float:
        """Return when the work for all messages is due together: when all quiet times are over, but at most
        the longest delay after the first message; 0.0 if no message waits.
        """
        waiting = [work for work in self._work.values() if work.quiet_until is not None]
        if not waiting:
            return 0.0
        longest = min(w.first + delay_of(w.key, why).longest for w in waiting for why in w.reasons & MESSAGES)
        return min(longest, max(work.quiet_until or 0.0 for work in waiting))

    def _due(self, work: Work, quiet_at: float) -> float:
        """Return the time at which work is due, if the work for messages is due at `quiet_at`."""
        times = [] if work.not_before is None else [work.not_before]
        times += [] if work.quiet_until is None else [quiet_at]
        rests = work.key is EVERYTHING and work.reasons <= MESSAGES
        return max(min(times), self._rested) if rests else min(times)
