"""Reserved regions: where their devices are now, which regions are mapped, and the plan for the regions.

Xen names the devices of a region by their addresses at boot. The boot snapshot has the place of each of these
addresses; the function at this place now is the device.
"""

from collections.abc import Collection, Iterable

from pcipt.engine.views.views import Views
from pcipt.pci import Finding, Frames, Sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.plan_reserved import (
    Kept,
    Scopes,
    is_listed,
    is_reachable,
    kept_in,
    plan_reserved,
    who_needs,
)


def plan_regions(
    views: Views, changed: Collection[Sbdf] | None, returning: Collection[Sbdf] = ()
) -> tuple[RestoreReserved | WithdrawReserved, ...]:
    """Return the actions for the reserved regions of the functions `changed`; None means all regions.

    A region is kept or restored if a client holds it, or if one of its functions is in `returning` (functions
    that may return to dom0), or, with reserved.restore_on_fault, for devices whose DMA to it was refused. The
    regions of such devices are always planned for: a device may leave in any round.
    """
    reserved, memory = views.reserved, views.memory
    scopes = reserved.scopes if changed is None else _scopes_of(views, changed)
    faulted = {region: reserved.scopes[region] for region in memory.faulted if region in reserved.scopes}
    scopes = {**scopes, **faulted}
    needing = _needing_after_fault(views)
    if not scopes:
        return ()
    reserved.plan_again |= not reserved.complete
    return plan_reserved(
        scopes,
        views.machine,
        views.view,
        memory.ledger,
        where=views.state.where,
        pvh=views.pvh,
        changed=changed or (),
        claimed={*memory.held_regions, *(_scopes_of(views, returning) if returning else ())},
        faulted=needing if views.restores_on_fault else {},
        certain=reserved.complete,
    )


def _needing_after_fault(views: Views) -> dict[Frames, Sbdf]:
    """Return for regions that pcipt withdrew a device of dom0 whose DMA there was refused since.

    Devices that have left dom0 are deleted from the memory.
    """
    faulted, needing = views.memory.faulted, dict[Frames, Sbdf]()
    for region, places in list(faulted.items()):
        found = {place: views.state.address_of(place) for place in places}
        at_home = {place: s for place, s in found.items() if s is not None and views.view.in_dom0(s)}
        if at_home:
            faulted[region], needing[region] = {*at_home}, min(at_home.values())
        else:
            del faulted[region]
    return needing


def kept_of(views: Views, frames: Frames) -> Kept:
    """Return the state of a reserved region, with the devices of all regions that share pages with it."""
    scopes = views.reserved.scopes.items()
    scope = {sbdf for each, devices in scopes if each.overlaps(frames) for sbdf in devices}
    return kept_in(views.memory.ledger, frames, listed=is_listed(scope, views.view))


def lost_regions(views: Views, sbdf: Sbdf) -> Iterable[Finding]:
    """Yield a finding for each region that a function of a PV dom0 needs and that Xen has unmapped.

    pcipt cannot map it on PV.
    """
    for frames, scope in _scopes_of(views, [sbdf]).items() if not views.pvh else ():
        found = {who_needs(device, views.machine, views.view, views.state.where) for device in scope}
        needed = sbdf in found and is_reachable(sbdf, views.view, views.state.where)
        if needed and not is_listed(scope, views.view):
            names = ", ".join(map(str, sorted(scope)[:4]))
            yield Finding(
                "region-missing",
                f"Xen took the reserved region {frames} out of dom0's IOMMU table when Xen forgot {names}. "
                "The IOMMU may refuse DMA of the device to this region. Give the bridge above the device the "
                "bus number that the bridge had at boot, or reboot",
            )


def note_listed(views: Views) -> bool:
    """Note in the ledger which regions Xen has unmapped, or may have, because it forgot devices of them.

    If Xen lists no device of a withdrawn region, the region is not counted any more. If Xen has forgotten one
    of several devices, a region that pcipt restored becomes DOUBTFUL: Xen does not count a device that is
    added while a call has the pages mapped, so its count can be less than the devices that it lists, and the
    first removal can unmap the region. A service that starts has not seen what Xen listed before: for it,
    Xen has forgotten each device that it does not list. Return True if the ledger has changed.
    Source: Xen arch/x86/mm/p2m.c (p2m_add_identity_entry: EBUSY), passthrough/x86/iommu.c
            (iommu_identity_mapping).
    """
    changed, ledger, listed = False, views.memory.ledger, views.memory.listed_devices
    for frames, scope in views.reserved.scopes.items():
        now = frozenset(sbdf for sbdf in scope if is_listed([sbdf], views.view))
        if not now:
            changed |= ledger.forget_count(frames)
        elif listed.get(frames, scope) - now:
            changed |= ledger.doubt_restored(frames)
        listed[frames] = now
    return changed


def sharing_regions(views: Views, functions: Collection[Sbdf]) -> set[Sbdf]:
    """Return Linux's addresses of the devices for which the reserved regions of these functions are, and of
    those whose DMA to these regions was refused.
    """
    scopes = _scopes_of(views, functions)
    devices = {sbdf for scope in scopes.values() for sbdf in scope}
    refused = views.memory.faults.items() if scopes else ()
    users = {sbdf for sbdf, noted in refused if any(fault.region in scopes for fault in noted.values())}
    return users | {linux for sbdf in devices if (linux := views.state.home_of(sbdf)) is not None}


def _scopes_of(views: Views, functions: Collection[Sbdf]) -> Scopes:
    """Return the regions of functions, at the addresses that they have now or had at boot."""
    if not views.reserved.scopes:
        return {}
    boot, machine = views.memory.boot, views.machine
    at = {*functions}
    if boot is not None:
        places = (machine.functions[sbdf].path for sbdf in functions if sbdf in machine.functions)
        at |= {sbdf for path in places if path is not None and (sbdf := boot.address_of(path)) is not None}
        left = {place for place, sbdf in views.memory.vacated.items() if sbdf in at}
        at |= {sbdf for sbdf in views.reserved.devices if str(boot.path_of(sbdf)) in left} if left else set()
    return views.reserved.about(at)
