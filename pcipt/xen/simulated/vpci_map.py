"""How vPCI changes dom0's map: which pages a switch of decode maps or unmaps, in which order, and what fails.

Source: Xen xen/drivers/vpci/header.c (modify_bars, map_range, vpci_process_pending, modify_decoding), msix.c
        (vpci_make_msix_hole, msix_find).
"""

from collections.abc import Callable, Iterable, Iterator
from errno import EEXIST, EINVAL, EPERM

from pcipt import values as attrs
from pcipt.pci import Frames, Sbdf
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.xen.releases import (
    E820_CUTS_BARS,
    MSIX_HOLE_NEEDS_MAPPED_BAR,
    RANGESET_GROWS,
    VPCI_CHECKS_PERMISSION,
    VPCI_GOES_BAR_BY_BAR,
    VPCI_SURVIVES_FAILURE,
    Version,
)
from pcipt.xen.simulated.overlaps import Overlaps
from pcipt.xen.simulated.p2m import P2m
from pcipt.xen.simulated.rangeset import Rangeset, frames_of
from pcipt.xen.simulated.vpci_state import COMMAND, ROM, ROM_ENABLE, Bar, Handlers, Reader, decode_bit


@attrs.define(eq=False)
class Change:
    """A planned change: `sets` are the page sets to map or unmap, in their order.

    `command` is the value for the Command register; its memory decode bit says whether pages are mapped. With
    `rom_only` the ROM alone is switched, and the command is never written.
    """

    handlers: Handlers
    command: int
    rom_only: bool
    sets: list[Rangeset]


class Mapper:
    """Plans and performs changes of dom0's map for vPCI. `e820` are the entries of the host's memory map.

    `says` gets each line that Xen prints about a failure.
    """

    def __init__(
        self, p2m: P2m, e820: Iterable[Frames], version: Version, says: Callable[[str], object]
    ) -> None:
        self._p2m = p2m
        self._e820 = sorted(e820)
        self._cuts = E820_CUTS_BARS.of(version)
        self._by_bar = VPCI_GOES_BAR_BY_BAR.of(version)
        self._grows = RANGESET_GROWS.of(version)
        self._checks = VPCI_CHECKS_PERMISSION.of(version)
        self._bars_first = MSIX_HOLE_NEEDS_MAPPED_BAR.of(version)
        self._enabled = Overlaps[tuple[int, int]]()  # serial of the handlers, BAR number
        self._tables = Overlaps[tuple[int, int]]()  # serial of the handlers, number of the table
        self._owners: dict[int, Handlers] = {}
        self._says_identity = not VPCI_SURVIVES_FAILURE.of(version)  # the text changed in the same release
        self._says = says

    def plan(self, handlers: Handlers, command: int, *, rom_only: bool = False) -> Change:
        """Return the pages that a switch of decode changes; nothing is changed yet.

        They are the pages of the BARs that are not in the wanted state, without MSI-X pages and without pages
        of other BARs that are mapped.
        Raises: Catastrophe if Xen fails on an address that wraps.
        """
        on = decode_bit(command)
        sets: list[Rangeset] = [] if self._by_bar else [Rangeset(grows=self._grows)]
        for bar in handlers.bars:
            included = bar.index == ROM if rom_only else bar.index != ROM or handlers.rom_enabled
            if included and bar.enabled != on and self._mappable(bar):
                self._include(bar, sets)
        for _, pages in handlers.tables():
            for each in sets:
                if each:
                    each.remove(*pages)
        self._spare(handlers, sets, rom_only=rom_only)
        return Change(handlers, command, rom_only, sets)

    def perform(self, change: Change, reader: Reader) -> bool:
        """Map or unmap the pages of a change, then switch decode. Return True if all went well.

        If a page is refused, the pages before it keep their new state and memory decode goes off.
        Raises: Catastrophe if a mapping takes memory from dom0.
        """
        on = decode_bit(change.command)
        if any(self._apply(first, last, on=on) for each in change.sets for first, last in each):
            self._switch(change.handlers, change.command & ~COMMAND_MEMORY, reader, rom_only=False)
            return False
        self._switch(change.handlers, change.command, reader, rom_only=change.rom_only)
        return True

    def apply_at_boot(self, change: Change, reader: Reader) -> int:
        """Do the same while Xen builds dom0; return 0 or the -errno that fails the function's set-up.

        After a failure decode is as it was: off.
        """
        for each in change.sets:
            for first, last in each:
                if answer := self._apply(first, last, on=True):
                    return answer
        self._switch(change.handlers, change.command, reader, rom_only=False)
        return 0

    def make_holes(self, handlers: Handlers) -> int:
        """Unmap the MSI-X pages, so that accesses to them trap. Return 0, or -EEXIST at a page of memory.

        The pages before that page stay unmapped.
        """
        for bar, (first, last) in handlers.tables():
            if self._bars_first and (bar is None or not bar.enabled):
                continue
            for page in range(first, last + 1):
                if not self._p2m.make_hole(frames_of(page, page)):
                    return -EEXIST
        return 0

    def trapped(self, frames: Frames) -> set[Sbdf]:
        """Return the functions whose MSI-X pages Xen traps in one of these frames."""
        return {self._owners[serial].function for (serial, _), _ in self._tables.touching(frames)}

    def forget(self, handlers: Handlers) -> None:
        """Forget the BARs of handlers that are removed, or that leave dom0. Pages stay as they are."""
        self._owners.pop(handlers.serial, None)
        for bar in handlers.bars:
            self._enabled.discard((handlers.serial, bar.index))
        for number in range(2):
            self._tables.discard((handlers.serial, number))

    def remember(self, handlers: Handlers) -> None:
        """Count the BARs of handlers again, which have come back to dom0."""
        for bar in handlers.bars:
            self._enable(handlers, bar, on=bar.enabled)

    def _include(self, bar: Bar, sets: list[Rangeset]) -> None:
        """Add the pages of a BAR to the one set, or as a set of their own, as this Xen does."""
        if not self._by_bar:
            sets[0].add(*bar.pages)
            return
        own = Rangeset(grows=self._grows)
        own.add(*bar.pages)
        for before in sets:
            if before:
                before.remove(*bar.pages)
        sets.append(own)
        for entry in self._touching(bar) if self._cuts else ():
            own.remove(entry.start, entry.end - 1)

    def _spare(self, handlers: Handlers, sets: list[Rangeset], *, rom_only: bool) -> None:
        """Take the pages of other mapped BARs out of the sets.

        With `rom_only` the function's own BARs count as others; so Xen takes pages of an own BAR with the ROM
        where the ROM overlaps it, if it goes BAR by BAR.
        """
        others = [
            (serial, index)
            for each in sets
            for first, last in _hulls(each, whole=self._grows)
            for (serial, index), _ in self._enabled.touching(frames_of(first, last))
        ]
        for serial, index in sorted(set(others), key=lambda other: (-other[0], other[1])):
            if serial == handlers.serial and not rom_only:
                continue
            owner = self._owners[serial]
            first, last = next(bar.pages for bar in owner.bars if bar.index == index)
            for each in sets:
                # Going BAR by BAR, Xen asks whether the set is the ROM's, not whether the other BAR is
                own = serial == handlers.serial and (self._by_bar or index == ROM)
                if not own and each.overlaps(first, last):
                    each.remove(first, last)

    def _apply(self, first: int, last: int, *, on: bool) -> int:
        """Map or unmap one range of a set. Return 0 or -errno; -EINVAL for an address that wraps."""
        if last < first:
            return -EINVAL
        change = self._p2m.map_as_xen if on else self._p2m.unmap_as_xen
        answer = change(frames_of(first, last), permitted=not self._checks)
        if answer:
            self._says(self._failure(first, last, answer, "" if on else "un"))
        return answer

    def _failure(self, first: int, last: int, answer: int, un: str) -> str:
        """Return the line that Xen prints when pages are not mapped, or with `un` not unmapped."""
        if self._checks and answer == -EPERM:
            return f"d0 denied access to MMIO range [{first:#x}, {last:#x}]"
        if self._says_identity:
            return f"Failed to identity {un}map [{first:x}, {last:x}] for d0: {answer}"
        return f"Failed to {un}map [{first:x} {last:x}] -> [{first:x} {last + 1:x}] for d0: {answer}"

    def _switch(self, handlers: Handlers, command: int, reader: Reader, *, rom_only: bool) -> None:
        """Write the register that switches decode on or off, and remember which BARs are mapped.

        With `rom_only` it is the ROM register, else the Command register. Before decode is switched on in the
        Command register, the MSI-X pages are unmapped. If one of them cannot be unmapped, nothing is written.
        """
        on = decode_bit(command)
        rom = handlers.rom
        if rom_only and rom is not None:
            if self._mappable(rom):
                self._enable(handlers, rom, on=on)
            handlers.rom_enabled = on
            reader.write(rom.offset, 4, rom.address | on * ROM_ENABLE)
            return
        if on and not self._bars_first and self.make_holes(handlers):
            return
        for bar in handlers.bars:
            if (bar.index != ROM or handlers.rom_enabled) and self._mappable(bar):
                self._enable(handlers, bar, on=on)
        if on and self._bars_first and self.make_holes(handlers):
            return  # the BARs count as mapped from now on, whatever dom0 writes
        reader.write(COMMAND, 2, command)
        handlers.mapped = on

    def _enable(self, handlers: Handlers, bar: Bar, *, on: bool) -> None:
        """Remember that a BAR is mapped (`on`) or not."""
        bar.enabled = on
        first, last = bar.pages
        if on and first <= last:
            self._owners[handlers.serial] = handlers
            self._enabled.put((handlers.serial, bar.index), frames_of(first, last))
        else:
            self._enabled.discard((handlers.serial, bar.index))
        for number, (at, (start, end)) in enumerate(handlers.tables()):
            if at is bar and on and start <= end:
                self._tables.put((handlers.serial, number), frames_of(start, end))
            elif at is bar:
                self._tables.discard((handlers.serial, number))

    def _mappable(self, bar: Bar) -> bool:
        """Return True if this Xen maps a BAR at its address, or the part of it outside of the memory map."""
        first, last = bar.pages
        return self._cuts or last < first or not self._touching(bar)

    def _touching(self, bar: Bar) -> list[Frames]:
        """Return the entries of the memory map that overlap a BAR, in order; all if its address wraps."""
        first, last = bar.pages
        if last < first:
            return self._e820
        return [entry for entry in self._e820 if entry.overlaps(frames_of(first, last))]


def _hulls(each: Rangeset, *, whole: bool) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a set; with `whole` one range from its first to its last page.

    A set that grows may come to overlap BARs in its gaps.
    """
    ranges = [(first, last) for first, last in each if first <= last]
    if whole and ranges:
        yield ranges[0][0], ranges[-1][1]
    else:
        yield from ranges
