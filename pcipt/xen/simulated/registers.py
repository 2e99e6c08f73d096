"""Simulate the registers of one function: what a write changes, and where the memory BARs are then.

Source: PCI Local Bus 3.0 §6.2 (header), PCI-to-PCI Bridge 1.2 §3.2 (type 1), PCI Express Base 6.0 §9.3.3
        (SR-IOV; NumVFs and System Page Size are read-only while VF Enable is set, a virtual function has no
        BARs of its own, a VF BAR takes a multiple of the System Page Size), §6.6 (resets), §7.5.3 (Initiate
        Function Level Reset always reads 0), §7.8.6-7 (Resizable BAR).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from pcipt import values as attrs
from pcipt.pci import Address, Function, HeaderType, Range, RawFunction
from pcipt.pci.bars import LAYOUT, ROM_INDEX, VF_BAR_COUNT, VF_BAR_INDEX, BarKind
from pcipt.pci.capabilities import find_capability
from pcipt.pci.config import COMMAND_MEMORY, HEADER_SIZE
from pcipt.pci.sriov import SYSTEM_PAGE_SIZE, VF_ENABLE, VF_MEMORY_ENABLE, aperture, page_size_of
from pcipt.pci.structures import EXPRESS, MSIX, REBAR, SRIOV, VF_REBAR, Msix

COMMAND, BAR0, SECONDARY, SUBORDINATE = 0x04, 0x10, 0x19, 0x1A
BUS_NUMBERS = range(0x18, 0x1B)
_VF_CONTROL, _NUM_VFS, _TOTAL_VFS, _VF_OFFSET, _VF_STRIDE, _VF_BAR0 = 8, 0x10, 0x0E, 0x14, 0x16, 0x24
_TYPE_BITS = {BarKind.MEM32: 0xF, BarKind.MEM64: 0xF, BarKind.IO: 0x3}

# Offset, size, writable bits; _COMMON for headers of type 0 and type 1.
_COMMON = ((0x04, 2, 0x0547), (0x0C, 1, 0xFF), (0x3C, 1, 0xFF))
_BRIDGE = (
    (0x18, 3, 0xFF_FFFF), (0x1B, 1, 0xFF), (0x1C, 2, 0xF0F0), (0x20, 4, 0xFFF0_FFF0), (0x24, 4, 0xFFF0_FFF0),
    (0x28, 8, 0xFFFF_FFFF_FFFF_FFFF), (0x30, 4, 0xFFFF_FFFF), (0x3E, 2, 0x0FFF),
)  # fmt: skip
_MSIX_CONTROL, _MSIX_BITS = 2, 0xC000  # Function Mask, MSI-X Enable
_REBAR_CONTROL, _REBAR_SIZE = 8, 0x3F00
_DEVICE_CAPABILITIES, _DEVICE_CONTROL = 4, 8
_FLR_CAPABLE, _START_FLR = 1 << 28, 1 << 15
BRIDGE_CONTROL, _SECONDARY_RESET = 0x3E, 0x40
_STATUS_CLEARED = {0x06: 0x00, 0x07: 0xF9}  # bits that a written one clears
_ALL_ONES = b"\xff" * HEADER_SIZE
_VIRTUAL = ((0x04, 2, 0x0004),)
_SRIOV = ((_VF_CONTROL, 2, 0x001F), (_NUM_VFS, 2, 0xFFFF), (SYSTEM_PAGE_SIZE, 4, 0xFFFF_FFFF))
NONE: Mapping[int, int] = MappingProxyType({})
_FIXED_WHILE_ON = {_NUM_VFS, _NUM_VFS + 1, *range(SYSTEM_PAGE_SIZE, SYSTEM_PAGE_SIZE + 4)}


@attrs.define(eq=False)
class Registers:
    """The config space of a function, with a mask of the writable bits.

    `sizes` are the sizes in bytes of the memory BARs by index, `vf_sizes` those of the BARs of one virtual
    function, before they are rounded up to the System Page Size. `sriov_at` is the byte offset of the SR-IOV
    capability; None if there is none. `resizable` and `vf_resizable` are the byte offsets of the Resizable
    BAR Control registers, of BARs and of VF BARs, each with its value after a reset. `port_type` is that of
    PCI Express, `express_at` the byte offset of its structure; both are None without it.
    """

    data: bytearray
    writable: bytes
    header: HeaderType
    sizes: Mapping[int, int]
    vf_sizes: Mapping[int, int]
    msix: Msix | None
    sriov_at: int | None
    resizable: Mapping[int, int] = NONE
    port_type: int | None = None
    vf_resizable: Mapping[int, int] = NONE
    express_at: int | None = None

    def read(self, offset: int, size: int) -> int:
        """Return the little-endian number of `size` bytes at `offset`.

        Bytes behind the config space read 0.
        """
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes at `offset`.

        Bits that are not writable, and bytes behind the config space, do not change.
        """
        for place, byte in enumerate(value.to_bytes(size, "little"), offset):
            if place < len(self.data):
                mask = self._mask(place)
                self.data[place] = self.data[place] & ~mask | byte & mask
                self.data[place] &= ~(byte & _STATUS_CLEARED.get(place, 0))
        self._follow_sizes(offset, size)

    def reset(self) -> None:
        """Do what a reset of any kind does: every bit that can be written is 0 after it.

        Resizable BARs have their first sizes again.
        """
        for place, mask in enumerate(self.writable):
            self.data[place] &= ~mask
        for control, value in {**self.resizable, **self.vf_resizable}.items():
            self.data[control : control + 4] = value.to_bytes(4, "little")
        self._follow_sizes(0, len(self.data))

    def starts_reset(self, offset: int, size: int, value: int) -> bool:
        """Return True if a write resets the function itself (function-level reset)."""
        if self.express_at is None or not self.read(self.express_at + _DEVICE_CAPABILITIES, 4) & _FLR_CAPABLE:
            return False
        shift = 8 * (self.express_at + _DEVICE_CONTROL - offset)
        written = value & (1 << 8 * size) - 1
        return bool((written >> shift if shift >= 0 else written << -shift) & _START_FLR)

    @property
    def holds_reset(self) -> bool:
        """True if a bridge holds the bus behind it in reset."""
        return self.header is HeaderType.BRIDGE and bool(self.read(BRIDGE_CONTROL, 2) & _SECONDARY_RESET)

    def _follow_sizes(self, offset: int, size: int) -> None:
        """Give the BARs the sizes that registers say of which a byte was written at `offset`."""
        for control in self.resizable:
            if offset < control + 4 and offset + size > control:
                index, length = self._control(control)
                self.sizes = self._resized(BAR0, self.sizes, index, length)
        at = self.sriov_at
        if at is None:
            return
        for control in self.vf_resizable:
            if offset < control + 4 and offset + size > control:
                index, length = self._control(control)
                self.vf_sizes = self._resized(at + _VF_BAR0, self.vf_sizes, index, length)
        if offset < at + SYSTEM_PAGE_SIZE + 4 and offset + size > at + SYSTEM_PAGE_SIZE:
            for index, length in self.vf_sizes.items():
                self._resized(at + _VF_BAR0, self.vf_sizes, index, length)

    def _control(self, control: int) -> tuple[int, int]:
        """Return (BAR number, size in bytes) that a Resizable BAR Control register has now."""
        value = self.read(control, 4)
        return value & 0x7, 1 << 20 + (value >> 8 & 0x3F)

    def _resized(self, base: int, sizes: Mapping[int, int], index: int, size: int) -> Mapping[int, int]:
        """Return `sizes` with a new size for one BAR; the low address bits of the BAR go.

        `base` is the offset of BAR 0. A VF BAR is aligned to the System Page Size as well.
        """
        if index not in sizes:
            return sizes
        at, length = base + 4 * index, size if base == BAR0 else aperture(size, self.page_size) or size
        wide = self.read(at, 4) & 0x6 == 0x4
        mask = -length & (0xFFFF_FFFF_FFFF_FFF0 if wide else 0xFFFF_FFF0)
        writable = bytearray(self.writable)
        _allow(writable, at, ((0, 8 if wide else 4, mask),))
        self.writable = _shared(bytes(writable))
        kept = self.read(at, 8 if wide else 4) & (mask | 0xF)
        self.data[at : at + (8 if wide else 4)] = kept.to_bytes(8 if wide else 4, "little")
        return {**sizes, index: size}

    def _mask(self, place: int) -> int:
        """Return the bits of the byte at offset `place` that can be written now.

        NumVFs and System Page Size cannot be written while VF Enable is set.
        """
        at = self.sriov_at
        if at is not None and place - at in _FIXED_WHILE_ON and self.vf_enable:
            return 0
        return self.writable[place]

    @property
    def answers(self) -> bool:
        """True if a function answers: not all 64 bytes of the header are ff.

        Vendor ffff alone does not mean that no function answers, because a virtual function has it by
        specification.
        """
        return self.data[:HEADER_SIZE] != _ALL_ONES

    @property
    def decodes_memory(self) -> bool:
        """True if memory decode is on in the Command register."""
        return bool(self.data[COMMAND] & COMMAND_MEMORY)

    @property
    def vf_enable(self) -> bool:
        """True if VF Enable is set in the SR-IOV capability."""
        return self.sriov_at is not None and bool(self.data[self.sriov_at + _VF_CONTROL] & VF_ENABLE)

    @property
    def vf_memory(self) -> bool:
        """True if the BARs of the virtual functions decode: VF Enable and VF Memory Enable are set."""
        at = self.sriov_at
        return self.vf_enable and at is not None and bool(self.data[at + _VF_CONTROL] & VF_MEMORY_ENABLE)

    @property
    def page_size(self) -> int | None:
        """The System Page Size in bytes; None without SR-IOV, or if no bit of the register is set."""
        return page_size_of(self.read(self.sriov_at + SYSTEM_PAGE_SIZE, 4)) if self.sriov_at else None

    @property
    def rom_at(self) -> int | None:
        """The byte offset of the ROM register; None if the header type has none."""
        return LAYOUT[self.header][2]

    def bars(self) -> Iterator[tuple[int, Range]]:
        """Yield (index, addresses) of each memory BAR, whether or not it decodes.

        The ROM is included while it is enabled. A BAR whose size is not known is left out.
        """
        for index, size in self.sizes.items():
            at = self.rom_at if index == ROM_INDEX else BAR0 + 4 * index
            if at is None:
                continue
            address = self._address(at, rom=index == ROM_INDEX)
            if address is not None:
                yield index, Range(Address(address), size)

    def vf_bars(self, number: int) -> Iterator[tuple[int, Range]]:
        """Yield (index, addresses) of each memory BAR of the virtual function `number`. Numbers begin at 0.

        The BARs are yielded whether or not VF Enable and VF Memory Enable are set. A BAR whose size is not
        known is left out.
        """
        at = (self.sriov_at or 0) + _VF_BAR0
        for index, size in self.vf_sizes.items():
            address = self._address(at + 4 * index, rom=False)
            if address is not None:
                length = aperture(size, self.page_size) or size
                yield index, Range(Address(address + number * length), length)

    def vf_devfns(self, devfn: int, *, everyone: bool = False) -> list[int]:
        """Return the devfn of each enabled virtual function, in the order of the VF numbers.

        A devfn is device << 3 | function number; `devfn` is that of this function. With `everyone`, the
        result has the devfn of all TotalVFs virtual functions, enabled or not. The list is empty if the
        function has no SR-IOV. Without `everyone` it is empty while VF Enable is off.
        """
        at = self.sriov_at
        if at is None or not (everyone or self.vf_enable):
            return []
        total = self.read(at + _TOTAL_VFS, 2)
        count = total if everyone else min(self.read(at + _NUM_VFS, 2), total)
        first, stride = self.read(at + _VF_OFFSET, 2), self.read(at + _VF_STRIDE, 2)
        return [devfn + first + stride * number & 0xFF for number in range(count)]

    def _address(self, at: int, *, rom: bool) -> int | None:
        """Return the address in the BAR or ROM register at `at`; None if it is a ROM that is not enabled."""
        value = self.read(at, 4)
        if rom:
            return value & 0xFFFF_F800 if value & 1 else None
        return value & 0xFFFF_FFF0 | (self.read(at + 4, 4) << 32 if value & 0x6 == 0x4 else 0)


def registers_from_function(raw: RawFunction, seen: Function) -> Registers:
    """Return the registers of a function. `raw` holds the bytes that were read, `seen` is `raw` decoded.

    BAR sizes are those of Linux. A BAR or ROM without a size cannot be written. A virtual function has no
    BARs of its own. Bytes of the header that were not read are 0.
    """
    data = bytearray(raw.config or b"")
    data += bytes(max(0, HEADER_SIZE - len(data)))
    writable = bytearray(len(data))
    capability = find_capability(seen.capabilities, SRIOV, extended=True)
    at = capability.offset if capability is not None and seen.sriov is not None else None
    sizes: dict[int, int] = {}
    vf_sizes: dict[int, int] = {}
    if raw.physfn is not None:
        _allow(writable, 0, _VIRTUAL)
    else:
        _allow(writable, 0, (*_COMMON, *(_BRIDGE if seen.header is HeaderType.BRIDGE else ())))
        count = LAYOUT[seen.header][1]
        _allow_bars(writable, raw, data, BAR0, range(count), sizes)
        _allow_rom(writable, raw, LAYOUT[seen.header][2], sizes)
        if at is not None and seen.sriov is not None:
            _allow(writable, at, _SRIOV)
            numbers = range(VF_BAR_INDEX, VF_BAR_INDEX + VF_BAR_COUNT)
            _allow_bars(writable, raw, data, at + _VF_BAR0, numbers, vf_sizes, seen.sriov.total_vfs)
    if seen.msix is not None:
        msix = find_capability(seen.capabilities, MSIX)
        if msix is not None:
            _allow(writable, msix.offset, ((_MSIX_CONTROL, 2, _MSIX_BITS),))
    resizable, vf_resizable = _resizable(seen, data, sizes, REBAR), _resizable(seen, data, vf_sizes, VF_REBAR)
    port = seen.express.port_type if seen.express is not None else None
    for control in (*resizable, *vf_resizable):
        _allow(writable, control, ((0, 4, _REBAR_SIZE),))
    first, vf_first = (
        {control: int.from_bytes(data[control : control + 4], "little") for control in each}
        for each in (resizable, vf_resizable)
    )
    express = find_capability(seen.capabilities, EXPRESS)
    express_at = express.offset if express is not None and express.offset + 12 <= len(data) else None
    mask = _shared(bytes(writable))
    return Registers(
        data, mask, seen.header, sizes, vf_sizes or NONE, seen.msix, at, first or NONE, port,
        vf_first or NONE, express_at,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _shared(mask: bytes) -> bytes:
    """Return the first mask that is equal to this one: devices of the same model have equal masks."""
    return mask


def _resizable(seen: Function, data: bytearray, sizes: Mapping[int, int], kind: int) -> list[int]:
    """Return the byte offsets of the Resizable BAR Control registers of BARs with a size.

    `kind` is the id of the structure.
    """
    capability = find_capability(seen.capabilities, kind, extended=True)
    if capability is None or capability.offset + _REBAR_CONTROL + 4 > len(data):
        return []
    first = capability.offset + _REBAR_CONTROL
    count = int.from_bytes(data[first : first + 4], "little") >> 5 & 7
    found = [first + 8 * number for number in range(count) if first + 8 * number + 4 <= len(data)]
    return [control for control in found if data[control] & 7 in sizes]


def _allow(writable: bytearray, base: int, rows: tuple[tuple[int, int, int], ...]) -> None:
    """Make bits writable; each row is (offset from `base`, size in bytes, bits)."""
    for offset, size, bits in rows:
        writable[base + offset : base + offset + size] = bits.to_bytes(size, "little")


def _allow_bars(
    writable: bytearray,
    raw: RawFunction,
    data: bytearray,
    base: int,
    lines: range,
    sizes: dict[int, int],
    shared_by: int = 1,
) -> None:
    """Make the address bits of each BAR writable if its size is known. Other BARs stay read-only.

    Store the sizes of memory BARs in `sizes`. `base` is the offset of the first BAR. `lines` are line numbers
    in Linux's `resource` file, one for each BAR. Each line gives the total size of `shared_by` BARs.
    """
    for index, line in enumerate(lines):
        size = raw.resources[line].size // max(shared_by, 1) if line < len(raw.resources) else 0
        at = base + 4 * index
        if size <= 0 or at + 4 > len(data):
            continue
        kind = int.from_bytes(data[at : at + 4], "little")
        if kind & 1:
            _allow(writable, at, ((0, 4, -size & 0xFFFF_FFFC),))
            continue
        wide = kind & 0x6 == 0x4 and index + 1 < len(lines)
        _allow(
            writable, at, ((0, 8 if wide else 4, -size & (0xFFFF_FFFF_FFFF_FFF0 if wide else 0xFFFF_FFF0)),)
        )
        sizes[index] = size


def _allow_rom(writable: bytearray, raw: RawFunction, at: int | None, sizes: dict[int, int]) -> None:
    """Make the address and enable bits of the ROM register at `at` writable. Store its size in `sizes`.

    Nothing happens if there is no ROM register or no size.
    """
    size = raw.resources[ROM_INDEX].size if len(raw.resources) > ROM_INDEX else 0
    if at is not None and size:
        _allow(writable, at, ((0, 4, -size & 0xFFFF_F800 | 1),))
        sizes[ROM_INDEX] = size
