"""BAR writes that vPCI drops because the function decodes: Linux then believes an address hardware has not.

`Intents` follows the writes and remembers what each asked for; what was read back since tells which of them
hardware does not have. Sizing never counts, a write back to the present address ends it, and so does a write
with decoding off, which vPCI passes on. One owner changes it in place.
Source: xen/drivers/vpci/header.c, bar_write ("ignored BAR write while mapped"); Xen's issue 197.
"""

from collections.abc import Iterable, Mapping

import attrs

from pcipt.pci import Address, Finding, Function, Range, Sbdf
from pcipt.pci.bars import BarKind
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import RewriteBar
from pcipt.remap.desired import place_of
from pcipt.remap.plan_mappings import name_of_bar
from pcipt.remap.writes.decoding import bar_registers, decoded_range
from pcipt.remap.writes.function_shadow import BarRegister, FunctionShadow
from pcipt.remap.writes.registers import is_possible, split
from pcipt.remap.writes.shadow import Shadow


@attrs.frozen
class IgnoredWrite:
    """A BAR that decodes at `actual` although `intended` was written to it."""

    place: str
    sbdf: Sbdf
    bar: int
    intended: Address
    actual: Address
    size: int


@attrs.frozen
class _Intent:
    """What a BAR's words would hold had hardware obeyed, their bits whose last write was all ones, and the
    range that they name; None while that is no address.
    """

    words: Mapping[int, tuple[int, int]]
    ones: Mapping[int, int]
    target: Range | None
    before: Range


class Intents:
    def __init__(self) -> None:
        self._intents: dict[str, dict[int, _Intent]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._intents.values()))

    def follow(self, shadow: Shadow, write: ConfigWrite) -> None:
        """Take in a write, before the shadow folds it."""
        function = shadow.at(write.sbdf)
        if function is None or write.size is None or not is_possible(write.offset, write.size):
            return
        touched = {part.offset for part in split(write.offset, write.size, write.value)}
        for bar in bar_registers(function):
            if bar.kind is not BarKind.IO and touched.intersection(bar.words):
                self._follow(function, bar, write)

    def ignored(self, function: Function) -> list[IgnoredWrite]:
        """Compare with what was just read back of a function; a BAR that has moved since is over."""
        place = place_of(function)
        intents = self._intents.get(place)
        if not intents or not function.answers:
            return []
        found = []
        for bar in function.bars:
            intent = intents.get(bar.index)
            if intent is None:
                continue
            if bar.address != intent.before.start:
                self._forget(place, bar.index)
            elif intent.target is not None and bar.decoding:
                wanted, size = intent.target.start, intent.target.size
                found.append(IgnoredWrite(place, function.sbdf, bar.index, wanted, bar.address, size))
        return found

    def among(self, functions: Iterable[Function]) -> list[IgnoredWrite]:
        """List what is ignored of these functions, as they were just read back."""
        if not self._intents:
            return []
        return [write for function in functions for write in self.ignored(function)]

    def drop(self, place: str) -> None:
        """Forget a function that has left."""
        self._intents.pop(place, None)

    def _follow(self, function: FunctionShadow, bar: BarRegister, write: ConfigWrite) -> None:
        place = str(function.place)
        before = decoded_range(function, bar)
        held = self._intents.get(place, {}).get(bar.index)
        if not isinstance(before, Range):
            self._forget(place, bar.index)  # with decoding off hardware obeys
            return
        wanted = function
        if held is not None:
            words, ones = {**function.words, **held.words}, {**function.ones, **held.ones}
            wanted = attrs.evolve(function, words=words, ones=ones)
        for part in split(write.offset, write.size or 0, write.value):
            if part.offset in bar.words:
                wanted = wanted.written(part)
        sizing = any(wanted.is_sizing(offset) for offset in bar.words)
        span = decoded_range(wanted, bar)
        target = span if isinstance(span, Range) and not sizing else None
        if target == before:
            self._forget(place, bar.index)
            return
        self._intents.setdefault(place, {})[bar.index] = _Intent(
            words={offset: wanted.words[offset] for offset in bar.words},
            ones={offset: wanted.ones.get(offset, 0) for offset in bar.words},
            target=target,
            before=before,
        )

    def _forget(self, place: str, bar: int) -> None:
        intents = self._intents.get(place, {})
        intents.pop(bar, None)
        if not intents:
            self._intents.pop(place, None)


def plan_rewrites(ignored: Iterable[IgnoredWrite]) -> tuple[RewriteBar, ...]:
    """Plan to repeat each write so that vPCI takes it: decoding off, the write, decoding on."""
    ordered = sorted(ignored, key=lambda write: (write.place, write.bar))
    return tuple(
        RewriteBar(
            write.sbdf,
            f"{name_of_bar(write.bar)} was written while it decodes, which Xen ignored",
            write.bar,
            before=write.actual,
            address=write.intended,
            size=write.size,
        )
        for write in ordered
    )


def finding_of(write: IgnoredWrite) -> Finding:
    """Tell of a write that was not, or not yet, repeated."""
    return Finding(
        "bar-write-ignored",
        f"{name_of_bar(write.bar)} is at {write.actual:#x}, but {write.intended:#x} was written to it "
        "while it decoded, which Xen ignored: Linux may use an address where nothing answers; unbind the "
        "driver, then pcipt resync, or write the present address back",
    )
