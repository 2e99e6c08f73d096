"""The guards of what functions share: an entry of the IOMMU, and reserved regions on a PV dom0. Pure.

A rule returns the reason for a refusal, in words for the user, or None if it does not object.
"""

from pcipt.pci import Sbdf
from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.desired import place_of
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.kinds.conventional import behind, in_use
from pcipt.remap.plan_reserved import is_listed, is_reachable, who_needs


def moving(action: AddDevice | RemoveDevice, facts: Facts) -> Sbdf | None:
    """Return Linux's address of the renumbered function that an action is about.

    Return None if the function is not renumbered, or if it is back at Linux's address.
    """
    if isinstance(action, AddDevice):
        return action.moved_from
    now = action.moved_to
    return next((linux for linux, at in facts.moves.items() if at == now), None) if now is not None else None


def linux_of(action: AddDevice | RemoveDevice, facts: Facts) -> Sbdf | None:
    """Return Linux's address of the renumbered function of an action; None if there is none."""
    if isinstance(action, AddDevice):
        return action.moved_from
    if action.moved_to is None:
        return None
    here = action.sbdf in facts.machine.functions and facts.moves.get(action.sbdf) == action.moved_to
    return action.sbdf if here else moving(action, facts) or action.moved_to


def _shared_entry_goes(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse a removal that stops the DMA of other functions behind the same conventional bridge.

    Xen removes the IOMMU's entry of the bridge with any function behind it. It makes the entry again with the
    next addition there. So for a renumbered function, functions with a driver, and those that are not dom0's,
    are a reason. For a function that has left, no addition follows: any function that Xen lists is a reason.
    Nothing is refused if the entry is gone already (`Ledger.severed`).
    """
    linux = action.sbdf if action.anew else linux_of(action, facts)
    if linux is not None:
        top = facts.bridges.top(facts.machine, linux)
    elif action.sbdf not in facts.xen.orphans:
        top = facts.bridges.above_bus(facts.machine, action.sbdf)
    else:
        top = None
    if top is None or place_of(top) in facts.severed:
        return None
    others = [each for each in behind(facts.machine, top.sbdf) if each.sbdf not in facts.moves]
    others = [each for each in others if each.sbdf not in (action.sbdf, linux)]
    names = (
        in_use(others, facts.xen)
        if linux is not None
        else [str(each.sbdf) for each in others if each.sbdf in facts.xen.known]
    )
    if not names:
        return None
    return f"the removal would stop the DMA of {', '.join(names[:4])}, behind the same bridge {top.sbdf}"


def _shared_entry_comes_last(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a renumbered function behind a conventional bridge before the old addresses are removed.

    The removal of any of them would remove the IOMMU's entry of the bridge, which the addition has made.
    """
    linux = action.moved_from or action.sbdf
    told = action.moved_from is not None or linux in facts.followed
    top = facts.bridges.top(facts.machine, linux) if told else None
    if top is None:
        return None
    left: set[Sbdf] = set()
    for each in behind(facts.machine, top.sbdf):
        left |= facts.where.addresses(each.sbdf) - {facts.moves.get(each.sbdf, each.sbdf)}
    left &= facts.xen.known - set(facts.moves.values())
    if not left:
        return None
    names = ", ".join(map(str, sorted(left)[:4]))
    return (
        f"Xen must first forget {names}, because Xen then removes the IOMMU's entry of the bridge "
        f"{top.sbdf}, too"
    )


def _keeps_region(action: RemoveDevice, facts: Facts) -> str | None:
    """On a PV dom0, refuse a removal with which Xen would unmap a region that a device of dom0 needs.

    That is so if Xen lists no other device of the region's scope, and its device is dom0's at another
    address, or will be: bus renumbering moved it. A PVH dom0 maps the region again.
    Source: xen/drivers/passthrough/vtd/iommu.c (intel_iommu_remove_device), amd/pci_amd_iommu.c
            (amd_iommu_remove_device), x86/iommu.c (iommu_identity_mapping).
    """
    if facts.pvh:
        return None
    for frames, scope in facts.regions.items():
        if action.sbdf not in scope or is_listed(scope - {action.sbdf}, facts.xen):
            continue
        found = (who_needs(sbdf, facts.machine, facts.xen, facts.where) for sbdf in scope)
        needing = [linux for linux in found if linux is not None]
        if any(action.moved_to in facts.where.addresses(linux) for linux in needing) or any(
            is_reachable(linux, facts.xen, facts.where, action.sbdf) for linux in needing
        ):
            return (
                f"Xen would take the reserved region {frames} out of dom0's IOMMU table, and a PV dom0 "
                "cannot put the region back. So Xen keeps the record of this function, which is harmless"
            )
    return None


#        name, kind of action, rule
SHARED_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("conventional-bridge", AddDevice, _shared_entry_comes_last),
    ("conventional-bridge", RemoveDevice, _shared_entry_goes),
    ("reserved-region", RemoveDevice, _keeps_region),
)
