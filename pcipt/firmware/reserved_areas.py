"""Memory that firmware reserved for devices (RMRR, IVMD), and which devices of this machine hold it.

An area is mapped as long as one of its devices is there; where none answers Xen drops it at boot.
Source: xen/drivers/passthrough/vtd/dmar.c, register_one_rmrr; AMD IOMMU 3.07 §5.2.2.7 (IVMD).
"""

from collections.abc import Iterable

import attrs

from pcipt.firmware.acpi import parse_table
from pcipt.firmware.coverage import IommuScope, snapshot_from_machine
from pcipt.firmware.dmar import SIGNATURES, ReservedRegion, parse_dmar
from pcipt.firmware.ivrs import SIGNATURE, parse_ivrs
from pcipt.pci import Address, Finding, Machine, Range, Sbdf, sbdf_from_devfn

IVMD_ALL, IVMD_ONE, IVMD_RANGE = 0x20, 0x21, 0x22
_IVMD_SIZE = 32
_MAPPED = 0x9  # unity map, or an exclusion range, which Xen maps likewise


@attrs.frozen
class ReservedArea:
    """`holders` are the functions of the machine that need it; `named` how many firmware named."""

    kind: str
    range: Range
    holders: tuple[Sbdf, ...]
    named: int

    @property
    def held(self) -> bool:
        return bool(self.holders)


def reserved_areas(
    tables: Iterable[bytes], machine: Machine
) -> tuple[tuple[ReservedArea, ...], tuple[Finding, ...]]:
    """Take the areas out of DMAR and IVRS tables; other tables are passed over."""
    areas: list[ReservedArea] = []
    findings: list[Finding] = []
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            dmar = parse_dmar(table)
            findings += dmar.findings
            scope = IommuScope(snapshot_from_machine("", machine))
            areas += filter(None, (_from_rmrr(region, scope, machine) for region in dmar.regions))
        elif table.signature == SIGNATURE:
            ivrs = parse_ivrs(table)
            findings += ivrs.findings
            blocks = (
                table.data[at : at + size] for kind, at, size in ivrs.others if IVMD_ALL <= kind <= IVMD_RANGE
            )
            areas += filter(None, (_from_ivmd(block, machine) for block in blocks))
    return tuple(areas), tuple(findings)


def _from_rmrr(region: ReservedRegion, scope: IommuScope, machine: Machine) -> ReservedArea | None:
    span = region.range
    if span is None:
        return None
    resolved = (scope.resolve(region.segment, each) for each in region.scopes)
    holders = tuple(
        dict.fromkeys(sbdf for sbdf in resolved if sbdf is not None and sbdf in machine.functions)
    )
    return ReservedArea("RMRR", span, holders, len(region.scopes))


def _from_ivmd(block: bytes, machine: Machine) -> ReservedArea | None:
    if len(block) < _IVMD_SIZE or not block[1] & _MAPPED:
        return None
    size = int.from_bytes(block[24:32], "little")
    start = int.from_bytes(block[16:24], "little")
    if not size or start + size > 1 << 64:
        return None
    first = int.from_bytes(block[4:6], "little")
    last = int.from_bytes(block[6:8], "little") if block[0] == IVMD_RANGE else first
    if block[0] == IVMD_ALL:
        first, last = 0, 0xFFFF
    low, high = (sbdf_from_devfn(0, number >> 8, number & 0xFF) for number in (first, last))
    holders = tuple(sbdf for sbdf in machine.functions if low <= sbdf <= high)
    return ReservedArea("IVMD", Range(Address(start), size), holders, last - first + 1)
