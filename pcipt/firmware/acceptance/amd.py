"""Read an IVRS table to its end as Xen does, and meet the rules on the way.

Xen reads the table four times: for the type of its IVHD blocks, for the units, for the highest routing id,
and at last block by block for functions (ivhd.py) and reserved memory (ivmd.py).
The Extended Feature Register decides only how many levels page tables may have, and how wide the numbers of
processors are to which interrupts are remapped (GASup, XTSup: amd_iommu_prepare): none of its bits switches
the IOMMU or interrupt remapping off.
Source: Xen drivers/passthrough/amd/iommu_acpi.c (get_supported_ivhd_type, detect_iommu_acpi,
        get_last_bdf_acpi, parse_ivrs_table), iommu_detect.c (amd_iommu_detect_one_acpi), iommu_init.c
        (amd_iommu_prepare, amd_sp5100_erratum28).
"""

from collections.abc import Collection, Iterator, Sequence

from pcipt.firmware.acceptance import rules
from pcipt.firmware.acceptance.amd_state import AmdState, AmdUnit, Runs
from pcipt.firmware.acceptance.ivhd import IvhdReader, last_id
from pcipt.firmware.acceptance.ivmd import IvmdReader
from pcipt.firmware.acceptance.memory import MemoryMap
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acceptance.reading import Reading
from pcipt.firmware.acpi.ivrs import BLOCKS_AT, IVMD_ALL, IVMD_SIZE, IVMD_UNIT, added_blocks
from pcipt.pci import Machine, sbdf_from_devfn
from pcipt.pci.capabilities import find_capability
from pcipt.pci.structures import MSI

_INFO_AT, _CHECKSUM_AT, _HEADER = 36, 9, 6
_EFR_SUP = 0x1
_OLD, _NEW = 0x10, 0x11
_LEAST = 40
_MOST_LEVELS = 6
_SOUTHBRIDGE = 0x14 << 3
_SMBUS, _SP5100 = (0x14, 0), (0x1002, 0x4385)


class IvrsReader:
    """Reads one table with what it needs: the memory map, boot options, ids of the MADT's IO-APICs.

    `io_apics` None: the MADT is not known, and the IO-APICs that the table names are taken to be there.
    `machine` None: no function is looked at, and their registers are taken to be right. `segments` are those
    above 0 whose MMCFG Xen uses by itself.
    """

    def __init__(
        self,
        reading: Reading,
        memory: MemoryMap,
        io_apics: Sequence[int] | None,
        options: Options,
        machine: Machine | None = None,
        segments: Collection[int] = (),
    ) -> None:
        self._reading, self._memory, self._machine, self._segments = reading, memory, machine, segments
        self._io_apics, self._options = io_apics, options
        self._info = reading.u32(_INFO_AT)

    def read(self) -> AmdState:
        """Read the table. Raises: EndedError if Xen does not accept it."""
        kind = self._kind()
        used = [(at, length) for at, what, length in self._blocks() if what == kind]
        units, levels = [], _MOST_LEVELS
        for at, length in used:
            unit, most = self._unit(kind, at, length)
            units.append(unit)
            levels = min(levels, most)
        self._southbridges()
        start = 24 if kind == _OLD else _LEAST
        count = (max(last_id(self._reading, at, at + start, at + length) for at, length in used) | 7) + 1
        segments = {unit.segment: Runs(count) for unit in units}
        ivhd = IvhdReader(self._reading, units, segments, self._io_apics, self._options)
        ivmd = IvmdReader(self._reading, self._memory, units, segments, self._info, levels)
        for at, what, length in self._blocks():
            if what == kind:
                ivhd.read(at, at + start, at + length)
            elif IVMD_ALL <= what <= IVMD_UNIT:
                ivmd.read(at, what, length)
        for at in self._reading.add(added_blocks(self._options.ivmd)):
            ivmd.read(at, self._reading.u8(at), IVMD_SIZE)
        if self._options.interrupts:
            self._named(ivhd.io_apics)
        return AmdState(tuple(units), segments, frozenset(ivmd.kept), frozenset(ivmd.beyond))

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield (offset, type, length) of each block: the walk is the same in all readings."""
        data, at = self._reading, BLOCKS_AT
        while len(data.data) > at + _HEADER:
            kind, length = data.u8(at), data.u16(at + 2)
            yield at, kind, length
            at += length

    def _kind(self) -> int:
        """Return the type of the IVHD blocks that Xen reads, after the checks of its first reading."""
        data, kinds = self._reading, {_OLD, _NEW} if self._info & _EFR_SUP else {_OLD}
        if sum(data.data) & 0xFF:
            data.meet(rules.CHECKSUM, _CHECKSUM_AT)
        found = set()
        for at, kind, length in self._blocks():
            if len(data.data) < at + length:
                data.meet(rules.BLOCK_LENGTH, at, _name(kind), length=length)
            if not length:
                data.meet(rules.BLOCK_ZERO, at, _name(kind))
            found.add(kind)
        if not found & kinds:
            data.meet(rules.NO_IVHD)
        return max(found & kinds)

    def _unit(self, kind: int, at: int, length: int) -> tuple[AmdUnit, int]:
        """Return the unit of an IVHD block, and how many levels its page tables may have."""
        data, name = self._reading, _name(kind)
        if length < _LEAST:
            data.meet(rules.IVHD_LENGTH, at, name, length=length)
        device, capability, base = data.u16(at + 4), data.u16(at + 6), data.u64(at + 8)
        parts = (("routing id", device), ("capability's offset", capability), ("registers' address", base))
        for what, value in parts:
            if not value:
                data.meet(rules.IVHD_HEADER, at, name, what=what)
        unit = AmdUnit(data.u16(at + 16), device, capability, base, at)
        self._registers(unit, name)
        if not self._info & _EFR_SUP:
            return unit, _MOST_LEVELS  # the register decides
        hats = data.u64(at + 24) >> 10 if kind == _NEW else data.u32(at + 20) >> 30
        return unit, 4 + (hats & 3)

    def _registers(self, unit: AmdUnit, name: str) -> None:
        """Meet the rules about the registers of a unit's own function.

        Each AMD IOMMU has capabilities: registers without any were not read as they are.
        """
        place = sbdf_from_devfn(unit.segment, unit.device >> 8, unit.device & 0xFF)
        if self._machine is None:
            return
        if unit.segment:
            self._reading.meet(rules.UNIT_SEGMENT, unit.offset, name, unit=place)
            if unit.segment not in self._segments:
                self._reading.missing.append(f"MMCFG of segment {unit.segment:04x}")
        function = self._machine.functions.get(place)
        if function is None or function.platform is None or not function.capabilities:
            self._reading.missing.append(f"config space of the IOMMU {place}")
            return
        if function.platform.iommu_at != unit.capability:
            self._reading.meet(
                rules.UNIT_CAPABILITY, unit.offset, name, unit=place, capability=unit.capability
            )
        if find_capability(function.capabilities, MSI) is None:
            self._reading.meet(rules.UNIT_MSI, unit.offset, name, unit=place)

    def _southbridges(self) -> None:
        """Meet the rule about the SP5100, whose SMBus function Xen looks for on each bus of segment 0."""
        if self._machine is None or not (self._options.interrupts and self._options.per_device):
            return
        for sbdf, function in self._machine.functions.items():
            if sbdf.segment or (sbdf.device, sbdf.function) != _SMBUS:
                continue
            if (function.ids.vendor, function.ids.device) != _SP5100:
                continue
            if function.platform is None:
                self._reading.missing.append(f"config space of the SP5100 {sbdf}")
            elif function.platform.combined:
                self._reading.meet(rules.COMBINED_SATA, table=str(sbdf))

    def _named(self, places: dict[int, int]) -> None:
        """Meet the rules about IO-APICs that the table should name, and of the chipset's one."""
        southbridge = False
        for apic in self._io_apics if self._io_apics is not None else places:
            if apic not in places:
                if self._options.per_device:
                    self._reading.meet(rules.APIC_MISSING, apic=apic)
                continue
            southbridge = southbridge or places[apic] == _SOUTHBRIDGE
        if not southbridge and self._options.per_device:
            self._reading.meet(rules.NO_SOUTHBRIDGE)


def _name(kind: int) -> str:
    word = "IVMD" if IVMD_ALL <= kind <= IVMD_UNIT else "IVHD" if kind in (_OLD, _NEW) else "block"
    return f"{word} type {kind:#x}"
