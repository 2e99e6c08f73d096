"""The one queue of work: which key is to be reconciled, for which reasons, and not before when.

A key is a function's address or one of WHOLE. Whatever happens adds a key with a reason and does nothing
else. Adding a key again joins the reasons and keeps the earlier time. Work that messages ask for is due once
no message has arrived for a short time. Work that must be repeated is due after a pause that grows with the
attempts. DELAYS bounds every postponement; the clock is given.
"""

import enum
from collections.abc import Collection, Iterator, Mapping

import attrs

from pcipt.pci import Sbdf


class Reason(enum.Enum):
    """Why a key is in the queue."""

    WRITTEN = "a configuration register was written"
    APPEARED = "the kernel added the function"
    DISAPPEARED = "the kernel removed the function"
    OWNER = "the owner may have changed"
    NOT_ASKED = "Xen could not be asked"
    FAILED = "an action failed and is due again"
    DIFFERENT = "found different while acting"
    REQUESTED = "a user asked for it"
    LOST = "messages were lost"
    SETTINGS = "the settings changed"
    TIMER = "a timer"


class Whole(enum.Enum):
    """Keys that are not one function: the whole machine, and the files of the store."""

    EVERYTHING = "everything"
    STORE = "store"


EVERYTHING, STORE = Whole.EVERYTHING, Whole.STORE
Key = Sbdf | Whole
PLACE = "place"  # in DELAYS: any function's address
AT_ONCE = frozenset({Reason.REQUESTED, Reason.SETTINGS})
MESSAGES = frozenset({Reason.WRITTEN, Reason.APPEARED, Reason.DISAPPEARED, Reason.OWNER, Reason.LOST})
LEAVING = (
    0.5  # seconds in which the kernel's message of a removal follows the message that its driver unbound
)


@attrs.frozen
class Delay:
    """How long work waits: `shortest` to `longest` seconds.

    `pauses` are the seconds before each repeated attempt. After the last pause the work is dropped; with
    `endless` the last pause is used again and again.
    """

    shortest: float
    longest: float
    pauses: tuple[float, ...] = ()
    endless: bool = False


def _quiet() -> Delay:
    """Return the bounds for work that waits until no more messages arrive."""
    return Delay(0.0, 1.0)


def _repeated(*pauses: float, endless: bool = False) -> Delay:
    return Delay(min(pauses), max(pauses), pauses, endless)


#  (key, reason): how long the work may be postponed. A pair that is not here is never postponed.
DELAYS: Mapping[tuple[str | Whole, Reason], Delay] = {
    (PLACE, Reason.WRITTEN): _quiet(),
    (PLACE, Reason.APPEARED): _quiet(),
    (PLACE, Reason.DISAPPEARED): _quiet(),
    (EVERYTHING, Reason.LOST): _quiet(),
    (EVERYTHING, Reason.WRITTEN): _quiet(),  # records of configuration writes were lost
    # The toolstack binds a function to xen-pciback first and gives it away after that, without a message.
    (PLACE, Reason.OWNER): Delay(0.0, 1.0, (0.2, 0.5, 1.0)),
    # A guest keeps pages of a function that has left it: perhaps the guest is about to end.
    (PLACE, Reason.TIMER): _repeated(0.2, 0.5, 1.0, 4.0, 10.0, 20.0),
    (PLACE, Reason.FAILED): _repeated(1.0, 5.0, 25.0),
    # What is found different while acting is planned for at once; a function that never rests is left alone.
    (PLACE, Reason.DIFFERENT): _repeated(0.0, 0.0, 0.0, 1.0, 5.0, 25.0),
    (PLACE, Reason.NOT_ASKED): _repeated(1.0, 5.0, 25.0, 60.0, endless=True),
    (EVERYTHING, Reason.NOT_ASKED): _repeated(1.0, 5.0, 25.0, 60.0, endless=True),
    # The ledger is written whole some seconds after an action; a disk that does not take it is tried again.
    (STORE, Reason.TIMER): Delay(5.0, 5.0),
    (STORE, Reason.FAILED): _repeated(60.0, endless=True),
}


def delay_of(key: Key, reason: Reason) -> Delay:
    """Return how long work for this key and reason may be postponed."""
    return DELAYS.get((key if isinstance(key, Whole) else PLACE, reason), Delay(0.0, 0.0))


@attrs.frozen
class Work:
    """One key with all its reasons; times are seconds of the given clock.

    `not_before` is the earliest time that anybody asked for, None if only messages did: those wait until
    `quiet_until`. `first` is when the key was added. `attempts` counts how often it was repeated in a row.
    `leaves` is True if its driver was unbound: the function may be about to leave.
    """

    key: Key
    reasons: frozenset[Reason]
    first: float
    not_before: float | None = None
    quiet_until: float | None = None
    attempts: int = 0
    leaves: bool = False

    def joined(self, later: "Work") -> "Work":
        """Return this work with what was added later: all reasons, the earlier times, the fewer attempts."""
        times = [at for at in (self.not_before, later.not_before) if at is not None]
        return Work(
            key=self.key,
            reasons=self.reasons | later.reasons,
            first=min(self.first, later.first),
            not_before=min(times, default=None),
            quiet_until=self.quiet_until if later.quiet_until is None else later.quiet_until,
            attempts=min(self.attempts, later.attempts),
            leaves=self.leaves or later.leaves,
        )


class Queue:
    """Each key is in the queue at most once. EVERYTHING is taken again and again until it is `finished`."""

    def __init__(self) -> None:
        self._work: dict[Key, Work] = {}
        self._unfinished: Work | None = None  # EVERYTHING, taken in slices
        self._passed_over = True  # EVERYTHING comes next: nothing is known before the machine was read once

    def __len__(self) -> int:
        return len(self._work) + (self._unfinished is not None)

    def add(self, key: Key, reason: Reason, now: float, *, quiet: float = 0.0) -> None:
        """Add a key. For a reason of MESSAGES it is due once no message has arrived for `quiet` seconds."""
        if reason in MESSAGES:
            until = now + quiet
            work = Work(key, frozenset({reason}), now, quiet_until=until, leaves=quiet >= LEAVING)
        else:
            work = Work(key, frozenset({reason}), now, not_before=now + delay_of(key, reason).shortest)
        self._join(work)

    def repeat(
        self, key: Key, reason: Reason, now: float, attempts: int, reasons: frozenset[Reason] = frozenset()
    ) -> bool:
        """Add a key again after `attempts` attempts in a row; it is due after the next pause of DELAYS.

        `reasons` are further reasons that still hold. Return False if that was the last attempt: then nothing
        is added.
        """
        delay = delay_of(key, reason)
        if attempts >= len(delay.pauses) and not delay.endless:
            return False
        pause = delay.pauses[min(attempts, len(delay.pauses) - 1)]
        self._join(Work(key, reasons | {reason}, now, not_before=now + pause, attempts=attempts + 1))
        return True

    def hasten(self, reason: Reason, now: float) -> None:
        """Make functions with this reason due now, and EVERYTHING after the shortest of its pauses."""
        for key, work in self._work.items():
            if reason in work.reasons and work.not_before is not None:
                at = now + (delay_of(key, reason).shortest if key is EVERYTHING else 0.0)
                self._work[key] = attrs.evolve(work, not_before=min(work.not_before, at))

    def keys_with(self, reason: Reason) -> set[Key]:
        return {key for key, work in self._work.items() if reason in work.reasons}

    def reasons_of(self, key: Key) -> frozenset[Reason]:
        """Return why a key is in the queue, or is taken and not finished; empty if it is neither."""
        waiting = self._work[key].reasons if key in self._work else frozenset()
        unfinished = self._unfinished
        return waiting if unfinished is None or unfinished.key is not key else waiting | unfinished.reasons

    def holds(self, key: Key, reason: Reason) -> bool:
        """Return True if the key is in the queue with this reason, and not taken."""
        return key in self._work and reason in self._work[key].reasons

    def next_due(self) -> float | None:
        """Return when work is due: 0.0 if EVERYTHING is not finished, None if the queue is empty."""
        if self._unfinished is not None:
            return 0.0
        quiet = self._quiet_at()
        return min((_due(work, quiet) for work in self._work.values()), default=None)

    def take(self, now: float, *, whole: bool = True) -> tuple[Work, ...]:
        """Return what is due: functions and the store first, and next time EVERYTHING, if `whole`.

        What is returned is no longer in the queue, except for EVERYTHING until it is `finished`.
        Shape:  in the order in which the keys were added.
        """
        quiet = self._quiet_at()
        due = [work for work in self._work.values() if _due(work, quiet) <= now]
        single = [work for work in due if work.key is not EVERYTHING]
        has_everything = whole and (self._unfinished is not None or len(single) < len(due))
        if has_everything and (self._passed_over or not single):
            self._passed_over = False
            self._unfinished = self._unfinished or self._work.pop(EVERYTHING)
            return (self._unfinished,)
        self._passed_over = has_everything
        return tuple(self._work.pop(work.key) for work in single)

    def finished(self) -> None:
        """End the EVERYTHING that was taken: all its slices are done."""
        self._unfinished = None

    def take_arrived(self) -> tuple[Work, ...]:
        """Remove and return functions, due or not, that the kernel added and is not about to remove."""
        return tuple(self._work.pop(key) for key in [work.key for work in self._arrived()])

    def _arrived(self) -> Iterator[Work]:
        for work in self._work.values():
            if Reason.APPEARED in work.reasons and Reason.DISAPPEARED not in work.reasons and not work.leaves:
                yield work

    def is_due(self, now: float) -> bool:
        at = self.next_due()
        return at is not None and at <= now

    def _join(self, work: Work) -> None:
        before = self._work.get(work.key)
        self._work[work.key] = work if before is None else before.joined(work)

    def _quiet_at(self) -> float:
        """Return when no message has arrived for long enough: the work for all messages is due then."""
        waiting = [work for work in self._work.values() if work.quiet_until is not None]
        if not waiting:
            return 0.0
        longest = min(work.first + _longest_quiet(work) for work in waiting)
        return min(longest, max(work.quiet_until or 0.0 for work in waiting))


def _longest_quiet(work: Work) -> float:
    return min(delay_of(work.key, reason).longest for reason in work.reasons & MESSAGES)


def _due(work: Work, quiet_at: float) -> float:
    times = [work.not_before] if work.not_before is not None else []
    times += [quiet_at] if work.quiet_until is not None else []
    return min(times)


def keys_of(work: Collection[Work]) -> set[Sbdf]:
    """Return the addresses among the keys."""
    return {each.key for each in work if isinstance(each.key, Sbdf)}
