"""What one reconciliation has found and done so far."""

import attrs

from pcipt.engine.queue import Work
from pcipt.engine.report import Scope
from pcipt.engine.views.views import Views
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import Action, Outcome


@attrs.define
class Round:
    """What one reconciliation has found so far.

    `listed` are the functions about which Xen was asked in full: announcements are planned for them.
    `subjects` are the functions that are planned for. `owners` holds the owners before the round. `pages` are
    the pages of the subjects' BARs before the reading, `relatives` the bridges, PFs and VFs around them then.
    `touched` is True if the ledger has changed. `told` is the number of outcomes that reports already had.
    """

    scope: Scope
    views: Views
    owners: dict[Sbdf, str] = attrs.Factory(dict)
    changed: set[Sbdf] = attrs.Factory(set)
    listed: set[Sbdf] = attrs.Factory(set)
    subjects: set[Sbdf] = attrs.Factory(set)
    pages: set[Frames] = attrs.Factory(set)
    relatives: set[Sbdf] = attrs.Factory(set)
    planned: list[Action] = attrs.Factory(list)
    outcomes: list[Outcome] = attrs.Factory(list)
    touched: bool = False
    told: int = 0

    def fresh(self) -> tuple[Outcome, ...]:
        """Return the outcomes that no report had yet."""
        fresh = tuple(self.outcomes[self.told :])
        self.told = len(self.outcomes)
        return fresh

    @property
    def everything(self) -> Work | None:
        return self.scope.everything
