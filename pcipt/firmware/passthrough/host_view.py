"""What a host can do as a JSON object, and back: `pcipt host --json`, and "host" of status and check."""

from pcipt.firmware.passthrough.host import BootOptions, Host, IommuKind, Source
from pcipt.firmware.passthrough.reasons import Guest, Reason, Unknown, Verdict
from pcipt.hints import Any
from pcipt.pci import Finding


def host_to_json(host: Host) -> dict[str, Any]:
    """Return what a host can do as a JSON object. A value that is not known is None."""
    return {
        "verdict": host.verdict.value,
        "dom0": host.dom0.value if host.dom0 is not None else None,
        "xen": host.xen,
        "linux": host.linux,
        "iommu": {
            "kind": host.kind.value if host.kind is not None else None,
            "used": host.used,
            "interrupt_remapping": host.remaps,
            "source": host.source.value,
        },
        "guests": {guest.value: verdict.value for guest, verdict in host.guests.items()},
        "reasons": [
            {**reason_to_json(each), "guests": [guest.value for guest in Guest if guest in each.guests]}
            for each in host.reasons
        ],
        "unknown": [{"what": each.what, "hides": each.hides.value} for each in host.unknown],
        "findings": [each.to_json() for each in host.findings],
        "boot_options": _boot_to_json(host.boot) if host.boot is not None else None,
    }


def _boot_to_json(boot: BootOptions) -> dict[str, Any]:
    phantoms = [
        f"{segment:04x}:{bus:02x}:{device:02x},{step}" for segment, bus, device, step in boot.phantoms
    ]
    return {"igfx": boot.igfx, "ats": boot.ats, "msi": boot.msi, "phantoms": phantoms}


def _boot(item: dict[str, Any]) -> BootOptions:
    return BootOptions(item["igfx"], item["ats"], item["msi"], tuple(map(_phantom, item["phantoms"])))


def _phantom(text: str) -> tuple[int, int, int, int]:
    slot, _, step = text.partition(",")
    segment, bus, device = (int(part, 16) for part in slot.split(":"))
    return segment, bus, device, int(step)


def reason_to_json(reason: Reason) -> dict[str, Any]:
    """Return a reason as a JSON object without its guests; what is not there is None."""
    return {
        "code": reason.code,
        "verdict": reason.verdict.value,
        "text": reason.text,
        "place": reason.place or None,
        "cure": reason.cure or None,
        "vendor": reason.vendor or None,
    }


def host_from_json(answer: dict[str, Any]) -> Host:
    """Return the host that `host_to_json` has encoded.

    Raises: KeyError, TypeError or ValueError if `answer` is not such an object.
    """
    iommu = answer["iommu"]
    return Host(
        Guest(answer["dom0"]) if answer["dom0"] is not None else None,
        answer["xen"],
        answer["linux"],
        IommuKind(iommu["kind"]) if iommu["kind"] is not None else None,
        iommu["used"],
        iommu["interrupt_remapping"],
        Source(iommu["source"]),
        tuple(map(_reason, answer["reasons"])),
        tuple(Unknown(each["what"], Verdict(each["hides"])) for each in answer["unknown"]),
        {Guest(guest): Verdict(verdict) for guest, verdict in answer["guests"].items()},
        tuple(Finding(each["code"], each["text"]) for each in answer["findings"]),
        _boot(answer["boot_options"]) if answer.get("boot_options") is not None else None,
    )


def _reason(item: dict[str, Any]) -> Reason:
    return Reason(
        item["code"],
        Verdict(item["verdict"]),
        item["text"],
        item["cure"] or "",
        frozenset(map(Guest, item["guests"])),
        item["place"] or "",
        item["vendor"] or "",
    )
