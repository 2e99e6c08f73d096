"""Asks Xen who owns functions: by a hypercall and, if its answer is not enough, by Xen's console.

The hypercall has the same answer for a guest's function, a hidden function and an orphan, and the same answer
for a function of dom0 and a quarantined one. For a debug key, Xen prints the owners on its console and holds
a lock meanwhile. So the key is pressed at most once a question, and only if an owner is new or may have
changed.
"""

from collections.abc import Collection, Iterable, Mapping

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Sbdf
from pcipt.remap.view import GUEST, XenView
from pcipt.xen.interface import Custody, Hypervisor, Owner, OwnerKind

_DOM0 = Owner(OwnerKind.DOMAIN, 0)


def ask_owners(
    xen: Hypervisor, known: Iterable[Sbdf], before: XenView, given: Collection[Sbdf], *, handed: bool
) -> XenView:
    """Return Xen's view of these functions, all of which Xen lists.

    `before` is the former view. `given` are the functions that are bound to xen-pciback. The console is read
    for functions that are not dom0's now and that were neither in `elsewhere` nor in `orphans` of `before`.
    It is read for functions in `given` and for those that were quarantined, too: for all of them if `handed`
    is True, else for those that have come back from a guest or from Xen itself. It is read again for
    functions in `unread` of `before` that are in `given` or not dom0's. All other functions keep their owner
    of `before`. A function that is not dom0's and that the console does not name stays an orphan if it was
    one; else it is in `elsewhere`, with its former owner or an unnamed one. A function that was quarantined
    and is not in `given` any more counts as dom0's if the console is not readable: its driver may use the
    memory that is reserved for it.
    If the console cannot be read because a hypercall fails, the functions for which it is read are `unread`;
    so is one of which console and hypercall contradict each other: dom0 may have printed on Xen's console. If
    no console can be read here, they are `untold`, until their list can be read.
    Raises: HypervisorError, UnsupportedError if the hypercall for one function fails. A console that cannot
            be read is no error.
    """
    custody = {sbdf: xen.custody(sbdf) for sbdf in sorted(known)}
    if not custody:
        return XenView()
    away = [sbdf for sbdf, answer in custody.items() if answer is Custody.ELSEWHERE]
    unclear = {s for s in away if not (s in before.elsewhere or s in before.orphans)}
    asked = {*given, *before.quarantined}
    held = [s for s in asked if custody.get(s, Custody.UNTOLD) is not Custody.UNTOLD]
    unclear |= {s for s in held if handed or (s in before.elsewhere and s not in away)}
    unclear |= before.unread & {*away, *held}
    owners, unread, untold = _owners(xen, unclear) if unclear else ({}, frozenset(), frozenset())
    untold |= (before.untold & set(held)) - unclear
    contradicted = {sbdf for sbdf, owner in owners.items() if _contradicts(owner, custody[sbdf])}
    unread |= contradicted
    owners = {sbdf: owner for sbdf, owner in owners.items() if sbdf not in contradicted}
    orphans = {s for s, owner in owners.items() if owner.kind is OwnerKind.NOBODY}
    orphans |= (before.orphans & set(away)) - owners.keys()
    quarantined = {s for s, owner in owners.items() if owner.kind is OwnerKind.QUARANTINE}
    unasked = (before.quarantined & custody.keys()) - owners.keys()
    quarantined |= {s for s in unasked if s in given or s not in unclear}
    settled = {*orphans, *quarantined, *(s for s, owner in owners.items() if owner == _DOM0)}
    elsewhere = {s: _in_words(s, owners, before) for s in away if s not in settled}
    told = Custody.UNTOLD not in custody.values()
    return XenView(
        frozenset(custody), frozenset(orphans), elsewhere, told, frozenset(quarantined), unread, untold
    )


def _contradicts(owner: Owner, custody: Custody) -> bool:
    """Return True if the console names an owner that the hypercall's answer rules out."""
    at_home = owner == _DOM0 or owner.kind is OwnerKind.QUARANTINE
    return custody is (Custody.ELSEWHERE if at_home else Custody.HARDWARE_DOMAIN)


def _owners(
    xen: Hypervisor, unclear: Collection[Sbdf]
) -> tuple[dict[Sbdf, Owner], frozenset[Sbdf], frozenset[Sbdf]]:
    """Return what the console tells about the functions in `unclear`: owners, unread functions, untold ones.

    The owners are those of the functions that the console names. All functions are unread if a hypercall
    failed: the console may be readable later. All are untold if no console can be read here.
    """
    unread, untold = frozenset[Sbdf](), frozenset[Sbdf]()
    try:
        owners = xen.owners()
    except UnsupportedError:
        owners, untold = {}, frozenset(unclear)
    except HypervisorError:
        owners, unread = {}, frozenset(unclear)
    return {sbdf: owner for sbdf, owner in owners.items() if sbdf in unclear}, unread, untold


def _in_words(sbdf: Sbdf, owners: Mapping[Sbdf, Owner], before: XenView) -> str:
    """Return the owner of a function in words; the former words if the console does not name it."""
    owner = owners.get(sbdf)
    if owner is None:
        return before.elsewhere.get(sbdf, "an owner that Xen does not name")
    return "Xen itself" if owner.kind is OwnerKind.XEN else f"{GUEST} {owner.domain}"
