"""The guard of a function's own BARs: no rewrite makes vPCI fail or takes the host down. Pure; PVH only."""

import attrs

from pcipt.pci import Address
from pcipt.pci.bars import name_of_bar
from pcipt.remap.actions import Action, RewriteBar
from pcipt.remap.desired import as_vpci_has_it, untrapped_reason
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.vpci.hazards import rom_over_bars, why_refused, wraps
from pcipt.xen.releases import VPCI_GOES_BAR_BY_BAR


def _still_dropped(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to write the address of a cleared BAR back if vPCI does not handle the function now.

    Linux's own writes to the BAR pass then. A function that Linux does not have is not refused.
    """
    function = facts.machine.functions.get(action.sbdf)
    if function is None or action.before:
        return None
    why = untrapped_reason(function, facts.xen, pvh=facts.pvh, version=facts.version)
    return f"Xen does not drop writes to its BARs any more: {why}" if why is not None else None


def _target_safe(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to move a BAR if decode with the function's BARs afterwards harms the host or the function.

    A 64-bit BAR that reaches the end of the address space panics Xen, whether or not it is the one that is
    moved. From Xen 4.19 on a ROM takes pages that it shares with a BAR of its function out of the map. Where
    vPCI refuses to switch memory decode on, the function would not answer any more. What vPCI maps goes by
    the addresses that it has: a BAR that a reset has cleared counts where vPCI has it. A function that Linux
    does not have is not refused.
    """
    function = facts.machine.functions.get(action.sbdf)
    if function is None:
        return None
    function = as_vpci_has_it(function, facts.lost(action.sbdf))
    bars = tuple(
        attrs.evolve(bar, address=Address(action.address)) if bar.index == action.bar else bar
        for bar in function.bars
    )
    after = attrs.evolve(function, bars=bars)
    for bar in bars:
        if wraps(bar):
            return f"{name_of_bar(bar.index)} would reach the end of the address space: Xen panics then"
    if VPCI_GOES_BAR_BY_BAR.of(facts.version) and rom_over_bars(after):
        return (
            "its ROM would share pages with a BAR: when the ROM is switched off, this Xen also unmaps these "
            "pages of the BAR"
        )
    refusal = why_refused(after, facts.protected, facts.version)
    return f"Xen would not switch memory decode on again: {refusal.why}" if refusal is not None else None


#        name, kind of action, rule
OWN_BAR_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("still-dropped", RewriteBar, _still_dropped),
    ("target-safe", RewriteBar, _target_safe),
)
