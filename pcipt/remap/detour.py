"""How a renumbered function is reached: the bridges above get the bus numbers that Linux believes in. Pure.

From the root down: behind a bridge that has its old numbers again, the next one answers where Linux has it.
Where another bridge has taken such a number meanwhile, two would answer: then there is no way.
"""

from collections.abc import Mapping

import attrs

from pcipt.errors import UnsupportedError
from pcipt.pci import Function, Machine, RawFunction, Sbdf
from pcipt.remap.plan_moves import bridges_above, subtree


@attrs.frozen
class Hop:
    """A bridge on the way, with the numbers by which Linux's addresses behind it are valid."""

    bridge: Sbdf
    secondary: int
    subordinate: int


@attrs.frozen
class Detour:
    """`hops` from the root down; `witness` answers at Linux's address if hardware is there."""

    hops: tuple[Hop, ...]
    witness: Sbdf


def plan_detour(machine: Machine, linux: Sbdf, raws: Mapping[Sbdf, RawFunction]) -> Detour:
    """Plan the way to what Linux calls by this address; `raws` have what Linux believes of bridges.

    A virtual function reads all ones by specification: its physical one is the witness.
    Raises: UnsupportedError where the way is not known, or not free.
    """
    feature = f"reaching {linux} by its bridges' numbers of before"
    function = machine.functions.get(linux)
    if function is None:
        raise UnsupportedError(feature, "Linux does not have it any more")
    hops = []
    for bridge in bridges_above(machine, linux):
        secondary = raws[bridge.sbdf].secondary if bridge.sbdf in raws else None
        if secondary is None:
            raise UnsupportedError(feature, f"nobody knows those of {bridge.sbdf}")
        last = max([secondary, *(each.sbdf.bus for each in subtree(machine, bridge.sbdf))])
        other = _in_the_way(machine, bridge, secondary, last)
        if other is not None:
            raise UnsupportedError(
                feature, f"bridge {other.sbdf} has a bus of {secondary:02x}-{last:02x} now"
            )
        hops.append(Hop(bridge.sbdf, secondary, last))
    return Detour(tuple(reversed(hops)), function.physfn or linux)


def _in_the_way(machine: Machine, bridge: Function, first: int, last: int) -> Function | None:
    """Find another bridge on the same bus that passes one of these buses on."""
    for other in machine.children(bridge.parent):
        own = other.bridge
        if own is None or other.sbdf == bridge.sbdf or other.sbdf.segment != bridge.sbdf.segment:
            continue
        if 0 < own.secondary <= last and first <= own.subordinate:
            return other
    return None
