"""vPCI of a PVH dom0: which config writes Xen traps, and what they do to hardware and p2m.

Handlers stand for the functions that Xen knows and whose header is of type 0 or 1. They remember addresses:
what is written behind their back they do not see. A change that the p2m refuses switches memory decode off
and takes the handlers away; taking them away unmaps nothing.

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
# header type: number of BARs, where the ROM is
HEADERS = {0: (6, 0x30), 1: (2, 0x38)}


@runtime_checkable
class ConfigHardware(Hardware, Protocol):
    """Hardware whose registers can be read and written, as a PVH dom0's Xen does."""

    def config(self, function: Sbdf) -> bytes | None: ...

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None: ...

    def bar_sizes(self, function: Sbdf) -> Sequence[tuple[int, int]]:
        """Tell index (6 is the ROM) and size of each memory BAR, as sizing would."""

    def msix(self, function: Sbdf) -> Msix | None: ...


@attrs.define
class Bar:
    """As vPCI remembers it; `enabled` says that it has it mapped."""

    index: int
    offset: int
    size: int
    address: int
    wide: bool = False
    enabled: bool = False

    @property
    def frames(self) -> Frames:
        return frames_from_range(Range(Address(self.address), self.size))


@attrs.define
class Handlers:
    function: Sbdf
    bars: list[Bar]
    msix: Msix | None
    rom_enabled: bool
    mapped: bool = False

    @property
    def rom(self) -> Bar | None:
        return next((bar for bar in self.bars if bar.index == ROM), None)

    def tables(self) -> list[Frames]:
        """Where the MSI-X table and pending bits are, by the addresses remembered; a VF's BARs are at 0."""
        addresses = {bar.index: bar.address for bar in self.bars}
        places = (self.msix.table, self.msix.pba) if self.msix is not None else ()
        return [
            frames_from_range(Range(Address(addresses.get(place.bar, 0) + place.offset), place.size))
            for place in places
        ]


class Vpci:
    """All handlers of one Xen; `e820` is what no BAR is mapped over."""

    def __init__(self, hardware: ConfigHardware, p2m: P2m, e820: Iterable[Frames] = ()) -> None:
        self._hardware = hardware
        self._p2m = p2m
        self._e820 = Extents(e820)
        self._handlers: dict[Sbdf, Handlers] = {}
        self._pending: dict[Sbdf, int] = {}
        self._enabled = Overlaps[tuple[Sbdf, int]]()
        self._holes = Overlaps[tuple[Sbdf, int]]()
        self.ignored = 0  # BAR and ROM writes that came while they were mapped

    def traps(self, function: Sbdf) -> bool:
        return function in self._handlers

    def holes(self, frames: Frames) -> list[Sbdf]:
        """List the functions whose MSI-X table or pending bits are trapped in one of these pages."""
        return sorted({owner for (owner, _), _ in self._holes.touching(frames)})

    def begin(self, function: Sbdf) -> int:
        """Set handlers up: decode goes off and what was mapped stays to be mapped by `finish`."""
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
        command = self._pending.pop(function, None)
        if command is not None:
            self._modify(self._handlers[function], command)

    def remove(self, function: Sbdf) -> None:
        """Take the handlers away; what they have mapped stays."""
        self._pending.pop(function, None)
        handlers = self._handlers.pop(function, None)
        if handlers is not None:
            self._close_holes(handlers)
            for bar in handlers.bars:
                self._enabled.discard((function, bar.index))

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Carry out a write of dom0: through the handlers where they stand, beside them straight."""
        data, end = value.to_bytes(size, "little"), offset + size
        at = offset
        handlers = self._handlers.get(function)
        for start, width, action in self._registers(handlers) if handlers is not None else ():
            if start >= end or start + width <= at:
                continue
            if at < start:
                self._straight(function, at, data[at - offset : start - offset])
            stop = min(end, start + width)
            first = max(at, start)
            merged = bytearray(
                (self._hardware.config(function) or b"")[start : start + width].ljust(width, b"\xff")
            )
            merged[first - start : stop - start] = data[first - offset : stop - offset]
            action(int.from_bytes(merged, "little"))
            at = stop
        self._straight(function, at, data[at - offset :])

    def _straight(self, function: Sbdf, offset: int, data: bytes) -> None:
        if data:
            self._hardware.write(function, offset, len(data), int.from_bytes(data, "little"))

    def _registers(self, handlers: Handlers) -> list[tuple[int, int, Callable[[int], None]]]:
        """List offset, width and handler of what is trapped, in the order of offsets."""
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
        if handlers.mapped != bool(value & COMMAND_MEMORY):
            self._modify(handlers, value)
        else:
            self._hardware.write(handlers.function, COMMAND, 2, value)

    def _write_bar(self, handlers: Handlers, bar: Bar, half: int, value: int) -> None:
        if not half:
            value &= ADDRESS_MASK
        if bar.enabled:
            self.ignored += value != bar.address >> 8 * half & LOW
            return
        bar.address = bar.address & ~(LOW << 8 * half) | value << 8 * half
        self._hardware.write(handlers.function, bar.offset + half, 4, value)

    def _write_rom(self, handlers: Handlers, rom: Bar, value: int) -> None:
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
        """Map or unmap, then let the register follow; on failure decode goes off and the handlers go."""
        on = bool(command & COMMAND_MEMORY)
        spans: list[Frames] = []
        for bar in handlers.bars:
            included = bar.index == ROM if rom_only else bar.index != ROM or handlers.rom_enabled
            if included and bar.enabled != on and self._mappable(bar):
                spans = [*without(spans, bar.frames), bar.frames]  # a set: BARs may share a page
        for cut in [*handlers.tables(), *self._others(handlers.function, spans, rom_only=rom_only)]:
            spans = without(spans, cut)
        change = self._p2m.map_as_xen if on else self._p2m.unmap_as_xen
        if any(change(span) for span in spans):
            self._decode(handlers, command & ~COMMAND_MEMORY, rom_only=False)
            self.remove(handlers.function)
        else:
            self._decode(handlers, command, rom_only=rom_only)

    def _others(self, function: Sbdf, spans: list[Frames], *, rom_only: bool) -> list[Frames]:
        """Find what other BARs have mapped there; this function's own count if only its ROM is changed."""
        return [
            frames
            for span in spans
            for (owner, index), frames in self._enabled.touching(span)
            if owner != function or (rom_only and index != ROM)
        ]

    def _decode(self, handlers: Handlers, command: int, *, rom_only: bool) -> None:
        on = bool(command & COMMAND_MEMORY)
        if on and not rom_only and not self._make_holes(handlers):
            return  # the write is dropped, what was mapped stays
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
        if not self._mappable(bar):
            return
        bar.enabled = on
        if on:
            self._enabled.put((handlers.function, bar.index), bar.frames)
        else:
            self._enabled.discard((handlers.function, bar.index))

    def _make_holes(self, handlers: Handlers) -> bool:
        """Unmap the MSI-X pages, so that accesses come to Xen; False if something else is mapped there."""
        for number, table in enumerate(handlers.tables()):
            if self._p2m.is_memory(table):
                return False
            self._p2m.clear_identity(table)
            self._holes.put((handlers.function, number), table)
        return True

    def _close_holes(self, handlers: Handlers) -> None:
        for number in range(len(handlers.tables())):
            self._holes.discard((handlers.function, number))

    def _mappable(self, bar: Bar) -> bool:
        return not self._e820.overlap(bar.frames)


def _bar(config: bytes, index: int, size: int, header: tuple[int, int]) -> Bar:
    if index == ROM:
        return Bar(ROM, header[1], size, _word(config, header[1], 4) & ROM_MASK)
    offset = BAR0 + 4 * index
    low = _word(config, offset, 4)
    wide = low & 0x6 == 0x4 and index + 1 < header[0]
    high = _word(config, offset + 4, 4) if wide else 0
    return Bar(index, offset, size, low & ADDRESS_MASK | high << 32, wide)


def _word(config: bytes, offset: int, size: int) -> int:
    return int.from_bytes(config[offset : offset + size], "little")
