"""What one reconciliation is about, and what came of it."""

from collections.abc import Collection

import attrs

from pcipt.engine.queue import EVERYTHING, STORE, Key, Reason, Work, keys_of
from pcipt.pci import Sbdf
from pcipt.remap.actions import Outcome

ASKED_IN_FULL = frozenset(Reason) - {Reason.WRITTEN}
HANDED_OVER = frozenset(Reason) - {Reason.WRITTEN, Reason.FAILED, Reason.DIFFERENT}


@attrs.frozen
class Scope:
    """The work of one reconciliation: some functions, or everything, or only the files of the store."""

    work: tuple[Work, ...] = ()
    _attempts: dict[Key, int] = attrs.field(
        default=attrs.Factory(lambda self: {work.key: work.attempts for work in self.work}, takes_self=True),
        init=False, eq=False, repr=False,
    )  # fmt: skip

    @property
    def everything(self) -> Work | None:
        """The work for EVERYTHING, None if the scope is some functions."""
        return next((work for work in self.work if work.key is EVERYTHING), None)

    @property
    def store(self) -> Work | None:
        return next((work for work in self.work if work.key is STORE), None)

    @property
    def functions(self) -> set[Sbdf]:
        return keys_of(self.work)

    def with_reason(self, reasons: Collection[Reason]) -> set[Sbdf]:
        """Return the functions that have one of these reasons."""
        return keys_of([work for work in self.work if not work.reasons.isdisjoint(reasons)])

    def attempts_of(self, sbdf: Sbdf) -> int:
        """Return how often work for a function was repeated in a row (outside the scope: the most in it)."""
        return self._attempts.get(sbdf, max(self._attempts.values(), default=0))

    def has(self, reason: Reason) -> bool:
        return any(reason in work.reasons for work in self.work)


@attrs.frozen
class Report:
    """What came of a reconciliation.

    `changed` are the functions that the reading found different. `outcomes` are the outcomes worth telling:
    of everything all of this slice, of some functions only those that are not as before. `read` are the
    functions that were read again. `finished` is False while slices of EVERYTHING are left. `shape_changed`
    is True if functions may have come or gone.
    """

    outcomes: tuple[Outcome, ...] = ()
    changed: frozenset[Sbdf] = frozenset()
    read: frozenset[Sbdf] = frozenset()
    finished: bool = True
    shape_changed: bool = False
