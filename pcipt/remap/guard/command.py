"""The guards of writing a Command register as it is, after which vPCI maps or unmaps BARs. Pure; PVH only.

A rule returns the reason for a refusal, in words for the user, or None if it does not object.
"""

from pcipt.pci import BarKind
from pcipt.pci.bars import name_of_bar
from pcipt.remap.actions import Action, RewriteCommand
from pcipt.remap.bar_ranges import assigned_range
from pcipt.remap.guard.facts import Facts, Rule


def _answers(action: RewriteCommand, facts: Facts) -> str | None:
    """Refuse a function that Linux does not have, or that does not answer at its address."""
    function = facts.machine.functions.get(action.sbdf)
    return None if function is not None and function.answers else "it does not answer now"


def _dom0s(action: RewriteCommand, facts: Facts) -> str | None:
    """Refuse a function that Xen does not list as dom0's: its registers are not dom0's to write."""
    return (
        None
        if facts.xen.in_dom0(action.sbdf)
        else (f"it is not dom0's: its owner is {facts.xen.owner(action.sbdf)}")
    )


def _possible(action: RewriteCommand, facts: Facts) -> str | None:
    """Refuse if a BAR decodes at an impossible address: all ones in a 64-bit BAR panic Xen."""
    function = facts.machine.functions.get(action.sbdf)
    for bar in function.bars if function is not None else ():
        memory = bar.kind is not BarKind.IO and bar.decoding and bar.address and bar.size
        if memory and assigned_range(bar) is None:
            return f"{name_of_bar(bar.index)} decodes at {bar.address:#x}, which is no possible address"
    return None


#        name, kind of action, rule
COMMAND_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("hardware-answers", RewriteCommand, _answers),
    ("owned-by-dom0", RewriteCommand, _dom0s),
    ("possible-address", RewriteCommand, _possible),
)
