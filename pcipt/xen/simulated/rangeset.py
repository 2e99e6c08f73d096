"""Model Xen's sets of page ranges, with the faults that some versions have. Pure.

A set is a sorted list of ranges with inclusive ends. Xen walks it as a linked list: where it reads behind the
end of the list, the host is down.
Source: Xen xen/common/rangeset.c (rangeset_add_range, rangeset_remove_range).
"""

from collections.abc import Iterator

from pcipt.pci import Frames, Gfn
from pcipt.xen.simulated.model import Catastrophe


class Rangeset:
    """A set of page ranges. `grows` is the fault `RANGESET_GROWS` of this Xen.

    A range whose end is below its start (an address that wraps) is taken as Xen takes it.
    """

    def __init__(self, *, grows: bool) -> None:
        self._grows = grows
        self._ranges: list[list[int]] = []  # [first, last], sorted

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of each range in ascending order."""
        return iter([(first, last) for first, last in self._ranges])

    def clear(self) -> None:
        """Remove all ranges."""
        self._ranges = []

    def overlaps(self, first: int, last: int) -> bool:
        """Return True if a page of the range is in the set."""
        at = self._find(last)
        return at >= 0 and self._ranges[at][1] >= first

    def add(self, first: int, last: int) -> None:
        """Add a range and join it with its neighbours.

        Raises: Catastrophe if Xen follows a pointer behind the end of its list.
        """
        ranges = self._ranges
        low, high = self._find(first), self._find(last)
        if low == high:
            if low < 0 or ranges[low][1] + 1 < first:
                low += 1
                ranges.insert(low, [first, last])
            elif ranges[low][1] < last:
                ranges[low][1] = last
        else:
            if low < 0:
                low = 0
                ranges[low][0] = first
            elif ranges[low][1] + 1 < first:
                low = self._next(low)
                ranges[low][0] = first
            if high < 0:
                raise Catastrophe(f"adding {first:x}-{last:x}: rangeset_add_range, NULL")
            ranges[low][1] = max(ranges[high][1], last)
            while low + 1 < len(ranges) and ranges[low + 1][1] <= ranges[low][1]:
                del ranges[low + 1]
        if low + 1 < len(ranges) and ranges[low][1] + 1 == ranges[low + 1][0]:
            ranges[low][1] = ranges[low + 1][1]
            del ranges[low + 1]

    def remove(self, first: int, last: int) -> None:
        """Remove the pages of a range.

        Raises: Catastrophe if Xen follows a pointer behind the end of its list.
        """
        ranges = self._ranges
        low, high = self._find(first), self._find(last)
        if low == high:
            if low >= 0 and ranges[low][1] >= first:
                start, end = ranges[low]
                left = [[start, first - 1]] if start < first else []
                right = [[last + 1, end]] if end > last else []
                ranges[low : low + 1] = [*left, *right]
            return
        at = max(low, 0)
        if ranges[at][0] < first:
            if self._grows or ranges[at][1] >= first:
                ranges[at][1] = first - 1
            at += 1
        if at > high:
            raise Catastrophe(f"removing {first:x}-{last:x}: rangeset_remove_range, NULL")
        del ranges[at:high]
        ranges[at][0] = last + 1
        if ranges[at][0] > ranges[at][1]:
            del ranges[at]

    def _find(self, page: int) -> int:
        """Return the number of the last range that begins at or below a page, -1 if there is none."""
        found = -1
        for number, (first, _) in enumerate(self._ranges):
            if first > page:
                break
            found = number
        return found

    def _next(self, at: int) -> int:
        """Return the number of the next range. Raises: Catastrophe if there is none."""
        if at + 1 == len(self._ranges):
            raise Catastrophe("a range behind the end of the list: rangeset_add_range, NULL")
        return at + 1


def frames_of(first: int, last: int) -> Frames:
    """Return a range of a set as frames."""
    return Frames(Gfn(first), last - first + 1)
