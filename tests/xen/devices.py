"""Functions whose registers do something: sized BARs, MSI-X, SR-IOV."""

import struct

import attrs

from pcipt.pci import Ids, RawFunction, Resource, parse_sbdf

MEM64, MEM32 = Resource.MEMORY | Resource.MEM_64, Resource.MEMORY
MSIX_AT, EXPRESS_AT, SRIOV_AT = 0x40, 0x60, 0x100


def device(
    address, *bars, command=2, msix=None, rom=None, sriov=None, header=0, buses=(0, 0, 0), driver=None,
    parent=None, vendor=0x8086, window=(0xC000, 0xCFF0), express=None, conventional=False,
    class_code=None,
):  # fmt: skip
    """Make a raw function.

    `bars` are (address, size) or (address, size, "64"), `rom` is (register, size), `msix` (BAR, table, PBA),
    `sriov` (total, offset of the first, its stride, BARs of one), `window` a bridge's memory base and limit.
    `express` is the port type of PCI Express: an endpoint or root port, if it is not `conventional`.
    """
    data = bytearray(4096 if sriov else 256)
    if class_code is None:
        class_code = 0x060400 if header == 1 else 0x020000
    struct.pack_into("<HHHHI", data, 0, vendor, 0x10D3, command, 0, class_code << 8)
    data[0x0E] = header
    if header == 1:
        data[0x18:0x1B] = bytes(buses)
        struct.pack_into("<BBxxHHHH", data, 0x1C, 0xF0, 0, *window, 0xFFF0, 0)
    if header == 2:  # a CardBus bridge that Linux has set up
        behind = 0xE0 | int(address.rpartition(":")[2].partition(".")[0], 16)
        data[0x18:0x1B] = bytes((int(address.split(":")[-2], 16), behind, behind))
    lines = [Resource(0, 0, 0)] * 13
    put_bars(data, 0x10, bars, lines, 0, 1)
    if rom:
        struct.pack_into("<I", data, 0x38 if header == 1 else 0x30, rom[0])
        lines[6] = Resource(rom[0] & ~1, rom[1], MEM32)
    if not conventional:
        put_express(data, (4 if header == 1 else 0) if express is None else express)
    if msix:
        data[0x06], data[0x34], express_at = 0x10, MSIX_AT, data[0x34]
        bar, table, pba = msix
        struct.pack_into("<BBHII", data, MSIX_AT, 0x11, express_at, 3, table | bar, pba | bar)
    if sriov:
        total, offset, stride, vf_bars = sriov
        struct.pack_into("<I", data, SRIOV_AT, 0x0001_0010)
        struct.pack_into("<HHHHH", data, SRIOV_AT + 0xC, total, total, 0, 0, offset)
        struct.pack_into("<HH", data, SRIOV_AT + 0x16, stride, 0)
        struct.pack_into("<H", data, SRIOV_AT + 0x1A, 0x10ED)
        put_bars(data, SRIOV_AT + 0x24, vf_bars, lines, 7, total)
    sbdf = parse_sbdf(address)
    return RawFunction(
        sbdf=sbdf,
        config=bytes(data),
        resources=tuple(lines),
        ids=Ids(),
        driver=driver,
        parent=parse_sbdf(parent) if parent else None,
        root_bus=None if parent else sbdf.bus,
        secondary=buses[1] if header == 1 else None,
    )


def host_bridge(vendor):
    """Make a machine's first function; its vendor tells whose IOMMU the machine has."""
    raw = device("00:00.0", vendor=vendor, command=0)
    data = bytearray(raw.config)
    struct.pack_into("<I", data, 0x08, 0x060000 << 8)
    return attrs.evolve(raw, config=bytes(data))


def put_express(data, port_type):
    data[0x06], data[0x34] = 0x10, EXPRESS_AT
    struct.pack_into("<BBH", data, EXPRESS_AT, 0x10, 0, 2 | port_type << 4)


def put_bars(data, at, bars, lines, first, times):
    index = 0
    for address, size, *wide in bars:
        struct.pack_into("<I", data, at + 4 * index, address & 0xFFFFFFFF | (0x4 if wide else 0))
        lines[first + index] = Resource(address, size * times, MEM64 if wide else MEM32)
        if wide:
            struct.pack_into("<I", data, at + 4 * index + 4, address >> 32)
        index += 2 if wide else 1


def port(address, secondary, subordinate, **more):
    """Make a bridge."""
    bus = parse_sbdf(address).bus
    return device(address, header=1, buses=(bus, secondary, subordinate), **more)
