"""Words of verdicts for people: a reason with its cure, and what the host can do."""

from pcipt.cli.text.terminal import GREEN, RED, YELLOW, folded, next_lines, painted, prose_columns
from pcipt.errors import printable
from pcipt.firmware.passthrough.host import Host, Source
from pcipt.firmware.passthrough.reasons import Reason, Verdict

SHADES = {Verdict.OK: GREEN, Verdict.WARN: YELLOW, Verdict.UNKNOWN: YELLOW, Verdict.REFUSE: RED}
HANG = 10
_TOLD_BY = {
    Source.XEN: "as Xen says",
    Source.DOM0: "a PVH dom0 does not boot without it",
    Source.TABLES: "by the firmware's tables; Xen was not asked",
}
_REMAPS: dict[bool | None, str] = {
    True: "interrupts are remapped",
    False: "interrupts are not remapped",
    None: "interrupt remapping not known",
}


def verdict_word(verdict: Verdict, *, colour: bool) -> str:
    """Return the word of a verdict, as wide as the longest."""
    return painted(f"{verdict.value:7}", SHADES[verdict] if colour else None)


def reason_lines(reason: Reason, *, colour: bool) -> list[str]:
    """Return the lines about a reason: code, text and place, the cure, the line for the vendor."""
    shade = SHADES[reason.verdict] if colour and reason.verdict is not Verdict.OK else None
    at = f" ({reason.place})" if reason.place and reason.place not in reason.text else ""
    first, *more = folded(f"        {reason.code}: {printable(reason.text + at)}", prose_columns(), HANG)
    lines = [first.replace(reason.code, painted(reason.code, shade), 1), *more]
    if reason.cure:
        lines += folded(f"          -> {printable(reason.cure)}", prose_columns(), HANG + 3)
    if reason.vendor:
        lines += folded(f"          -> for the vendor: {printable(reason.vendor)}", prose_columns(), HANG + 3)
    return lines


def system_text(host: Host) -> str:
    """Return a line about dom0, Xen and Linux; what is not known is left out."""
    parts = [
        f"dom0 {host.dom0.value.upper()}" if host.dom0 is not None else "kind of dom0 not known",
        f"Xen {host.xen}" if host.xen is not None else "Xen not known",
        *([f"Linux {host.linux}"] if host.linux is not None else []),
    ]
    return ", ".join(parts)


def iommu_text(host: Host) -> str:
    """Return a line about the IOMMU: used or not, who tells, and whether interrupts are remapped."""
    kind = host.kind.value if host.kind is not None else "IOMMU"
    if host.used is None:
        return f"{kind}: not known whether Xen uses it"
    if not host.used:
        told = f" ({_TOLD_BY[host.source]})" if host.source in _TOLD_BY else ""
        return f"{kind}: not used{told}"
    return f"{kind}: used ({_TOLD_BY[host.source]}), {_REMAPS[host.remaps]}"


def guests_text(host: Host) -> str:
    """Return a line about the kinds of guest that can be given devices."""
    words = [f"{guest.value} {_GUEST_WORDS[verdict]}" for guest, verdict in host.guests.items()]
    return f"devices for guests: {', '.join(words)}"


_GUEST_WORDS = {Verdict.OK: "yes", Verdict.WARN: "yes", Verdict.UNKNOWN: "not known", Verdict.REFUSE: "no"}


def host_lines(host: Host, *, colour: bool) -> list[str]:
    """Return the lines about what the host can do: verdict, facts, reasons, findings, what is not known."""
    lines = [f"Host: {painted(host.verdict.value, SHADES[host.verdict] if colour else None)}"]
    for text in (system_text(host), iommu_text(host), guests_text(host)):
        lines += folded(f"    {printable(text)}", prose_columns(), 6)
    for reason in host.reasons:
        lines += reason_lines(reason, colour=colour)
    for finding in host.findings:
        lines += folded(f"    Finding: {finding.code}: {printable(finding.text)}", prose_columns(), 8)
        lines += next_lines(finding.to_json(), HANG, prose_columns())
    if host.unknown:
        words = ", ".join(each.what for each in host.unknown)
        lines += folded(f"    Not known here: {printable(words)}.", prose_columns(), 6)
    return lines
