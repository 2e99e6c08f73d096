"""Model dom0's p2m for pages that are mapped 1:1, page by page, as Xen on x86 changes it.

Holes become direct MMIO and direct MMIO becomes a hole. A call that kills dom0 or takes memory from it raises
`Catastrophe`. `map` and `unmap` include libxc's loop: it continues after partial results, an unmap stops at
the first page that is not mapped, and a failed map is undone by such an unmap. The pages of each 2 MiB are
the bits of one integer, so that the cost of a call grows only with the frames that it covers.
Source: Xen xen/arch/x86/mm/p2m.c, map_mmio_regions, unmap_mmio_regions, set_typed_p2m_entry;
        tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL, EPERM
from functools import partial

from pcipt.pci import Frames, Gfn
from pcipt.xen.simulated.model import Catastrophe

ITERATIONS = 64  # per hypercall: MAP_MMIO_MAX_ITER
LAST = 1 << 36  # a guest map of four levels ends here (ept_set_entry: EINVAL)
LOW_1MIB, LOW_RAM = Frames(Gfn(0), 0x100), Frames(Gfn(0), 0x9F)
LOW_IDENTITY = Frames(Gfn(0x9F), 0x61)  # what is not RAM below 1 MiB is mapped 1:1 for a PVH dom0
SHIFT = 9  # 2^9 pages of 4 KiB are one entry of 2 MiB
SIZE = 1 << SHIFT
FULL = (1 << SIZE) - 1
LOW_BITS = (1 << 0x100) - 1  # the pages below 1 MiB, in the first entry


class Extents:
    """A constant set of frames. The given `spans` may overlap."""

    def __init__(self, spans: Iterable[Frames]) -> None:
        self._spans: list[Frames] = []  # sorted, and no two overlap: overlapping spans are joined
        for span in sorted(spans):
            if self._spans and span.start < self._spans[-1].end:
                first = self._spans.pop()
                span = Frames(first.start, max(first.end, span.end) - first.start)  # noqa: PLW2901
            self._spans.append(span)
        self._starts = [span.start for span in self._spans]

    def overlap(self, frames: Frames) -> bool:
        """Return True if one of `frames` is in the set."""
        at = bisect_right(self._starts, frames.end - 1)
        return at > 0 and self._spans[at - 1].overlaps(frames)


class P2m:
    """dom0's p2m (its map from guest frames to machine frames), in which only direct MMIO changes.

    `memory` is dom0's RAM. `special` are frames that Xen has mapped for dom0 itself; those in LOW_IDENTITY
    are mapped 1:1. `trapped` are frames that are not mapped and that Xen emulates. `denied` are frames that
    dom0 may neither map nor unmap.
    """

    def __init__(
        self,
        memory: Iterable[Frames] = (),
        special: Iterable[Frames] = (),
        trapped: Iterable[Frames] = (),
        denied: Iterable[Frames] = (),
    ) -> None:
        self._memory, self._special = Extents(memory), Extents(special)
        self._trapped, self._denied = Extents(trapped), Extents(denied)
        self._direct: dict[int, int] = {}
        if self._special.overlap(LOW_IDENTITY):
            self.set_identity(LOW_IDENTITY)

    def mapped(self, frames: Frames) -> bool:
        """Return True if all of these frames are mapped as direct MMIO."""
        return all(self._direct.get(entry, 0) & bits == bits for entry, bits in _entries(frames))

    def touched(self, frames: Frames) -> bool:
        """Return True if any of these frames is mapped as direct MMIO."""
        return any(self._direct.get(entry, 0) & bits for entry, bits in _entries(frames))

    def direct(self) -> list[Frames]:
        """Return all frames above 1 MiB that are mapped as direct MMIO, as ranges in ascending order.

        No two ranges touch.
        """
        found: list[Frames] = []
        for entry in sorted(self._direct):
            for start, count in _runs(self._direct[entry] if entry else self._direct[entry] & ~LOW_BITS):
                first = entry * SIZE + start
                if found and found[-1].end == first:
                    found[-1] = Frames(found[-1].start, found[-1].count + count)
                else:
                    found.append(Frames(Gfn(first), count))
        return found

    def map(self, frames: Frames, *, failing: tuple[int, int] | None = None) -> int:
        """Map frames as libxc does. Return 0 or -errno.

        If a hypercall fails, the frames are unmapped as `unmap` does. If that unmapping fails too, its -errno
        is returned instead of the first one. -EINVAL: a frame is above 48 address bits; -EPERM: dom0 may not
        map a frame. `failing` is (number of pages, errno): Xen fails with that errno after so many pages.
        Raises: Catastrophe if Xen would kill dom0 or take memory from it.
        """
        answer = self._loop(self.map_once, frames, failing)
        # The caller sees the errno of the last call that failed, which may be the unmap.
        return answer and (self.unmap(frames) or answer)

    def unmap(self, frames: Frames, *, failing: tuple[int, int] | None = None) -> int:
        """Unmap the frames before the first frame that is not direct MMIO, as libxc does. Return 0 or -errno.

        -EINVAL: a frame was not mapped as direct MMIO, or is above 48 address bits; -EPERM: dom0 may not
        unmap a frame. `failing` is (number of pages, errno): Xen fails with that errno after so many pages.
        Raises: Catastrophe if a frame is mapped to neither RAM nor direct MMIO (`special`).
        """
        return self._loop(self.unmap_once, frames, failing)

    def low(self) -> list[int]:
        """Return the frames below 1 MiB that are mapped as direct MMIO, in ascending order."""
        runs = _runs(self._direct.get(0, 0) & LOW_BITS)
        return [frame for start, count in runs for frame in range(start, start + count)]

    def map_as_xen(self, frames: Frames, *, permitted: bool = False) -> int:
        """Map frames as Xen does on its own. After a failure, the pages done so far stay mapped.

        Return 0 or -errno. With `permitted`, frames that dom0 may not map are mapped as well.
        Raises: Catastrophe if Xen would take memory from dom0.
        """
        return self._loop(partial(self._once_as_xen, self._map_own, permitted), frames)

    def unmap_as_xen(self, frames: Frames, *, permitted: bool = False) -> int:
        """Unmap frames as Xen does on its own, up to the first frame that is not direct MMIO.

        Return 0 or -errno. With `permitted`, frames that dom0 may not unmap are unmapped as well.
        """
        return self._loop(partial(self._once_as_xen, self._unmap_own, permitted), frames)

    def make_hole(self, frames: Frames) -> bool:
        """Unmap one frame that is mapped 1:1 or not at all; return False if it is mapped otherwise.

        Xen does so with MSI-X pages (vpci_make_msix_hole).
        """
        if self._memory.overlap(frames) or (
            self._special.overlap(frames) and not LOW_IDENTITY.overlaps(frames)
        ):
            return False
        self.clear_identity(frames)
        return True

    def map_once(self, frames: Frames) -> int:
        """Make one hypercall that maps at most 64 entries. An entry is one page or 2 MiB.

        Return 0 if all pages are done. Return the number of pages done if some are left. Return -errno if Xen
        refuses the frames; then no page is done.
        Raises: Catastrophe if Xen would kill dom0 or take memory from it.
        """
        return self._refuse(frames) or self._iterate(frames, self._map_entry)

    def unmap_once(self, frames: Frames) -> int:
        """Make one hypercall that unmaps at most 64 entries. An entry is one page or 2 MiB.

        Return 0 if all pages are done. Return the number of pages done if some are left. Return -errno if no
        page is done.
        Raises: Catastrophe if a frame is mapped to neither RAM nor direct MMIO (`special`).
        """
        return self._refuse(frames) or self._iterate(frames, self._unmap_entry)

    def set_identity(self, frames: Frames) -> None:
        """Map frames as direct MMIO without any check. Xen does this on its own for reserved memory."""
        for entry, bits in _entries(frames):
            self._direct[entry] = self._direct.get(entry, 0) | bits

    def clear_identity(self, frames: Frames) -> None:
        """Unmap those of the frames that are mapped as direct MMIO.

        Other frames do not change; nothing is raised. Xen does this on its own for reserved memory and for
        MSI-X pages.
        """
        for entry, bits in _entries(frames):
            self._keep(entry, self._direct.get(entry, 0) & ~bits)

    def is_memory(self, frames: Frames) -> bool:
        """Return True if at least one of the frames is RAM or one of the `special` frames of this p2m.

        Direct MMIO gives False.
        """
        return self._memory.overlap(frames) or self._special.overlap(frames)

    def is_trapped(self, frames: Frames) -> bool:
        """Return True if at least one of the frames is not mapped because Xen emulates it (MMCFG)."""
        return self._trapped.overlap(frames)

    def _loop(
        self, once: Callable[[Frames], int], frames: Frames, failing: tuple[int, int] | None = None
    ) -> int:
        """Repeat a hypercall until all frames are done or it fails. Return 0 or -errno.

        `failing` is (number of pages, errno): only so many pages are done, and -errno is returned after them.
        """
        pages, errno = failing or (frames.count, 0)
        done, end = 0, min(pages, frames.count)
        while done < end:
            answer = once(Frames(Gfn(frames.start + done), end - done))
            if answer < 0:
                return answer
            done += answer or end - done
        return -errno

    def _refuse(self, frames: Frames) -> int:
        """Return the -errno with which Xen refuses the frames before it begins; 0 if it does not refuse."""
        if frames.end > LAST:
            return -EINVAL
        return -EPERM if self._denied.overlap(frames) else 0

    def _iterate(self, frames: Frames, change: Callable[[int, int], bool]) -> int:
        """Apply `change` entry by entry, at most 64 times, as one hypercall does.

        An entry is 2 MiB if all its pages are among the frames and in one state, else one page. Return 0 if
        all frames are done. Return the number of pages done if some are left. Return -EINVAL if the first
        change fails.
        """
        done = 0
        for _ in range(ITERATIONS):
            first, left = frames.start + done, frames.count - done
            whole = first % SIZE == 0 and left >= SIZE and self._uniform(first)
            count = SIZE if whole else 1
            if not change(first >> SHIFT, FULL if whole else 1 << first % SIZE):
                return done or -EINVAL
            done += count
            if done == frames.count:
                return 0
        return done

    def _uniform(self, first: int) -> bool:
        """Return True if the 2 MiB from frame `first` on are in one state.

        Xen can then treat them as one entry. The states are: all direct MMIO, and all holes that Xen does not
        trap.
        """
        span = Frames(Gfn(first), SIZE)
        mixed = self._direct.get(first >> SHIFT, 0) not in {0, FULL}
        return not mixed and not any(e.overlap(span) for e in (self._memory, self._special, self._trapped))

    def _once_as_xen(self, change: Callable[[int, int], bool], permitted: bool, frames: Frames) -> int:
        """Do what `map_once` or `unmap_once` does, as Xen on its own."""
        if not permitted and self._denied.overlap(frames):
            return -EPERM
        left = min(frames.count, LAST - frames.start)
        if left < 1:
            return -EINVAL
        answer = self._iterate(Frames(frames.start, left), change)
        return answer or (left if left < frames.count else 0)

    def _map_entry(self, entry: int, bits: int) -> bool:
        """Map the pages `bits` of one 2 MiB entry. Return True.

        Raises: Catastrophe if a page is RAM, one of the `special` frames, or trapped by Xen.
        """
        span = _span(entry, bits)
        if self._special.overlap(span) and not self._memory.overlap(span):
            raise Catastrophe(f"mapping over another mapping at {span}: domain_crash of dom0")
        return self._map_own(entry, bits)

    def _map_own(self, entry: int, bits: int) -> bool:
        """Map the pages `bits` of one 2 MiB entry, also where Xen has mapped them 1:1. Return True.

        Raises: Catastrophe if a page is RAM, or trapped by Xen.
        """
        span = _span(entry, bits)
        if self._memory.overlap(span):
            raise Catastrophe(f"mapping over RAM at {span}: dom0 has lost the memory")
        if self._trapped.overlap(span):
            raise Catastrophe(f"mapping over {span}: Xen traps accesses there no more")
        self._direct[entry] = self._direct.get(entry, 0) | bits
        return True

    def _unmap_entry(self, entry: int, bits: int) -> bool:
        """Unmap the pages `bits` of one 2 MiB entry. Return True.

        Return False, without a change, if one of the pages is not mapped as direct MMIO.
        Raises: Catastrophe if a page is mapped to neither RAM nor direct MMIO (`special`).
        """
        span = _span(entry, bits)
        if self._special.overlap(span):
            raise Catastrophe(f"unmapping {span}, which Xen has mapped for dom0 itself")
        return self._unmap_own(entry, bits)

    def _unmap_own(self, entry: int, bits: int) -> bool:
        """Unmap the pages `bits` of one 2 MiB entry; return False if one of them is not direct MMIO."""
        held = self._direct.get(entry, 0)
        if held & bits != bits:
            return False
        self._keep(entry, held & ~bits)
        return True

    def _keep(self, entry: int, bits: int) -> None:
        """Store `bits` as the mapped pages of a 2 MiB entry; 0 deletes the entry."""
        if bits:
            self._direct[entry] = bits
        else:
            self._direct.pop(entry, None)


def _entries(frames: Frames) -> Iterator[tuple[int, int]]:
    """Yield (number of a 2 MiB entry, bits of its pages) for the frames, in ascending order."""
    start, end = int(frames.start), frames.end
    while start < end:
        entry = start >> SHIFT
        stop = min(end, entry + 1 << SHIFT)
        yield entry, (1 << stop - start) - 1 << start % SIZE
        start = stop


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield (first bit, number of bits) of each run of ones, from bit 0 upward."""
    start = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & bits + 1).bit_length() - 1
        yield start + zeros, ones
        bits >>= ones
        start += zeros + ones


def _span(entry: int, bits: int) -> Frames:
    """Return the frames of the pages `bits` of an entry; the bits must be one run."""
    return Frames(Gfn(entry * SIZE + (bits & -bits).bit_length() - 1), bits.bit_count())
