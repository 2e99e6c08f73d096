"""Tell which sizes of Resizable BARs fit into the window above, as it is now.

The room that the BAR itself has now counts as free.

Source: PCI Express Base 6.0 §7.8.6; linux drivers/pci/setup-res.c (pci_resize_resource).
"""

from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.bars import Bar
from pcipt.pci.function import Function
from pcipt.pci.machine import Machine
from pcipt.pci.space.beliefs import name_of
from pcipt.pci.space.holes import gaps_in, room_for
from pcipt.pci.space.shortage import candidates, chain_of
from pcipt.pci.space.windows import NO_ROOTS, RootWindows, WindowSpace
from pcipt.pci.structures import ResizableBar
from pcipt.pci.units import Range


@attrs.frozen
class Resize:
    """One size that a Resizable BAR supports. `virtual` is True for a VF BAR, whose `size` is that of one
    virtual function.

    `now` is True for the present size. `fits` is True if the window directly above the function has room for
    it, None if that window is not known.
    """

    sbdf: Sbdf
    bar: int
    virtual: bool
    size: int
    now: bool
    fits: bool | None


def resizes_of(machine: Machine, function: Function, roots: RootWindows = NO_ROOTS) -> tuple[Resize, ...]:
    """Return all sizes of the Resizable BARs of a function, then of its VF BARs, each in ascending order."""
    above = next(chain_of(machine, function, roots), ())
    sriov = function.sriov
    found = list(_of_bars(function, above, function.rebar, function.bars, 1, virtual=False))
    if sriov is not None:
        found += _of_bars(function, above, sriov.resizable, sriov.bars, sriov.total_vfs, virtual=True)
    return tuple(found)


def _of_bars(
    function: Function,
    above: tuple[WindowSpace, ...],
    resizable: tuple[ResizableBar, ...],
    bars: tuple[Bar, ...],
    count: int,
    *,
    virtual: bool,
) -> Iterator[Resize]:
    """Yield the sizes of the BARs `resizable`, each of which is needed `count` times in a row."""
    for each in resizable:
        bar = next((bar for bar in bars if bar.index == each.index), None)
        for size in each.supported:
            fits = None
            if bar is not None and above:
                spaces = (
                    _without(space, function.sbdf, name_of(bar, virtual=virtual))
                    for space in candidates(above, bar)
                )
                fits = any(room_for(space, size) >= size * count for space in spaces)
            yield Resize(function.sbdf, each.index, virtual, size, size == each.size, fits)


def _without(space: WindowSpace, sbdf: Sbdf, what: str) -> tuple[Range, ...]:
    """Return the gaps of a window if one BAR were not in it."""
    if space.range is None:
        return ()
    return gaps_in(space.range, (use.range for use in space.uses if (use.sbdf, use.what) != (sbdf, what)))
