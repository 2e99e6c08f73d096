"""Read hvm_start_info from an image of physical memory; check it and the tables to which it points.

An image may consist of several files, each with its own --at. pcipt looks for the structure at the first byte
of the lowest file, then searches for its magic number; --info gives the address of the structure instead.

Exit codes: 0 all is right, 1 a file cannot be read, 4 a row is warn or error.
"""

import argparse
import contextlib
import mmap
import os
from collections.abc import Iterator

from pcipt.cli.commands.pvh.rows import exit_code, json_from_rows, print_rows
from pcipt.cli.machine.pvh import add_xen_argument
from pcipt.cli.options import add_colour_argument, add_json_argument
from pcipt.cli.text.render import print_json
from pcipt.cli.text.terminal import wants_colour
from pcipt.errors import InputError, MalformedError, printable
from pcipt.firmware.acpi.table_set import Domain, is_guest, tables_from_image
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.pvh.check_rows import Row, wrong
from pcipt.firmware.pvh.check_tables import check_tables
from pcipt.firmware.pvh.facts import Facts
from pcipt.firmware.pvh.memory_image import MemoryImage, Piece, image_from_pieces
from pcipt.firmware.pvh.read_start_info import Parsed, find_start_info, parse_start_info
from pcipt.host.tree import reason
from pcipt.pci import Address
from pcipt.words import size_text
from pcipt.xen.releases import Version

EXAMPLES = (
    ("pcipt pvh startinfo memory.bin --at 0x100000", "the structure is found by its magic"),
    ("pcipt pvh startinfo a.bin b.bin --at 0x7000 --at 0xfc000000 --info 0x7100", "an image in two files"),
)


def address(text: str) -> int:
    """Parse a physical address: hexadecimal with 0x, else decimal.

    Raises: ValueError if the text is not a number or the number does not fit into 64 bits.
    """
    value = int(text, 0)
    if not 0 <= value < 1 << 64:
        raise ValueError
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="raw bytes of memory")
    parser.add_argument(
        "--at", metavar="PADDR", type=address, action="append", required=True,
        help="physical address of the first byte of FILE; give --at once for each FILE, in the same order",
    )  # fmt: skip
    parser.add_argument(
        "--info", metavar="PADDR", type=address, help="address of the structure (ebx at entry)"
    )
    add_xen_argument(parser)
    add_json_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    if len(args.files) != len(args.at):
        args.refuse(f"{len(args.files)} FILE need {len(args.files)} options --at, not {len(args.at)}")
    with contextlib.ExitStack() as stack:
        pieces = [
            Piece(Address(at), stack.enter_context(_mapped(path)))
            for path, at in zip(args.files, args.at, strict=True)
        ]
        source = args.files[0]
        image = image_from_pieces(pieces, source)
        if args.info is None:
            parsed = find_start_info(image, source)
        else:
            parsed = parse_start_info(image, Address(args.info), source)
        rows = [*parsed.rows, *_tables(image, parsed, args.xen)]
    if args.json:
        print_json({"start_info": json_from_start_info(parsed), "rows": json_from_rows(rows)}, args.json)
    else:
        _print_start_info(parsed)
        print()
        print_rows(rows, colour=wants_colour(args.color))
    return exit_code(rows)


@contextlib.contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap | bytes]:
    """Yield the bytes of a file, mapped into memory during the with-block.

    The file is not read as a whole, because an image may be larger than RAM.

    Raises: InputError if the file cannot be opened or mapped, is empty, or is not a regular file.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise InputError(path, reason(error)) from error
    try:
        if os.fstat(opened).st_size == 0:
            raise InputError(path, "is empty, or is not a regular file")
        mapping = mmap.mmap(opened, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(path, reason(error)) from error
    finally:
        os.close(opened)
    with mapping:
        yield mapping


def _tables(image: MemoryImage, parsed: Parsed, xen: Version | None) -> list[Row]:
    """Return the rows of all rules for the ACPI tables to which the RSDP points, made by the version `xen`.

    Return no rows if the start info has no address of an RSDP, or if the image does not hold that address. If
    there is no RSDP at that address, return one row that says so.
    """
    rsdp = parsed.info.rsdp
    if rsdp is None or not image.room(rsdp):
        return []
    try:
        tables = tables_from_image(image, rsdp)
    except MalformedError as error:
        return [wrong("rsdp", "RSDP", error.offset, error.why)]
    domain = Domain.GUEST if is_guest(tables) else None
    if parsed.info.is_hardware_domain:
        domain = Domain.HARDWARE
    return list(check_tables(tables, domain, Facts(xen=xen)))


def json_from_start_info(parsed: Parsed) -> dict[str, object]:
    """Return the value of "start_info" in `pcipt pvh startinfo --json`.

    An address is None if the start info does not have it. A command line is None if it is missing or not in
    the image; in the second case its address is known.
    """
    info, places = parsed.info, parsed.places
    return {
        "address": f"{places.start_info:#x}",
        "version": info.version,
        "flags": f"{info.flags:#x}",
        "domain": "hardware" if info.is_hardware_domain else "guest",
        "module_list": _hex(places.module_list),
        "modules": [
            {
                "address": f"{module.start:#x}",
                "size": module.size,
                "cmdline": _text(module.cmdline),
                "cmdline_address": _hex(at),
            }
            for module, at in zip(info.modules, places.module_cmdlines, strict=True)
        ],
        "cmdline": _text(info.cmdline),
        "cmdline_address": _hex(places.cmdline),
        "rsdp": _hex(info.rsdp),
        "memory_map_address": _hex(places.memory_map),
        "memory_map": [_json_from_entry(entry) for entry in info.memory_map],
    }


def _json_from_entry(entry: MemoryEntry) -> dict[str, object]:
    return {
        "address": f"{entry.range.start:#x}",
        "size": entry.range.size,
        "type": entry.kind,
        "kind": entry.word,
    }


def _print_start_info(parsed: Parsed) -> None:
    """Print the start info: its address, command line, RSDP, modules and memory map."""
    info, places = parsed.info, parsed.places
    print(f"hvm_start_info at {places.start_info:#x}, version {info.version}, flags {info.flags:#x}")
    print(f"command line  {_line(info.cmdline, places.cmdline)}")
    print(f"RSDP          {_hex(info.rsdp) or 'none'}")
    for number, (module, at) in enumerate(zip(info.modules, places.module_cmdlines, strict=True)):
        line = f"; {_line(module.cmdline, at)}" if at is not None else ""
        print(f"module {number}      {module.start:#x}, {module.size} bytes{line}")
    for entry in info.memory_map:
        print(f"memory        {entry.range}  {size_text(entry.range.size):>7}  {entry.word}")


def _line(text: bytes | None, at: Address | None) -> str:
    """Return a command line in quotes with its address `at`; "none" if `at` is None.

    A `text` of None means that the image does not hold the command line: the result has only its address.
    """
    if at is None:
        return "none"
    return f'"{printable(_text(text) or "")}" at {at:#x}' if text is not None else f"unreadable at {at:#x}"


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "backslashreplace")


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
