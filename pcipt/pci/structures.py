"""Decode the structures that pcipt uses: PCI Express, MSI-X, Resizable BAR, Enhanced Allocation, IOMMU.

Each decoder gets the config space and the offset of the structure. PCI Express and MSI-X give None if the
registers were not read. The lists of Resizable BAR and Enhanced Allocation end before the first entry that
was not read. All structures except Resizable BAR must lie in the first 256 bytes. SR-IOV is decoded in
`sriov`.

Source: PCI Express Base 6.0 §7.5.3 (PCI Express), §7.7.2 (MSI-X), §7.8.6-7 (Resizable BAR), §7.8.5 (EA);
        AMD IOMMU 3.07 §3.2.1 (IOMMU capability); Xen drivers/passthrough/amd/iommu_init.c
        (amd_sp5100_erratum28).
"""

import functools

from pcipt import values as attrs
from pcipt.pci.config import LEGACY_SIZE, ConfigSpace
from pcipt.pci.units import Address, Range

PM, MSI, EXPRESS, MSIX, AF, ENHANCED_ALLOCATION, SUBSYSTEM = 0x01, 0x05, 0x10, 0x11, 0x13, 0x14, 0x0D
SECURE_DEVICE = 0x0F
SERIAL_NUMBER, ACS, ARI, ATS, SRIOV, REBAR, VF_REBAR = 0x0003, 0x000D, 0x000E, 0x000F, 0x0010, 0x0015, 0x0024

PORT_TYPES = {
    0x0: "endpoint",
    0x1: "legacy-endpoint",
    0x4: "root-port",
    0x5: "upstream-port",
    0x6: "downstream-port",
    0x7: "pcie-to-pci-bridge",
    0x8: "pci-to-pcie-bridge",
    0x9: "root-complex-endpoint",
    0xA: "root-complex-event-collector",
}
LAST_BAR = 5
_ARI_FORWARDING = 1 << 5
_LARGEST_REBAR = 43  # exponent: sizes are 1 MiB << 0 to 1 MiB << 43 (8 EiB)
_EA_64 = 0x2
_SECURE_IOMMU = 3  # the type of a Secure Device structure that is an IOMMU
_SP5100_SMBUS, _SATA_MODE_AT, _COMBINED = 0x4385_1002, 0xAD, 0x8


@attrs.frozen
class Express:
    """The PCI Express structure. `port_type` is a number, named in `PORT_TYPES` if it is known; `slot` is
    True if the port has a slot.

    `ari_forwarding` is Device Control 2 bit 5: None if it was not read, False in version 1 of the structure,
    which has no such register. It has a meaning only in a root port or downstream port.
    """

    port_type: int
    slot: bool
    ari_forwarding: bool | None

    @property
    def port_name(self) -> str:
        """Return the name of the port type, or "type-" and its hexadecimal number if it is unknown."""
        return PORT_TYPES.get(self.port_type, f"type-{self.port_type:x}")


@attrs.frozen
class Place:
    """A part of a BAR: the number of the BAR, and offset and size in bytes."""

    bar: int
    offset: int
    size: int


@attrs.frozen
class Msix:
    """The MSI-X structure: the number of vectors, and the places of the table and of the pending bits
    (`pba`).

    Xen's vPCI leaves the pages of both places out of dom0's memory map, to trap accesses to them.
    """

    vectors: int
    enabled: bool
    table: Place
    pba: Place


@attrs.frozen
class ResizableBar:
    """One BAR of a Resizable BAR structure: its present size and the sizes it supports, in ascending order.

    Units:  bytes
    """

    index: int
    size: int
    supported: tuple[int, ...]


@attrs.frozen
class Allocation:
    """An entry of Enhanced Allocation: a fixed range that replaces a BAR.

    `bei` is the BAR Equivalent Indicator: 0-5 for BARs, 8 for the ROM, 9-14 for VF BARs. `properties` is the
    entry's Primary Properties: 0 is memory, 1 prefetchable memory, 2 I/O; others are for VFs or bridges.
    `range` is None if the entry contradicts itself (a wrong number of words, or an end beyond 64 bits).
    """

    bei: int
    properties: int
    range: Range | None
    enabled: bool


@attrs.frozen
class Platform:
    """Registers by which Xen judges the whole machine, and not this function.

    `iommu_at` is the offset of the structure of an AMD IOMMU; None if the function has none. `combined` is
    True if the SATA controller of an SP5100 is in combined mode; only its SMBus function tells it.
    """

    iommu_at: int | None = None
    combined: bool = False


_NO_PLATFORM = Platform()
_express = functools.lru_cache(maxsize=1024)(Express)


def decode_platform(config: ConfigSpace, secure_at: int | None) -> Platform | None:
    """Return what the registers of a function say of the machine; None if not all 256 bytes were read.

    `secure_at` is the offset of its Secure Device structure, None if it has none.
    """
    if len(config) < LEGACY_SIZE:
        return None
    header = config.u32(secure_at) if secure_at is not None else None
    iommu_at = secure_at if header is not None and header >> 16 & 7 == _SECURE_IOMMU else None
    combined = config.u32(0) == _SP5100_SMBUS and bool((config.u8(_SATA_MODE_AT) or 0) & _COMBINED)
    return Platform(iommu_at, combined) if combined or iommu_at is not None else _NO_PLATFORM


def decode_express(config: ConfigSpace, offset: int) -> Express | None:
    """Return the PCI Express structure at `offset`.

    Return None if its flags register was not read, or does not lie wholly in the first 256 bytes.
    """
    flags = _legacy_u16(config, offset + 2)
    if flags is None:
        return None
    # Version 1 of the structure has no Device Control 2, so ARI forwarding is impossible.
    control2 = _legacy_u16(config, offset + 0x28) if flags & 0xF >= 2 else 0
    forwarding = None if control2 is None else bool(control2 & _ARI_FORWARDING)
    return _express(flags >> 4 & 0xF, bool(flags & 0x100), forwarding)


def decode_msix(config: ConfigSpace, offset: int) -> Msix | None:
    """Return the MSI-X structure at `offset`. The BAR numbers in it are not checked.

    Return None if it was not read completely, or does not lie wholly in the first 256 bytes.
    """
    control, places = config.u16(offset + 2), config.words(offset + 4, 2)
    if control is None or len(places) < 2 or offset + 12 > LEGACY_SIZE:
        return None
    return _msix_from_registers(control, *places)


@functools.lru_cache(maxsize=1024)  # devices of the same model have equal values
def _msix_from_registers(control: int, table: int, pba: int) -> Msix:
    """Return the MSI-X structure from its control register and its registers `table` and `pba`, which each
    hold a BAR number and an offset.
    """
    vectors = (control & 0x7FF) + 1
    return Msix(
        vectors,
        bool(control & 0x8000),
        Place(table & 7, table & ~7, vectors * 16),
        Place(pba & 7, pba & ~7, (vectors + 63) // 64 * 8),
    )


def decode_rebar(config: ConfigSpace, offset: int) -> tuple[ResizableBar, ...]:
    """Return the BARs (at most six) of the Resizable BAR structure at `offset`, in the order of its entries.
    A VF Resizable BAR structure has the same form; its BARs are VF BARs.

    The result ends before the first entry that was not read or has an impossible BAR number or size. So it is
    empty if entry 0 is such an entry.
    """
    first = config.u32(offset + 8)
    if first is None:
        return ()
    found = []
    for number in range(min(first >> 5 & 7, 6)):
        pair = config.words(offset + 4 + 8 * number, 2)
        if len(pair) < 2:
            break
        supported, control = pair
        index, size = control & 7, control >> 8 & 0x3F
        if index > LAST_BAR or size > _LARGEST_REBAR:
            break
        bits = supported >> 4 | (control >> 16) << 28
        sizes = tuple(1 << (20 + bit) for bit in range(_LARGEST_REBAR + 1) if bits >> bit & 1)
        found.append(ResizableBar(index, 1 << (20 + size), sizes))
    return tuple(found)


def decode_allocations(config: ConfigSpace, offset: int, *, bridge: bool) -> tuple[Allocation, ...]:
    """Return the entries (at most 63) of the Enhanced Allocation structure at `offset`, in their order.

    The result ends before the first entry that was not read completely or does not lie wholly in the first
    256 bytes. An entry that contradicts itself is included, with `range` None. `bridge` is True for a type 1
    header.
    """
    entries = config.u8(offset + 2)
    if entries is None:
        return ()
    at = offset + (8 if bridge else 4)  # a bridge has 4 bytes of fixed bus numbers before its entries
    found = []
    for _ in range(entries & 0x3F):
        head = config.u32(at)
        if head is None:
            break
        count = head & 7
        words = config.words(at + 4, count)
        if len(words) < count or at + 4 + 4 * count > LEGACY_SIZE:
            break
        found.append(Allocation(head >> 4 & 0xF, head >> 8 & 0xFF, _allocated_range(words), bool(head >> 31)))
        at += 4 + 4 * count
    return tuple(found)


def _allocated_range(words: tuple[int, ...]) -> Range | None:
    """Return the range of an entry from its words, or None if the number of words or the range is impossible.

    `words` holds, in this order: the low half of the base; the low half of the largest offset; the upper half
    of the base, only if the base has 64 bits; the upper half of the largest offset, only if this offset has
    64 bits.
    """
    if len(words) < 2 or len(words) != 2 + bool(words[0] & _EA_64) + bool(words[1] & _EA_64):
        return None
    base, most = (
        words[0] & ~3,
        words[1] | 3,
    )  # the second word is the largest offset; its two low bits count as ones
    upper = list(words[2:])
    if words[0] & _EA_64:
        base |= upper.pop(0) << 32
    if words[1] & _EA_64:
        most |= upper.pop(0) << 32
    return Range(Address(base), most + 1) if base + most < 1 << 64 else None


def _legacy_u16(config: ConfigSpace, offset: int) -> int | None:
    """Return the 16-bit register at `offset`.

    Return None if it was not read, or does not lie wholly in the first 256 bytes.
    """
    return config.u16(offset) if offset + 2 <= LEGACY_SIZE else None
