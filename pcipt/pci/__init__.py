"""Describe PCI functions: addresses, config space, BARs, bridges, capabilities, topology. This room does no
I/O.

Every other room may import this room, so the types that several rooms share are defined here. A name is
loaded with its module when it is first asked for: a command that needs only addresses loads no decoding.
"""

import pcipt.hints
import pcipt.lazy

if pcipt.hints.TYPE_CHECKING:
    from pcipt.pci.address import (
        PciPath,
        Sbdf,
        SlotFilter,
        Target,
        parse_sbdf,
        parse_slot,
        parse_target,
        sbdf_from_devfn,
    )
    from pcipt.pci.bars import Bar, BarKind, Resource
    from pcipt.pci.bridge import Bridge, Window, WindowKind
    from pcipt.pci.capabilities import Capability
    from pcipt.pci.config import ConfigSpace, HeaderType
    from pcipt.pci.finding import Finding
    from pcipt.pci.function import Function, decode_function
    from pcipt.pci.ids import Ids
    from pcipt.pci.machine import Machine, decode_machine
    from pcipt.pci.raw import RawFunction
    from pcipt.pci.sriov import SrIov
    from pcipt.pci.units import Address, Frames, Gfn, Range, frames_from_range, range_from_inclusive

__all__ = [
    "Address",
    "Bar",
    "BarKind",
    "Bridge",
    "Capability",
    "ConfigSpace",
    "Finding",
    "Frames",
    "Function",
    "Gfn",
    "HeaderType",
    "Ids",
    "Machine",
    "PciPath",
    "Range",
    "RawFunction",
    "Resource",
    "Sbdf",
    "SlotFilter",
    "SrIov",
    "Target",
    "Window",
    "WindowKind",
    "decode_function",
    "decode_machine",
    "frames_from_range",
    "parse_sbdf",
    "parse_slot",
    "parse_target",
    "range_from_inclusive",
    "sbdf_from_devfn",
]

_MODULES = {
    "address": (
        "PciPath",
        "Sbdf",
        "SlotFilter",
        "Target",
        "parse_sbdf",
        "parse_slot",
        "parse_target",
        "sbdf_from_devfn",
    ),
    "bars": (
        "Bar",
        "BarKind",
        "Resource",
    ),
    "bridge": (
        "Bridge",
        "Window",
        "WindowKind",
    ),
    "capabilities": ("Capability",),
    "config": (
        "ConfigSpace",
        "HeaderType",
    ),
    "finding": ("Finding",),
    "function": (
        "Function",
        "decode_function",
    ),
    "ids": ("Ids",),
    "machine": (
        "Machine",
        "decode_machine",
    ),
    "raw": ("RawFunction",),
    "sriov": ("SrIov",),
    "units": (
        "Address",
        "Frames",
        "Gfn",
        "Range",
        "frames_from_range",
        "range_from_inclusive",
    ),
}

__getattr__ = pcipt.lazy.loader(__name__, _MODULES)
