"""What happened to each function: the last changes, actions and hot-plug events, kept by its place.

The place is the PCI path, so that history follows a function through renumbering. Bounded in both directions:
events for each place, and places. The order is that of arrival: the clock may jump.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from pcipt.pci import Machine, PciPath, Sbdf, parse_sbdf

EVENTS = 100
PLACES = 4096

Event = dict[str, Any]
_Numbered = tuple[int, Event]


class History:
    def __init__(self) -> None:
        self._events: OrderedDict[str, deque[_Numbered]] = OrderedDict()
        self._count = 0

    def add(self, place: PciPath | Sbdf | str, event: Event) -> None:
        """Append an event of the function at this place (its address where it has no path)."""
        key = str(place)
        if key not in self._events and len(self._events) >= PLACES:
            self._events.popitem(last=False)
        self._count += 1
        self._events.setdefault(key, deque(maxlen=EVENTS)).append((self._count, event))
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
        else:  # what was told of its address while nobody had that
            keys |= {
                str(event["sbdf"]) for _, event in self._events.get(str(target), ()) if event.get("sbdf")
            }
        found = [numbered for key in keys for numbered in self._events.get(key, ())]
        found += [numbered for numbered, _ in moves]
        if function is None:
            found += [numbered for numbered in self._all() if numbered[1].get("sbdf") == str(target)]
        return [event for _, event in sorted(dict(found).items())]

    def _all(self) -> Iterator[_Numbered]:
        for events in self._events.values():
            yield from events

    def _moves_to(self, target: PciPath | Sbdf) -> list[tuple[_Numbered, str]]:
        """List the renumberings that gave a function this address, oldest first, each with the old one."""
        told = sorted(self._all(), key=lambda numbered: numbered[0])
        return [
            (numbered, move["from"])
            for numbered in told
            for move in numbered[1].get("moved", ())
            if move["to"] == str(target) and move["from"]
        ]
