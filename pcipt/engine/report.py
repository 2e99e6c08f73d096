"""What one reconciliation is about, and what came of it."""

from collections.abc import Collection
from typing import Any

import attrs

from pcipt.engine.queue import CONSOLE, EVERYTHING, MESSAGES, OWNERS, REGIONS, STORE, Key, Reason, Whole, Work
from pcipt.pci import Sbdf
from pcipt.remap.actions import Outcome
from pcipt.xen.dma_faults import DmaFault

ASKED_IN_FULL = frozenset(Reason) - {Reason.WRITTEN}
_NOT_HANDED = {
    Reason.WRITTEN, Reason.FAILED, Reason.DIFFERENT, Reason.LATE, Reason.UNMAPPED, Reason.FAULTED,
}  # fmt: skip
HANDED_OVER = frozenset(Reason) - _NOT_HANDED


def _whole(key: Whole) -> Any:
    """Return the factory of a scope's work for a key that is not the address of a function."""
    return attrs.Factory(
        lambda scope: next((work for work in scope.work if work.key is key), None), takes_self=True
    )


def _reasons_of(works: Collection[Work]) -> frozenset[Reason]:
    """Return all reasons of some work."""
    return frozenset().union(*(work.reasons for work in works))


@attrs.frozen
class Scope:
    """The work that one reconciliation takes: functions and the other keys of the queue.

    `functions` are the addresses of its functions, `reasons` all reasons of its work. `everything`,
    `owners`, `regions`, `console` and `store` are the work for EVERYTHING, OWNERS, REGIONS, CONSOLE and
    STORE, each None if the scope has none.
    """

    work: tuple[Work, ...] = ()
    everything: Work | None = attrs.field(default=_whole(EVERYTHING), init=False, eq=False, repr=False)
    owners: Work | None = attrs.field(default=_whole(OWNERS), init=False, eq=False, repr=False)
    regions: Work | None = attrs.field(default=_whole(REGIONS), init=False, eq=False, repr=False)
    console: Work | None = attrs.field(default=_whole(CONSOLE), init=False, eq=False, repr=False)
    store: Work | None = attrs.field(default=_whole(STORE), init=False, eq=False, repr=False)
    functions: frozenset[Sbdf] = attrs.field(
        default=attrs.Factory(lambda self: frozenset(keys_of(self.work)), takes_self=True),
        init=False, eq=False, repr=False,
    )  # fmt: skip
    reasons: frozenset[Reason] = attrs.field(
        default=attrs.Factory(lambda self: _reasons_of(self.work), takes_self=True),
        init=False, eq=False, repr=False,
    )  # fmt: skip
    _attempts: dict[Key, int] = attrs.field(
        default=attrs.Factory(lambda self: {work.key: work.attempts for work in self.work}, takes_self=True),
        init=False, eq=False, repr=False,
    )  # fmt: skip

    def with_reason(self, reasons: Collection[Reason]) -> set[Sbdf]:
        """Return the functions of the scope that have at least one of these reasons."""
        if self.reasons.isdisjoint(reasons):
            return set()
        return keys_of([work for work in self.work if not work.reasons.isdisjoint(reasons)])

    def attempts_of(self, sbdf: Sbdf) -> int:
        """Return how often work for this function was repeated in a row.

        For a function that is not in the scope, return the largest number in the scope (0 for an empty
        scope).
        """
        return self._attempts.get(sbdf, max(self._attempts.values(), default=0))

    @property
    def changes_shape(self) -> bool:
        """Return True if functions may have been added, removed or given to another owner.

        True for EVERYTHING, and if a message other than that of a configuration write asked for a function.
        """
        return self.everything is not None or bool(self.with_reason(MESSAGES - {Reason.WRITTEN}))

    def has(self, reason: Reason) -> bool:
        """Return True if at least one piece of work in the scope has this reason; any key counts."""
        return reason in self.reasons


@attrs.frozen
class Report:
    """The result of one reconciliation, or of one slice of EVERYTHING.

    `outcomes` are the outcomes to tell: for EVERYTHING all of this slice, for single functions those that
    differ from the last time. `changed` are the functions that the reading found different. `read` are the
    functions that were planned for. `finished` is False if slices of EVERYTHING are left. `shape_changed` is
    True if functions may have been added, removed or given to another owner. `faults` is DMA that was refused
    and is to be told.
    """

    outcomes: tuple[Outcome, ...] = ()
    changed: frozenset[Sbdf] = frozenset()
    read: frozenset[Sbdf] = frozenset()
    finished: bool = True
    shape_changed: bool = False
    faults: tuple[DmaFault, ...] = ()


def keys_of(work: Collection[Work]) -> set[Sbdf]:
    """Return the addresses among the keys of some work; the keys that are no address are left out."""
    return {each.key for each in work if isinstance(each.key, Sbdf)}
