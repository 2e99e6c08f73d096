"""Model vPCI of a PVH dom0: which config accesses Xen traps, and what they do to the hardware and the map.

Xen has handlers for each function that it knows and whose header type is 0 or 1. Handlers remember addresses,
and do not see a write that bypasses them. What differs among versions is a row of `pcipt.xen.releases`.
Removing handlers unmaps nothing. Held against Xen's own code by `make oracle`.
Source: Xen xen/drivers/vpci/vpci.c (vpci_assign_device, vpci_write, vpci_read), header.c (init_bars,
        cmd_write, bar_write, rom_write, vpci_process_pending), msix.c (init_msix, control_write), rebar.c,
        cap.c.
"""

from collections.abc import Callable, Iterable
from errno import EINVAL, ENODEV, EOPNOTSUPP
from functools import partial
from operator import itemgetter

from pcipt.pci import Frames, Sbdf
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.xen.interface import Owner
from pcipt.xen.releases import (
    FAULTY_CAPABILITY_HIDDEN,
    HIDDEN_MSIX_LOCKED,
    MSIX_CHECKED,
    RESIZABLE_BARS,
    VPCI_BUILT_AT_ASSIGN,
    VPCI_SURVIVES_FAILURE,
    WITHOUT_VPCI_PANICS,
    Version,
)
from pcipt.xen.simulated.model import Catastrophe
from pcipt.xen.simulated.p2m import P2m
from pcipt.xen.simulated.vpci_map import Change, Mapper
from pcipt.xen.simulated.vpci_state import (
    ADDRESS_MASK,
    CAPABILITIES,
    COMMAND,
    HEADER_TYPE,
    HEADERS,
    LOW,
    MSIX_ENABLE,
    MSIX_MASK_ALL,
    ROM,
    ROM_ENABLE,
    ROM_MASK,
    Bar,
    ConfigHardware,
    Handlers,
    Reader,
    bars_of,
    decode_bit,
    msix_fault,
    msix_of,
    resizable_of,
)

MSIX = 0x11  # the id of the capability
Register = tuple[int, int, Callable[[int], None]]  # offset, width in bytes, what a write does


class Vpci:
    """All handlers of one Xen.

    `ignored` counts the writes that were dropped because the BAR or ROM was mapped. BAR writes that would
    change nothing are not counted. `says` gets each line that Xen prints about it.
    """

    def __init__(
        self,
        hardware: ConfigHardware,
        p2m: P2m,
        e820: Iterable[Frames],
        version: Version,
        says: Callable[[str], object],
    ) -> None:
        self._hardware = hardware
        self._map = Mapper(p2m, e820, version, says)
        self._checks_msix = MSIX_CHECKED.of(version)
        self._hides = FAULTY_CAPABILITY_HIDDEN.of(version)
        self._locks = HIDDEN_MSIX_LOCKED.of(version)
        self._resizes = RESIZABLE_BARS.of(version)
        self._built_anew = VPCI_BUILT_AT_ASSIGN.of(version)
        self._survives = VPCI_SURVIVES_FAILURE.of(version)
        self._panics = WITHOUT_VPCI_PANICS.of(version)
        self._given_up: set[Sbdf] = set()
        self._handlers: dict[Sbdf, Handlers] = {}
        self._pending: dict[Sbdf, Change] = {}
        self._serial = 0
        self.ignored = 0
        self._says = says

    def traps(self, function: Sbdf) -> bool:
        """Return True if Xen has handlers for the function and dom0 has it."""
        handlers = self._handlers.get(function)
        return handlers is not None and not handlers.away

    def holes(self, frames: Frames) -> list[Sbdf]:
        """Return the functions whose MSI-X table or pending bits are trapped in one of these frames.

        The functions are sorted by address.
        """
        return sorted(self._map.trapped(frames))

    def handlers(self, function: Sbdf) -> Handlers | None:
        """Return what vPCI remembers of a function; None if it has no handlers."""
        return self._handlers.get(function)

    def begin(self, function: Sbdf, *, boot: bool = False) -> int:
        """Set up the handlers of a function, size its BARs with memory decode off. Return 0 or -errno.

        -EOPNOTSUPP: no function is at this address, or its header type is not 0 or 1. -ENODEV, -EEXIST: this
        Xen does not take its MSI-X structure. After an error there are no handlers. If decode was on, its
        pages are planned, and mapped by `finish`; with `boot` they are mapped at once.
        Raises: Catastrophe if Xen fails on an address that wraps.
        """
        reader = Reader(self._hardware, function)
        header = HEADERS.get(reader.read(HEADER_TYPE, 1) & 0x7F)
        if self._hardware.config(function) is None or header is None:
            return -EOPNOTSUPP
        self.remove(function)
        command = reader.read(COMMAND, 2)
        if decode_bit(command):
            reader.write(COMMAND, 2, command & ~COMMAND_MEMORY)
        self._serial += 1
        handlers = Handlers(function, self._serial, *bars_of(reader, header))
        if not self._checks_msix:  # MSI-X first: the pages of its tables are left out of the map
            handlers.msix = msix_of(reader)
        if decode_bit(command):
            change = self._plan(handlers, command)
            if boot and (answer := self._map.apply_at_boot(change, reader)):
                self._map.forget(handlers)
                return answer
            if not boot:
                self._pending[function] = change
        answer = self._add_msix(handlers, reader) if self._checks_msix else 0
        if answer:
            self._pending.pop(function, None)
            self._map.forget(handlers)
            return answer
        handlers.resizable = resizable_of(reader, handlers.bars) if self._resizes else {}
        self._handlers[function] = handlers
        return 0

    def finish(self, function: Sbdf) -> None:
        """Map the BARs of a function and switch its memory decode on, if it was on before `begin`.

        Nothing happens if it was off. If a page is refused, memory decode stays off.
        Raises: Catastrophe if a mapping takes memory from dom0.
        """
        change = self._pending.pop(function, None)
        if change is not None:
            self._perform(change)

    def remove(self, function: Sbdf) -> None:
        """Remove the handlers of a function. The pages that they mapped stay mapped.

        Nothing happens if it has none.
        """
        self._pending.pop(function, None)
        self._given_up.discard(function)
        handlers = self._handlers.pop(function, None)
        if handlers is not None:
            self._map.forget(handlers)

    def not_assigned(self, function: Sbdf, rc: int = EINVAL, *, domain: int = 1) -> None:
        """Do what Xen does when the IOMMU does not take a function of dom0 for a guest: dom0 keeps it.

        The versions that build the handlers anew have removed them before, and do not build them again.
        Source: Xen drivers/passthrough/pci.c (assign_device), from 4.19.0 on.
        """
        if self._built_anew:
            self.remove(function)
        self._says(f"d{domain}: assign ({function}) failed ({-rc})")

    def hand_over(self, function: Sbdf, before: Owner, *, to_dom0: bool, orphan: bool = False) -> None:
        """Do what Xen does when a function leaves dom0, or comes back to it from the owner `before`.

        Some versions keep the handlers, as they were, while a guest has the function. Others remove them, and
        build them anew from what hardware says then; if that fails, there are none, and Xen prints that the
        function could not be taken back, although dom0 has it. An orphan has none.
        Source: Xen drivers/passthrough/pci.c (deassign_device), from 4.19.0 on.
        """
        if self._built_anew or orphan:
            self.remove(function)
            if to_dom0 and (answer := self.begin(function)):
                domain = "[IO]" if before.domain is None else before.domain
                self._says(f"d{domain}: deassign ({function}) failed ({answer})")
            elif to_dom0:
                self.finish(function)
            return
        if not to_dom0:
            self._given_up.discard(function)  # only dom0's functions are looked at
        handlers = self._handlers.get(function)
        if handlers is not None:
            handlers.away = not to_dom0
            (self._map.remember if to_dom0 else self._map.forget)(handlers)

    def read(self, function: Sbdf, offset: int, size: int) -> int:
        """Return the little-endian number of `size` bytes that dom0 reads at `offset`."""
        data = (self.config(function) or b"")[offset : offset + size]
        return int.from_bytes(data.ljust(size, b"\xff"), "little")

    def config(self, function: Sbdf) -> bytes | None:
        """Return the config space of a function as dom0 reads it; None if no function is there."""
        config, handlers = self._hardware.config(function), self._handlers.get(function)
        if config is None or handlers is None or handlers.away:
            return config
        data = bytearray(config)
        for at, byte in _shown(handlers, self._hardware).items():
            if at < len(data):
                data[at] = byte
        return bytes(data)

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Perform a config write of dom0.

        Bytes that a handler traps go to the handler, other bytes to hardware. If Xen has no handlers for the
        function, all bytes go to hardware.
        Raises: Catastrophe if a mapping that this write causes takes memory from dom0, or as `_plan`.
        """
        data, end = value.to_bytes(size, "little"), offset + size
        at = offset
        handlers = self._handlers.get(function)
        trapped = handlers is not None and not handlers.away
        for start, width, action in self._registers(handlers) if handlers is not None and trapped else ():
            if start >= end or start + width <= at:
                continue
            if at < start:
                self._write_hardware(function, at, data[at - offset : start - offset])
            stop, first = min(end, start + width), max(at, start)
            merged = bytearray(self.read(function, start, width).to_bytes(width, "little"))
            merged[first - start : stop - start] = data[first - offset : stop - offset]
            action(int.from_bytes(merged, "little"))
            at = stop
        self._write_hardware(function, at, data[at - offset :])
        self.finish(function)

    def _write_hardware(self, function: Sbdf, offset: int, data: bytes) -> None:
        """Write bytes to the hardware without a handler."""
        if data:
            self._hardware.write(function, offset, len(data), int.from_bytes(data, "little"))

    def _registers(self, handlers: Handlers) -> list[Register]:
        """Return each trapped register, sorted by offset."""
        found: list[Register] = [(COMMAND, 2, partial(self._write_command, handlers))]
        for bar in handlers.bars:
            if bar.index == ROM:
                found.append((bar.offset, 4, partial(self._write_rom, handlers, bar)))
            else:
                found.append((bar.offset, 4, partial(self._write_bar, handlers, bar, 0)))
            if bar.wide:
                found.append((bar.offset + 4, 4, partial(self._write_bar, handlers, bar, 4)))
        if handlers.locked is not None:
            found.append((handlers.locked, 2, _drop))
        elif handlers.msix is not None:
            found.append((handlers.msix.at + 2, 2, partial(self._write_msix, handlers)))
        for at, bar in handlers.resizable.items():
            found.append((at, 4, partial(self._resize, handlers, bar, at)))
        return sorted(found, key=itemgetter(0))

    def _write_command(self, handlers: Handlers, value: int) -> None:
        """Handle a write to the Command register.

        If the write changes the remembered state of memory decode, the BARs are mapped or unmapped and the
        register is written after that. Else only the register is written.
        """
        if handlers.mapped != decode_bit(value):
            self._pending[handlers.function] = self._plan(handlers, value)
        else:
            self._hardware.write(handlers.function, COMMAND, 2, value)

    def _write_bar(self, handlers: Handlers, bar: Bar, half: int, value: int) -> None:
        """Handle a write to a BAR. `half` is 4 for the upper half of a 64-bit BAR, else 0.

        The write is dropped while the BAR is mapped.
        """
        if not half:
            value &= ADDRESS_MASK
        if bar.enabled:
            if value != bar.address >> 8 * half & LOW:
                self.ignored += 1
                self._says(
                    f"d0v0 {handlers.function}: ignored BAR {bar.index + half // 4} write while mapped"
                )
            return
        bar.address = bar.address & ~(LOW << 8 * half) | value << 8 * half
        flags = 0 if half else bar.flags
        self._hardware.write(handlers.function, bar.offset + half, 4, value | flags)

    def _write_rom(self, handlers: Handlers, rom: Bar, value: int) -> None:
        """Handle a write to the ROM register.

        If the ROM is mapped and the written enable bit is set, the write is dropped. If decode is on, a
        cleared bit unmaps a mapped ROM, and a set bit maps a ROM that is not mapped. In all other cases only
        the register is written. A ROM that is switched off gets the written address before it is unmapped.
        """
        enable = bool(value & ROM_ENABLE)
        if rom.enabled and enable:
            self.ignored += 1
            self._says(f"d0v0 {handlers.function}: ignored ROM BAR write while mapped")
            return
        if not rom.enabled:
            rom.address = value & ROM_MASK
        if not handlers.mapped or rom.enabled == enable:
            handlers.rom_enabled = enable
            self._hardware.write(handlers.function, rom.offset, 4, value)
        else:
            command = COMMAND_MEMORY if enable else 0
            self._pending[handlers.function] = self._plan(handlers, command, rom_only=True)
        if not enable:
            rom.address = value & ROM_MASK
            self._map.remember(handlers)  # a ROM that a switch of decode left out still counts as mapped

    def _write_msix(self, handlers: Handlers, value: int) -> None:
        """Handle a write to Message Control of MSI-X.

        A write that does not change what vPCI remembers is dropped, also if hardware has forgotten it.
        """
        msix = handlers.msix
        control = value & (MSIX_ENABLE | MSIX_MASK_ALL)
        if msix is not None and control != msix.control:
            msix.control = control
            self._hardware.write(handlers.function, msix.at + 2, 2, msix.register)

    def _resize(self, handlers: Handlers, bar: Bar, at: int, value: int) -> None:
        """Handle a write to a Resizable BAR Control register; it is dropped while the BAR is mapped."""
        if bar.enabled:
            return
        reader = Reader(self._hardware, handlers.function)
        reader.write(at, 4, value)
        bar.address, bar.size = reader.size(bar.offset, last=bar.index == 5)

    def _add_msix(self, handlers: Handlers, reader: Reader) -> int:
        """Check and add the MSI-X structure of a function, and unmap its pages. Return 0 or -errno.

        Where this Xen hides a structure that it cannot take, the result is 0.
        """
        handlers.msix = msix_of(reader)
        if handlers.msix is None:
            return 0
        at = handlers.msix.at
        fault = msix_fault(handlers)
        answer = -ENODEV if fault else 0
        if answer:
            self._says(f"DEVICE BUG: {handlers.function}: MSI-X {fault}")
            handlers.msix = None
        else:
            self._map.remember(handlers)  # which pages Xen traps
            answer = self._map.make_holes(handlers)
        if not answer or not self._hides:
            return answer
        self._says(f"d0 {handlers.function}: init legacy cap {MSIX} fail rc={answer}, mask it")
        handlers.hidden = at
        if self._locks:
            handlers.msix, handlers.locked = None, at + 2
        return 0

    def _plan(self, handlers: Handlers, command: int, *, rom_only: bool = False) -> Change:
        """Return the pages that a switch of decode changes.

        Raises: Catastrophe if Xen fails on an address that wraps, or on a function of dom0 without handlers.
        """
        if self._panics and self._given_up:
            bare = min(self._given_up)
            raise Catastrophe(f"decode of {handlers.function} while {bare} has no vPCI: modify_bars, NULL")
        return self._map.plan(handlers, command, rom_only=rom_only)

    def _perform(self, change: Change) -> None:
        """Perform a planned change. After a failure the handlers are removed, if this Xen does so."""
        reader = Reader(self._hardware, change.handlers.function)
        if not self._map.perform(change, reader) and not self._survives:
            self.remove(change.handlers.function)
            self._given_up.add(change.handlers.function)


def _drop(_value: int) -> None:
    """Handle a write that has no effect."""


def _shown(handlers: Handlers, hardware: ConfigHardware) -> dict[int, int]:
    """Return the bytes that dom0 reads otherwise than hardware has them, by offset.

    They are Message Control of MSI-X, and the pointer to a hidden structure, which leads behind it.
    """
    found: dict[int, int] = {}
    if handlers.msix is not None:
        low, high = handlers.msix.register.to_bytes(2, "little")
        found |= {handlers.msix.at + 2: low, handlers.msix.at + 3: high}
    if handlers.hidden is not None:
        reader = Reader(hardware, handlers.function)
        before, at = CAPABILITIES, reader.read(CAPABILITIES, 1) & ~3
        for _ in range(48):
            if at < 0x40:
                break
            if at == handlers.hidden:
                found[before] = reader.read(at + 1, 1)
                break
            before, at = at + 1, reader.read(at + 1, 1) & ~3
    return found
