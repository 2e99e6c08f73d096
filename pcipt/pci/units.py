"""Define byte addresses, page frames and ranges. Only this module converts between them.

An `Address` counts bytes, a `Gfn` counts pages of 4 KiB as dom0 sees them. They are different types, so the
type checker finds a byte address that is used as a frame. dom0's MMIO is mapped 1:1, so the guest frame and
the machine frame have the same number. Ranges have a start and a size. The inclusive ends of sysfs, DMAR and
Xen are converted here.
"""

from pcipt import values as attrs
from pcipt.hints import NewType

Address = NewType("Address", int)
Gfn = NewType("Gfn", int)

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


@attrs.frozen(order=True, weakref_slot=False)
class Range:
    """A range of bytes (or ports) that begins at `start`. `size` must not be 0; this is not checked. Ranges
    compare by start, then size.
    """

    start: Address
    size: int

    @property
    def last(self) -> Address:
        """Return the address of the last byte (inclusive end)."""
        return Address(self.start + self.size - 1)

    def overlaps(self, other: "Range") -> bool:
        """Return True if the two ranges have at least one byte in common."""
        return self.start <= other.last and other.start <= self.last

    def contains(self, address: int) -> bool:
        """Return True if `address` lies in the range."""
        return self.start <= address <= self.last

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.last:#x}"


@attrs.frozen(order=True, weakref_slot=False)
class Frames:
    """A range of pages of 4 KiB that begins at frame `start`. `count` is the number of pages. It must not be
    0; this is not checked. Two `Frames` compare by start, then count.
    """

    start: Gfn
    count: int

    @property
    def end(self) -> int:
        """Return the number of the first frame after the range (exclusive end)."""
        return self.start + self.count

    @property
    def range(self) -> Range:
        """Return the same range in bytes."""
        return Range(Address(self.start << PAGE_SHIFT), self.count << PAGE_SHIFT)

    def overlaps(self, other: "Frames") -> bool:
        """Return True if the two ranges have at least one page in common."""
        return self.start < other.start + other.count and other.start < self.start + self.count

    def __str__(self) -> str:
        return str(self.range)


def range_from_inclusive(start: int, last: int) -> Range | None:
    """Return the range from `start` to `last` (inclusive), or None if `last` is below `start`."""
    return Range(Address(start), last - start + 1) if last >= start else None


def frames_from_range(span: Range) -> Frames:
    """Return the pages that contain the bytes of `span`; both ends are widened to whole pages."""
    first = span.start >> PAGE_SHIFT
    return Frames(Gfn(first), (span.last >> PAGE_SHIFT) - first + 1)
