"""The windows of root buses of a machine, from /proc/iomem."""

from pcipt.errors import PciptError
from pcipt.pci.space.windows import NO_ROOTS, RootWindows


def root_windows(root: str | None) -> RootWindows:
    """Return the windows of the root buses of the machine below `root`, with what is in use in them.

    The result is empty if the memory map cannot be read, or `root` is None (a dump). Units: addresses of the
    processor.
    """
    if root is None:
        return NO_ROOTS
    from pcipt.host.iomem import read_memory  # most commands need no windows of root buses
    from pcipt.pci.space.roots import roots_of_lines

    try:
        lines = read_memory(root).iomem or ()
    except (PciptError, OSError):
        return NO_ROOTS
    return roots_of_lines((line.range, line.name, line.depth) for line in lines)
