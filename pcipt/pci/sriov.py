"""Decode SR-IOV: the structure of a physical function, and the addresses and BARs of its virtual functions.

A virtual function's own BAR registers read zero. Its BAR n begins at VF BAR n of the physical function, plus
the number of the virtual function times the size of one BAR. That size is a multiple of the System Page Size.

Source: PCI Express Base 6.0 §9.3.3 (structure), §9.3.3.13 (System Page Size), §9.2.1.2 (routing id
        arithmetic), §7.8.7 (VF Resizable BAR).
"""

from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.pci.address import Sbdf, sbdf_from_devfn
from pcipt.pci.bars import (
    UNUSED,
    VF_BAR_COUNT,
    VF_BAR_INDEX,
    Bar,
    Resource,
    bar_from_register,
    lost_bar,
    register_values,
)
from pcipt.pci.config import ConfigSpace
from pcipt.pci.structures import ResizableBar
from pcipt.pci.units import Address

VF_ENABLE = 0x1
VF_MEMORY_ENABLE = 0x8
ARI_HIERARCHY = 0x10
SYSTEM_PAGE_SIZE = 0x20  # offset of the register in the structure


@attrs.frozen
class SrIov:
    """The SR-IOV structure of a physical function.

    `num_vfs` is the number of virtual functions that are set up; they exist only if `vf_enable` is True.
    `vf_offset` is the distance from the physical function to virtual function 0, `vf_stride` the distance
    from one virtual function to the next, both in routing ids (bus << 8 | devfn). `vf_device` is the device
    id of the virtual functions. `ari` is the bit ARI Capable Hierarchy.

    `bars` are the implemented VF BARs with indexes 0 to 5. `address` of a VF BAR is that of virtual function
    0. `size` is that of one virtual function (None if unknown). `decoding` is True if `vf_enable` and
    `memory_enable` are both True. `page_size` is the System Page Size in bytes, None if the register was not
    read or no bit of it is set. `resizable` are the VF BARs that can be resized.
    """

    total_vfs: int
    initial_vfs: int
    num_vfs: int
    vf_offset: int
    vf_stride: int
    vf_device: int
    vf_enable: bool
    memory_enable: bool
    ari: bool
    bars: tuple[Bar, ...]
    page_size: int | None = None
    resizable: tuple[ResizableBar, ...] = ()


def decode_sriov(
    config: ConfigSpace,
    offset: int,
    resources: Sequence[Resource],
    resizable: tuple[ResizableBar, ...] = (),
) -> SrIov | None:
    """Return the SR-IOV structure at `offset`, or None if the registers before its VF BARs were not read
    completely.

    VF BARs that were not read are left out. `resources` are the function's lines of sysfs `resource`. Its
    lines 7 to 12 each hold one VF BAR of all virtual functions together, so sizes are divided by `total_vfs`.
    The size of a VF BAR in `resizable` is the one there. Sizes are rounded up to the System Page Size.
    """
    control, initial, total = config.u16(offset + 8), config.u16(offset + 0xC), config.u16(offset + 0xE)
    number, first, stride = config.u16(offset + 0x10), config.u16(offset + 0x14), config.u16(offset + 0x16)
    device = config.u16(offset + 0x1A)
    if control is None or initial is None or total is None or number is None:
        return None
    if first is None or stride is None or device is None:
        return None
    page = page_size_of(config.u32(offset + SYSTEM_PAGE_SIZE))
    resized = {bar.index: bar.size for bar in resizable}
    decoding = bool(control & VF_ENABLE) and bool(control & VF_MEMORY_ENABLE)
    bars = _bars_of_one(config, offset + 0x24, resources, total, decoding=decoding)
    vf_enable, memory_enable = bool(control & VF_ENABLE), bool(control & VF_MEMORY_ENABLE)
    return SrIov(
        total_vfs=total,
        initial_vfs=initial,
        num_vfs=number,
        vf_offset=first,
        vf_stride=stride,
        vf_device=device,
        vf_enable=vf_enable,
        memory_enable=memory_enable,
        ari=bool(control & ARI_HIERARCHY),
        bars=tuple(attrs.evolve(bar, size=aperture(resized.get(bar.index, bar.size), page)) for bar in bars),
        page_size=page,
        resizable=resizable,
    )


def page_size_of(register: int | None) -> int | None:
    """Return the System Page Size in bytes from its register: the lowest set bit n stands for 4 KiB << n.

    Return None if the register was not read, or if no bit is set.
    """
    return (register & -register) << 12 if register else None


def aperture(size: int | None, page_size: int | None) -> int | None:
    """Return the bytes that a VF BAR of `size` bytes takes for each virtual function; None if unknown.

    It is a multiple of the System Page Size.
    """
    if size is None or page_size is None:
        return size
    return -(-size // page_size) * page_size


def _bars_of_one(
    config: ConfigSpace, base: int, resources: Sequence[Resource], total: int, *, decoding: bool
) -> tuple[Bar, ...]:
    """Return the implemented VF BARs in index order, with the size of one virtual function (None if unknown).

    `total` is the number of virtual functions that one line of `resources` covers. `decoding` is True if the
    virtual functions respond at their BARs now.
    """
    bars = []
    for index, value in register_values(config, base, VF_BAR_COUNT):
        number = VF_BAR_INDEX + index
        line = resources[number] if number < len(resources) else UNUSED
        size = line.size // total if total else 0
        if value:
            bars.append(bar_from_register(index, value, size or None, io=False, memory=decoding))
        elif size:
            bars.append(attrs.evolve(lost_bar(index, line, io=False, memory=decoding), size=size))
    return tuple(bars)


def vf_number(physfn: Sbdf, sriov: SrIov, vf: Sbdf) -> int | None:
    """Return the number of the virtual function of `physfn` at the address `vf` (0 is the first).

    Return None if none of the `num_vfs` virtual functions has this address. `vf_enable` is not checked.
    """
    if vf.segment != physfn.segment:
        return None
    # All arithmetic of routing ids has 16 bits and drops the carry.
    distance = (_routing_id(vf) - _routing_id(physfn) - sriov.vf_offset) & 0xFFFF
    # The stride of a single virtual function is unused and may read zero.
    number, rest = divmod(distance, sriov.vf_stride) if sriov.vf_stride else (0, distance)
    return number if rest == 0 and number < sriov.num_vfs else None


def vf_address(physfn: Sbdf, sriov: SrIov, number: int) -> Sbdf:
    """Return the address of virtual function `number` (0 is the first). `number` is not checked against
    `num_vfs`.
    """
    routing = (_routing_id(physfn) + sriov.vf_offset + number * sriov.vf_stride) & 0xFFFF
    return sbdf_from_devfn(physfn.segment, routing >> 8, routing & 0xFF)


def vf_bars(sriov: SrIov, number: int) -> tuple[Bar, ...]:
    """Return the BARs of virtual function `number` (0 is the first): the VF BARs of `sriov`, with the
    addresses that this virtual function has. BARs of unknown size are left out. `number` is not checked.

    If the register of a VF BAR holds no address, that BAR has the address 0 in all virtual functions.
    """
    return tuple(
        attrs.evolve(
            bar, address=Address(bar.address + (number * bar.size if bar.address else 0)), claimed=None
        )
        for bar in sriov.bars
        if bar.size
    )


def _routing_id(sbdf: Sbdf) -> int:
    """Return the 16-bit routing id: bus << 8 | devfn."""
    return sbdf.bus << 8 | sbdf.devfn
