"""BAR writes that vPCI drops because the BAR decodes: Linux then has a wrong address of the BAR. Pure.

`Intents` follows the writes and remembers the address that each BAR was to get (its intent). When the
registers are read back, a BAR that still has its old address shows that the write was dropped. A sizing write
(all ones) names no address and is not reported as dropped. vPCI also drops what is written to a BAR that it
takes for mapped although a reset has cleared it. An intent ends when the BAR's present address is written. It
also ends with any write while vPCI does not take the BAR for mapped, because such a write passes.

A write at the address that a function has left, because its bus was renumbered, does not reach hardware
either. vPCI notes it, if it lets it pass, and maps the BAR there with the next switch of decode. When the
function answers at this address again, such writes become intents, too (`returned`).

Source: xen/drivers/vpci/header.c, bar_write ("ignored BAR write while mapped"); Xen's issue 197.
"""

from collections.abc import Iterable, Mapping

import attrs

from pcipt.pci import Address, Bar, Finding, Function, Range, Sbdf
from pcipt.pci.bars import BarKind, name_of_bar
from pcipt.pci.config import COMMAND_MEMORY, bar_word
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import RewriteBar, RewriteCommand
from pcipt.remap.desired import place_of
from pcipt.remap.writes.decoding import bar_registers, bar_value, decode_of, decoded_range
from pcipt.remap.writes.function_shadow import BarRegister, FunctionShadow
from pcipt.remap.writes.registers import COMMAND, WORD, Part, is_possible, merge, split
from pcipt.remap.writes.shadow import Shadow
from pcipt.remap.writes.vpci import Counted, with_decode

NOT_WRITTEN = (0, 0)  # value and known bits of a word
_IN_HEADER = (BarKind.MEM32, BarKind.MEM64)  # in the words of BARs; a ROM is elsewhere


@attrs.frozen
class IgnoredWrite:
    """A BAR that still decodes at address `actual` although `intended` was written to it.

    `size` is in bytes. If `missed` is True, hardware did not get the write, because its bus was renumbered;
    vPCI may have the BAR at either address, and the BAR need not decode.
    """

    place: str
    sbdf: Sbdf
    bar: int
    intended: Address
    actual: Address
    size: int
    missed: bool = False


@attrs.frozen
class _Intent:
    """The registers that a BAR would have if hardware had obeyed all writes to it.

    `words` are its words (offset to value and known bits). `ones` are, by offset, the bits whose most recent
    write consisted of ones only; writes to different bytes add up. `target` is the range that the words name,
    or None if they name no address or the BAR is being sized. `actual` is the address that the BAR had in
    hardware at its last write. `missed` is as in `IgnoredWrite`.
    """

    words: Mapping[int, tuple[int, int]]
    ones: Mapping[int, int]
    target: Range | None
    actual: int
    missed: bool = False


class Intents:
    """The memory BARs whose last writes vPCI may have dropped, by place.

    `away` are addresses that functions have left because their buses were renumbered. `unreached` are those
    of them whose Command register was written meanwhile: if Xen lists the function there, vPCI has mapped or
    unmapped its BARs, and the write did not reach the hardware. The same is so of the BARs whose words, by
    offset, are in `astray`, with value and known bits. The owner of the object changes it in place.
    """

    def __init__(self) -> None:
        self._intents: dict[str, dict[int, _Intent]] = {}
        self._decode: dict[str, bool] = {}
        self.away: set[Sbdf] = set()
        self.unreached: set[Sbdf] = set()
        self.astray: dict[Sbdf, dict[int, tuple[int, int]]] = {}

    def __len__(self) -> int:
        """Return the number of BARs that have an intent, and of addresses in `astray`."""
        return sum(map(len, self._intents.values())) + len(self.astray)

    def follow(self, shadow: Shadow, write: ConfigWrite) -> bool:
        """Start, change or end the intents of the memory BARs that a write touches, and note what it wants of
        memory decode. Return True if that is not what the write before wanted.

        `shadow` must not include the write yet. Nothing changes if the shadow has no function at the address,
        if the width of the write is unknown, or if no hardware can make such an access.
        """
        function = shadow.at(write.sbdf)
        last = write.offset + (write.size or 4)
        if write.sbdf in self.away and write.offset < COMMAND + 2 and last > COMMAND:
            self.unreached.add(write.sbdf)
        if write.sbdf in self.away and write.size is not None:
            self._go_astray(write.sbdf, split(write.offset, write.size, write.value))
        if function is None or write.size is None or not is_possible(write.offset, write.size):
            return False
        place, parts = str(function.place), list(split(write.offset, write.size, write.value))
        wanted = self.wants_decode(place)
        touched = {part.offset for part in parts}
        for part in parts:
            if part.offset == COMMAND and part.lanes & COMMAND_MEMORY:
                self._decode[place] = bool(part.value & COMMAND_MEMORY)
        for bar in bar_registers(function):
            if bar.kind is not BarKind.IO and not touched.isdisjoint(bar.words):
                self._follow(function, bar, parts, shadow.counted_at(function.place))
        return self.wants_decode(place) is not wanted

    def ignored(self, function: Function) -> list[IgnoredWrite]:
        """Return the writes to BARs of `function` that vPCI dropped, in BAR order.

        `function` must just have been read. A BAR whose address changed since the write loses its intent,
        whether or not the BAR decodes. A BAR whose address did not change keeps its intent. The write to such
        a BAR was dropped if the BAR decodes, is not being sized, and a valid address was written. If the
        function does not answer, the list is empty and no intent changes.
        """
        place = place_of(function)
        intents = self._intents.get(place)
        if not intents or not function.answers:
            return []
        found = []
        for bar in function.bars:
            intent = intents.get(bar.index)
            if intent is None:
                continue
            if bar.address != intent.actual:
                self._forget(place, bar.index)
            elif intent.target is not None and (bar.decoding or intent.missed):
                wanted, size = intent.target.start, intent.target.size
                found.append(
                    IgnoredWrite(place, function.sbdf, bar.index, wanted, bar.address, size, intent.missed)
                )
        return found

    def returned(self, function: Function) -> None:
        """Make intents of the BAR writes that went astray at the address of a function that answers there.

        `function` must just have been read. Writes that name the address that hardware has, sizing writes,
        and those to a ROM end without an intent.
        """
        words = self.astray.pop(function.sbdf, None) or {}
        for bar in function.bars if function.answers else ():
            at = bar_word(bar.index).offset if bar.kind in _IN_HEADER else 0
            target = _written(bar, words.get(at, NOT_WRITTEN), words.get(at + 4, NOT_WRITTEN))
            if target is not None and target.start != bar.address:
                intent = _Intent(words={}, ones={}, target=target, actual=bar.address, missed=True)
                self._intents.setdefault(place_of(function), {})[bar.index] = intent

    def missed(self, function: Function) -> frozenset[int]:
        """Return the BARs of a function that have an intent which hardware missed (`IgnoredWrite.missed`)."""
        intents = self._intents.get(place_of(function), {})
        there = {bar.index: bar.address for bar in function.bars} if intents else {}
        found = intents.items()
        return frozenset(bar for bar, each in found if each.missed and there.get(bar) == each.actual)

    def among(self, functions: Iterable[Function]) -> list[IgnoredWrite]:
        """Return what `ignored` returns for each of these functions, in their order.

        The functions must just have been read.
        """
        if not self._intents:
            return []
        return [write for function in functions for write in self.ignored(function)]

    def wanted(self, place: str) -> dict[int, Range]:
        """Return by BAR number the ranges of a place that writes named and vPCI dropped."""
        intents = self._intents.get(place, {}).items()
        return {bar: intent.target for bar, intent in intents if intent.target is not None}

    def wants_decode(self, place: str) -> bool:
        """Return True if the last write to the Command register of a place switched memory decode on."""
        return self._decode.get(place, False)

    @property
    def wanting(self) -> list[str]:
        """The places for which `wants_decode` is True."""
        return [place for place, on in self._decode.items() if on]

    def moved(self, before: Iterable[Sbdf | None], after: Iterable[Sbdf | None]) -> None:
        """Note that renumbered buses have taken functions from the addresses `before` to those `after`."""
        self.away |= {sbdf for sbdf in before if sbdf is not None}
        self.away -= {*after}

    def _go_astray(self, sbdf: Sbdf, parts: Iterable[Part]) -> None:
        """Note the words of BARs that a write would have changed at an address which a function has left."""
        for part in parts:
            if bar_word(0).offset <= part.offset <= bar_word(5).offset:
                words = self.astray.setdefault(sbdf, {})
                value, known = words.get(part.offset, NOT_WRITTEN)
                words[part.offset] = merge(value, part, 0), known | part.lanes

    def drop(self, place: str) -> None:
        """Forget the intents of all BARs of a place, because its function was removed."""
        self._intents.pop(place, None)
        self._decode.pop(place, None)

    def _follow(
        self, function: FunctionShadow, bar: BarRegister, parts: Iterable[Part], counted: Counted
    ) -> None:
        """Start, change or end the intent of one BAR.

        `function` is the shadow before the write, `parts` are those of the write, `counted` what vPCI takes
        for mapped although hardware has lost it. The intent ends if vPCI does not take the BAR for mapped
        before the write, or if the written address is the one that hardware has. A BAR at address 0 counts as
        decoding there: some versions of Xen take it for mapped (`E820_CUTS_BARS`), others let the write pass.
        """
        place = str(function.place)
        lost = bar.index in counted
        before = counted[bar.index] if lost else decoded_range(function, bar) or _range_at_zero(function, bar)
        intent = self._intents.get(place, {}).get(bar.index)
        if not isinstance(before, Range):
            self._forget(place, bar.index)  # hardware obeys while decoding is off
            return
        wanted = with_decode(function) if lost else function
        if intent is not None:
            wanted = wanted.with_words(intent.words, {**function.ones, **intent.ones})
        for part in parts:
            if part.offset in bar.words:
                wanted = wanted.written(part)
        sizing = any(wanted.is_sizing(offset) for offset in bar.words)
        span = decoded_range(wanted, bar)
        target = span if isinstance(span, Range) and not sizing else None
        actual = Address(0) if lost else before.start
        missed = intent is not None and intent.missed
        if target is not None and target.start == actual:
            if not missed:  # else vPCI may have the other address still
                self._forget(place, bar.index)
            return
        self._intents.setdefault(place, {})[bar.index] = _Intent(
            words={offset: wanted.words[offset] for offset in bar.words},
            ones={offset: wanted.ones.get(offset, 0) for offset in bar.words},
            target=target,
            actual=actual,
            missed=missed,
        )

    def _forget(self, place: str, bar: int) -> None:
        """Remove the intent of one BAR; do nothing if it has none."""
        intents = self._intents.get(place, {})
        intents.pop(bar, None)
        if not intents:
            self._intents.pop(place, None)


def _range_at_zero(function: FunctionShadow, bar: BarRegister) -> Range | None:
    """Return the range of a BAR at address 0 while memory decode is on, None for any other BAR and a ROM."""
    decode, size = decode_of(function), function.sizes.get(bar.index)
    if decode is None or not decode.memory or not size or bar.kind is BarKind.ROM:
        return None
    return Range(Address(0), size) if bar_value(function, bar) == 0 else None


def _written(bar: Bar, low: tuple[int, int], high: tuple[int, int]) -> Range | None:
    """Return where a BAR would be if its words had these values in their known bits; None if none is known.

    None is also returned for sizing writes, for a BAR of unknown size, and for address 0.
    """
    value, known = low
    if bar.kind is BarKind.MEM64:
        value, known = value | high[0] << 32, known | high[1] << 32
    ones = low == (WORD, WORD) or (bar.kind is BarKind.MEM64 and high == (WORD, WORD))
    if not known or ones or not bar.size:
        return None
    address = (bar.address & ~known | value & known) & ~(bar.size - 1)
    return Range(Address(address), bar.size) if address else None


def plan_rewrites(ignored: Iterable[IgnoredWrite]) -> tuple[RewriteBar, ...]:
    """Return for each ignored write one action that repeats the write while decoding is off.

    Shape:  sorted by place (as text), then by BAR number.
    """
    ordered = sorted(ignored, key=lambda write: (write.place, write.bar))
    return tuple(
        RewriteBar(
            write.sbdf,
            f"{name_of_bar(write.bar)} was written {_when(write)}",
            write.bar,
            before=write.actual,
            address=write.intended,
            size=write.size,
        )
        for write in ordered
    )


def plan_commands(
    unreached: Iterable[Sbdf], functions: Mapping[Sbdf, Function]
) -> tuple[RewriteCommand, ...]:
    """Return an action for each function at an address of `unreached` that answers there again, sorted."""
    why = (
        "its Command register was written while its bus was renumbered: vPCI acted on the write, but "
        "hardware did not get it"
    )
    found = ((sbdf, functions.get(sbdf)) for sbdf in sorted(unreached))
    return tuple(RewriteCommand(sbdf, why) for sbdf, each in found if each is not None and each.answers)


def _when(write: IgnoredWrite) -> str:
    """Return why hardware did not get a write, in words."""
    if write.missed:
        return (
            "while its bus was renumbered: hardware did not get the write, and Xen may map the BAR at the "
            "new address"
        )
    return "while it decodes, which Xen ignored"


def finding_of(write: IgnoredWrite) -> Finding:
    """Return the finding "bar-write-ignored" for a write that hardware did not get, not repeated by pcipt."""
    cure = "unbind the driver, then pcipt resync"
    if not write.missed:
        cure += ", or write the present address back"
    return Finding(
        "bar-write-ignored",
        f"{name_of_bar(write.bar)} is at {write.actual:#x}, but {write.intended:#x} was written to it "
        f"{_when(write)}; Linux may use an address where nothing answers; {cure}",
    )
