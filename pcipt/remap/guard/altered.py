"""The guards of functions whose read-only registers are not those that Xen handles (`vpci.shape`). Pure.

Nothing that such a function shows now may lead to a change. Pages of its own BARs are refused by `certain`
(`pages`), because its desired pages are not known.
"""

from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
)
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.vpci.shape import doubt_of


def _believed(action: AddDevice | RemoveDevice | RewriteBar | RewriteCommand, facts: Facts) -> str | None:
    """Refuse to tell Xen of an altered function, or to write its registers; the same for its VFs."""
    linux = action.moved_from if isinstance(action, AddDevice) and action.moved_from else action.sbdf
    function = facts.machine.functions.get(linux)
    return doubt_of(facts.altered, function) if function is not None else None


def _told_again(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove an altered function from Xen in order to add it again."""
    return _believed(action, facts) if action.anew else None


def _not_theirs(action: MapMmio | RestoreReserved, facts: Facts) -> str | None:
    """Refuse to map pages where an altered function had BARs: Xen may trap them for its MSI-X structures."""
    for sbdf, altered in facts.altered.items():
        if any(pages.overlaps(action.frames) for pages in altered.pages):
            return (
                f"BARs of {sbdf} were in these pages. The registers of {sbdf} have changed since Xen read "
                "them, and Xen may trap these pages"
            )
    return None


#        name, kind of action, rule
ALTERED_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("unaltered", AddDevice, _believed),
    ("unaltered", RemoveDevice, _told_again),
    ("unaltered", MapMmio, _not_theirs),
    ("unaltered", RestoreReserved, _not_theirs),
    ("unaltered", RewriteBar, _believed),
    ("unaltered", RewriteCommand, _believed),
)
