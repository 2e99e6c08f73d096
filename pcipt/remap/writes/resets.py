"""Resets that a configuration write starts, and the registers that a function has after them. Pure.

Source: PCI Express Base 6.0 §6.6.2 (function-level reset), §7.5.3.4 (Device Control bit 15), §6.6.1
        (conventional); PCI-to-PCI Bridge 1.2 §3.2.5.18 (Bridge Control bit 6); PCI AF ECN (Advanced Features
        control).
"""

import attrs

from pcipt.pci.bars import ROM_INDEX
from pcipt.pci.config import HeaderType
from pcipt.pci.sriov import SYSTEM_PAGE_SIZE
from pcipt.pci.structures import EXPRESS, SRIOV
from pcipt.remap.writes.decoding import bar_registers, vf_registers
from pcipt.remap.writes.function_shadow import REBAR_CONTROLS, REBAR_SIZE, SRIOV_NUMBERS, FunctionShadow
from pcipt.remap.writes.learning import REBARS
from pcipt.remap.writes.registers import BRIDGE_CONTROL, SECONDARY_RESET, Part

ADVANCED_FEATURES = 0x13
_FLR = 1 << 15
_FLR_CAPABLE = 1 << 28
_REBAR_UNIT = 20

# A bridge's header after a reset: no bus numbers, all windows closed. `kept` bits stay (window type, timer).
#                offset  value   kept
_BRIDGE_AFTER = (
    (0x18, 0x0000, 0xFF00_0000),  # bus numbers; the latency timer is not followed
    (0x1C, 0x00F0, 0xFFFF_0F0F),  # I/O base above limit
    (0x20, 0xFFF0, 0x000F_000F),
    (0x24, 0xFFF0, 0x000F_000F),
    (0x28, 0x0000, 0x0000_0000),
    (0x2C, 0x0000, 0x0000_0000),
    (0x30, 0x0000, 0x0000_0000),
    (0x3C, 0x0000, 0x0000_FFFF),  # Bridge Control
)


def starts_function_reset(function: FunctionShadow, part: Part) -> bool:
    """Return True if this part of a write resets the function that receives it (FLR or AF).

    That is so if it sets the reset bit of the function's Express or Advanced Features structure. The Express
    bit does not count if the function is known not to be capable of FLR. The result is False for a virtual
    function, and for a header type that is known and is not that of an endpoint.
    """
    if function.header not in {None, HeaderType.ENDPOINT} or function.virtual:
        return False
    express = function.capabilities.get((False, EXPRESS))
    if express is not None and part.offset == express + 8 and part.value & part.lanes & _FLR:
        capable = function.read(express + 4, 4)
        return capable is None or bool(capable & _FLR_CAPABLE)
    features = function.capabilities.get((False, ADVANCED_FEATURES))
    return features is not None and part.offset == features + 4 and bool(part.value & part.lanes & 1)


def in_secondary_reset(function: FunctionShadow) -> bool:
    """Return True if a bridge is known to hold its secondary bus in reset; False for any other function."""
    control = function.read(BRIDGE_CONTROL, 1)
    bridge = function.header is HeaderType.BRIDGE
    return bridge and control is not None and bool(control & SECONDARY_RESET)


def after_reset(function: FunctionShadow) -> FunctionShadow:
    """Return the shadow after a reset: nothing decodes, BAR addresses are 0, virtual functions are off.

    Resizable BARs get their initial sizes. A reset of a bridge also clears its bus numbers and closes its
    windows. Pending writes and sizing end. `mapped` stays as it is: the caller compares and reports.
    """
    words = dict(function.words)
    _put(words, 0x04, 0, 0xFFFF_0000)
    for bar in bar_registers(function) + vf_registers(function):
        for number, offset in enumerate(bar.words):
            kept = 0 if number or bar.index == ROM_INDEX else 0x3 if bar.kind.value == "io" else 0xF
            _put(words, offset, 0, kept)
    if function.header is HeaderType.BRIDGE:
        for offset, value, kept in _BRIDGE_AFTER:
            _put(words, offset, value, kept)
    sriov = function.capabilities.get((True, SRIOV))
    if sriov is not None:
        _put(words, sriov + 8, 0, 0xFFFF_0000)
        _put(words, sriov + SRIOV_NUMBERS, 0, 0xFFFF_0000)
        _put(words, sriov + SYSTEM_PAGE_SIZE, 1, 0)
    for kind, first in REBARS.items():
        at = function.capabilities.get((True, kind))
        if at is not None:
            for offset in REBAR_CONTROLS:
                _restore_rebar(words, at + offset, function, first)
    return attrs.evolve(
        function, words=words, ones={}, pending={}, sizes={**function.sizes, **function.initial_sizes}
    )


def _restore_rebar(
    words: dict[int, tuple[int, int]], offset: int, function: FunctionShadow, first: int
) -> None:
    """Set the size in a Resizable BAR Control word to the BAR's initial size, in place.

    `first` is the number of the structure's BAR 0: 0, or 7 for VF BARs. Do nothing if the word or the initial
    size is not known.
    """
    if offset not in words or words[offset][1] & 0xFF07 != 0xFF07:
        return
    size = function.initial_sizes.get(first + (words[offset][0] & 7))
    if size is not None:
        _put(words, offset, (size.bit_length() - 1 - _REBAR_UNIT) << 8, ~REBAR_SIZE & 0xFFFF_FFFF)


def _put(words: dict[int, tuple[int, int]], offset: int, value: int, kept: int) -> None:
    """Set the bits of a word outside `kept` to those of `value`, in place.

    They are known from then on; `kept` bits stay.
    """
    old, known = words.get(offset, (0, 0))
    cleared = ~kept & 0xFFFF_FFFF
    words[offset] = (old & kept | value & cleared, known | cleared)
