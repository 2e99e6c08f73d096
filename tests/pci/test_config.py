import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import ConfigSpace, HeaderType
from tests.pci.spaces import space

ONES = b"\xff"


@pytest.mark.parametrize("size", [*range(70), 255, 256, 4094, 4095, 4096])
def test_a_register_is_known_if_all_its_bytes_were_given(size):
    data = bytes(index % 251 for index in range(size))
    config = ConfigSpace(data)
    assert len(config) == size
    for offset in (*range(70), *range(250, 260), *range(4090, 4100)):
        for width, read in ((1, config.u8), (2, config.u16), (4, config.u32)):
            known = int.from_bytes(data[offset : offset + width], "little")
            assert read(offset) == (known if offset + width <= size else None)


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(0, 7))
def test_words_end_where_the_bytes_end(data, offset, count):
    config = ConfigSpace(data)
    words = config.words(offset, count)
    expected = [config.u32(offset + 4 * index) for index in range(count)]
    assert list(words) == [word for word in expected if word is not None]


def test_more_than_4096_bytes_are_no_config_space():
    assert len(ConfigSpace(bytes(5000))) == 4096


def silent(status=ONES * 2, pointer=ONES):
    return ONES * 6 + status + ONES * 44 + pointer + ONES * 11


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (b"", None),  # nothing was read
        (ONES, None),
        (ONES * 63, None),  # a virtual function could still follow
        (ONES * 64, False),  # an absent function reads all ones
        (ONES * 4096, False),
        (ONES * 64 + b"\0" * 192, False),  # the header decides
        (ONES * 63 + b"\0", True),
        (ONES * 4 + bytes(60), True),  # a virtual function: vendor and device are ffff
        (silent(status=b"\xb9\xff"), False),  # as vPCI of Xen 4.19 shows a function that is gone
        (silent(status=b"\xb9\xff", pointer=b"\x40"), False),  # as that of Xen 4.21
        (silent(status=b"\xb9\xff")[:32], None),
        (silent(status=b"\xb8\xff"), True),  # bit 0 is none that vPCI clears
        (silent(pointer=b"\x40")[:-1] + b"\0", True),
        (b"\0", True),
        (space(), True),
    ],
)
def test_all_ones_are_no_answer(data, answers):
    assert ConfigSpace(data).answers is answers


@pytest.mark.parametrize("layout", range(256))
def test_the_header_type_has_seven_bits(layout):
    known = {0: HeaderType.ENDPOINT, 1: HeaderType.BRIDGE, 2: HeaderType.CARDBUS}
    config = ConfigSpace(space(header=layout))
    assert config.header is known.get(layout & 0x7F, HeaderType.UNKNOWN)


def test_the_header_type_is_unknown_before_its_byte():
    data = space(header=1)
    assert ConfigSpace(data[:0x0E]).header is HeaderType.UNKNOWN
    assert ConfigSpace(data[:0x0F]).header is HeaderType.BRIDGE


def test_the_command_is_at_4():
    assert ConfigSpace(space({0x04: (2, 0x0507)})).command == 0x0507
    assert ConfigSpace(bytes(5)).command is None
