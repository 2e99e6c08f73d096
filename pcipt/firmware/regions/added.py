"""Make the reserved regions that Xen's command line adds (rmrr=), and say which of them Xen passes over.

Xen adds them after those of the DMAR. It does not look whether they lie over RAM, but it must have their
pages in its tables: they lie below the end of RAM, and each 256 MiB around one has RAM. What ivmd= adds is
read like blocks of the IVRS: acceptance/amd.py.
Source: Xen drivers/passthrough/vtd/dmar.c (add_one_user_rmrr, register_one_rmrr, for_each_rmrr_device),
        common/pdx.c (__mfn_valid); alike from 4.17 to 4.22.
"""

from collections.abc import Iterable, Sequence

from pcipt.firmware.memory_map import MemoryEntry, MemoryType, overlapping
from pcipt.firmware.regions.regions import Region, RegionDevice, RegionKind, RegionScope
from pcipt.pci import Address, Finding, Machine, Range, Sbdf
from pcipt.pci.units import PAGE_SIZE

OPTION = "region-option"
BY_RMRR, BY_IVMD = (
    Finding("region-added", f"Xen's command line adds it ({option}=)") for option in ("rmrr", "ivmd")
)
_GROUP = 256 << 20
_ABSENT = "the machine has none of its devices: Xen ignores the region (rmrr=)"


def added_rmrrs(
    added: Iterable[tuple[int, int, tuple[Sbdf, ...]]],
    regions: Iterable[Region],
    machine: Machine | None,
    memory: Sequence[MemoryEntry] | None,
) -> tuple[list[Region], list[Finding]]:
    """Return the regions that rmrr= adds to those of the DMAR, and a finding for each that Xen passes over.

    `added` are (first page, last page, functions). A region none of whose functions is there is returned with
    the reason in `dropped`. `memory` is the flat memory map; None: their pages are taken to be good.
    """
    kept = [each for each in regions if each.kind is RegionKind.RMRR and not each.dropped]
    found: list[Region] = []
    findings = []
    for first, last, functions in added:
        base, limit = first * PAGE_SIZE, (last + 1) * PAGE_SIZE - 1
        why = _against(base, limit, functions, kept, memory)
        if why:
            findings.append(Finding(OPTION, f"rmrr={first:x}-{last:x}: {why}: Xen ignores the region"))
            continue
        region = _region(base, limit, functions, machine)
        found.append(region)
        kept += [region] if not region.dropped else []
    return found, findings


def _against(
    base: int,
    limit: int,
    functions: Sequence[Sbdf],
    kept: Iterable[Region],
    memory: Sequence[MemoryEntry] | None,
) -> str:
    """Return why Xen passes a region over; empty if it does not."""
    start_of_last = limit + 1 - PAGE_SIZE
    other = next((each for each in kept if base <= each.limit and each.base <= start_of_last), None)
    if other is not None:
        return f"it overlaps the region {other}"
    wrong = next((page for page in range(base, limit, PAGE_SIZE) if not _is_known(page, memory)), None)
    if wrong is not None:
        return f"Xen does not know the page {wrong:#x}, far from all RAM"
    segments = 0
    for each in functions:
        segments |= each.segment
    return "its functions are in several segments" if segments != functions[0].segment else ""


def _is_known(page: int, memory: Sequence[MemoryEntry] | None) -> bool:
    if memory is None:
        return True
    ram = [each.range for each in memory if each.type is MemoryType.RAM]
    if not any(page <= each.last for each in ram):
        return False
    group = Range(Address(page // _GROUP * _GROUP), _GROUP)
    return any(each.type is MemoryType.RAM for each in overlapping(memory, group))


def _region(base: int, limit: int, functions: Sequence[Sbdf], machine: Machine | None) -> Region:
    scopes = tuple(
        RegionScope("endpoint", each.bus, ((each.device, each.function),), each) for each in functions
    )
    here = machine.functions if machine is not None else None
    served: list[Sbdf] = []
    for each in functions:
        if not each.bus and not each.devfn:
            break  # Xen takes bus 0, device 0, function 0 for the end of its list
        served.append(each)
    looked = here is not None and not functions[0].segment
    absent = looked and here is not None and not any(each in here for each in functions)
    return Region(
        RegionKind.RMRR,
        functions[0].segment,
        Address(base),
        Address(limit),
        scopes,
        tuple(RegionDevice(each, None if here is None else each in here) for each in dict.fromkeys(served)),
        findings=(BY_RMRR,),
        dropped=_ABSENT if absent else "",
    )
