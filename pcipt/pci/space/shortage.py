"""Tell why a BAR has no address: which window above it is short, by how much, and what would help.

Linux puts a prefetchable BAR into the prefetchable window, else into the memory window; a BAR that is not
prefetchable only into the memory window. A prefetchable window for 64-bit addresses gets no BAR of 32 bits,
wherever the window lies.

Source: linux drivers/pci/setup-res.c (__pci_assign_resource), drivers/pci/setup-bus.c (hot-plug reserve),
        Documentation/admin-guide/kernel-parameters.txt (pci=realloc, hpiosize, hpmmiosize, hpmmioprefsize).
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.bars import Bar, BarKind
from pcipt.pci.bridge import WindowKind
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function
from pcipt.pci.machine import Machine
from pcipt.pci.space.beliefs import NO_SHIFT, name_of
from pcipt.pci.space.holes import gaps_in, place_for, room_for
from pcipt.pci.space.translation import root_of
from pcipt.pci.space.windows import (
    NO_ROOTS,
    RootWindows,
    WindowSpace,
    is_subtractive,
    windows_of,
    windows_of_root,
)
from pcipt.pci.units import Range
from pcipt.words import size_text

BELOW_4G = 1 << 32
_MEGABYTE = 1 << 20
_MOST = 64  # limit of the BARs of other functions that are looked at; real machines have a few
CODES = frozenset({"bar-unassigned", "io-bar-unassigned", "vf-bar-unassigned"})
OF_ADDRESSES = CODES | {"bar-drift", "window-drift"}

_RESERVES: Mapping[WindowKind, str] = {
    WindowKind.IO: "hpiosize",
    WindowKind.MEMORY: "hpmmiosize",
    WindowKind.PREFETCHABLE: "hpmmioprefsize",
}


@attrs.frozen
class Help:
    """Something that would give a BAR an address: a stable word for programs, and the text."""

    code: str
    text: str


@attrs.frozen
class Shortage:
    """A BAR without an address. `virtual` is True for a VF BAR, whose `size` is that of one virtual function.

    `needed` is the room for all of it; `size` and `needed` are None if unknown. `windows` are those that
    could hold it, one for each bridge above, the nearest first, and of the root bus if it is known; each is
    there once (behind a bridge with subtractive decode, two levels can have the same). `short`
    is what the first of them lacks: 0 if it has room, None if the size or the windows are not known.
    `shared` is True if other BARs without an address have got room in the first window before; what these
    get counts as used.
    """

    sbdf: Sbdf
    bar: Bar
    virtual: bool
    needed: int | None
    windows: tuple[WindowSpace, ...]
    short: int | None
    helps: tuple[Help, ...]
    shared: bool = False

    @property
    def text(self) -> str:
        """Return which window is short, and by how much; an empty text if that is not known."""
        if not self.windows:
            return ""
        first, *above = self.windows
        if first.range is None:
            lacks = f"{first.name} above it is closed"
        elif self.short == 0:
            return f"{first.name} above it has enough room"
        else:
            hole = f"a largest hole of {size_text(first.hole.size)}" if first.hole is not None else "no hole"
            beside = " beside others without an address" if self.shared else ""
            lacks = f"{first.name} above it has {hole}{beside}"
        if self.short is None:
            return lacks
        wide = _wide_enough(self)
        more = ""
        if wide is not None:
            more = f"; {wide[1].name} has enough room"
        elif above:
            more = "; no window above that one has enough room"
        return f"{lacks}; it is {size_text(self.short)} too small{more}"


def shortages_of(machine: Machine, function: Function, roots: RootWindows = NO_ROOTS) -> tuple[Shortage, ...]:
    """Return the BARs and VF BARs of a function that have no address, in index order, VF BARs last.

    They get room in the order in which Linux gives it, together with those of the functions beside this one,
    of which the first `_MOST` (64) count: the largest first, VF BARs last. ROMs are left out: Linux can do
    without an address for them. So are the BARs of a virtual function.
    """
    own = _lacks(function)
    if not own:
        return ()
    beside = machine.children(function.parent)
    if function.parent is None:
        beside = [each for each in beside if root_of(each.path) == root_of(function.path)]
    others = (lack for each in beside if each.sbdf != function.sbdf for lack in _lacks(each))
    rivals = heapq.nsmallest(_MOST, others, key=_Lack.order)
    levels = tuple(chain_of(machine, function, roots))
    placed: dict[WindowSpace, list[Range]] = {}
    found: list[Shortage] = []
    for lack in sorted([*own, *rivals], key=_Lack.order):
        short = _shortage(lack, levels, placed)
        if lack.function.sbdf == function.sbdf:
            found.append(attrs.evolve(short, helps=tuple(_helps(machine, function, short))))
        if len(found) == len(own):
            break
    return tuple(sorted(found, key=lambda each: (each.virtual, each.bar.index)))


@attrs.frozen
class _Lack:
    """A BAR of a function that has no address; `count` is how often it is needed in a row."""

    function: Function
    bar: Bar
    count: int
    virtual: bool

    @property
    def needed(self) -> int | None:
        """Return the room for all of it, None if its size is not known."""
        return self.bar.size * self.count if self.bar.size else None

    def order(self) -> tuple[bool, int, Sbdf, int]:
        """Return the place in the order in which Linux gives room: those of unknown size come last."""
        return self.virtual, -(self.bar.size or 0), self.function.sbdf, self.bar.index


def _lacks(function: Function) -> list[_Lack]:
    """Return the BARs and VF BARs of a function that have no address."""
    sriov = function.sriov
    total = sriov.total_vfs if sriov is not None else 0
    wanted = [] if function.physfn is not None else [_Lack(function, bar, 1, False) for bar in function.bars]
    wanted += [_Lack(function, bar, total, True) for bar in (sriov.bars if sriov is not None else ())]
    return [each for each in wanted if each.bar.unassigned and each.bar.kind is not BarKind.ROM]


def depends_on_others(function: Function) -> bool:
    """Return True if the addresses of a function can only be judged with the whole machine.

    Windows above it may have no room for a BAR, or the host bridge may translate addresses.
    """
    told = {finding.code for finding in function.findings}
    return function.shift != NO_SHIFT or not told.isdisjoint(OF_ADDRESSES)


def lacks_addresses(function: Function) -> bool:
    """Return True if a finding of the function says that one of its BARs or VF BARs has no address."""
    return any(finding.code in CODES for finding in function.findings)


def told_findings(
    machine: Machine, function: Function, roots: RootWindows = NO_ROOTS
) -> tuple[tuple[Finding, str], ...]:
    """Return the findings of a function, each with what would help (an empty text if its text says it).

    Those about BARs without an address are completed: which window is short, and by how much.
    """
    if not lacks_addresses(function):
        return tuple((finding, "") for finding in function.findings)
    short = {name_of(each.bar, virtual=each.virtual): each for each in shortages_of(machine, function, roots)}
    return tuple(_completed(finding, short) for finding in function.findings)


def helpful_findings(
    machine: Machine, function: Function, roots: RootWindows = NO_ROOTS
) -> tuple[Finding, ...]:
    """Return the findings of a function as `told_findings` does, what would help at the end of each text."""
    return tuple(
        attrs.evolve(finding, text=f"{finding.text}; what helps: {helps}") if helps else finding
        for finding, helps in told_findings(machine, function, roots)
    )


def _completed(finding: Finding, short: Mapping[str, Shortage]) -> tuple[Finding, str]:
    """Return a finding with what is known of the window, and what would help."""
    name = finding.text.partition(" (")[0]
    found = short.get(name) if finding.code in CODES else None
    if found is None:
        return finding, ""
    text = f"{finding.text}; {found.text}" if found.text else finding.text
    return attrs.evolve(finding, text=text), "; or ".join(each.text for each in found.helps)


def candidates(windows: tuple[WindowSpace, ...], bar: Bar) -> tuple[WindowSpace, ...]:
    """Return those windows of one bridge that can hold a BAR, in the order in which Linux tries them."""
    if bar.kind is BarKind.IO:
        kinds = [WindowKind.IO]
    elif bar.prefetchable:
        kinds = [WindowKind.PREFETCHABLE, WindowKind.MEMORY]
    else:
        kinds = [WindowKind.MEMORY]
    found = [window for kind in kinds for window in windows if window.kind is kind]
    if bar.kind is BarKind.MEM64:
        return tuple(found)
    low = (each for each in found if each.range is None or each.range.start < BELOW_4G)
    return tuple(each for each in low if not each.wide)


def alignment_of(bar: Bar) -> int:
    """Return the alignment of a BAR of known size: its size, rounded up to a power of 2."""
    return 1 << ((bar.size or 1) - 1).bit_length()


def has_room(window: WindowSpace, bar: Bar, needed: int | None) -> bool:
    """Return True if `needed` bytes, aligned for the BAR, are free in the window."""
    return needed is not None and room_for(window.gaps, alignment_of(bar)) >= needed


def chain_of(machine: Machine, function: Function, roots: RootWindows) -> Iterator[tuple[WindowSpace, ...]]:
    """Yield the windows of each bridge above a function, the nearest first, then those of the root bus.

    A bridge with subtractive decode passes on what the windows above it have, too: these follow its own. Its
    windows of a kind (I/O, memory) are left out if those above it are not known.
    """
    root = root_of(function.path)
    top = windows_of_root(machine, root, roots) if root is not None else ()
    levels = [top]  # from the root bus down
    for bridge in reversed(tuple(machine.above(function))):
        found = windows_of(machine, bridge)
        if is_subtractive(bridge):
            known = {window.kind is WindowKind.IO for window in levels[-1]}
            found = (*(each for each in found if (each.kind is WindowKind.IO) in known), *levels[-1])
        levels.append(found)
    yield from reversed(levels[1:])
    if top:
        yield top


def _shortage(
    lack: _Lack,
    levels: tuple[tuple[WindowSpace, ...], ...],
    placed: dict[WindowSpace, list[Range]],
) -> Shortage:
    """Return what is known of one BAR without an address, but what would help.

    `levels` are the windows above, as `chain_of` yields them. `placed` is what other BARs have got of them;
    what this BAR gets is added.
    """
    bar, needed = lack.bar, lack.needed
    left: dict[WindowSpace, WindowSpace] = {}  # a window without what others have got -> the window
    chain: list[WindowSpace] = []
    for windows in levels:
        possible = {_without(window, placed.get(window, ())): window for window in candidates(windows, bar)}
        if possible and (best := _best(tuple(possible), bar, needed)) not in chain:
            chain.append(best)
            left[best] = possible[best]
    short = None
    if chain and needed is not None:
        hole = chain[0].hole
        room = max(room_for(chain[0].gaps, alignment_of(bar)), hole.size if hole is not None else 0)
        short = max(0, needed - room)
    shared = bool(chain) and left[chain[0]] in placed
    if short == 0 and needed is not None:
        spot = place_for(chain[0].gaps, alignment_of(bar), needed)
        placed.setdefault(left[chain[0]], []).extend([spot] if spot is not None else [])
    return Shortage(lack.function.sbdf, bar, lack.virtual, needed, tuple(chain), short, (), shared)


def _without(window: WindowSpace, placed: Sequence[Range]) -> WindowSpace:
    """Return a window in which the ranges `placed` are not free."""
    if not placed:
        return window
    return attrs.evolve(window, gaps=tuple(left for gap in window.gaps for left in gaps_in(gap, placed)))


def _best(possible: tuple[WindowSpace, ...], bar: Bar, needed: int | None) -> WindowSpace:
    """Return the window that has room, else the open one with the largest hole, else the first."""
    open_ones = [window for window in possible if window.range is not None]
    if not open_ones:
        return possible[0]
    if needed is None:
        return open_ones[0]
    fitting = (window for window in open_ones if has_room(window, bar, needed))
    return next(
        fitting, max(open_ones, key=lambda window: window.hole.size if window.hole is not None else 0)
    )


def _helps(machine: Machine, function: Function, found: Shortage) -> Iterator[Help]:
    """Yield what would help, the least first."""
    bar, needed = found.bar, found.needed
    if found.short == 0:
        yield Help(
            "rescan", ("remove the function in sysfs and rescan its bus: Linux gives it an address then")
        )
        return
    for size in _smaller(function, found):
        yield Help("resize", f"resize {name_of(bar, virtual=found.virtual)} to {size_text(size)}, which fits")
    wide = _wide_enough(found)
    if wide is not None:
        bridge = wide[0].bridge
        yield Help("rescan-bridge", f"remove the bridge {bridge} in sysfs and rescan the bus above it")
    yield Help("realloc", "boot dom0's Linux with pci=realloc, which gives all windows new addresses")
    if found.windows and needed is not None and _in_slot(machine, function):
        kind = found.windows[0].kind
        room = size_text(_whole(needed, kind))
        yield Help("hotplug-reserve", f"reserve room for the slot at boot (pci={_RESERVES[kind]}={room})")
    if bar.kind is BarKind.MEM64 and bar.prefetchable and not any(map(_is_wide, found.windows[:1])):
        yield Help("window-64", "let the firmware open a 64-bit window (Above 4G Decoding)")


def _wide_enough(found: Shortage) -> tuple[WindowSpace, WindowSpace] | None:
    """Return the nearest window of a bridge that can grow until the BAR fits, and the window above, which has
    room for it; None if there is none.
    """
    return next(
        (
            (lower, upper)
            for lower, upper in itertools.pairwise(found.windows)
            if found.needed is not None and lower.bridge is not None and _can_grow(lower, upper, found)
        ),
        None,
    )


def _can_grow(lower: WindowSpace, upper: WindowSpace, found: Shortage) -> bool:
    """Return True if `upper` has room for the window `lower` of a bridge, with the BAR beside what is in it.

    Windows of bridges are whole megabytes, or 4 KiB of ports. The place that `lower` has now counts as free.
    """
    if upper.range is None:
        return False
    others = (use.range for use in upper.uses if (use.sbdf, use.range) != (lower.bridge, lower.range))
    total = _whole(lower.used + (found.needed or 0), lower.kind)
    least = _whole(1, lower.kind)
    return room_for(gaps_in(upper.range, others), max(least, alignment_of(found.bar))) >= total


def _whole(size: int, kind: WindowKind) -> int:
    """Return a size, rounded up to what windows of a kind are multiples of."""
    least = 0x1000 if kind is WindowKind.IO else _MEGABYTE
    return -(-size // least) * least


def _smaller(function: Function, found: Shortage) -> Iterator[int]:
    """Yield the largest smaller size of a Resizable BAR that fits into the nearest window, if any does."""
    sriov = function.sriov
    resizable = (sriov.resizable if sriov is not None else ()) if found.virtual else function.rebar
    count = sriov.total_vfs if found.virtual and sriov is not None else 1
    for each in resizable:
        if each.index != found.bar.index or not found.windows:
            continue
        gaps = found.windows[0].gaps
        yield from [
            size for size in each.supported if size < each.size and room_for(gaps, size) >= size * count
        ][-1:]


def _in_slot(machine: Machine, function: Function) -> bool:
    """Return True if a port above the function has a slot."""
    return any(port.express is not None and port.express.slot for port in machine.above(function))


def _is_wide(window: WindowSpace) -> bool:
    """Return True if a window reaches beyond 4 GiB."""
    return window.range is not None and window.range.last >= BELOW_4G
