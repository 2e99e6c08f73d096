"""Ports below which a function that appears gets no driver of dom0 until an administrator admits it. Pure.

The settings name the ports by PCI path (hotplug.below). xen-pciback takes each function whose parent bridge
is in its list of slots, so the ports are put into that list before anything appears below them.
Source: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_match_one, pcistub_probe).
"""

from collections.abc import Collection
from typing import Any

import attrs

from pcipt.errors import MalformedError
from pcipt.pci import Function, Machine, PciPath, Sbdf
from pcipt.remap.desired import place_of
from pcipt.remap.json_fields import Fields, function, items, text
from pcipt.remap.vpci.roster import Listed, listed_from_json, listed_to_json


@attrs.define
class Ports:
    """What pcipt remembers of policed ports in this boot.

    `known` are the paths (text) of ports since whose policy began everything was compared: what has appeared
    below them since is not dom0's. `admitted` are by place the functions below them that dom0 may have: those
    that it used when the policy began, and those that were admitted. `guarded` are the addresses that pcipt
    has put into the list of xen-pciback.
    """

    known: set[str] = attrs.Factory(set)
    admitted: dict[str, Listed] = attrs.Factory(dict)
    guarded: set[Sbdf] = attrs.Factory(set)

    def copy(self) -> "Ports":
        """Return a copy. Changes of the copy do not change this object."""
        return Ports(set(self.known), dict(self.admitted), set(self.guarded))

    def admits(self, place: str, now: Listed) -> bool:
        """Return True if dom0 may have the function `now`, which is at `place`."""
        before = self.admitted.get(place)
        return before is not None and not before.is_other(now)


def port_above(machine: Machine, function: Function, below: Collection[PciPath]) -> PciPath | None:
    """Return the nearest bridge above a function that is one of the ports `below`; None if none is."""
    bridges = machine.above(function) if below else ()
    return next((bridge.path for bridge in bridges if bridge.path in below), None)


def answers_for(machine: Machine, function: Function) -> Function:
    """Return the function whose admission counts: the physical function of a virtual one, else itself."""
    return machine.functions.get(function.physfn, function) if function.physfn is not None else function


def place_that_counts(machine: Machine, function: Function) -> str:
    """Return the place of the function whose admission counts for a function."""
    return place_of(answers_for(machine, function))


def ports_to_json(ports: Ports) -> dict[str, Any]:
    """Return what is remembered of ports as a JSON object."""
    return {
        "known": sorted(ports.known),
        "admitted": [
            {"place": place, "listed": listed_to_json(listed)}
            for place, listed in sorted(ports.admitted.items())
        ],
        "guarded": [str(sbdf) for sbdf in sorted(ports.guarded)],
    }


def ports_from_json(value: object) -> Ports:
    """Return what `ports_to_json` wrote. Raises: MalformedError, which names the field, for anything else."""
    try:
        given = Fields(value)
        known = given.take("known", lambda told: items(told, text))
        admitted = given.take("admitted", lambda told: items(told, _admitted))
        guarded = given.take("guarded", lambda told: items(told, function))
        given.end()
    except ValueError as error:
        raise MalformedError("mappings", 0, f"no ports: {error}") from error
    return Ports(set(known), dict(admitted), set(guarded))


def _admitted(value: Any) -> tuple[str, Listed]:
    """Return a place and its function from their JSON object. Raises: ValueError, which names the field."""
    given = Fields(value)
    place, listed = given.take("place", text), given.take("listed", listed_from_json)
    given.end()
    return place, listed
