"""Plan a detour: how a renumbered function can be reached at Linux's address. Pure.

Each bridge above the function gets back the bus numbers that Linux has for it, from the root down: once a
bridge has its old numbers, the next bridge answers at the address where Linux has it. If another bridge has
taken such a bus number meanwhile, two bridges would answer: then there is no detour.
"""

from collections.abc import Mapping

import attrs

from pcipt.errors import UnsupportedError
from pcipt.pci import Function, Machine, RawFunction, Sbdf
from pcipt.remap.plan_moves import bridges_above, subtree


@attrs.frozen
class Hop:
    """A bridge of a detour, and the bus numbers that make Linux's addresses behind it valid."""

    bridge: Sbdf
    secondary: int
    subordinate: int


@attrs.frozen
class Detour:
    """The bridges to renumber, `hops`, from the root down, and a function to test with, `witness`.

    After all hops have got the bus numbers in `hops`, `witness` answers at Linux's address, if its hardware
    is there.
    """

    hops: tuple[Hop, ...]
    witness: Sbdf


def plan_detour(machine: Machine, linux: Sbdf, raws: Mapping[Sbdf, RawFunction]) -> Detour:
    """Return the detour to the function that Linux has at `linux`; `hops` is empty if no bridge is above it.

    `raws` hold the bus numbers that Linux has for bridges (`RawFunction.secondary`). The subordinate bus of a
    hop is the highest bus on which Linux has a function behind the bridge. The witness is the function
    itself. For a virtual function it is the physical function, because the vendor register of a virtual
    function always reads ffff.

    Raises: UnsupportedError if Linux has no function at `linux`, if the secondary bus that Linux has for a
            bridge above it is not known, or if another bridge beside a hop passes on a bus of the hop now.
    """
    feature = f"the check of {linux} needs the old bus numbers of the bridges above it"
    function = machine.functions.get(linux)
    if function is None:
        raise UnsupportedError(feature, "Linux does not have this function any more")
    hops = []
    for bridge in bridges_above(machine, linux):
        secondary = raws[bridge.sbdf].secondary if bridge.sbdf in raws else None
        if secondary is None:
            raise UnsupportedError(feature, f"nobody knows the old number of {bridge.sbdf}")
        last = max([secondary, *(each.sbdf.bus for each in subtree(machine, bridge.sbdf))])
        other = _in_the_way(machine, bridge, secondary, last)
        if other is not None:
            raise UnsupportedError(
                feature,
                (
                    f"bridge {other.sbdf} now uses a bus of {secondary:02x}-{last:02x}; give that bridge "
                    "other bus numbers, then pcipt resync"
                ),
            )
        hops.append(Hop(bridge.sbdf, secondary, last))
    return Detour(tuple(reversed(hops)), function.physfn or linux)


def _in_the_way(machine: Machine, bridge: Function, first: int, last: int) -> Function | None:
    """Return another bridge with the same parent that passes on a bus of `first` to `last` now, or None.

    A bridge whose secondary bus is 0 passes nothing on. A bridge whose bus numbers are not known is left out.
    """
    for other in machine.children(bridge.parent):
        own = other.bridge
        if own is None or other.sbdf == bridge.sbdf or other.sbdf.segment != bridge.sbdf.segment:
            continue
        if 0 < own.secondary <= last and first <= own.subordinate:
            return other
    return None
