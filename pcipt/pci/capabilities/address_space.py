"""Address space: Resizable BAR, Enhanced Allocation, Multicast, and registers that lie inside a BAR.

Source: PCI Express Base 6.0 §7.8.6-7 (Resizable BAR), §7.8.5 (Enhanced Allocation), §7.9.11 (Multicast); EHCI
        1.0 appendix C (debug port); SATA AHCI 1.3.1 §2.4 (index and data registers).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    View,
    flag,
    flags,
    hexa,
    on_ports,
    one_of,
    plus,
    power_of_two,
)
from pcipt.pci.capabilities.ports import ENDPOINT, INTEGRATED_ENDPOINT, routes
from pcipt.pci.config import HeaderType
from pcipt.pci.structures import ENHANCED_ALLOCATION, REBAR, VF_REBAR

DEBUG_PORT, SATA, MULTICAST = 0x0A, 0x12, 0x0012
_MIB = 1 << 20
_SIZES = 44  # 1 MiB to 8 EiB
_IN_CONFIG_SPACE = 15
_has_window = on_ports(ENDPOINT, INTEGRATED_ENDPOINT)
_PROPERTIES = {
    0x00: "memory space, non-prefetchable",
    0x01: "memory space, prefetchable",
    0x02: "I/O space",
    0x03: "VF memory space, prefetchable",
    0x04: "VF memory space, non-prefetchable",
    0x05: "allocation behind bridge, non-prefetchable memory",
    0x06: "allocation behind bridge, prefetchable memory",
    0x07: "allocation behind bridge, I/O space",
    0xFD: "memory space resource unavailable for use",
    0xFE: "I/O space resource unavailable for use",
    0xFF: "entry unavailable for use",
}
_INDICATORS = {
    **{number: f"BAR {number}" for number in range(6)},
    6: "resource behind function",
    7: "not indicated",
    8: "expansion ROM",
    **{number: f"VF-BAR {number - 9}" for number in range(9, 15)},
}


def _supported(raw: int) -> list[int]:
    """Return the supported sizes in bytes: bits 4 to 31 of the first register, 16 to 31 of the second."""
    bits = raw >> 4 & 0xFFF_FFFF | raw >> 48 << 28
    return [_MIB << bit for bit in range(_SIZES) if bits >> bit & 1]


def _present(raw: int) -> int | None:
    return _MIB << raw if raw < _SIZES else None


_REBAR_FIELDS = (
    Field("bar", "BAR", 32, 3),
    Field("size", "size", 40, 6, _present),
    Field("supported", "supported", 0, 64, _supported),
)


def _resizable(view: View) -> Iterator[Register]:
    """Yield one register for each BAR; only the first if it has an impossible number of BARs."""
    count = view.bits(8, 4, 5, 3)
    for number in range(count if 1 <= count <= 6 else 1):
        yield Register("bars", "Resizable", 4 + 8 * number, 8, _REBAR_FIELDS, many=True)


def _allocations(view: View) -> Iterator[Register]:
    """Yield the fixed bus numbers of a bridge, and one register an entry.

    An entry has a header and `size` words: base and largest offset, then the upper halves of those with 64
    bits (bit 1 of their lower half).
    """
    at = 4
    if view.header is HeaderType.BRIDGE:
        yield Register(
            "bus_numbers",
            "Fixed buses",
            4,
            2,
            (Field("secondary", "secondary", 0, 8), Field("subordinate", "subordinate", 8, 8)),
        )
        at = 8
    for _ in range(view.bits(2, 1, 0, 6)):
        words = view.bits(at, 4, 0, 3)
        yield Register("entries", "Entry", at, 4 + 4 * words, _entry_fields(view, at, words), many=True)
        at += 4 + 4 * words


def _entry_fields(view: View, at: int, words: int) -> tuple[Field, ...]:
    head = (
        *flags((31, "Enable", "enable"), (30, "Writable", "writable")),
        Field("words", "EntrySize", 0, 3),
        Field("indicator", "BAR Equivalent Indicator", 4, 4, one_of(_INDICATORS)),
        Field("primary_properties", "PrimaryProperties", 8, 8, one_of(_PROPERTIES)),
        Field("secondary_properties", "SecondaryProperties", 16, 8, one_of(_PROPERTIES)),
    )
    base_64, most_64 = view.bits(at + 4, 4, 1, 1), view.bits(at + 8, 4, 1, 1)
    if words != 2 + base_64 + most_64:
        return head

    def base(raw: int) -> str:
        return _wide(raw >> 32 & ~3, raw >> 96 if base_64 else 0)

    def most(raw: int) -> str:
        return _wide(raw >> 64 | 3, raw >> 96 + 32 * base_64 if most_64 else 0)

    width = 8 * (4 + 4 * words)
    return (*head, Field("base", "Base", 0, width, base), Field("max_offset", "MaxOffset", 0, width, most))


def _wide(low: int, high: int) -> str:
    """Return the lower 32 bits of both halves as one address."""
    return f"0x{(high & 0xFFFF_FFFF) << 32 | low & 0xFFFF_FFFF:08x}"


def _is_not_endpoint(view: View) -> bool:
    return not _has_window(view)


def _sata_place(raw: int) -> str | None:
    """Return where the index and data registers of a SATA controller are."""
    if 4 <= raw <= 9:
        return f"BAR {raw - 4}"
    return "configuration space" if raw == _IN_CONFIG_SPACE else None


def _vector(key: str, title: str, offset: int) -> Register:
    return Register(key, title, offset, 8, (Field("groups", "", 0, 64, hexa(16)),))


STRUCTURES = (
    Structure(REBAR, True, _resizable),
    Structure(VF_REBAR, True, _resizable),
    Structure(ENHANCED_ALLOCATION, False, _allocations),
    Structure(
        MULTICAST,
        True,
        (
            Register(
                "capability",
                "McastCap",
                4,
                2,
                (
                    Field("max_groups", "MaxGroups", 0, 6, plus(1)),
                    Field("window_size", "WindowSz", 8, 6, power_of_two(), "{} bytes", when=_has_window),
                    flag(15, "ECRCRegen", "ecrc_regeneration", when=routes),
                ),
            ),
            Register(
                "control",
                "McastCtl",
                6,
                2,
                (Field("groups", "NumGroups", 0, 6, plus(1)), flag(15, "Enable", "enable")),
            ),
            Register(
                "base",
                "McastBAR",
                8,
                8,
                (
                    Field("index_position", "IndexPos", 0, 6),
                    Field("address", "BaseAddr", 12, 52, hexa(16, shift=12)),
                ),
            ),
            _vector("receive", "McastReceiveVec", 0x10),
            _vector("block_all", "McastBlockAllVec", 0x18),
            _vector("block_untranslated", "McastBlockUntransVec", 0x20),
            Register(
                "overlay",
                "McastOverlayBAR",
                0x28,
                8,
                (
                    Field("size_exponent", "OverlaySize", 0, 6),
                    Field("address", "BaseAddr", 6, 58, hexa(16, shift=6)),
                ),
                when=_is_not_endpoint,
            ),
        ),
    ),
    Structure(
        DEBUG_PORT,
        False,
        (
            Register(
                "port",
                "Debug port",
                2,
                2,
                (Field("bar", "BAR", 13, 3), Field("offset", "offset", 0, 13, hexa(4))),
            ),
        ),
    ),
    Structure(
        SATA,
        False,
        (
            Register("revision", "SATA HBA", 2, 2, (Field("major", "v", 4, 4), Field("minor", ".", 0, 4))),
            Register(
                "registers",
                "Index and data",
                4,
                4,
                (
                    Field("place", "in", 0, 4, _sata_place),
                    Field("offset", "offset", 4, 20, hexa(8, shift=2)),
                ),
            ),
        ),
    ),
)
