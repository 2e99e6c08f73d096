"""Read a machine from what somebody pasted: the output of lspci in any form, or a boot log.

    lspci -x, -xxx, -xxxx      the bytes of config space
    lspci -vvnn, -nnk, -n, -v  words: ids, class, driver, BARs, bus numbers; without bytes the rest is unknown
    both, in any order         joined by address
    lspci -mm, -vmm            its machine-readable forms
    lspci -P, -PP              paths: the bus of a function is that below the bridge, if -v or -x tells it
    a log with pci=earlydump   the bytes that the kernel printed at boot
The text may be quoted or indented by mail, in UTF-16, with CR LF, with doubled spaces. If it has several
machines, the first is taken. Words are Linux's view: BARs have sizes only if lspci printed them, and a
function has a driver only if lspci named it. If a line of bytes does not begin at the offset where the line
before it ended, the function keeps only the bytes before this line and gets a finding.
"""

import re
from collections.abc import Iterable, Sequence

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host.paste.blocks import Block, blocks_of
from pcipt.host.paste.machines import Reading, function_of, readings_of
from pcipt.host.paste.text import IS_PACKED, PACKED, decoded, lines_of
from pcipt.host.tree import reason
from pcipt.pci import RawFunction

MAX_BYTES = 64 << 20
CONFIG_SIZES = (64, 256, 4096)
RUN = "run `lspci -Dnnvv -xxxx` as root"

#  what a text without a function is, by what it holds: the first that is found is told
_OTHERS = (
    (r"^[-+| ]{0,4}-\[[0-9a-f]{4,8}:[0-9a-f]{2}\]-", f"is the output of lspci -t, which has no ids: {RUN}"),
    (r"^\s*\w{4} @ 0x[0-9a-f]{8}", (
        "is ACPI tables as acpidump prints them: `pcipt rmrr --table` reads such a file"
    )),
    (r"\bDefinitionBlock\b|^\[[0-9a-f]{3}h ", "is iasl's text of an ACPI table, no list of PCI functions"),
    (r"<address\b[^>]*\bslot=", f"is libvirt's XML, which does not describe functions: {RUN}"),
    (r"^\s+\*-\w+|bus info: pci@", f"is the output of lshw, which has no numbers: {RUN}"),
    (r"^(?:\[[ \d.]+\] )?(?:Linux version|BIOS-e820|Command line|pci(?:_bus)? [0-9a-f]{4}:)",
     f"is a boot log without config space: boot with pci=earlydump, or {RUN}"),
    (r"^[a-z_]{2,16}\d{0,4}@pci\d{1,5}:\d{1,3}:", (
        f"is the output of FreeBSD's pciconf, which pcipt does not read: boot Linux and {RUN}"
    )),
    (r"\bPCI\\VEN_[0-9a-f]{4}&DEV_", (
        f"is a list of devices by Windows, which pcipt does not read: boot Linux and {RUN}"
    )),
    (r"\bbus-ID: [0-9a-f]{2,4}:", f"is the output of inxi, which has no config space: {RUN}"),
    (r"^\d+: PCI [0-9a-f.:]+: [0-9a-f]{4} ", f"is the output of hwinfo, which has no config space: {RUN}"),
    (r"^\s*VMkernel Name:", f"is a list of devices by ESXi, which pcipt does not read: boot Linux and {RUN}"),
    (r"^dom0:[0-9a-f]{2}_[0-9a-f]{2}\.[0-7]", f"is the output of qvm-pci, which has no numbers: {RUN}"),
    (r"^\s*pci-id \( ?R[OW]\)", f"is the output of xe pci-list, which has no numbers: {RUN}"),
    (r"^\W*0x[0-9a-f]{6}\W+0x[0-9a-f]{4}\W+[0-9a-f]{4}:", f"is a table of Proxmox's pvesh: {RUN}"),
    (r"/iommu_groups/\d+/devices/|-> \S*devices/pci[0-9a-f]{4}:|^pci_[0-9a-f]{4}_[0-9a-f]{2}_",
     f"has names of functions and tells nothing about them: {RUN}"),
    (r"^(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\s*$", f"has addresses and no more: {RUN}"),
    (r"^[0-9a-f]{4}\t[0-9a-f]{8}\t", f"is /proc/bus/pci/devices: {RUN}"),
    (r"^\(XEN\) ", f"is a log of Xen: {RUN}"),
    (r"^[0-9a-f]{7,8}:? ", "is a hexdump that names no function: put a line such as `00:1f.2 x` above it"),
)  # fmt: skip


@attrs.frozen
class Dump:
    """The functions of the first machine in a file, in address order, and what else is to be said.

    `about` says what was found, in one line. `notes` tell what was left out and why, a line each. `lacks`
    says what the functions lack and what to run, if there are only their names.
    """

    functions: tuple[RawFunction, ...]
    about: str = ""
    notes: tuple[str, ...] = ()
    lacks: str = ""


def read_dump(path: str) -> Dump:
    """Read the functions of a dump from a file, as `parse_dump` does. The path `-` is standard input.

    Raises: InputError if the file cannot be read, is longer than 64 MiB, has no function, or has only names;
            the error says what the file is and what to run instead.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as source:
            data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(path, reason(error)) from error
    if len(data) > MAX_BYTES:
        raise InputError(path, f"is longer than {MAX_BYTES >> 20} MiB; it is no lspci dump")
    found = parse_dump(data)
    if not found.functions:
        raise InputError(path, _refusal(data))
    if not any(raw.config or raw.ids.vendor is not None or _tells(raw) for raw in found.functions):
        raise InputError(path, found.lacks)
    return found


def parse_dump(data: bytes) -> Dump:
    """Return the functions in the text of a dump. Raises nothing.

    There are none if no line is the heading of a function. A function without bytes has the config None.
    """
    found, unplaced = blocks_of(lines_of(data))
    readings = readings_of(found)
    if not readings:
        return Dump(())
    first, *others = readings
    blocks = [first.blocks[sbdf] for sbdf in sorted(first.blocks)]
    notes = list(_left_out(first, others))
    if unplaced:
        notes.append(
            f"{unplaced} functions have a path in place of a bus number (lspci -P), and no bridge above "
            f"gives their bus; pcipt leaves them out: {RUN}"
        )
    return Dump(tuple(map(function_of, blocks)), _about(blocks), tuple(notes), _lacks(blocks))


def _tells(raw: RawFunction) -> bool:
    """Return True if the words of a function without ids tell more than its name."""
    return raw.driver is not None or (raw.told is not None and bool(raw.told.bars or raw.told.bridge))


def _lacks(blocks: Sequence[Block]) -> str:
    """Return what functions lack of which only the names are known."""
    named = f"{len(blocks)} function{'s' if len(blocks) != 1 else ''} by name"
    if any(block.early for block in blocks):
        where = next(block.line for block in blocks if block.early)
        what = f"has {named} in a boot log, but no bytes follow the first (line {where})"
        return f"{what}: boot with pci=earlydump and give all lines of the log, or {RUN}"
    return f"is plain lspci: {named}, without any number; {RUN}"


def _about(blocks: Iterable[Block]) -> str:
    """Return in one line how many functions there are, and what is known of how many of them."""
    kinds: dict[str, int] = {}
    for block in blocks:
        if block.config:
            early = " at boot (earlydump)" if block.early else ""
            with_words = " and words" if block.words.helps else ""
            kind = f"with {len(block.config)} bytes of config space{early}{with_words}"
        elif block.words.vendor is None:
            kind = "with names only" if not block.words.helps else "with words but no ids"
        else:
            kind = "with ids and words but no config space"
        kinds[kind] = kinds.get(kind, 0) + 1
    total = sum(kinds.values())
    told = ", ".join(f"{count} {kind}" if len(kinds) > 1 else kind for kind, count in kinds.items())
    return f"{total} function{'s' if total != 1 else ''}, {told}"


def _left_out(first: Reading, others: list[Reading]) -> tuple[str, ...]:
    """Return the note that names the machines that were not taken; nothing if there is one machine."""
    if not others:
        return ()
    named = ", ".join(f"{each.name()} with {len(each.blocks)} functions" for each in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    several = f"it holds {len(others) + 1} machines, or one at several times"
    return (f"{several}: pcipt reads the first, {first.name()}, and leaves out {named}{more}",)


def _refusal(data: bytes) -> str:
    """Return why a file without a function cannot be used: what it is, and what to run."""
    if not data:
        return f"is empty; {RUN}"
    if data.startswith(PACKED):
        return IS_PACKED
    if len(data) in CONFIG_SIZES and 0 in data[:64]:
        return f"is the config space of one function without its address: {RUN}"
    text = decoded(data[:1_000_000])
    for pattern, told in _OTHERS:
        if re.search(pattern, text, re.MULTILINE | re.IGNORECASE | re.ASCII):
            return told
    return (
        "holds no function: no line begins with an address such as 00:1f.2; expected the output of lspci "
        f"-xxxx, lspci -vvnn, or a boot log with pci=earlydump: {RUN}"
    )
