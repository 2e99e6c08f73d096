"""Small machines for tests: raw functions made of a few words."""

import struct

import attrs

from pcipt.pci import Ids, RawFunction, Resource, decode_machine, parse_sbdf


def config(
    vendor=0x8086,
    device=0x10D3,
    *,
    command=0,
    header=0,
    class_code=0x020000,
    buses=(0, 0, 0),
    bars=(),
    size=64,
):
    data = bytearray(size)
    struct.pack_into("<HHHH", data, 0, vendor, device, command, 0)
    struct.pack_into("<I", data, 8, class_code << 8)
    data[14] = header
    for index, value in enumerate(bars):
        struct.pack_into("<I", data, 0x10 + 4 * index, value)
    if header == 1:
        data[0x18:0x1B] = bytes(buses)
        struct.pack_into("<BBxxHHHH", data, 0x1C, 0xF0, 0, 0xFFF0, 0, 0xFFF0, 0)  # all windows closed
    return bytes(data)


def function(address, *, parent=None, driver=None, physfn=None, resources=(), ids=None, **registers):
    sbdf = parse_sbdf(address)
    return RawFunction(
        sbdf=sbdf,
        config=config(**registers),
        resources=tuple(Resource(*line) for line in resources),
        ids=ids or Ids(),
        driver=driver,
        physfn=parse_sbdf(physfn) if physfn else None,
        parent=parse_sbdf(parent) if parent else None,
        root_bus=None if parent else sbdf.bus,
    )


def bridge(address, secondary, subordinate, *, conventional=False, **more):
    """A root port, or a conventional bridge."""
    more = {"size": 64 if conventional else 256, **more}
    buses = (int(address[:2], 16), secondary, subordinate)
    raw = function(address, header=1, class_code=0x060400, buses=buses, **more)
    if conventional:
        return raw
    data = bytearray(raw.config)
    data[6], data[0x34] = 0x10, 0x40  # status: there is a capability list
    struct.pack_into("<BBH", data, 0x40, 0x10, 0, 0x0042)  # PCI Express, version 2, root port
    return attrs.evolve(raw, config=bytes(data))


def ari_port(address, secondary, subordinate):
    """A root port whose PCI Express capability forwards alternative routing ids."""
    raw = bridge(address, secondary, subordinate)
    data = bytearray(raw.config)
    struct.pack_into("<H", data, 0x40 + 0x28, 1 << 5)
    return RawFunction(sbdf=raw.sbdf, config=bytes(data), root_bus=raw.root_bus)


def iommu(at="00:00.2", *, kind=3, msi=True, size=256):
    """An AMD IOMMU: its capability at 40h, and MSI at 64h."""
    data = bytearray(config(0x1022, 0x1423, class_code=0x080600, size=256))
    data[6], data[0x34] = 0x10, 0x40
    struct.pack_into("<BBH", data, 0x40, 0x0F, 0x64 if msi else 0, kind)
    if msi:
        struct.pack_into("<BBH", data, 0x64, 5, 0, 0)
    return RawFunction(parse_sbdf(at), config=bytes(data[:size]), root_bus=0)


def smbus(mode=8, at="00:14.0", *, vendor=0x1002, device=0x4385, size=256):
    """The SMBus function of an SP5100; bit 3 of its register ADh says combined mode."""
    data = bytearray(config(vendor, device, class_code=0x0C0500, size=256))
    data[0xAD] = mode
    return RawFunction(parse_sbdf(at), config=bytes(data[:size]), root_bus=0)


def machine(*raws):
    return decode_machine(raws)
