"""The shadow of one function: a copy of its registers as hardware has them, if they are known. Pure.

A word of the shadow is its value and the mask of the bits that are known: unknown bits are never taken for
zero. A shadow never changes: a method that changes a register returns a new shadow.
"""

from collections.abc import Mapping

import attrs

from pcipt.pci.address import PciPath
from pcipt.pci.bars import LAYOUT, ROM_INDEX, VF_BAR_COUNT, VF_BAR_INDEX, BarKind
from pcipt.pci.config import HeaderType
from pcipt.pci.sriov import SYSTEM_PAGE_SIZE
from pcipt.pci.structures import REBAR, SRIOV, VF_REBAR
from pcipt.pci.units import Range
from pcipt.remap.writes.changes import Cause
from pcipt.remap.writes.registers import WORD, Part, masks, merge

IO_BIT, TYPE_64, TYPE_BITS = 0x1, 0x4, 0x6
ROM_ADDRESS = 0xFFFF_F800
REBAR_SIZE = 0x3F00  # Resizable BAR Control: BAR Size; all other bits are read-only
REBAR_CONTROLS = range(8, 8 + 8 * 6, 8)  # offsets of the control words in a Resizable BAR structure
SRIOV_NUMBERS, SRIOV_BARS = 0x10, 0x24
_MAX_CAUSES = 8


@attrs.frozen
class BarRegister:
    """The register of a BAR. `offset` is that of its (lower) word.

    If `wide` is True, the next word is its upper half. `index` is 0 to 5, 6 for the ROM, 7 to 12 for VF BARs.
    """

    index: int
    kind: BarKind
    offset: int
    wide: bool

    @property
    def words(self) -> tuple[int, ...]:
        """The byte offsets of the register's 32-bit words, the lower word first."""
        return (self.offset, self.offset + 4) if self.wide else (self.offset,)


@attrs.frozen
class Pending:
    """The writes to a BAR that are not reported as a change yet.

    `lanes` is the mask of the bits that were written since the last report; bits 63:32 are the upper word.
    `causes` are the accesses, the oldest first.
    """

    lanes: int = 0
    causes: tuple[Cause, ...] = ()

    def joined(self, lanes: int, cause: Cause) -> "Pending":
        """Return these writes and one more.

        At most the last 8 accesses are kept in `causes`; no bit of `lanes` is lost.
        """
        return Pending(self.lanes | lanes, (*self.causes, cause)[-_MAX_CAUSES:])


@attrs.frozen
class FunctionShadow:
    """The registers of one function, and what was reported of them.

    `words` are by byte offset: value and mask of the known bits. `types` (type bits) and `sizes` (bytes) are
    by BAR number: 0 to 5, 6 the ROM, 7 to 12 VF BARs; size 0 is a BAR that is not implemented. `ones` are by
    offset the bits of BAR words whose last write was all ones (sizing). `capabilities` are by (extended, id):
    the offset of the structure. `mapped` are by BAR number the ranges that were reported to decode, `last`
    the last range that each BAR decoded, `pending` the writes that are not reported yet. `initial_sizes` are
    the sizes that BARs had before a Resizable BAR was changed. `bars` is for `bar_registers` alone.
    """

    place: PciPath
    words: Mapping[int, tuple[int, int]] = attrs.field(factory=dict)
    header: HeaderType | None = None
    virtual: bool = False
    types: Mapping[int, int] = attrs.field(factory=dict)
    sizes: Mapping[int, int] = attrs.field(factory=dict)
    initial_sizes: Mapping[int, int] = attrs.field(factory=dict)
    ones: Mapping[int, int] = attrs.field(factory=dict)
    capabilities: Mapping[tuple[bool, int], int] = attrs.field(factory=dict)
    mapped: Mapping[int, Range] = attrs.field(factory=dict)
    last: Mapping[int, Range] = attrs.field(factory=dict)
    pending: Mapping[int, Pending] = attrs.field(factory=dict)
    bars: tuple[BarRegister, ...] | None = attrs.field(default=None, init=False, eq=False, repr=False)

    def read(self, offset: int, size: int) -> int | None:
        """Return `size` bytes (1, 2 or 4) at `offset` as a number, or None if a bit of them is not known.

        The bytes must lie in one 32-bit word.
        """
        value, known = self.words.get(offset & ~3, (0, 0))
        shift, mask = 8 * (offset & 3), (1 << 8 * size) - 1
        return value >> shift & mask if known >> shift & mask == mask else None

    def is_sizing(self, offset: int) -> bool:
        """Return True if the BAR word at `offset` was last written with all ones, to read the size.

        Only the address bits matter: bits 31:11 for the ROM, else all 32 bits.
        """
        ones = self.ones.get(offset, 0)
        if not ones:
            return False
        full = ROM_ADDRESS if self.index_at(offset) == ROM_INDEX else WORD
        return ones & full == full

    def index_at(self, offset: int) -> int | None:
        """Return the number of the BAR to which the word at `offset` belongs, or None if there is none.

        The upper half of a 64-bit BAR belongs to the number of the lower half. VF BARs are 7 to 12. A virtual
        function has no BAR words, except that the offset of a ROM gives 6.
        """
        base, count, rom = LAYOUT[self.header or HeaderType.ENDPOINT]
        if offset == rom:
            return ROM_INDEX
        first, at = 0, base
        sriov = self.capabilities.get((True, SRIOV))
        if sriov is not None and 0 <= offset - sriov - SRIOV_BARS < 4 * VF_BAR_COUNT:
            first, at, count = VF_BAR_INDEX, sriov + SRIOV_BARS, VF_BAR_COUNT
        number = (offset - at) // 4
        if not 0 <= number < count or self.virtual:
            return None
        return first + number - (number > 0 and self._is_upper(first, number))

    def _is_upper(self, first: int, number: int) -> bool:
        """Return True if word `number`, counted from BAR `first`, is the upper half of a 64-bit BAR."""
        index = 0
        while index < number:
            index += 2 if self.types.get(first + index, 0) & (IO_BIT | TYPE_BITS) == TYPE_64 else 1
        return index != number

    def written(self, part: Part) -> "FunctionShadow":
        """Return the shadow after one word's part of a write. Read-only bits stay as they were.

        A word behind the header on which no range, window or bus number depends is not kept: then this shadow
        itself is returned.
        """
        rule = self._rule(part.offset)
        if rule is None:
            return self
        old, known = self.words.get(part.offset, (0, 0))
        value = merge(old, part, *rule)
        index = self.index_at(part.offset)
        ones = self.ones if index is None else self._ones(part, index)
        words = {**self.words, part.offset: (value, known | part.lanes)}
        return self._with(words, ones, self.mapped, self.last, self.pending)

    def with_words(
        self, words: Mapping[int, tuple[int, int]], ones: Mapping[int, int] | None = None
    ) -> "FunctionShadow":
        """Return the shadow with these words (offset to value and known bits) replaced or added.

        If `ones` is not None, it replaces `ones`.
        """
        ones = self.ones if ones is None else ones
        return self._with({**self.words, **words}, ones, self.mapped, self.last, self.pending)

    def with_report(
        self, mapped: Mapping[int, Range], last: Mapping[int, Range], pending: Mapping[int, Pending]
    ) -> "FunctionShadow":
        """Return the shadow with another record of what was reported."""
        return self._with(self.words, self.ones, mapped, last, pending)

    def _with(
        self,
        words: Mapping[int, tuple[int, int]],
        ones: Mapping[int, int],
        mapped: Mapping[int, Range],
        last: Mapping[int, Range],
        pending: Mapping[int, Pending],
    ) -> "FunctionShadow":
        """Return the shadow with other values or another record. Its BARs are of the same types and sizes.

        These are the changes of every write; `attrs.evolve` is five times slower.
        """
        found = FunctionShadow(
            self.place, words, self.header, self.virtual, self.types, self.sizes, self.initial_sizes, ones,
            self.capabilities, mapped, last, pending,
        )  # fmt: skip
        object.__setattr__(found, "bars", self.bars)
        return found

    def _ones(self, part: Part, index: int) -> Mapping[int, int]:
        """Return `ones` after one word's part of a write to BAR `index`."""
        address = ROM_ADDRESS if index == ROM_INDEX else WORD
        lanes, before = part.lanes & address, self.ones.get(part.offset, 0)
        all_ones = lanes != 0 and part.value & lanes == lanes
        now = before | lanes if all_ones else before & ~part.lanes
        return self.ones if now == before else {**self.ones, part.offset: now}

    def _rule(self, offset: int) -> tuple[int, int] | None:
        """Return the read-only and the write-one-to-clear bits of a word, or None if the word is not kept."""
        index = self.index_at(offset)
        if index is not None:
            return self._fixed_bits(index, offset), 0
        if offset < 0x40:
            return masks(self.header or HeaderType.UNKNOWN, offset)
        sriov = self.capabilities.get((True, SRIOV))
        if sriov is not None and offset - sriov in {8, SRIOV_NUMBERS}:
            return 0xFFFF_0000, 0
        if sriov is not None and offset - sriov == SYSTEM_PAGE_SIZE:
            return 0, 0
        for kind in (REBAR, VF_REBAR):
            at = self.capabilities.get((True, kind))
            if at is not None and offset - at in REBAR_CONTROLS:
                return ~REBAR_SIZE & WORD, 0
        return None

    def _fixed_bits(self, index: int, offset: int) -> int:
        """Return the bits of a BAR word that writes do not change: type bits, address bits below the size.

        All bits of a BAR that is not implemented are fixed. The enable bit of a ROM is not fixed.
        """
        size, kind = self.sizes.get(index), self.types.get(index)
        if size == 0:
            return WORD
        below = (size or 1) - 1
        if index == ROM_INDEX:
            return (below | ~ROM_ADDRESS) & WORD & ~1
        if self.index_at(offset - 4) == index:
            return below >> 32
        if kind is None:
            return below & WORD
        return (below | (0x3 if kind & IO_BIT else 0xF)) & WORD
