"""Which part of each MCFG entry Xen and Linux take: as much of it as the memory map reserves.

Xen, and Linux with the same rule, halve an area until the memory map reserves all of it, no further than to
16 MiB; the last bus moves down with it. An area that is not reserved even so is not used by Xen itself until
Linux tells Xen that ACPI's motherboard resources reserve it; newer versions also use one in a hole of the
map, if the firmware is of 2016 or newer. Nothing here knows the firmware's year: it is taken to be that new,
because older machines with several segments are hardly known, and an add that fails for it leaves an orphan
that such a version can remove. A PVH dom0's accesses are trapped in each area, used or not, as far as it was
not halved; where the domain has RAM, the RAM is there. Of areas that overlap, the first is trapped.
Pure. Source: Xen arch/x86/x86_64/mmconfig-shared.c (is_mmconf_reserved, pci_mmcfg_reject_broken), mm.c
        (is_memory_hole), hvm/dom0_build.c (pvh_setup_mmcfg), hvm/io.c (register_vpci_mmcfg_handler); linux
        arch/x86/pci/mmconfig-shared.c (is_mmconf_reserved), drivers/xen/pci.c (xen_mcfg_late).
"""

import enum
import re
from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.acpi.mcfg import regions_from_mcfg
from pcipt.firmware.memory_map import MemoryEntry, MemoryType, flatten_map, overlapping
from pcipt.pci import Address, Finding, Range, Sbdf
from pcipt.pci.write import BUS_SHIFT, EcamRegion
from pcipt.xen.releases import MMCFG_IN_HOLE, SEGMENTS_READ_FOR_IOMMU, Version

SMALLEST = 16 << 20  # bytes: Xen and Linux halve no further
YEAR_OF_HOLES = 2016  # with older firmware (DMI: the date of the BIOS) no Xen uses an area in a hole
_LINUX = r"(?i)PCI (?:MMCONFIG|ECAM) ([0-9a-f]{4,}) \[bus ([0-9a-f]{2})-([0-9a-f]{2})\]"


class Basis(enum.Enum):
    """What the memory map says of an area.

    RESERVED: it reserves all that is left of it. HOLE: it says nothing about it. REFUSED: it says something
    else of a part. UNKNOWN: there is no memory map.
    """

    RESERVED = "reserved"
    HOLE = "hole"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@attrs.frozen
class Mmcfg:
    """One entry of MCFG: `claimed` as in the table, `taken` as far as Xen and Linux take it."""

    claimed: EcamRegion
    taken: EcamRegion
    basis: Basis

    @property
    def range(self) -> Range:
        """The addresses of `taken`."""
        return _range(self.taken)


def mmcfg_of(claims: Iterable[EcamRegion], memory: Iterable[MemoryEntry] | None) -> tuple[Mmcfg, ...]:
    """Return the areas of MMCFG, in the order of the entries `claims` of MCFG.

    `memory` are E820 ranges in any order. None or none of them means that the map is not known: then nothing
    is halved.
    """
    flat = flatten_map(memory or ())
    found = []
    for claim in claims:
        taken = _halved(claim, flat) if flat else claim
        if taken is not None:
            found.append(Mmcfg(claim, taken, Basis.RESERVED if flat else Basis.UNKNOWN))
        else:
            hole = not overlapping(flat, _range(claim))
            found.append(Mmcfg(claim, claim, Basis.HOLE if hole else Basis.REFUSED))
    return tuple(found)


def taken_of_tables(tables: Iterable[bytes], memory: Iterable[MemoryEntry] | None) -> tuple[EcamRegion, ...]:
    """Return the areas that are taken of the MCFG tables among `tables`; other tables are passed over."""
    claims = (claim for data in tables for claim in regions_from_mcfg(data))
    return tuple(each.taken for each in mmcfg_of(claims, memory))


def is_used(area: Mmcfg, version: Version | None) -> bool:
    """Return True if a version of Xen is known to use an area by itself, before Linux tells anything.

    The firmware is taken to be of `YEAR_OF_HOLES` or newer.
    """
    in_hole = version is not None and MMCFG_IN_HOLE.known_of(version) is True
    return area.basis is Basis.RESERVED or (area.basis is Basis.HOLE and in_hole)


def is_read_early(sbdf: Sbdf, areas: Iterable[Mmcfg] | None, version: Version | None) -> bool | None:
    """Return True if a version of Xen can read the registers of a function while it reads the IOMMU tables.

    In segments above 0 only MMCFG reaches them; without it they read as ones. `areas` None: MCFG is not
    known. Return None if the answer depends on what is not known.
    Source: Xen arch/x86/x86_64/pci.c (pci_conf_read8), mmconfig_64.c (pci_mmcfg_read).
    """
    if not sbdf.segment:
        return True
    early = SEGMENTS_READ_FOR_IOMMU.known_of(version) if version is not None else None
    if early is False:
        return False
    if areas is None:
        return None
    held = [
        each
        for each in areas
        if each.taken.segment == sbdf.segment and each.taken.start_bus <= sbdf.bus <= each.taken.end_bus
    ]
    if any(is_used(each, version) for each in held):
        return early
    doubtful = any(each.basis is Basis.UNKNOWN or _in_some_hole(each, version) for each in held)
    return None if doubtful else False


def is_known_early(segment: int, areas: Iterable[Mmcfg] | None, version: Version | None) -> bool | None:
    """Return True if a version of Xen knows a segment while it reads the IOMMU tables.

    It knows segment 0, and those of MCFG if it has read MCFG before, whether or not it uses the areas. Of a
    segment that it knows it looks whether functions answer. `areas` None: MCFG is not known. Return None if
    the answer depends on what is not known.
    Source: Xen arch/x86/x86_64/acpi_mmcfg.c (acpi_parse_mcfg), drivers/passthrough/pci.c (pci_known_segment).
    """
    if not segment:
        return True
    early = SEGMENTS_READ_FOR_IOMMU.known_of(version) if version is not None else None
    if early is False:
        return False
    if areas is None:
        return None
    return early if any(each.claimed.segment == segment for each in areas) else False


def is_found_early(
    segment: int, functions: Iterable[Sbdf], areas: Sequence[Mmcfg] | None, version: Version | None
) -> bool:
    """Return True if a version of Xen finds one of the functions while it reads the IOMMU tables, or does not
    look.

    `functions` are those of a segment that are there. Xen does not look in a segment that it does not know
    yet. If it is not known whether it looks, or whether it can read a function, it is taken to find it.
    """
    if not is_known_early(segment, areas, version):
        return True
    return any(is_read_early(sbdf, areas, version) is not False for sbdf in functions)


def _in_some_hole(area: Mmcfg, version: Version | None) -> bool:
    """Return True if it is not known whether Xen uses an area, which lies in a hole of the memory map."""
    known = MMCFG_IN_HOLE.known_of(version) if version is not None else None
    return area.basis is Basis.HOLE and known is None


def without_ram(area: Range, memory: Sequence[MemoryEntry]) -> Iterator[Range]:
    """Yield the parts of an area where the flat map `memory` has no RAM, in ascending order."""
    at = int(area.start)
    for entry in overlapping(memory, area):
        if entry.type is MemoryType.RAM:
            if entry.range.start > at:
                yield Range(Address(at), int(entry.range.start) - at)
            at = max(at, int(entry.range.last) + 1)
    if at <= area.last:
        yield Range(Address(at), int(area.last) + 1 - at)


def findings_of(areas: Sequence[Mmcfg], named: Iterable[str] = ()) -> Iterator[Finding]:
    """Yield what is odd about the areas. `named` are names in /proc/iomem, among them the areas of Linux.

    mmcfg-cut: less is taken than the table claims. mmcfg-not-reserved: the map does not reserve it.
    mmcfg-overlap: an area lies over one before it. mmcfg-differs: Linux uses more buses than Xen.
    """
    used = [match for name in named if (match := re.fullmatch(_LINUX, name)) is not None]
    for number, each in enumerate(areas):
        what = _of_map(each)
        if what is not None:
            yield what
        before = next((other for other in areas[:number] if other.range.overlaps(each.range)), None)
        if before is not None and before.taken != each.taken:
            why = "a PVH dom0 reaches the first through it"
            yield Finding("mmcfg-overlap", f"{_title(each.taken)} lies over {_title(before.taken)}: {why}")
        for match in used:
            segment, first, last = (int(match[part], 16) for part in (1, 2, 3))
            same = (segment, first) == (each.taken.segment, each.taken.start_bus)
            if same and last > each.taken.end_bus:
                why = f"Xen has {_buses(each.taken)}, and a PVH dom0 reads all ones on the other buses"
                linux = f"Linux uses buses {first:02x}-{last:02x} of segment {segment:04x}"
                yield Finding("mmcfg-differs", f"{linux}, which ACPI's motherboard resources reserve; {why}")


def _of_map(area: Mmcfg) -> Finding | None:
    """Return what is odd about an area by the memory map; None if nothing is."""
    title = _title(area.claimed)
    if area.taken != area.claimed:
        why = "functions on other buses have no extended configuration space"
        return Finding(
            "mmcfg-cut",
            f"{title}: the memory map reserves less, so Xen and Linux use only {_buses(area.taken)}: {why}",
        )
    told = "after Linux has told Xen that ACPI reserves the area"
    if area.basis is Basis.HOLE:
        when = (
            f"Xen from {MMCFG_IN_HOLE.begins} on uses the area all the same if the firmware is of "
            f"{YEAR_OF_HOLES} or newer; else, and an older Xen, only {told}"
        )
        return Finding("mmcfg-not-reserved", f"{title} is not in the memory map: {when}")
    if area.basis is Basis.REFUSED:
        return Finding(
            "mmcfg-not-reserved", f"{title} is not reserved by the memory map: Xen uses the area only {told}"
        )
    return None


def _halved(claim: EcamRegion, flat: Sequence[MemoryEntry]) -> EcamRegion | None:
    """Return the largest part from the first bus on that the map reserves; None if that is too small.

    An area that is reserved as a whole may be smaller than `SMALLEST`.
    """
    size = whole = claim.end - claim.first
    while not _reserved(flat, claim.first, size):
        size >>= 1
        if size < SMALLEST:
            return None
    if size == whole:
        return claim
    return attrs.evolve(claim, end_bus=claim.start_bus + (size >> BUS_SHIFT) - 1)


def _reserved(flat: Sequence[MemoryEntry], start: int, size: int) -> bool:
    """Return True if the map reserves all of these bytes; adjacent entries of one type are one in it."""
    span = Range(Address(start), size)
    return any(
        entry.type is MemoryType.RESERVED and entry.range.start <= start and entry.range.last >= span.last
        for entry in overlapping(flat, span)
    )


def _range(region: EcamRegion) -> Range:
    return Range(Address(region.first), region.end - region.first)


def _buses(region: EcamRegion) -> str:
    return f"buses {region.start_bus:02x}-{region.end_bus:02x}"


def _title(region: EcamRegion) -> str:
    return f"MMCFG segment {region.segment:04x} {_buses(region)} at {region.first:#x}"
