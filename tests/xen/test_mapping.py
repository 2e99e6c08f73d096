"""What is done around the raw calls, on a raw unmap that ends at the first hole as libxc's does."""

import errno

import pytest

from pcipt.pci import Frames, Gfn
from pcipt.xen.mapping import ATTEMPTS, TRIES, map_frames, persist, read_regions, unmap_frames

ALL = Frames(Gfn(0x1000), 64)


class Map:
    """The frames that are mapped, and what the raw calls do to them."""

    def __init__(self, mapped) -> None:
        self.mapped = set(mapped)
        self.calls = 0
        self.answers: list[int] = []  # given first, without doing anything

    def add(self, frames: Frames) -> int:
        self.calls += 1
        if self.answers:
            return self.answers.pop(0)
        self.mapped |= set(range(frames.start, frames.end))
        return 0

    def remove(self, frames: Frames) -> int:
        self.calls += 1
        if self.answers:
            return self.answers.pop(0)
        for frame in range(frames.start, frames.end):
            if frame not in self.mapped:
                return -errno.EINVAL
            self.mapped.remove(frame)
        return 0


# which of the 64 frames are mapped, what unmapping them all answers
HOLES = [
    ("all", range(64), 0),
    ("none", (), -errno.EINVAL),
    ("all but the first", range(1, 64), -errno.EINVAL),
    ("all but the last", range(63), -errno.EINVAL),
    ("the back half", range(32, 64), -errno.EINVAL),
    ("the last", (63,), -errno.EINVAL),
    ("all but one in the middle", (n for n in range(64) if n != 21), -errno.EINVAL),
    ("all but a page of MSI-X and one more", (n for n in range(64) if n not in {3, 40}), -errno.EINVAL),
    ("one in the middle", (21,), -errno.EINVAL),
]


@pytest.mark.parametrize(("mapped", "answer"), [row[1:] for row in HOLES], ids=[row[0] for row in HOLES])
def test_unmapping_finds_what_is_mapped(mapped, answer):
    table = Map([*(ALL.start + n for n in mapped), ALL.start - 1, ALL.end])
    assert unmap_frames(table.remove, ALL) == answer
    assert table.mapped == {ALL.start - 1, ALL.end}
    assert table.calls <= 1 + TRIES


@pytest.mark.parametrize("edge", [1, 2, 4095, 4096, 65535, 1 << 20])
def test_an_interrupted_unmapping_of_a_large_range_is_ended(edge):
    large = Frames(Gfn(0), (1 << 20) + 1)
    table = Map(range(edge, large.end))
    assert unmap_frames(table.remove, large) == -errno.EINVAL
    assert table.mapped == set()


def test_vain_tries_are_bounded():
    table = Map(())
    unmap_frames(table.remove, Frames(Gfn(0), 1 << 30))
    assert table.calls <= 1 + TRIES


def test_a_failed_map_leaves_nothing_mapped():
    table = Map(range(ALL.start + 9, ALL.start + 30))
    table.answers = [-errno.ENOMEM]
    assert map_frames(table.add, table.remove, ALL) == -errno.ENOMEM
    assert table.mapped == set()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_refused_map_leaves_all_as_it_was(number):
    table = Map(range(ALL.start, ALL.start + 9))
    table.answers = [-number]
    assert map_frames(table.add, table.remove, ALL) == -number
    assert len(table.mapped) == 9


def test_interruptions_are_bounded():
    table = Map(())
    table.answers = [-errno.EINTR] * (ATTEMPTS - 1)
    assert persist(table.add, ALL) == 0
    table.answers = [-errno.EINTR] * ATTEMPTS
    assert persist(table.add, ALL) == -errno.EINTR


def test_regions_are_asked_for_until_there_is_room():
    regions = [(0x7FFF0, 4), (0x80000, 0), (0x90000, 1)]
    rooms = []

    def ask(room):
        rooms.append(room)
        enough = room >= len(regions)
        return (0 if enough else -errno.ENOBUFS), len(regions), (regions if enough else [])

    assert read_regions(ask) == (0, (Frames(Gfn(0x7FFF0), 4), Frames(Gfn(0x90000), 1)))
    assert rooms == [0, 3]


def test_regions_that_always_grow_are_given_up():
    assert read_regions(lambda room: (-errno.ENOBUFS, room + 1, [])) == (-errno.ENOBUFS, ())
