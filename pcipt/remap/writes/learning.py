"""Learn from reads: the values of registers, and BAR sizes from the read that follows a write of all ones.

Pure.

A recording of ports has reads as well as writes. A live source has no reads: there the machine is read at the
start.

Source: PCI Local Bus 3.0 §6.2.5.1 (sizing); PCI Express Base 6.0 §7.6.3 (extended capabilities), §7.8.6-7
        (Resizable BAR Control).
"""

import attrs

from pcipt.pci.bars import ROM_INDEX, VF_BAR_INDEX
from pcipt.pci.config import EXTENDED_SIZE, HEADER_SIZE, LEGACY_SIZE, HeaderType
from pcipt.pci.structures import REBAR, VF_REBAR
from pcipt.remap.writes.function_shadow import (
    IO_BIT,
    REBAR_SIZE,
    ROM_ADDRESS,
    TYPE_64,
    TYPE_BITS,
    FunctionShadow,
)
from pcipt.remap.writes.registers import WORD, Part

_HEADERS = {0: HeaderType.ENDPOINT, 1: HeaderType.BRIDGE, 2: HeaderType.CARDBUS}
_BRIDGE_CLASS = 0x0604
_REBAR_UNIT = 20  # sizes are powers of two from 1 MiB on
REBARS = {REBAR: 0, VF_REBAR: VF_BAR_INDEX}  # structure: number of its first BAR in the shadow


def taught(function: FunctionShadow, part: Part) -> FunctionShadow:
    """Return the shadow after a read. `part` is the part of the read that lies in one 32-bit word.

    The new shadow has the value that was read, and the header type, BAR types and sizes, and capabilities
    that follow from it. If nothing changes, `function` itself is returned.
    """
    old, known = function.words.get(part.offset, (0, 0))
    value, all_known = old & ~part.lanes | part.value, known | part.lanes
    if (value, all_known) == (old, known) and not function.is_sizing(part.offset):
        return function
    after = function.with_words({part.offset: (value, all_known)})
    if part.offset in {0x08, 0x0C}:
        after = attrs.evolve(after, header=header_of(after))
    if after.index_at(part.offset) is not None and all_known == WORD:
        after = _learn_bar(after, part.offset, value)
    elif part.offset >= HEADER_SIZE or part.offset == 0x34:
        after = _learn_structures(after)
    return after


def header_of(function: FunctionShadow) -> HeaderType | None:
    """Return the header type that the known registers show.

    The header type register decides; its unknown layouts give UNKNOWN. If it is not known, the class of a PCI
    bridge gives BRIDGE. Else the result is the type that the shadow has, which may be None.
    """
    layout = function.read(0x0E, 1)
    if layout is not None:
        return _HEADERS.get(layout & 0x7F, HeaderType.UNKNOWN)
    if function.read(0x0A, 2) == _BRIDGE_CLASS:
        return HeaderType.BRIDGE
    return function.header


def inferred_header(function: FunctionShadow, offset: int, size: int, value: int) -> HeaderType | None:
    """Return the header type of the shadow; if it has none, BRIDGE if a write shows a bridge, else None.

    `offset`, `size` and `value` are those of the write. Nobody writes a BAR by bytes or halves, but bus
    numbers, windows and control of a bridge are written so. Bus numbers that are written as one word at 0x18
    differ from an address: they are in ascending order.
    """
    if function.header is not None:
        return function.header
    narrow = size < 4 and (0x18 <= offset <= 0x1D or 0x20 <= offset <= 0x27 or offset == 0x3E)
    primary, secondary, subordinate = value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF
    numbers = offset == 0x18 and size == 4 and primary < secondary <= subordinate and value >> 24 < 0x80
    if narrow or numbers:
        return HeaderType.BRIDGE
    return None


def _learn_bar(function: FunctionShadow, offset: int, value: int) -> FunctionShadow:
    """Return the shadow with what a read BAR word shows: the BAR's type and, after a sizing write, its size.

    `offset` and `value` are those of the word. The word must belong to a BAR and be known completely.
    """
    index = function.index_at(offset)
    assert index is not None
    upper = index != ROM_INDEX and function.index_at(offset - 4) == index
    types = dict(function.types)
    if not upper and index != ROM_INDEX:
        types[index] = value & (0x3 if value & IO_BIT else 0xF)
    after = function if types == function.types else attrs.evolve(function, types=types)
    if not function.is_sizing(offset):
        return after
    size = _size_from_mask(after, index, value, upper=upper)
    return after if size is None else attrs.evolve(after, sizes={**after.sizes, index: size})


def _size_from_mask(function: FunctionShadow, index: int, value: int, *, upper: bool) -> int | None:
    """Return a BAR's size in bytes from the word that is read after all ones were written.

    Return None if this word does not show it: the lower word of a 64-bit BAR of 4 GiB or more, or an upper
    word that is 0 or whose BAR has a known size already. 0 says that the BAR is not implemented.
    """
    if upper:
        if function.sizes.get(index):
            return None
        return (value & -value) << 32 or None
    bits = function.types.get(index, 0)
    fixed = ~ROM_ADDRESS if index == ROM_INDEX else 0x3 if bits & IO_BIT else 0xF
    mask = value & ~fixed & WORD
    if not mask and bits & (IO_BIT | TYPE_BITS) == TYPE_64:
        return None  # 4 GiB or more: the upper half shows the size
    # The lowest writable bit: I/O BARs may have none above bit 15.
    return mask & -mask


def _learn_structures(function: FunctionShadow) -> FunctionShadow:
    """Return the shadow with the capabilities, and the sizes of Resizable BARs, that its words show."""
    found = {**function.capabilities, **_walk(function)}
    after = attrs.evolve(function, capabilities=found)
    sizes = rebar_sizes(after)
    if sizes.items() <= after.sizes.items():
        return after
    return attrs.evolve(after, sizes={**after.sizes, **sizes})


def rebar_sizes(function: FunctionShadow) -> dict[int, int]:
    """Return the sizes in bytes that Resizable BAR structures have set, by BAR number; VF BARs are 7 to 12.

    Empty if the function has no known structure of that kind. A structure whose first control word is not
    known is left out, and so is a BAR whose control word is not known.
    """
    found = {}
    for kind, first_bar in REBARS.items():
        at = function.capabilities.get((True, kind))
        first = function.read(at + 8, 4) if at is not None else None
        if at is None or first is None:
            continue
        for number in range(min(first >> 5 & 7, 6)):
            control = function.read(at + 8 + 8 * number, 4)
            if control is not None and control & 7 < ROM_INDEX:
                size = 1 << (_REBAR_UNIT + ((control & REBAR_SIZE) >> 8))
                found[first_bar + (control & 7)] = size
    return found


def _walk(function: FunctionShadow) -> dict[tuple[bool, int], int]:
    """Return the offsets of the structures in both capability lists by (extended, id).

    A list ends before the first structure whose head is not known, or that was visited. The extended list
    also ends before a head of 0 or of all ones. If an id occurs twice in a list, the first structure is
    returned.
    """
    found: dict[tuple[bool, int], int] = {}
    seen = set()
    offset = (function.read(0x34, 1) or 0) & ~3
    while HEADER_SIZE <= offset < LEGACY_SIZE and offset not in seen:
        seen.add(offset)
        head = function.read(offset, 2)
        if head is None:
            break
        found.setdefault((False, head & 0xFF), offset)
        offset = head >> 8 & ~3
    offset = LEGACY_SIZE
    while LEGACY_SIZE <= offset < EXTENDED_SIZE and offset not in seen:
        seen.add(offset)
        head = function.read(offset, 4)
        if head is None or head in {0, WORD}:
            break
        found.setdefault((True, head & 0xFFFF), offset)
        offset = head >> 20 & ~3
    return found
