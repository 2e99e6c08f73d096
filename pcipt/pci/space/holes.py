"""Find room in a range of addresses: what is used, what is free, and the largest naturally aligned hole.

A hole is naturally aligned if its size is a power of 2 and its start a multiple of its size: BARs need that.

Source: PCI Local Bus 3.0 §6.2.5.1 (BARs are naturally aligned powers of 2).
"""

from collections.abc import Iterable

from pcipt.pci.units import Address, Range, range_from_inclusive


def gaps_in(window: Range, used: Iterable[Range]) -> tuple[Range, ...]:
    """Return the parts of `window` that no range of `used` covers, in ascending order.

    The ranges of `used` may overlap, and may reach beyond the window.
    """
    found: list[Range] = []
    free = int(window.start)
    for span in sorted(used):
        if span.start > window.last:
            break
        gap = range_from_inclusive(free, span.start - 1)
        if gap is not None:
            found.append(gap)
        free = max(free, span.last + 1)
    gap = range_from_inclusive(free, window.last)
    return (*found, gap) if gap is not None else tuple(found)


def largest_hole(gaps: Iterable[Range]) -> Range | None:
    """Return the largest naturally aligned hole in `gaps`, the first of equal ones; None without gaps."""
    best: Range | None = None
    for gap in gaps:
        size = 1 << gap.size.bit_length() - 1
        while (start := _aligned(gap.start, size)) + size - 1 > gap.last:
            size >>= 1
        if best is None or size > best.size:
            best = Range(Address(start), size)
    return best


def room_for(gaps: Iterable[Range], alignment: int) -> int:
    """Return the most bytes in a row in `gaps` that begin at a multiple of `alignment`; 0 for none."""
    return max([0, *(gap.last + 1 - _aligned(gap.start, alignment) for gap in gaps)])


def place_for(gaps: Iterable[Range], alignment: int, size: int) -> Range | None:
    """Return the lowest `size` bytes in a row in `gaps` that begin at a multiple of `alignment`, or None."""
    for gap in gaps:
        start = _aligned(gap.start, alignment)
        if start + size - 1 <= gap.last:
            return Range(Address(start), size)
    return None


def _aligned(address: int, alignment: int) -> int:
    """Return the lowest multiple of `alignment` that is not below `address`."""
    return -(-address // alignment) * alignment
