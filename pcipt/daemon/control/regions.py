"""The reply to `Rmrr`: reserved regions from ACPI and Xen, with the owner of each device and what is mapped.

Only a user's request leads here, so Xen is asked again each time: for every function, if Xen lists any
region. On a PVH dom0 Xen's list is the only source, because ACPI's tables are not visible.
"""

from collections.abc import Mapping, Sequence

import attrs

from pcipt.engine.engine import Engine
from pcipt.engine.interfaces import Host
from pcipt.engine.views.coverage import with_absence
from pcipt.engine.views.regions import kept_of
from pcipt.engine.views.views import Views
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.coverage import IommuScope
from pcipt.firmware.memory_map import MemoryEntry, entries_from_names, flatten_map, overlapping
from pcipt.firmware.passthrough.host import xen_says
from pcipt.firmware.regions.findings import with_findings, with_fixup
from pcipt.firmware.regions.regions import Mapped, Region, Regions
from pcipt.firmware.regions.state import XenRegions, with_owners, with_xen
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.firmware.regions.view import regions_to_json
from pcipt.pci import Finding, Frames, Machine, Sbdf
from pcipt.remap.plan_reserved import Kept
from pcipt.remap.view import XenView
from pcipt.xen.boot_words import BootWords
from pcipt.xen.interface import Dom0Kind, Hypervisor

_KEPT = {
    Kept.RESTORED: Mapped.BY_PCIPT,
    Kept.WITHDRAWN: Mapped.WITHDRAWN,
    Kept.DOUBTFUL: Mapped.UNKNOWN,
}


def read_regions(host: Host, xen: Hypervisor, engine: Engine) -> Regions:
    """Return the reserved regions that ACPI and Xen list, with the owners of their devices and their mapped
    state.

    If Xen does not answer, the regions are those of ACPI, and the result has a finding "regions-not-asked".
    If Xen runs without an IOMMU, the findings say what in the tables is the reason, if it is there.
    On a PV dom0 the mapped state is NOT_APPLICABLE. Xen is asked again at each call.
    """
    machine, view = engine.machine, engine.view
    regions = regions_from_tables(
        host.acpi_tables(), machine, engine.memory.boot, _options(xen), _memory(host), xen.identity.version
    )
    listed = _listed(xen, machine)
    if isinstance(listed, XenRegions):
        regions = with_xen(regions, listed, machine)
    else:
        regions = attrs.evolve(regions, findings=(*regions.findings, listed))
    memory = _memory(host)
    boot = engine.memory.boot
    pvh = xen.identity.dom0 is Dom0Kind.PVH
    if boot is not None and with_absence(IommuScope(boot), view, pvh=pvh).absent:
        judged = judge(host.acpi_tables(), memory, xen.identity.version, boot, _options(xen), machine)
        why = tuple(said.finding for said in judged.said)
        regions = attrs.evolve(regions, findings=(*regions.findings, *why))
    regions = with_findings(regions, memory, xen.identity.version)
    fixup = engine.views.pf_fixup
    if fixup.on:
        pages = None if fixup.reserved else memory
        regions = with_fixup(regions, lambda frames: _comes_back(frames, pages), certain=fixup.certain)
    if xen.identity.dom0 is Dom0Kind.PV:
        return with_owners(regions, _owners(view), Mapped.NOT_APPLICABLE)
    return with_owners(regions, _owners(view), _mapped(regions, engine.views))


def regions_answer(host: Host, xen: Hypervisor, engine: Engine) -> dict[str, object]:
    """Return the reply to `Rmrr`, which is also the object of `pcipt rmrr --json`.

    "source" names the ACPI tables that were found, and "hypercall" if Xen answered; "none" if there is
    neither.
    """
    regions = read_regions(host, xen, engine)
    asked = all(finding.code != "regions-not-asked" for finding in regions.findings)
    source = ", ".join((*regions.signatures, *(("hypercall",) if asked else ()))) or "none"
    return {"version": 1, **regions_to_json(regions, source)}


def _listed(xen: Hypervisor, machine: Machine) -> XenRegions | Finding:
    """Return the regions that Xen lists: all of them, and those of each function.

    If Xen lists none, no function is asked about. Return a finding if Xen does not answer.
    """
    try:
        listed = xen.reserved_regions()
        functions = [sbdf for sbdf in machine.functions if sbdf.fits_xen] if listed else []
        return XenRegions(listed, {sbdf: xen.reserved_regions(sbdf) for sbdf in functions})
    except (HypervisorError, UnsupportedError) as error:
        return Finding(
            "regions-not-asked", f"{error}: it is not known which regions Xen has, and for which functions"
        )


def _options(xen: Hypervisor) -> Options:
    """Return those of Xen's boot options that change what it makes of the tables."""
    try:
        return xen_says(None, BootWords().by(xen.command_line()), None).options
    except (HypervisorError, UnsupportedError):
        return Options()


def _memory(host: Host) -> tuple[MemoryEntry, ...] | None:
    """Return the firmware's memory map, sorted by address and without overlaps.

    Return None if the map is empty or cannot be read.
    """
    try:
        memory = host.memory()
    except PciptError:
        return None  # the engine has a finding about it
    return flatten_map(entries_from_names((line.range, line.name) for line in memory.firmware)) or None


def _comes_back(frames: Frames, memory: Sequence[MemoryEntry] | None) -> bool:
    """Return True if Xen maps some of these pages again when dom0 accesses them.

    `memory` has the entries of the firmware's memory map at which this Xen maps nothing again. None means
    that Xen maps any page, or that the map is not known.
    """
    return memory is None or not overlapping(memory, frames.range)


def _owners(view: XenView) -> Mapping[Sbdf, str]:
    """Return the owner, in words, of each function that Xen lists.

    If Xen could not be asked who owns the functions, only orphans, quarantined functions and functions of
    guests or Xen are in the result. Functions of dom0 are then left out.
    """
    told = view.known if view.custody_told else {*view.orphans, *view.elsewhere, *view.quarantined}
    return {sbdf: view.owner(sbdf) for sbdf in told}


def _mapped(regions: Regions, views: Views) -> dict[Frames, Mapped]:
    """Return for each region whether it is mapped in dom0, and by whom.

    A region of impossible limits is left out.
    """
    spans = ((region, region.frames) for region in regions.regions)
    return {frames: _state(region, frames, views) for region, frames in spans if frames is not None}


def _state(region: Region, frames: Frames, views: Views) -> Mapped:
    """Return whether a region is mapped in dom0, and by whom.

    The ledger says it if pcipt has changed the region; otherwise `_by_xen` derives it from Xen's lists.
    """
    kept = kept_of(views, frames)
    if kept in _KEPT:
        return _KEPT[kept]
    by_xen = _by_xen(region, views.view)
    return Mapped.UNKNOWN if kept is Kept.LOST and by_xen is Mapped.BY_XEN else by_xen


def _by_xen(region: Region, view: XenView) -> Mapped:
    """Return whether Xen has mapped a region that pcipt has not changed: BY_XEN, NO or UNKNOWN.

    UNKNOWN: Xen could not be asked, or it lists the region and knows none of the region's devices. NO: Xen
    does not list the region. BY_XEN: Xen lists the region and knows one of its devices, whoever owns that
    device; Xen then keeps the region mapped. Cause of UNKNOWN without a known device: if the last device was
    plugged in after boot, Xen forgets to unmap the region when that device is removed.

    Source: xen/drivers/passthrough/vtd/iommu.c, intel_iommu_add_device, intel_iommu_remove_device.
    """
    if region.listed is None:
        return Mapped.UNKNOWN
    if not region.listed:
        return Mapped.NO
    return Mapped.BY_XEN if any(each.sbdf in view.known for each in region.devices) else Mapped.UNKNOWN
