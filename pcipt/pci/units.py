"""Byte addresses, page frames and ranges: the one module that converts between them.

An `Address` counts bytes, a `Gfn` pages of 4 KiB as dom0 sees them. They are different types, so that a byte
address used as a frame does not pass the type checker. dom0's MMIO is mapped 1:1: a frame needs one number.
Ranges are start + size; inclusive ends as sysfs, DMAR and Xen print them are converted here and nowhere else.
"""

from typing import NewType

import attrs

Address = NewType("Address", int)
Gfn = NewType("Gfn", int)

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


@attrs.frozen(order=True, weakref_slot=False)
class Range:
    """Bytes from `start` on; `size` is never 0."""

    start: Address
    size: int

    @property
    def last(self) -> Address:
        """The address of the last byte (inclusive end)."""
        return Address(self.start + self.size - 1)

    def overlaps(self, other: "Range") -> bool:
        return self.start <= other.last and other.start <= self.last

    def contains(self, address: int) -> bool:
        return self.start <= address <= self.last

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.last:#x}"


@attrs.frozen(order=True, weakref_slot=False)
class Frames:
    """Pages of 4 KiB from the frame `start` on; `count` is never 0."""

    start: Gfn
    count: int

    @property
    def end(self) -> int:
        """The first frame behind them (exclusive end)."""
        return self.start + self.count

    @property
    def range(self) -> Range:
        return Range(Address(self.start << PAGE_SHIFT), self.count << PAGE_SHIFT)

    def overlaps(self, other: "Frames") -> bool:
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return str(self.range)


def range_from_inclusive(start: int, last: int) -> Range | None:
    """Make a range of an inclusive pair; None where the pair is empty (`last` below `start`)."""
    return Range(Address(start), last - start + 1) if last >= start else None


def frames_from_range(span: Range) -> Frames:
    """Widen a byte range to whole pages."""
    first = span.start >> PAGE_SHIFT
    return Frames(Gfn(first), (span.last >> PAGE_SHIFT) - first + 1)
