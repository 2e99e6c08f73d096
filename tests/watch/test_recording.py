"""Recordings: recognised by content, streamed, damage named with its place."""

import gzip
import json
import os
import struct
import threading

import pytest

from pcipt.errors import InputError
from pcipt.pci import Sbdf
from pcipt.pci.write import ConfigRead, ConfigWrite, Lost
from pcipt.watch.ports import ACCESS, NO_VCPU
from pcipt.watch.recording import Damaged, Format, Options, Reader, recognise
from pcipt.watch.xentrace import CPU_CHANGE

HEADER = b"PCIPTPRT" + struct.pack("<IIQ", 1, 24, 0)
LINE = (
    "setpci-394 [000] d..1. 45.8: conf1: (pci_conf1_write+0x0/0xf0) seg=0 bus=0 devfn=251 reg=4 len=2 val=3\n"
)


def port(n, address, value, size=4, direction="w", more=None):
    record = {"n": n, "vcpu": 0, "dir": direction, "port": hex(address), "size": size, "value": hex(value)}
    return json.dumps(record | (more or {})) + "\n"


PORTS = port(1, 0xCF8, 0x8000_FB04) + port(2, 0xCFC, 3, 2)
PORTS_BIN = HEADER + ACCESS.pack(1, 0xCF8, 0x8000_FB04, 0, 4, 1) + ACCESS.pack(2, 0xCFC, 3, 0, 2, 1)
WRITES = '{"n": 13, "sbdf": "0000:00:1f.3", "offset": "0x4", "size": 2, "value": "0x3"}\n'
XENTRACE = struct.pack("<6I", 0x2008_2216, 0xCF8, 0x8000_FB04, 0x2008_2216, 0xCFC, 3)

CONTENTS = [
    (Format.PORTS_JSONL, PORTS.encode(), 2),
    (Format.PORTS_BIN, PORTS_BIN, 2),
    (Format.WRITES_JSONL, WRITES.encode(), 2),
    (Format.KPROBE, LINE.encode(), 2),
    (Format.XENTRACE, XENTRACE, None),
]


def read(path, **options):
    return list(Reader(Options(**options)).read(str(path)))


def put(tmp_path, data, name="recording"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("form", "data", "size"), CONTENTS)
def test_every_format_is_recognised_and_says_the_same(tmp_path, form, data, size, packed):
    assert recognise(data) is form
    (write,) = read(put(tmp_path, gzip.compress(data) if packed else data))
    assert isinstance(write, ConfigWrite)
    assert (write.sbdf, write.offset, write.size, write.value) == (Sbdf(0, 0, 0x1F, 3), 4, size, 3)


@pytest.mark.parametrize(("form", "data", "size"), CONTENTS)
def test_a_pipe_will_do(tmp_path, form, data, size):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    found = read(path)
    writer.join()
    assert [item.value for item in found] == [3]


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"", Format.KPROBE),
        (b"\n\n", Format.KPROBE),
        (b"# tracer: nop\n#\n", Format.KPROBE),
        (b"CPU:0 [LOST 3 EVENTS]\n", Format.KPROBE),
        (b"damaged first line\n" + PORTS.encode(), Format.PORTS_JSONL),
        (b'{"n": 1, "ecam": "0x', Format.PORTS_JSONL),  # cut
        (b"hello\n", None),
        (b"{}\n", None),
        (b"\0\0\0\0", None),
        (PORTS.encode() + b"\0" * 40 + b"\n", Format.PORTS_JSONL),  # as a crash leaves files
        (LINE.encode() + b"\0" * 40 + b"\n", Format.KPROBE),
        (CPU_CHANGE + bytes(8) + b'\n{"port"\n', Format.XENTRACE),
    ],
)
def test_recognition(head, form):
    assert recognise(head) is form


def test_what_is_no_recording_is_refused_unless_its_format_is_named(tmp_path):
    path = put(tmp_path, "hello\n")
    with pytest.raises(InputError, match="expected one of ports-jsonl, writes-jsonl"):
        read(path)
    assert read(path, form=Format.KPROBE) == [Damaged(1, "line", "no line of our probes")]
    with pytest.raises(InputError):
        read(path, form=Format.PORTS_BIN)
    with pytest.raises(InputError):
        read(tmp_path / "absent")
    with pytest.raises(InputError):
        read(tmp_path)


def test_reads_and_gaps_are_told(tmp_path):
    text = port(1, 0xCF8, 0x8000_0000) + port(2, 0xCFC, 0x8086, 2, "r")
    assert read(put(tmp_path, text)) == [ConfigRead(Sbdf(0, 0, 0, 0), 0, 2, 0x8086, 2)]
    assert read(put(tmp_path, "CPU:0 [LOST 7 EVENTS]\n" + LINE))[0] == Lost(7)


# what is wrong with a line of *.ports.jsonl, what is said
BAD_ACCESSES = [
    ("nothing", "no JSON object"),
    ("[1]", "no JSON object"),
    ('{"n": 1, "port": "0xcf8"', "no JSON object"),
    ("[" * 15000, "no JSON object"),
    ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "no JSON object"),
    (port(1, 0xCF8, 1, 3), "size is none of 1, 2, 4"),
    (port(1, 0xCF8, 1, True), "size is none of 1, 2, 4"),
    (port(1, 0xCF8, 1, None), "size is missing"),
    (port(1, 0xCF8, 1, direction="x"), "dir is neither r nor w"),
    (port(1, 0xCF8, 1, direction=["w"]), "dir is neither r nor w"),
    (port(1, 0xCF8, 1, [4]), "size is none of 1, 2, 4"),
    (port(1, 0xCF8, 1, more={"value": float("inf")}), "value is no number"),
    (port(1, 0xCF8, 1).replace('"n": 1', '"n": ' + "1" * 5000), "no JSON object"),
    (port(1, 0x1_0000, 1), "port is out of range"),
    (port(1, 0xCF8, 1, more={"value": None}), "value is missing"),
    (port(1, 0xCF8, 1, more={"value": "12"}), "value is no number"),
    (port(1, 0xCF8, 1, more={"value": -1}), "value is out of range"),
    (port(1, 0xCF8, 1, more={"n": True}), "n is no number"),
    ('{"pad": "' + "x" * 20000 + '"}', "the line is longer than any record"),
    ('{"pad": "' + "x" * 200000 + '"}', "the line is longer than any record"),
]


@pytest.mark.parametrize(("line", "why"), BAD_ACCESSES, ids=[str(n) for n in range(len(BAD_ACCESSES))])
def test_a_damaged_line_is_named_skipped_and_forgets_the_latch(tmp_path, line, why):
    text = PORTS + line.rstrip("\n") + "\n" + port(3, 0xCFC, 4, 2) + PORTS
    found = read(put(tmp_path, text.encode("latin-1")), form=Format.PORTS_JSONL)
    assert found[1] == Damaged(3, "line", why)
    assert [item.value for item in found if isinstance(item, ConfigWrite)] == [3, 3]


BAD_WRITES = [
    ({"sbdf": None}, "sbdf is missing"),
    ({"sbdf": "00:82.0"}, "device 82 is above 1f"),
    ({"offset": "0x1000"}, "offset is out of range"),
    ({"offset": "0xfff"}, "offset is out of range"),
    ({"size": 8}, "size is none of 1, 2, 4"),
]


@pytest.mark.parametrize(("wrong", "why"), BAD_WRITES)
def test_a_damaged_write_is_named(tmp_path, wrong, why):
    text = json.dumps(json.loads(WRITES) | wrong) + "\n" + WRITES
    first, second = read(put(tmp_path, text), form=Format.WRITES_JSONL)
    assert first == Damaged(1, "line", why)
    assert isinstance(second, ConfigWrite)


def test_a_write_of_unknown_size(tmp_path):
    (write,) = read(put(tmp_path, WRITES.replace('"size": 2', '"size": null')))
    assert isinstance(write, ConfigWrite)
    assert (write.size, write.value) == (None, 3)


# *.ports.bin: bytes, positions of damage, values of the writes
PAIR = PORTS_BIN[24:]
BAD_BINARIES = [
    ("cut record", PORTS_BIN[:-1], [48], []),
    ("cut header", PORTS_BIN[:20], None, None),
    ("no header", PAIR, None, None),
    ("newer version", HEADER[:8] + b"\2" + HEADER[9:] + PAIR, None, None),
    ("other record size", HEADER[:12] + b"\x20" + HEADER[13:] + PAIR, None, None),
    ("bad size", HEADER + ACCESS.pack(0, 0xCF8, 0, 0, 5, 1) + PAIR, [24], [3]),
    ("bad flags, behind good", PORTS_BIN + ACCESS.pack(0, 0xCF8, 0, 0, 4, 9) + PAIR, [72], [3, 3]),
    ("nothing but the header", HEADER, [], []),
    ("nothing", b"", [], []),
]


@pytest.mark.parametrize(
    ("data", "positions", "values"), [c[1:] for c in BAD_BINARIES], ids=[c[0] for c in BAD_BINARIES]
)
def test_binary_damage(tmp_path, data, positions, values):
    path = put(tmp_path, data)
    if positions is None:
        with pytest.raises(InputError):
            read(path, form=Format.PORTS_BIN)
        return
    found = read(path, form=Format.PORTS_BIN)
    assert [item.position for item in found if isinstance(item, Damaged)] == positions
    assert [item.value for item in found if isinstance(item, ConfigWrite)] == values


def test_binary_positions_hold_beyond_the_first_buffer(tmp_path):
    count = 20_000
    data = HEADER + PAIR * count + ACCESS.pack(0, 0, 0, 0, 7, 0) + PAIR
    found = read(put(tmp_path, data))
    (damaged,) = (item for item in found if isinstance(item, Damaged))
    assert damaged.position == 24 + count * 48
    assert len(found) == count + 2


def test_trace_damage(tmp_path):
    found = read(put(tmp_path, XENTRACE + struct.pack("<I", 0x1234) + XENTRACE[:-2]))
    assert [item for item in found if isinstance(item, Damaged)] == [
        Damaged(24, "byte", "is no trace record"),
        Damaged(40, "byte", "the record is cut after 10 bytes"),
    ]


@pytest.mark.parametrize("copies", [3, 300, 3000])  # one piece, several batches, more than the head
@pytest.mark.parametrize(
    ("form", "record"), [(Format.PORTS_JSONL, PORTS.encode()), (Format.PORTS_BIN, PORTS_BIN)]
)
@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (lambda data: data[:-1], True),
        (lambda data: data[:-8] + b"\0" * 8, True),
        (lambda data: data + b"g", True),  # gzip's reader takes it for the end when it is asked once more
        (lambda data: data[:12], False),
        (lambda data: data[:5], False),
        (lambda data: data[:2], False),
    ],
)
def test_damaged_compression_is_damage_at_the_end(tmp_path, form, record, copies, harm, kept):
    head = HEADER if form is Format.PORTS_BIN else b""
    path = put(tmp_path, harm(gzip.compress(head + record.removeprefix(head) * copies)))
    *found, last = read(path, form=form)
    assert isinstance(last, Damaged)
    assert "compressed data" in last.why
    assert [type(item) for item in found] == [ConfigWrite] * (copies if kept else 0)


def test_lines_before_damaged_compression_are_read(tmp_path):
    packed = gzip.compress(WRITES.encode() * 100)
    (write,) = read(put(tmp_path, WRITES.encode()))
    *found, last = read(put(tmp_path, packed[:-1]))  # the format is known from the bytes before the damage
    assert found == [write] * 100
    assert isinstance(last, Damaged)


def test_accesses_that_wait_before_damaged_compression_are_not_lost(tmp_path):
    packed = gzip.compress(PORTS.encode() * 3)
    for data in (packed[:-8] + b"\0" * 8, packed[:-8]):  # a wrong sum, a cut end
        *found, damage = read(put(tmp_path, data), form=Format.PORTS_JSONL)
        assert [item.value for item in found] == [3, 3, 3]
        assert isinstance(damage, Damaged)


def test_several_files_are_one_stream(tmp_path):
    reader = Reader(Options())
    first, second = (
        put(tmp_path, PORTS[: len(PORTS) // 2 + 1], "a"),
        put(tmp_path, PORTS[len(PORTS) // 2 + 1 :], "b"),
    )
    lines = PORTS.splitlines(keepends=True)
    first.write_text(lines[0])
    second.write_text(lines[1])
    found = [item for path in (first, second) for item in reader.read(str(path))]
    assert [item.value for item in found] == [3]
    assert reader.unknown == 0


def test_an_unknown_vcpu_is_nobody(tmp_path):
    text = port(1, 0xCF8, 0x8000_FB04, more={"vcpu": -1}) + port(2, 0xCFC, 3, 2, more={"vcpu": -1})
    (write,) = read(put(tmp_path, text))
    assert write.who is None
    binary = PORTS_BIN[:24] + b"".join(
        ACCESS.pack(n, address, value, NO_VCPU, size, 1)
        for n, address, value, size in ((1, 0xCF8, 0x8000_FB04, 4), (2, 0xCFC, 3, 2))
    )
    (write,) = read(put(tmp_path, binary))
    assert write.who is None
    for vcpu in (True, -1, 1 << 70, [0], None):
        (write,) = read(put(tmp_path, json.dumps(json.loads(WRITES) | {"vcpu": vcpu})))
        assert write.who is None


def test_a_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as Python has it where descriptor 0 is closed
    with pytest.raises(InputError, match="closed"):
        read("-")
