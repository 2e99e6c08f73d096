"""Decode the BARs of one function, correct them for special cases, and compare them with Linux's lines.

The special cases: an IDE controller in compatibility mode ignores its first four registers; Enhanced
Allocation gives addresses for registers that are zero; a Resizable BAR has the size that its Control register
says; a virtual function has no BAR registers of its own. If a register and Linux's line differ, the register
is used and a finding says so; so does one if a BAR has no address.

Source: PCI IDE Controller Specification 1.0 §2 (compatibility mode); PCI Express Base 6.0 §7.8.5 (EA), §7.8.6
        (Resizable BAR).
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.bars import LAYOUT, ROM_INDEX, Bar, BarKind, Resource, bars_from_resources, decode_bars
from pcipt.pci.config import COMMAND_IO, COMMAND_MEMORY, ConfigSpace
from pcipt.pci.finding import Finding
from pcipt.pci.space.beliefs import NO_SHIFT, Shift, compared, finding_of, line_of
from pcipt.pci.sriov import SrIov, vf_bars, vf_number
from pcipt.pci.structures import Allocation
from pcipt.pci.units import Address, Range

IDE_CLASS = 0x0101
IDE_NATIVE = {0: 0x1, 1: 0x1, 2: 0x4, 3: 0x4}  # BAR index -> bit of the programming interface that enables it

EA_PREFETCHABLE, EA_IO = 0x1, 0x2  # 0 is memory; 3 and above are for VFs or bridges, or unused
EA_INDEX = {**{bei: bei for bei in range(ROM_INDEX)}, 8: ROM_INDEX}  # BAR Equivalent Indicator -> BAR index

Decoded = tuple[tuple[Bar, ...], list[Finding]]


def function_bars(
    config: ConfigSpace,
    resources: Sequence[Resource],
    class_code: int | None,
    allocations: Sequence[Allocation] = (),
    resized: Mapping[int, int] = MappingProxyType({}),
    shift: Shift = NO_SHIFT,
) -> Decoded:
    """Return the BARs of a function that is not a virtual function, in index order, and findings about them.

    Return no BARs and no findings if the command register was not read. `resources` are the lines of sysfs
    `resource`, `class_code` has 24 bits (None is unknown), `allocations` are the entries of Enhanced
    Allocation, `resized` the sizes of the BARs that can be resized, by BAR number. `shift` is what the host
    bridge adds to addresses.

    The address of a BAR is the register's, with the special cases of the module. If the register has address
    0 and Linux's line is FIXED, the address is the line's (except for the ROM). There is a finding for each
    BAR without an address, for each that has another address or decodes another size than its line has, and
    for a register of a 64-bit BAR without an upper half. If there are `allocations`, there is one more
    finding about all of them.
    """
    command = config.command
    if command is None:
        return (), []
    bars = [_with_size(bar, resized) for bar in decode_bars(config, command, resources)]
    legacy = IDE_NATIVE if class_code is not None and class_code >> 8 == IDE_CLASS else {}
    if class_code is not None and legacy:
        bars = [_correct_ide_bar(bar, class_code, command, resources) for bar in bars]
        legacy = {index: bit for index, bit in legacy.items() if not class_code & bit}
    registers = bars
    if allocations:
        bars = _with_allocations(bars, allocations, command)
    findings = [_size_differs(*each) for each in _resized_unnoticed(bars, resources, resized)]
    for place, bar in enumerate(bars):
        # An entry of Enhanced Allocation needs no pair of registers: any BEI can be above 4 GiB (§7.8.5).
        last = bar.index == LAYOUT[config.header][1] - 1
        if bar.kind is BarKind.MEM64 and last and bar in registers:
            findings.append(_no_upper_half(bar))
        line = line_of(resources, bar.index)
        if line.size and line.flags & Resource.FIXED and not bar.address and bar.kind is not BarKind.ROM:
            bars[place] = attrs.evolve(bar, address=Address(line.start))
        elif bar.index not in legacy:
            bars[place] = compared(bar, line, shift)
            findings += filter(None, (finding_of(bars[place], line),))
    if allocations:
        findings.append(_allocation_finding(allocations))
    return tuple(bars), findings


def virtual_bars(
    sbdf: Sbdf,
    resources: Sequence[Resource],
    physfn: tuple[Sbdf, SrIov] | None,
    shift: Shift = NO_SHIFT,
) -> Decoded:
    """Return the BARs of the virtual function `sbdf`, and a finding for each BAR that decodes at another
    address than Linux's line. `shift` is what the host bridge adds to addresses.

    The addresses are computed from `physfn`, the address and SR-IOV structure of its physical function. A BAR
    decodes if the VF BARs of the physical function decode. A VF BAR of unknown size is left out. A virtual
    function's own BAR registers read zero, and its memory decode bit has no meaning.

    In three cases the BARs are Linux's lines, with `decoding` None and without findings: `physfn` is None;
    `sbdf` is not one of its virtual functions; no VF BAR has a known size.
    """
    number = vf_number(*physfn, sbdf) if physfn is not None else None
    bars = vf_bars(physfn[1], number) if physfn is not None and number is not None else ()
    if not bars:
        return bars_from_resources(resources[:ROM_INDEX]), []
    # A VF BAR that does not decode is told of the physical function.
    found: list[Finding] = []
    for bar in bars:
        line = line_of(resources, bar.index)
        if bar.unassigned:
            found += filter(None, (finding_of(bar, line),))
        elif bar.decoding:
            found += filter(None, (finding_of(compared(bar, line, shift), line),))
    return bars, found


def _with_size(bar: Bar, resized: Mapping[int, int]) -> Bar:
    """Return a memory BAR with its size in `resized`; any other BAR, and the ROM, as it is."""
    size = resized.get(bar.index) if bar.kind in (BarKind.MEM32, BarKind.MEM64) else None
    return bar if size is None else attrs.evolve(bar, size=size)


def _resized_unnoticed(
    bars: Sequence[Bar], resources: Sequence[Resource], resized: Mapping[int, int]
) -> Iterator[tuple[Bar, Resource]]:
    """Yield each Resizable BAR that decodes another size than Linux's line has, with that line."""
    for bar in bars:
        line = line_of(resources, bar.index)
        if bar.decoding and bar.index in resized and line.size not in (0, bar.size):
            yield bar, line


def _correct_ide_bar(bar: Bar, class_code: int, command: int, resources: Sequence[Resource]) -> Bar:
    """Return `bar` of an IDE controller, corrected if the controller ignores the register (compatibility
    mode); else `bar` itself.

    The programming interface in `class_code` shows the mode. Only BARs 0 to 3 can be in compatibility mode.
    The corrected BAR has the fixed ports (1f0, 3f6, …) of Linux's line, and `command` decides its `decoding`.
    If Linux has no line, the address stays that of the register, and `decoding` is False.
    """
    native = IDE_NATIVE.get(bar.index)
    if native is None or class_code & native:
        return bar
    if bar.size is None:
        return attrs.evolve(bar, decoding=False)
    return Bar(
        bar.index,
        BarKind.IO,
        Address(resources[bar.index].start),
        bar.size,
        prefetchable=False,
        decoding=bool(command & COMMAND_IO),
    )


def _with_allocations(bars: Sequence[Bar], allocations: Sequence[Allocation], command: int) -> list[Bar]:
    """Return `bars` together with the BARs of Enhanced Allocation entries, in index order.

    An entry is used only if it is enabled, has a range, and stands for a BAR or the ROM of the function
    itself. The BAR of the entry is added if `bars` has no BAR with the same index, and replaces a BAR with
    address 0. A BAR in `bars` with another address stays, although the specification requires its register to
    be zero.
    """
    joined = {bar.index: bar for bar in bars}
    for entry in allocations:
        index = EA_INDEX.get(entry.bei)
        if index is None or entry.range is None or not entry.enabled or entry.properties > EA_IO:
            continue
        if index not in joined or not joined[index].address:
            joined[index] = _allocated_bar(index, entry.properties, entry.range, command)
    return [joined[index] for index in sorted(joined)]


def _allocated_bar(index: int, properties: int, span: Range, command: int) -> Bar:
    """Return the BAR with this index for the range `span` of an Enhanced Allocation entry with these
    `properties`.

    `decoding` of an I/O BAR is the I/O bit of `command`. For a memory BAR and for the ROM, it is the memory
    bit.
    """
    if index == ROM_INDEX:
        kind = BarKind.ROM
    elif properties == EA_IO:
        kind = BarKind.IO
    else:
        kind = BarKind.MEM64 if span.last >> 32 else BarKind.MEM32
    decoding = bool(command & (COMMAND_IO if kind is BarKind.IO else COMMAND_MEMORY))
    return Bar(index, kind, span.start, span.size, properties == EA_PREFETCHABLE, decoding)


def _no_upper_half(bar: Bar) -> Finding:
    """Return the finding that a 64-bit BAR is in the last register and so has no upper half."""
    return Finding(
        "bar-broken",
        f"BAR {bar.index} claims 64 bits, but it is the last BAR and has no upper half. Do not trust its "
        "address: the config space is damaged or was changed",
    )


def _size_differs(bar: Bar, line: Resource) -> Finding:
    """Return the finding that a Resizable BAR decodes with another size than Linux's line has."""
    return Finding(
        "bar-resized",
        f"BAR {bar.index} decodes {bar.size:#x} bytes by its Resizable BAR register, but Linux has "
        f"{line.size:#x} bytes for it: accesses behind the BAR may reach another device; remove the function "
        "in sysfs and rescan its bus",
    )


def _allocation_finding(allocations: Sequence[Allocation]) -> Finding:
    """Return the finding that lists the ranges fixed by Enhanced Allocation."""
    ranges = ", ".join(str(entry.range) for entry in allocations if entry.range is not None)
    return Finding(
        "enhanced-allocation", f"addresses are fixed by Enhanced Allocation ({ranges or 'none'}), not by BARs"
    )
