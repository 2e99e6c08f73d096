"""Compute the physical address space of a PVH hardware domain: what is at each address, and why.

The layers, from the lowest rank to the highest, which hides the others: the memory map, the low 1 MiB,
reserved regions, BARs that decode, what Xen traps or emulates. Addresses without a layer are holes. There is
no ISA hole at 15 MiB: early drafts of the ABI had one, but in the final ABI these addresses are RAM if the
machine has RAM at them.
Source: xen/arch/x86/hvm/dom0_build.c; xen/drivers/passthrough/x86/iommu.c, arch_iommu_hwdom_init.
"""

from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.acpi.madt import LOCAL_APIC_ADDRESS, Madt
from pcipt.firmware.memory_map import (
    FOUR_GIB,
    MESSAGES,
    ONE_MIB,
    MemoryEntry,
    MemoryType,
    flatten_map,
    overlapping,
)
from pcipt.firmware.mmcfg import Mmcfg, findings_of, mmcfg_of, without_ram
from pcipt.firmware.pvh.areas import Area, Layer, Treatment, areas_from_layers
from pcipt.firmware.pvh.bar_pages import Rules, bar_layers, whole_pages
from pcipt.firmware.regions.regions import Region, RegionKind
from pcipt.pci import Address, Finding, Machine, Range
from pcipt.pci.units import PAGE_SIZE
from pcipt.pci.write import EcamRegion
from pcipt.xen.releases import (
    E820_CUTS_BARS,
    ONLY_ACCESSIBLE_MAPPED,
    RESERVED_MAPPED_ANYWHERE,
    Fact,
    Version,
)

_MAP, _LOW, _AREA, _ECAM, _MESSAGES, _APIC = 0, 10, 20, 40, 50, 60
_SHOWN = 4
FIFTEEN_MIB = 15 * ONE_MIB

_OF_TYPE = {
    MemoryType.RAM: (Treatment.RAM, "RAM", "the domain's own memory"),
    MemoryType.RESERVED: (Treatment.IDENTITY, "reserved by firmware", "drivers and firmware code may use it"),
    MemoryType.ACPI: (Treatment.IDENTITY, "ACPI tables", "the domain reads them in place"),
    MemoryType.NVS: (Treatment.IDENTITY, "ACPI non-volatile storage", "AML code uses it"),
    MemoryType.UNUSABLE: (Treatment.WITHHELD, "RAM of Xen and of guests", "beyond dom0_mem, or kept by Xen"),
    MemoryType.DISABLED: (Treatment.WITHHELD, "disabled memory", "firmware says so"),
    MemoryType.PMEM: (Treatment.IDENTITY, "persistent memory", "the domain's drivers use it"),
}
_UNKNOWN = (Treatment.WITHHELD, "memory of a type that is not known", "Xen maps known types only")


@attrs.frozen
class Platform:
    """All facts that decide the layout of a hardware domain.

    `memory` is the domain's memory map, in any order: the machine's, with RAM reduced to dom0_mem. `ecam` are
    the MMCFG regions as MCFG claims them. `named` are the names in /proc/iomem. `madt` None means that the
    MADT could not be read. `reserved` are the reserved regions. `version` is that of Xen, None if it is not
    known: then the newest rules hold. `map_reserved` is False if Xen's option dom0-iommu=no-map-reserved is
    set.
    """

    memory: tuple[MemoryEntry, ...]
    machine: Machine
    ecam: tuple[EcamRegion, ...] = ()
    madt: Madt | None = None
    reserved: tuple[Region, ...] = ()
    named: tuple[str, ...] = ()
    version: Version | None = None
    map_reserved: bool = True

    def does(self, fact: Fact) -> bool:
        """Return True if this Xen does what a fact says, or if its version is not known."""
        return self.version is None or fact.of(self.version)


@attrs.frozen
class Layout:
    """The areas of an address space from address 0 on, and the findings about conflicts.

    Shape:  areas sorted by address, without gaps.
    """

    areas: tuple[Area, ...]
    findings: tuple[Finding, ...]


def compute_layout(platform: Platform) -> Layout:
    """Return the layout of the domain's address space, from address 0 to the highest address of any layer.

    Its findings: BARs that Xen does not map (`bar-not-mapped`), then areas that hide RAM of the domain
    (`over-ram`), then what is odd about MMCFG.
    """
    memory = flatten_map(platform.memory)
    findings: list[Finding] = []
    mmcfg = mmcfg_of(platform.ecam, memory)
    layers = [
        *_memory_layers(memory, platform),
        *_low_layers(memory),
        *_reserved_layers(platform.reserved),
        *bar_layers(
            platform.machine, memory, findings, Rules(platform.does(E820_CUTS_BARS), platform.map_reserved)
        ),
        *_ecam_layers(mmcfg, memory),
        *_apic_layers(platform.madt),
    ]
    areas = areas_from_layers(layers)
    findings += (*_conflicts(areas, platform), *findings_of(mmcfg, platform.named))
    return Layout(areas, tuple(findings))


def _memory_layers(memory: Sequence[MemoryEntry], platform: Platform) -> Iterator[Layer]:
    """Yield the layers of the memory map, which must come from `flatten_map`.

    Withheld are types that are not known, unusable memory, and disabled memory. Reserved memory is a hole
    without Xen's map-reserved; some versions withhold it if it begins at or above 4 GiB and behind all RAM
    and all unusable memory (`RESERVED_MAPPED_ANYWHERE`), or if it is HyperTransport's
    (`ONLY_ACCESSIBLE_MAPPED`). ACPI tables that Xen built become RAM, in whole pages.
    """
    top = max(
        (e.range.last + 1 for e in memory if e.type in (MemoryType.RAM, MemoryType.UNUSABLE)), default=0
    )
    limit, anywhere = max(top, FOUR_GIB), platform.does(RESERVED_MAPPED_ANYWHERE)
    for number, entry in enumerate(memory):
        treatment, what, why = _OF_TYPE.get(entry.type, _UNKNOWN) if entry.type is not None else _UNKNOWN
        if entry.type is MemoryType.ACPI and _made_by_xen(memory, number):
            treatment, what, why = (
                Treatment.RAM,
                "ACPI tables made by Xen",
                "MADT, XSDT and RSDP, in RAM of the domain",
            )
        elif entry.type is MemoryType.RAM and entry.range.contains(FIFTEEN_MIB):
            why += "; no ISA hole at 15 MiB"
        elif entry.type is MemoryType.RESERVED and not platform.map_reserved:
            treatment, why = Treatment.HOLE, "dom0-iommu=no-map-reserved: Xen maps nothing of it by itself"
        elif entry.type is MemoryType.RESERVED and entry.range.start >= limit and not anywhere:
            treatment, why = (
                Treatment.WITHHELD,
                "above the last RAM and 4 GiB, where Xen maps nothing by itself",
            )
        elif _is_hypertransport(entry) and platform.does(ONLY_ACCESSIBLE_MAPPED):
            treatment, why = Treatment.WITHHELD, "HyperTransport's range on AMD, which dom0 may not access"
        yield Layer(_MAP, entry.range, treatment, what, why)
        if entry.type is MemoryType.ACPI and treatment is Treatment.RAM:
            # The domain gets whole pages, so the rest of the tables' pages is RAM as well.
            yield Layer(_MAP - 1, whole_pages(entry.range), treatment, what, why)


def _is_hypertransport(entry: MemoryEntry) -> bool:
    """Return True for reserved memory of 12 GiB at the end of a processor's addresses (40 bits or more).

    Source: Xen arch/x86/dom0_build.c (dom0_setup_permissions): on AMD it denies dom0 these addresses.
    """
    end = entry.range.last + 1
    ends_there = end >= 1 << 40 and not end & end - 1
    return entry.type is MemoryType.RESERVED and ends_there and end - entry.range.start == 12 << 30


def _made_by_xen(memory: Sequence[MemoryEntry], number: int) -> bool:
    """Return True if entry `number` of the memory map, an entry of ACPI tables, holds tables that Xen built.

    Xen takes their memory from the end of RAM. So such an entry does not begin at a page boundary, and an
    entry of RAM or of ACPI tables ends directly before it.
    """
    entry = memory[number]
    before = memory[number - 1] if number else None
    shares_page = bool(entry.range.start % PAGE_SIZE)
    touches = before is not None and before.range.last + 1 == entry.range.start
    return shares_page and touches and before is not None and before.type in (MemoryType.RAM, MemoryType.ACPI)


def _low_layers(memory: Sequence[MemoryEntry]) -> Iterator[Layer]:
    """Yield the layers of the low 1 MiB: its RAM is a copy of the machine's RAM, the rest is mapped 1:1."""
    why = "below 1 MiB the machine shows through; nothing is loaded there"
    yield Layer(_LOW, Range(Address(0), ONE_MIB), Treatment.IDENTITY, "low 1 MiB", why)
    for entry in memory:
        if entry.type is MemoryType.RAM and entry.range.start < ONE_MIB:
            end = min(entry.range.last + 1, ONE_MIB)
            span = Range(entry.range.start, end - entry.range.start)
            why = "copied from the machine (BDA, EBDA); nothing is loaded there"
            yield Layer(_LOW + 1, span, Treatment.RAM, "low 1 MiB, RAM", why)


def _reserved_layers(regions: Iterable[Region]) -> Iterator[Layer]:
    """Yield the layers of reserved regions.

    A region is mapped 1:1 if at least one of its devices is known to be present; else it is withheld. Empty
    regions and IVMD blocks without a flag (NEITHER) are left out.
    """
    for region in regions:
        if region.frames is None or region.kind is RegionKind.NEITHER:
            continue
        span, what, present = region.frames.range, f"{region.kind.title} region", region.present
        shown = ", ".join(str(sbdf) for sbdf in present[:_SHOWN])
        if len(present) > _SHOWN:
            shown += f" and {len(present) - _SHOWN} more"
        if present:
            why = f"reserved for {shown}; unmapped when the last of these devices leaves dom0"
            yield Layer(_AREA + 1, span, Treatment.IDENTITY, what, why)
        else:
            why = f"reserved for {region.named} devices, and the machine has none of them"
            yield Layer(_AREA, span, Treatment.WITHHELD, what, why)


def _ecam_layers(regions: Iterable[Mmcfg], memory: Sequence[MemoryEntry]) -> Iterator[Layer]:
    """Yield the layers of ECAM (MMCFG) regions, which Xen traps where the domain has no RAM."""
    for each in regions:
        region = each.taken
        buses = f"segment {region.segment:04x} buses {region.start_bus:02x}-{region.end_bus:02x}"
        for span in without_ram(each.range, memory):
            why = "vPCI handles configuration accesses"
            yield Layer(_ECAM, span, Treatment.TRAPPED, f"MMCFG {buses}", why)


def _apic_layers(madt: Madt | None) -> Iterator[Layer]:
    """Yield the layers of the interrupt messages, the local APIC and the IO-APICs.

    The local APIC is at FEE00000 if the MADT is None or if the MADT has 0 as its address. There are no layers
    of IO-APICs if the MADT is None.
    """
    why = "writes from devices are interrupts; never mapped"
    yield Layer(_MESSAGES, MESSAGES, Treatment.WITHHELD, "interrupt messages", why)
    local = madt.local_apic if madt is not None and madt.local_apic else LOCAL_APIC_ADDRESS
    span = Range(Address(local // PAGE_SIZE * PAGE_SIZE), PAGE_SIZE)
    yield Layer(
        _APIC,
        span,
        Treatment.EMULATED,
        "local APIC",
        "each vCPU has one that Xen plays (in x2APIC mode, by MSR)",
    )
    for each in madt.io_apics if madt is not None else ():
        page = whole_pages(Range(each.address, PAGE_SIZE // 4))
        why = f"Xen plays it; interrupts from {each.gsi_base} on"
        yield Layer(_APIC, page, Treatment.EMULATED, f"IO-APIC {each.apic_id}", why)


def _conflicts(areas: Sequence[Area], platform: Platform) -> Iterator[Finding]:
    """Yield a finding for each area that hides RAM of the domain, sorted by address."""
    memory = flatten_map(platform.memory)
    for area in areas:
        if area.treatment in (Treatment.RAM, Treatment.HOLE):
            continue
        over = next((e for e in overlapping(memory, area.range) if e.type is MemoryType.RAM), None)
        if over is not None:
            text = (
                f"{area.what} at {area.range} lies over RAM ({over.range}): that memory is lost to the domain"
            )
            yield Finding("over-ram", text)
