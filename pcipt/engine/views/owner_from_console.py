"""Asks who has the functions that Xen knows.

Each is asked about silently. What that leaves open (a guest's, hidden or an orphan; of those bound to
xen-pciback: dom0's or quarantined) Xen's device list tells, by a debug key that holds a lock of Xen: it is
pressed at most once a question, and only where something is new or may have changed hands.
"""

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Sbdf
from pcipt.remap.view import GUEST, XenView
from pcipt.xen.interface import Custody, Hypervisor, Owner, OwnerKind

# thousands are sorted at each start: attrs' own comparison takes ten times as long
_ORDER = attrgetter("segment", "bus", "device", "function")
_DOM0 = Owner(OwnerKind.DOMAIN, 0)


def ask_owners(
    xen: Hypervisor, known: Iterable[Sbdf], before: XenView, given: Collection[Sbdf], *, handed: bool
) -> XenView:
    """Ask about these functions, all of which Xen knows.

    `given` are those bound to xen-pciback; if they were `handed` over, what was said `before` of them does
    not count. What Xen does not name stays somebody else's: no guard takes it for dom0's.
    Raises: HypervisorError, UnsupportedError where Xen cannot be asked at all.
    """
    custody = {sbdf: xen.custody(sbdf) for sbdf in sorted(known, key=_ORDER)}
    away = [sbdf for sbdf, answer in custody.items() if answer is Custody.ELSEWHERE]
    unclear = {s for s in away if not (s in before.elsewhere or s in before.orphans)}
    held = [s for s in given if custody.get(s, Custody.UNTOLD) is not Custody.UNTOLD]
    unclear |= {s for s in held if handed or (s in before.elsewhere and s not in away)}
    owners = _owners(xen, unclear)
    orphans = {s for s, owner in owners.items() if owner.kind is OwnerKind.NOBODY}
    orphans |= (before.orphans & set(away)) - owners.keys()
    quarantined = {s for s, owner in owners.items() if owner.kind is OwnerKind.QUARANTINE}
    quarantined |= {s for s in given if s in before.quarantined and s in custody and s not in owners}
    settled = {*orphans, *quarantined, *(s for s, owner in owners.items() if owner == _DOM0)}
    elsewhere = {s: _in_words(s, owners, before) for s in away if s not in settled}
    told = Custody.UNTOLD not in custody.values()
    return XenView(frozenset(custody), frozenset(orphans), elsewhere, told, frozenset(quarantined))


def _owners(xen: Hypervisor, unclear: Collection[Sbdf]) -> dict[Sbdf, Owner]:
    """Press the key, if it is needed; what it does not tell stays open."""
    try:
        return {sbdf: owner for sbdf, owner in xen.owners().items() if sbdf in unclear} if unclear else {}
    except (UnsupportedError, HypervisorError):
        return {}


def _in_words(sbdf: Sbdf, owners: Mapping[Sbdf, Owner], before: XenView) -> str:
    owner = owners.get(sbdf)
    if owner is None:
        return before.elsewhere.get(sbdf, "an owner that Xen does not name")
    return "Xen itself" if owner.kind is OwnerKind.XEN else f"{GUEST} {owner.domain}"
