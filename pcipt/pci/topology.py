"""Where each function sits: its parent bridge and its PCI path.

Linux's nesting of sysfs directories decides; where there is none (a dump, a tree without links) the bridges'
bus numbers do: the bridge whose secondary bus it is, else the innermost whose range holds it (a virtual
function's bus is nobody's secondary). A function whose bridge is not there, or whose bridges form a loop, is
kept without a path and says why.

Source: PCI-to-PCI Bridge 1.2 §3.2.5.3-4 (bus numbers); PCI Express Base 6.0 §7.3.3 (routing by them).
"""

from collections.abc import Mapping

import attrs

from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bridge import Bridge, decode_bridge
from pcipt.pci.config import ConfigSpace
from pcipt.pci.finding import Finding
from pcipt.pci.raw import RawFunction


@attrs.frozen
class Position:
    """The place of one function; where `path` is None, `findings` say why."""

    parent: Sbdf | None
    path: PciPath | None
    findings: tuple[Finding, ...] = ()


def place_functions(raws: Mapping[Sbdf, RawFunction]) -> dict[Sbdf, Position]:
    """Find the parent and the path of every function.

    Shape:  parents are functions of `raws` and form no loop; no two functions have the same path.
    """
    bridges = {sbdf: bridge for sbdf, raw in raws.items() if (bridge := bridge_numbers(raw)) is not None}
    parents, looped = _from_roots(_find_parents(raws, bridges))
    first_bus = _first_buses(raws, parents)
    wrong = check_buses(bridges)
    positions: dict[Sbdf, Position] = {}
    for sbdf, parent in parents.items():
        findings = wrong.get(sbdf, ()) if wrong else ()
        if sbdf in looped:
            why = Finding("no-path", "the bridges above it form a loop: it has no PCI path")
            positions[sbdf] = Position(None, None, (*findings, why))
        elif parent is None:
            positions[sbdf] = place_at_root(raws[sbdf], findings)
        else:
            positions[sbdf] = place_below(sbdf, parent, positions[parent].path, first_bus[parent], findings)
    return positions


def place_at_root(raw: RawFunction, findings: tuple[Finding, ...] = ()) -> Position:
    """Place a function that has no bridge above it, or whose bridge is not there."""
    path, why = _path_at_root(raw)
    return Position(None, path, findings if why is None else (*findings, why))


def place_below(
    sbdf: Sbdf, parent: Sbdf, above: PciPath | None, first_bus: int, findings: tuple[Finding, ...] = ()
) -> Position:
    """Place a function below `parent`, whose path is `above` and whose buses count from `first_bus`."""
    path, why = _path_below(sbdf, parent, above, first_bus)
    return Position(parent, path, findings if why is None else (*findings, why))


def parent_by_linux(raw: RawFunction, raws: Mapping[Sbdf, RawFunction]) -> Sbdf | None:
    """Tell the bridge above, if Linux names one that is there.

    A segment's buses begin anew: below a VMD controller lies a root bus, not a bus behind a bridge.
    """
    parent = raw.parent
    return parent if parent is not None and parent.segment == raw.sbdf.segment and parent in raws else None


def first_bus_below(raw: RawFunction) -> int | None:
    """Tell from which bus the functions below a bridge are counted: Linux's number, as addresses are Linux's.

    Shape:  None where neither Linux nor the register tells: then it is the lowest bus below.
    """
    if raw.secondary is not None:
        return raw.secondary
    bridge = bridge_numbers(raw)
    return bridge.secondary if bridge is not None else None


def _find_parents(
    raws: Mapping[Sbdf, RawFunction], bridges: Mapping[Sbdf, Bridge]
) -> dict[Sbdf, Sbdf | None]:
    buses: _Buses | None = None
    parents: dict[Sbdf, Sbdf | None] = {}
    for sbdf, raw in raws.items():
        if raw.parent is None and raw.root_bus is None:
            buses = buses or _Buses(bridges)
            parents[sbdf] = buses.bridge_above(sbdf)
        else:
            parents[sbdf] = parent_by_linux(raw, raws)
    return parents


class _Buses:
    """Which bridge leads to a bus, by the bridges' numbers."""

    def __init__(self, bridges: Mapping[Sbdf, Bridge]) -> None:
        self._secondary: dict[tuple[int, int], list[Sbdf]] = {}
        self._ranges: dict[int, list[tuple[int, int, Sbdf]]] = {}
        self._innermost: dict[tuple[int, int], Sbdf | None] = {}
        for sbdf, bridge in bridges.items():
            if bridge.secondary:
                self._secondary.setdefault((sbdf.segment, bridge.secondary), []).append(sbdf)
                numbers = (bridge.secondary, bridge.subordinate, sbdf)
                self._ranges.setdefault(sbdf.segment, []).append(numbers)

    def bridge_above(self, sbdf: Sbdf) -> Sbdf | None:
        bus = (sbdf.segment, sbdf.bus)
        for bridge in self._secondary.get(bus, ()):
            if bridge != sbdf:
                return bridge
        if bus not in self._innermost:
            self._innermost[bus] = self._find_innermost(*bus)
        return self._innermost[bus]

    def _find_innermost(self, segment: int, bus: int) -> Sbdf | None:
        innermost, best = None, 0
        for secondary, subordinate, bridge in self._ranges.get(segment, ()):
            if best < secondary < bus <= subordinate and bridge.bus != bus:
                innermost, best = bridge, secondary
        return innermost


def _from_roots(parents: Mapping[Sbdf, Sbdf | None]) -> tuple[dict[Sbdf, Sbdf | None], set[Sbdf]]:
    """Order functions so that parents come first; the members of loops lose their parent and are named.

    Shape:  `parents` in such an order and without loops, and those that were in a loop.
    """
    order: dict[Sbdf, Sbdf | None] = {}
    looped: set[Sbdf] = set()
    for sbdf, parent in parents.items():
        if sbdf in order:
            continue
        if parent is None or parent in order:
            order[sbdf] = parent
            continue
        chain: dict[Sbdf, Sbdf | None] = {}
        at: Sbdf | None = sbdf
        while at is not None and at not in order and at not in chain:
            above = parents[at]
            chain[at] = above
            at = above
        while at is not None and at in chain and at not in looped:
            looped.add(at)
            above = chain[at]
            chain[at] = None
            at = above
        order.update(reversed(chain.items()))
    return order, looped


def _first_buses(raws: Mapping[Sbdf, RawFunction], parents: Mapping[Sbdf, Sbdf | None]) -> dict[Sbdf, int]:
    """Tell for each parent from which bus its children are counted."""
    first: dict[Sbdf, int] = {}
    guessed: set[Sbdf] = set()
    for sbdf, parent in parents.items():
        if parent is None:
            continue
        if parent in first:
            if guessed and parent in guessed:
                first[parent] = min(first[parent], sbdf.bus)
        else:
            told = first_bus_below(raws[parent])
            if told is None:
                guessed.add(parent)
            first[parent] = sbdf.bus if told is None else told
    return first


def _path_at_root(raw: RawFunction) -> tuple[PciPath | None, Finding | None]:
    sbdf, above = raw.sbdf, raw.parent
    if above is None or above.segment != sbdf.segment:
        return PciPath(sbdf.segment, ((sbdf.bus, sbdf.device, sbdf.function),)), None
    why = f"the bridge {above} above it has vanished: its place in the machine is unknown; rescan the bus"
    return None, Finding("bridge-vanished", why)


def _path_below(
    sbdf: Sbdf, parent: Sbdf, above: PciPath | None, first_bus: int
) -> tuple[PciPath | None, Finding | None]:
    if above is None:
        return None, Finding("no-path", f"the bridge {parent} above it has no PCI path, so it has none")
    bus = sbdf.bus - first_bus
    if bus < 0:
        why = f"it is on bus {sbdf.bus:02x}, but {parent} above it passes on buses from {first_bus:02x}"
        return None, Finding("no-path", f"{why}: it has no PCI path")
    return PciPath(sbdf.segment, (*above.hops, (bus, sbdf.device, sbdf.function))), None


def bridge_numbers(raw: RawFunction) -> Bridge | None:
    config = raw.config
    if not config or len(config) <= 0x1A or config[0x0E] & 0x7F not in (1, 2):
        return None
    return decode_bridge(ConfigSpace(config))


def check_buses(bridges: Mapping[Sbdf, Bridge]) -> dict[Sbdf, tuple[Finding, ...]]:
    """Report bridges whose bus numbers cannot be: below themselves, or neither nested nor apart.

    A secondary bus of 0 is that of a bridge nobody has set up.
    """
    found: dict[Sbdf, tuple[Finding, ...]] = {}
    sound: list[tuple[Sbdf, Bridge]] = []
    for sbdf, bridge in bridges.items():
        if bridge.secondary and not sbdf.bus < bridge.secondary <= bridge.subordinate:
            found[sbdf] = (_bad_numbers(sbdf, bridge),)
        elif bridge.secondary:
            sound.append((sbdf, bridge))
    sound.sort(key=lambda item: (item[0].segment, item[1].secondary, -item[1].subordinate, item[0].devfn))
    around: list[tuple[Sbdf, Bridge]] = []
    for sbdf, bridge in sound:
        while around and not _reaches(*around[-1], sbdf.segment, bridge.secondary):
            around.pop()
        if around:
            outer_sbdf, outer = around[-1]
            inside = outer.secondary <= sbdf.bus and bridge.subordinate <= outer.subordinate
            if not inside:
                found.setdefault(outer_sbdf, (_conflict(outer, sbdf, bridge),))
                found[sbdf] = (_conflict(bridge, outer_sbdf, outer),)
        around.append((sbdf, bridge))
    return found


def _reaches(sbdf: Sbdf, bridge: Bridge, segment: int, bus: int) -> bool:
    return sbdf.segment == segment and bus <= bridge.subordinate


def _bad_numbers(sbdf: Sbdf, bridge: Bridge) -> Finding:
    return Finding(
        "bus-numbers",
        f"the bridge on bus {sbdf.bus:02x} passes on {bridge.secondary:02x}-{bridge.subordinate:02x}, which "
        "cannot be: what is behind it is not reached; let Linux rescan it",
    )


def _conflict(bridge: Bridge, other_sbdf: Sbdf, other: Bridge) -> Finding:
    return Finding(
        "bus-conflict",
        f"its buses {bridge.secondary:02x}-{bridge.subordinate:02x} and those of {other_sbdf}, "
        f"{other.secondary:02x}-{other.subordinate:02x}, overlap: accesses behind them may reach either",
    )
