"""The physical address space of a PVH hardware domain: what is where, and why.

Claims are painted over each other: the memory map first, then the low 1 MiB, reserved areas, BARs that
decode, and on top what Xen traps or emulates. What nobody claims is a hole. There is no ISA hole at 15 MiB:
the early drafts had one, the final ABI puts RAM there where the machine has it.

Source: xen/arch/x86/hvm/dom0_build.c; xen/drivers/passthrough/x86/iommu.c, arch_iommu_hwdom_init.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from pcipt.firmware.acpi.madt import LOCAL_APIC_ADDRESS, Madt
from pcipt.firmware.memory_map import FOUR_GIB, ONE_MIB, MemoryEntry, MemoryType, flatten_map, overlapping
from pcipt.firmware.pvh.area_claims import Area, Claim, Treatment, paint
from pcipt.firmware.pvh.bar_claims import bar_claims, whole_pages
from pcipt.firmware.regions.regions import Region, RegionKind
from pcipt.pci import Address, Finding, Machine, Range
from pcipt.pci.units import PAGE_SIZE
from pcipt.pci.write import EcamRegion

_MAP, _LOW, _AREA, _ECAM, _MESSAGES, _APIC = 0, 10, 20, 40, 50, 60
_SHOWN = 4
FIFTEEN_MIB = 15 * ONE_MIB
MESSAGES = Range(Address(0xFEE0_0000), ONE_MIB)  # writes there are interrupts on their way

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
    """All that decides a layout; `memory` is the domain's map (the host's, RAM cut to dom0_mem)."""

    memory: tuple[MemoryEntry, ...]
    machine: Machine
    ecam: tuple[EcamRegion, ...] = ()
    madt: Madt | None = None
    reserved: tuple[Region, ...] = ()


@attrs.frozen
class Layout:
    areas: tuple[Area, ...]
    findings: tuple[Finding, ...]


def compute_layout(platform: Platform) -> Layout:
    """Compute the whole layout, from address 0 to the last thing there is."""
    memory = flatten_map(platform.memory)
    findings: list[Finding] = []
    claims = [
        *_memory_claims(memory),
        *_low_claims(memory),
        *_reserved_claims(platform.reserved),
        *bar_claims(platform.machine, memory, findings),
        *_ecam_claims(platform.ecam),
        *_apic_claims(platform.madt),
    ]
    areas = paint(claims)
    findings += _conflicts(areas, platform)
    return Layout(areas, tuple(findings))


def _memory_claims(memory: Sequence[MemoryEntry]) -> Iterator[Claim]:
    top = max(
        (e.range.last + 1 for e in memory if e.type in (MemoryType.RAM, MemoryType.UNUSABLE)), default=0
    )
    limit = max(top, FOUR_GIB)
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
        elif entry.type is MemoryType.RESERVED and entry.range.start >= limit:
            treatment, why = (
                Treatment.WITHHELD,
                "above the last RAM and 4 GiB, where Xen maps nothing by itself",
            )
        yield Claim(_MAP, entry.range, treatment, what, why)
        if entry.type is MemoryType.ACPI and treatment is Treatment.RAM:
            # the domain has whole pages: what the tables leave of theirs is RAM as well
            yield Claim(_MAP - 1, whole_pages(entry.range), treatment, what, why)


def _made_by_xen(memory: Sequence[MemoryEntry], number: int) -> bool:
    """Tell whether an ACPI entry was cut out of the end of RAM: it begins there, in the middle of a page."""
    entry = memory[number]
    before = memory[number - 1] if number else None
    shares_page = bool(entry.range.start % PAGE_SIZE)
    touches = before is not None and before.range.last + 1 == entry.range.start
    return shares_page and touches and before is not None and before.type in (MemoryType.RAM, MemoryType.ACPI)


def _low_claims(memory: Sequence[MemoryEntry]) -> Iterator[Claim]:
    """Claim the low 1 MiB: its RAM is a copy of the machine's, all the rest is mapped."""
    why = "below 1 MiB the machine shows through; nothing is loaded there"
    yield Claim(_LOW, Range(Address(0), ONE_MIB), Treatment.IDENTITY, "low 1 MiB", why)
    for entry in memory:
        if entry.type is MemoryType.RAM and entry.range.start < ONE_MIB:
            end = min(entry.range.last + 1, ONE_MIB)
            span = Range(entry.range.start, end - entry.range.start)
            why = "copied from the machine (BDA, EBDA); nothing is loaded there"
            yield Claim(_LOW + 1, span, Treatment.RAM, "low 1 MiB, RAM", why)


def _reserved_claims(regions: Iterable[Region]) -> Iterator[Claim]:
    for region in regions:
        if region.frames is None or region.kind is RegionKind.NEITHER:
            continue
        span, what, present = region.frames.range, f"{region.kind.title} region", region.present
        shown = ", ".join(str(sbdf) for sbdf in present[:_SHOWN])
        if len(present) > _SHOWN:
            shown += f" and {len(present) - _SHOWN} more"
        if present:
            why = f"reserved for {shown}; gone when the last of them leaves"
            yield Claim(_AREA + 1, span, Treatment.IDENTITY, what, why)
        else:
            why = f"none of the {region.named} devices it is reserved for is there"
            yield Claim(_AREA, span, Treatment.WITHHELD, what, why)


def _ecam_claims(regions: Iterable[EcamRegion]) -> Iterator[Claim]:
    for region in regions:
        buses = f"segment {region.segment:04x} buses {region.start_bus:02x}-{region.end_bus:02x}"
        span = Range(Address(region.first), region.end - region.first)
        yield Claim(_ECAM, span, Treatment.TRAPPED, f"MMCFG {buses}", "vPCI handles configuration accesses")


def _apic_claims(madt: Madt | None) -> Iterator[Claim]:
    why = "writes from devices are interrupts; never mapped"
    yield Claim(_MESSAGES, MESSAGES, Treatment.WITHHELD, "interrupt messages", why)
    local = madt.local_apic if madt is not None and madt.local_apic else LOCAL_APIC_ADDRESS
    span = Range(Address(local // PAGE_SIZE * PAGE_SIZE), PAGE_SIZE)
    yield Claim(
        _APIC,
        span,
        Treatment.EMULATED,
        "local APIC",
        "each vCPU has one that Xen plays (in x2APIC mode, by MSR)",
    )
    for each in madt.io_apics if madt is not None else ():
        page = whole_pages(Range(each.address, PAGE_SIZE // 4))
        why = f"Xen plays it; interrupts from {each.gsi_base} on"
        yield Claim(_APIC, page, Treatment.EMULATED, f"IO-APIC {each.apic_id}", why)


def _conflicts(areas: Sequence[Area], platform: Platform) -> Iterator[Finding]:
    """Report what the painting hid: RAM that is something else as well."""
    memory = flatten_map(platform.memory)
    for area in areas:
        if area.treatment in (Treatment.RAM, Treatment.HOLE) or area.range.start < ONE_MIB:
            continue
        over = next((e for e in overlapping(memory, area.range) if e.type is MemoryType.RAM), None)
        if over is not None:
            text = (
                f"{area.what} at {area.range} lies over RAM ({over.range}): that memory is lost to the domain"
            )
            yield Finding("over-ram", text)
