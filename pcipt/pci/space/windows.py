"""List the windows of bridges and root buses, each with what is used in it and what is free.

A window is used by the BARs of the functions directly below, by what Linux keeps for them elsewhere, by the
VF BARs of physical functions for all their virtual functions, and by the windows of bridges directly below.
What is behind a bridge with subtractive decode counts as directly below too, as far as it is outside of that
bridge's windows. A window that begins at 0 is taken for closed: its registers were never written.

Units:  addresses of the bus, as registers hold them.
Source: PCI-to-PCI Bridge 1.2 §3.2.5; linux drivers/pci/setup-bus.c (what Linux puts into which window),
        drivers/pci/probe.c (pci_read_bridge_bases: the windows of a bridge with subtractive decode);
        arch/x86/pci/i386.c (pcibios_align_resource).
"""

from collections.abc import Iterator, Mapping, Sequence

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.bars import Bar, BarKind
from pcipt.pci.bridge import SUBTRACTIVE, Window, WindowKind
from pcipt.pci.function import Function
from pcipt.pci.machine import Machine
from pcipt.pci.space.beliefs import WINDOW_NAMES, name_of
from pcipt.pci.space.holes import gaps_in, largest_hole
from pcipt.pci.space.translation import Root, root_of
from pcipt.pci.units import Address, Range

FIRST_MIB = 1 << 20
ORDER = (WindowKind.IO, WindowKind.MEMORY, WindowKind.PREFETCHABLE)

#  what a host bridge passes on, by root bus, with what Linux has in it: addresses of the processor
RootWindows = Mapping[Root, Sequence[tuple[Range, tuple[Range, ...]]]]
NO_ROOTS: RootWindows = {}


@attrs.frozen
class Use:
    """A range that is used in a window: by whom, and for what. `sbdf` is None if Linux does not name it."""

    sbdf: Sbdf | None
    what: str
    range: Range


Users = Mapping[bool, tuple[Use, ...]]  # what functions use: of memory (False), of I/O ports (True)


@attrs.frozen
class WindowSpace:
    """One window: of a bridge, or of a root bus (`bridge` is None).

    `segment` and `bus` name the bus below. `range` is None if the window is closed. `uses` are in ascending
    order. `gaps` are the free ranges. `wide` is True for a prefetchable window of a bridge for 64-bit
    addresses.
    """

    segment: int
    bus: int
    bridge: Sbdf | None
    kind: WindowKind
    range: Range | None
    uses: tuple[Use, ...] = ()
    gaps: tuple[Range, ...] = ()
    wide: bool = False

    @property
    def free(self) -> int:
        """Return the number of bytes (or ports) that nothing uses."""
        return sum(gap.size for gap in self.gaps)

    @property
    def used(self) -> int:
        """Return the number of bytes (or ports) that are used."""
        return self.range.size - self.free if self.range is not None else 0

    @property
    def hole(self) -> Range | None:
        """Return the largest naturally aligned hole; None if nothing is free."""
        return largest_hole(self.gaps)

    @property
    def name(self) -> str:
        """Return the window in words: "the memory window of 0000:00:1c.0"."""
        owner = (
            str(self.bridge) if self.bridge is not None else f"the root bus {self.segment:04x}:{self.bus:02x}"
        )
        return f"the {WINDOW_NAMES[self.kind]} window of {owner}"


def windows_of(machine: Machine, bridge: Function) -> tuple[WindowSpace, ...]:
    """Return the windows of a bridge: I/O, memory, prefetchable memory. Those that are closed have no range.

    A CardBus bridge can have two of a kind. The result is empty if the function is no bridge.
    """
    numbers = bridge.bridge
    if numbers is None:
        return ()
    found: list[tuple[WindowKind, Range | None]] = []
    for kind in ORDER:
        spans = [range_of(each) for each in numbers.windows if each.kind is kind and each.base]
        found += [(kind, span) for span in spans] or [(kind, None)]
    users = _users(machine, machine.children(bridge.sbdf))
    here = (bridge.sbdf.segment, numbers.secondary, bridge.sbdf)
    spaces = (_space(*here, kind, span, users) for kind, span in found)
    return tuple(
        attrs.evolve(space, wide=numbers.wide and space.kind is WindowKind.PREFETCHABLE) for space in spaces
    )


def windows_of_root(machine: Machine, root: Root, roots: RootWindows) -> tuple[WindowSpace, ...]:
    """Return the memory windows of a root bus that are in `roots`; none if they are not known.

    The first MiB of the processor's addresses (display, ISA cards, firmware) counts as used: Linux gives no
    BAR an address there.
    """
    below = [each for each in machine.children(None) if root_of(each.path) == root]
    shift = below[0].shift.memory if below else 0
    found = []
    for span, held in roots.get(root, ()):
        others = [
            Use(None, "in use by Linux", Range(Address(each.start - shift), each.size)) for each in held
        ]
        here = Range(Address(span.start - shift), span.size)
        if span.start < FIRST_MIB:
            others.append(
                Use(None, "no place for BARs", Range(here.start, min(span.size, FIRST_MIB - span.start)))
            )
        found.append(_space(*root, None, WindowKind.MEMORY, here, _users(machine, below), others))
    return tuple(found)


def _space(
    segment: int,
    bus: int,
    bridge: Sbdf | None,
    kind: WindowKind,
    span: Range | None,
    users: Users,
    others: Sequence[Use] = (),
) -> WindowSpace:
    """Return one window with what `users` and `others` use in it."""
    if span is None:
        return WindowSpace(segment, bus, bridge, kind, None)
    named = [use for use in users[kind is WindowKind.IO] if use.range.overlaps(span)]
    known = {use.range for use in named}
    uses = sorted([*named, *(use for use in others if use.range not in known)], key=lambda use: use.range)
    return WindowSpace(
        segment, bus, bridge, kind, span, tuple(uses), gaps_in(span, (use.range for use in uses))
    )


def is_subtractive(function: Function) -> bool:
    """Return True if the function is a bridge with subtractive decode, and its bus numbers were read."""
    return function.bridge is not None and function.ids.class_code == SUBTRACTIVE


def _users(machine: Machine, below: Sequence[Function]) -> Users:
    """Return what the functions `below` use, with what `_used` adds: of memory (False), of I/O (True)."""
    return {io: tuple(_used(machine, below, io=io)) for io in (False, True)}


def _used(machine: Machine, below: Sequence[Function], *, io: bool) -> Iterator[Use]:
    """Yield what the functions `below` use, and what is used behind those with subtractive decode outside of
    their windows; parents form no loop.
    """
    for function in below:
        held = tuple(uses_of(function, io=io))
        yield from held
        if is_subtractive(function):
            behind = _used(machine, machine.children(function.sbdf), io=io)
            for use in behind:
                first, last = use.range.start, use.range.last
                if not any(each.range.contains(first) and each.range.contains(last) for each in held):
                    yield use


def uses_of(function: Function, *, io: bool) -> Iterator[Use]:
    """Yield what a function uses of the window above: I/O ports if `io` is True, else memory.

    Yield nothing for a virtual function: its physical function has the room for all.
    """
    if function.physfn is not None:
        return
    for bar in function.bars:
        yield from _bar_uses(function.sbdf, bar, name_of(bar), 1, io=io)
    sriov = function.sriov
    for bar in sriov.bars if sriov is not None else ():
        yield from _bar_uses(
            function.sbdf, bar, name_of(bar, virtual=True), sriov.total_vfs if sriov is not None else 1, io=io
        )
    for window in function.bridge.windows if function.bridge is not None else ():
        if window.base and (window.kind is WindowKind.IO) is io:
            yield Use(function.sbdf, f"{WINDOW_NAMES[window.kind]} window", range_of(window))


def _bar_uses(sbdf: Sbdf, bar: Bar, name: str, count: int, *, io: bool) -> Iterator[Use]:
    """Yield the ranges of a BAR: where its register has it, and where Linux keeps room for it."""
    if (bar.kind is BarKind.IO) is not io:
        return
    if bar.claimed is not None and bar.claimed.size:
        yield Use(sbdf, name, bar.claimed)
    if bar.address and bar.size and (bar.decoding or not bar.unassigned):
        yield Use(sbdf, name, Range(bar.address, bar.size * count))


def range_of(window: Window) -> Range:
    """Return the range of an open window."""
    return Range(Address(window.base), window.limit - window.base + 1)
