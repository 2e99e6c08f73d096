"""The guards of the second unmap of pages (`Hole`): it is made only where nobody needs the pages. Pure.

They allow it for exactly the pages of one earlier unmap of pcipt, and for no page that has come into use
since, by whatever the machine shows right before the call. An access that maps a page again after the call
is answered by Xen as before. Source: Xen arch/x86/hvm/emulate.c (hwdom_fixup_p2m).
"""

from pcipt.pci.bars import name_of_bar
from pcipt.remap.actions import Action, CheckUnmapped
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.guard.pages import needing_devices


def _unmapped_before(action: CheckUnmapped, facts: Facts) -> str | None:
    """Refuse unless pcipt unmapped exactly these pages for this function, and nobody mapped one since."""
    return None if facts.holes.holds(action) else "pcipt did not unmap exactly these pages"


def _unprotected(action: CheckUnmapped, facts: Facts) -> str | None:
    """Refuse pages that are protected; a reserved region is not protected from its own check."""
    protected = facts.protected
    why = protected.why_not_reserved(action.frames) if action.region else protected.why(action.frames)
    return f"the pages overlap {why}" if why is not None else None


def _without_bar(action: CheckUnmapped, facts: Facts) -> str | None:
    """Refuse pages at which a BAR of any function lies, whether it decodes or not, and mapped pages.

    It is the rule "no-bar" of a withdrawal, for all holes: here nothing is urgent.
    """
    for other in facts.bars.over(action.frames):
        return f"{name_of_bar(other.bar)} of {other.sbdf} is at {other.range}"
    for run in facts.mapped.over(action.frames):
        return f"these pages are mapped for {name_of_bar(run.bar)} of {run.sbdf}"
    return None


def _no_scope_device(action: CheckUnmapped, facts: Facts) -> str | None:
    """Refuse pages of a reserved region that a device of dom0 needs (`who_needs`)."""
    names = needing_devices(action.frames, facts)
    return f"{names} in dom0 needs a reserved region at these pages" if names else None


#        name, kind of action, rule
HOLE_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("unmapped-before", CheckUnmapped, _unmapped_before),
    ("protected", CheckUnmapped, _unprotected),
    ("no-bar", CheckUnmapped, _without_bar),
    ("scope-devices", CheckUnmapped, _no_scope_device),
)
