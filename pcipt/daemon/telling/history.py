"""The history of each function: its last changes, actions and hot-plug events.

The key is the PCI path, so that history continues when the function gets another bus number. At most EVENTS
events for each key, PLACES keys and ALL events are kept. Events are in order of arrival, because the clock
may jump.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from pcipt.pci import Machine, PciPath, Sbdf, parse_sbdf

EVENTS = 100  # of one function
PLACES = 4096
ALL = 20_000  # of all functions: 200 functions have their whole history

Event = dict[str, Any]
_Numbered = tuple[int, Event]


class History:
    """The last events of all functions, by PCI path, or by address for functions without a known path."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, deque[_Numbered]] = OrderedDict()
        self._count = 0
        self._kept = 0

    def add(self, place: PciPath | Sbdf | str, event: Event) -> None:
        """Append an event to the history of the function with this PCI path (its address if it has no path).

        At most EVENTS events of one function are kept, the newest. If the function has no history yet and
        PLACES others have one, the history whose last event is the oldest is removed. If there are more than
        ALL events, the oldest one of that history is removed.
        """
        key = str(place)
        if key not in self._events and len(self._events) >= PLACES:
            self._kept -= len(self._events.popitem(last=False)[1])
        self._count += 1
        events = self._events.setdefault(key, deque())
        events.append((self._count, event))
        self._events.move_to_end(key)
        self._kept += 1
        if len(events) > EVENTS:
            self._forget_oldest(key)
        if self._kept > ALL:
            self._forget_oldest(next(iter(self._events)))

    def _forget_oldest(self, key: str) -> None:
        """Remove the oldest event of one history, and the history if it has no other."""
        self._events[key].popleft()
        self._kept -= 1
        if not self._events[key]:
            del self._events[key]

    def of(self, machine: Machine, target: Sbdf | PciPath) -> list[Event]:
        """Return the events of the function at this address or PCI path, oldest first. The list may be empty.

        Case 1: Linux has a function at the address `target`. Return the events recorded under its address and
        under its PCI path.
        Case 2: Linux has none at `target`, but the history has renumberings that moved a function to
        `target`, and Linux still has this function at its former address. Return the events of this function,
        those recorded under `target`, and the renumberings.
        Case 3: every other case. Return the events recorded under `target` or under an address that these
        events name, the events about the address `target`, and the renumberings to it.
        """
        keys = {str(target)}
        moves = [] if target in machine.functions else self._moves_to(target)
        at = parse_sbdf(moves[-1][1]) if moves else target
        function = machine.functions.get(at) if isinstance(at, Sbdf) else None
        if function is not None:
            keys |= {str(at), str(function.path)}
        else:  # events under this key name the addresses that the function had
            keys |= {
                str(event["sbdf"]) for _, event in self._events.get(str(target), ()) if event.get("sbdf")
            }
        found = [numbered for key in keys for numbered in self._events.get(key, ())]
        found += [numbered for numbered, _ in moves]
        if function is None:
            found += [numbered for numbered in self._all() if numbered[1].get("sbdf") == str(target)]
        return [event for _, event in sorted(dict(found).items())]

    def _all(self) -> Iterator[_Numbered]:
        """Yield the events of all functions, each with its number in the order of arrival; not sorted."""
        for events in self._events.values():
            yield from events

    def _moves_to(self, target: PciPath | Sbdf) -> list[tuple[_Numbered, str]]:
        """Return the renumberings that gave a function this address, each with the function's former address.

        Shape:  (numbered event, former address), oldest first. A numbered event is (number in order of
                arrival, event).
        """
        told = sorted(self._all(), key=lambda numbered: numbered[0])
        return [
            (numbered, move["from"])
            for numbered in told
            for move in numbered[1].get("moved", ())
            if move["to"] == str(target) and move["from"]
        ]
