"""Pages that must never be mapped or unmapped: RAM, pages that firmware reserved, the platform's own devices.

Pure. They are computed from what was read of the machine as a whole: its memory maps, ACPI tables and
reserved regions. BARs and MSI-X pages change with the functions and are not here: see `bar_index`.
Source: xen/arch/x86/dom0_build.c (dom0_setup_permissions); ACPI 6.5 §5.2.12; VT-d 4.1 §8.3; IA-PC HPET 1.0a
        §3.2.4.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from pcipt.firmware.acpi.dmar import SIGNATURES as DMAR_NAMES
from pcipt.firmware.acpi.dmar import parse_dmar
from pcipt.firmware.acpi.madt import SIGNATURE as MADT
from pcipt.firmware.acpi.madt import parse_madt
from pcipt.firmware.acpi.mcfg import regions_from_mcfg
from pcipt.firmware.acpi.table import Table, parse_table
from pcipt.firmware.memory_map import MESSAGES, ONE_MIB, MemoryEntry, MemoryType
from pcipt.firmware.mmcfg import mmcfg_of
from pcipt.pci import Address, Frames, Range, frames_from_range
from pcipt.pci.units import PAGE_SIZE
from pcipt.remap.intervals import Intervals, without

HPET = "HPET"
_HPET_BASE = 44

#  addresses that every x86 machine uses, also if its tables do not name them
CONSTANTS = (
    (Range(Address(0), ONE_MIB), "the first MiB"),
    (Range(Address(0xFEC0_0000), PAGE_SIZE), "the IO-APIC's usual place"),
    (MESSAGES, "the local APIC and the MSI window"),
)

#  names in /proc/iomem of ranges that no ACPI table readable in a PVH dom0 names
_IOMEM_NAMES = (
    ("ioapic", "IO-APIC"),
    ("local apic", "local APIC"),
    ("hpet", "HPET"),
    ("dmar", "IOMMU registers"),
    ("pci mmconfig", "MMCFG"),
    ("pci ecam", "MMCFG"),
    ("crash kernel", "RAM"),
    ("xen scratch", "pages of other domains (Xen scratch)"),  # mapping over a foreign page kills dom0
)


_DENIED = ("IO-APIC", "local APIC")  # names of pages that dom0 may not access


@attrs.frozen
class Reason:
    """Why pages are protected. `what` names it in words.

    `reserved` is True for memory that the firmware's map does not call RAM, and for reserved regions (RMRR,
    IVMD), which lie in such memory. `listed` is True for all of these and for RAM: an entry of the firmware's
    map covers the pages. `ram` is True for RAM, `denied` for pages that dom0 may not access.
    Source: Xen arch/x86/dom0_build.c (dom0_setup_permissions).
    """

    what: str
    reserved: bool = False
    ram: bool = False
    denied: bool = False
    listed: bool = False


class Protected:
    """The pages that pcipt must not map or unmap: ranges, each with the reason why it is protected.

    The object never changes; each reading of the machine makes a new object.
    """

    def __init__(self, ranges: Iterable[tuple[Frames, Reason]] = ()) -> None:
        self._ranges: Intervals[Reason] = Intervals(ranges)

    def why(self, frames: Frames) -> str | None:
        """Return the name and range of the lowest protected range that overlaps `frames`, in words, or None.

        The lowest range is the one with the lowest first page, and among those the shortest.
        """
        return self._first(self._ranges.over(frames))

    def why_not_reserved(self, frames: Frames) -> str | None:
        """Return the same as `why`, except that ranges whose reason has `reserved` are ignored.

        Reserved regions lie in such memory, and they must be mapped and unmapped with their devices.
        """
        return self._first(entry for entry in self._ranges.over(frames) if not entry[1].reserved)

    def why_ram(self, frames: Frames) -> str | None:
        """Return the same as `why`, except that only RAM counts."""
        return self._first(entry for entry in self._ranges.over(frames) if entry[1].ram)

    def why_denied(self, frames: Frames) -> str | None:
        """Return the same as `why`, except that only pages that dom0 may not access count."""
        return self._first(entry for entry in self._ranges.over(frames) if entry[1].denied)

    def outside_map(self, frames: Frames) -> tuple[Frames, ...] | None:
        """Return those of the frames that no entry of the firmware's map covers, sorted.

        Return None if some of them are protected for another reason.
        """
        found = list(self._ranges.over(frames))
        if not all(reason.listed for _, reason in found):
            return None
        return without((frames,), [span for span, _ in found])

    @staticmethod
    def _first(found: Iterable[tuple[Frames, Reason]]) -> str | None:
        """Return the lowest of these ranges in words, or None if there is none."""
        lowest = min(found, key=lambda entry: (entry[0], entry[1].what), default=None)
        return f"{lowest[1].what} at {lowest[0]}" if lowest is not None else None


def protected_ranges(
    memory: Iterable[MemoryEntry],
    named: Iterable[tuple[Range, str]] = (),
    tables: Iterable[bytes] = (),
    reserved: Iterable[Frames] = (),
) -> Protected:
    """Return all protected pages of a machine, and the pages that every x86 machine protects (`CONSTANTS`).

    `memory` are E820 ranges; they may overlap. All types are protected, not only RAM. `named` are the lines
    of /proc/iomem; lines whose name is not in `_IOMEM_NAMES` are ignored. `tables` are the ACPI tables as
    they were read; MADT, HPET, MCFG and DMAR (or RMAD, XMAR) are used, other tables are ignored; of a damaged
    table the readable entries are used. `reserved` is the reserved device memory that Xen lists.
    """
    found: list[tuple[Frames, Reason]] = []
    for span, what in CONSTANTS:
        found.append((frames_from_range(span), Reason(what, denied=span.start >= ONE_MIB)))
    memory = tuple(memory)
    for entry in memory:
        ram = entry.type is MemoryType.RAM
        what = "RAM" if ram else f"{entry.word} memory of the firmware's map"
        found.append((frames_from_range(entry.range), Reason(what, reserved=not ram, listed=True, ram=ram)))
    for span, name in named:
        lower = name.lower()
        word = next((word for start, word in _IOMEM_NAMES if lower.startswith(start)), None)
        if word is not None:
            found.append((frames_from_range(span), Reason(word, denied=word in _DENIED)))
    for data in tables:
        for span, what in _from_table(data, memory):
            found.append((frames_from_range(span), Reason(what, denied=what in _DENIED)))
    found += ((frames, Reason("a reserved region", reserved=True, listed=True)) for frames in reserved)
    return Protected(found)


def _from_table(data: bytes, memory: Sequence[MemoryEntry]) -> Iterator[tuple[Range, str]]:
    """Yield the protected ranges of an ACPI table, each with its name.

    Of MMCFG only what Xen and Linux take by the memory map: behind it devices may have BARs.
    Nothing is yielded for a table other than MADT, HPET, MCFG and DMAR (also under the names RMAD and XMAR,
    which Xen gives it), or if `data` is shorter than a header.
    """
    table = parse_table(data)
    if table is None:
        return
    if table.signature == MADT:
        madt = parse_madt(table)
        yield Range(madt.local_apic, PAGE_SIZE), "local APIC"
        for io_apic in madt.io_apics:
            yield Range(io_apic.address, PAGE_SIZE), "IO-APIC"
    elif table.signature == HPET:
        yield from _hpet(table)
    elif table.signature == "MCFG":
        for each in mmcfg_of(regions_from_mcfg(data), memory):
            yield each.range, "MMCFG"
    elif table.signature in DMAR_NAMES:
        for unit in parse_dmar(table).units:
            yield Range(Address(unit.base), PAGE_SIZE), "IOMMU registers"


def _hpet(table: Table) -> Iterator[tuple[Range, str]]:
    """Yield the page of the HPET's registers; nothing if the table is too short to have their address."""
    base = table.data[_HPET_BASE : _HPET_BASE + 8]
    if len(base) == 8:
        yield Range(Address(int.from_bytes(base, "little")), PAGE_SIZE), HPET
