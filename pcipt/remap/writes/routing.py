"""Find the place in the topology that answers at a bus number, by the bridges' present bus numbers. Pure.

While a machine is being numbered, the bus numbers of bridges may be anything: none, all buses, or the buses
of other bridges. Hardware follows the numbers from the root down, and so does this module. No combination of
numbers is an error.

Source: PCI-to-PCI Bridge 1.2 §3.1.2.1 (a bridge passes secondary to subordinate on, and nothing while it
        resets).
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import attrs

from pcipt.pci.address import PciPath, Sbdf

_Key = TypeVar("_Key")
Hops = tuple[tuple[int, int, int], ...]


@attrs.frozen
class BridgeBuses:
    """The bus numbers of one bridge: it passes on the buses `secondary` to `subordinate`, both included."""

    path: PciPath
    secondary: int
    subordinate: int


@attrs.frozen
class Route:
    """The bridge that leads to a bus, and the number of the bus counted from the bridge's secondary bus.

    `hops` is the path of the bridge. If `hops` is empty, the bus is a root bus, and `relative` is its bus
    number.
    """

    hops: Hops
    relative: int

    def to(self, sbdf: Sbdf) -> PciPath:
        """Return the place of the function at this address. The route must be that of the address's bus."""
        return PciPath(sbdf.segment, (*self.hops, (self.relative, sbdf.device, sbdf.function)))


Routes = Mapping[tuple[int, int], Route]


def build_routes(bridges: Iterable[BridgeBuses], roots: Iterable[tuple[int, int]]) -> Routes:
    """Return the table from (segment, bus) to the route of that bus: the deepest bridge that passes it on.

    `roots` are the root buses as (segment, bus). A bus that no bridge passes on, and that is not in `roots`,
    is not in the table. If two bridges beside each other pass on one bus, the bridge whose secondary bus it
    is wins, then the bridge with the lower device number. A bridge passes on only buses that all bridges
    above it pass on, and not their secondary buses. A root bus never leads to a bridge. A bridge whose
    secondary bus is 0 or above its subordinate bus passes nothing on.
    """
    below: dict[tuple[int, Hops], list[BridgeBuses]] = {}
    for bridge in sorted(bridges, key=lambda bridge: bridge.path.hops):
        if 0 < bridge.secondary <= bridge.subordinate:
            parent = bridge.path.hops[:-1] or ((bridge.path.hops[0][0], -1, -1),)
            below.setdefault((bridge.path.segment, parent), []).append(bridge)
    table: dict[tuple[int, int], Route] = {}
    for segment, root in sorted(roots):
        for bridge in below.get((segment, ((root, -1, -1),)), ()):
            for bus, route in _cover(bridge, below).items():
                _take(table, (segment, bus), route)
    for root_bus in roots:
        table[root_bus] = Route((), root_bus[1])
    return table


def _cover(bridge: BridgeBuses, below: Mapping[tuple[int, Hops], list[BridgeBuses]]) -> dict[int, Route]:
    """Return the buses that a bridge passes on, each with the route to the deepest bridge that does so.

    `below` has the bridges directly below a bridge, by its segment and path.
    """
    first = bridge.secondary
    found = {bus: Route(bridge.path.hops, bus - first) for bus in range(first, bridge.subordinate + 1)}
    inner: dict[int, Route] = {}
    for child in below.get((bridge.path.segment, bridge.path.hops), ()):
        for bus, route in _cover(child, below).items():
            if bus in found and bus != first:
                _take(inner, bus, route)
    return found | inner


def _take(table: dict[_Key, Route], key: _Key, route: Route) -> None:
    """Add a route to a bus, in place.

    A route that the table has already is replaced only if the bus is not the secondary bus of its bridge, but
    is the secondary bus of the new route's bridge.
    """
    present = table.get(key)
    if present is None or (present.relative and not route.relative):
        table[key] = route
