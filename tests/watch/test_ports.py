"""The latch: its rules as a table, and random streams against the twin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import InputError
from pcipt.pci import Sbdf
from pcipt.pci.write import ConfigRead, ConfigWrite, EcamRegion, Lost, Writer
from pcipt.watch.ports import ACCESS, BATCH, CONFIG, NO_VCPU, LatchOptions, PortDecoder
from tests.port_twin import ECAM, LOST, WRITE, Twin

FN = 0x8000_F800  # 00:1f.0, register 0
BASE = 0xB000_0000
REGION = EcamRegion(BASE)


def decode(accesses, options=None):
    decoder = PortDecoder(options or LatchOptions())
    found = [item for batch in decoder.decode(pack(accesses)) for item in batch]
    return decoder, found


def pack(accesses):
    return b"".join(ACCESS.pack(*access) for access in accesses)


def out(address, value, size, vcpu=0):
    return (1, address, value, vcpu, size, WRITE)


# name, accesses, (bus, devfn, offset, size, value) of each write expected
CASES = [
    ("a pair", [out(0xCF8, FN | 0x10, 4), out(0xCFC, 0xFEBC_0000, 4)], [(0, 0xF8, 0x10, 4, 0xFEBC_0000)]),
    (
        "one address, two data",
        [out(0xCF8, FN | 4, 4), out(0xCFC, 1, 2), out(0xCFE, 2, 2)],
        [(0, 0xF8, 4, 2, 1), (0, 0xF8, 6, 2, 2)],
    ),
    ("bus, device, function", [out(0xCF8, 0x8012_3B00, 4), out(0xCFF, 7, 1)], [(0x12, 0x3B, 3, 1, 7)]),
    (
        "bits 1:0 of the address do not count",
        [out(0xCF8, FN | 0x13, 4), out(0xCFD, 7, 1)],
        [(0, 0xF8, 0x11, 1, 7)],
    ),
    ("enable bit clear", [out(0xCF8, FN & 0x7FFF_FFFF, 4), out(0xCFC, 1, 4)], []),
    ("no address yet", [out(0xCFC, 1, 4)], []),
    ("bits 27:24 are reserved", [out(0xCF8, FN | 0x0F00_0000, 4), out(0xCFC, 1, 1)], [(0, 0xF8, 0, 1, 1)]),
    # 0xcf9 is the reset port; only a double word at 0xcf8 is CONFIG_ADDRESS
    *[
        (
            f"{size} bytes at {port:#x} latch nothing",
            [out(0xCF8, FN, 4), out(port, 0xFFFF_FFFF & (1 << 8 * size) - 1, size), out(0xCFC, 1, 1)],
            [(0, 0xF8, 0, 1, 1)],
        )
        for port in range(0xCF8, 0xCFC)
        for size in (1, 2, 4)
        if (port, size) != (0xCF8, 4)
    ],
    # an access ends with its register: 0xd00 is another port
    ("4 bytes at 0xcfe", [out(0xCF8, FN, 4), out(0xCFE, 0x1122_3344, 4)], [(0, 0xF8, 2, 2, 0x3344)]),
    ("2 bytes at 0xcfd", [out(0xCF8, FN, 4), out(0xCFD, 0x3344, 2)], [(0, 0xF8, 1, 2, 0x3344)]),
    (
        "4 bytes at 0xcfd",
        [out(0xCF8, FN, 4), out(0xCFD, 0x1122_3344, 4)],
        [(0, 0xF8, 1, 2, 0x3344), (0, 0xF8, 3, 1, 0x22)],
    ),
    ("2 bytes at 0xcff", [out(0xCF8, FN, 4), out(0xCFF, 0x3344, 2)], [(0, 0xF8, 3, 1, 0x44)]),
    ("other ports are not ours", [out(0xCF8, FN, 4), out(0xD00, 1, 4), out(0xCF0, 1, 4)], []),
    # unknown width, as in Xen's trace: only 4 bytes hold the enable bit, else it may have been a byte
    ("unknown width", [out(0xCF8, FN, 0), out(0xCFE, 0x1234, 0)], [(0, 0xF8, 2, None, 0x1234)]),
    ("unknown width spoils", [out(0xCF8, FN, 4), out(0xCF8, 0x01, 0), out(0xCFC, 1, 4)], []),
    ("a gap forgets", [out(0xCF8, FN, 4), (1, 0, 3, NO_VCPU, 0, LOST), out(0xCFC, 1, 4)], [3]),
]


@pytest.mark.parametrize(
    ("accesses", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_latch(accesses, expected):
    _, found = decode(accesses)
    shown = [
        item.count
        if isinstance(item, Lost)
        else (item.sbdf.bus, item.sbdf.devfn, item.offset, item.size, item.value)
        for item in found
    ]
    assert shown == expected


def test_a_vcpu_sees_the_domains_latch_unless_each_has_its_own():
    accesses = [out(0xCF8, FN, 4, vcpu=0), out(0xCF8, FN | 0x100, 4, vcpu=1), out(0xCFC, 5, 1, vcpu=0)]
    _, shared = decode(accesses)
    _, own = decode(accesses, LatchOptions(per_vcpu=True))
    assert [write.sbdf.function for write in shared] == [1]
    assert [write.sbdf.function for write in own] == [0]
    assert own[0].who == Writer(vcpu=0)


def test_amd_bits_reach_extended_registers():
    _, found = decode([out(0xCF8, FN | 0x0300_0010, 4), out(0xCFD, 5, 1)], LatchOptions(amd=True))
    assert found == [ConfigWrite(Sbdf(0, 0, 0x1F, 0), 0x311, 1, 5, None, Writer(vcpu=0), 1)]


def test_reads_are_told_on_request_and_carry_the_recordings_number():
    accesses = [out(0xCF8, FN, 4), (7, 0xCFC, 0x8086, NO_VCPU, 2, 0)]
    assert decode(accesses)[1] == []
    assert decode(accesses, LatchOptions(reads=True))[1] == [ConfigRead(Sbdf(0, 0, 0x1F, 0), 0, 2, 0x8086, 7)]


# what it shows; the region; the address; whose register, None is nobody's
ECAM_CASES = [
    ("first byte", EcamRegion(BASE), BASE, (0, 0, 0, 0)),
    ("last register", EcamRegion(BASE), BASE + (255 << 20) + 0xFFFFC, (0, 255, 0xFF, 0xFFC)),
    ("a segment of its own", EcamRegion(0x40_1000_0000, 5), 0x40_1000_0000 + 0x12_3004, (5, 1, 0x23, 4)),
    ("first bus, counted from bus 0", EcamRegion(BASE, 0, 0x40, 0x7F), BASE + (0x40 << 20), (0, 0x40, 0, 0)),
    ("below the first bus", EcamRegion(BASE, 0, 0x40, 0x7F), BASE + (0x3F << 20), None),
    ("above the last bus", EcamRegion(BASE, 0, 0, 0x3F), BASE + (0x40 << 20), None),
    ("below the base", EcamRegion(BASE), BASE - 4, None),
]


@pytest.mark.parametrize(
    ("region", "address", "expected"), [c[1:] for c in ECAM_CASES], ids=[c[0] for c in ECAM_CASES]
)
def test_ecam(region, address, expected):
    decoder, found = decode([(1, address, 9, 0, 4, WRITE | ECAM)], LatchOptions(regions=(region,)))
    shown = [(w.sbdf.segment, w.sbdf.bus, w.sbdf.devfn, w.offset) for w in found]
    assert shown == ([] if expected is None else [expected])
    assert decoder.outside == (expected is None)


def test_the_first_ecam_access_tells_the_region_if_nobody_else_does():
    decoder, found = decode(
        [(1, 0xB012_3004, 9, 0, 4, WRITE | ECAM), (2, 0xC000_0000, 9, 0, 4, WRITE | ECAM)],
        LatchOptions(guess_ecam=True),
    )
    assert [str(write.sbdf) for write in found] == ["0000:01:04.3"]
    assert decoder.outside == 1


@pytest.mark.parametrize(
    "regions",
    [
        (EcamRegion(BASE, 0, 2, 1),),  # no bus at all
        (EcamRegion(BASE + 0x1000),),  # not aligned
        (EcamRegion(1 << 64),),
        (EcamRegion(BASE, 0x1_0000),),
        (EcamRegion(BASE, 0, 0, 0x100),),
        (REGION,) * 17,  # one too many
    ],
)
def test_impossible_regions_are_refused(regions):
    with pytest.raises(InputError):
        PortDecoder(LatchOptions(regions=regions))


def test_damaged_records_are_named_and_forget_the_latch():
    bad_size, bad_flags = (3, 0xCFC, 1, 0, 3, WRITE), (4, 0xCFC, 1, 0, 4, 0x10)
    records = [out(0xCF8, FN, 4), bad_size, out(0xCFC, 1, 4), out(0xCF8, FN, 4), out(0xCFC, 2, 4), bad_flags]
    decoder = PortDecoder()
    batches = list(decoder.decode(pack(records)))
    assert [index for batch in batches for index in batch.damaged] == [1, 5]
    assert [write.value for batch in batches for write in batch] == [2]
    assert decoder.unknown == 1


def test_more_than_one_batch_of_output():
    pairs = [out(0xCF8, FN, 4)] + [(n, 0xCFD, n, 0, 4, WRITE) for n in range(BATCH)]
    _, found = decode(pairs)
    assert len(found) == 2 * BATCH


accesses_of_any_kind = st.lists(
    st.tuples(
        st.integers(0, (1 << 64) - 1),
        st.one_of(
            st.integers(0xCF6, 0xD01),
            st.integers(BASE - 8, BASE + 0x2010),
            st.integers(BASE + (1 << 21) - 8, BASE + (1 << 21) + 8),
        ),
        st.one_of(
            st.integers(0, 0xFFFF_FFFF),
            st.integers(0x8000_0000, 0x8000_FFFF),
            st.integers(0x8F00_0000, 0x8F01_0000),
        ),
        st.sampled_from([0, 1, 2, 1023, 1024, NO_VCPU]),
        st.sampled_from([0, 1, 2, 4]),
        st.sampled_from([0, WRITE, WRITE, WRITE, ECAM, WRITE | ECAM, LOST]),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(accesses_of_any_kind, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 60))
def test_equals_the_twin_however_the_stream_is_cut(accesses, per_vcpu, amd, reads, cut):
    regions = (EcamRegion(BASE, 3, 0, 1),)
    decoder = PortDecoder(LatchOptions(per_vcpu, amd, reads, regions))
    twin = Twin(per_vcpu=per_vcpu, amd=amd, reads=reads, regions=[(BASE, 3, 0, 1)])
    pieces = (pack(accesses[:cut]), pack(accesses[cut:]))
    found = [
        row for piece in pieces for batch in decoder.decode(piece) for row in CONFIG.iter_unpack(batch.data)
    ]
    assert found == list(twin.decode(accesses))
    assert (decoder.unknown, decoder.outside) == (twin.unknown, twin.outside)
