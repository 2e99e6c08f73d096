"""Convert windows and shortages to the objects that `--json` prints.

Keys may be added; they are never renamed. Addresses are texts "0x…", sizes are numbers, as in `json_view`.
"""

from pcipt.pci.json_view import Json, json_from_shift
from pcipt.pci.space.buses import BusSpace
from pcipt.pci.space.resizes import Resize
from pcipt.pci.space.shortage import Shortage
from pcipt.pci.space.windows import WindowSpace
from pcipt.pci.units import Range


def json_from_bus(bus: BusSpace) -> Json:
    """Return the JSON object of a bus. `bridge` is null for a root bus."""
    return {
        "segment": bus.segment,
        "bus": bus.bus,
        "bridge": str(bus.bridge) if bus.bridge is not None else None,
        "slot": bus.slot,
        "empty": bus.empty,
        "subtractive": bus.subtractive,
        "translation": json_from_shift(bus.shift),
        "windows": [json_from_window(window) for window in bus.windows],
    }


def json_from_window(window: WindowSpace) -> Json:
    """Return the JSON object of one window. `base`, `limit` and `hole` are null if it is closed."""
    return {
        "bridge": str(window.bridge) if window.bridge is not None else None,
        "segment": window.segment,
        "bus": window.bus,
        "kind": window.kind.value,
        "base": hex(window.range.start) if window.range is not None else None,
        "limit": hex(window.range.last) if window.range is not None else None,
        "used": window.used,
        "free": window.free,
        "hole": _hole(window.hole),
        "uses": [
            {
                "sbdf": str(use.sbdf) if use.sbdf is not None else None,
                "what": use.what,
                "start": hex(use.range.start),
                "size": use.range.size,
            }
            for use in window.uses
        ],
    }


def json_from_shortage(short: Shortage) -> Json:
    """Return the JSON object of a BAR without an address."""
    return {
        "sbdf": str(short.sbdf),
        "bar": short.bar.index,
        "virtual": short.virtual,
        "kind": short.bar.kind.value,
        "prefetchable": short.bar.prefetchable,
        "size": short.bar.size,
        "needed": short.needed,
        "windows": [_short_window(window) for window in short.windows],
        "short_by": short.short,
        "helps": [{"code": each.code, "text": each.text} for each in short.helps],
    }


def json_from_resize(resize: Resize) -> Json:
    """Return the JSON object of one size of a Resizable BAR."""
    return {
        "sbdf": str(resize.sbdf),
        "bar": resize.bar,
        "virtual": resize.virtual,
        "size": resize.size,
        "now": resize.now,
        "fits": resize.fits,
    }


def _short_window(window: WindowSpace) -> Json:
    """Return the JSON object of a window without its uses."""
    shown = json_from_window(window)
    del shown["uses"]
    return shown


def _hole(hole: Range | None) -> Json | None:
    """Return the JSON object of a hole, or None if there is none."""
    return None if hole is None else {"start": hex(hole.start), "size": hole.size}
