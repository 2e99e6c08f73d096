"""Compute Express Link: its Designated Vendor Specific structures.

Source: CXL 3.0 §8.1 (DVSEC ids in §8.1.1), §8.1.3 (devices), §8.1.5 (ports), §8.1.8 (Flex Bus), §8.1.9
        (register locator).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import Field, Register, flag, flags, hexa, one_of

CXL = 0x1E98  # the vendor id of the CXL consortium
CXL_NAMES = {
    0: "CXL device",
    2: "CXL non-CXL function map",
    3: "CXL extensions for ports",
    4: "CXL GPF for ports",
    5: "CXL GPF for devices",
    7: "CXL Flex Bus port",
    8: "CXL register locator",
    9: "CXL multi-logical device",
    10: "CXL test capability",
}
_DEVICE_LENGTH, _PORT_LENGTH, _FLEX_LENGTH, _MLD_LENGTH, _MAP_LENGTH = 0x38, 0x28, 0x14, 0x10, 0x2C
_LOCATORS, _LOCATOR = 0xC, 8
_BLOCKS = one_of(
    {
        0: "empty",
        1: "component registers",
        2: "BAR virtualization",
        3: "CXL device registers",
        4: "CPMU registers",
        0xFF: "vendor-specific",
    }
)
_TYPES = one_of({0: "Volatile", 1: "Non-volatile", 2: "CDAT"})
_CLASSES = one_of({0: "DRAM", 1: "Storage", 2: "CDAT"})
_INTERLEAVES = one_of(dict(enumerate((0, 256, 4096, 512, 1024, 2048, 8192, 16384))))
_PROTOCOLS = ((0, "Cache", "cache"), (1, "IO", "io"), (2, "Mem", "memory"))
_CACHE_UNITS = {1: 64 << 10, 2: 1 << 20}


def _cache_size(raw: int) -> int | None:
    """Return the size of the cache in bytes; None if it is not reported."""
    unit = _CACHE_UNITS.get(raw & 0xF)
    return None if unit is None else (raw >> 8) * unit


def _address(shift: int) -> Field:
    """Return the field of a 64-bit address or size whose upper half comes first."""
    key, word = ("size", "size") if not shift else ("base", "base")
    return Field(
        key,
        word,
        shift,
        64,
        lambda raw: f"0x{(raw & 0xFFFF_FFFF) << 32 | raw >> 32 & 0xF000_0000:016x}",
    )


def _range(offset: int, number: int) -> Register:
    """Return a memory range of a device: its size with flags, then its base."""
    low = 32  # the flags are in the lower half of the size, which comes second
    return Register(
        "ranges",
        f"Range{number}",
        offset,
        16,
        (
            _address(64),
            _address(0),
            *flags((low, "Valid", "valid"), (low + 1, "Active", "active")),
            Field("type", "Type", low + 2, 3, _TYPES),
            Field("class", "Class", low + 5, 3, _CLASSES),
            Field("interleave", "interleave", low + 8, 5, _INTERLEAVES),
            Field("timeout_s", "timeout", low + 13, 3, lambda raw: 1 << 2 * raw, "{}s"),
        ),
        many=True,
    )


_DEVICE = (
    Register(
        "device_capability",
        "CXLCap",
        0xA,
        2,
        (
            *flags(*_PROTOCOLS, (3, "MemHWInit", "memory_hw_init")),
            Field("hdm_count", "HDMCount", 4, 2),
            flag(14, "Viral", "viral"),
        ),
    ),
    Register(
        "device_control",
        "CXLCtl",
        0xC,
        2,
        (
            *flags(*_PROTOCOLS),
            Field("snoop_coverage", "Cache SF Cov", 3, 5),
            Field("snoop_granularity", "Cache SF Gran", 8, 3),
            *flags((11, "CacheClean", "clean_eviction"), (14, "Viral", "viral")),
        ),
    ),
    Register("device_status", "CXLSta", 0xE, 2, (flag(14, "Viral", "viral"),)),
    Register(
        "device_status2",
        "CXLSta2",
        0x12,
        2,
        flags(
            (1, "ResetComplete", "reset_complete"),
            (2, "ResetError", "reset_error"),
            (15, "PMComplete", "power_complete"),
        ),
    ),
    Register("cache", "Cache Size", 0x16, 2, (Field("size", "", 0, 16, _cache_size),)),
    _range(0x18, 1),
    _range(0x28, 2),
)
_PORT = (
    Register("port_status", "CXLPortSta", 0xA, 2, (flag(0, "PMComplete", "power_complete"),)),
    Register(
        "port_control",
        "CXLPortCtl",
        0xC,
        2,
        flags(
            (0, "UnmaskSBR", "unmask_bus_reset"),
            (1, "UnmaskLinkDisable", "unmask_link_disable"),
            (2, "AltMem", "alternate_memory"),
            (3, "AltBME", "alternate_bus_master"),
            (14, "ViralEnable", "viral"),
        ),
    ),
    Register(
        "alternate_bus",
        "AlternateBus",
        0xE,
        2,
        (Field("first", "first", 0, 8, hexa(2)), Field("last", "last", 8, 8, hexa(2))),
    ),
    Register(
        "alternate_memory",
        "AlternateMemory",
        0x10,
        4,
        (Field("base", "base", 0, 16, hexa(4)), Field("limit", "limit", 16, 16, hexa(4))),
    ),
)


def _flex_bus(revision: int) -> tuple[Register, ...]:
    newer = flags((13, "256BFlit", "flit_256b"), (14, "PBRFlit", "flit_pbr")) if revision > 1 else ()
    common = ((5, "68BFlit", "flit_68b"), (6, "MltLogDev", "multi_logical"))
    training = ((3, "SynHdrByp", "sync_header_bypass"), (4, "DrftBuf", "drift_buffer"))
    more = ((7, "RCD", "disable_rcd_training"), (8, "Retimer1", "retimer1"), (9, "Retimer2", "retimer2"))
    return (
        Register("flex_capability", "FBCap", 0xA, 2, (*flags(*_PROTOCOLS, *common), *newer)),
        Register("flex_control", "FBCtl", 0xC, 2, (*flags(*_PROTOCOLS, *training, *common, *more), *newer)),
        Register("flex_status", "FBSta", 0xE, 2, (*flags(*_PROTOCOLS, *training, *common), *newer)),
        Register("training_data", "FBModTS", 0x10, 4, (Field("data", "", 0, 24, hexa(6)),)),
    )


def _locators(length: int) -> Iterator[Register]:
    """Yield the blocks of registers: the BAR, the offset in it, and what is there."""
    for number, offset in enumerate(range(_LOCATORS, length - _LOCATOR + 1, _LOCATOR), 1):
        yield Register(
            "blocks",
            f"Block{number}",
            offset,
            _LOCATOR,
            (
                Field("bar", "BIR", 0, 3),
                Field("block", "ID", 8, 8, _BLOCKS),
                Field("offset", "offset", 16, 48, hexa(16, shift=16)),
            ),
            many=True,
        )


def cxl_registers(number: int, revision: int, length: int) -> Iterator[Register]:
    """Yield the registers of the structure `number` of CXL with this revision and length.

    Revision 0 of a device's structure and of a Flex Bus port is CXL 1.1, which has other registers.
    """
    if number == 0 and revision >= 1 and length >= _DEVICE_LENGTH:
        yield from _DEVICE
    elif number == 2 and length >= _MAP_LENGTH:
        for each in range(8):
            yield Register(
                "functions",
                f"FuncMap {each}",
                0xC + 4 * each,
                4,
                (Field("map", "", 0, 32, hexa(8)),),
                many=True,
            )
    elif number == 3 and length >= _PORT_LENGTH:
        yield from _PORT
    elif number == 7 and revision >= 1 and length >= _FLEX_LENGTH:
        yield from _flex_bus(revision)
    elif number == 8:
        yield from _locators(length)
    elif number == 9 and length >= _MLD_LENGTH:
        yield Register("logical", "NumLogDevs", 0xA, 2, (Field("devices", "", 0, 16),))
