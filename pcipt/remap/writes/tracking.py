"""Find the changes between the registers of a function before and after an access. Pure.

A BAR that is written while it decodes moves byte by byte, and sizing writes all ones to it. So a write to a
BAR is pending until all of its bytes are written and no word holds all ones; then the change is reported.
Switching decode on or off reports it at once. A 32-bit BAR that was written in part is reported with the next
access to other words of the function; a 64-bit BAR waits for its other half; `settled` reports all of them. A
value that a read shows for the first time is not a change.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from pcipt.pci.address import Sbdf
from pcipt.pci.bars import ROM_INDEX
from pcipt.pci.bridge import WindowKind
from pcipt.pci.config import HeaderType
from pcipt.pci.units import Range
from pcipt.pci.write import ConfigWrite
from pcipt.remap.writes.changes import (
    Assumption,
    BarMapped,
    BarMoved,
    BarUnmapped,
    BridgeWindowChanged,
    Cause,
    Change,
    DecodeChanged,
    RomChanged,
    VfBarsChanged,
)
from pcipt.remap.writes.decoding import (
    UNKNOWN,
    bar_registers,
    decode_of,
    decoded_range,
    rom_enable,
    vf_ranges,
    vf_registers,
    window_of,
)
from pcipt.remap.writes.function_shadow import BarRegister, FunctionShadow, Pending
from pcipt.remap.writes.registers import Part
from pcipt.remap.writes.vpci import NOTHING, Counted, as_counted


@attrs.frozen
class Step:
    """One access to one function, which it reached at `sbdf`. `parts` are its parts in each 32-bit word."""

    sbdf: Sbdf
    cause: Cause
    parts: Sequence[Part]

    @property
    def is_write(self) -> bool:
        """True if the access is a write, False if it is a read."""
        return isinstance(self.cause, ConfigWrite)

    def lanes(self, bar: BarRegister) -> int:
        """Return the mask of the bits of a BAR that this access touches, or 0 if it touches none of them.

        Bits 63:32 of the mask are the upper word of a 64-bit BAR.
        """
        found = 0
        for number, offset in enumerate(bar.words):
            for part in self.parts:
                if part.offset == offset:
                    found |= part.lanes << 32 * number
        return found


def compare(before: FunctionShadow, after: FunctionShadow, step: Step) -> tuple[FunctionShadow, list[Change]]:
    """Return the shadow after an access, and the changes that the access made.

    `before` and `after` are the shadows of the same function. The returned shadow is `after` with the record
    of the BARs that are reported and pending now.
    Shape:  changes of decode and ROM enable bits, then of BARs, windows, and virtual functions' BARs.
    """
    changes = [*_switches(before, after, step)]
    bars = bar_registers(after)
    tracker = _BarTracker(before, after, step, decided=_decides(before, after, bars))
    for bar in bars:
        tracker.follow(bar)
    changes += tracker.changes
    changes += _windows(before, after, step)
    changes += _virtual(before, after, step)
    return tracker.result(), changes


def ignored(
    before: FunctionShadow, after: FunctionShadow, step: Step, counted: Counted = NOTHING
) -> tuple[FunctionShadow, list[Change]]:
    """Return the shadow without the writes of a step that vPCI drops, and a change for each address dropped.

    vPCI drops writes to memory BARs and ROMs that it takes for mapped: those that decode, and those that a
    reset has taken from hardware without its knowledge (`counted`). A write that switches the ROM's enable
    bit off is not dropped. A dropped address is a `BarMoved` with the assumption IGNORED; the address that
    vPCI has already is not a change, nor is a dropped sizing write.
    Source: xen/drivers/vpci/header.c, bar_write and rom_write.
    """
    changes: list[Change] = []
    asked = after
    if counted:
        asked = as_counted(before, counted)
        for part in step.parts:
            asked = asked.written(part)
    for bar in bar_registers(before):
        if not step.lanes(bar) or not _vpci_traps(bar):
            continue
        actual = counted.get(bar.index) or decoded_range(before, bar)
        wanted = decoded_range(asked, bar)
        if not isinstance(actual, Range) or (wanted == actual and bar.index not in counted):
            continue
        if bar.index == ROM_INDEX and wanted is None:
            continue  # vPCI passes on a write that switches the enable bit off
        sizing = any(asked.is_sizing(offset) for offset in bar.words)
        after = after.with_words({offset: before.words[offset] for offset in bar.words}, before.ones)
        if isinstance(wanted, Range) and wanted != actual and not sizing:
            changes.append(
                BarMoved(
                    sbdf=step.sbdf, place=after.place, causes=(step.cause,), bar=bar.index, kind=bar.kind,
                    before=actual, after=wanted, assumed=Assumption.IGNORED,
                )
            )  # fmt: skip
    return after, changes


def settled(function: FunctionShadow, sbdf: Sbdf, *, halves: bool) -> tuple[FunctionShadow, list[Change]]:
    """End the pending writes to all BARs of a function; return the shadow and the changes.

    Call it when no further bytes are expected. If `halves` is False, 64-bit BARs stay pending. Whatever
    `halves` is, BARs stay pending for the reasons that `_decided` names.
    """
    changes: list[Change] = []
    for bar in bar_registers(function):
        if bar.index in function.pending and (halves or not bar.wide):
            function, found = _decided(function, bar, sbdf)
            changes += found
    return function, changes


def released(function: FunctionShadow, step: Step) -> tuple[FunctionShadow, list[Change]]:
    """End partial writes to 32-bit BARs that this access does not touch; return the shadow and the changes.

    Call it before the access is applied: no more bytes of such a write follow. A BAR stays pending if bits of
    it were last written with all ones (sizing), or for the reasons that `_decided` names.
    """
    if not function.pending:
        return function, []
    waiting = [
        bar
        for bar in bar_registers(function)
        if bar.index in function.pending
        and not bar.wide
        and not step.lanes(bar)
        and not function.ones.get(bar.offset)
    ]
    changes: list[Change] = []
    for bar in waiting:
        function, found = _decided(function, bar, step.sbdf)
        changes += found
    return function, changes


def _decided(function: FunctionShadow, bar: BarRegister, sbdf: Sbdf) -> tuple[FunctionShadow, list[Change]]:
    """End the pending writes to one BAR; return the shadow and the change, if there is one.

    The BAR must be pending. It stays pending if its range is not known, or if it decoded nothing before and
    after.
    """
    causes = function.pending[bar.index].causes
    tracker = _BarTracker(function, function, Step(sbdf, causes[-1], ()), decided=frozenset({bar.index}))
    tracker.follow(bar)
    return tracker.result(), tracker.changes


def _decides(before: FunctionShadow, after: FunctionShadow, bars: Iterable[BarRegister]) -> frozenset[int]:
    """Return the numbers of the BARs of which an access changed decoding, ROM enable bit or size.

    Their changes are reported at once: they wait for no more writes.
    """
    one, other = decode_of(before), decode_of(after)
    found = set()
    for bar in bars:
        io = bar.kind.value == "io"
        if one is not None and other is not None:
            switched = one.io != other.io if io else one.memory != other.memory
        else:
            switched = one != other
        if bar.index == ROM_INDEX:
            switched |= rom_enable(before) != rom_enable(after) and not after.is_sizing(bar.offset)
        if switched or before.sizes.get(bar.index) != after.sizes.get(bar.index):
            found.add(bar.index)
    return frozenset(found)


class _BarTracker:
    """Find the changes of the BARs of a function, and update the record of reported and pending BARs.

    `decided` are the BARs that wait for no more writes. `changes` are the changes found, in the order of
    `follow`.
    """

    def __init__(
        self, before: FunctionShadow, after: FunctionShadow, step: Step, *, decided: frozenset[int]
    ) -> None:
        self._before, self._after, self._step, self._decided = before, after, step, decided
        self._mapped, self._last = dict(after.mapped), dict(after.last)
        self._pending = dict(after.pending)
        self.changes: list[Change] = []

    def result(self) -> FunctionShadow:
        """Return the shadow after the access, with the record of reported and pending BARs."""
        after = self._after
        if (self._mapped, self._last, self._pending) == (after.mapped, after.last, after.pending):
            return after
        return after.with_report(self._mapped, self._last, self._pending)

    def follow(self, bar: BarRegister) -> None:
        """Compare one BAR before and after the access: add its change, or keep its writes pending."""
        index, step = bar.index, self._step
        now, reported = decoded_range(self._after, bar), self._mapped.get(index)
        lanes = step.lanes(bar)
        pending = self._pending.get(index)
        if lanes and step.is_write:
            pending = (pending or Pending()).joined(lanes, step.cause)
            if any(self._after.is_sizing(offset) for offset in bar.words):
                pending = attrs.evolve(pending, lanes=0)
            self._pending[index] = pending
        if now is UNKNOWN:
            return
        if now == reported:
            if now is not None and not (lanes and self._waits(bar, pending)):
                self._pending.pop(index, None)  # a half that was written unchanged began no move
            return
        if not step.is_write and decoded_range(self._before, bar) is UNKNOWN:
            self._adopt(index, now)
        elif index in self._decided or not self._waits(bar, pending):
            self._report(bar, now, pending)

    def _waits(self, bar: BarRegister, pending: Pending | None) -> bool:
        """Return True if a BAR must wait for more writes: it is being sized, or was written only in part."""
        if any(self._after.is_sizing(offset) for offset in bar.words):
            return True
        full = (1 << 32 * len(bar.words)) - 1
        return pending is not None and pending.lanes != full

    def _adopt(self, index: int, now: Range | None) -> None:
        """Record `now` as the range that was reported last; None: the BAR decodes nothing."""
        if now is None:
            self._mapped.pop(index, None)
        else:
            self._mapped[index] = self._last[index] = now

    def _report(self, bar: BarRegister, now: Range | None, pending: Pending | None) -> None:
        """Add the change of a BAR to the list of changes, record it, and end its pending writes."""
        index, step = bar.index, self._step
        reported = self._mapped.get(index)
        causes: tuple[Cause, ...] = (step.cause,)
        if pending is not None and now is not None:
            causes = pending.causes if pending.causes[-1:] == causes else (*pending.causes, step.cause)
        sbdf, place, kind, last = step.sbdf, self._after.place, bar.kind, self._last.get(index)
        if now is None:
            assert reported is not None
            change: Change = BarUnmapped(
                sbdf=sbdf, place=place, causes=causes, bar=index, kind=kind, before=reported
            )
        elif reported is not None or (last is not None and last != now):
            change = BarMoved(
                sbdf=sbdf, place=place, causes=causes, bar=index, kind=kind, before=reported or last or now,
                after=now, assumed=None if reported is None else Assumption.OBEYED,
            )  # fmt: skip
        else:
            change = BarMapped(sbdf=sbdf, place=place, causes=causes, bar=index, kind=kind, after=now)
        self.changes.append(change)
        self._pending.pop(index, None)
        self._adopt(index, now)


def _vpci_traps(bar: BarRegister) -> bool:
    """Return True if vPCI traps writes to this BAR: memory BARs and the ROM, not I/O BARs."""
    return bar.kind.value != "io"


def _switches(before: FunctionShadow, after: FunctionShadow, step: Step) -> Iterator[Change]:
    """Yield the changes of the decode bits and of the ROM's enable bit.

    A read that shows a bit for the first time is not a change, nor is a ROM enable bit that sizing sets or
    clears.
    """
    one, other = decode_of(before), decode_of(after)
    if other is not None and one != other and (step.is_write or one is not None):
        yield DecodeChanged(sbdf=step.sbdf, place=after.place, causes=(step.cause,), before=one, after=other)
    enabled, enable = rom_enable(before), rom_enable(after)
    if enable is None:
        return
    rom = next((bar for bar in bar_registers(after) if bar.index == ROM_INDEX), None)
    if rom is not None and before.is_sizing(rom.offset):
        enabled = ROM_INDEX in before.mapped  # sizing had cleared the bit
    if rom is None or enabled == enable or not (step.is_write or enabled is not None):
        return
    if not after.is_sizing(rom.offset):
        yield RomChanged(
            sbdf=step.sbdf, place=after.place, causes=(step.cause,), before=enabled, after=enable
        )


def _windows(before: FunctionShadow, after: FunctionShadow, step: Step) -> Iterator[Change]:
    """Yield the changes of a bridge's windows, if the access touches their registers.

    A read that shows a window for the first time is not a change.
    """
    if after.header is not HeaderType.BRIDGE or not any(0x1C <= part.offset <= 0x30 for part in step.parts):
        return
    for kind in WindowKind:
        one, other = window_of(before, kind), window_of(after, kind)
        if other is UNKNOWN or one == other or (one is UNKNOWN and not step.is_write):
            continue
        was = None if one is UNKNOWN else one
        if was != other:
            yield BridgeWindowChanged(
                sbdf=step.sbdf, place=after.place, causes=(step.cause,), window=kind, before=was, after=other
            )


def _virtual(before: FunctionShadow, after: FunctionShadow, step: Step) -> Iterator[Change]:
    """Yield the change of the ranges of virtual functions' BARs: at most one.

    Nothing is yielded while a VF BAR is being sized, if a needed register is unknown, or if a read shows the
    ranges for the first time.
    """
    one, other = vf_ranges(before), vf_ranges(after)
    if one == other or other is UNKNOWN or (one is UNKNOWN and not step.is_write):
        return
    if any(after.is_sizing(offset) for bar in vf_registers(after) for offset in bar.words):
        return
    yield VfBarsChanged(
        sbdf=step.sbdf, place=after.place, causes=(step.cause,),
        before=() if one is UNKNOWN else one, after=other,
    )  # fmt: skip
