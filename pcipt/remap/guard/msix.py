"""Why a version of Xen cannot take a function with its MSI-X structure. Pure.

Source: Xen drivers/vpci/msix.c (init_msix, vpci_make_msix_hole).
"""

from pcipt.pci import Function
from pcipt.remap.guard.facts import Facts
from pcipt.remap.vpci.msix import has_faulty_msix, is_unplaced, msix_frames, refuses_msix
from pcipt.xen.releases import FAULTY_CAPABILITY_HIDDEN, MSIX_HOLE_NEEDS_MAPPED_BAR

HIDES = FAULTY_CAPABILITY_HIDDEN.begins


def msix_not_taken(function: Function, facts: Facts) -> str | None:
    """Return why this Xen cannot take the MSI-X structure of a renumbered function as it was read just now.

    None is returned if Xen can take it, and for a virtual function: a guard refuses that unread.
    """
    if not facts.pvh or not refuses_msix(facts.version) or function.physfn is not None:
        return None
    return why_not_taken(function, facts)


def why_not_taken(function: Function, facts: Facts) -> str | None:
    """Return why a Xen that refuses some MSI-X structures cannot take a function's, None if it can."""
    if function.msix is None:
        return None
    if function.physfn is not None:
        return f"this Xen cannot handle a virtual function with MSI-X (Xen {HIDES} adds it, without MSI-X)"
    if has_faulty_msix(function):
        return (
            f"its MSI-X table lies in no BAR, and this Xen cannot handle that (Xen {HIDES} hides its MSI-X)"
        )
    mended = f"and this Xen cannot handle that (fixed in Xen {MSIX_HOLE_NEEDS_MAPPED_BAR.begins})"
    if is_unplaced(function):
        return f"the BAR of its MSI-X table has no address yet, {mended}"
    over = next(filter(None, map(facts.protected.why_ram, msix_frames(function))), None)
    return f"its MSI-X table lies over {over}, {mended}" if over is not None else None
