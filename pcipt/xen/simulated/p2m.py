"""dom0's p2m as far as pages are mapped 1:1: what one map or unmap does, page by page, as x86 Xen does it.

Holes become direct MMIO and back. What kills dom0 or takes memory from it raises `Catastrophe`. On top is
libxc's loop: partial returns are followed, an unmap ends at the first page that is not mapped, a failed map
is undone by such an unmap. Pages are bits of one integer for each 2 MiB, so that a call costs what it covers.

Source: Xen xen/arch/x86/mm/p2m.c, map_mmio_regions, unmap_mmio_regions, set_typed_p2m_entry;
tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL, EPERM

from pcipt.pci import Frames, Gfn
from pcipt.xen.simulated.model import Catastrophe

ITERATIONS = 64  # of one hypercall: MAP_MMIO_MAX_ITER
LAST = 1 << 40  # frames of a 52-bit machine
SHIFT = 9  # of 4 KiB pages in a 2 MiB entry
SIZE = 1 << SHIFT
FULL = (1 << SIZE) - 1


class Extents:
    """Frames that do not change: is one of these among them?"""

    def __init__(self, spans: Iterable[Frames]) -> None:
        self._spans = sorted(spans)
        self._starts = [span.start for span in self._spans]

    def overlap(self, frames: Frames) -> bool:
        at = bisect_right(self._starts, frames.end - 1)
        return any(span.overlaps(frames) for span in self._spans[max(0, at - 1) : at])


class P2m:
    """What is not direct MMIO does not change.

    `memory` is dom0's RAM, `special` mapped to something else, `trapped` emulated by Xen while it is a hole,
    `denied` not dom0's to map.
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

    def mapped(self, frames: Frames) -> bool:
        """Tell whether all of these frames are mapped."""
        return all(self._direct.get(entry, 0) & bits == bits for entry, bits in _entries(frames))

    def touched(self, frames: Frames) -> bool:
        """Tell whether any of these frames is mapped."""
        return any(self._direct.get(entry, 0) & bits for entry, bits in _entries(frames))

    def direct(self) -> list[Frames]:
        """List all that is mapped, joined and in order."""
        found: list[Frames] = []
        for entry in sorted(self._direct):
            for start, count in _runs(self._direct[entry]):
                first = entry * SIZE + start
                if found and found[-1].end == first:
                    found[-1] = Frames(found[-1].start, found[-1].count + count)
                else:
                    found.append(Frames(Gfn(first), count))
        return found

    def map(self, frames: Frames, *, failing: tuple[int, int] | None = None) -> int:
        """Map as libxc does: after a failure what was done is undone.

        Shape:  0 or -errno. `failing` makes Xen answer an errno (second) after so many pages (first).
        """
        answer = self._loop(self.map_once, frames, failing)
        # The errno that the caller sees is that of the last call that failed, which may be the undoing.
        return answer and (self.unmap(frames) or answer)

    def unmap(self, frames: Frames, *, failing: tuple[int, int] | None = None) -> int:
        """Unmap as libxc does: what is in front of the first page that is not mapped, nothing behind it."""
        return self._loop(self.unmap_once, frames, failing)

    def map_as_xen(self, frames: Frames) -> int:
        """Map as Xen does on its own behalf: what was done before a failure stays."""
        return self._loop(self.map_once, frames)

    unmap_as_xen = unmap

    def map_once(self, frames: Frames) -> int:
        """One hypercall: 0 when all is done, the number of pages done, or -errno."""
        return self._refuse(frames) or self._iterate(frames, self._map_entry)

    def unmap_once(self, frames: Frames) -> int:
        return self._refuse(frames) or self._iterate(frames, self._unmap_entry)

    def set_identity(self, frames: Frames) -> None:
        """Map as Xen itself does, for vPCI's BARs and for reserved memory."""
        for entry, bits in _entries(frames):
            self._direct[entry] = self._direct.get(entry, 0) | bits

    def clear_identity(self, frames: Frames) -> None:
        """Unmap as Xen does for itself: what is not mapped is passed over."""
        for entry, bits in _entries(frames):
            self._keep(entry, self._direct.get(entry, 0) & ~bits)

    def is_memory(self, frames: Frames) -> bool:
        return self._memory.overlap(frames) or self._special.overlap(frames)

    def _loop(
        self, once: Callable[[Frames], int], frames: Frames, failing: tuple[int, int] | None = None
    ) -> int:
        pages, errno = failing or (frames.count, 0)
        done, end = 0, min(pages, frames.count)
        while done < end:
            answer = once(Frames(Gfn(frames.start + done), end - done))
            if answer < 0:
                return answer
            done += answer or end - done
        return -errno

    def _refuse(self, frames: Frames) -> int:
        if frames.end > LAST:
            return -EINVAL
        return -EPERM if self._denied.overlap(frames) else 0

    def _iterate(self, frames: Frames, change: Callable[[int, int], bool]) -> int:
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
        """Tell whether 2 MiB are in one state, so that Xen can treat them as one entry."""
        span = Frames(Gfn(first), SIZE)
        mixed = self._direct.get(first >> SHIFT, 0) not in {0, FULL}
        return not mixed and not any(e.overlap(span) for e in (self._memory, self._special, self._trapped))

    def _map_entry(self, entry: int, bits: int) -> bool:
        span = _span(entry, bits)
        if self._memory.overlap(span):
            raise Catastrophe(f"mapping over RAM at {span}: dom0 has lost the memory")
        if self._special.overlap(span):
            raise Catastrophe(f"mapping over another mapping at {span}: domain_crash of dom0")
        if self._trapped.overlap(span):
            raise Catastrophe(f"mapping over {span}: Xen traps accesses there no more")
        self._direct[entry] = self._direct.get(entry, 0) | bits
        return True

    def _unmap_entry(self, entry: int, bits: int) -> bool:
        span = _span(entry, bits)
        if self._special.overlap(span):
            raise Catastrophe(f"unmapping {span}, which Xen has mapped for dom0 itself")
        held = self._direct.get(entry, 0)
        if held & bits != bits:
            return False
        self._keep(entry, held & ~bits)
        return True

    def _keep(self, entry: int, bits: int) -> None:
        if bits:
            self._direct[entry] = bits
        else:
            self._direct.pop(entry, None)


def _entries(frames: Frames) -> Iterator[tuple[int, int]]:
    """Cut frames at 2 MiB: the number of each entry and the bits of its pages."""
    start, end = int(frames.start), frames.end
    while start < end:
        entry = start >> SHIFT
        stop = min(end, entry + 1 << SHIFT)
        yield entry, (1 << stop - start) - 1 << start % SIZE
        start = stop


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    start = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & bits + 1).bit_length() - 1
        yield start + zeros, ones
        bits >>= ones
        start += zeros + ones


def _span(entry: int, bits: int) -> Frames:
    return Frames(Gfn(entry * SIZE + (bits & -bits).bit_length() - 1), bits.bit_count())
