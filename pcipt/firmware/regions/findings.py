"""Find what is odd about reserved regions.

Each rule finds one oddity; it returns the finding's text or None. Odd regions are reported, never corrected,
because Xen acts by the table as it is.
Source: xen/drivers/passthrough/vtd/dmar.c, register_one_rmrr, acpi_parse_one_rmrr; xl.cfg(5), rdm_policy.
"""

from collections.abc import Callable, Iterable, Sequence

from pcipt import values as attrs
from pcipt.firmware.memory_map import MemoryEntry, MemoryType, overlapping
from pcipt.firmware.regions.regions import DROPPED, Region, RegionKind, Regions
from pcipt.pci import Finding, Frames
from pcipt.pci.units import PAGE_SIZE
from pcipt.xen.releases import RMRR_OVER_RAM_ENDS_VTD, Version

LARGE = 64 << 20
_SHOWN = 4

Rule = Callable[[Region], str | None]


def _empty(region: Region) -> str | None:
    """Return the finding's text if the region's limit is below its base, or if Xen takes no page for it."""
    if region.range is not None and region.frames is None:
        return (
            "its limit is the first byte of the page of its base, so the region has no page for Xen; ask "
            "the vendor for firmware"
        )
    if region.range is not None:
        return None
    return "its limit lies below its base: it covers nothing; ask the vendor for firmware"


def _base_zero(region: Region) -> str | None:
    """Return the finding's text if the region begins at address 0 and is not empty; else None."""
    if region.base or region.range is None:
        return None
    return (
        "it begins at address 0: either the firmware left the base out, or it means the first page; pcipt "
        "uses the region as the table says"
    )


def _unaligned(region: Region) -> str | None:
    """Return the finding's text if the region does not begin or does not end at a page boundary.

    None is returned if it does both, and if the region is empty.
    """
    if region.range is None or not (region.base % PAGE_SIZE or (region.limit + 1) % PAGE_SIZE):
        return None
    return f"it does not begin and end at page boundaries: Xen maps whole pages, {region.frames}"


def _large(region: Region) -> str | None:
    """Return the finding's text if the region has more than 64 MiB (LARGE); else None."""
    if region.range is None or region.range.size <= LARGE:
        return None
    return f"it has {region.range.size >> 20} MiB: more than 64 MiB are unusual (graphics memory?)"


def _no_scope(region: Region) -> str | None:
    """Return the finding's text if firmware names no function for the region (see `Region.named`); else None.

    None is returned too if Xen lists the region.
    """
    return None if region.named or region.listed else "it names no device: Xen drops it"


def _shared(region: Region) -> str | None:
    """Return the finding's text if the region is shared (see `Region.shared`); else None."""
    if not region.shared:
        return None
    names = [str(device.sbdf) for device in region.devices]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    text = f"it is shared by {region.named} functions" + (f" ({shown})" if names else "")
    return f"{text}: it leaves dom0 when the last of them leaves" + (
        ", and xl's rdm_policy=strict refuses each; use rdm_policy=relaxed" if region.needs_relaxed else ""
    )


def _dropped(region: Region) -> str | None:
    """Return the finding's text if Xen does not keep the region (`Region.dropped`); else None.

    If Xen was asked, what Xen lists decides: a region for which firmware names a function is then dropped if
    it is not listed. VT-d drops a region none of whose devices answers at boot; AMD's driver does not.
    """
    if region.listed or region.frames is None:
        return None
    if region.listed is None or not region.named:
        return region.dropped or None
    if region.kind is not RegionKind.RMRR:
        return "Xen does not list it, so no function has this region"
    return "Xen does not list it: Xen dropped the region at boot, because none of its devices answered"


# Code and rule. Codes that only describe a machine as it was built are also in pci.finding.NOTES.
RULES: tuple[tuple[str, Rule], ...] = (
    ("region-empty", _empty),
    ("region-base-zero", _base_zero),
    ("region-unaligned", _unaligned),
    ("region-large", _large),
    ("region-no-scope", _no_scope),
    ("region-shared", _shared),
    (DROPPED, _dropped),
)


def with_findings(
    regions: Regions, memory: Sequence[MemoryEntry] | None = None, version: Version | None = None
) -> Regions:
    """Return the regions; the findings of all rules are appended to the findings of each region.

    Call `with_xen` first: the rules use `listed`, which `with_xen` sets. A region that overlaps RAM gets a
    finding, and so does a region that overlaps another region. Overlaps with RAM are looked for only if
    `memory` is given; `memory` must come from `flatten_map`. `version` is Xen's version, None if it is not
    known.
    """
    overlaps = _overlaps(regions.regions)
    judged = []
    for number, region in enumerate(regions.regions):
        found = [Finding(code, why) for code, rule in RULES if (why := rule(region)) is not None]
        ram = _ram(region, memory) if memory is not None else None
        if ram is not None:
            why = f"it lies over RAM ({ram.range}){_over_ram(region, version)}"
            found.append(Finding("region-over-ram", f"{why}; ask the vendor for firmware"))
        if number in overlaps:
            other = regions.regions[overlaps[number]]
            found.append(Finding("region-overlaps", _overlap_text(region, other)))
        judged.append(attrs.evolve(region, findings=(*region.findings, *found)))
    return attrs.evolve(regions, regions=tuple(judged))


def _over_ram(region: Region, version: Version | None) -> str:
    """Return what a version of Xen that keeps a region over RAM does with it; empty if it keeps none.

    Which versions refuse the table for it: firmware/acceptance/.
    """
    by_vtd = region.kind in (RegionKind.RMRR, RegionKind.LISTED)
    if not by_vtd or (version is not None and RMRR_OVER_RAM_ENDS_VTD.known_of(version)):
        return ""
    return (
        f": Xen before {RMRR_OVER_RAM_ENDS_VTD.begins} may use this memory for other purposes, and the "
        "devices overwrite it"
    )


def with_fixup(regions: Regions, comes_back: Callable[[Frames], bool], *, certain: bool) -> Regions:
    """Return the regions; a region that Xen maps again after a withdrawal gets a finding.

    With Xen's option dom0=pf-fixup, Xen maps pages again when dom0 accesses them. `comes_back` returns True
    for the pages of a region for which Xen would do so. `certain` is False if nobody knows whether the
    option is on.
    """
    how = "is on" if certain else "may be on"
    why = f"after it was withdrawn, Xen maps it again when dom0 accesses it (dom0=pf-fixup {how})"
    finding = Finding("region-comes-back", f"{why}; boot Xen with dom0=no-pf-fixup to prevent this")
    told = [
        attrs.evolve(region, findings=(*region.findings, finding))
        if region.frames is not None and comes_back(region.frames)
        else region
        for region in regions.regions
    ]
    return attrs.evolve(regions, regions=tuple(told))


def _overlap_text(region: Region, other: Region) -> str:
    """Return the text of the finding that `region` overlaps `other`; the two must overlap."""
    why = f"it overlaps the region {other}"
    if region.frames == other.frames:
        why = f"{why}: pcipt treats both as one region, which leaves dom0 when the last device of both leaves"
    else:
        why = f"{why}: withdrawing one would take pages of the other, so such pages stay mapped"
    return why


def _ram(region: Region, memory: Sequence[MemoryEntry]) -> MemoryEntry | None:
    """Return the lowest entry of RAM that the region overlaps; None if there is none.

    None is returned too if the region is empty. `memory` must come from `flatten_map`.
    """
    if region.range is None:
        return None
    return next((e for e in overlapping(memory, region.range) if e.type is MemoryType.RAM), None)


def _overlaps(regions: Sequence[Region]) -> dict[int, int]:
    """Return, for each region that overlaps another region, the index of one region that it overlaps.

    Shape:  keys and values are indexes in `regions`. Two regions overlap here if both are RMRRs
            and share a byte (Xen does not take both: dmar.c, acpi_parse_one_rmrr). They overlap too if they
            share a page and do not have exactly the same pages. Regions with exactly the same pages are one
            region to pcipt otherwise.
    """
    found = _overlapping(
        (span.start, span.last + 1, number)
        for number, region in enumerate(regions)
        if region.kind is RegionKind.RMRR and (span := region.range) is not None
    )
    alike: dict[Frames, list[int]] = {}
    for number, region in enumerate(regions):
        if region.frames is not None:
            alike.setdefault(region.frames, []).append(number)
    members = list(alike.values())
    by_pages = _overlapping((frames.start, frames.end, group) for group, frames in enumerate(alike))
    for group, other in by_pages.items():
        for number in members[group]:
            found.setdefault(number, members[other][0])
    return found


def _overlapping(spans: Iterable[tuple[int, int, int]]) -> dict[int, int]:
    """Return, for each span that overlaps another span, the key of one span that it overlaps.

    `spans` are (start, exclusive end, key), in any order. A span that overlaps no other is not in the result.
    """
    found: dict[int, int] = {}
    reach: tuple[int, int, int] | None = None  # the span that ends last so far
    for span in sorted(spans):
        if reach is not None and span[0] < reach[1]:
            found.setdefault(span[2], reach[2])
            found.setdefault(reach[2], span[2])
        if reach is None or span[1] > reach[1]:
            reach = span
    return found
