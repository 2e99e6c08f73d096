"""Gathers what a plan of mappings is made from: the needs of functions, and of what is left of others."""

from collections.abc import Iterable, Mapping

from pcipt.engine.views import Situation
from pcipt.pci import Sbdf
from pcipt.remap.desired import Desired, gone
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.view import XenView


def gather_needs(
    situation: Situation,
    scope: Iterable[Sbdf],
    view: XenView,
    standing: Mapping[str, Sbdf],
    *,
    everything: bool,
) -> list[Desired]:
    """Say what the functions in `scope` need, what is left of those that went, and what still stands.

    Shape:  each place once; with `everything` also all places for which something is held.
    """
    wanted: dict[str, Desired] = {}
    for sbdf in scope:
        each = situation.desired(sbdf, view)
        if each is not None:
            wanted[each.place] = each
    left = {**situation.picture.gone, **standing}
    if everything:
        held = situation.ledger.mapped
        left |= {place: held.of(place)[0].sbdf for place in held.places if place not in wanted}
    for place, sbdf in left.items():
        if place not in wanted:
            at = situation.picture.address_of(place)
            each = situation.desired(at, view) if at is not None else None
            wanted[place] = each or gone(place, sbdf)
    return list(wanted.values())


def adopt(situation: Situation, when: str) -> None:
    """Take what a PV dom0 uses when pcipt first sees it for held: nothing of it is a change."""
    desired = (situation.desired(sbdf) for sbdf in situation.machine.functions)
    plan = plan_mappings([each for each in desired if each is not None], situation.ledger.mapped)
    for action in plan.actions:
        situation.ledger.noted(action, when)
