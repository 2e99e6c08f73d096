import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Bar, BarKind, ConfigSpace, Resource, Sbdf, SrIov
from pcipt.pci.sriov import decode_sriov, vf_address, vf_bars, vf_number
from pcipt.pci.structures import ResizableBar
from tests.pci.spaces import bars, space

AT = 0x160
PF = Sbdf(0, 2, 0, 0)
NONE = Resource(0, 0, 0)


def structure(control=0x9, *, total=8, number=2, offset=0x80, stride=2, registers=()):
    return {
        AT + 0x08: (2, control),
        AT + 0x0C: (2, 7),
        AT + 0x0E: (2, total),
        AT + 0x10: (2, number),
        AT + 0x14: (2, offset),
        AT + 0x16: (2, stride),
        AT + 0x1A: (2, 0x10ED),
        **bars(*registers, base=AT + 0x24),
    }


def decode(registers, resources=(), size=4096):
    return decode_sriov(ConfigSpace(space(registers, size=size)), AT, resources)


def test_every_register_has_its_place():
    found = decode(structure(registers=(0xE000_000C, 1)))
    assert found == SrIov(
        total_vfs=8,
        initial_vfs=7,
        num_vfs=2,
        vf_offset=0x80,
        vf_stride=2,
        vf_device=0x10ED,
        vf_enable=True,
        memory_enable=True,
        ari=False,
        bars=(Bar(0, BarKind.MEM64, 0x1_E000_0000, None, True, True),),
    )


MIB = 1 << 20
#  System Page Size register, size of one BAR by Linux, size of the resized VF BAR -> page size, size of one
APERTURES = [
    (0, 0x4000, None, None, 0x4000),  # undefined: as if nothing was said
    (1 << 0, 0x4000, None, 0x1000, 0x4000),
    (1 << 0, 0x200, None, 0x1000, 0x1000),
    (1 << 2, 0x4000, None, 0x4000, 0x4000),
    (1 << 4, 0x4000, None, 0x1_0000, 0x1_0000),
    (1 << 4, 0x2_0000, None, 0x1_0000, 0x2_0000),
    (1 << 4 | 1 << 6, 0x4000, None, 0x1_0000, 0x1_0000),  # the lowest bit counts
    (1 << 0, 0x4000, 2 * MIB, 0x1000, 2 * MIB),
    (1 << 10, 0x4000, 2 * MIB, 4 * MIB, 4 * MIB),
    (1 << 0, 0, 2 * MIB, 0x1000, 2 * MIB),
]


@pytest.mark.parametrize(("register", "size", "resized", "page", "expected"), APERTURES)
def test_sizes_are_multiples_of_the_system_page_size(register, size, resized, page, expected):
    config = ConfigSpace(space(structure(registers=(0xE000_0000,)) | {AT + 0x20: (4, register)}, size=4096))
    lines = [NONE] * 7 + [Resource(0xE000_0000, size * 8, 0x200)]
    rebar = (ResizableBar(0, resized, ()),) if resized else ()
    found = decode_sriov(config, AT, lines, rebar)
    assert (found.page_size, found.bars[0].size, found.resizable) == (page, expected, rebar)
    assert [bar.address for number in range(3) for bar in vf_bars(found, number)] == [
        0xE000_0000 + number * expected for number in range(3)
    ]


@pytest.mark.parametrize("control", range(32))
def test_control_bits(control):
    found = decode(structure(control, registers=(0xE000_0000,)))
    assert found is not None
    assert (found.vf_enable, found.memory_enable, found.ari) == (
        bool(control & 1),
        bool(control & 8),
        bool(control & 16),
    )
    assert found.bars[0].decoding is (control & 9 == 9)  # VFs and their memory must both be enabled


FIRST = Bar(0, BarKind.MEM32, 0xE000_0000, None, False, True)
#  VF BARs, lines 7-12 of `resource`, total -> BARs of one VF
SIZES = [
    ((0xE000_0000,), [Resource(0xE000_0000, 0x2_0000, 0x200)], 8, [attrs.evolve(FIRST, size=0x4000)]),
    ((0xE000_0000,), [NONE], 8, [FIRST]),
    ((0xE000_0000,), [], 8, [FIRST]),
    ((0xE000_0000,), [Resource(0xE000_0000, 0x2_0000, 0x200)], 0, [FIRST]),
    # Linux believes in a VF BAR that the hardware has lost
    (
        (0, 0, 0, 0), [NONE, NONE, NONE, Resource(2**40, 0x8000, 0x14_2204)], 8,
        [Bar(3, BarKind.MEM64, 0, 0x1000, True, True)],
    ),
    ((0,) * 6, [Resource(2**40, 4, 0x14_2204)], 8, []),  # less than a byte for each
    # an I/O BAR is forbidden here, yet some have one; it is shown and never decodes
    ((0xC001,), [], 8, [Bar(0, BarKind.IO, 0xC000, None, False, False)]),
]  # fmt: skip


@pytest.mark.parametrize(("registers", "lines", "total", "expected"), SIZES)
def test_a_line_spans_all_virtual_functions(registers, lines, total, expected):
    found = decode(structure(total=total, registers=registers), [NONE] * 7 + lines)
    assert found is not None
    assert found.bars == tuple(expected)


@pytest.mark.parametrize("size", [AT, AT + 9, AT + 0xD, AT + 0xF, AT + 0x11, AT + 0x15, AT + 0x17, AT + 0x1B])
def test_half_a_structure_is_none(size):
    assert decode(structure(), size=size) is None


@pytest.mark.parametrize(("size", "count"), [(0x1C, 0), (0x27, 0), (0x28, 1), (0x2C, 2), (0x3C, 6)])
def test_vf_bars_end_where_the_bytes_end(size, count):
    found = decode(structure(registers=(0xE000_0000,) * 6), size=AT + size)
    assert found is not None
    assert len(found.bars) == count


def sriov(*, number, offset, stride, vf_bars=()):
    return SrIov(256, 256, number, offset, stride, 0x10ED, True, True, False, tuple(vf_bars))


#  offset, stride, number of VFs -> addresses of the VFs of 0000:02:00.0
ADDRESSES = [
    (1, 1, 3, ["0000:02:00.1", "0000:02:00.2", "0000:02:00.3"]),
    (8, 8, 2, ["0000:02:01.0", "0000:02:02.0"]),
    (0x80, 2, 2, ["0000:02:10.0", "0000:02:10.2"]),  # 82576
    (0x180, 4, 2, ["0000:03:10.0", "0000:03:10.4"]),  # on the next bus
    (0xFF, 1, 2, ["0000:02:1f.7", "0000:03:00.0"]),  # across two buses
    (0xFDFF, 1, 3, ["0000:ff:1f.7", "0000:00:00.0", "0000:00:00.1"]),  # the carry is dropped
    (0x80, 0, 1, ["0000:02:10.0"]),  # a single one needs no stride
]


@pytest.mark.parametrize(("offset", "stride", "number", "expected"), ADDRESSES)
def test_addresses_are_routing_id_arithmetic(offset, stride, number, expected):
    made = sriov(number=number, offset=offset, stride=stride)
    found = [vf_address(PF, made, index) for index in range(number)]
    assert [str(sbdf) for sbdf in found] == expected
    assert [vf_number(PF, made, sbdf) for sbdf in found] == list(range(number))
    for stranger in (vf_address(PF, made, number), Sbdf(1, *attrs_of(found[0])), PF):
        if stranger not in found:
            assert vf_number(PF, made, stranger) is None


def attrs_of(sbdf):
    return sbdf.bus, sbdf.device, sbdf.function


def test_between_the_strides_there_is_nobody():
    made = sriov(number=4, offset=0x80, stride=2)
    assert vf_number(PF, made, Sbdf(0, 2, 0x10, 1)) is None
    assert vf_number(PF, made, Sbdf(0, 2, 0x0F, 7)) is None
    assert vf_number(PF, sriov(number=0, offset=0x80, stride=2), Sbdf(0, 2, 0x10, 0)) is None
    assert vf_number(PF, sriov(number=4, offset=0x80, stride=0), Sbdf(0, 2, 0x10, 1)) is None


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(1, 64),
    st.integers(1, 1024),
    st.integers(0, 1023),
)
def test_number_and_address_belong_together(physfn, offset, stride, count, index):
    home = Sbdf(3, physfn >> 8, physfn >> 3 & 0x1F, physfn & 7)
    made = sriov(number=count, offset=offset, stride=stride)
    number = vf_number(home, made, vf_address(home, made, index))
    assert number == (index if index < count else None)


def test_the_bars_of_a_virtual_function_lie_one_behind_the_other():
    known = Bar(0, BarKind.MEM64, 0x1_FFFF_C000, 0x4000, True, True)
    unknown = Bar(2, BarKind.MEM32, 0xE000_0000, None, False, True)
    made = sriov(number=4, offset=1, stride=1, vf_bars=(known, unknown))
    assert vf_bars(made, 0) == (known,)
    assert vf_bars(made, 3) == (Bar(0, BarKind.MEM64, 0x2_0000_8000, 0x4000, True, True),)
