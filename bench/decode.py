"""Measure decoding against its peers in the same run: medians of alternating runs, after a warm-up.

    bench/decode.py [--records N] [--rounds N]

1. A *.ports.bin file: `Reader.batches` must reach 0.3 of the rate of a bare C loop over the same records in
memory, and 50 times the rate of the pure Python twin of the tests.

2. A file of xentrace: `Reader.batches` may take twice the time of `xenalyze --summary` on the same file.
"""

import argparse
import ctypes
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pcipt.watch.ports import ACCESS, CONFIG  # noqa: E402  # the path comes first
from pcipt.watch.recording import Damaged, Options, Reader  # noqa: E402
from tests.port_twin import Twin  # noqa: E402

XENALYZE = ("/usr/lib/xen-4.17/bin/xenalyze", "/usr/sbin/xenalyze", "/usr/bin/xenalyze")
TWIN_SHARE = 20  # the twin decodes a twentieth of the records, because only its rate is compared


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        good = bench_ports(Path(place), args.records, args.rounds)
        good &= bench_xentrace(Path(place), 1_000_000, args.rounds)
    return 0 if good else 1


def bench_ports(place: Path, records: int, rounds: int) -> bool:
    """Measure port accesses: addresses and data alternate, and one data access in four is a write.

    Return True if both limits are met.
    """
    path = place / "volume.ports.bin"
    block = bytearray()
    for n in range(1, 4001):
        address = 0x8000_0000 | (n * 2654435761 & 0x00FF_FFFC)
        block += ACCESS.pack(2 * n - 1, 0xCF8, address, 0, 4, 1)
        block += ACCESS.pack(2 * n, 0xCFC | n & 3, n & 0xFF, 0, 1, n % 4 == 0)
    count = records // 8000 * 8000
    with path.open("wb") as file:
        file.write(b"PCIPTPRT" + struct.pack("<IIQ", 1, ACCESS.size, 0))
        for _ in range(count // 8000):
            file.write(block)
    data = path.read_bytes()[24:]
    part = list(ACCESS.iter_unpack(data[: len(data) // TWIN_SHARE // ACCESS.size * ACCESS.size]))
    bare = _bare_loop(place)
    held = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(16384 * CONFIG.size)

    ours = bare_count = 0

    def through_python() -> None:
        nonlocal ours
        ours = sum(
            len(batch)
            for batch in Reader(Options(reads=False)).batches(str(path))
            if not isinstance(batch, Damaged)
        )

    def in_c() -> None:
        nonlocal bare_count
        bare_count = bare(held, count, out, 16383)

    def twin() -> None:
        for _ in Twin().decode(part):
            pass

    times = alternate([through_python, in_c, twin], rounds)
    assert ours == bare_count == count // 8
    rates = [count / times[0], count / times[1], len(part) / times[2]]
    print(f"ports.bin, {count} records: Python API {rates[0] / 1e6:.0f} M/s, "
          f"bare C {rates[1] / 1e6:.0f} M/s, Python twin {rates[2] / 1e6:.2f} M/s")  # fmt: skip
    good = judge("of the bare C loop", rates[0] / rates[1], 0.3, at_least=True)
    return judge("times the Python twin", rates[0] / rates[2], 50, at_least=True) and good


def bench_xentrace(place: Path, records: int, rounds: int) -> bool:
    """Measure a trace of a quiet PVH dom0: a virtual CPU's exits and entries, a port pair in 40 records.

    Return True if the limit is met, or if xenalyze is not installed.
    """
    xenalyze = next((path for path in XENALYZE if os.path.exists(path)), None)
    if xenalyze is None:
        print("xentrace: skipped, xenalyze is not installed (package xen-utils-4.17)")
        return True
    path = place / "quiet.xentrace"
    write_trace(path, records)
    found = 0

    def through_python() -> None:
        nonlocal found
        found = sum(
            len(batch)
            for batch in Reader(Options(reads=False)).batches(str(path))
            if not isinstance(batch, Damaged)
        )

    def peer() -> None:
        subprocess.run([xenalyze, "--summary", str(path)], capture_output=True, check=False)

    times = alternate([through_python, peer], rounds)
    print(f"xentrace, {records} records, {found} writes: Python API {times[0] * 1e3:.1f} ms, "
          f"xenalyze --summary {times[1] * 1e3:.1f} ms")  # fmt: skip
    return judge("of the time of xenalyze", times[0] / times[1], 2, at_least=False)


def write_trace(path: Path, records: int) -> None:
    """Write a file of xentrace with so many records."""

    def record(event: int, *words: int, tsc: int | None = None) -> bytes:
        header = event | len(words) << 28 | (tsc is not None) << 31
        stamp = b"" if tsc is None else struct.pack("<Q", tsc)
        return struct.pack("<I", header) + stamp + struct.pack(f"<{len(words)}I", *words)

    body = bytearray()
    tsc = 1_000_000
    body += record(0x21001 | 1 << 8, 0, tsc=tsc)
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


def alternate(contestants: list[Callable[[], None]], rounds: int) -> list[float]:
    """Run each contestant once to warm up, then all in turn; return the median of each in seconds."""
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds + 1):
        for number, contestant in enumerate(contestants):
            start = time.perf_counter()
            contestant()
            if turn:
                times[number].append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def judge(what: str, ratio: float, limit: float, *, at_least: bool) -> bool:
    """Print a ratio and its limit; return True if the limit is met."""
    good = ratio >= limit if at_least else ratio <= limit
    bound = "at least" if at_least else "at most"
    print(f"  {ratio:.2f} {what}; wanted {bound} {limit}: {'yes' if good else 'NO'}")
    return good


def _bare_loop(place: Path) -> Callable[..., int]:
    """Compile decode_loop.c and return its function."""
    library = place / "bare.so"
    source = ROOT / "bench" / "decode_loop.c"
    subprocess.run(["cc", "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    function = ctypes.CDLL(str(library)).bare_loop
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    function.restype = ctypes.c_size_t
    return function


if __name__ == "__main__":
    sys.exit(main())
