"""Plan reserved regions: withdrawn when the last device has left dom0, restored before a device returns.

Pure. Xen maps a reserved region into dom0 when it is told of the first of the region's devices. Xen unmaps
the region only when it is made to forget the last of them; a device that is given to quarantine or to a guest
leaves the region mapped. So a region is mapped unless the ledger says otherwise. Nothing is withdrawn in
doubt: a device that Linux has, and of which no other owner is known, needs its regions; a region without any
known device is left alone.
Source: xen/drivers/passthrough/vtd/iommu.c, x86/iommu.c (iommu_identity_mapping); measured in the lab.
"""

import enum
from collections.abc import Collection, Mapping

from pcipt.pci import Frames, Machine, Sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.desired import PCIBACK
from pcipt.remap.ledger import Ledger, State
from pcipt.remap.view import XenView

Scopes = Mapping[Frames, frozenset[Sbdf]]


class Kept(enum.Enum):
    """The state of a reserved region by the ledger.

    BY_XEN: as Xen mapped it. RESTORED: mapped again by pcipt. WITHDRAWN: unmapped by pcipt. DOUBTFUL: nobody
    knows whether it is mapped.
    """

    BY_XEN = "by-xen"
    RESTORED = "restored"
    WITHDRAWN = "withdrawn"
    DOUBTFUL = "doubtful"


def kept_in(ledger: Ledger, frames: Frames) -> Kept:
    """Return the state, by the ledger, of the reserved region that starts at the first page of `frames`.

    The state is BY_XEN if the ledger has no entry for the region. It is DOUBTFUL if an entry is not HELD, or
    if there are both a withdrawal and a restoring.
    """
    for word, kept in ((WithdrawReserved.word, Kept.WITHDRAWN), (RestoreReserved.word, Kept.RESTORED)):
        other = RestoreReserved.word if kept is Kept.WITHDRAWN else WithdrawReserved.word
        entry = ledger.find(word, None, frames.start)
        if entry is not None:
            certain = entry.state is State.HELD and ledger.find(other, None, frames.start) is None
            return kept if certain else Kept.DOUBTFUL
    return Kept.BY_XEN


def needs_region(sbdf: Sbdf, machine: Machine, xen: XenView) -> bool:
    """Return True if a device is dom0's, as far as is known: then its DMA needs its reserved regions.

    A device of a guest, of Xen itself or in quarantine is not dom0's. Any other device that Linux has is
    dom0's, except one that is bound to xen-pciback and that Xen does not list. A device that Linux does not
    have is dom0's if Xen lists it as dom0's (`XenView.in_dom0`).
    """
    if sbdf in xen.elsewhere or sbdf in xen.quarantined:
        return False
    function = machine.functions.get(sbdf)
    if function is None or (function.driver == PCIBACK and sbdf not in xen.known):
        return xen.in_dom0(sbdf)
    return True


def plan_reserved(
    scopes: Scopes,
    machine: Machine,
    xen: XenView,
    ledger: Ledger,
    *,
    changed: Collection[Sbdf] = (),
    claimed: Collection[Frames] = (),
    certain: bool = True,
) -> tuple[RestoreReserved | WithdrawReserved, ...]:
    """Return the actions for the reserved regions in `scopes`, which has the devices of each region.

    A region is needed if one of its devices is dom0's (`needs_region`), or if it is in `claimed`: one of its
    devices is about to return. A needed region is restored if pcipt withdrew it, or if its state is in doubt.
    A region that is not needed is withdrawn unless it is withdrawn already. Nothing is withdrawn if `certain`
    is False: `scopes` may then lack devices. There is no action for a region without devices.

    Shape:  restorings first, then withdrawals, each by first page. An action names a device of the region:
            one that is dom0's if there is one, and among those one that is in `changed` if there is one.
    """
    back: list[RestoreReserved] = []
    out: list[WithdrawReserved] = []
    for frames in sorted(scopes):
        scope = sorted(scopes[frames])
        kept = kept_in(ledger, frames)
        needing = [sbdf for sbdf in scope if needs_region(sbdf, machine, xen)]
        if not scope:
            continue
        concerned = needing or scope
        about = next((sbdf for sbdf in concerned if sbdf in changed), concerned[0])
        if needing or frames in claimed:
            if kept in (Kept.WITHDRAWN, Kept.DOUBTFUL):
                why = f"{about} is dom0's again" if needing else f"{about} is about to return to dom0"
                back.append(RestoreReserved(about, f"{why} and needs it", frames))
        elif certain and kept is not Kept.WITHDRAWN:
            out.append(WithdrawReserved(about, _why_out(about, scope, machine, xen), frames))
    return (*back, *out)


def _why_out(about: Sbdf, scope: Collection[Sbdf], machine: Machine, xen: XenView) -> str:
    """Return the reason for a withdrawal, in words for the user. `about` is a device of the region."""
    here = about in machine.functions
    where = f"belongs to {xen.owner(about)}" if here else "has left the machine"
    last = "its only device" if len(scope) == 1 else "the last of its devices"
    return f"{last} has left dom0: {about} {where}"
