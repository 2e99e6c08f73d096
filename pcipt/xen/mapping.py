"""What stands around libxc's memory_mapping and Xen's list of reserved memory to do what the interface says.

libxc ends an unmap at the first page that is not mapped, leaves those behind it and answers EINVAL; after a
failed map it undoes by such an unmap. Here the rest is looked for by halves. Each vain try is a line on Xen's
console, which may be a serial line: what is scattered more widely than TRIES halvings find is left.

Source: Xen tools/libs/ctrl/xc_domain.c, xc_domain_memory_mapping; xen/arch/x86/mm/p2m.c, unmap_mmio_regions;
xen/common/memory.c, XENMEM_reserved_device_memory_map.
"""

from collections.abc import Callable, Sequence
from errno import EACCES, EINTR, EINVAL, ENOBUFS, ENOSYS, EPERM

from pcipt.pci import Frames, Gfn

ATTEMPTS = 8  # of a call that is interrupted, or of a list that grows while it is read
TRIES = 128
UNTOUCHED = frozenset({-EPERM, -EACCES, -ENOSYS})  # answered before the first page

Primitive = Callable[[Frames], int]  # 0 or -errno


def persist(call: Primitive, frames: Frames) -> int:
    """Repeat a call that is interrupted, a bounded number of times."""
    answer = -EINTR
    for _ in range(ATTEMPTS):
        answer = call(frames)
        if answer != -EINTR:
            break
    return answer


def map_frames(add: Primitive, remove: Primitive, frames: Frames) -> int:
    """Map all the frames; after a failure none of them is mapped, unless the call was refused as a whole."""
    answer = persist(add, frames)
    if answer < 0 and answer not in UNTOUCHED:
        unmap_frames(remove, frames)
    return answer


def unmap_frames(remove: Primitive, frames: Frames) -> int:
    """Unmap all that is mapped of the frames: EINVAL if some were not."""
    answer = persist(remove, frames)
    # Raw calls work from the front: what an interrupted one has left lies behind.
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
    """Ask for a list of which only Xen knows the length.

    Shape:  `ask` takes the room there is and gives the result, the number there are, and the regions.
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
    front = frames.count // 2
    return Frames(frames.start, front), Frames(Gfn(frames.start + front), frames.count - front)
