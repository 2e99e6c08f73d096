"""What vPCI of a PVH dom0 has mapped and unmapped by itself, derived from the writes that it trapped. Pure.

The registers of the hardware do not show this. vPCI unmaps a BAR only when a write clears memory decode (or
the enable bit of a ROM), and vPCI does not see a reset. So a BAR that a reset has cleared is still mapped;
vPCI drops each write to this BAR, and the function does not work. In two other cases vPCI has unmapped the
BAR, because vPCI has let writes pass: if the register has another address than before, or if the register
has its address and the BAR does not decode.
Source: Xen xen/drivers/vpci/header.c (cmd_write, bar_write, rom_write); PCI Local Bus 3.0 §6.2.5 and PCI
        Express Base 6.0 §6.6 (BARs are 0 after a reset).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs

from pcipt.pci import (
    Address,
    Bar,
    BarKind,
    Finding,
    Frames,
    Function,
    Machine,
    Range,
    Sbdf,
    frames_from_range,
)
from pcipt.pci.bars import IO_SPACE, LAYOUT, ROM_INDEX, TYPE_64, TYPE_MASK, UNUSED, Resource, name_of_bar
from pcipt.pci.bridge import WindowKind
from pcipt.pci.config import COMMAND_MEMORY, HEADER_SIZE
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import RewriteBar
from pcipt.remap.desired import By, LostBar, as_vpci_has_it, place_of
from pcipt.remap.intervals import without
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.vpci.msix import msix_frames
from pcipt.remap.writes.decoding import bar_registers
from pcipt.remap.writes.function_shadow import FunctionShadow
from pcipt.remap.writes.registers import COMMAND, split
from pcipt.remap.writes.shadow import Shadow
from pcipt.remap.writes.vpci import Counted, sizes_known, taken_for_mapped

LAST_BAR = 5
MOST = 1 << 28  # bytes that are unmapped for a BAR of unknown size
SEARCHED = 64  # pages in which an unmap finds every run that is mapped (`unmap_frames`)
SWITCHES = (COMMAND, *(at for _, _, at in LAYOUT.values() if at is not None))  # of decode, and of a ROM


@attrs.frozen
class Unread:
    """A function that may have decoded memory at some addresses and was not read while it did.

    `starts` are these addresses, as (BAR number, byte address).
    """

    sbdf: Sbdf
    starts: frozenset[tuple[int, int]] = frozenset()


@attrs.define
class Trapped:
    """What vPCI did at each place since the last plan for this place, derived from the trapped writes.

    `counted`: the BARs that vPCI takes for mapped although a reset has cleared their registers, with their
    ranges; a BAR stays here until vPCI unmaps it. `unmapped`: the BARs that vPCI has unmapped. `mapped`: the
    BARs that vPCI has mapped and not unmapped since, with their ranges. `unread`: functions that have decoded
    and whose BAR sizes pcipt has not read, or that another function may have replaced after the reading.
    """

    counted: dict[str, Counted] = attrs.Factory(dict)
    unmapped: dict[str, set[int]] = attrs.Factory(dict)
    mapped: dict[str, dict[int, Range]] = attrs.Factory(dict)
    unread: dict[str, Unread] = attrs.Factory(dict)

    def __len__(self) -> int:
        """Return the number of places that have an entry in at least one of the four tables."""
        return len({*self.counted, *self.unmapped, *self.mapped, *self.unread})

    def follow(
        self, before: Shadow, after: Shadow, write: ConfigWrite, wanted: Callable[[str], Counted]
    ) -> bool:
        """Note what a write has made vPCI do. `before` and `after` are the shadows around the write.

        `wanted` returns for a place, by BAR number, the ranges that were asked for by writes, up to this one,
        that vPCI dropped (`Intents.wanted`).
        Return True if the function must be read, because the write touches a BAR that vPCI takes for mapped:
        only Linux writes such a BAR, after a reset.
        """
        if after.counted != self.counted:
            self.counted = dict(after.counted)
        function = before.at(write.sbdf) if write.offset < HEADER_SIZE else None
        if function is None:
            return False
        touched = {part.offset for part in split(write.offset, write.size or 0, write.value)}
        held = taken_for_mapped(function, before.counted_at(function.place))
        if touched.isdisjoint(SWITCHES):
            return self._tried(function, held, touched, write.sbdf, wanted(str(function.place)))
        now = after.at(write.sbdf) or function
        self._changed(str(now.place), held, taken_for_mapped(now, after.counted_at(now.place)))
        if COMMAND in touched and (now.read(COMMAND, 1) or 0) & COMMAND_MEMORY and not sizes_known(now):
            self._note_unread(now, write.sbdf, _addresses(now))
        return False

    def copy(self) -> "Trapped":
        """Return a copy. Changes of the copy do not change this object."""
        return Trapped(
            dict(self.counted),
            {place: set(bars) for place, bars in self.unmapped.items()},
            {place: dict(bars) for place, bars in self.mapped.items()},
            dict(self.unread),
        )

    def concluded(self, place: str, lost: Sequence[LostBar]) -> None:
        """Delete the entries of a place for which a plan was made; its lost BARs are then `counted`."""
        for noted in (self.counted, self.unmapped, self.mapped, self.unread):
            noted.pop(place, None)
        if lost:
            self.counted[place] = {each.bar: each.range for each in lost}

    def leave(self, place: str, sbdf: Sbdf) -> None:
        """Delete the entries of a function of which Xen has deleted vPCI's record.

        The BARs that vPCI has mapped since the last plan are still mapped: they become `unread`.
        """
        starts = {(bar, int(span.start)) for bar, span in self.mapped.get(place, {}).items()}
        starts |= self.unread.get(place, Unread(sbdf)).starts
        self.concluded(place, ())
        if starts:
            self.unread[place] = Unread(sbdf, frozenset(starts))

    def _tried(
        self,
        function: FunctionShadow,
        held: Counted,
        touched: AbstractSet[int],
        sbdf: Sbdf,
        wanted: Counted,
    ) -> bool:
        """Return True if a write touches BARs that vPCI takes for mapped (`held`).

        `touched` are the offsets of the words that the write touches. vPCI drops the write, except if another
        function was plugged in at this address; so other addresses than those of `held` become `unread`.
        """
        bars = {
            bar.index
            for bar in bar_registers(function)
            if bar.index in held and not touched.isdisjoint(bar.words)
        }
        tried = [(bar, int(wanted[bar].start)) for bar in bars if wanted.get(bar, held[bar]) != held[bar]]
        if tried:
            self._note_unread(function, sbdf, tried)
        return bool(bars)

    def _note_unread(self, function: FunctionShadow, sbdf: Sbdf, starts: Iterable[tuple[int, int]]) -> None:
        """Add addresses, as (BAR number, byte address), to the `unread` entry of a function."""
        place = str(function.place)
        before = self.unread.get(place, Unread(sbdf)).starts
        self.unread[place] = Unread(sbdf, before | frozenset(starts))

    def _changed(self, place: str, held: Counted, holds: Counted) -> None:
        """Note which BARs of a place vPCI has unmapped and mapped.

        `held` are the BARs that were mapped before, `holds` those that are mapped now.
        """
        gone = {bar for bar, span in held.items() if holds.get(bar) != span}
        fresh = {bar: span for bar, span in holds.items() if held.get(bar) != span}
        if gone:
            self.unmapped[place] = self.unmapped.get(place, set()) | gone
        mapped = {bar: span for bar, span in self.mapped.get(place, {}).items() if bar not in gone} | fresh
        if mapped:
            self.mapped[place] = mapped
        else:
            self.mapped.pop(place, None)


def _addresses(function: FunctionShadow) -> Iterator[tuple[int, int]]:
    """Yield (BAR number, address) of each memory BAR whose register was written, for a header of type 0.

    Linux writes the type bits with the address, so the written word tells whether the BAR has 64 bits.
    """
    number = 0
    while number <= LAST_BAR:
        low, high = function.read(0x10 + 4 * number, 4), function.read(0x14 + 4 * number, 4)
        wide = low is not None and low & (IO_SPACE | TYPE_MASK) == TYPE_64 and number < LAST_BAR
        if low is not None and not low & IO_SPACE:
            address = low & ~0xF | ((high or 0) << 32 if wide else 0)
            if address:
                yield number, address
        number += 2 if wide else 1


def lost_bars(
    function: Function,
    lines: Sequence[Resource],
    runs: Iterable[MappedRun],
    trapped: Trapped,
    ignored: Collection[int] = (),
) -> tuple[LostBar, ...]:
    """Return the BARs that vPCI takes for mapped although a reset has cleared their registers, in BAR order.

    `function` must just have been read, and vPCI must handle it. `lines` are the lines of its sysfs file
    `resource`, `runs` the mapped runs of its place. A BAR whose register has an address is not lost. The
    range of a lost BAR comes from `trapped`. If `trapped` has no range for the BAR, it comes from the runs:
    it is the range of Linux's line if this line covers the runs, else the range of the runs. If there are no
    runs either, the BAR is lost if the function decodes and Linux has an address for the BAR: then the
    function does not work, whether or not vPCI takes the BAR for mapped, and the cure is the same. BARs in
    `ignored` are an exception to this last rule: vPCI dropped a write of another address to them.
    """
    lost = [bar for bar in function.bars if has_no_address(bar)]
    place = place_of(function)
    counted = {**trapped.counted.get(place, {}), **trapped.mapped.get(place, {})}
    unmapped = trapped.unmapped.get(place, set())
    found = []
    for bar in lost:
        held = [run for run in runs if (run.bar, run.by, run.state) == (bar.index, By.XEN, State.HELD)]
        where = counted.get(bar.index)
        if where is None and held and bar.index not in unmapped:
            where = _range_of(held, lines[bar.index] if bar.index < len(lines) else None)
        if where is None and function.decodes_memory and bar.index not in {*unmapped, *ignored}:
            where = _believed(bar, lines)
        if where is not None:
            line = _believed(bar, lines)
            found.append(LostBar(bar.index, where, line.start if line is not None else where.start))
    return tuple(found)


def pages_of_unread(
    unread: Unread, machine: Machine, former: Function | None, told: Mapping[tuple[int, int], int]
) -> tuple[list[tuple[int, Frames]], bool]:
    """Return the pages that vPCI may have mapped for a function whose BAR sizes were not read.

    `former` is the function that was last read at this place, None if there was none. Its sizes are used if
    `told` does not contradict, because a function that is added and removed several times is most likely the
    same one. `told` has the sizes in bytes that Linux has told, by BAR number and address. A BAR whose size
    nobody tells has the largest possible one: its address is a multiple of its size, and it ends before the
    next BAR begins and inside the window of the bridge above.

    Shape:  (list of (BAR number, pages), certain). `certain` is False if a BAR may have more pages than an
            unmap searches for holes (MSI-X pages, which vPCI does not map).
    """
    if former is not None:
        sizes = {(bar, start): _bar_at(former, bar) for bar, start in unread.starts}
        if all(size is not None and told.get(at, size) == size for at, size in sizes.items()):
            return list(_former_pages(unread, former)), True
    found = []
    for bar, start in sorted(unread.starts):
        if (size := told.get((bar, start), 0)) > 0:
            found.append((bar, frames_from_range(Range(Address(start), size))))
            continue
        ends = [other for _, other in unread.starts if other > start]
        ends += [limit + 1 for base, limit in _windows_above(unread.sbdf, machine) if base <= start <= limit]
        size = min([start & -start, MOST, *(end - start for end in ends)])
        found.append((bar, frames_from_range(Range(Address(start), size))))
    return found, bool(found) and all(frames.count <= SEARCHED for _, frames in found)


def _former_pages(unread: Unread, former: Function) -> Iterator[tuple[int, Frames]]:
    """Yield (BAR number, pages) with the BAR sizes of `former` at the addresses of an unread function."""
    for bar, start in sorted(unread.starts):
        span = Range(Address(start), _bar_at(former, bar) or 0)
        for pages in without((frames_from_range(span),), lost_tables(former, {bar: span})):
            yield bar, pages


def _bar_at(function: Function, index: int) -> int | None:
    """Return the size of a memory BAR in bytes; None if there is no such BAR or its size is unknown."""
    sizes = [bar.size for bar in function.bars if bar.index == index and bar.kind is not BarKind.IO]
    return sizes[0] if sizes and sizes[0] else None


def _windows_above(sbdf: Sbdf, machine: Machine) -> Iterator[tuple[int, int]]:
    """Yield (first byte, last byte) of the memory windows of all bridges above an address."""
    for function in machine.functions.values():
        bridge = function.bridge
        if bridge is None or function.sbdf.segment != sbdf.segment:
            continue
        if bridge.secondary <= sbdf.bus <= bridge.subordinate:
            for window in bridge.windows:
                if window.kind is not WindowKind.IO:
                    yield window.base, window.limit


def plan_returns(function: Function, lost: Iterable[LostBar]) -> Iterator[RewriteBar]:
    """Yield an action for each lost BAR of a function: write Linux's address while memory decode is off."""
    for each in lost:
        reason = f"a reset cleared {name_of_bar(each.bar)}, and Xen drops what Linux writes back"
        size = next((bar.size for bar in function.bars if bar.index == each.bar), None)
        yield RewriteBar(function.sbdf, reason, each.bar, before=Address(0), address=each.linux, size=size)


def finding_of_reset(function: Function, lost: Sequence[LostBar], refused: str = "") -> Finding:
    """Return the finding "reset-behind-vpci" for the lost BARs of a function; there must be at least one.

    `refused` is why pcipt does not write the BARs of a function without a driver, or "".
    """
    names = ", ".join(f"{name_of_bar(each.bar)} ({each.range.start:#x})" for each in lost)
    cure = "pcipt resync does this"
    if function.driver is not None:
        cure = f"unbind {function.driver}, then {cure}"
    elif refused:
        cure = f"pcipt does not do this: {refused}"
    return Finding(
        "reset-behind-vpci",
        f"a reset that Xen did not see cleared {names}. For Xen these BARs are still mapped, so it ignores "
        "what Linux writes to them, and the function does not work. Memory decode must be switched off, the "
        f"BARs written, and memory decode switched on; {cure}",
    )


def names_lost_bar(finding: Finding, lost: Iterable[LostBar]) -> bool:
    """Return True if a finding is "bar-drift" of a lost BAR; the cure of such a finding would not help."""
    return finding.code == "bar-drift" and any(
        finding.text.startswith(f"{name_of_bar(each.bar)} ") for each in lost
    )


def _believed(bar: Bar, lines: Sequence[Resource]) -> Range | None:
    """Return the range of a BAR in Linux's line; None if the line has no assigned range, and for a ROM.

    `bar` has no address in hardware. Linux writes each address that it assigns, except that of a ROM that is
    not enabled.
    """
    line = lines[bar.index] if bar.index < len(lines) else UNUSED
    known = line.start and line.size and not line.flags & (Resource.UNSET | Resource.FIXED)
    return Range(Address(line.start), line.size) if known and bar.index != ROM_INDEX else None


def lost_tables(function: Function, counted: Counted) -> Iterator[Frames]:
    """Yield the MSI-X pages of a function if the BARs `counted` have these ranges, as vPCI has them."""
    lost = [LostBar(bar, span) for bar, span in counted.items()]
    return msix_frames(as_vpci_has_it(function, lost))


def has_no_address(bar: Bar) -> bool:
    """Return True if the register of a memory BAR or ROM of known size holds no address, as after a reset."""
    return bar.kind is not BarKind.IO and not bar.address and bool(bar.size)


def _range_of(runs: Sequence[MappedRun], line: Resource | None) -> Range:
    """Return the range of Linux's line if its pages cover the runs, else the range from first to last run."""
    start = min(run.frames.range.start for run in runs)
    last = max(run.frames.range.last for run in runs)
    if line is not None and line.size and line.start:
        span = Range(Address(line.start), line.size)
        pages = frames_from_range(span).range
        if pages.start <= start and last <= pages.last:
            return span
    return Range(Address(start), last + 1 - start)
