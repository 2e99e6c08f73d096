"""Check the bus numbers of bridges: each bridge's by themselves, then all bridges of a segment together.

Source: PCI-to-PCI Bridge 1.2 §3.2.5.3-4; linux drivers/pci/probe.c, pci_scan_bridge_extend, for what Linux
        takes for a bridge that is not set up, and for which it has no number ("No bus number available").
"""

from collections.abc import Iterable, Mapping, Sequence

from pcipt.pci.address import Sbdf
from pcipt.pci.bridge import Bridge
from pcipt.pci.finding import Finding

LAST_BUS = 0xFF


def is_impossible(sbdf: Sbdf, bridge: Bridge) -> bool:
    """Return True if the bus numbers of the bridge `sbdf` cannot be right by themselves.

    They cannot if secondary is not above the bridge's own bus (0 is never), is ff, or is above subordinate.
    Linux gives ff to no bridge: it is what registers read that do not answer.
    """
    return not sbdf.bus < bridge.secondary <= bridge.subordinate or bridge.secondary == LAST_BUS


def wrong_primary(sbdf: Sbdf, bridge: Bridge) -> tuple[Finding, ...]:
    """Return a finding if the primary bus number of a bridge is not the bus that the bridge `sbdf` is on.

    Downwards nothing is routed by it, so what is behind the bridge is reached. But Linux takes such a bridge
    for one that is not set up. A bridge that reads 0 is spared, as by Linux: the number may be hard-wired.
    Other impossible numbers say it all.
    """
    if bridge.primary in (0, sbdf.bus) or is_impossible(sbdf, bridge):
        return ()
    why = (
        f"the primary bus number of the bridge is {bridge.primary:02x}, but the bridge is on bus "
        f"{sbdf.bus:02x}. Devices behind the bridge still work, but at the next scan Linux will give the "
        "bridge new bus numbers and the devices new addresses; before any rescan write the number back "
        f"(setpci -s {sbdf} PRIMARY_BUS={sbdf.bus:02x})"
    )
    return (Finding("bus-primary", why),)


def check_buses(bridges: Mapping[Sbdf, Bridge]) -> dict[Sbdf, tuple[Finding, ...]]:
    """Return one finding for each bridge with impossible or conflicting bus numbers. Other bridges have no
    entry.

    A bridge with impossible numbers (`is_impossible`) is not compared with other bridges. Two bridges
    conflict if their bus ranges overlap and the inner bridge is not below the outer one. The inner bridge is
    the one whose range begins later or, if both begin at the same bus, ends earlier. It is below if its own
    bus and its whole range lie in the range of the outer bridge. Both bridges of a conflict get a finding. A
    bridge whose whole range lies behind that of the bridge above it gets one, too: no access comes to it.
    """
    sound = [(sbdf, bridge) for sbdf, bridge in bridges.items() if not is_impossible(sbdf, bridge)]
    found = _impossible(bridges, sound)
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
    for number, (sbdf, bridge) in enumerate(sound):
        above = next((each for each in reversed(sound[:number]) if _has(each, sbdf)), None)
        if above is not None and above[1].subordinate < bridge.secondary:
            found.setdefault(sbdf, (_beyond(bridge, *above),))
    return found


def _impossible(
    bridges: Mapping[Sbdf, Bridge], sound: Sequence[tuple[Sbdf, Bridge]]
) -> dict[Sbdf, tuple[Finding, ...]]:
    """Return the finding of each bridge with impossible numbers; `sound` are the other bridges."""
    above, used = _leading(sound), _used(sound)
    found: dict[Sbdf, tuple[Finding, ...]] = {}
    for sbdf, bridge in bridges.items():
        if is_impossible(sbdf, bridge):
            bus = (sbdf.segment, sbdf.bus)
            full = bus in above and used.get(bus, sbdf.bus) >= above[bus][1].subordinate
            found[sbdf] = (_bad_numbers(sbdf, bridge, above[bus] if full else None),)
    return found


def _leading(sound: Iterable[tuple[Sbdf, Bridge]]) -> dict[tuple[int, int], tuple[Sbdf, Bridge]]:
    """Return the bridge that leads to each bus, by segment and bus."""
    return {(sbdf.segment, bridge.secondary): (sbdf, bridge) for sbdf, bridge in sound}


def _used(sound: Iterable[tuple[Sbdf, Bridge]]) -> dict[tuple[int, int], int]:
    """Return the highest bus number behind the bridges on each bus, by segment and bus."""
    highest: dict[tuple[int, int], int] = {}
    for sbdf, bridge in sound:
        bus = (sbdf.segment, sbdf.bus)
        highest[bus] = max(highest.get(bus, 0), bridge.subordinate)
    return highest


def _has(outer: tuple[Sbdf, Bridge], sbdf: Sbdf) -> bool:
    """Return True if a bridge passes on accesses to the bus of `sbdf`."""
    above, bridge = outer
    return above.segment == sbdf.segment and bridge.secondary <= sbdf.bus <= bridge.subordinate


def _reaches(sbdf: Sbdf, bridge: Bridge, segment: int, bus: int) -> bool:
    """Return True if the bridge `sbdf` is in the segment `segment` and its subordinate bus is at least
    `bus`.
    """
    return sbdf.segment == segment and bus <= bridge.subordinate


def _bad_numbers(sbdf: Sbdf, bridge: Bridge, full: tuple[Sbdf, Bridge] | None) -> Finding:
    """Return the finding that the bus numbers of one bridge are impossible by themselves. `full` is the
    bridge above if it has no number left: Linux gives numbers above the highest that is used.
    """
    if not bridge.secondary and full is not None:
        return Finding(
            "bus-numbers",
            "the bridge has the secondary bus number 00, because Linux has no number for it. The bridge "
            f"{full[0]} above it passes on only the buses {full[1].secondary:02x}-{full[1].subordinate:02x}, "
            "and all are used; no device behind it can be reached; boot dom0's Linux with "
            "pci=assign-busses,hpbussize=8, which keeps numbers for slots",
        )
    cure = "no device behind it can be reached; remove the bridge in sysfs and rescan"
    if not bridge.secondary:
        return Finding(
            "bus-numbers",
            f"the bridge has the secondary bus number 00: it is not set up, or was reset; {cure}",
        )
    return Finding(
        "bus-numbers",
        f"the bridge on bus {sbdf.bus:02x} has impossible bus numbers: secondary {bridge.secondary:02x}, "
        f"subordinate {bridge.subordinate:02x}; {cure}",
    )


def _beyond(bridge: Bridge, above: Sbdf, outer: Bridge) -> Finding:
    """Return the finding of `bridge` that its bus range lies behind that of the bridge `above` it."""
    return Finding(
        "bus-numbers",
        f"it passes on the buses {bridge.secondary:02x}-{bridge.subordinate:02x}, but the bridge {above} "
        f"above it passes on only {outer.secondary:02x}-{outer.subordinate:02x}: no device behind it can be "
        "reached; remove it in sysfs and rescan",
    )


def _conflict(bridge: Bridge, other_sbdf: Sbdf, other: Bridge) -> Finding:
    """Return the finding of `bridge` that its bus range and that of the bridge `other_sbdf` overlap."""
    return Finding(
        "bus-conflict",
        f"its buses {bridge.secondary:02x}-{bridge.subordinate:02x} overlap the buses "
        f"{other.secondary:02x}-{other.subordinate:02x} of the bridge {other_sbdf}: an access may go to a "
        "device behind the wrong bridge",
    )
