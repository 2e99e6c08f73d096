import errno
import random

import pytest

from pcipt.pci import Frames, Gfn
from pcipt.xen.simulated.model import Catastrophe
from pcipt.xen.simulated.p2m import ITERATIONS, LAST, SIZE, Extents, P2m

RAM, SPECIAL = Frames(Gfn(0x100), 0x10000), Frames(Gfn(0), 0x100)
MMCFG, APIC = Frames(Gfn(0xB0000), 0x10000), Frames(Gfn(0xFEE00), 0x100)
BAR = Frames(Gfn(0xFE604), 4)


@pytest.fixture
def p2m():
    return P2m([RAM], [SPECIAL], [MMCFG], [APIC])


def frames(start: int, count: int) -> Frames:
    return Frames(Gfn(start), count)


def test_a_hole_is_mapped_and_mapping_again_changes_nothing(p2m):
    for _ in range(2):
        assert p2m.map(BAR) == 0
        assert p2m.direct() == [BAR]


def test_unmapping(p2m):
    p2m.map(BAR)
    assert p2m.unmap(BAR) == 0
    assert p2m.direct() == []
    assert p2m.unmap(BAR) == -errno.EINVAL


def test_extents_that_lie_in_each_other():
    held = Extents([frames(0x100, 0x100), frames(0x110, 0x10), frames(0x1F0, 0x20), frames(0x300, 1)])
    inside = [start for start in range(0xF0, 0x310) if held.overlap(frames(start, 1))]
    assert inside == [*range(0x100, 0x210), 0x300]


# what the range touches, the range, a word of what happens
DEADLY = [
    ("RAM", frames(0xFFFF, 1), "RAM"),
    ("the last page of RAM", frames(0x100FF, 4), "RAM"),
    ("RAM in the middle of a large range", frames(0x10000, 0x1000), "RAM"),
    ("the low 1 MiB", frames(0xA0, 1), "domain_crash"),
    ("MMCFG", frames(0xB0000, 1), "traps"),
    ("MMCFG's end", frames(0xBFFFF, 2), "traps"),
]


@pytest.mark.parametrize(("span", "word"), [row[1:] for row in DEADLY], ids=[row[0] for row in DEADLY])
def test_a_catastrophe(p2m, span, word):
    with pytest.raises(Catastrophe) as caught:
        p2m.map(span)
    assert word in caught.value.why


# what the range is, the range, the answer; nothing changes
REFUSED = [
    ("the local APIC", frames(0xFEDFF, 2), -errno.EPERM),
    ("interrupts", frames(0xFEEFF, 1), -errno.EPERM),
    ("beyond the physical address", frames(LAST - 1, 2), -errno.EINVAL),
]


@pytest.mark.parametrize(("span", "answer"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refusal(p2m, span, answer):
    assert p2m.map(span) == answer
    assert p2m.unmap(span) == answer
    assert p2m.direct() == []


def test_unmapping_what_is_no_mmio_is_einval(p2m):
    for span in (frames(0x200, 1), frames(0xB0000, 1)):
        assert p2m.unmap(span) == -errno.EINVAL


def test_unmapping_what_xen_has_mapped_for_dom0_is_a_catastrophe(p2m):
    with pytest.raises(Catastrophe, match="unmapping"):
        p2m.unmap(frames(0xA0, 1))


def test_one_call_does_64_entries_of_4k_or_2m(p2m):
    assert p2m.map_once(frames(0xC0001, 1000)) == ITERATIONS
    assert p2m.map_once(frames(0xC0200, 64 * SIZE)) == 0
    assert p2m.map_once(frames(0xD0000, 65 * SIZE)) == 64 * SIZE
    assert p2m.unmap_once(frames(0xD0000, 64 * SIZE)) == 0
    assert p2m.unmap_once(frames(0xC0001, ITERATIONS)) == 0


def test_an_unmap_ends_at_the_first_hole(p2m):
    p2m.map(frames(0xC0000, 10))
    p2m.unmap(frames(0xC0004, 1))
    assert p2m.unmap(frames(0xC0000, 10)) == -errno.EINVAL
    assert p2m.direct() == [frames(0xC0005, 5)]


def test_a_failed_map_is_undone_from_the_front(p2m):
    p2m.map(frames(0xC0001, 1))  # as a neighbour's
    p2m.map(frames(0xC0008, 2))
    assert p2m.map(frames(0xC0000, 10), failing=(4, errno.ENOMEM)) == -errno.EINVAL
    assert p2m.direct() == [frames(0xC0008, 2)]


def test_the_same_as_a_set_of_pages():
    chance = random.Random(1)
    table, pages = P2m(), set()
    for _ in range(2000):
        span = frames(chance.randrange(SIZE, 4 * SIZE), chance.choice((1, 2, 60, 70, SIZE, 700)))
        wanted = range(span.start, span.end)
        if chance.random() < 0.5:
            assert table.map(span) == 0
            pages.update(wanted)
        else:
            answer = table.unmap(span)
            first_hole = next((page for page in wanted if page not in pages), None)
            assert answer == (0 if first_hole is None else -errno.EINVAL)
            pages.difference_update(range(span.start, span.end if first_hole is None else first_hole))
        assert table.mapped(span) == pages.issuperset(wanted)
        assert table.touched(span) == (not pages.isdisjoint(wanted))
    assert {page for span in table.direct() for page in range(span.start, span.end)} == pages


def test_large_ranges_cost_little(p2m):
    assert p2m.map(frames(0x4000000, 1 << 22)) == 0  # 16 GiB
    assert p2m.direct() == [frames(0x4000000, 1 << 22)]
    assert p2m.unmap(frames(0x4000000, 1 << 22)) == 0
