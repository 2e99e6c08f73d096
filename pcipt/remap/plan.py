"""The plan: an ordered tuple of actions that would make Xen's list agree with the machine. Pure.

Order: physical functions before their virtual ones, bridges before what is behind them; removals go the
other way round. Nothing is planned for a function about which the views agree.
"""

from collections.abc import Collection

from pcipt.pci import Function, Machine, Sbdf
from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.view import XenView, ghosts, missing


def plan_announcements(
    machine: Machine, xen: XenView, *, departed: Collection[Sbdf] = (), only: Collection[Sbdf] | None = None
) -> tuple[Action, ...]:
    """Plan the announcements that are missing, and the removal of ghosts that were seen to leave.

    Shape:  removals first, so that a number is free before it is given anew. `only` limits the plan to these
            functions. `departed` are functions that Linux had and lost while we watched: a ghost that Linux
            never had may be hardware it was told to hide, so it is reported and not removed.
    """
    wanted = [sbdf for sbdf in missing(machine, xen) if only is None or sbdf in only]
    leaving = [sbdf for sbdf in ghosts(machine, xen) if sbdf in departed and (only is None or sbdf in only)]
    removals = [
        RemoveDevice(sbdf, "it has left the machine but Xen still lists it") for sbdf in reversed(leaving)
    ]
    additions = [_announce(machine.functions[sbdf], xen, machine) for sbdf in _parents_first(machine, wanted)]
    return (*removals, *additions)


def _announce(function: Function, xen: XenView, machine: Machine) -> AddDevice:
    if function.sbdf in xen.orphans:
        reason = "Xen lists it without an owner; announcing it again gives it to dom0"
    else:
        reason = "Linux has it but Xen does not know it"
    return AddDevice(function.sbdf, reason, extended=_is_extended(function, machine), physfn=function.physfn)


def _is_extended(function: Function, machine: Machine) -> bool:
    """Whether the kernel would set EXTFN: a function above 7 behind a port that forwards ARI.

    Source: linux drivers/xen/pci.c (pci_ari_enabled and PCI_SLOT != 0); PCIe 6.0 §7.5.3.15 bit 5.
    """
    if function.physfn is not None or function.sbdf.device == 0 or function.parent is None:
        return False
    port = machine.functions.get(function.parent)
    return port is not None and port.express is not None and bool(port.express.ari_forwarding)


def _parents_first(machine: Machine, wanted: Collection[Sbdf]) -> list[Sbdf]:
    def rank(sbdf: Sbdf) -> tuple[int, bool, Sbdf]:
        function = machine.functions[sbdf]
        depth = len(function.path.hops) if function.path is not None else 0
        return depth, function.physfn is not None, sbdf

    return sorted(wanted, key=rank)
