"""The first shadow of a machine, computed from its registers as they were read. Pure.

`shadow_from_raws` starts from config spaces and the lines of the sysfs file `resource`. `refreshed` updates
the shadow of one function that was read again: each difference is a change.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

import attrs

from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bars import LAYOUT, ROM_INDEX, VF_BAR_COUNT, VF_BAR_INDEX, Resource
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.config import HEADER_SIZE, ConfigSpace, HeaderType
from pcipt.pci.machine import Machine, decode_machine
from pcipt.pci.raw import RawFunction
from pcipt.pci.structures import EXPRESS, REBAR, SRIOV, VF_REBAR
from pcipt.pci.units import Range
from pcipt.pci.write import ConfigRead
from pcipt.remap.writes.changes import Change
from pcipt.remap.writes.decoding import bar_registers, decoded_range
from pcipt.remap.writes.function_shadow import IO_BIT, SRIOV_BARS, TYPE_64, TYPE_BITS, FunctionShadow
from pcipt.remap.writes.learning import rebar_sizes
from pcipt.remap.writes.overlay import Lazy
from pcipt.remap.writes.registers import WORD, Part
from pcipt.remap.writes.resets import ADVANCED_FEATURES
from pcipt.remap.writes.shadow import Shadow, fold_read, with_function, with_routes

# The number of bytes that are kept of each structure, from its start: registers that matter.
_KEPT = {
    (False, EXPRESS): 0x0C, (False, ADVANCED_FEATURES): 8,
    (True, SRIOV): 0x40, (True, REBAR): 0x38, (True, VF_REBAR): 0x38,
}  # fmt: skip


def shadow_from_raws(raws: Iterable[RawFunction], *, obeys: bool = True) -> Shadow:
    """Return the shadow of a machine. All functions are computed at once.

    A function whose place in the topology is unknown is left out. If several raws have one address, the first
    is used. `obeys` is False if Xen's vPCI stands between dom0 and the hardware (PVH dom0).
    """
    known = {raw.sbdf: raw for raw in reversed(list(raws))}
    shadow = shadow_from_machine(decode_machine(known.values()), known, obeys=obeys)
    return attrs.evolve(shadow, functions=dict(shadow.functions), endpoints=frozenset())


def shadow_from_machine(machine: Machine, raws: Mapping[Sbdf, RawFunction], *, obeys: bool = True) -> Shadow:
    """Return the shadow of a machine that is decoded already. `obeys` is as in `shadow_from_raws`.

    A function whose place is unknown is left out. The shadow of a function that is not a bridge is computed
    from `raws` when it is looked at, perhaps several times; `raws` may change in place until then. A function
    that is not in `raws` has a shadow without registers.
    """
    places = {f.path: sbdf for sbdf, f in machine.functions.items() if f.path is not None}
    roots = frozenset({(0, 0), *((place.segment, place.hops[0][0]) for place in places)})

    def make(place: PciPath) -> FunctionShadow:
        raw = raws.get(places[place])
        return FunctionShadow(place) if raw is None else function_from_raw(place, raw)

    bridges = {
        place: make(place) for place, sbdf in places.items() if machine.functions[sbdf].bridge is not None
    }
    routes = with_routes(Shadow(functions=bridges, roots=roots)).routes
    functions = Lazy(places, make, bridges)
    endpoints = places.keys() - bridges.keys()
    return Shadow(functions=functions, roots=roots, routes=routes, obeys=obeys, endpoints=endpoints)


def function_from_raw(place: PciPath, raw: RawFunction) -> FunctionShadow:
    """Return the shadow of one function.

    BARs that decode already are in `mapped`: no change is reported for them later. If the function does not
    answer or was not read, the shadow has no registers.
    """
    config = ConfigSpace(raw.config or b"")
    if not config.answers:
        return FunctionShadow(place, virtual=raw.physfn is not None)
    header = config.header
    capabilities: dict[tuple[bool, int], int] = {}
    for capability in walk_capabilities(config)[0]:
        capabilities.setdefault((capability.extended, capability.id), capability.offset)
    function = FunctionShadow(
        place,
        words=_words(config, capabilities),
        header=header,
        virtual=raw.physfn is not None,
        types=_types(config, header, capabilities),
        capabilities=capabilities,
    )
    sizes = _sizes(function, raw.resources) | rebar_sizes(function)
    function = attrs.evolve(function, sizes=sizes)
    spans = {bar.index: decoded_range(function, bar) for bar in bar_registers(function)}
    mapped = {index: span for index, span in spans.items() if isinstance(span, Range)}
    return attrs.evolve(function, mapped=mapped, last=mapped)


def refreshed(shadow: Shadow, sbdf: Sbdf, config: bytes) -> tuple[Shadow, tuple[Change, ...]]:
    """Return the shadow after the config space of the function at `sbdf` was read, and the changes.

    The bytes in `config` replace the registers of the shadow. A word behind the header is replaced only if
    the shadow has it already. Pending writes and sizing of the function end without a report of their own. If
    the vendor reads ffff, the function is removed, unless it is virtual (`fold_read`). If the shadow has no
    function there, one is added with its header only.
    """
    function = shadow.at(sbdf)
    kept: Container[int] = ()
    if function is not None:
        if function.pending or function.ones:
            function = attrs.evolve(function, pending={}, ones={})
        shadow = with_function(shadow, function)
        kept = function.words
    parts = [
        Part(offset, int.from_bytes(config[offset : offset + 4], "little"), WORD)
        for offset in range(0, len(config) & ~3, 4)
        if offset < HEADER_SIZE or offset in kept
    ]
    return fold_read(shadow, ConfigRead(sbdf, 0, None, 0), parts)


def _words(config: ConfigSpace, capabilities: dict[tuple[bool, int], int]) -> dict[int, tuple[int, int]]:
    """Return the words of the header and of the structures in `_KEPT` that were read completely."""
    offsets = set(range(0, HEADER_SIZE, 4))
    for key, size in _KEPT.items():
        start = capabilities.get(key)
        if start is not None:
            offsets.update(range(start, start + size, 4))
    found = {}
    for offset in sorted(offsets):
        value = config.u32(offset)
        if value is not None:
            found[offset] = (value, WORD)
    return found


def _types(
    config: ConfigSpace, header: HeaderType, capabilities: dict[tuple[bool, int], int]
) -> dict[int, int]:
    """Return the type bits of the BARs and VF BARs, by BAR number, without the ROM. Upper halves have none.

    A BAR whose register was not read is left out.
    """
    base, count, _ = LAYOUT[header]
    places = [(index, base + 4 * index) for index in range(count)]
    sriov = capabilities.get((True, SRIOV))
    if sriov is not None:
        places += [(VF_BAR_INDEX + i, sriov + SRIOV_BARS + 4 * i) for i in range(VF_BAR_COUNT)]
    found: dict[int, int] = {}
    for index, offset in places:
        below = found.get(index - 1, 0)
        value = config.u32(offset)
        if value is None or (index not in {0, VF_BAR_INDEX} and below & (IO_BIT | TYPE_BITS) == TYPE_64):
            continue
        found[index] = value & (0x3 if value & IO_BIT else 0xF)
    return found


def _sizes(function: FunctionShadow, lines: Sequence[Resource]) -> dict[int, int]:
    """Return the sizes of BARs and VF BARs by BAR number, in bytes, from the lines of `resource`.

    A size of 0 says that neither the line nor the register of a BAR is in use. A BAR is left out, because its
    size is unknown, if only its line is unused, or if its size is not a power of two. The line of a VF BAR
    has the size of all virtual functions (TotalVFs) together; VF BARs are left out if TotalVFs is 0 or
    unknown.
    """
    found = {}
    sriov = function.capabilities.get((True, SRIOV))
    total = function.read(sriov + 0xE, 2) if sriov is not None else None
    for index, line in enumerate(lines[: VF_BAR_INDEX + VF_BAR_COUNT]):
        size = line.size
        if index >= VF_BAR_INDEX:
            if not total:
                continue
            size //= total
        if size and not size & (size - 1):
            found[index] = size
        elif index < VF_BAR_INDEX and not size and _is_empty(function, index):
            found[index] = 0
    return found


def _is_empty(function: FunctionShadow, index: int) -> bool:
    """Return True if the register of a BAR or ROM is known to be 0.

    Only the lower word of a 64-bit BAR is looked at.
    """
    base, count, rom = LAYOUT[function.header or HeaderType.ENDPOINT]
    offset = rom if index == ROM_INDEX else base + 4 * index if index < count else None
    return offset is not None and function.read(offset, 4) == 0
