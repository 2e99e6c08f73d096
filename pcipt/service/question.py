"""Asks Xen what it knows, and makes a `XenView` of the answers."""

from collections.abc import Iterable

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Machine, Sbdf, sbdf_from_devfn
from pcipt.remap.view import XenView
from pcipt.xen.interface import Custody, Hypervisor, Owner, OwnerKind


def ghost_candidates(machine: Machine) -> list[Sbdf]:
    """List every address on the buses in use: Xen can be asked about a function, not for a list.

    Shape:  all devices and functions of each bus that has a function or that a bridge passes on.
    """
    buses = {(sbdf.segment, sbdf.bus) for sbdf in machine.functions if sbdf.fits_xen}
    for function in machine.functions.values():
        if function.bridge is not None and function.sbdf.fits_xen:
            last = max(function.bridge.secondary, function.bridge.subordinate)
            buses |= {(function.sbdf.segment, bus) for bus in range(function.bridge.secondary, last + 1)}
    return [sbdf_from_devfn(segment, bus, devfn) for segment, bus in sorted(buses) for devfn in range(256)]


def ask_about(xen: Hypervisor, functions: Iterable[Sbdf], before: XenView | None = None) -> XenView:
    """Ask which of these Xen knows, and who has them.

    One batch tells what is known; each known one is asked for its custody, which is silent where dom0 has it.
    Only where an answer is ambiguous (guest, hidden or orphan) Xen's device list is dumped, once, and not
    again for a function of which `before` tells that somebody else has it: a dump holds a lock of Xen.
    Raises: HypervisorError, UnsupportedError where Xen cannot be asked at all.
    """
    asked = sorted(set(functions))
    known = frozenset(sbdf for sbdf, is_known in zip(asked, xen.known(asked), strict=True) if is_known)
    custody = {sbdf: xen.custody(sbdf) for sbdf in sorted(known)}
    away = [sbdf for sbdf, answer in custody.items() if answer is Custody.ELSEWHERE]
    told_before = before or XenView()
    unclear = [s for s in away if s not in told_before.elsewhere and s not in told_before.orphans]
    owners = _owners(xen) if unclear else {}
    orphans = {s for s in unclear if s in owners and owners[s].kind is OwnerKind.NOBODY}
    orphans |= told_before.orphans & set(away)
    elsewhere = {
        s: told_before.elsewhere.get(s) or _owner_in_words(owners.get(s)) for s in away if s not in orphans
    }
    told = Custody.UNTOLD not in custody.values()
    return XenView(known, frozenset(orphans), elsewhere, custody_told=told)


def _owners(xen: Hypervisor) -> dict[Sbdf, Owner]:
    try:
        return dict(xen.owners())
    except (UnsupportedError, HypervisorError):
        return {}  # the owner stays unknown, which every guard treats as somebody else's


def _owner_in_words(owner: Owner | None) -> str:
    if owner is None:
        return "an owner that Xen does not name"
    if owner.kind is OwnerKind.DOMAIN:
        return f"domain {owner.domain}"
    return {OwnerKind.QUARANTINE: "quarantine (dom_io)", OwnerKind.XEN: "Xen itself"}.get(
        owner.kind, "nobody"
    )
