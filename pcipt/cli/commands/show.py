"""Show a function decoded in full: what its config space and Linux say of it, and what is wrong with it.

SBDF is 0000:00:1f.2, 00:1f.2, 1f.2, 00_1f.2, pci_0000_00_1f_2, a PCI path such as 00_1c.0-00_00.0, or a set:
00:1f is all functions of a device, 03: all of a bus, * all of the machine. With --json a set gives a list.

Exit codes: 0 done, 1 the machine cannot be read, 2 malformed address, 6 no such device.
"""

import argparse
from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.cli.machine.details import Details, read_details
from pcipt.cli.machine.find import SBDF_HELP, find_functions
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.roots import root_windows
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import add_colour_argument, add_json_argument, add_numeric_argument
from pcipt.cli.text.details_text import capability_row, device_rows, json_from_details, register_chapters
from pcipt.cli.text.render import count_text, print_json, table
from pcipt.cli.text.terminal import BOLD, YELLOW, columns, folded, painted, wants_colour
from pcipt.errors import printable
from pcipt.host.files import Depth
from pcipt.pci import Bar, BarKind, Finding, Function, Sbdf, SlotFilter, WindowKind, parse_target
from pcipt.pci.space.shortage import (
    Shortage,
    depends_on_others,
    helpful_findings,
    lacks_addresses,
    shortages_of,
)
from pcipt.pci.space.windows import NO_ROOTS
from pcipt.pci.structures import Place
from pcipt.words import size_text

KINDS = {
    BarKind.IO: "I/O ports",
    BarKind.MEM32: "memory 32-bit",
    BarKind.MEM64: "memory 64-bit",
    BarKind.ROM: "memory 32-bit",
}
WINDOWS = {
    WindowKind.IO: "I/O ports",
    WindowKind.MEMORY: "memory",
    WindowKind.PREFETCHABLE: "prefetchable memory",
}
FORWARDING_PORTS = (0x4, 0x6)  # root and downstream ports; only these have the ARI Forwarding bit
INDENT = 4
EXAMPLES = (
    ("pcipt show 03:00.0", "one function; without a segment, segment 0 is meant"),
    ("pcipt show 00_1c.0-00_00.0", "by PCI path, which stays when buses are renumbered"),
    ("pcipt show 00:1f", "all functions of a device"),
    ("pcipt show 03:00.0 --json=pretty", "the same for a program"),
    ("pcipt show 03:00.0 --dump lspci.txt", "a function in the output of lspci -xxxx"),
)

Facts = Iterator[tuple[str, str]]
Rows = list[tuple[str, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help=SBDF_HELP)
    add_source_arguments(parser)
    add_json_argument(parser)
    add_numeric_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    root = args.root if args.dump is None else None
    found = [with_neighbours(source, function, root) for function in find_functions(source, args.sbdf)]
    functions, short = [function for function, _ in found], [each for _, lacks in found for each in lacks]
    names = Names(numeric=args.numeric)
    details = read_details(source, root, functions)
    if args.json:
        from pcipt.pci.json_view import json_from_function
        from pcipt.pci.space.view import json_from_shortage

        several = isinstance(parse_target(args.sbdf), SlotFilter)
        devices = [
            {**json_from_function(each), "details": json_from_details(each, details[each.sbdf], names)}
            for each in functions
        ]
        shown = {"devices": devices} if several else {"device": devices[0]}
        print_json({**shown, "unassigned": list(map(json_from_shortage, short))}, args.json)
        return 0
    for number, function in enumerate(functions):
        if number:
            print()
        linux, colour = source.knows_linux, wants_colour(args.color)
        _print(function, details[function.sbdf], names, linux=linux, colour=colour)
    return 0


def _print(function: Function, details: Details, names: Names, *, linux: bool, colour: bool) -> None:
    """Print the heading of one function, then its chapters."""
    width = columns()
    address = str(function.sbdf)
    first, *more = folded(f"{address} {names.row(function.ids, function.title)}", width, len(address) + 1)
    print(painted(address, BOLD if colour else None) + first[len(address) :])
    for line in more:
        print(line)
    for title, rows in sections(function, details, names, linux=linux):
        if title and rows:
            shade = YELLOW if title == "Findings" else BOLD
            print(f"  {painted(title, shade if colour else None)}:")
        for line in table(rows, width=width if width is None else width - INDENT):
            print(" " * INDENT + line)


def with_neighbours(
    source: Source, function: Function, root: str | None
) -> tuple[Function, tuple[Shortage, ...]]:
    """Return the function as the whole machine shows it, and its BARs without an address.

    `root` is the directory of the machine's files, None for a dump. The whole machine, and the windows of
    root buses, are read only if that matters. Findings about BARs without an address say what would
    help.

    Raises: InputError if the machine cannot be read.
    """
    if not depends_on_others(function):
        return function, ()
    machine = source.machine(Depth.FULL)
    function = machine.functions.get(function.sbdf, function)
    roots = root_windows(root) if lacks_addresses(function) else NO_ROOTS
    told = helpful_findings(machine, function, roots)
    return attrs.evolve(function, findings=told), shortages_of(machine, function, roots)


def sections(function: Function, details: Details, names: Names, *, linux: bool) -> list[tuple[str, Rows]]:
    """Return the chapters of `pcipt show` in order, each as a title and rows. The first chapter has no title.

    A chapter that does not apply to the function has no rows. The driver is shown only if `linux` is True,
    which means that facts from Linux are known.
    """
    sriov = function.sriov
    return [
        ("", _labelled(_identity(function, names, linux=linux))),
        ("Device", _labelled(device_rows(function, details, names))),
        ("BARs", [_bar("BAR", bar) for bar in function.bars]),
        ("Bridge", _labelled(_bridge(function))),
        ("Capabilities", [capability_row(each) for each in details.capabilities]),
        ("Structures", _labelled(_structures(function))),
        ("VF BARs", [_bar("VF BAR", bar) for bar in sriov.bars] if sriov is not None else []),
        *register_chapters(details),
        ("Findings", [row for finding in function.findings for row in _finding(finding, function.sbdf)]),
    ]


def _finding(finding: Finding, sbdf: Sbdf) -> Rows:
    """Return the row of a finding, and the row of what can be done about it if that is known."""
    rows: Rows = [(f"{finding.code}:", printable(finding.text))]
    step = finding.to_json(sbdf)["next"]
    return [*rows, ("", f"-> {step}")] if step else rows


def _labelled(facts: Facts) -> Rows:
    return [(f"{title}:", text) for title, text in facts]


def _identity(function: Function, names: Names, *, linux: bool) -> Facts:
    """Yield the facts of the first chapter as (title, text). Unknown facts are left out or "unknown"."""
    yield "Path", str(function.path) if function.path is not None else "unknown"
    if function.parent is not None:
        yield "Behind", str(function.parent)
    if function.controller is not None:
        yield "Controller", f"{function.controller} (VMD)"
    if function.physfn is not None:
        yield "Virtual function of", str(function.physfn)
    if function.ids.subsystem_vendor or function.ids.subsystem_device:
        yield "Subsystem", names.subsystem(function.ids)
    if linux or function.driver is not None:
        yield "Driver", printable(function.driver) if function.driver is not None else "none"
    if function.numa_node is not None:
        yield "NUMA node", str(function.numa_node)
    if function.command is not None:
        bits = zip(("I/O", "Mem", "BusMaster"), (1, 2, 4), strict=True)
        flags = " ".join(name + ("+" if function.command & bit else "-") for name, bit in bits)
        yield "Command", f"{flags} ({function.command:#06x})"
    yield "Header", function.header.value
    shifts = (("memory", function.shift.memory), ("I/O", function.shift.io))
    if added := " and ".join(f"{value:#x} to {what} addresses" for what, value in shifts if value):
        yield "Translation", f"the host bridge adds {added}; shown are those of the registers"


def _bar(title: str, bar: Bar) -> tuple[str, ...]:
    """Return the cells of one BAR: name, address, size, kind, and whether it decodes."""
    kind = KINDS[bar.kind] + (" prefetchable" if bar.prefetchable else "")
    kind += " below 1 MiB" if bar.below_1mib else ""
    size = f"size {size_text(bar.size)}" if bar.size is not None else "size unknown"
    state = {True: "decoding", False: "not decoding", None: "decoding unknown"}[bar.decoding]
    name = "ROM BAR" if bar.kind is BarKind.ROM else f"{title} {bar.index}"
    address = f"{bar.address:#x}" if bar.address or not bar.unassigned else "unassigned"
    return f"{name}:", address, size, kind, state


def _bridge(function: Function) -> Facts:
    """Yield the bus numbers and windows of a bridge; nothing if the function is no bridge."""
    bridge = function.bridge
    if bridge is None:
        return
    numbers = (bridge.primary, bridge.secondary, bridge.subordinate)
    yield "Bus", "primary={:02x}, secondary={:02x}, subordinate={:02x}".format(*numbers)
    for window in bridge.windows:
        size = size_text(window.limit - window.base + 1)
        yield "Window", f"{WINDOWS[window.kind]} {window.base:#x}-{window.limit:#x}, size {size}"
    opened = {window.kind for window in bridge.windows}
    for kind, name in WINDOWS.items():
        if kind not in opened:
            yield "Window", f"{name}, closed"


def _structures(function: Function) -> Facts:
    """Yield the facts in the capabilities: PCI Express, MSI-X, Resizable BAR, Enhanced Allocation, SR-IOV."""
    if (express := function.express) is not None:
        slot = ", with a slot" if express.slot else ""
        ari = {True: ", ARI forwarding on", False: ", ARI forwarding off", None: ""}[express.ari_forwarding]
        forwards = express.port_type in FORWARDING_PORTS
        yield "PCI Express", f"{express.port_name}{slot}{ari if forwards else ''}"
    if (msix := function.msix) is not None:
        vectors, state = count_text(msix.vectors, "vector"), "enabled" if msix.enabled else "disabled"
        yield "MSI-X", f"{vectors}, {state}, table {_place(msix.table)}, PBA {_place(msix.pba)}"
    for bar in function.rebar:
        sizes = " ".join(size_text(size) for size in bar.supported)
        yield f"Resizable BAR {bar.index}", f"{size_text(bar.size)} of {sizes or 'nothing'}"
    for entry in function.allocations:
        where = str(entry.range) if entry.range is not None else "nothing"
        state = "" if entry.enabled else ", disabled"
        yield "Enhanced Allocation", f"BEI {entry.bei} at {where}{state}"
    yield from _sriov(function)


def _place(place: Place) -> str:
    return f"BAR {place.bar} + {place.offset:#x} ({place.size} bytes)"


def _sriov(function: Function) -> Facts:
    sriov = function.sriov
    if sriov is None:
        return
    state = "enabled" if sriov.vf_enable else "disabled"
    numbers = (
        f"{sriov.num_vfs} of {sriov.total_vfs} VFs {state} (initially {sriov.initial_vfs}), "
        f"offset {sriov.vf_offset}, stride {sriov.vf_stride}, device {sriov.vf_device:04x}"
    )
    for bar in sriov.resizable:
        sizes = " ".join(size_text(size) for size in bar.supported)
        yield f"Resizable VF BAR {bar.index}", f"{size_text(bar.size)} of {sizes or 'nothing'}"
    memory, ari = ("on" if flag else "off" for flag in (sriov.memory_enable, sriov.ari))
    yield "SR-IOV", f"{numbers}, memory {memory}, ARI {ari}"
