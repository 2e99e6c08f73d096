"""Policed ports (hotplug.below): which functions below them dom0 may have, and what follows for the others.

What is below a port when its policy begins and has a driver of dom0 stays with dom0. Each other function is
quarantined, until an administrator admits it. All is derived from what is there now and from what the ledger
remembers (`Ports`), so it does not depend on which messages came.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import attrs

from pcipt.engine.views.views import Views
from pcipt.errors import PciptError
from pcipt.pci import ConfigSpace, Finding, Function, PciPath, Sbdf
from pcipt.remap.actions import GuardPort, Quarantine
from pcipt.remap.desired import PCIBACK, place_of
from pcipt.remap.kinds.ports import answers_for, place_that_counts, port_above
from pcipt.remap.vpci.roster import Listed, listed_from

INTEL, VENDOR_SPECIFIC, THUNDERBOLT = 0x8086, 0x000B, 0x1234
Plan = tuple[GuardPort | Quarantine, ...]


def settle_ports(views: Views, *, everything: bool) -> bool:
    """Bring `Ledger.ports` up to date with what was read; return True if it has changed.

    Dropped are functions that dom0 might have and that have left, or in whose places others are. If the round
    is EVERYTHING, ports that are new in the settings begin: what dom0 uses below them is admitted.
    """
    ports, below = views.memory.ledger.ports, views.state.below
    if not below and not ports.known and not ports.admitted:
        return False
    before = ports.copy()
    ports.known &= {str(path) for path in below}
    for place in list(ports.admitted):
        sbdf = views.state.address_of(place)
        function = views.machine.functions.get(sbdf) if sbdf is not None else None
        policed = function is not None and port_above(views.machine, function, below) is not None
        if function is None or not policed or not ports.admits(place, listed_now(views, function)):
            del ports.admitted[place]
    begun = [path for path in below if str(path) not in ports.known] if everything else []
    for function in views.machine.functions.values() if begun else ():
        if port_above(views.machine, function, begun) is not None and _is_in_use(views, function):
            ports.admitted[place_of(function)] = listed_now(views, function)
    ports.known |= set(map(str, begun))
    return ports != before


def admit(views: Views, function: Function, *, admitted: bool) -> None:
    """Let dom0 have a function below a policed port from now on, or not any more."""
    counts = answers_for(views.machine, function)
    ports = views.memory.ledger.ports
    if admitted:
        ports.admitted[place_of(counts)] = listed_now(views, counts)
    else:
        ports.admitted.pop(place_of(counts), None)


def listed_now(views: Views, function: Function) -> Listed:
    """Return what tells a function from another one that comes to its place (`Listed.is_other`)."""
    raw = views.state.raws.get(function.sbdf)
    return attrs.evolve(listed_from(function, raw.instance if raw is not None else None), pages=())


def port_of_waiting(views: Views, function: Function | None) -> PciPath | None:
    """Return the policed port above a function if the user has not admitted the function, else None.

    None means that dom0 may have the function. It is None for bridges: only functions below a bridge are
    quarantined.
    """
    below, ports = views.state.below, views.memory.ledger.ports
    if not below or function is None or function.is_bridge:
        return None
    port = port_above(views.machine, function, [path for path in below if str(path) in ports.known])
    admitted = place_that_counts(views.machine, function) in ports.admitted
    return None if admitted else port


def plan_ports(views: Views, functions: Iterable[Sbdf]) -> Plan:
    """Return the actions that guard the policed ports, and the actions that quarantine `functions`.

    xen-pciback has a list of guarded ports, which this function reads (`Host.guarded_ports`). A port that is
    in the list and is not policed any more gets an action that takes it out. Functions that have a driver
    are quarantined first.
    """
    state, ports = views.state, views.memory.ledger.ports
    if not state.below and not ports.guarded:
        return ()
    wanted = {port.sbdf for port in map(partial(_port_at, views), state.below) if port is not None}
    state.guarded = guarded = _guarded(views)
    if guarded is not None:
        ports.guarded = (ports.guarded | wanted) & guarded
        why = "devices below this port are not for dom0 (hotplug.below)"
        over = "hotplug.below does not name this port any more"
        guards = [GuardPort(sbdf, why) for sbdf in sorted(wanted - guarded)]
        guards += [GuardPort(sbdf, over, on=False) for sbdf in sorted(ports.guarded - wanted)]
    else:
        guards = []
    waiting = [views.machine.functions[sbdf] for sbdf in functions if sbdf in views.machine.functions]
    taken = [
        Quarantine(function.sbdf, _reason(function, f"{_kind(views, port)} {port}"))
        for function in sorted(waiting, key=lambda each: (each.driver in (None, PCIBACK), each.sbdf))
        if (port := port_of_waiting(views, function)) is not None and views.view.in_dom0(function.sbdf)
    ]
    return (*guards, *taken)


def findings_of_port(views: Views, function: Function) -> Iterator[Finding]:
    """Yield the finding that a function waits for an administrator, or that nothing guards a policed port."""
    if not views.state.below:
        return
    port = port_of_waiting(views, function)
    if port is not None and function.sbdf in views.view.quarantined:
        yield Finding(
            "waits-for-admit",
            f"it appeared below the policed {_kind(views, port)} {port} and is in quarantine: no driver of "
            f"dom0 has it; pcipt admit {function.sbdf} gives it to dom0",
        )
    if function.path in views.state.below and function.is_bridge and views.state.guarded is None:
        yield Finding(
            "port-unguarded",
            "xen-pciback is not loaded. So a driver of dom0 may take a device that appears below this "
            f"{_kind(views, function.path)} before pcipt quarantines the device. Load xen-pciback (modprobe "
            "xen-pciback), best in the initramfs",
        )


def _kind(views: Views, path: PciPath) -> str:
    """Return what kind of port is at a path: "Thunderbolt port", "USB4 port" or "port".

    A Thunderbolt controller has Intel's vendor-specific structure 1234 in each of its bridges, a root port
    above it has one directly below.
    Source: linux drivers/pci/probe.c (set_pcie_thunderbolt).
    """
    port = _port_at(views, path)
    if port is None:
        return "port"
    if views.host.is_usb4_port(port.sbdf):
        return "USB4 port"
    near = [port, *views.machine.children(port.sbdf)]
    return "Thunderbolt port" if any(_is_thunderbolt(views, each) for each in near) else "port"


def _port_at(views: Views, path: PciPath) -> Function | None:
    """Return the bridge that is at a path now; None if there is none, or another function."""
    sbdf = views.state.address_of(str(path))
    port = views.machine.functions.get(sbdf) if sbdf is not None else None
    return port if port is not None and port.is_bridge else None


def _is_thunderbolt(views: Views, function: Function) -> bool:
    """Return True if a bridge is a part of a Thunderbolt controller."""
    if not function.is_bridge or function.ids.vendor != INTEL:
        return False
    raw = views.state.raws.get(function.sbdf)
    config = ConfigSpace(raw.config or b"" if raw is not None else b"")
    own = (each for each in function.capabilities if each.extended and each.id == VENDOR_SPECIFIC)
    return any((config.u32(each.offset + 4) or 0) & 0xFFFF == THUNDERBOLT for each in own)


def absent_ports(views: Views) -> Iterator[Finding]:
    """Yield a finding for each policed path at which no bridge is now; nothing before the first reading."""
    if not views.state.below or not views.machine.functions:
        return
    for path in views.state.below:
        if _port_at(views, path) is None:
            why = f"hotplug.below names {path}, but no bridge is at this path: pcipt polices nothing below it"
            yield Finding("port-absent", why)


def _guarded(views: Views) -> frozenset[Sbdf] | None:
    """Return the list of xen-pciback; None if it is not loaded or its list cannot be read."""
    try:
        return views.host.guarded_ports()
    except PciptError:
        return None


def _is_in_use(views: Views, function: Function) -> bool:
    """Return True if a driver of dom0 has a function that is no bridge."""
    used = function.driver not in (None, PCIBACK)
    return used and not function.is_bridge and views.view.in_dom0(function.sbdf)


def _reason(function: Function, port: str) -> str:
    """Return why a function is quarantined, and which driver of dom0 had it first."""
    had = f"; the driver {function.driver} had it first" if function.driver not in (None, PCIBACK) else ""
    return f"it appeared below the policed {port}{had}"
