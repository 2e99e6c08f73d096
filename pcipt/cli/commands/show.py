"""Show one function decoded in full: what its config space and Linux say of it, and what is wrong with it.

SBDF is 0000:00:1f.2, 00:1f.2, 1f.2, 00_1f.2, pci_0000_00_1f_2 or a PCI path such as 00_1c.0-00_00.0.
"""

import argparse
from collections.abc import Iterator

import attrs

from pcipt.cli.machine.find import find_function
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import add_colour_argument, add_json_argument, add_numeric_argument
from pcipt.cli.text.render import count_text, print_json, size_text, table
from pcipt.cli.text.terminal import BOLD, YELLOW, columns, folded, painted, wants_colour
from pcipt.errors import printable
from pcipt.host.files import Depth
from pcipt.pci import Bar, BarKind, Capability, Function, WindowKind
from pcipt.pci.space.shortage import Shortage, depends_on_others, shortages_of, told_findings
from pcipt.pci.structures import Place

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
    ("pcipt show 03:00.0", "segment 0 is meant where none is given"),
    ("pcipt show 00_1c.0-00_00.0", "by PCI path, which stays when buses are renumbered"),
    ("pcipt show 03:00.0 --json=pretty", "the same for a program"),
    ("pcipt show 03:00.0 --dump lspci.txt", "of the output of lspci -xxxx"),
)

Facts = Iterator[tuple[str, str]]
Rows = list[tuple[str, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help="address or PCI path of one function")
    add_source_arguments(parser)
    add_json_argument(parser)
    add_numeric_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    function, short = with_neighbours(source, find_function(source, args.sbdf))
    if args.json:
        from pcipt.pci.json_view import json_from_function
        from pcipt.pci.space.view import json_from_shortage

        shown = {"device": json_from_function(function), "unassigned": list(map(json_from_shortage, short))}
        print_json(shown, args.json)
        return 0
    width, colour = columns(), wants_colour(args.color)
    names = Names(numeric=args.numeric)
    address = str(function.sbdf)
    first, *more = folded(f"{address} {names.row(function.ids)}", width, len(address) + 1)
    print(painted(address, BOLD if colour else None) + first[len(address) :])
    for line in more:
        print(line)
    for title, rows in sections(function, names, linux=source.knows_linux):
        if title and rows:
            shade = YELLOW if title == "Findings" else BOLD
            print(f"  {painted(title, shade if colour else None)}:")
        for line in table(rows, width=width if width is None else width - INDENT):
            print(" " * INDENT + line)
    return 0


def with_neighbours(source: Source, function: Function) -> tuple[Function, tuple[Shortage, ...]]:
    """Return the function as the whole machine shows it, and its BARs without an address.

    The whole machine is read only if that matters. Findings about BARs without an address say what would
    help.

    Raises: InputError if the machine cannot be read.
    """
    if not depends_on_others(function):
        return function, ()
    machine = source.machine(Depth.FULL)
    function = machine.functions.get(function.sbdf, function)
    told = (
        attrs.evolve(finding, text=f"{finding.text}; what helps: {helps}") if helps else finding
        for finding, helps in told_findings(machine, function)
    )
    return attrs.evolve(function, findings=tuple(told)), shortages_of(machine, function)


def sections(function: Function, names: Names, *, linux: bool) -> list[tuple[str, Rows]]:
    """Return the chapters of `pcipt show` in order, each as a title and rows. The first chapter has no title.

    A chapter that does not apply to the function has no rows. The driver is shown only if `linux` is True,
    which means that facts from Linux are known.
    """
    sriov = function.sriov
    return [
        ("", _labelled(_identity(function, names, linux=linux))),
        ("BARs", [_bar("BAR", bar) for bar in function.bars]),
        ("Bridge", _labelled(_bridge(function))),
        ("Capabilities", [_capability(capability) for capability in function.capabilities]),
        ("Structures", _labelled(_structures(function))),
        ("VF BARs", [_bar("VF BAR", bar) for bar in sriov.bars] if sriov is not None else []),
        ("Findings", [(f"{finding.code}:", printable(finding.text)) for finding in function.findings]),
    ]


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
    if linux:
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


def _capability(capability: Capability) -> tuple[str, ...]:
    version = f" v{capability.version}" if capability.extended else ""
    return f"[{capability.offset:#04x}]", f"{capability.name} ({capability.id:#04x}{version})"


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
