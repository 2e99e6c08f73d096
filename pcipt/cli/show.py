"""Show one function decoded in full: all that its config space and Linux tell, and what is wrong with it.

SBDF is 0000:00:1f.2, 00:1f.2, 1f.2, 00_1f.2, pci_0000_00_1f_2 or a PCI path such as 00_1c.0-00_00.0.
"""

import argparse
from collections.abc import Iterator

from pcipt.cli.machine_source import Source, add_source_arguments
from pcipt.cli.options import add_json_argument
from pcipt.cli.render import Names, painted, print_json, size_text, wants_colour
from pcipt.errors import AddressError, NoSuchDeviceError, printable
from pcipt.host.files import Depth
from pcipt.pci import Bar, BarKind, Function, PciPath, Sbdf, SlotFilter, WindowKind, parse_target
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
FORWARDING_PORTS = (0x4, 0x6)  # root and downstream ports: the only ones with that bit
BOLD, YELLOW = "1", "33"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help="address or PCI path of one function")
    add_source_arguments(parser)
    add_json_argument(parser)
    parser.add_argument("-n", "--numeric", action="store_true", help="numbers instead of names")


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    function = find_function(source, args.sbdf)
    if args.json:
        from pcipt.pci.json_view import json_from_function

        print_json({"device": json_from_function(function)}, args.json)
        return 0
    colour = wants_colour()
    names = Names(numeric=args.numeric)
    print(f"{painted(str(function.sbdf), BOLD if colour else None)} {names.row(function.ids)}")
    for title, text in details(function, names, linux=source.knows_linux):
        print(f"    {painted(title, YELLOW if colour and title == 'Finding' else None)}: {text}")
    return 0


def find_function(source: Source, text: str) -> Function:
    """Find the one function that a text names.

    Raises: AddressError where it is malformed or names several; NoSuchDeviceError where there is none.
    """
    target = parse_target(text)
    if isinstance(target, PciPath):
        return _find_path(source, text, target)
    if isinstance(target, SlotFilter):
        target = _single(source, text, target)
    function = _decoded(source, target, Depth.FULL)
    if function is None:
        raise source.no_such_device(str(target), target)
    return function


def _decoded(source: Source, sbdf: Sbdf, depth: Depth) -> Function | None:
    return source.machine(depth, lambda other: other == sbdf).functions.get(sbdf)


def _single(source: Source, text: str, chosen: SlotFilter) -> Sbdf:
    matching = [sbdf for sbdf in source.addresses() if chosen.matches(sbdf)]
    if len(matching) > 1:
        shown = ", ".join(str(sbdf) for sbdf in matching[:4]) + (", …" if len(matching) > 4 else "")
        raise AddressError(text, "function", f"it names {len(matching)} functions ({shown}); show takes one")
    if not matching:
        near = Sbdf(chosen.segment or 0, chosen.bus or 0, chosen.device or 0, chosen.function or 0)
        raise source.no_such_device(text, near)
    return matching[0]


def _find_path(source: Source, text: str, path: PciPath) -> Function:
    """Walk down the path, bus by bus; where numbers contradict each other, look at every function."""
    bus, near = 0, None
    for relative, device, number in path.hops:
        sbdf = Sbdf(path.segment, bus + relative, device, number)
        function = _decoded(source, sbdf, Depth.HEADER)
        if function is None:
            break
        near, bus = sbdf, function.bridge.secondary if function.bridge is not None else 0
        if function.path == path:
            return _decoded(source, sbdf, Depth.FULL) or function
    for function in source.machine(Depth.HEADER).functions.values():
        if function.path == path:
            return _decoded(source, function.sbdf, Depth.FULL) or function
    raise NoSuchDeviceError(text, (str(near),) if near is not None else ())


def details(function: Function, names: Names, *, linux: bool) -> Iterator[tuple[str, str]]:
    """Give all that is known as (title, text), in the order of the header."""
    yield "Path", str(function.path) if function.path is not None else "unknown"
    if function.parent is not None:
        yield "Behind", str(function.parent)
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
    yield from (_bar("BAR", bar) for bar in function.bars)
    yield from _bridge(function)
    for capability in function.capabilities:
        version = f" v{capability.version}" if capability.extended else ""
        yield "Capability", f"[{capability.offset:#04x}] {capability.name} ({capability.id:#04x}{version})"
    yield from _structures(function)
    yield from _sriov(function)
    for finding in function.findings:
        yield "Finding", f"{finding.code}: {printable(finding.text)}"


def _bar(title: str, bar: Bar) -> tuple[str, str]:
    kind = KINDS[bar.kind] + (" prefetchable" if bar.prefetchable else "")
    kind += " below 1 MiB" if bar.below_1mib else ""
    size = f"size {size_text(bar.size)}" if bar.size is not None else "size unknown"
    state = {True: "decoding", False: "not decoding", None: "decoding unknown"}[bar.decoding]
    name = "ROM BAR" if bar.kind is BarKind.ROM else f"{title} {bar.index}"
    return name, f"{kind} at {bar.address:#x}, {size}, {state}"


def _bridge(function: Function) -> Iterator[tuple[str, str]]:
    bridge = function.bridge
    if bridge is None:
        return
    numbers = (bridge.primary, bridge.secondary, bridge.subordinate)
    yield "Bus", "primary={:02x}, secondary={:02x}, subordinate={:02x}".format(*numbers)
    for window in bridge.windows:
        size = size_text(window.limit - window.base + 1)
        yield "Window", f"{WINDOWS[window.kind]} {window.base:#x}-{window.limit:#x}, size {size}"


def _structures(function: Function) -> Iterator[tuple[str, str]]:
    if (express := function.express) is not None:
        slot = ", with a slot" if express.slot else ""
        ari = {True: ", ARI forwarding on", False: ", ARI forwarding off", None: ""}[express.ari_forwarding]
        forwards = express.port_type in FORWARDING_PORTS
        yield "PCI Express", f"{express.port_name}{slot}{ari if forwards else ''}"
    if (msix := function.msix) is not None:
        state = "enabled" if msix.enabled else "disabled"
        yield "MSI-X", f"{msix.vectors} vectors, {state}, table {_place(msix.table)}, PBA {_place(msix.pba)}"
    for bar in function.rebar:
        sizes = " ".join(size_text(size) for size in bar.supported)
        yield f"Resizable BAR {bar.index}", f"{size_text(bar.size)} of {sizes or 'nothing'}"
    for entry in function.allocations:
        where = str(entry.range) if entry.range is not None else "nothing"
        state = "" if entry.enabled else ", disabled"
        yield "Enhanced Allocation", f"BEI {entry.bei} at {where}{state}"


def _place(place: Place) -> str:
    return f"BAR {place.bar} + {place.offset:#x} ({place.size} bytes)"


def _sriov(function: Function) -> Iterator[tuple[str, str]]:
    sriov = function.sriov
    if sriov is None:
        return
    state = "enabled" if sriov.vf_enable else "disabled"
    numbers = (
        f"{sriov.num_vfs} of {sriov.total_vfs} VFs {state} (initially {sriov.initial_vfs}), "
        f"offset {sriov.vf_offset}, stride {sriov.vf_stride}, device {sriov.vf_device:04x}"
    )
    memory, ari = ("on" if flag else "off" for flag in (sriov.memory_enable, sriov.ari))
    yield "SR-IOV", f"{numbers}, memory {memory}, ARI {ari}"
    yield from (_bar("VF BAR", bar) for bar in sriov.bars)
