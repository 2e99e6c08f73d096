import pytest

from pcipt.errors import MalformedError
from pcipt.firmware.pvh.memory_image import Piece, image_from_pieces
from pcipt.pci import Range


def image(*pieces):
    return image_from_pieces([Piece(at, data) for at, data in pieces])


TWO = ((0x2000, b"high\0end"), (0x1000, b"low"))


@pytest.mark.parametrize(
    ("address", "size", "expected"),
    [
        (0x1000, 3, b"low"),  # a whole piece
        (0x2004, 4, b"\0end"),  # to the very end of one
        (0x1000, 4, None),  # one byte too many
        (0x0FFF, 2, None),  # begins before
        (0x1003, 0, b""),  # nothing, right behind the end
        (1 << 70, 1, None),  # nowhere
    ],
)
def test_reads_lie_wholly_inside(address, size, expected):
    assert image(*TWO).read(address, size) == expected


@pytest.mark.parametrize(
    ("address", "limit", "expected"),
    [
        (0x2000, 100, b"high"),
        (0x2000, 5, b"high"),  # the zero is the last byte allowed
        (0x2000, 4, None),  # it comes one byte too late
        (0x1000, 100, None),  # the image ends before any zero
        (0x3000, 100, None),
    ],
)
def test_strings_end_with_zero_within_their_limit(address, limit, expected):
    assert image(*TWO).read_string(address, limit) == expected


@pytest.mark.parametrize(
    ("pieces", "offset"),
    [
        ([(0x1000, b"")], 0x1000),
        ([(0x1000, bytes(0x10)), (0x100F, b"x")], 0x100F),  # overlap by one byte
        ([((1 << 64) - 1, b"xy")], (1 << 64) - 1),  # the second byte is beyond 64 bits
    ],
)
def test_pieces_that_cannot_be(pieces, offset):
    with pytest.raises(MalformedError) as caught:
        image(*pieces)
    assert caught.value.offset == offset


def test_pieces_may_touch_and_reach_the_last_byte():
    both = image((0x1000, bytes(0x10)), (0x1010, b"x"), ((1 << 64) - 1, b"y"))
    assert both.read((1 << 64) - 1, 1) == b"y"
    assert both.read(0x100F, 2) is None  # no read crosses pieces


def test_search_gives_aligned_places_up_to_its_limit():
    found = image((0x1002, b"..MARK..MARK.MARK.MARK")).search(b"MARK", 4, 10)
    assert found == [0x1004, 0x1014]  # those at 100a and 100f are not aligned
    assert image((0, b"MARK" * 5)).search(b"MARK", 4, 3) == [0, 4, 8]


def test_room_and_cover():
    one = image((0x1000, bytes(0x10)))
    assert [one.room(at) for at in (0xFFF, 0x1000, 0x100F, 0x1010)] == [0, 16, 1, 0]
    assert one.covers(Range(0x1008, 8))
    assert not one.covers(Range(0x1008, 9))
