"""Map, unmap and list memory as the interface promises, with several calls of libxc or Xen if needed.

libxc's unmap stops at the first page that is not mapped, leaves the pages behind it mapped, and returns
EINVAL. After a failed map libxc undoes the map by such an unmap. Here the remaining mapped pages are searched
by halving the range. Each call that fails prints a line on Xen's console, which may be a slow serial line. So
the search is limited to TRIES calls. Pages that are scattered more widely stay mapped.
Source: Xen tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping; xen/arch/x86/mm/p2m.c, unmap_mmio_regions;
        xen/common/memory.c, XENMEM_reserved_device_memory_map.
"""

from collections.abc import Callable, Sequence
from errno import EACCES, EINTR, EINVAL, ENOBUFS, ENOSYS, EPERM

from pcipt.pci import Frames, Gfn

ATTEMPTS = 8  # for a call that is interrupted, or a list that grows while it is read
TRIES = 128
UNTOUCHED = frozenset({-EPERM, -EACCES, -ENOSYS})  # returned before the first page is changed

Primitive = Callable[[Frames], int]  # 0 or -errno


def persist(call: Primitive, frames: Frames) -> int:
    """Call `call(frames)` until its result is not -EINTR, at most 8 times in all. Return the last result.

    The result is -EINTR if all 8 calls returned it.
    """
    answer = -EINTR
    for _ in range(ATTEMPTS):
        answer = call(frames)
        if answer != -EINTR:
            break
    return answer


def map_frames(add: Primitive, remove: Primitive, frames: Frames) -> int:
    """Map all the frames by `add`. Return the result of `add`: 0 or -errno.

    If the error is in UNTOUCHED, `add` has changed nothing, and nothing is unmapped. After any other error
    all the frames are unmapped by `unmap_frames`, whether or not they were mapped before the call.
    """
    answer = persist(add, frames)
    if answer < 0 and answer not in UNTOUCHED:
        unmap_frames(remove, frames)
    return answer


def unmap_frames(remove: Primitive, frames: Frames) -> int:
    """Unmap the frames that are mapped, by `remove`, which stops at the first frame that is not mapped.

    Return the result of the first call: 0, -EINVAL if some frames were not mapped, or another -errno. After
    -EINVAL the remaining mapped frames are searched by halving the range, with at most TRIES calls. Errors in
    this search are ignored. Without -EINVAL nothing is searched.
    """
    answer = persist(remove, frames)
    # A call works from the front, so the pages that an interrupted call left are at the end.
    broken = [frames] if answer == -EINVAL and frames.count > 1 else []
    for _ in range(TRIES // 2):
        if not broken:
            break
        failed = [half for half in _halves(broken.pop()) if persist(remove, half) == -EINVAL]
        broken += [half for half in failed if half.count > 1]
    return answer


def read_regions(
    ask: Callable[[int], tuple[int, int, Sequence[tuple[int, int]]]],
) -> tuple[int, tuple[Frames, ...]]:
    """Read a list of regions whose length only Xen knows. Return (0 or -errno, the regions in Xen's order).

    `ask` takes the number of regions for which there is room. `ask` returns (0 or -errno, the number of
    regions that Xen has, the regions). -ENOBUFS means too little room. After -ENOBUFS and -EINTR `ask` is
    called again, at most 8 times in all. Regions of 0 frames are left out. After an error the regions are
    empty.
    """
    room, answer = 0, -ENOBUFS
    regions: Sequence[tuple[int, int]] = ()
    for _ in range(ATTEMPTS):
        answer, count, regions = ask(room)
        if answer == -ENOBUFS:
            room = count
        elif answer != -EINTR:
            break
    found = tuple(Frames(Gfn(start), count) for start, count in regions if count) if answer == 0 else ()
    return answer, found


def _halves(frames: Frames) -> tuple[Frames, Frames]:
    """Return the front half of the frames and the rest. `frames` must have at least 2 pages.

    If the count is odd, the rest has one page more.
    """
    front = frames.count // 2
    return Frames(frames.start, front), Frames(Gfn(frames.start + front), frames.count - front)
