"""Plan reserved regions: withdrawn when the last device has left dom0, restored before a device returns.

Pure. pcipt knows the devices of a region by their places; Xen counts the addresses that they had at boot. Xen
maps a region into dom0 when Xen is told of the first device at such an address. Xen unmaps the region when it
is made to forget the last of these devices, and not when a device is given to quarantine or to a guest. So a
region is mapped, except in two cases: the ledger has a withdrawal, or Xen lists none of these addresses. In
the second case Xen has unmapped the region, and after a renumbering of buses a device of the region may be
dom0's at another address. If pcipt then maps the region, it stays mapped when the device returns, because Xen
maps a region only over holes, and unmaps only a region that Xen has mapped.
In doubt no region is withdrawn: a device that Linux has, and that has no other known owner, needs its
regions; a region without a known device is not changed.
Source: xen/drivers/passthrough/vtd/iommu.c (intel_iommu_add_device, intel_iommu_remove_device),
        amd/pci_amd_iommu.c (amd_iommu_add_device, amd_iommu_remove_device), x86/iommu.c
        (iommu_identity_mapping), xen/arch/x86/mm/p2m.c (p2m_add_identity_entry: EBUSY); partly measured.
"""

import enum
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import attrs

from pcipt.pci import Frames, Machine, Sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.desired import NOWHERE, PCIBACK, Followed
from pcipt.remap.ledger import Ledger, State
from pcipt.remap.plan_moves import NO_MOVES, Moves
from pcipt.remap.view import XenView

Scopes = Mapping[Frames, frozenset[Sbdf]]


class Kept(enum.Enum):
    """The state of a reserved region by the ledger, and by what Xen lists.

    BY_XEN: as Xen mapped it. RESTORED: mapped again by pcipt. WITHDRAWN: unmapped by pcipt. LOST: Xen has
    unmapped it, because it lists none of its devices. DOUBTFUL: nobody knows whether it is mapped.
    """

    BY_XEN = "by-xen"
    RESTORED = "restored"
    WITHDRAWN = "withdrawn"
    LOST = "lost"
    DOUBTFUL = "doubtful"


@attrs.frozen
class Locations:
    """Where the devices of reserved regions are now.

    `home` returns for an address of the boot Linux's present address of the function at that place; None if
    Linux has nothing at that place and another function at the address. `moves` and `followed` are those of
    `find_moves` and `Ledger.followed`, by Linux's address.
    """

    home: Callable[[Sbdf], Sbdf | None] = lambda sbdf: sbdf
    moves: Moves = NO_MOVES
    followed: Followed = NOWHERE

    def addresses(self, linux: Sbdf) -> set[Sbdf]:
        """Return all addresses at which Xen may list the function that Linux has at `linux`."""
        now = self.moves.get(linux)
        return {linux, *self.followed.get(linux, ()), *(() if now is None else (now,))}


UNMOVED = Locations()


def is_listed(scope: Collection[Sbdf], xen: XenView) -> bool:
    """Return True if Xen lists a device at one of the addresses of a region's scope, whoever owns it.

    An orphan does not count: some of them are added to no region.
    """
    return any(sbdf in xen.known and sbdf not in xen.orphans for sbdf in scope)


def kept_in(ledger: Ledger, frames: Frames, *, listed: bool = True) -> Kept:
    """Return the state of the reserved region that starts at the first page of `frames`.

    `listed` is that of `is_listed`. Without an entry in the ledger the state is BY_XEN, or LOST if no device
    is listed. It is LOST, too, if pcipt has restored the region while Xen counted it, and no device is listed
    now: Xen unmaps what it has counted, whoever mapped the pages. The state is DOUBTFUL if an entry is not
    HELD, if there are both a withdrawal and a restoring, or if Xen lists a device of a region that was
    withdrawn while it listed none: Xen may have mapped it.
    """
    for word, kept in ((WithdrawReserved.word, Kept.WITHDRAWN), (RestoreReserved.word, Kept.RESTORED)):
        other = RestoreReserved.word if kept is Kept.WITHDRAWN else WithdrawReserved.word
        entry = ledger.find(word, None, frames.start)
        if entry is None:
            continue
        certain = entry.state is State.HELD and ledger.find(other, None, frames.start) is None
        if not certain or (kept is Kept.WITHDRAWN and listed and not entry.counted):
            return Kept.DOUBTFUL
        return Kept.LOST if kept is Kept.RESTORED and entry.counted and not listed else kept
    return Kept.BY_XEN if listed else Kept.LOST


def who_needs(sbdf: Sbdf, machine: Machine, xen: XenView, where: Locations = UNMOVED) -> Sbdf | None:
    """Return Linux's address of the device that a region is reserved for at `sbdf`, if the device is dom0's.

    `sbdf` is the address that the device had at boot. Return None if it is not dom0's: its DMA does not need
    the region then. A device of a guest, of Xen itself or in quarantine is not dom0's. Any other device that
    Linux has is dom0's, except one that is bound to xen-pciback and that Xen does not list. A device that
    Linux does not have is dom0's if Xen lists it as dom0's (`XenView.in_dom0`).
    """
    linux = where.home(sbdf)
    if linux is None or linux in xen.elsewhere or linux in xen.quarantined:
        return None
    function = machine.functions.get(linux)
    if function is None or (function.driver == PCIBACK and linux not in xen.known):
        return linux if xen.in_dom0(linux) else None
    return linux


def is_reachable(linux: Sbdf, xen: XenView, where: Locations, but: Sbdf | None = None) -> bool:
    """Return True if Xen lists a device as dom0's at an address other than `but`: its DMA is not stopped."""
    return any(xen.in_dom0(at) for at in where.addresses(linux) - {but})


def plan_reserved(
    scopes: Scopes,
    machine: Machine,
    xen: XenView,
    ledger: Ledger,
    *,
    where: Locations = UNMOVED,
    pvh: bool = True,
    changed: Collection[Sbdf] = (),
    claimed: Collection[Frames] = (),
    faulted: Mapping[Frames, Sbdf] = MappingProxyType({}),
    certain: bool = True,
) -> tuple[RestoreReserved | WithdrawReserved, ...]:
    """Return the actions for the reserved regions in `scopes`, which has the devices of each region.

    A region is needed if one of its devices is dom0's (`who_needs`), if it is in `claimed` (one of its
    devices is about to return), or if it is in `faulted` (DMA to it was refused to this device of dom0, which
    firmware does not name for it). A needed region is restored if pcipt withdrew it, or if its state is in
    doubt. On a PVH dom0 it is restored if it is LOST and Xen lists the device at another address. A region
    that is not needed is withdrawn unless it is withdrawn already. Nothing is withdrawn if `certain` is
    False: `scopes` may then lack devices. There is no action for a region without devices.

    Shape:  restorings first, then withdrawals, each by first page. An action names a device of the region:
            one that is dom0's if there is one, and among those one that is in `changed` if there is one.
    """
    back: list[RestoreReserved] = []
    out: list[WithdrawReserved] = []
    for frames in sorted(scopes):
        scope = sorted(scopes[frames])
        listed = is_listed(scope, xen)
        kept = kept_in(ledger, frames, listed=listed)
        found = (who_needs(sbdf, machine, xen, where) for sbdf in scope)
        needing = list(dict.fromkeys(linux for linux in found if linux is not None))
        if not scope:
            continue
        concerned = needing or scope
        about = next((sbdf for sbdf in concerned if sbdf in changed), concerned[0])
        if needing or frames in claimed or frames in faulted:
            lost = kept is Kept.LOST and pvh and any(is_reachable(linux, xen, where) for linux in needing)
            if lost:
                why = f"Xen unmapped the region when Xen forgot {_names(scope)}, and {about} is still dom0's"
                back.append(RestoreReserved(about, f"{why} and needs the region", frames, listed))
            elif kept in (Kept.WITHDRAWN, Kept.DOUBTFUL):
                why = f"{about} is dom0's again" if needing else f"{about} is about to return to dom0"
                reason = f"{why} and needs the region"
                if not needing and frames not in claimed:
                    reason = f"{faulted[frames]} is dom0's, and its DMA to the region was refused"
                back.append(RestoreReserved(about, reason, frames, listed))
        elif certain and kept is not Kept.WITHDRAWN:
            reason = _why_out(about, scope, machine, xen, where)
            out.append(WithdrawReserved(about, reason, frames, listed))
    return (*back, *out)


def _why_out(about: Sbdf, scope: Collection[Sbdf], machine: Machine, xen: XenView, where: Locations) -> str:
    """Return the reason for a withdrawal, in words for the user. `about` is a device of the region."""
    if where.home(about) is None:
        return (
            f"its device has left the machine, and the device that is at {about} now does not need the region"
        )
    here = about in machine.functions
    now = f"belongs to {xen.owner(about)}" if here else "has left the machine"
    last = "its only device" if len(scope) == 1 else "the last of its devices"
    return f"{last} has left dom0: {about} {now}"


def _names(scope: Collection[Sbdf]) -> str:
    """Return at most four of the addresses, in words."""
    return ", ".join(map(str, sorted(scope)[:4]))
