"""Convert reserved regions to the JSON object that `pcipt rmrr --json` prints.

The daemon answers with the same object. Keys may be added, but never renamed.
"""

from pcipt.firmware.regions.regions import Region, RegionDevice, Regions, RegionScope

Json = dict[str, object]


def regions_to_json(regions: Regions, source: str) -> Json:
    """Return the JSON object for all regions.

    `source` names the tables; it is `hypercall` if Xen was asked.
    """
    return {
        "source": source,
        "regions": [_region(region) for region in regions.regions],
        "findings": [finding.to_json() for finding in regions.findings],
    }


def _region(region: Region) -> Json:
    """Return the JSON object of one region. `pages` is 0 if the region is empty."""
    frames = region.frames
    return {
        "kind": region.kind.value,
        "segment": region.segment,
        "base": f"{region.base:#x}",
        "limit": f"{region.limit:#x}",
        "pages": frames.count if frames is not None else 0,
        "scopes": [_scope(scope) for scope in region.scopes],
        "devices": [_device(device) for device in region.devices],
        "shared": region.shared,
        "mapped": region.mapped.value,
        "listed": region.listed,
        "findings": [finding.to_json() for finding in region.findings],
    }


def _scope(scope: RegionScope) -> Json:
    """Return the JSON object of one device scope."""
    found: Json = {
        "type": scope.kind,
        "bus": scope.bus,
        "path": [list(hop) for hop in scope.path],
        "sbdf": str(scope.sbdf) if scope.sbdf is not None else None,
    }
    return found if scope.last is None else {**found, "last": str(scope.last)}


def _device(device: RegionDevice) -> Json:
    """Return the JSON object of one device."""
    return {"sbdf": str(device.sbdf), "present": device.present, "owner": device.owner}
