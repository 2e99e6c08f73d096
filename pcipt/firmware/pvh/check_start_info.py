"""Check a start info: one private function per rule, each of which yields its rows (check results).

Source: Xen public/arch-x86/hvm/start_info.h, public/xen.h (SIF_*).
"""

from collections.abc import Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.memory_map import FOUR_GIB, flatten_map, is_ram
from pcipt.firmware.pvh.check_rows import Row, doubtful, good, judged, wrong
from pcipt.firmware.pvh.memory_image import ADDRESS_LIMIT, MemoryImage
from pcipt.firmware.pvh.start_info import INITDOMAIN, MAP_ENTRY, MODULE, PRIVILEGED, SIZES, Places, StartInfo
from pcipt.pci import Range

KNOWN_FLAGS = 0xFF1F  # privileged, initdomain, multiboot module, module by frame, p2m; 15:8 are for ACPI PM


@attrs.frozen
class Reserved:
    """A reserved field, which must be 0: its table, its byte offset there, and the value that it has."""

    table: str
    offset: int
    value: int


def check_start_info(
    info: StartInfo,
    places: Places,
    image: MemoryImage,
    reserved: Sequence[Reserved],
    map_offsets: Sequence[int],
) -> Iterator[Row]:
    """Yield the rows (check results) of all rules for a start info that was read.

    Parts that could not be read are not judged here: `read_start_info` already made rows for them. `reserved`
    are the reserved fields of all parts. `map_offsets` has, for each entry of `info.memory_map`, its byte
    offset in the list from which it was read.
    """
    yield judged(
        info.version in SIZES, "version", "start_info", 4,
        f"version {info.version}", f"version {info.version} is unknown; it is read as version 1",
    )  # fmt: skip
    yield from _flags(info)
    yield from _reserved(reserved)
    yield from _modules(info)
    yield from _memory_map(info, map_offsets)
    yield from _strings(info)
    yield from _rsdp(info, image)
    yield from _overlaps(info, places)
    yield from _below_4gib(places)


def _flags(info: StartInfo) -> Iterator[Row]:
    """Yield one row about the flags: WARN for unknown flags, or for INITDOMAIN without PRIVILEGED."""
    if info.flags & ~KNOWN_FLAGS:
        yield doubtful("flags", "start_info", 8, f"unknown flags {info.flags & ~KNOWN_FLAGS:#x}")
    elif info.flags & INITDOMAIN and not info.flags & PRIVILEGED:
        yield doubtful("flags", "start_info", 8, "the initial domain is not marked privileged")
    else:
        whose = "the hardware domain" if info.is_hardware_domain else "a guest"
        yield good("flags", "start_info", 8, f"{info.flags:#x}: {whose}")


def _reserved(fields: Sequence[Reserved]) -> Iterator[Row]:
    """Yield an ERROR row for each reserved field that is not 0, at most 16; one OK row if all are 0."""
    used = [field for field in fields if field.value]
    for field in used[:16]:
        yield wrong("reserved", field.table, field.offset, f"a reserved field holds {field.value:#x}, not 0")
    if not used:
        yield good("reserved", "start_info", None, "all reserved fields are 0")


def _modules(info: StartInfo) -> Iterator[Row]:
    """Yield one row per module: ERROR if it is not wholly in RAM, is at address 0, or runs beyond 2^64.

    The row of an empty module is WARN, wherever the module is. If there is no memory map, RAM is not checked.
    """
    free_map = flatten_map(info.memory_map)
    for number, module in enumerate(info.modules):
        at, title = number * MODULE.size, f"module {number}"
        if module.size == 0:
            yield doubtful("module", "module list", at + 8, f"{title} at {module.start:#x} is empty")
            continue
        if module.start + module.size > ADDRESS_LIMIT:
            yield wrong("module", "module list", at, f"{title} runs beyond 2^64")
            continue
        span = Range(module.start, module.size)
        if module.start == 0:
            yield wrong("module", "module list", at, f"{title} lies at address 0")
        elif free_map and not is_ram(free_map, span):
            yield wrong("module", "module list", at, f"{title} at {span} is not wholly in RAM")
        elif span.last >= FOUR_GIB:
            yield good("module", "module list", at, f"{title} at {span}: above 4 GiB, which is legal")
        else:
            yield good("module", "module list", at, f"{title} at {span}")


def _memory_map(info: StartInfo, offsets: Sequence[int]) -> Iterator[Row]:
    """Yield the rows about the memory map: ERROR for each overlap, WARN for each type that is not known.

    If there is no overlap and no unknown type, yield one OK row. If there is no memory map, yield only one OK
    row. The order of the entries does not matter.
    """
    if not info.memory_map:
        where = (
            "by hypercall (XENMEM_memory_map)"
            if info.version == 0
            else ("no map is given; the guest asks Xen for it")
        )
        yield good("memory-map", "memory map", None, where)
        return
    fine = True
    for offset, each in zip(offsets, info.memory_map, strict=True):
        if each.type is None:
            fine = False
            yield doubtful("memory-map", "memory map", offset + 16, f"{each.range} has type {each.kind}")
    order = "in order"
    ordered = sorted(zip(offsets, info.memory_map, strict=True), key=lambda item: item[1].range)
    reach = ordered[0][1]  # the entry that ends last so far
    for offset, each in ordered[1:]:
        if each.range.overlaps(reach.range):
            fine = False
            why = f"{each.range} ({each.word}) overlaps {reach.range} ({reach.word})"
            yield wrong("memory-map", "memory map", offset, why)
        if each.range.last > reach.range.last:
            reach = each
    if [offset for offset, _ in ordered] != sorted(offsets):
        order = "not in order, as libxl writes them"  # no rule requires an order
    if fine:
        yield good("memory-map", "memory map", None, f"{len(ordered)} entries, none overlaps; {order}")


def _strings(info: StartInfo) -> Iterator[Row]:
    """Yield a WARN row for each command line that is not ASCII; one OK row if all are ASCII."""
    strings = [("start_info", 24, info.cmdline)]
    strings += [("module list", MODULE.size * n + 16, m.cmdline) for n, m in enumerate(info.modules)]
    odd = [(table, offset) for table, offset, text in strings if text and not text.isascii()]
    for table, offset in odd:
        yield doubtful("string", table, offset, "the command line is not ASCII")
    if not odd:
        yield good(
            "string",
            "start_info",
            24,
            ("each command line that this check could read is ASCII and ends with a zero byte"),
        )


def _rsdp(info: StartInfo, image: MemoryImage) -> Iterator[Row]:
    """Yield one row about the address of the RSDP: WARN if it is not in the image. No RSDP is OK."""
    if info.rsdp is None:
        yield good("rsdp", "start_info", 32, "there is no RSDP: the domain has no ACPI")
    elif not image.room(info.rsdp):
        yield doubtful("rsdp", "start_info", 32, f"it is at {info.rsdp:#x}, outside the image: not checked")
    else:
        yield good("rsdp", "start_info", 32, f"at {info.rsdp:#x}, in the image")


def _overlaps(info: StartInfo, places: Places) -> Iterator[Row]:
    """Yield an ERROR row for each piece that overlaps a piece before it; one OK row if none does.

    "Before" is by address. Pieces are the structure, the lists, the strings and the modules. Empty modules
    and modules that run beyond 2^64 are left out. Strings of the same length may be at the same place: one
    empty string can serve several modules.
    """
    spans = [(Range(places.start_info, SIZES[min(info.version, 1)]), "the structure")]
    if places.module_list is not None and info.modules:
        spans.append((Range(places.module_list, MODULE.size * len(info.modules)), "the module list"))
    if places.memory_map is not None and info.memory_map:
        spans.append((Range(places.memory_map, MAP_ENTRY.size * len(info.memory_map)), "the memory map"))
    lines = [(places.cmdline, info.cmdline, "the command line")]
    for number, (at, module) in enumerate(zip(places.module_cmdlines, info.modules, strict=True)):
        lines.append((at, module.cmdline, f"module {number}'s command line"))
        if module.size and module.start + module.size <= ADDRESS_LIMIT:
            spans.append((Range(module.start, module.size), f"module {number}"))
    unique = {(at, len(text) + 1): title for at, text, title in reversed(lines) if at and text is not None}
    spans += [(Range(at, size), title) for (at, size), title in unique.items() if at is not None]
    spans.sort(key=lambda item: item[0])
    fine = True
    reach, owner = spans[0]
    for span, title in spans[1:]:
        if span.start <= reach.last:
            fine = False
            yield wrong("overlap", "start_info", None, f"{title} at {span} lies over {owner} at {reach}")
        if span.last > reach.last:
            reach, owner = span, title
    if fine:
        yield good("overlap", "start_info", None, "structure, lists, strings and modules lie apart")


def _below_4gib(places: Places) -> Iterator[Row]:
    """Yield one row: WARN if the structure, a list or the command line begins at or above 4 GiB.

    A kernel with a 32-bit entry point cannot reach addresses above 4 GiB. Modules and their command lines are
    not checked.
    """
    lists = (places.start_info, places.module_list, places.cmdline, places.memory_map)
    high = [at for at in lists if at is not None and at >= FOUR_GIB]
    yield judged(
        not high, "below-4gib", "start_info", None,
        "structure, lists and command line are below 4 GiB",
        f"a kernel that starts in 32-bit mode cannot read {', '.join(f'{at:#x}' for at in high)}",
        warn=True,
    )  # fmt: skip
