"""Follows the entries of the IOMMU that all functions behind a conventional bridge share (`Ledger.severed`).

Xen removes such an entry with any function behind the bridge, whoever else needs it, and makes it again with
the next function that it is told of there. So when Linux removes a function, the DMA of the others stops.
Source: see `remap.kinds.conventional`.
"""

from collections.abc import Collection

from pcipt.engine.views.views import Views
from pcipt.pci import Finding, Function, Sbdf
from pcipt.remap.desired import place_of
from pcipt.remap.kinds.conventional import behind, finding_of_severed, is_endpoint


def note_entries(views: Views) -> bool:
    """Note which entries Xen has removed and made since the last call; return True if there are such entries.

    They follow from the answers of Xen (`Questions.changes`). Of functions that came and functions that left
    between two questions, nobody knows which was first: the entry counts as removed.
    """
    changes, severed = views.questions.changes, views.memory.ledger.severed
    before = set(severed)
    for came, left in changes if views.memory.conventional else ():
        severed -= _bridges_above(views, came)
        severed |= _bridges_above(views, left)
    changes.clear()
    severed &= {place_of(bridge) for bridge in map(views.machine.functions.get, views.state.severed)
                if bridge is not None and _sharing(views, bridge)}  # fmt: skip
    return severed != before


def concerned_by_entries(views: Views, functions: Collection[Sbdf]) -> set[Sbdf]:
    """Return the functions that share a bridge whose entry is, or was, gone with one of `functions`."""
    found: set[Sbdf] = set()
    for sbdf in functions if views.memory.conventional else ():
        bridge = views.state.bridges.above_bus(views.machine, sbdf)
        if bridge is not None:
            found |= {each.sbdf for each in behind(views.machine, bridge.sbdf)}
    return found


def finding_of_entry(views: Views, sbdf: Sbdf) -> Finding | None:
    """Return the finding that the entry of a function's bridge is gone; None if it is there or not needed."""
    if not views.memory.ledger.severed or not _has_owner(views, sbdf):
        return None
    top = views.state.bridges.top(views.machine, sbdf)
    if top is None or place_of(top) not in views.memory.ledger.severed:
        return None
    return finding_of_severed(views.machine.functions[sbdf], top, views.machine)


def _bridges_above(views: Views, functions: Collection[Sbdf]) -> set[str]:
    """Return the places of the uppermost conventional bridges above these addresses, bridges left out."""
    found = set()
    for sbdf in functions:
        function, bridge = _function_at(views, sbdf), views.state.bridges.above_bus(views.machine, sbdf)
        if bridge is not None and (function is None or is_endpoint(function)):
            found.add(place_of(bridge))
    return found


def _function_at(views: Views, sbdf: Sbdf) -> Function | None:
    """Return the function that Linux has at an address, or had before it left; None if nobody knows it."""
    places = (place for place, at in views.memory.vacated.items() if at == sbdf)
    former = (views.memory.former.get(place) for place in places)
    return views.machine.functions.get(sbdf) or next(former, None)


def _sharing(views: Views, bridge: Function) -> bool:
    """Return True if Xen lists a function behind a bridge with an owner: its DMA needs the bridge's entry."""
    return any(_has_owner(views, each.sbdf) for each in behind(views.machine, bridge.sbdf))


def _has_owner(views: Views, sbdf: Sbdf) -> bool:
    """Return True if Xen lists the function with an owner."""
    return sbdf in views.view.known and sbdf not in views.view.orphans
