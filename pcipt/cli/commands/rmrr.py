"""Show the memory that firmware reserved for devices (RMRR, IVMD), and whether dom0 has it mapped.

The regions are read from the ACPI table DMAR or IVRS. On the running machine the daemon adds what Xen says. A
PVH dom0 cannot see these tables: there Xen is the only source. If Xen's command line is known, the regions
that it adds (rmrr=, ivmd=) are shown too. The finding region-added marks such a region; the finding
region-option says which part of these options Xen ignores.

--table decodes table files on any machine; with --root the device paths in these files are followed on the
recorded machine. If Xen would refuse a table, or would hang or panic because of it, a finding says why; --xen
names the version of Xen.

Exit codes: 0 fine, 3 the daemon is needed and not running, 4 something is wrong with a table or a region.
"""

import argparse
from collections.abc import Mapping, Sequence

from pcipt import values as attrs
from pcipt.cli.machine.client import call
from pcipt.cli.machine.host import table_options
from pcipt.cli.machine.pvh import add_xen_argument, guest_type, memory_map_of, xen_version
from pcipt.cli.options import add_colour_argument, add_json_argument, add_legend_argument, add_socket_argument
from pcipt.cli.text.render import count_text, print_json, say_nothing, table
from pcipt.cli.text.terminal import (
    YELLOW,
    folded,
    next_lines,
    on_terminal,
    painted,
    prose_columns,
    wants_colour,
)
from pcipt.errors import InputError, NotPermittedError, NotRunningError, printable
from pcipt.firmware.acceptance.answers import Acceptance
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acpi.dmar import SIGNATURES
from pcipt.firmware.acpi.ivrs import SIGNATURE
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import Mapped, Regions
from pcipt.firmware.regions.state import with_owners
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.firmware.regions.view import regions_to_json
from pcipt.hints import Any
from pcipt.host.acpi_files import read_table_file, read_tables
from pcipt.host.files import TABLES, Depth
from pcipt.host.sysfs import read_machine
from pcipt.pci import Finding, Machine, decode_machine
from pcipt.pci.finding import NOTES
from pcipt.xen.releases import Version

DEGRADED = 4
KNOWN = (*SIGNATURES, SIGNATURE)
UNREAD = frozenset({"no-tables", "table-unread", "regions-not-asked"})  # nobody knows what there is
EXAMPLES = (
    ("pcipt rmrr", "the regions of this machine"),
    ("pcipt rmrr --table dmar.bin", "decode a table that was copied from another machine"),
    ("pcipt rmrr --table acpidump.txt", "what somebody sent: the text of acpidump, xxd or hexdump -C"),
    ("pcipt rmrr --table ivrs.bin --xen 4.17.0", "would this version of Xen accept it?"),
    ("pcipt rmrr --root DIR --json=pretty", "the regions of a recorded machine, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", help="read a recorded machine: DIR holds sys/, or is a report"
    )
    parser.add_argument(
        "--table",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="decode the tables DMAR and IVRS in these files: raw, or the text of acpidump or a hexdump",
    )
    add_xen_argument(parser)
    add_json_argument(parser)
    add_colour_argument(parser)
    add_legend_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    answer = _answer(args)
    if args.json:
        print_json(answer, args.json)
    else:
        if not answer["regions"]:
            say_nothing(_none(answer))
        _print(answer, colour=wants_colour(args.color))
        if answer["regions"] and on_terminal() and not args.no_legend:
            print(
                f"\n{count_text(len(answer['regions']), 'region')} (source: {printable(answer['source'])})."
            )
    findings = [*answer["findings"], *(each for region in answer["regions"] for each in region["findings"])]
    return DEGRADED if any(finding["code"] not in NOTES for finding in findings) else 0


def _none(answer: Mapping[str, Any]) -> str:
    """Return why no region is shown: there is none, or it is not known whether there is one."""
    if UNREAD.intersection(finding["code"] for finding in answer["findings"]):
        return "it is not known whether there are reserved regions: the finding says why"
    return f"no reserved regions (source: {printable(answer['source'])})"


def _answer(args: argparse.Namespace) -> dict[str, Any]:
    """Return the reserved regions as JSON.

    With --table they are those of the table files. Otherwise, with a --root other than /, they are those of
    the recorded machine, else the daemon's reply. If the daemon does not answer, refuses or does not know the
    request, the tables of this machine are read. A PVH dom0 cannot see the tables: there the daemon's error
    is raised instead.

    Raises: InputError if a file or the machine cannot be read, or if a file is not a DMAR or IVRS;
            NotPermittedError if this process may not read the tables. On a PVH dom0: NotRunningError,
            NotPermittedError or InputError from the daemon.
    """
    if args.table:
        tables = [(path, data) for path in args.table for data in _known_tables(path)]
        return _from_tables(tables, _machine_at(args.root, args.xen))
    if args.root not in (None, "/") or args.xen is not None:
        return _from_machine(_machine_at(args.root or "/", args.xen))
    try:
        return call(args.socket, "Rmrr")
    except (NotRunningError, NotPermittedError, InputError):  # InputError: an older daemon does not know Rmrr
        if guest_type("/") == "PVH":
            raise
        return _from_machine(_machine_at("/", None))


def _known_tables(path: str) -> list[bytes]:
    """Return the DMAR and IVRS tables in a file; at least one.

    Raises: InputError if the file cannot be read, or has no DMAR or IVRS table.
    """
    tables = read_table_file(path)
    known = [data for data in tables if _is_known(data)]
    if known:
        return known
    named = [found.signature for data in tables if (found := parse_table(data)) is not None]
    if not named:
        raise InputError(path, f"has {len(tables[0])} bytes, too few for the header of an ACPI table (36)")
    kinds = ", ".join(repr(name) for name in named[:4]) + (", …" if len(named) > 4 else "")
    what = f"is a table {kinds}" if len(named) == 1 else f"has the tables {kinds}"
    raise InputError(path, f"{what}; expected {', '.join(KNOWN)}")


@attrs.frozen
class _Here:
    """The machine to which DMAR and IVRS tables belong, and the Xen that reads the tables.

    `version` is Xen's version, `options` are Xen's boot options that change how Xen reads the tables.
    `machine` has the functions, `memory` the memory map; each is None if there is no machine or it is
    not known. `tables` are the DMAR and IVRS tables of the machine as pairs (path, bytes), `others` the bytes
    of its other ACPI tables. `kind` is the kind of domain in which Linux runs there, as `guest_type` returns
    it. `trouble` are the findings about reading the machine's tables.
    """

    version: Version | None
    machine: Machine | None = None
    memory: tuple[MemoryEntry, ...] | None = None
    tables: tuple[tuple[str, bytes], ...] = ()
    others: tuple[bytes, ...] = ()
    kind: str = ""
    options: Options = Options()
    trouble: tuple[Finding, ...] = ()


def _machine_at(root: str | None, version: Version | None) -> _Here:
    """Return the machine below `root`. If no tables can be read, a finding says so.

    Raises: InputError if the functions cannot be read; NotPermittedError if this process may not read the
            tables.
    """
    if root is None:
        return _Here(version)
    machine, kind = decode_machine(read_machine(root, Depth.FULL)), guest_type(root)
    here = _Here(
        version or xen_version(root), machine, memory_map_of(root), kind=kind, options=table_options(root)
    )
    try:
        reading = read_tables(root)
    except InputError as error:
        why = f"{error}; it is not known whether there are reserved regions"
        return attrs.evolve(here, trouble=(Finding("no-tables", why),))
    return attrs.evolve(
        here,
        tables=tuple((f"{TABLES}/{each.name}", each.data) for each in reading.tables if _is_known(each.data)),
        others=tuple(each.data for each in reading.tables if not _is_known(each.data)),
        trouble=tuple(each for each in reading.findings if any(name in each.text for name in KNOWN)),
    )


def _from_machine(here: _Here) -> dict[str, Any]:
    """Return the regions of a machine as JSON, and the findings about reading its tables."""
    findings = here.trouble
    if not here.tables and here.kind == "PVH":
        why = "a PVH dom0 cannot see DMAR and IVRS, and a recording does not hold Xen's list of regions"
        findings = (Finding("no-tables", f"{why}; it is not known whether there are any"),)
    mapped = Mapped.NOT_APPLICABLE if here.kind == "PV" else Mapped.UNKNOWN
    answer = _from_tables(here.tables, here, mapped)
    extra = [finding.to_json() for finding in findings]
    return {**answer, "findings": [*extra, *answer["findings"]]}


def _is_known(data: bytes) -> bool:
    """Return True if the table is a DMAR or an IVRS."""
    found = parse_table(data)
    return found is not None and found.signature in KNOWN


def _from_tables(
    tables: Sequence[tuple[str, bytes]], here: _Here, mapped: Mapped = Mapped.UNKNOWN
) -> dict[str, Any]:
    """Return the regions of `tables` as JSON, in the order of the tables. Each table is a pair (name, bytes).

    Without a machine device paths are not followed. Without its memory map regions are not compared with RAM.
    `mapped` is the mapped state of all regions. For each table "acceptance" says what Xen makes of it.
    """
    boot = snapshot_from_machine("", here.machine) if here.machine is not None else None
    each = [
        (
            name,
            regions_from_tables(
                [data, *here.others], here.machine, None, here.options, here.memory, here.version
            ),
        )
        for name, data in tables
    ]
    judged = [
        judge([data, *here.others], here.memory, here.version, boot, here.options, here.machine)
        for _, data in tables
    ]
    regions = Regions(
        tuple(region for _, found in each for region in found.regions),
        tuple(
            finding if len(each) == 1 else attrs.evolve(finding, text=f"{name}: {finding.text}")
            for (name, found), acceptance in zip(each, judged, strict=True)
            for finding in (*found.findings, *(said.finding for said in acceptance.said))
        ),
    )
    regions = with_owners(with_findings(regions, here.memory, here.version), {}, mapped)
    answer = regions_to_json(regions, ", ".join(name for name, _ in tables) or "none")
    return {**answer, "acceptance": list(map(_acceptance, judged))}


def _acceptance(judged: Acceptance) -> dict[str, Any]:
    """Return the JSON object of what Xen makes of one table."""
    return {
        "kind": judged.vendor.value if judged.vendor is not None else None,
        "iommu": judged.iommu.value,
        "interrupts": judged.interrupts.value,
        "unknown": list(judged.unknown),
    }


def _print(answer: dict[str, Any], *, colour: bool) -> None:
    """Print a row for each region, each followed by its findings, then the findings about all regions."""
    shade = YELLOW if colour else None
    rows = [
        (
            f"{region['base']}-{region['limit']}",
            count_text(region["pages"], "page"),
            region["kind"],
            region["mapped"],
            _devices(region),
        )
        for region in answer["regions"]
    ]
    for line, region in zip(table(rows, right=(1,)), answer["regions"], strict=True):
        print(line)
        for finding in region["findings"]:
            _print_finding(f"    {finding['code']}: {printable(finding['text'])}", finding, shade)
    for finding in answer["findings"]:
        _print_finding(f"Finding: {finding['code']}: {printable(finding['text'])}", finding, shade)


def _print_finding(text: str, finding: dict[str, Any], shade: str | None) -> None:
    first, *more = folded(text, prose_columns(), 8)
    code = finding["code"]
    print(
        "\n".join(
            [first.replace(code, painted(code, shade), 1), *more, *next_lines(finding, 8, prose_columns())]
        )
    )


def _devices(region: dict[str, Any]) -> str:
    """Return the names of the devices of a region with commas between them, or "nobody" if it has none.

    `region` is a region of the JSON answer. Each of its devices is shown by its address. Brackets follow with
    "absent" if the machine does not have the device, and with the owner if the owner is known. After the
    devices come device scopes of the table:

    - a range of devices is shown as "all of FIRST-LAST";
    - a scope without an address, and a scope that is neither an endpoint nor a bridge, is shown by its type,
      its start bus and its path.
    """
    named = []
    for device in region["devices"]:
        words = [] if device["present"] is not False else ["absent"]
        words += [device["owner"]] if device["owner"] != "unknown" else []
        named.append(device["sbdf"] + (f" ({', '.join(words)})" if words else ""))
    for scope in region["scopes"]:
        if scope.get("last") is not None:
            named.append(f"all of {scope['sbdf']}-{scope['last']}")
        elif scope["sbdf"] is None or scope["type"] not in ("endpoint", "bridge"):
            hops = "-".join(f"{device:02x}.{function:x}" for device, function in scope["path"])
            named.append(f"{scope['type']} at bus {scope['bus']:02x} {hops}")
    return ", ".join(named) or "nobody"
