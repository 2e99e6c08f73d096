"""Machines for the benches, as sysfs trees: flat and deep, with as many functions as wanted.

Flat: a segment has a host bridge and 31 root ports, each with a device of eight functions. Deep: a segment
has a root port with a chain of 12 switches, each with such a device and the next switch. Each endpoint has a
64-bit BAR of its own; the windows of the bridges above it hold it, those of siblings do not overlap. Config
space has 4096 bytes, with the capabilities that most devices have.
"""

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

PORTS, SWITCHES, ENDPOINTS = 31, 12, 8
BAR_SIZE = 0x4000
MIB = 1 << 20
ABOVE_4G = 1 << 40
STRIDE = 64 * MIB  # of memory for each segment
EMPTY = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
ROOT_PORT, UPSTREAM, DOWNSTREAM = 4, 5, 6  # PCI Express: device/port type in the Express capability
HOST_BRIDGE = (0x8086, 0x0D57, 0x060000, None)
PORT = (0x8086, 0xA340, 0x060400, "pcieport")
#            vendor, device, class, driver: names exist in pci.ids
ENDPOINT_IDS = (
    (0x8086, 0x10C9, 0x020000, "igb"),
    (0x8086, 0x0953, 0x010802, "nvme"),
    (0x10DE, 0x1DB1, 0x030200, "nvidia"),
    (0x1AF4, 0x1041, 0x020000, "virtio-pci"),
    (0x15B3, 0x1017, 0x020000, "mlx5_core"),
)


class Made(NamedTuple):
    """One function: its directory below sys/devices, its name, ids and driver, the memory that it decodes or
    forwards (base and size; size 0 is none), and for a bridge its buses (own, secondary, subordinate) and
    port type.
    """

    place: str
    name: str
    ids: tuple[int, int, int, str | None]
    base: int = 0
    size: int = 0
    buses: tuple[int, int, int] | None = None
    port: int = 0


def flat() -> Iterator[Made]:
    """Yield the functions of a flat machine without end."""
    for segment in itertools.count():
        top, memory = f"pci{segment:04x}:00", ABOVE_4G + segment * STRIDE
        yield _made(top, segment, 0, "00.0", HOST_BRIDGE)
        for bus in range(1, PORTS + 1):
            base = memory + (bus - 1) * MIB
            port = _made(top, segment, 0, f"{bus:02x}.0", PORT, base, MIB, (0, bus, bus), ROOT_PORT)
            yield port
            yield from _device(port.place, segment, bus, base)


def deep() -> Iterator[Made]:
    """Yield the functions of a deep machine without end."""
    for segment in itertools.count():
        top, memory = f"pci{segment:04x}:00", ABOVE_4G + segment * STRIDE
        last, end = 3 * SWITCHES, memory + SWITCHES * MIB
        yield _made(top, segment, 0, "00.0", HOST_BRIDGE)
        above = _made(top, segment, 0, "01.0", PORT, memory, end - memory, (0, 1, last), ROOT_PORT)
        yield above
        for level in range(SWITCHES):
            bus, base = 1 + 3 * level, memory + level * MIB
            upstream = _made(
                above.place, segment, bus, "00.0", PORT, base, end - base, (bus, bus + 1, last), UPSTREAM
            )
            buses = bus + 1, bus + 2, bus + 2
            leaf = _made(upstream.place, segment, bus + 1, "00.0", PORT, base, MIB, buses, DOWNSTREAM)
            yield upstream
            yield leaf
            yield from _device(leaf.place, segment, bus + 2, base)
            if level + 1 < SWITCHES:
                base, buses = base + MIB, (bus + 1, bus + 3, last)
                above = _made(
                    upstream.place, segment, bus + 1, "01.0", PORT, base, end - base, buses, DOWNSTREAM
                )
                yield above


SHAPES: dict[str, Callable[[], Iterator[Made]]] = {"flat": flat, "deep": deep}


def _made(top: str, segment: int, bus: int, slot: str, *facts: object) -> Made:
    """Return the function in `slot` of a bus, below the directory `top`."""
    name = f"{segment:04x}:{bus:02x}:{slot}"
    return Made(f"{top}/{name}", name, *facts)  # type: ignore[arg-type]


def _device(top: str, segment: int, bus: int, base: int) -> Iterator[Made]:
    """Yield the eight functions of the device on a bus; their BARs begin at `base`."""
    for number in range(ENDPOINTS):
        ids = ENDPOINT_IDS[(bus + number) % len(ENDPOINT_IDS)]
        yield _made(top, segment, bus, f"00.{number}", ids, base + number * BAR_SIZE, BAR_SIZE)


def config(made: Made) -> bytes:
    """Return the 4096 bytes of a function's config space.

    Source: PCI 3.0 6.1 and 6.7, PCI-to-PCI bridge 1.2 3.2, PCI Express 4.0 7.5.3 and 7.6.
    """
    space = bytearray(4096)
    vendor, device, class_code, _ = made.ids
    struct.pack_into("<HHHHI", space, 0, vendor, device, 0x0406, 0x0010, class_code << 8 | 1)
    if made.buses is None:
        space[0x0E] = 0x80
        struct.pack_into("<HH", space, 0x2C, vendor, 1)
        if made.size:
            struct.pack_into("<Q", space, 0x10, made.base | 0x4)
    else:
        space[0x0E] = 0x01
        space[0x18:0x1B] = bytes(made.buses)
        limit = made.base + made.size - 1
        struct.pack_into("<BBHHH", space, 0x1C, 0xF1, 0x01, 0, 0xFFF0, 0)  # no I/O, no 32-bit memory
        low = (made.base >> 16 & 0xFFF0 | 1, limit >> 16 & 0xFFF0 | 1)
        struct.pack_into("<HHII", space, 0x24, *low, made.base >> 32, limit >> 32)
    space[0x34] = 0x40
    for at, capability, following in ((0x40, 0x01, 0x50), (0x50, 0x05, 0x70), (0x70, 0x11, 0xA0)):
        space[at], space[at + 1] = capability, following
    struct.pack_into("<BBH", space, 0xA0, 0x10, 0, 0x0002 | made.port << 4)
    # Advanced Error Reporting, serial number, ARI.
    for at, capability, following in ((0x100, 0x1, 0x148), (0x148, 0x3, 0x158), (0x158, 0xE, 0)):
        struct.pack_into("<I", space, at, capability | 1 << 16 | following << 20)
    return bytes(space)


def texts(made: Made) -> dict[str, str]:
    """Return the text files of a function's directory."""
    vendor, device, class_code, _ = made.ids
    line = f"{made.base:#018x} {made.base + made.size - 1:#018x} 0x0000000000140204\n"
    held = line if made.size else EMPTY
    bridge = made.buses is not None
    found = {
        "vendor": f"0x{vendor:04x}\n", "device": f"0x{device:04x}\n", "class": f"0x{class_code:06x}\n",
        "revision": "0x01\n", "subsystem_vendor": f"0x{0 if bridge else vendor:04x}\n",
        "subsystem_device": f"0x{0 if bridge else 1:04x}\n",
        "irq": "16\n", "numa_node": "-1\n", "enable": "1\n", "ari_enabled": "0\n",
        "resource": 15 * EMPTY + held + EMPTY if bridge else held + 12 * EMPTY,
        "uevent": f"PCI_CLASS={class_code:X}\nPCI_ID={vendor:04X}:{device:04X}\nPCI_SLOT_NAME={made.name}\n",
    }  # fmt: skip
    if made.buses is not None:
        _, secondary, subordinate = made.buses
        found |= {"secondary_bus_number": f"{secondary}\n", "subordinate_bus_number": f"{subordinate}\n"}
    return found


def build(root: str, shape: str, functions: int) -> None:
    """Write a recorded machine of this shape (a key of SHAPES) below `root`: sys/ and proc/iomem.

    Equal files of 256 functions are one file with several names, to save space.
    """
    listing = os.path.join(root, "sys/bus/pci/devices")
    os.makedirs(listing)
    os.makedirs(os.path.join(root, "proc"))
    with open(os.path.join(root, "proc/iomem"), "w", encoding="ascii") as iomem:
        iomem.write("00100000-7fffffff : System RAM\n")
    written: dict[tuple[str, str], str] = {}
    for number, made in enumerate(itertools.islice(SHAPES[shape](), functions)):
        if number % 256 == 0:
            written.clear()
        home = os.path.join(root, "sys/devices", made.place)
        os.makedirs(home)
        for file, text in texts(made).items():
            path = os.path.join(home, file)
            if (same := written.setdefault((file, text), path)) != path:
                os.link(same, path)
                continue
            with open(path, "w", encoding="ascii") as out:
                out.write(text)
        with open(os.path.join(home, "config"), "wb") as out:
            out.write(config(made))
        if made.ids[3] is not None:
            up = "../" * (made.place.count("/") + 2)
            os.symlink(f"{up}bus/pci/drivers/{made.ids[3]}", os.path.join(home, "driver"))
        os.symlink(f"../../../devices/{made.place}", os.path.join(listing, made.name))
