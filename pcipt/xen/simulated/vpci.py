"""Model vPCI of a PVH dom0: which config writes Xen traps, and what they do to the hardware and the p2m.

Xen has handlers for each function that it knows and whose header type is 0 or 1. Handlers remember addresses,
and do not see a write that bypasses them. A change that the p2m refuses switches memory decode off and
removes the handlers. Removing handlers unmaps nothing.
Source: Xen 4.17 xen/drivers/vpci/header.c (init_bars, modify_bars, modify_decoding, vpci_process_pending,
        cmd_write, bar_write, rom_write), xen/drivers/vpci/msix.c (vpci_make_msix_hole).
"""

from collections.abc import Callable, Iterable, Sequence
from errno import EOPNOTSUPP
from functools import partial
from operator import itemgetter
from typing import Protocol, runtime_checkable

import attrs

from pcipt.pci import Address, Frames, Range, Sbdf, frames_from_range
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.pci.structures import Msix
from pcipt.xen.simulated.model import Hardware
from pcipt.xen.simulated.overlaps import Overlaps, without
from pcipt.xen.simulated.p2m import Extents, P2m

COMMAND, BAR0, HEADER_TYPE, ROM = 0x04, 0x10, 0x0E, 6
ROM_ENABLE, ROM_MASK, ADDRESS_MASK = 0x1, 0xFFFF_F800, 0xFFFF_FFF0
LOW = 0xFFFF_FFFF
# header type: number of BARs, byte offset of the ROM register
HEADERS = {0: (6, 0x30), 1: (2, 0x38)}


@runtime_checkable
class ConfigHardware(Hardware, Protocol):
    """Hardware whose registers can be read and written. The Xen of a PVH dom0 does both."""

    def config(self, function: Sbdf) -> bytes | None:
        """Return the config space of a function; None if no function is there."""

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register of a function. Nothing happens if no function is at this address."""

    def bar_sizes(self, function: Sbdf) -> Sequence[tuple[int, int]]:
        """Return (index, size in bytes) of each memory BAR of a function; index 6 is the ROM.

        The list is empty for a virtual function, and if no function is at this address.
        """

    def msix(self, function: Sbdf) -> Msix | None:
        """Return the MSI-X capability of a function; None if it has none or no function is there."""


@attrs.define
class Bar:
    """A BAR or ROM as vPCI remembers it. `enabled` is True while vPCI has it mapped.

    `offset` is the byte offset of its register; `wide` is True for a 64-bit BAR. `index` 6 is the ROM.
    """

    index: int
    offset: int
    size: int
    address: int
    wide: bool = False
    enabled: bool = False

    @property
    def frames(self) -> Frames:
        """The pages that contain bytes of the BAR."""
        return frames_from_range(Range(Address(self.address), self.size))


@attrs.define
class Handlers:
    """The handlers of one function, with the state that vPCI remembers.

    `mapped` is True while vPCI remembers that memory decode is on. `rom_enabled` is True if the ROM's enable
    bit is set.
    """

    function: Sbdf
    bars: list[Bar]
    msix: Msix | None
    rom_enabled: bool
    mapped: bool = False

    @property
    def rom(self) -> Bar | None:
        """The function's ROM; None if it has none."""
        return next((bar for bar in self.bars if bar.index == ROM), None)

    def tables(self) -> list[Frames]:
        """Return the pages of the MSI-X table and of the pending bits, in this order.

        They are computed from the remembered BAR addresses. The list is empty without MSI-X. For a virtual
        function vPCI remembers no BARs, and 0 is used as the address of each.
        """
        addresses = {bar.index: bar.address for bar in self.bars}
        places = (self.msix.table, self.msix.pba) if self.msix is not None else ()
        return [
            frames_from_range(Range(Address(addresses.get(place.bar, 0) + place.offset), place.size))
            for place in places
        ]


class Vpci:
    """All handlers of one Xen. A BAR that overlaps `e820` (the E820 map of dom0) is never mapped.

    `ignored` counts the writes that were dropped because the BAR or ROM was mapped. BAR writes that would
    change nothing are not counted.
    """

    def __init__(self, hardware: ConfigHardware, p2m: P2m, e820: Iterable[Frames] = ()) -> None:
        self._hardware = hardware
        self._p2m = p2m
        self._e820 = Extents(e820)
        self._handlers: dict[Sbdf, Handlers] = {}
        self._pending: dict[Sbdf, int] = {}
        self._enabled = Overlaps[tuple[Sbdf, int]]()
        self._holes = Overlaps[tuple[Sbdf, int]]()
        self.ignored = 0

    def traps(self, function: Sbdf) -> bool:
        """Return True if Xen has handlers for the function."""
        return function in self._handlers

    def holes(self, frames: Frames) -> list[Sbdf]:
        """Return the functions whose MSI-X table or pending bits are trapped in one of these frames.

        The functions are sorted by address.
        """
        return sorted({owner for (owner, _), _ in self._holes.touching(frames)})

    def begin(self, function: Sbdf) -> int:
        """Set up the handlers of a function and switch its memory decode off. Return 0 or -errno.

        -EOPNOTSUPP if no function is at this address or its header type is not 0 or 1; then nothing changes.
        If decode was on, `finish` maps the BARs and switches it on again.
        """
        config = self._hardware.config(function)
        header = HEADERS.get(config[HEADER_TYPE] & 0x7F) if config is not None else None
        if config is None or header is None:
            return -EOPNOTSUPP
        command = _word(config, COMMAND, 2)
        if command & COMMAND_MEMORY:
            self._hardware.write(function, COMMAND, 2, command & ~COMMAND_MEMORY)
            self._pending[function] = command
        bars = [_bar(config, index, size, header) for index, size in self._hardware.bar_sizes(function)]
        rom_enabled = any(bar.index == ROM and _word(config, bar.offset, 4) & ROM_ENABLE for bar in bars)
        self._handlers[function] = Handlers(function, bars, self._hardware.msix(function), rom_enabled)
        return 0

    def finish(self, function: Sbdf) -> None:
        """Map the BARs of a function and switch its memory decode on, if it was on before `begin`.

        Nothing happens if it was off. If the p2m refuses, memory decode stays off and the handlers are
        removed. If an MSI-X page cannot be unmapped, memory decode stays off and the handlers are kept.
        Raises: Catastrophe if mapping would kill dom0 or take memory from it.
        """
        command = self._pending.pop(function, None)
        if command is not None:
            self._modify(self._handlers[function], command)

    def remove(self, function: Sbdf) -> None:
        """Remove the handlers of a function. The pages that they mapped stay mapped.

        Nothing happens if it has none.
        """
        self._pending.pop(function, None)
        handlers = self._handlers.pop(function, None)
        if handlers is not None:
            self._close_holes(handlers)
            for bar in handlers.bars:
                self._enabled.discard((function, bar.index))

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Perform a config write of dom0.

        Bytes that a handler traps go to the handler, other bytes to hardware. If Xen has no handlers for the
        function, all bytes go to hardware.
        Raises: Catastrophe if a mapping that this write causes would kill dom0 or take memory from it.
        """
        data, end = value.to_bytes(size, "little"), offset + size
        at = offset
        handlers = self._handlers.get(function)
        for start, width, action in self._registers(handlers) if handlers is not None else ():
            if start >= end or start + width <= at:
                continue
            if at < start:
                self._write_hardware(function, at, data[at - offset : start - offset])
            stop = min(end, start + width)
            first = max(at, start)
            merged = bytearray(
                (self._hardware.config(function) or b"")[start : start + width].ljust(width, b"\xff")
            )
            merged[first - start : stop - start] = data[first - offset : stop - offset]
            action(int.from_bytes(merged, "little"))
            at = stop
        self._write_hardware(function, at, data[at - offset :])

    def _write_hardware(self, function: Sbdf, offset: int, data: bytes) -> None:
        """Write bytes to the hardware without a handler."""
        if data:
            self._hardware.write(function, offset, len(data), int.from_bytes(data, "little"))

    def _registers(self, handlers: Handlers) -> list[tuple[int, int, Callable[[int], None]]]:
        """Return (offset, width in bytes, handler) of each trapped register, sorted by offset."""
        found = [(COMMAND, 2, partial(self._write_command, handlers))]
        for bar in handlers.bars:
            if bar.index == ROM:
                found.append((bar.offset, 4, partial(self._write_rom, handlers, bar)))
            else:
                found.append((bar.offset, 4, partial(self._write_bar, handlers, bar, 0)))
            if bar.wide:
                found.append((bar.offset + 4, 4, partial(self._write_bar, handlers, bar, 4)))
        return sorted(found, key=itemgetter(0))

    def _write_command(self, handlers: Handlers, value: int) -> None:
        """Handle a write to the Command register.

        If the write changes the remembered state of memory decode, call `_modify`, which maps or unmaps the
        BARs and writes the register. Else only the register is written.
        """
        if handlers.mapped != bool(value & COMMAND_MEMORY):
            self._modify(handlers, value)
        else:
            self._hardware.write(handlers.function, COMMAND, 2, value)

    def _write_bar(self, handlers: Handlers, bar: Bar, half: int, value: int) -> None:
        """Handle a write to a BAR. `half` is 4 for the upper half of a 64-bit BAR, else 0.

        The write is dropped while the BAR is mapped.
        """
        if not half:
            value &= ADDRESS_MASK
        if bar.enabled:
            self.ignored += value != bar.address >> 8 * half & LOW
            return
        bar.address = bar.address & ~(LOW << 8 * half) | value << 8 * half
        self._hardware.write(handlers.function, bar.offset + half, 4, value)

    def _write_rom(self, handlers: Handlers, rom: Bar, value: int) -> None:
        """Handle a write to the ROM register.

        If the ROM is mapped and the written enable bit is set, the write is dropped. If decode is on, a
        cleared bit unmaps a mapped ROM, and a set bit maps a ROM that is not mapped. In all other cases only
        the register is written.
        """
        enable = bool(value & ROM_ENABLE)
        if rom.enabled and enable:
            self.ignored += 1
            return
        if not rom.enabled:
            rom.address = value & ROM_MASK
        if not handlers.mapped or rom.enabled == enable:
            handlers.rom_enabled = enable
            self._hardware.write(handlers.function, rom.offset, 4, value)
        else:
            self._modify(handlers, COMMAND_MEMORY if enable else 0, rom_only=True)
        if not enable:
            rom.address = value & ROM_MASK

    def _modify(self, handlers: Handlers, command: int, *, rom_only: bool = False) -> None:
        """Map or unmap the BARs, or only the ROM, then write the register that switches decode.

        If `command` has the memory decode bit, the BARs are mapped, else unmapped. The ROM is among them if
        its enable bit is set. MSI-X pages and pages that other BARs have mapped are left as they are. If the
        p2m refuses, memory decode is switched off and the handlers are removed.
        """
        on = bool(command & COMMAND_MEMORY)
        spans: list[Frames] = []
        for bar in handlers.bars:
            included = bar.index == ROM if rom_only else bar.index != ROM or handlers.rom_enabled
            if included and bar.enabled != on and self._mappable(bar):
                spans = [*without(spans, bar.frames), bar.frames]  # without duplicates: BARs may share a page
        for cut in [*handlers.tables(), *self._others(handlers.function, spans, rom_only=rom_only)]:
            spans = without(spans, cut)
        change = self._p2m.map_as_xen if on else self._p2m.unmap_as_xen
        if any(change(span) for span in spans):
            self._decode(handlers, command & ~COMMAND_MEMORY, rom_only=False)
            self.remove(handlers.function)
        else:
            self._decode(handlers, command, rom_only=rom_only)

    def _others(self, function: Sbdf, spans: list[Frames], *, rom_only: bool) -> list[Frames]:
        """Return the pages that are mapped for other BARs and overlap these spans.

        BARs of other functions are other BARs. With `rom_only`, this function's own BARs except the ROM are
        other BARs too.
        """
        return [
            frames
            for span in spans
            for (owner, index), frames in self._enabled.touching(span)
            if owner != function or (rom_only and index != ROM)
        ]

    def _decode(self, handlers: Handlers, command: int, *, rom_only: bool) -> None:
        """Write the register that switches decode on or off, and remember which BARs are mapped.

        With `rom_only` it is the ROM register, else the Command register. Before decode is switched on in the
        Command register, the MSI-X pages are unmapped. If one of them cannot be unmapped, nothing is written
        and the pages that are mapped stay mapped.
        """
        on = bool(command & COMMAND_MEMORY)
        if on and not rom_only and not self._make_holes(handlers):
            return  # the write is dropped, mapped pages stay mapped
        rom = handlers.rom
        if rom_only and rom is not None:
            self._enable(handlers, rom, on=on)
            handlers.rom_enabled = on
            self._hardware.write(handlers.function, rom.offset, 4, rom.address | on * ROM_ENABLE)
            return
        for bar in handlers.bars:
            if bar.index != ROM or handlers.rom_enabled:
                self._enable(handlers, bar, on=on)
        if not on:
            self._close_holes(handlers)
        self._hardware.write(handlers.function, COMMAND, 2, command)
        handlers.mapped = on

    def _enable(self, handlers: Handlers, bar: Bar, *, on: bool) -> None:
        """Remember that a BAR is mapped (`on`) or not. Nothing happens if it overlaps the E820 map."""
        if not self._mappable(bar):
            return
        bar.enabled = on
        if on:
            self._enabled.put((handlers.function, bar.index), bar.frames)
        else:
            self._enabled.discard((handlers.function, bar.index))

    def _make_holes(self, handlers: Handlers) -> bool:
        """Unmap the MSI-X pages, so that accesses to them trap. Return True if all are unmapped.

        Return False at the first table that has a page that is RAM, or is mapped but not 1:1. The tables
        before it are then unmapped already.
        """
        for number, table in enumerate(handlers.tables()):
            if self._p2m.is_memory(table):
                return False
            self._p2m.clear_identity(table)
            self._holes.put((handlers.function, number), table)
        return True

    def _close_holes(self, handlers: Handlers) -> None:
        """Remember that the MSI-X pages are no longer trapped."""
        for number in range(len(handlers.tables())):
            self._holes.discard((handlers.function, number))

    def _mappable(self, bar: Bar) -> bool:
        """Return True if the BAR overlaps no entry of the E820 map."""
        return not self._e820.overlap(bar.frames)


def _bar(config: bytes, index: int, size: int, header: tuple[int, int]) -> Bar:
    """Return the BAR or ROM as its register is now."""
    if index == ROM:
        return Bar(ROM, header[1], size, _word(config, header[1], 4) & ROM_MASK)
    offset = BAR0 + 4 * index
    low = _word(config, offset, 4)
    wide = low & 0x6 == 0x4 and index + 1 < header[0]
    high = _word(config, offset + 4, 4) if wide else 0
    return Bar(index, offset, size, low & ADDRESS_MASK | high << 32, wide)


def _word(config: bytes, offset: int, size: int) -> int:
    """Return the little-endian number of `size` bytes at `offset`."""
    return int.from_bytes(config[offset : offset + size], "little")
