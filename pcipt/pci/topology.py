"""Compute the place of each function: its parent bridge and its PCI path.

The nesting of Linux's sysfs directories decides. If it is missing (a dump, a tree without links), bus numbers
decide: the parent is the bridge whose secondary bus is the function's bus. If there is no such bridge
(possible for a virtual function), the parent is the innermost bridge whose bus range contains the function's
bus. A bridge with impossible bus numbers is asked last. A function whose bridge is missing, whose bridges
form a loop, or which may be behind a bridge with impossible bus numbers, has no path and gets a finding.

Source: PCI-to-PCI Bridge 1.2 §3.2.5.3-4 (bus numbers); PCI Express Base 6.0 §7.3.3 (routing by them).
"""

import functools
from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bridge import Bridge, decode_bridge
from pcipt.pci.buses.numbers import check_buses, is_impossible
from pcipt.pci.buses.root_bus import unclaimed
from pcipt.pci.config import ConfigSpace
from pcipt.pci.finding import Finding
from pcipt.pci.raw import RawFunction

BRIDGE_CLASSES = (0x0604, 0x0607, 0x0609)  # PCI, CardBus, semi-transparent (PCI Code and ID Assignment 1.11)
UNNUMBERED = Finding(
    "no-path",
    "it has no PCI path: the bus numbers of a bridge that may be above it are missing; `lspci -vv` prints "
    "these numbers",
)


@functools.lru_cache(maxsize=4096)  # devices below different bridges have equal hops
def _hop(bus: int, device: int, function: int) -> tuple[int, int, int]:
    """Return one hop of a PCI path."""
    return bus, device, function


@attrs.frozen
class Position:
    """The place of one function: its parent bridge and its path. `parent` is None if the function is on a
    root bus, if its bridge is missing, or if it is part of a loop.

    `findings` are about the place: why `path` is None, and what is wrong with a bridge's bus numbers.
    """

    parent: Sbdf | None
    path: PciPath | None
    findings: tuple[Finding, ...] = ()


def place_functions(raws: Mapping[Sbdf, RawFunction]) -> dict[Sbdf, Position]:
    """Return the position (parent and path) of every function of `raws`, by address.

    Shape:  one position for each function; a parent comes before its children. Every parent is a function of
            `raws`, parents form no loop, and no two functions have the same path.
    """
    bridges = {sbdf: bridge for sbdf, raw in raws.items() if (bridge := bridge_numbers(raw)) is not None}
    parents, looped = _from_roots(_find_parents(raws, bridges))
    first_bus = _first_buses(raws, parents)
    wrong = check_buses(bridges)
    unnumbered = _unnumbered_bridges(raws)
    doubtful = unclaimed(raws, parents, bridges)
    positions: dict[Sbdf, Position] = {}
    for sbdf, parent in parents.items():
        findings = wrong.get(sbdf, ()) if wrong else ()
        if sbdf in looped:
            why = Finding("no-path", "the bridges above it form a loop: it has no PCI path")
            positions[sbdf] = Position(None, None, (*findings, why))
        elif parent is None and unnumbered.get(sbdf.segment, sbdf.bus) < sbdf.bus:
            positions[sbdf] = Position(None, None, (*findings, UNNUMBERED))
        elif sbdf in doubtful:
            positions[sbdf] = Position(None, None, (*findings, doubtful[sbdf]))
        elif parent is None:
            positions[sbdf] = place_at_root(raws[sbdf], findings)
        else:
            positions[sbdf] = place_below(sbdf, parent, positions[parent].path, first_bus[parent], findings)
    return positions


def _unnumbered_bridges(raws: Mapping[Sbdf, RawFunction]) -> dict[int, int]:
    """Return, by segment, the lowest bus with a bridge that is known from lspci's words without bus numbers.

    A function on a higher bus may be below it, so it cannot be said to be on a root bus.
    """
    lowest: dict[int, int] = {}
    for sbdf, raw in raws.items():
        if raw.told is not None and raw.told.bridge is None:
            code = raw.ids.class_code
            if code is None or code >> 8 in BRIDGE_CLASSES:
                lowest[sbdf.segment] = min(sbdf.bus, lowest.get(sbdf.segment, sbdf.bus))
    return lowest


def place_at_root(raw: RawFunction, findings: tuple[Finding, ...] = ()) -> Position:
    """Return the position of a function that is on a root bus or whose bridge is missing. Its parent is None.

    If Linux names a bridge above it in the same segment, that bridge is missing, and the path is None. The
    position has the findings `findings` and, if the path is None, one more that says why.
    """
    path, why = _path_at_root(raw)
    return Position(None, path, findings if why is None else (*findings, why))


def place_below(
    sbdf: Sbdf, parent: Sbdf, above: PciPath | None, first_bus: int, findings: tuple[Finding, ...] = ()
) -> Position:
    """Return the position of `sbdf` below the bridge `parent`, whose path is `above` (None if it has none).

    `first_bus` is the number of the bus directly below `parent`, as `first_bus_below` returns it. The path is
    None if `above` is None or if the bus of `sbdf` is below `first_bus`. The position has the findings
    `findings` and, if its path is None, one more that says why.
    """
    path, why = _path_below(sbdf, parent, above, first_bus)
    return Position(parent, path, findings if why is None else (*findings, why))


def parent_by_linux(raw: RawFunction, raws: Mapping[Sbdf, RawFunction]) -> Sbdf | None:
    """Return the bridge above `raw` that Linux names. Return None if Linux names none, or if that bridge is
    not in `raws` or is in another segment.

    Another segment occurs below a VMD controller: its functions are on a root bus of their own segment, so
    the VMD controller is not their parent.
    """
    parent = raw.parent
    return parent if parent is not None and parent.segment == raw.sbdf.segment and parent in raws else None


def first_bus_below(raw: RawFunction) -> int | None:
    """Return the number of the bus directly below a bridge: Linux's number, or the secondary bus register if
    Linux has no number.

    Linux's number is preferred because the addresses of the functions below are Linux's too. Return None if
    both are unknown; the caller then uses the lowest bus number among the functions below.
    """
    if raw.secondary is not None:
        return raw.secondary
    bridge = bridge_numbers(raw)
    return bridge.secondary if bridge is not None else None


def _find_parents(
    raws: Mapping[Sbdf, RawFunction], bridges: Mapping[Sbdf, Bridge]
) -> dict[Sbdf, Sbdf | None]:
    """Return the parent of each function (None if it has none).

    The parent is the one that `parent_by_linux` returns. If Linux names neither a bridge nor a root bus, the
    bus numbers of `bridges` decide.
    """
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
    """An index that finds the bridge above a bus, from the bus numbers of all bridges.

    Bridges with impossible numbers come after all others.
    """

    def __init__(self, bridges: Mapping[Sbdf, Bridge]) -> None:
        self._secondary: dict[tuple[int, int], list[Sbdf]] = {}
        self._ranges: dict[int, list[tuple[int, int, Sbdf]]] = {}
        self._innermost: dict[tuple[int, int], Sbdf | None] = {}
        for sbdf, bridge in sorted(bridges.items(), key=lambda item: is_impossible(*item)):
            if bridge.secondary:
                self._secondary.setdefault((sbdf.segment, bridge.secondary), []).append(sbdf)
                numbers = (bridge.secondary, bridge.subordinate, sbdf)
                self._ranges.setdefault(sbdf.segment, []).append(numbers)

    def bridge_above(self, sbdf: Sbdf) -> Sbdf | None:
        """Return the bridge above `sbdf`, or None if there is none (a root bus).

        It is the first bridge, not on the bus of `sbdf`, whose secondary bus is the bus of `sbdf`. If there
        is no such bridge, it is the innermost bridge whose bus range contains the bus.
        """
        bus = (sbdf.segment, sbdf.bus)
        for bridge in self._secondary.get(bus, ()):
            if bridge.bus != sbdf.bus:
                return bridge
        if bus not in self._innermost:
            self._innermost[bus] = self._find_innermost(*bus)
        return self._innermost[bus]

    def _find_innermost(self, segment: int, bus: int) -> Sbdf | None:
        """Return the bridge with the highest secondary bus whose bus range contains `bus`, or None.

        The secondary bus must be below `bus`, and the bridge itself must not be on `bus`.
        """
        innermost, best = None, 0
        for secondary, subordinate, bridge in self._ranges.get(segment, ()):
            if best < secondary < bus <= subordinate and bridge.bus != bus:
                innermost, best = bridge, secondary
        return innermost


def _from_roots(parents: Mapping[Sbdf, Sbdf | None]) -> tuple[dict[Sbdf, Sbdf | None], set[Sbdf]]:
    """Order the functions so that each parent comes before its children, and break loops.

    Shape:  the parent of each function, in this order, and the set of functions that were part of a loop;
            these have the parent None. A function that is only below a loop is not in the set.
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
    """Return, for each parent, the bus number from which the buses of its children are counted.

    It is the number of `first_bus_below`, or the lowest bus number of the children if that is unknown.
    """
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
    """Return the path of a function on a root bus and no finding. Return None and a finding if its bridge is
    missing.
    """
    sbdf, above = raw.sbdf, raw.parent
    if above is None or above.segment != sbdf.segment:
        return PciPath(sbdf.segment, (_hop(sbdf.bus, sbdf.device, sbdf.function),)), None
    why = f"the bridge {above} above it has vanished: its place in the machine is unknown; rescan the bus"
    return None, Finding("bridge-vanished", why)


def _path_below(
    sbdf: Sbdf, parent: Sbdf, above: PciPath | None, first_bus: int
) -> tuple[PciPath | None, Finding | None]:
    """Return the path of a function below `parent` and no finding. Return None and a finding if the bridge
    has no path, or if the function's bus is below `first_bus`.
    """
    if above is None:
        return None, Finding("no-path", f"the bridge {parent} above it has no PCI path, so it has none")
    bus = sbdf.bus - first_bus
    if bus < 0:
        why = f"it is on bus {sbdf.bus:02x}, but {parent} above it passes on buses from {first_bus:02x}"
        return None, Finding("no-path", f"{why}: it has no PCI path")
    return PciPath(sbdf.segment, (*above.hops, _hop(bus, sbdf.device, sbdf.function))), None


def bridge_numbers(raw: RawFunction) -> Bridge | None:
    """Return the decoded bridge header of `raw`, or what lspci's words tell of it. Return None if `raw` is
    not a bridge or if its bus numbers are not known.
    """
    if raw.told is not None:
        return raw.told.bridge
    config = raw.config
    if not config or len(config) <= 0x1A or config[0x0E] & 0x7F not in (1, 2):
        return None
    return decode_bridge(ConfigSpace(config))
