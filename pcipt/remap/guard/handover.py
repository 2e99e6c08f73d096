"""The guards of what pcipt hands over by itself: policed ports, and what appears below them. Pure."""

from pcipt.remap.actions import Action, GuardPort, Quarantine
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.xen.releases import DEVICE_RESET


def _is_dom0s(action: Quarantine, facts: Facts) -> str | None:
    """Refuse to take a function that is not dom0's: a guest would lose it, and an orphan take down the host.

    Source: Xen drivers/pci/physdev.c (pci_physdev_op: the reset that xen-pciback asks for, PVH).
    """
    owner = facts.xen.owner(action.sbdf)
    return None if facts.xen.in_dom0(action.sbdf) else f"it is not dom0's: its owner is {owner}"


def _no_orphan_is_taken(action: GuardPort, facts: Facts) -> str | None:
    """Refuse to let xen-pciback take what appears by itself where its reset of an orphan panics the host.

    Xen makes an orphan of a function that appears and that no IOMMU unit serves. Nobody can look in between.
    Source: Xen drivers/pci/physdev.c (pci_physdev_op); linux drivers/xen/xen-pciback/pci_stub.c
            (pcistub_init_device).
    """
    if not action.on or not facts.pvh or not DEVICE_RESET.of(facts.version):
        return None
    return (
        "xen-pciback would take each new function at once, also a function that Xen lists without an owner; "
        f"that crashes a PVH host with Xen from {DEVICE_RESET.begins} on. pcipt quarantines new functions "
        "itself, after it has asked Xen"
    )


#        name, kind of action, rule
HANDOVER_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("owned-by-dom0", Quarantine, _is_dom0s),
    ("no-orphan-is-taken", GuardPort, _no_orphan_is_taken),
)
