"""Rows about decoding: recorded port accesses, a trace of Xen, and the text of the kernel's probes."""

import ctypes
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.commands import PCIPT
from bench.timing import Row, compared, processor, ratios
from pcipt.watch.kprobe_text import parse_line
from pcipt.watch.ports import ACCESS, CONFIG
from pcipt.watch.recording import Damaged, Options, Reader

ROOT = Path(__file__).resolve().parents[1]
NO_XENALYZE = "xenalyze is not installed (Debian: package xen-utils-common)"
FUNCTIONS = 2048  # in the text of the probes


def rows(place: Path, scale: int, rounds: int) -> Iterator[Row]:
    """Yield the rows; files are made in `place`. `scale` divides the number of records (1: as judged)."""
    records, lines = 1_000_000 // scale, 100_000 // scale
    yield ports(place, 4 * records, rounds)
    trace = place / "quiet.xentrace"
    write_trace(trace, records)
    work, peer = f"`decode --final`, xentrace, {records:,} records", "`xenalyze --summary`"
    xenalyze = shutil.which("xenalyze")
    if xenalyze is None:
        yield Row(work, peer, bound=1.5, skipped=NO_XENALYZE)
    else:
        ours = [*PCIPT, "decode", "--final", str(trace)]
        yield Row(work, peer, compared(ours, [xenalyze, "--summary", str(trace)], rounds), 1.5)
    yield kprobe(place, lines, rounds)


def kprobe(place: Path, lines: int, rounds: int) -> Row:
    """Return the row about the text of probes: the whole command against its parser alone."""
    path = place / "probes.txt"
    write_probes(path, lines)

    def alone() -> float:
        began = time.process_time()
        with path.open(encoding="utf-8") as text:
            for line in text:
                parse_line(line)
        return time.process_time() - began

    ours = [*PCIPT, "decode", "--final", str(path)]
    found = ratios(lambda: processor(ours), alone, rounds)
    return Row(
        f"`decode --final`, text, {lines:,} lines, {FUNCTIONS:,} functions", "the parser alone", found, 2.5
    )


def write_probes(path: Path, lines: int) -> None:
    """Write the text of trace_pipe: BAR, command and interrupt registers of each function in turn."""
    registers = ((0x10, 4, 0xFEB0_0000), (0x04, 2, 0x0406), (0x3C, 1, 0x0B), (0x0C, 1, 0x10))
    with path.open("w", encoding="ascii") as out:
        for number in range(lines):
            function = number % FUNCTIONS
            register, size, value = registers[number // FUNCTIONS % len(registers)]
            if register == 0x10:
                value += (function << 14) + (number // FUNCTIONS << 25 & 0xFFFF_FFFF)
            out.write(
                f"     setpci-394     [000] d..1. {45 + number / 1e4:.6f}: conf1: (pci_conf1_write+0x0/0xf0) "
                f"seg=0 bus={function >> 8} devfn={function & 0xFF} reg={register} len={size} "
                f'val={value & 0xFFFF_FFFF} comm="setpci"\n'
            )


def ports(place: Path, records: int, rounds: int) -> Row:
    """Return the row about port accesses: addresses and data alternate; one data access in four is a write.

    Compared are the rates.
    """
    path = place / "volume.ports.bin"
    block = bytearray()
    for n in range(1, 4001):
        address = 0x8000_0000 | (n * 2654435761 & 0x00FF_FFFC)
        block += ACCESS.pack(2 * n - 1, 0xCF8, address, 0, 4, 1)
        block += ACCESS.pack(2 * n, 0xCFC | n & 3, n & 0xFF, 0, 1, n % 4 == 0)
    count = max(records // 8000, 1) * 8000
    with path.open("wb") as file:
        file.write(b"PCIPTPRT" + struct.pack("<IIQ", 1, ACCESS.size, 0))
        for _ in range(count // 8000):
            file.write(block)
    data = path.read_bytes()[24:]
    bare = _bare_loop(place)
    held = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(16384 * CONFIG.size)

    def through_python() -> float:
        began = time.process_time()
        batches = Reader(Options(reads=False)).batches(str(path))
        found = sum(len(batch) for batch in batches if not isinstance(batch, Damaged))
        taken = time.process_time() - began
        assert found == count // 8
        return taken

    def in_c() -> float:
        began = time.process_time()
        found = bare(held, count, out, 16383)
        taken = time.process_time() - began
        assert found == count // 8
        return taken

    rates = ratios(in_c, through_python, rounds)  # the rate is the inverse of the time
    return Row(
        f"ports.bin, {count:,} records, rate",
        "a loop in C over the same records in memory",
        rates,
        0.5,
        least=True,
    )


def write_trace(path: Path, records: int) -> None:
    """Write a file of xentrace with so many records."""

    def record(event: int, *words: int, tsc: int | None = None) -> bytes:
        header = event | len(words) << 28 | (tsc is not None) << 31
        stamp = b"" if tsc is None else struct.pack("<Q", tsc)
        return struct.pack("<I", header) + stamp + struct.pack(f"<{len(words)}I", *words)

    body = bytearray()
    tsc = 1_000_000
    body += record(0x21002, 0, tsc=tsc)  # dom0, virtual CPU 0 runs on: xenalyze starts with nothing else
    for n in range(1, records):
        tsc += 500
        if n % 40 == 10:
            body += record(0x82216, 0xCF8, 0x8000_0000 | n << 8 & 0xFF_FF00)
        elif n % 40 == 11:
            body += record(0x82216, 0xCFC, n)
        elif n % 2:
            body += record(0x81002, 30, 0x1234_5678, tsc=tsc)
        else:
            body += record(0x81001, tsc=tsc)
    path.write_bytes(struct.pack("<III", 0x2001_F003, 0, len(body)) + body)


def _bare_loop(place: Path) -> Callable[..., int]:
    """Compile decode_loop.c and return its function."""
    library = place / "bare.so"
    source = ROOT / "bench" / "decoding_loop.c"
    subprocess.run(["cc", "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    function = ctypes.CDLL(str(library)).bare_loop
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    function.restype = ctypes.c_size_t
    return function
