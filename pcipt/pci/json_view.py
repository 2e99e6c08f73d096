"""Convert a function to the object that `--json` prints. Keys may be added; they are never renamed.

Addresses and ids are strings "0x…", because 64 bits do not fit a double. Sizes and bus numbers are integers.
A value that is absent or unknown is null.
"""

from pcipt.pci.bars import Bar
from pcipt.pci.bridge import Bridge
from pcipt.pci.capabilities import Capability
from pcipt.pci.function import Function
from pcipt.pci.space.beliefs import NO_SHIFT, Shift
from pcipt.pci.sriov import SrIov
from pcipt.pci.structures import Allocation, Express, Msix, Place, ResizableBar

Json = dict[str, object]


def json_from_function(function: Function) -> Json:
    """Return the JSON object of one function, as it is in `devices` of `pcipt list --json`."""
    ids = function.ids
    return {
        "sbdf": str(function.sbdf),
        "path": str(function.path) if function.path is not None else None,
        "parent": str(function.parent) if function.parent is not None else None,
        "vendor": _hex(ids.vendor, 4),
        "device": _hex(ids.device, 4),
        "class": _hex(ids.class_code, 6),
        "revision": _hex(ids.revision, 2),
        "subsystem_vendor": _hex(ids.subsystem_vendor, 4),
        "subsystem_device": _hex(ids.subsystem_device, 4),
        "header": function.header.value,
        "command": _hex(function.command, 4),
        "driver": function.driver,
        "numa_node": function.numa_node,
        "bars": [json_from_bar(bar) for bar in function.bars],
        "bridge": _bridge(function.bridge) if function.bridge is not None else None,
        "capabilities": [_capability(capability) for capability in function.capabilities],
        "express": _express(function.express) if function.express is not None else None,
        "msix": _msix(function.msix) if function.msix is not None else None,
        "resizable_bars": [_resizable(bar) for bar in function.rebar],
        "enhanced_allocation": [_allocation(entry) for entry in function.allocations],
        "sriov": _sriov(function.sriov) if function.sriov is not None else None,
        "physfn": str(function.physfn) if function.physfn is not None else None,
        "controller": str(function.controller) if function.controller is not None else None,
        "translation": json_from_shift(function.shift),
        "findings": [finding.to_json(function.sbdf) for finding in function.findings],
    }


def json_from_shift(shift: Shift) -> Json | None:
    """Return the JSON object of what the host bridge adds to addresses, or None if it adds nothing."""
    return None if shift == NO_SHIFT else {"io": hex(shift.io), "memory": hex(shift.memory)}


def json_from_bar(bar: Bar) -> Json:
    """Return the JSON object of one BAR. `size` and `decoding` are null if they are unknown, `claimed` if
    Linux keeps no address for the BAR, or the same as `address`.
    """
    return {
        "index": bar.index,
        "kind": bar.kind.value,
        "address": hex(bar.address),
        "size": bar.size,
        "prefetchable": bar.prefetchable,
        "decoding": bar.decoding,
        "assigned": not bar.unassigned,
        "claimed": hex(bar.claimed.start) if bar.claimed is not None else None,
    }


def _hex(value: int | None, digits: int) -> str | None:
    """Return "0x" and the value in at least `digits` hexadecimal digits, or None if the value is None."""
    return None if value is None else f"0x{value:0{digits}x}"


def _bridge(bridge: Bridge) -> Json:
    """Return the JSON object of a bridge: its bus numbers and windows."""
    return {
        "primary": bridge.primary,
        "secondary": bridge.secondary,
        "subordinate": bridge.subordinate,
        "windows": [
            {"kind": window.kind.value, "base": hex(window.base), "limit": hex(window.limit)}
            for window in bridge.windows
        ],
    }


def _capability(capability: Capability) -> Json:
    """Return the JSON object of a capability."""
    return {
        "id": _hex(capability.id, 4 if capability.extended else 2),
        "name": capability.name,
        "offset": hex(capability.offset),
        "extended": capability.extended,
    }


def _express(express: Express) -> Json:
    """Return the JSON object of a PCI Express structure."""
    return {"type": express.port_name, "slot": express.slot, "ari_forwarding": express.ari_forwarding}


def _msix(msix: Msix) -> Json:
    """Return the JSON object of an MSI-X structure."""
    return {
        "vectors": msix.vectors,
        "enabled": msix.enabled,
        "table": _place(msix.table),
        "pba": _place(msix.pba),
    }


def _place(place: Place) -> Json:
    """Return the JSON object of a part of a BAR."""
    return {"bar": place.bar, "offset": hex(place.offset), "size": place.size}


def _resizable(bar: ResizableBar) -> Json:
    """Return the JSON object of a resizable BAR."""
    return {"index": bar.index, "size": bar.size, "supported": list(bar.supported)}


def _allocation(entry: Allocation) -> Json:
    """Return the JSON object of an Enhanced Allocation entry. `address` and `size` are null if the entry has
    no range.
    """
    return {
        "bei": entry.bei,
        "properties": _hex(entry.properties, 2),
        "address": hex(entry.range.start) if entry.range is not None else None,
        "size": entry.range.size if entry.range is not None else None,
        "enabled": entry.enabled,
    }


def _sriov(sriov: SrIov) -> Json:
    """Return the JSON object of an SR-IOV structure."""
    return {
        "total_vfs": sriov.total_vfs,
        "initial_vfs": sriov.initial_vfs,
        "num_vfs": sriov.num_vfs,
        "vf_offset": sriov.vf_offset,
        "vf_stride": sriov.vf_stride,
        "vf_device": _hex(sriov.vf_device, 4),
        "vf_enable": sriov.vf_enable,
        "memory_enable": sriov.memory_enable,
        "ari": sriov.ari,
        "bars": [json_from_bar(bar) for bar in sriov.bars],
        "page_size": sriov.page_size,
        "resizable_bars": [_resizable(bar) for bar in sriov.resizable],
    }
