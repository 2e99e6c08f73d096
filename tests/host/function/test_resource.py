import pytest

from pcipt.host.function.resource import EMPTY, parse_resource
from pcipt.pci import Resource
from tests.trees import EMPTY_LINE

MEMORY = "0x00000000feb00000 0x00000000feb1ffff 0x0000000000040200\n"


def lines(*texts, total=13):
    return ("".join(texts) + EMPTY_LINE * (total - len(texts))).encode()


GOOD = [
    # one line, what it means
    (MEMORY, Resource(0xFEB0_0000, 0x2_0000, 0x4_0200)),
    (EMPTY_LINE, EMPTY),
    ("0x0 0x0 0x0\n", EMPTY),  # some recordings print short numbers
    # a window that Linux has given up: 0 to ~0, or the end before the start
    ("0x0000000000000000 0xffffffffffffffff 0x0000000000000200\n", Resource(0, 0, 0x200)),
    ("0x0000000000001000 0x0000000000000fff 0x0000000000000101\n", Resource(0x1000, 0, 0x101)),
    ("0x0000000000000000 0x0000000000000000 0x0000000000040200\n", Resource(0, 0, 0x4_0200)),
    # not assigned yet: the size is known all the same
    ("0x0000000000000000 0x0000000000003fff 0x0000000020040200\n", Resource(0, 0x4000, 0x2004_0200)),
    # one port (3f6 of an IDE controller)
    ("0x00000000000003f6 0x00000000000003f6 0x0000000000000110\n", Resource(0x3F6, 1, 0x110)),
    # the last byte of the address space
    ("0xfffffffffffff000 0xffffffffffffffff 0x0000000000140204\n", Resource(2**64 - 4096, 4096, 0x14_0204)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), GOOD)
def test_a_line_is_start_size_and_flags(line, expected):
    found, problem = parse_resource(lines(EMPTY_LINE, line))
    assert problem is None
    assert found[:3] == (EMPTY, expected, EMPTY)
    assert len(found) == 13


BAD = [
    ("0x1 0x2\n", "line 2"),  # a field is missing
    ("0x1 0x2 0x3 0x4\n", "line 2"),
    ("00001 0x2 0x3\n", "line 2"),
    ("0x00000000feb00000 0x00000000feb0ffff 0x-1\n", "line 2"),
    ("0x1_0 0x2_0 0x3\n", "line 2"),  # python would take these as numbers
    ("0x10000000000000000 0x10000000000000001 0x200\n", "line 2"),  # more than 64 bits
    ("0x2000 0x1000 0x200\n", "line 2"),  # ends before it begins
    ("\n", "line 2"),
    ("\0\0\0\0\n", "line 2"),
    ("x" * 100_000 + "\n", "line 2"),
    ("0xFEB00000 0xFEB1FFFF 0x40200\n", "line 2"),  # Linux writes lower case
]


@pytest.mark.parametrize(("line", "told"), BAD)
def test_a_line_that_is_none_leaves_its_place_empty(line, told):
    found, problem = parse_resource(lines(EMPTY_LINE, line, MEMORY))
    assert found[1] == EMPTY
    assert found[2].start == 0xFEB0_0000  # its neighbours keep their index
    assert problem is not None
    assert problem.code == "resource-malformed"
    assert told in problem.text


@pytest.mark.parametrize(
    ("data", "count", "told"),
    [
        (lines(MEMORY, total=3), 3, "3 of at least 7"),
        (lines(total=7)[:-40], 7, "line 7"),  # cut within the last line
        (lines(total=1000), 64, "1000 lines"),
        (b"garbage", 1, "1 of at least 7"),
    ],
)
def test_too_few_and_too_many_lines_are_told(data, count, told):
    found, problem = parse_resource(data)
    assert len(found) == count
    assert problem is not None
    assert told in problem.text
