"""The sizes that vPCI has noted for Resizable BARs, in versions of Xen that do not see a resize. Pure.

Before Xen 4.21, vPCI reads the size of a BAR when it sets a function up, and never again. After a resize,
vPCI maps the old size at the new address. If the BAR has grown, the pages behind the old size are missing:
pcipt maps them. If the BAR has shrunk, pages behind the BAR are mapped: they must stay, because the next
unmap of vPCI fails as a whole if one of these pages is not mapped.
Source: Xen drivers/vpci/header.c (init_bars, modify_bars), 4.17 to 4.20; rebar.c (rebar_ctrl_write), 4.21.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pcipt.pci import BarKind, Finding, Function
from pcipt.pci.bars import ROM_INDEX
from pcipt.xen.releases import RESIZABLE_BARS, Version

Sizes = Mapping[int, int | None]  # by BAR number, in bytes; None: nobody knows which size vPCI has
NO_SIZES: Sizes = MappingProxyType({})


def sees_resizing(version: Version, *, pvh: bool) -> bool:
    """Return True if vPCI needs no help with Resizable BARs: vPCI sees a resize, or dom0 is PV (no vPCI)."""
    return not pvh or RESIZABLE_BARS.of(version)


def sizes_at_setup(function: Function) -> dict[int, int | None]:
    """Return the sizes that vPCI has noted for Resizable BARs of a function that it set up a short time ago.

    Without a driver, these are the present sizes. A bound driver may have resized a BAR after vPCI noted the
    size: then the size is None (unknown), except if the BAR has its smallest size now and so has not grown.
    """
    kinds = {bar.index: bar.kind for bar in function.bars if bar.index != ROM_INDEX}
    return {
        bar.index: bar.size if function.driver is None or bar.size <= min(bar.supported, default=0) else None
        for bar in function.rebar
        if kinds.get(bar.index, BarKind.IO) is not BarKind.IO
    }


def oversized(function: Function, sizes: Sizes) -> Iterator[Finding]:
    """Yield a finding for each decoding BAR that is smaller than its size in `sizes`."""
    for bar in function.bars:
        size = sizes.get(bar.index)
        if bar.index == ROM_INDEX or size is None or bar.size is None or bar.size >= size or not bar.decoding:
            continue
        yield Finding(
            "resized-behind-vpci",
            f"BAR {bar.index} has shrunk to {bar.size:#x} bytes. This Xen does not know Resizable BARs, so "
            f"Xen keeps {size:#x} bytes mapped from {bar.address:#x} on. Unbind the driver of the function, "
            "remove the function in sysfs and rescan its bus, or use Xen 4.21",
        )
