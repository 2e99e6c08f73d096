"""Find host bridges that translate addresses: registers and Linux differ by a constant below one root bus.

Registers hold addresses of the bus, Linux's lines hold addresses of the processor. On most machines they are
equal. A host bridge that translates adds a constant; then nothing has moved. What differs by another value
than that constant has moved.

One function alone may have moved as a whole. It shows a constant if all of several BARs and windows agree, or
if Linux's address is one that the register cannot hold: nothing but a translation leads there.

Source: linux drivers/pci/host-bridge.c, pcibios_resource_to_bus (a window of a host bridge has an offset).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bars import Bar, BarKind, Resource
from pcipt.pci.bridge import Window, WindowKind
from pcipt.pci.space.beliefs import NO_SHIFT, Shift, has_address, line_of, window_lines

#  is it of I/O ports; Linux's address minus that of the register; can the register not hold Linux's address
Difference = tuple[bool, int, bool]
Differences = tuple[Difference, ...]
Value = tuple[bool, int]  # the first two of a difference
Root = tuple[int, int]  # segment and number of a root bus

_LEAST = {False: 1 << 20, True: 1 << 12}  # windows of host bridges are multiples of that: memory, I/O
#  the last address that such a register can hold; no processor has ports above ffff
_LAST: dict[BarKind | WindowKind, int] = {
    BarKind.IO: 0xFFFF,
    BarKind.MEM32: 0xFFFF_FFFF,
    BarKind.ROM: 0xFFFF_FFFF,
    WindowKind.IO: 0xFFFF,
    WindowKind.MEMORY: 0xFFFF_FFFF,
}


def differences(bars: Iterable[Bar], windows: Iterable[Window], resources: Sequence[Resource]) -> Differences:
    """Return the difference of each BAR and window of a function that has an address in both views.

    `bars` and `windows` are those of its registers, `resources` are Linux's lines. A ROM that does not decode
    is left out: Linux does not write its register.
    """
    found: list[Difference] = []
    for bar in bars:
        line = line_of(resources, bar.index)
        asleep = bar.kind is BarKind.ROM and not bar.decoding
        if bar.address and has_address(line) and not line.flags & Resource.FIXED and not asleep:
            found.append(_difference(bar.kind, bar.address, line))
    lines = dict(window_lines(resources))
    for window in windows:
        held = lines.get(window.kind)
        if held is not None and has_address(held) and held.size == window.limit - window.base + 1:
            found.append(_difference(window.kind, window.base, held))
    return tuple(found)


def _difference(kind: BarKind | WindowKind, register: int, line: Resource) -> Difference:
    """Return the difference of one BAR or window, whose register holds the address `register`."""
    beyond = line.start > _LAST.get(kind, line.start)
    return kind in (BarKind.IO, WindowKind.IO), line.start - register, beyond


def root_of(path: PciPath | None) -> Root | None:
    """Return the root bus of a PCI path; None if there is no path."""
    return None if path is None else (path.segment, path.hops[0][0])


@lru_cache(maxsize=256)
def _shared(held: tuple[Root, Differences]) -> tuple[Root, Differences]:
    """Return the first value that is equal to `held`: most functions of a bus have the same."""
    return held


class _Bus:
    """How often each difference occurs below one root bus, and in how many functions."""

    def __init__(self) -> None:
        self.times: Counter[Value] = Counter()
        self.functions: Counter[Value] = Counter()
        self.beyond: Counter[Value] = Counter()  # those that only a translation explains

    def add(self, found: Differences, sign: int) -> None:
        """Count the differences of one function: `sign` is 1 to add, -1 to take away."""
        values = [each[:2] for each in found]
        beyond = [each[:2] for each in found if each[2]]
        for counter, counted in ((self.times, values), (self.functions, set(values)), (self.beyond, beyond)):
            for value in counted:
                counter[value] += sign
                if not counter[value]:
                    del counter[value]

    def constant(self, *, io: bool) -> int:
        """Return the difference that more than half of all have; 0 if there is none, or if a single function
        has it and does not show it (see the module).

        Differences of I/O ports are counted if `io` is True, else those of memory.
        """
        times = {value: count for (of_io, value), count in self.times.items() if of_io is io}
        most = max(times, key=times.__getitem__, default=0)
        count = times.get(most, 0)
        several = self.functions[io, most] > 1 or self.beyond[io, most] or (len(times) == 1 and count > 1)
        rare = 2 * count <= sum(times.values()) or not several
        return 0 if rare or most % _LEAST[io] else most


class Translations:
    """The differences of all functions, by root bus, and the shift that follows for each root bus."""

    def __init__(self) -> None:
        self._held: dict[Sbdf, tuple[Root, Differences]] = {}
        self._buses: dict[Root, _Bus] = {}
        self._shifts: dict[Root, Shift] = {}
        self._touched: set[Root] = set()

    def put(self, sbdf: Sbdf, root: Root | None, found: Differences) -> None:
        """Replace what is held of a function. `root` is its root bus, None if that is not known."""
        before = self._held.pop(sbdf, None)
        now = _shared((root, found)) if root is not None and found else None
        if now is not None:
            self._held[sbdf] = now
        if now == before:
            return
        for each, sign in ((before, -1), (now, 1)):
            if each is not None:
                if each[0] not in self._buses:
                    self._buses[each[0]] = _Bus()
                self._buses[each[0]].add(each[1], sign)
                self._touched.add(each[0])

    def shift_of(self, root: Root | None) -> Shift:
        """Return what the host bridge of a root bus adds to addresses, as `settle` has found it last."""
        return self._shifts.get(root, NO_SHIFT) if root is not None else NO_SHIFT

    def settle(self) -> set[Root]:
        """Find the shifts of the root buses that were touched since the last call. Return those that have
        another shift now.
        """
        changed = set()
        for root in self._touched:
            bus = self._buses[root]
            shift = Shift(bus.constant(io=True), bus.constant(io=False))
            if shift != self.shift_of(root):
                self._shifts[root] = shift
                changed.add(root)
        self._touched.clear()
        return changed
