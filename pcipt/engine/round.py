"""What one reconciliation has found and done so far."""

from collections.abc import Generator, Iterable

import attrs

from pcipt.engine.queue import Work
from pcipt.engine.report import Report, Scope
from pcipt.engine.views.views import Views
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import Action, Outcome, Result
from pcipt.remap.steps import AnyStep
from pcipt.xen.dma_faults import DmaFault

SLICE = 256  # functions that are read or planned for between two turns of the loop
Slices = Generator[None, None, None]


@attrs.define
class Round:
    """What one reconciliation has found and done so far; each step of it reads and changes this.

    `listed` are the functions about which Xen was asked in full: announcements are planned for them.
    `subjects` are the functions that are planned for. `owners` holds, by address, the owners of the scope's
    functions before the round. `pages` are the pages of these functions' BARs before the reading, and
    `relatives` are `MachineState.relatives` of these functions before the reading; both may be empty if no
    action is open. `sharing` are functions with pages that functions of the scope have mapped as well.
    `returned` are the places of functions that a guest, quarantine or Xen had before the question to Xen, and
    do not have any more. `not_built` are the places of functions that vPCI does not handle since they
    returned to dom0, by what Xen's console said in this round. A round of EVERYTHING leaves `listed`,
    `owners`, `pages`, `relatives` and `sharing` empty. `asked` is False if Xen could not be asked for owners
    that changed without a message. `touched` is True if the ledger has changed, `noted` are its changes that
    are not on disk yet. `told` is the number of outcomes that earlier reports contain. `faults` is DMA that
    was refused and is to be told, `complained` are functions with new lines on Xen's console.
    """

    scope: Scope
    views: Views
    owners: dict[Sbdf, str] = attrs.Factory(dict)
    changed: set[Sbdf] = attrs.Factory(set)
    listed: set[Sbdf] = attrs.Factory(set)
    subjects: set[Sbdf] = attrs.Factory(set)
    pages: set[Frames] = attrs.Factory(set)
    relatives: set[Sbdf] = attrs.Factory(set)
    sharing: set[Sbdf] = attrs.Factory(set)
    returned: set[str] = attrs.Factory(set)
    not_built: set[str] = attrs.Factory(set)
    planned: list[Action] = attrs.Factory(list)
    outcomes: list[Outcome] = attrs.Factory(list)
    noted: list[AnyStep] = attrs.Factory(list)
    asked: bool = True
    touched: bool = False
    told: int = 0
    faults: tuple[DmaFault, ...] = ()
    complained: set[Sbdf] = attrs.Factory(set)

    def fresh(self) -> tuple[Outcome, ...]:
        """Return the outcomes that no earlier report contains; the next call does not return them again."""
        fresh = tuple(self.outcomes[self.told :])
        self.told = len(self.outcomes)
        return fresh

    def report(self, outcomes: tuple[Outcome, ...] = ()) -> Report:
        """Return the report of the whole round, with these outcomes to tell."""
        return Report(
            outcomes=outcomes,
            changed=frozenset(self.changed),
            read=frozenset(self.subjects),
            shape_changed=self.scope.changes_shape,
            faults=self.faults,
        )

    @property
    def acted(self) -> bool:
        """Return True if an action of the round was tried: it is done, or it failed."""
        return any(outcome.result in (Result.DONE, Result.FAILED) for outcome in self.outcomes)

    @property
    def everything(self) -> Work | None:
        """Return the work for EVERYTHING, None if the round is about single functions."""
        return self.scope.everything


def sliced(functions: Iterable[Sbdf]) -> list[list[Sbdf]]:
    """Return the functions in parts of at most SLICE, in their order; an empty list without functions."""
    waiting = list(functions)
    return [waiting[at : at + SLICE] for at in range(0, len(waiting), SLICE)]


def result_of(steps: Generator[None, None, Report]) -> Report:
    """Run all steps of a reconciliation at once and return its report."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            report: Report = end.value
            return report
