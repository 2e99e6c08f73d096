"""What happened to each function: the last changes, actions and hot-plug events, kept by its place.

The place is the PCI path, so that history follows a function through renumbering. Bounded in both directions:
events for each place, and places.
"""

from collections import OrderedDict, deque
from typing import Any

from pcipt.pci import Machine, PciPath, Sbdf

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
        function = machine.functions.get(target) if isinstance(target, Sbdf) else None
        if function is not None and function.path is not None:
            keys.add(str(function.path))
        found = [event for key in keys for event in self._events.get(key, ())]
        if not found:
            told = (event for events in self._events.values() for event in events)
            found = [event for event in told if event.get("sbdf") == str(target)]
        return sorted(found, key=lambda event: str(event["when"]))
