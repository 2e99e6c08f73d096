"""What vPCI of a PVH dom0 takes for mapped, by the writes that it trapped. Pure.

vPCI sees writes of dom0's Linux only. A reset clears BARs and decode bits of hardware, and vPCI does not see
it: it still takes the BARs for mapped, and drops what Linux writes back to them. They are then `counted`: by
BAR number, the ranges that vPCI takes for mapped although hardware has lost them. A write that switches
memory decode off ends that, because vPCI unmaps and lets the next writes pass.
Source: Xen xen/drivers/vpci/header.c (bar_write, rom_write, cmd_write).
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pcipt.pci.bars import ROM_INDEX, BarKind
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.pci.units import Range
from pcipt.remap.writes.decoding import bar_registers, decoded_range
from pcipt.remap.writes.function_shadow import FunctionShadow
from pcipt.remap.writes.registers import COMMAND, Part

Counted = Mapping[int, Range]
NOTHING: Counted = MappingProxyType({})


def with_decode(function: FunctionShadow) -> FunctionShadow:
    """Return the shadow as it would be with memory decode on; other registers are unchanged."""
    value, known = function.words.get(COMMAND, (0, 0))
    return function.with_words({COMMAND: (value | COMMAND_MEMORY, known | COMMAND_MEMORY)})


def taken_for_mapped(function: FunctionShadow, counted: Counted) -> dict[int, Range]:
    """Return the ranges of memory BARs and ROM that vPCI takes for mapped, by BAR number.

    They are the counted ranges, and those that decode by the registers of `function`.
    """
    found = dict(counted)
    for bar in bar_registers(function):
        span = decoded_range(function, bar) if bar.kind is not BarKind.IO else None
        if isinstance(span, Range):
            found.setdefault(bar.index, span)
    return found


def after_write(function: FunctionShadow, counted: Counted, parts: Iterable[Part]) -> Counted:
    """Return what is still counted after a write to a function.

    A write of the Command register without memory decode ends it for all BARs. A write of the ROM's register
    without the enable bit ends it for the ROM. It does not matter what hardware has in these registers.
    """
    if not counted:
        return counted
    rom = next((bar.offset for bar in bar_registers(function) if bar.index == ROM_INDEX), None)
    for part in parts:
        switched_off = part.lanes & ~part.value
        if part.offset == COMMAND and switched_off & COMMAND_MEMORY:
            return NOTHING
        if part.offset == rom and switched_off & 1:
            counted = {bar: span for bar, span in counted.items() if bar != ROM_INDEX}
    return counted


def sizes_known(function: FunctionShadow) -> bool:
    """Return True if the header type of a function and the sizes of all its BARs are known."""
    return function.header is not None and all(
        function.sizes.get(bar.index) is not None for bar in bar_registers(function)
    )


def as_counted(function: FunctionShadow, counted: Counted) -> FunctionShadow:
    """Return the shadow with the counted addresses in its BARs and memory decode on, as vPCI has them."""
    words = {}
    for bar in bar_registers(function):
        span = counted.get(bar.index)
        for number, offset in enumerate(bar.words if span is not None else ()):
            assert span is not None
            value, known = function.words.get(offset, (0, 0))
            kept = 0 if number or bar.index == ROM_INDEX else 0xF
            address = span.start >> 32 * number & 0xFFFF_FFFF | (bar.index == ROM_INDEX)
            words[offset] = (value & kept | address, known | 0xFFFF_FFFF)
    return with_decode(function.with_words(words)) if words else function
