"""Make the values of a picture from what is known of a machine. This module does no I/O."""

from collections.abc import Iterable, Mapping, Sequence

from pcipt.cli.machine.forest import Forest, buses_below, is_root
from pcipt.cli.machine.handover import DOM0, QUARANTINE
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.sets import numbered
from pcipt.cli.picture.values import Block, FunctionRow, Holder, Picture
from pcipt.cli.text.render import count_text
from pcipt.cli.text.verdict_text import guests_text, iommu_text, system_text
from pcipt.errors import printable
from pcipt.firmware.passthrough.groups import FunctionSet
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import Evidence, Report
from pcipt.firmware.regions.regions import UNKNOWN_OWNER, Mapped, Region
from pcipt.host.toolstack import PCIBACK
from pcipt.pci import Function, Sbdf

GUEST = "guest"
AT_HOME = (DOM0, UNKNOWN_OWNER)
MAPPED = {
    Mapped.BY_XEN: "mapped by Xen",
    Mapped.BY_PCIPT: "mapped by pcipt",
    Mapped.WITHDRAWN: "withdrawn",
    Mapped.NO: "not mapped",
    Mapped.UNKNOWN: "not known whether it is mapped",
    Mapped.NOT_APPLICABLE: "a PV dom0 reaches it without a mapping",
}


def make_picture(
    evidence: Evidence, sets: Sequence[FunctionSet], reports: Iterable[Report], names: Names
) -> Picture:
    """Return the picture of a machine: a block for each root bus, then what is given away, sets and regions.

    `sets` are all sets of the machine, `reports` those of its functions.
    """
    rows = _Rows(evidence, numbered(sets), {report.sbdf: report for report in reports}, names)
    forest = Forest(evidence.machine)
    blocks = [
        Block(
            f"{'root bus' if is_root(functions) else 'bus without a known bridge'} {segment:04x}:{bus:02x}",
            [rows.row(function, rails) for function, rails in forest.walk(functions)],
        )
        for (segment, bus), functions in forest.roots.items()
    ]
    blocks += [Block("Given away", _given(row for block in blocks for row in block.rows))]
    blocks += [Block("Only together", _together(sets)), Block("Reserved regions", _regions(evidence))]
    functions, buses = len(evidence.machine.functions), len(forest.roots)
    title = f"{count_text(functions, 'PCI function')} on {count_text(buses, 'root bus', 'root buses')}"
    return Picture(title, _host(evidence), blocks)


class _Rows:
    """Makes the rows of functions."""

    def __init__(
        self, evidence: Evidence, numbers: Mapping[Sbdf, int], reports: Mapping[Sbdf, Report], names: Names
    ) -> None:
        self._evidence, self._numbers, self._reports, self._names = evidence, numbers, reports, names
        self._regions: dict[Sbdf, list[int]] = {}
        for number, region in enumerate(_known_regions(evidence), 1):
            for device in region.devices:
                self._regions.setdefault(device.sbdf, []).append(number)

    def row(self, function: Function, rails: Sequence[bool]) -> FunctionRow:
        """Return the row of one function. For `rails` see `Forest.walk`."""
        sbdf, host = function.sbdf, belongs_to_machine(function)
        report = self._reports.get(sbdf) if not host else None
        holder, held = _held(function, self._evidence.owners.get(sbdf, UNKNOWN_OWNER))
        name = self._names.device(function.ids, function.title)
        buses = buses_below(function)
        reasons = report.reasons if report is not None else ()
        more = [f"{sbdf} {self._names.row(function.ids, function.title)}"]
        more += [f"path {function.path}"] if function.path is not None else []
        more += [f"{holder.value}{f': {held}' if held else ''}"]
        more += (f"{reason.verdict.value}: {reason.code}: {reason.text}" for reason in reasons)
        return FunctionRow(
            sbdf, rails, f"bus {buses}: {name}" if buses else name, holder, held,
            self._numbers.get(sbdf) if not host else None, tuple(self._regions.get(sbdf, ())),
            report.verdict if report is not None else None, printable("; ".join(more)),
        )  # fmt: skip


def _held(function: Function, owner: str) -> tuple[Holder, str]:
    """Return who holds a function, and this in at most two words. `owner` is that of Xen as a word."""
    driver = printable(function.driver or "")
    if belongs_to_machine(function):
        return Holder.HOST, driver
    if owner.startswith(f"{GUEST} "):
        return Holder.GUEST, owner
    if owner == QUARANTINE or (owner in AT_HOME and driver == PCIBACK):
        return Holder.ASIDE, QUARANTINE if owner == QUARANTINE else driver
    if owner not in AT_HOME:
        return Holder.NOBODY, printable(owner)
    return (Holder.DOM0, driver) if driver else (Holder.IDLE, "no driver")


def _given(rows: Iterable[FunctionRow | str]) -> list[str]:
    """Return a line for each owner other than dom0: its name and its functions."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, FunctionRow) and row.holder in (Holder.ASIDE, Holder.GUEST, Holder.NOBODY):
            found.setdefault(row.held, []).append(str(row.sbdf))
    words = {PCIBACK: "set aside, dom0 has them (pciback)"}
    lines = [f"{words.get(held, held)}: {', '.join(sbdfs)}" for held, sbdfs in sorted(found.items())]
    return lines or ["nothing, as far as is known here"]


def _together(sets: Sequence[FunctionSet]) -> list[str]:
    """Return a line for each set of several functions that a guest can be given: its number, functions and
    the rules that join them.
    """
    numbers = numbered(sets)
    lines = []
    for each in sets:
        if len(each.assignable) > 1:
            why = ", ".join(dict.fromkeys(edge.why.value for edge in each.edges))
            lines.append(f"set {numbers[each.members[0]]} ({why}): {', '.join(map(str, each.assignable))}")
    return lines or ["no functions: each can go alone, as far as is known here"]


def _known_regions(evidence: Evidence) -> Sequence[Region]:
    return evidence.regions.regions if evidence.regions is not None else ()


def _regions(evidence: Evidence) -> list[str]:
    """Return a line for each reserved region: its number, kind, addresses, who mapped it, and its devices."""
    if evidence.regions is None:
        return ["not known here"]
    lines = [
        f"R{number} {region.kind.title} {region}, {MAPPED[region.mapped]}: "
        f"{', '.join(str(device.sbdf) for device in region.devices) or 'no device'}"
        for number, region in enumerate(evidence.regions.regions, 1)
    ]
    return lines or ["none"]


def _host(evidence: Evidence) -> list[str]:
    """Return the lines about what the host can do: its verdict, facts and reasons."""
    host = evidence.host
    lines = [f"host {host.verdict.value}: {system_text(host)}", iommu_text(host), guests_text(host)]
    lines += (f"{reason.verdict.value}: {reason.code}: {reason.text}" for reason in host.reasons)
    return list(map(printable, lines))
