"""SR-IOV: the registers of a physical function. `pcipt.pci.sriov` has what the service computes from them.

Source: PCI Express Base 6.0 §9.3.3.
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags, hexa
from pcipt.pci.structures import SRIOV

_ADDRESS_64 = 0b10  # bits 1 and 2 of a BAR
_BARS, _BAR_COUNT, _ALL_ONES = 0x24, 6, 0xFFFF_FFFF


def _counted(key: str, title: str, offset: int, size: int = 2) -> Register:
    return Register(key, title, offset, size, (Field("value", "", 0, 8 * size),))


def _paged(key: str, title: str, offset: int) -> Register:
    """Return a register in which bit n stands for pages of 4 KiB << n."""
    return Register(key, title, offset, 4, (Field("pages", "", 0, 32, hexa(8)),))


_REGISTERS = (
    Register(
        "capability",
        "IOVCap",
        4,
        4,
        (
            *flags((0, "Migration", "migration"), (2, "10BitTagReq", "requester_10bit_tag")),
            Field("interrupt_message", "Interrupt Message Number", 21, 11),
        ),
    ),
    Register(
        "control",
        "IOVCtl",
        8,
        2,
        flags(
            (0, "Enable", "enable"),
            (1, "Migration", "migration"),
            (2, "Interrupt", "migration_interrupt"),
            (3, "MSE", "memory_enable"),
            (4, "ARIHierarchy", "ari_hierarchy"),
            (5, "10BitTagReq", "requester_10bit_tag"),
        ),
    ),
    Register("status", "IOVSta", 0xA, 2, (flag(0, "Migration", "migration"),)),
    _counted("initial_vfs", "Initial VFs", 0xC),
    _counted("total_vfs", "Total VFs", 0xE),
    _counted("num_vfs", "Number of VFs", 0x10),
    Register("dependency", "Function Dependency Link", 0x12, 1, (Field("function", "", 0, 8, hexa(2)),)),
    _counted("vf_offset", "VF offset", 0x14),
    _counted("vf_stride", "VF stride", 0x16),
    Register("vf_device", "VF Device ID", 0x1A, 2, (Field("id", "", 0, 16, hexa(4)),)),
    _paged("supported_pages", "Supported Page Size", 0x1C),
    _paged("system_page", "System Page Size", 0x20),
)
_MIGRATION = Register(
    "migration_array",
    "VF Migration",
    0x3C,
    4,
    (Field("offset", "offset", 3, 29, hexa(8, shift=3)), Field("bar", "BIR", 0, 3)),
)


def _bar(offset: int, index: int, *, wide: bool) -> Register:
    size = 8 if wide else 4
    return Register(
        "bars",
        f"Region {index}",
        offset,
        size,
        (
            Field("index", "VF BAR", 0, 1, lambda _: index),
            Field("address", "at", 4, 8 * size - 4, hexa(2 * size, shift=4)),
            flag(3, "Prefetchable", "prefetchable"),
            Field("bits", "width", 0, 1, lambda _: 8 * size, "{} bits"),
        ),
        many=True,
    )


def _registers(view: View) -> Iterator[Register]:
    """Yield the registers, among them the VF BARs that are implemented: those that are not zero."""
    yield from _REGISTERS
    index = 0
    while index < _BAR_COUNT:
        offset = _BARS + 4 * index
        low = view.bits(offset, 4, 0, 32)
        wide = low >> 1 & 3 == _ADDRESS_64 and index + 1 < _BAR_COUNT
        if low not in (0, _ALL_ONES):
            yield _bar(offset, index, wide=wide)
            index += wide
        index += 1
    yield _MIGRATION


STRUCTURES = (Structure(SRIOV, True, _registers),)
