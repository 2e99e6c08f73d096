"""What happened to each function: the last changes, actions and hot-plug events, kept by its place.

The place is the PCI path, so that history follows a function through renumbering. Bounded in both directions:
events for each place, and places.
"""

from collections import OrderedDict, deque
from typing import Any

from pcipt.pci import Machine, PciPath, Sbdf, parse_sbdf

EVENTS = 100
PLACES = 4096

Event = dict[str, Any]


class History:
    def __init__(self) -> None:
        self._events: OrderedDict[str, deque[Event]] = OrderedDict()

    def add(self, place: PciPath | Sbdf, event: Event) -> None:
        """Append an event of the function at this place (its address where it has no path)."""
        key = str(place)
        if key not in self._events and len(self._events) >= PLACES:
            self._events.popitem(last=False)
        self._events.setdefault(key, deque(maxlen=EVENTS)).append(event)
        self._events.move_to_end(key)

    def of(self, machine: Machine, target: Sbdf | PciPath) -> list[Event]:
        """List the events of the function that is at this address or place, oldest first.

        An address that no function has now gives the events that were told of it.
        """
        keys = {str(target)}
        moves = [] if target in machine.functions else self._moves_to(target)
        at = parse_sbdf(moves[-1][1]) if moves else target
        function = machine.functions.get(at) if isinstance(at, Sbdf) else None
        if function is not None:
            keys |= {str(at), str(function.path)}
        found = [event for key in keys for event in self._events.get(key, ())]
        found += [event for event, _ in moves if event not in found]
        if not found:
            told = (event for events in self._events.values() for event in events)
            found = [event for event in told if event.get("sbdf") == str(target)]
        return sorted(found, key=lambda event: str(event["when"]))

    def _moves_to(self, target: PciPath | Sbdf) -> list[tuple[Event, str]]:
        """List the renumberings that gave a function this address, each with the old one."""
        told = (event for events in self._events.values() for event in events)
        return [
            (e, m["from"]) for e in told for m in e.get("moved", ()) if m["to"] == str(target) and m["from"]
        ]
