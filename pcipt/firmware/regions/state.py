"""Add to reserved regions the facts that Xen has: which regions it lists, and the owner of each device.

On a PVH dom0 Xen's list (XENMEM_reserved_device_memory_map) is the only source. It names functions by the
addresses that they had at boot. So if Xen lists a region for a function other than the one to which the path
in the table leads now, buses were renumbered since boot. Xen lists whole pages.
"""

from collections.abc import Iterable, Mapping, Sequence

from pcipt import values as attrs
from pcipt.firmware.acpi.ivrs import SIGNATURE as IVRS
from pcipt.firmware.regions.regions import (
    UNKNOWN_OWNER,
    Mapped,
    Region,
    RegionDevice,
    RegionKind,
    Regions,
    RegionScope,
)
from pcipt.pci import Finding, Frames, Machine, Sbdf


@attrs.frozen
class XenRegions:
    """The regions that Xen lists.

    `listed` has all of them. `of` has the regions of each function about which Xen was asked; an empty tuple
    if Xen lists none for it.
    """

    listed: tuple[Frames, ...]
    of: Mapping[Sbdf, tuple[Frames, ...]] = attrs.field(factory=dict)


def with_xen(regions: Regions, xen: XenRegions, machine: Machine | None) -> Regions:
    """Return the regions with `listed` set, followed by the regions that only Xen lists.

    A region is listed if it shares a page with one that Xen lists. An empty region keeps its `listed`. The
    regions that only Xen lists are those that share no page with a region of a table; they are sorted by
    address. An RMRR for which table and Xen name different functions gets a finding (`buses-renumbered`),
    unless it already has a finding with this code. Call `with_findings` afterwards, because its rules use
    `listed`.
    """
    holders: dict[Frames, list[Sbdf]] = {frames: [] for frames in xen.listed}
    for sbdf, spans in sorted(xen.of.items()):
        for frames in spans:
            holders.setdefault(frames, []).append(sbdf)
    joined = [_compared(region, holders, xen) for region in regions.regions]
    told = [region.frames for region in joined if region.frames is not None]
    for frames, sbdfs in sorted(holders.items()):
        if not any(frames.overlaps(each) for each in told):
            joined.append(_listed(_kind(regions), frames, sbdfs, machine))
    return attrs.evolve(regions, regions=tuple(joined))


def with_owners(
    regions: Regions, owners: Mapping[Sbdf, str], mapped: Mapping[Frames, Mapped] | Mapped
) -> Regions:
    """Return the regions with the owner of each device and with `mapped` set.

    `owners` are words for reports; a device that `owners` lacks gets the owner "unknown". `mapped` is one
    value for all regions, or a mapping from the pages of a region to its value. If it is a mapping, a region
    whose pages are not in the mapping keeps its own value, and an empty region gets NO.
    """
    joined = []
    for region in regions.regions:
        devices = tuple(
            attrs.evolve(each, owner=owners.get(each.sbdf, UNKNOWN_OWNER)) for each in region.devices
        )
        frames = region.frames
        if isinstance(mapped, Mapped):
            state = mapped
        else:
            state = mapped.get(frames, region.mapped) if frames is not None else Mapped.NO
        joined.append(attrs.evolve(region, devices=devices, mapped=state))
    return attrs.evolve(regions, regions=tuple(joined))


def _compared(region: Region, holders: Mapping[Frames, Sequence[Sbdf]], xen: XenRegions) -> Region:
    """Return the region with `listed` set, and a finding if Xen and the table name different functions.

    An empty region is returned unchanged. Functions are compared only for an RMRR. A function that only the
    table names counts only if Xen was asked about it, and not if Xen could not follow its path. A region that
    already has a finding with the code `buses-renumbered` gets no second one.
    """
    frames = region.frames
    if frames is None:
        return region
    if not any(each.overlaps(frames) for each in holders):
        return attrs.evolve(region, listed=False)
    if region.kind is not RegionKind.RMRR:
        # IVMD has routing ids and no paths, so renumbered buses do not matter. Xen also lists the region
        # for aliases of a routing id, e.g. a bridge above.
        return attrs.evolve(region, listed=True)
    by_xen = {sbdf for each, sbdfs in holders.items() if each.overlaps(frames) for sbdf in sbdfs}
    by_table = {device.sbdf for device in region.devices}
    lost = sorted(sbdf for sbdf in by_table - by_xen if sbdf in xen.of and sbdf not in region.misread)
    won = sorted(by_xen - by_table)
    region = attrs.evolve(region, listed=True)
    if not lost and not won:
        return region
    words = [f"Xen has it for {_names(won)}"] if won else []
    words += [f"the table leads to {_names(lost)}, for which Xen has no region"] if lost else []
    why = f"buses renumbered since boot: {'; '.join(words)}"
    codes = {finding.code for finding in region.findings}
    extra = (Finding("buses-renumbered", why),) if "buses-renumbered" not in codes else ()
    return attrs.evolve(region, findings=(*region.findings, *extra))


def _kind(regions: Regions) -> RegionKind:
    """Return the kind of a region that Xen lists and no table contains.

    UNITY if an IVRS table was read. RMRR if only DMAR tables were read. LISTED if no table was read. Such a
    region exists because Xen's command line adds it, or because dom0 cannot see the tables.
    """
    if IVRS in regions.signatures:
        return RegionKind.UNITY
    return RegionKind.RMRR if regions.signatures else RegionKind.LISTED


def _listed(kind: RegionKind, frames: Frames, sbdfs: Iterable[Sbdf], machine: Machine | None) -> Region:
    """Return the region of pages that only Xen lists; `sbdfs` become its scopes and its devices.

    Its segment is that of the first function; 0 if there is none. `present` of each device is None without a
    machine.
    """
    span = frames.range
    named = tuple(dict.fromkeys(sbdfs))
    scopes = tuple(RegionScope("endpoint", each.bus, ((each.device, each.function),), each) for each in named)
    functions = machine.functions if machine is not None else None
    devices = tuple(RegionDevice(each, None if functions is None else each in functions) for each in named)
    segment = named[0].segment if named else 0
    return Region(kind, segment, span.start, span.last, scopes, devices, listed=True)


def _names(sbdfs: Iterable[Sbdf]) -> str:
    """Return the addresses as text, separated by commas."""
    return ", ".join(map(str, sbdfs))
