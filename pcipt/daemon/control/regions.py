"""The reply to `Rmrr`: reserved regions from ACPI and Xen, with the owner of each device and what is mapped.

Only a user's request leads here, so Xen is asked again each time: for every function, if Xen lists any
region. On a PVH dom0 Xen's list is the only source, because ACPI's tables are not visible.
"""

from collections.abc import Mapping

import attrs

from pcipt.engine.engine import Engine
from pcipt.engine.interfaces import Host
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.firmware.memory_map import MemoryEntry, entries_from_names, flatten_map
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import Mapped, Region, Regions, regions_from_tables
from pcipt.firmware.regions.state import XenRegions, with_owners, with_xen
from pcipt.firmware.regions.view import regions_to_json
from pcipt.pci import Finding, Frames, Machine, Sbdf
from pcipt.remap.ledger import Ledger
from pcipt.remap.plan_reserved import Kept, kept_in
from pcipt.remap.view import XenView
from pcipt.xen.interface import Dom0Kind, Hypervisor

_KEPT = {
    Kept.RESTORED: Mapped.BY_PCIPT,
    Kept.WITHDRAWN: Mapped.WITHDRAWN,
    Kept.DOUBTFUL: Mapped.UNKNOWN,
}


def read_regions(host: Host, xen: Hypervisor, engine: Engine) -> Regions:
    """Read the reserved regions from ACPI and Xen, with owners and mapped state.

    A source that cannot be read becomes a finding of the result.
    """
    machine, view = engine.machine, engine.view
    regions = regions_from_tables(host.acpi_tables(), machine, engine.memory.boot)
    listed = _listed(xen, machine)
    if isinstance(listed, XenRegions):
        regions = with_xen(regions, listed, machine)
    else:
        regions = attrs.evolve(regions, findings=(*regions.findings, listed))
    regions = with_findings(regions, _memory(host))
    if xen.identity.dom0 is Dom0Kind.PV:
        return with_owners(regions, _owners(view), Mapped.NOT_APPLICABLE)
    return with_owners(regions, _owners(view), _mapped(regions, view, engine.ledger))


def regions_answer(host: Host, xen: Hypervisor, engine: Engine) -> dict[str, object]:
    """Return the object of `pcipt rmrr --json`."""
    regions = read_regions(host, xen, engine)
    asked = all(finding.code != "regions-not-asked" for finding in regions.findings)
    source = ", ".join((*regions.signatures, *(("hypercall",) if asked else ()))) or "none"
    return {"version": 1, **regions_to_json(regions, source)}


def _listed(xen: Hypervisor, machine: Machine) -> XenRegions | Finding:
    """Ask Xen for its regions, of all functions and of each; return a finding if it does not answer."""
    try:
        listed = xen.reserved_regions()
        functions = [sbdf for sbdf in machine.functions if sbdf.fits_xen] if listed else []
        return XenRegions(listed, {sbdf: xen.reserved_regions(sbdf) for sbdf in functions})
    except (HypervisorError, UnsupportedError) as error:
        return Finding("regions-not-asked", f"{error}: which regions Xen knows, and for whom, is unknown")


def _memory(host: Host) -> tuple[MemoryEntry, ...] | None:
    """Return the firmware's memory map, sorted and without overlaps; None if it is empty or unreadable."""
    try:
        memory = host.memory()
    except PciptError:
        return None  # the engine has a finding about it
    return flatten_map(entries_from_names((line.range, line.name) for line in memory.firmware)) or None


def _owners(view: XenView) -> Mapping[Sbdf, str]:
    """Return the owner of each function that Xen knows, in words; leave out functions of unknown owner."""
    told = view.known if view.custody_told else {*view.orphans, *view.elsewhere, *view.quarantined}
    return {sbdf: view.owner(sbdf) for sbdf in told}


def _mapped(regions: Regions, view: XenView, ledger: Ledger) -> dict[Frames, Mapped]:
    """Return for each region whether it is mapped in dom0, and by whom."""
    spans = ((region, region.frames) for region in regions.regions)
    return {frames: _state(region, frames, view, ledger) for region, frames in spans if frames is not None}


def _state(region: Region, frames: Frames, view: XenView, ledger: Ledger) -> Mapped:
    kept = kept_in(ledger, frames)
    return _by_xen(region, view) if kept is Kept.BY_XEN else _KEPT[kept]


def _by_xen(region: Region, view: XenView) -> Mapped:
    """Return whether Xen has mapped a region, from Xen's list. pcipt must not have changed the region.

    Xen maps a region that it lists as long as it knows one of the region's devices, whoever owns that device.
    If the last device was plugged in after boot, Xen forgets to unmap the region when that device is removed:
    the result is then UNKNOWN.

    Source: xen/drivers/passthrough/vtd/iommu.c, intel_iommu_add_device, intel_iommu_remove_device.
    """
    if region.listed is None:
        return Mapped.UNKNOWN
    if not region.listed:
        return Mapped.NO
    return Mapped.BY_XEN if any(each.sbdf in view.known for each in region.devices) else Mapped.UNKNOWN
