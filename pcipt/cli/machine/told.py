"""What the daemon tells of Xen for passthrough checks: owners, disagreements, reserved regions."""

from pcipt import values as attrs
from pcipt.cli.machine.client import asked
from pcipt.firmware.passthrough.verdict import CutSegment, Evidence
from pcipt.firmware.regions.regions import (
    Mapped,
    Region,
    RegionDevice,
    RegionKind,
    Regions,
    RegionScope,
)
from pcipt.hints import Any
from pcipt.pci import Address, Finding, Sbdf, parse_sbdf

XEN_CODES = ("unknown-to-xen", "orphan")


def with_daemon(evidence: Evidence, socket: str, status: dict[str, Any] | None) -> Evidence:
    """Return the evidence with the facts about Xen that the daemon at `socket` knows.

    `status` is its reply to `Status`, None if it did not answer. A fact stays as it is if the daemon does
    not run, or if it refuses the request for that fact. If the daemon tells the reserved regions, they
    replace those of the ACPI tables.
    """
    if status is not None:
        made = status.get("cut_segments", [])
        cut = {parse_sbdf(each["sbdf"]): CutSegment(each["text"], each["panics"]) for each in made}
        told = {(each["sbdf"], each["text"]) for each in made}
        disagreed = (each for each in status["findings"] if each["code"] in XEN_CODES and each["sbdf"])
        others = (each for each in disagreed if (each["sbdf"], each["text"]) not in told)
        xen = {parse_sbdf(each["sbdf"]): each["code"] for each in others}
        owners = {parse_sbdf(each["sbdf"]): each["owner"] for each in status.get("given_away", [])}
        unsized = frozenset(
            parse_sbdf(each["sbdf"]) for each in status["findings"] if each["code"] == "vfs-unsized"
        )
        evidence = attrs.evolve(evidence, xen=xen, owners=owners, cut_segments=cut, unsized=unsized)
    held = asked(socket, "Guests")  # only root may ask this
    if held is not None:
        found: dict[Sbdf, tuple[Finding, ...]] = {}
        for each in held["findings"]:
            sbdf = parse_sbdf(each["sbdf"])
            found[sbdf] = (*found.get(sbdf, ()), _finding(each))
        evidence = attrs.evolve(evidence, guests=found)
    answer = asked(socket, "Rmrr")
    if answer is None:
        return evidence
    regions = regions_from_json(answer)
    owners = {device.sbdf: device.owner for region in regions.regions for device in region.devices}
    return attrs.evolve(evidence, regions=regions, owners={**owners, **evidence.owners})


def regions_from_json(answer: dict[str, Any]) -> Regions:
    """Return the reserved regions in the daemon's reply to `Rmrr`, which firmware/regions/view.py encodes.

    Raises: KeyError, ValueError or AddressError if `answer` is not such a reply.
    """
    return Regions(tuple(map(_region, answer["regions"])), tuple(map(_finding, answer["findings"])))


def _region(item: dict[str, Any]) -> Region:
    """Return one reserved region of the reply to `Rmrr`."""
    return Region(
        RegionKind(item["kind"]),
        item["segment"],
        Address(int(item["base"], 16)),
        Address(int(item["limit"], 16)),
        tuple(
            RegionScope(
                each["type"],
                each["bus"],
                tuple((device, function) for device, function in each["path"]),
                _address(each["sbdf"]),
                _address(each.get("last")),
            )
            for each in item["scopes"]
        ),
        tuple(
            RegionDevice(parse_sbdf(each["sbdf"]), each["present"], each["owner"]) for each in item["devices"]
        ),
        Mapped(item["mapped"]),
        item["listed"],
        tuple(map(_finding, item["findings"])),
    )


def _finding(item: dict[str, Any]) -> Finding:
    return Finding(item["code"], item["text"])


def _address(text: str | None) -> Sbdf | None:
    return None if text is None else parse_sbdf(text)
