"""List the buses of a machine with the windows that lead there: root buses, then those behind bridges."""

from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.function import Function
from pcipt.pci.machine import Machine
from pcipt.pci.space.beliefs import Shift
from pcipt.pci.space.translation import Root, root_of
from pcipt.pci.space.windows import RootWindows, WindowSpace, is_subtractive, windows_of, windows_of_root


@attrs.frozen
class BusSpace:
    """One bus and the windows that lead to it.

    `bridge` is None for a root bus. `slot` is True if the bridge is a port with a slot; `empty` is True if no
    function is on the bus. `shift` is what the host bridge adds to addresses. `windows` of a root bus are
    empty if they are not known. `subtractive` is True if the bridge passes on what no other device claims as
    well, so that closed windows do not matter.
    """

    segment: int
    bus: int
    bridge: Sbdf | None
    slot: bool
    empty: bool
    shift: Shift
    windows: tuple[WindowSpace, ...]
    subtractive: bool = False


def buses_of(machine: Machine, roots: RootWindows, about: Function | None = None) -> tuple[BusSpace, ...]:
    """Return all buses, or only those on the way to the function `about` and the one behind it.

    Shape:  root buses in ascending order, then bridges: in address order, or from the root down.
    """
    if about is None:
        wanted = sorted({root for each in machine.functions.values() if (root := root_of(each.path))})
        bridges = [each for each in machine.functions.values() if each.bridge is not None]
    else:
        root = root_of(about.path)
        wanted = [] if root is None else [root]
        bridges = [each for each in reversed((about, *machine.above(about))) if each.bridge is not None]
    return (
        *(_root_bus(machine, root, roots) for root in wanted),
        *(found for bridge in bridges for found in _behind(machine, bridge)),
    )


def _root_bus(machine: Machine, root: Root, roots: RootWindows) -> BusSpace:
    """Return a root bus."""
    below = next(each for each in machine.children(None) if root_of(each.path) == root)
    windows = windows_of_root(machine, root, roots)
    return BusSpace(*root, None, slot=False, empty=False, shift=below.shift, windows=windows)


def _behind(machine: Machine, bridge: Function) -> Iterator[BusSpace]:
    """Yield the bus behind a bridge; nothing if the bridge is not set up."""
    if bridge.bridge is None or not bridge.bridge.secondary:
        return
    yield BusSpace(
        bridge.sbdf.segment,
        bridge.bridge.secondary,
        bridge.sbdf,
        slot=bridge.express is not None and bridge.express.slot,
        empty=not machine.children(bridge.sbdf),
        shift=bridge.shift,
        windows=windows_of(machine, bridge),
        subtractive=is_subtractive(bridge),
    )
