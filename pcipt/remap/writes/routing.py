"""Which place of the topology answers at a bus number, as the bridges' numbers stand right now.

Bus numbers are whatever was written last: while a machine is being numbered, bridges claim nothing,
everything or each other's buses. Hardware follows the numbers from the root down, and so does this; nothing
is an error.

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
class Claim:
    """A bridge that is set up: it passes the buses `secondary` to `subordinate` on."""

    path: PciPath
    secondary: int
    subordinate: int


@attrs.frozen
class Route:
    """Bus `relative` of the bridge at `hops`; no hops: a root bus, and `relative` is its number."""

    hops: Hops
    relative: int

    def to(self, sbdf: Sbdf) -> PciPath:
        return PciPath(sbdf.segment, (*self.hops, (self.relative, sbdf.device, sbdf.function)))


Routes = Mapping[tuple[int, int], Route]


def build_routes(claims: Iterable[Claim], roots: Iterable[tuple[int, int]]) -> Routes:
    """Compute the table from (segment, bus) to the place behind it.

    A bus that no bridge claims is not in it. Where two bridges claim a bus, the one whose secondary bus it is
    wins, then the one of lower device number.
    """
    below: dict[tuple[int, Hops], list[Claim]] = {}
    for claim in sorted(claims, key=lambda claim: claim.path.hops):
        if 0 < claim.secondary <= claim.subordinate:
            parent = claim.path.hops[:-1] or ((claim.path.hops[0][0], -1, -1),)
            below.setdefault((claim.path.segment, parent), []).append(claim)
    table: dict[tuple[int, int], Route] = {}
    for segment, root in sorted(roots):
        for claim in below.get((segment, ((root, -1, -1),)), ()):
            for bus, route in _cover(claim, below).items():
                _take(table, (segment, bus), route)
    for root_bus in roots:
        table[root_bus] = Route((), root_bus[1])
    return table


def _cover(claim: Claim, below: Mapping[tuple[int, Hops], list[Claim]]) -> dict[int, Route]:
    """List the buses that a bridge passes on, with the deepest place that answers to each."""
    first = claim.secondary
    found = {bus: Route(claim.path.hops, bus - first) for bus in range(first, claim.subordinate + 1)}
    inner: dict[int, Route] = {}
    for child in below.get((claim.path.segment, claim.path.hops), ()):
        for bus, route in _cover(child, below).items():
            if bus in found and bus != first:
                _take(inner, bus, route)
    return found | inner


def _take(table: dict[_Key, Route], key: _Key, route: Route) -> None:
    held = table.get(key)
    if held is None or (held.relative and not route.relative):
        table[key] = route
