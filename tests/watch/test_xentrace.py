"""Xen's trace records: their layout, what is picked out of them, and what cannot be."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci.write import ConfigRead, ConfigWrite, EcamRegion, Lost
from pcipt.watch.xentrace import Damage, TraceDecoder, looks_like_trace

PORT_WRITE, MEMORY_WRITE, PORT_READ, MEMORY_READ = 0x82216, 0x82217, 0x82016, 0x82017
LOST_RECORDS, WRAP, CPU_CHANGE, RUNNING = 0x1F001, 0x1F002, 0x1F003, 0x21001 | 1 << 8
FN = 0x8000_FB04  # 00:1f.3, command


def record(event, *words, tsc=None):
    header = event | len(words) << 28 | (tsc is not None) << 31
    stamp = b"" if tsc is None else struct.pack("<Q", tsc)
    return struct.pack("<I", header) + stamp + struct.pack(f"<{len(words)}I", *words)


def pair(address=FN, value=3, port=0xCFC):
    return record(PORT_WRITE, 0xCF8, address) + record(PORT_WRITE, port, value)


def cpu(number):
    return record(CPU_CHANGE, number, 4096)


def decode(data, **options):
    trace = TraceDecoder(**options)
    found = []
    for piece in trace.decode(data):
        found += [piece] if isinstance(piece, Damage) else list(piece)
    return trace, found


def shown(items):
    return [
        (f"{item.sbdf}", item.offset, item.size, item.value) if isinstance(item, ConfigWrite) else item
        for item in items
    ]


THE_WRITE = ("0000:00:1f.3", 4, None, 3)

# what it shows, records, writes
CASES = [
    ("the measured pair", pair(), [THE_WRITE]),
    (
        "with time stamps",
        record(PORT_WRITE, 0xCF8, FN, tsc=9) + record(PORT_WRITE, 0xCFC, 3, tsc=10),
        [THE_WRITE],
    ),
    ("behind others", record(0x81001, 1, 2, tsc=5) + record(0x0800F001) + pair(), [THE_WRITE]),
    ("upper half", pair(port=0xCFE), [("0000:00:1f.3", 6, None, 3)]),
    ("other ports", record(PORT_WRITE, 0x3F8, 0x41) + record(PORT_WRITE, 0xD00, 1), []),
    (
        "64-bit form, as 4.17 has it",
        record(PORT_WRITE, 0xCF8, FN) + record(PORT_WRITE | 0x100, 0xCFC, 0, 3),
        [THE_WRITE],
    ),
    (
        "64-bit form, as newer ones",
        record(PORT_WRITE, 0xCF8, FN) + record(PORT_WRITE | 0x100, 0xCFC, 0, 3, 0),
        [THE_WRITE],
    ),
    (
        "a port beyond 32 bits is none",
        record(PORT_WRITE, 0xCF8, FN) + record(PORT_WRITE | 0x100, 0xCFC, 1, 3),
        [],
    ),
    (
        "a byte may have been written to 0xcf8",
        pair() + record(PORT_WRITE, 0xCF8, 1) + record(PORT_WRITE, 0xCFC, 4),
        [THE_WRITE],
    ),
    (
        "wrap is skipped",
        record(PORT_WRITE, 0xCF8, FN) + record(WRAP, 0, 0, tsc=1) + record(PORT_WRITE, 0xCFC, 3),
        [THE_WRITE],
    ),
    (
        "lost records forget the latch",
        record(PORT_WRITE, 0xCF8, FN) + record(LOST_RECORDS, 12, 0, 0, 0) + record(PORT_WRITE, 0xCFC, 3),
        [Lost(12)],
    ),
    (
        "each CPU is its own stream",
        cpu(0)
        + record(PORT_WRITE, 0xCF8, FN)
        + cpu(1)
        + pair(0x8000_1000, 9)
        + cpu(0)
        + record(PORT_WRITE, 0xCFC, 3),
        [("0000:00:02.0", 0, None, 9), THE_WRITE],
    ),
    ("a CPU that is not in the table", cpu(5000) + pair(), []),
    ("data that nobody recorded", record(PORT_WRITE, 0xCFC), [Lost(1)]),
    # the word is vCPU | domain << 16
    (
        "another domain's accesses",
        record(RUNNING, 0x0005_0000) + pair() + record(RUNNING, 0) + pair(),
        [THE_WRITE],
    ),
    (
        "another vCPU comes in between",
        record(RUNNING, 0)
        + record(PORT_WRITE, 0xCF8, FN)
        + record(RUNNING, 1)
        + record(PORT_WRITE, 0xCFC, 3),
        [],
    ),
    (
        "the same vCPU comes back",
        record(RUNNING, 0)
        + record(PORT_WRITE, 0xCF8, FN)
        + record(RUNNING, 0x7FFF_0000)
        + record(RUNNING, 0)
        + record(PORT_WRITE, 0xCFC, 3),
        [THE_WRITE],
    ),
]


@pytest.mark.parametrize(("data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_records(data, expected):
    assert shown(decode(data)[1]) == expected


def test_numbers_count_records():
    _, found = decode(record(0x81001) + pair())
    assert [item.number for item in found] == [3]


def test_memory_writes_are_ecam_where_a_region_is_known():
    data = record(MEMORY_WRITE, 0xB010_8004, 7) + record(MEMORY_WRITE, 0xFEE0_00B0, 0)
    assert decode(data)[1] == []
    _, found = decode(data, regions=(EcamRegion(0xB000_0000),))
    assert shown(found) == [("0000:01:01.0", 4, None, 7)]
    high = record(MEMORY_WRITE | 0x100, 0x1010_8004, 0x40, 7)
    assert shown(decode(high, regions=(EcamRegion(0x40_1000_0000),))[1]) == [("0000:01:01.0", 4, None, 7)]


def test_reads_on_request():
    data = record(PORT_WRITE, 0xCF8, FN) + record(PORT_READ, 0xCFC, 0x8086)
    assert decode(data)[1] == []
    (read,) = decode(data, reads=True)[1]
    assert isinstance(read, ConfigRead)
    assert (read.size, read.value) == (None, 0x8086)


# what is wrong, the record
DAMAGED = [
    ("no class", record(0x0000_1234, 1)),
    ("two classes", record(0x0003_1234, 1, 2)),
    ("a port access of five words", record(PORT_WRITE, 1, 2, 3, 4, 5)),
    ("a port access of none", record(PORT_WRITE)),
    ("a CPU change of one word", record(CPU_CHANGE, 1)),
    ("lost records without their number", record(LOST_RECORDS)),
    ("a switch to nobody", record(RUNNING)),
]


@pytest.mark.parametrize("damaged", [case[1] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_damaged_records_are_named_skipped_and_forget_the_latch(damaged):
    before = record(PORT_WRITE, 0xCF8, FN)
    trace, found = decode(before + damaged + record(PORT_WRITE, 0xCFC, 1) + pair())
    assert shown(found) == [Damage(len(before), len(damaged)), THE_WRITE]
    assert (trace.finish(), trace.unknown) == (None, 1)


def test_a_record_that_is_cut_is_told_at_the_end():
    trace, found = decode(pair() + record(PORT_WRITE, 0xCFC, 3)[:-1])
    assert shown(found) == [THE_WRITE]
    assert trace.finish() == Damage(24, 11)


@given(
    st.lists(st.sampled_from([pair(), cpu(1), cpu(0), record(0x81001, 1), record(0x31, 5), pair(FN, 8)])),
    st.data(),
)
def test_pieces_may_be_cut_anywhere(records, data):
    whole = b"".join(records)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    trace = TraceDecoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        for piece in trace.decode(whole[start:end]):
            found += [piece] if isinstance(piece, Damage) else list(piece)
    assert found == decode(whole)[1]
    assert trace.finish() is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (cpu(0), True),
        (pair(), True),  # a raw buffer has no CPU change
        (b"", False),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", False),
        (b"\0" * 64, False),
    ],
)
def test_recognised_by_its_records(head, expected):
    assert looks_like_trace(head) is expected
