"""Plans the reserved regions of functions, or of the whole machine, from the three views."""

from collections.abc import Collection

from pcipt.engine.views.views import Views
from pcipt.pci import Sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.plan_reserved import plan_reserved


def plan_regions(
    views: Views, changed: Collection[Sbdf] | None, returning: Collection[Sbdf] = ()
) -> tuple[RestoreReserved | WithdrawReserved, ...]:
    """Return the actions for the reserved regions of the functions `changed`; None means all regions.

    Regions that a client holds, and those of functions that may be `returning` to dom0, are kept or restored.
    """
    reserved, memory = views.reserved, views.memory
    return plan_reserved(
        reserved.scopes if changed is None else reserved.about(changed),
        views.machine,
        views.view,
        memory.ledger,
        changed=changed or (),
        claimed={*memory.held_regions, *reserved.about(returning)},
        certain=not reserved.open,
    )
