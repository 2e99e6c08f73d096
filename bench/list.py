"""Measure `pcipt list` against `lspci -Dnv` on one generated sysfs tree, alternately, in the same run.

    bench/list.py [--functions 10000] [--rounds 5] [--limit 1.0] [--keep DIR]

The tree is like Linux's: segments with a host bridge and root ports, behind each port one device of eight
functions, with the files that lspci and pcipt read. Each program runs twice to warm up, then they take turns.
Printed are median and spread of the elapsed time and the ratio of the medians. Exit 1 if the ratio is above
--limit.
"""

import argparse
import itertools
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

PORTS = 31
ENDPOINTS = 8
#            vendor, device, class, driver: names exist in pci.ids
ENDPOINT_IDS = (
    (0x8086, 0x10C9, 0x020000, "igb"),
    (0x8086, 0x0953, 0x010802, "nvme"),
    (0x10DE, 0x1DB1, 0x030200, "nvidia"),
    (0x1AF4, 0x1041, 0x020000, "virtio-pci"),
    (0x15B3, 0x1017, 0x020000, "mlx5_core"),
)
CONFIG_SIZES = (256, 256, 64, 256)  # 64 bytes: as read without CAP_SYS_ADMIN


def layout() -> Iterator[tuple[str, str, bytes, tuple[int, int, int, str | None]]]:
    """Yield the functions of the generated machine without end.

    Shape:  directory below devices/, address, config space, (vendor, device, class, driver).
    """
    for segment in itertools.count():
        root = f"pci{segment:04x}:00"
        name = f"{segment:04x}:00:00.0"
        yield f"{root}/{name}", name, config(0x8086, 0x0D57, 0x060000), (0x8086, 0x0D57, 0x060000, None)
        for port in range(1, PORTS + 1):
            above = f"{segment:04x}:00:{port:02x}.0"
            ids = (0x8086, 0xA340, 0x060400, "pcieport")
            yield f"{root}/{above}", above, config(*ids[:3], bus=port), ids
            for function in range(ENDPOINTS):
                name = f"{segment:04x}:{port:02x}:00.{function}"
                chosen = ENDPOINT_IDS[(port + function) % len(ENDPOINT_IDS)]
                size = CONFIG_SIZES[function % len(CONFIG_SIZES)]
                yield f"{root}/{above}/{name}", name, config(*chosen[:3], size=size), chosen


def config(vendor: int, device: int, class_code: int, *, bus: int | None = None, size: int = 256) -> bytes:
    """Return a config space with one memory BAR and the usual capabilities.

    With `bus` it is that of a bridge to this bus. `size` is the number of bytes that can be read.
    """
    space = bytearray(256)
    struct.pack_into("<HHHHI", space, 0, vendor, device, 0x0406, 0x0010, class_code << 8 | 1)
    space[0x0E] = 0x80 if bus is None else 0x01
    struct.pack_into("<II", space, 0x10, 0xFEB0_0004, 0)
    if bus is None:
        struct.pack_into("<HH", space, 0x2C, vendor, 1)
    else:
        space[0x18:0x1B] = bytes((0, bus, bus))
        struct.pack_into("<BBHHHHH", space, 0x1C, 0xF1, 0x01, 0, 0xFEB0, 0xFEB0, 0xFFF1, 0x0001)
    space[0x34] = 0x40
    for at, capability, following in ((0x40, 0x01, 0x50), (0x50, 0x05, 0x70), (0x70, 0x11, 0xA0)):
        space[at], space[at + 1] = capability, following
    struct.pack_into("<BBH", space, 0xA0, 0x10, 0, 0x0002 if bus is None else 0x0042)
    return bytes(space[:size])


def build(root: str, functions: int) -> None:
    """Write the sysfs tree of a machine with this number of functions below `root`, as Linux shows it."""
    listing = os.path.join(root, "sys/bus/pci/devices")
    os.makedirs(listing)
    empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    resource = "0x00000000feb00000 0x00000000feb03fff 0x0000000000140204\n" + 16 * empty
    for place, name, space, (vendor, device, class_code, driver) in itertools.islice(layout(), functions):
        home = os.path.join(root, "sys/devices", place)
        os.makedirs(home)
        texts = {
            "vendor": f"0x{vendor:04x}\n", "device": f"0x{device:04x}\n", "class": f"0x{class_code:06x}\n",
            "revision": "0x01\n", "subsystem_vendor": f"0x{vendor:04x}\n", "subsystem_device": "0x0001\n",
            "irq": "16\n", "numa_node": "-1\n", "enable": "1\n", "ari_enabled": "0\n", "resource": resource,
            "uevent": f"PCI_CLASS={class_code:X}\nPCI_ID={vendor:04X}:{device:04X}\nPCI_SLOT_NAME={name}\n",
        }  # fmt: skip
        for file, text in texts.items():
            with open(os.path.join(home, file), "w", encoding="ascii") as out:
                out.write(text)
        with open(os.path.join(home, "config"), "wb") as out:
            out.write(space)
        up = "../" * (place.count("/") + 2)
        if driver is not None:
            os.symlink(f"{up}bus/pci/drivers/{driver}", os.path.join(home, "driver"))
        os.symlink(f"../../../devices/{place}", os.path.join(listing, name))


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Run the commands in turn; return the seconds of each run of each command.

    Two more rounds run first, to warm up, and are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            if number >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--functions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.0, help="highest allowed ratio pcipt : lspci")
    parser.add_argument("--keep", metavar="DIR", help="build the tree there (or use it, if it is there)")
    args = parser.parse_args()
    if shutil.which("lspci") is None:
        print("lspci (package pciutils) is not installed", file=sys.stderr)
        return 1
    root = args.keep or tempfile.mkdtemp(prefix="pcipt-bench-")
    try:
        if not os.path.isdir(os.path.join(root, "sys")):
            build(root, args.functions)
        return report(root, args.rounds, args.limit)
    finally:
        if args.keep is None:
            shutil.rmtree(root)


def report(root: str, rounds: int, limit: float) -> int:
    """Run both programs on the tree, print the times; return 0 if the ratio is within `limit`, else 1."""
    commands = {
        "pcipt list": [sys.executable, "-m", "pcipt.cli.main", "list", "--root", root],
        "lspci -Dnv": ["lspci", "-A", "linux-sysfs", "-O", f"sysfs.path={root}/sys/bus/pci", "-Dnv"],
    }
    listed = subprocess.run(commands["pcipt list"], capture_output=True, check=True).stdout.count(b"\n")
    times = measure(commands, rounds)
    for name, seconds in times.items():
        print(
            f"{name}: {listed} functions, median {statistics.median(seconds):.3f} s, "
            f"{min(seconds):.3f} to {max(seconds):.3f} s over {rounds} rounds"
        )
    ours, theirs = (statistics.median(seconds) for seconds in times.values())
    print(f"ratio {ours / theirs:.2f} (limit {limit:.2f})")
    return 0 if ours <= limit * theirs else 1


if __name__ == "__main__":
    sys.exit(main())
