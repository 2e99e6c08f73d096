"""The guard of actions with which vPCI switches memory decode: that panics some versions. Pure; PVH only.

Before Xen 4.17.2 vPCI looks at the BARs of all functions of dom0 whenever it maps or unmaps the BARs of one,
and does not ask whether it handles them: a function that it has given up panics the host then.
Source: Xen drivers/vpci/header.c (modify_bars).
"""

from pcipt.pci import Function
from pcipt.remap.actions import Action, AddDevice, RewriteBar, RewriteCommand
from pcipt.remap.desired import place_of
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.xen.releases import WITHOUT_VPCI_PANICS


def _none_given_up(action: AddDevice | RewriteBar | RewriteCommand, facts: Facts) -> str | None:
    """Refuse a switch of memory decode while vPCI has given up a function, if this Xen panics then.

    An added function counts unless it is known not to decode memory.
    """
    if not facts.given_up or not facts.pvh or not WITHOUT_VPCI_PANICS.of(facts.version):
        return None
    added = _added(action, facts) if isinstance(action, AddDevice) else None
    if added is not None and added.decodes_memory is False:
        return None
    found = sorted(each.sbdf for each in facts.machine.functions.values() if place_of(each) in facts.given_up)
    names = ", ".join(map(str, found[:4])) or "a function"
    return (
        f"vPCI has given up {names}: this Xen would panic when memory decode is switched (fixed in Xen "
        f"{WITHOUT_VPCI_PANICS.ends}); unbind the driver of that function and remove the function in sysfs"
    )


def _added(action: AddDevice, facts: Facts) -> Function | None:
    """Return the function that is added; None if Linux does not have it."""
    return facts.machine.functions.get(action.moved_from or action.sbdf)


#        name, kind of action, rule
SWITCH_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("none-given-up", AddDevice, _none_given_up),
    ("none-given-up", RewriteBar, _none_given_up),
    ("none-given-up", RewriteCommand, _none_given_up),
)
