"""Say what a version of Xen makes of a machine's DMAR or IVRS table, with MADT, FADT and memory map.

Xen reads the DMAR first. It looks for an IVRS only if there is no DMAR, or if reading it ended with ENODEV.
Source: Xen drivers/passthrough/x86/iommu.c (acpi_iommu_init), arch/x86/mpparse.c (mp_register_ioapic),
        drivers/acpi/tables/tbfadt.c (acpi_tb_convert_fadt).
"""

import functools
from collections.abc import Iterable, Sequence

from pcipt.firmware.acceptance import rules
from pcipt.firmware.acceptance.amd import IvrsReader
from pcipt.firmware.acceptance.amd_state import AmdState
from pcipt.firmware.acceptance.answers import Acceptance, Answer
from pcipt.firmware.acceptance.memory import MemoryMap
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acceptance.reading import EndedError, Reading
from pcipt.firmware.acceptance.rules import Ending
from pcipt.firmware.acceptance.vtd import DmarReader, Topology
from pcipt.firmware.acceptance.vtd_state import VtdState
from pcipt.firmware.acpi.dmar import SIGNATURES
from pcipt.firmware.acpi.ivrs import SIGNATURE as IVRS
from pcipt.firmware.acpi.ivrs import AddedBlock
from pcipt.firmware.acpi.madt import ENTRIES_AT, IOAPIC
from pcipt.firmware.acpi.madt import SIGNATURE as MADT
from pcipt.firmware.acpi.mcfg import SIGNATURE as MCFG
from pcipt.firmware.acpi.mcfg import parse_mcfg
from pcipt.firmware.acpi.table import Table, entries, parse_table
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.mmcfg import Mmcfg, is_used, mmcfg_of
from pcipt.pci import Machine
from pcipt.pci.requester import Vendor
from pcipt.xen.releases import Version

_FADT, _BOOT_FLAGS_AT, _NO_MSI, _WITH_BOOT_FLAGS = "FACP", 109, 0x8, 3
_IO_APIC_SIZE, _REGION = 12, {Vendor.INTEL: "RMRR", Vendor.AMD: "IVMD"}
_DEFAULTS = Options()


def judge(
    tables: Iterable[bytes],
    memory: Sequence[MemoryEntry] | None,
    version: Version | None,
    topology: Topology | None = None,
    options: Options = _DEFAULTS,
    machine: Machine | None = None,
) -> Acceptance:
    """Return what Xen makes of the tables; others than DMAR, IVRS, MADT and FADT are passed over.

    `memory` is the memory map, `topology` the functions and bridges when Xen booted (a `BootSnapshot` is
    one); None means that it is not known. Without a MADT the IO-APICs are taken to be those that the table
    names, and without a topology the functions that it names are taken to be there. `machine` has the
    registers by which Xen judges AMD-Vi; None: they are taken to be right. What it lacks is unknown.
    """
    found: dict[str, Table] = {}
    for table in map(parse_table, tables):
        if table is not None:
            name = SIGNATURES[0] if table.signature in SIGNATURES else table.signature
            found.setdefault(name, table)
    mcfg = found.get(MCFG)
    areas = mmcfg_of(parse_mcfg(mcfg).regions, memory) if mcfg is not None else None
    given = _Given(found.get(MADT), found.get(_FADT), memory, version, topology, options, machine, areas)
    judged = None
    if SIGNATURES[0] in found:
        judged = given.judge(found[SIGNATURES[0]], Vendor.INTEL)
    if IVRS in found and (judged is None or (judged.end is not None and judged.end.rule is rules.BASE)):
        judged = given.judge(found[IVRS], Vendor.AMD)
    return judged if judged is not None else Acceptance(None, Answer.NO, Answer.NO)


@functools.lru_cache(maxsize=8)
def state_of(ivrs: bytes, ivmd: tuple[AddedBlock, ...] = ()) -> AmdState | None:
    """Return what Xen has of an IVRS table if it accepts it; None if it accepts it in no case.

    `ivmd` are the regions that Xen's option of this name adds (`Options.ivmd`).
    What else decides about the table is not looked at: IO-APICs, memory map, and Xen's version.
    """
    table = parse_table(ivrs)
    if table is None:
        return None
    try:
        reading = Reading(table.signature, table.data, Vendor.AMD, None)
        return IvrsReader(reading, MemoryMap(()), None, Options(interrupts=False, ivmd=ivmd)).read()
    except EndedError:
        return None


class _Given:
    """What Xen has besides the table itself."""

    def __init__(
        self,
        madt: Table | None,
        fadt: Table | None,
        memory: Sequence[MemoryEntry] | None,
        version: Version | None,
        topology: Topology | None,
        options: Options,
        machine: Machine | None,
        areas: tuple[Mmcfg, ...] | None,
    ) -> None:
        self._io_apics = _io_apics(madt) if madt is not None else None
        self._fadt, self._memory, self._version = fadt, memory, version
        self._topology, self._options, self._machine = topology, options, machine
        self._areas = areas
        self._segments = {each.taken.segment for each in areas or () if is_used(each, version)}

    def judge(self, table: Table, vendor: Vendor) -> Acceptance:
        """Return what Xen makes of one table."""
        if any(finding.code == "acpi-length" for finding in table.findings):
            return Acceptance(vendor, Answer.UNKNOWN, Answer.UNKNOWN, (), ("the whole table",))
        reading = Reading(table.signature, table.data, vendor, self._version)
        state: VtdState | AmdState | None = None
        try:
            state = self._read(reading, vendor)
        except EndedError:
            return Acceptance(vendor, Answer.NO, Answer.NO, tuple(reading.said))
        unknown = list(reading.missing)
        if self._memory is None and reading.has_regions:
            unknown.append("the memory map")
        if self._io_apics is None and self._options.interrupts:
            unknown.append("the MADT")
        doubts = [each for each in reading.said if not each.certain]
        if doubts:
            unknown.append("Xen's version")
        depends = (
            doubts
            or reading.missing
            or "the memory map" in unknown
            or (vendor is Vendor.AMD and "the MADT" in unknown)
        )
        iommu = Answer.UNKNOWN if depends else Answer.YES
        interrupts = Answer.UNKNOWN if depends or "the MADT" in unknown else Answer.YES
        off = any(each.rule.ending is Ending.NO_INTERRUPTS for each in reading.said)
        if off or not self._options.interrupts:
            interrupts = Answer.NO
        return Acceptance(vendor, iommu, interrupts, tuple(reading.said), tuple(unknown), state)

    def _read(self, reading: Reading, vendor: Vendor) -> VtdState | AmdState:
        memory = MemoryMap(self._memory)
        if vendor is Vendor.AMD:
            reader = IvrsReader(reading, memory, self._io_apics, self._options, self._machine, self._segments)
            state: VtdState | AmdState = reader.read()
        else:
            io_apics = self._io_apics or () if self._options.interrupts else ()
            state = DmarReader(reading, memory, self._topology, self._areas).read(io_apics)
        if self._fadt is not None and _is_without_msi(self._fadt):
            reading.meet(rules.FADT_NO_MSI, _BOOT_FLAGS_AT, table=_FADT)
        return state


def _is_without_msi(fadt: Table) -> bool:
    if fadt.revision < _WITH_BOOT_FLAGS or len(fadt.data) < _BOOT_FLAGS_AT + 2:
        return False
    return bool(fadt.u16(_BOOT_FLAGS_AT) & _NO_MSI)


def _io_apics(madt: Table) -> tuple[int, ...]:
    """Return the ids of the IO-APICs that Xen takes from a MADT: not those whose registers are at 0."""
    found = entries(madt.data, ENTRIES_AT, len(madt.data), [], header=2)
    return tuple(
        madt.data[at + 2]
        for kind, at, length in found
        if kind == IOAPIC and length >= _IO_APIC_SIZE and madt.u32(at + 4)
    )
