"""List the machine's PCI functions, one line each in the words of lspci -Dnn.

Reads no more than the 64 header bytes of each function; --json reads and decodes everything.
"""

import argparse
import sys
from collections.abc import Callable

from pcipt.cli.machine_source import Source, Wanted, add_source_arguments
from pcipt.cli.options import add_json_argument
from pcipt.cli.render import Names, count_text, on_terminal, painted, print_json, wants_colour
from pcipt.host.files import Depth
from pcipt.pci import ConfigSpace, Ids, RawFunction, decode_machine, parse_slot
from pcipt.pci.ids import join_ids

BOLD, RED = "1", "31"
IDENTITY_BYTES = 16  # the ids, class and revision of a header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", "--slot", metavar="SLOT",
        help="only these: [[[[segment]:]bus]:][device][.[function]], each part hex, empty or *",
    )  # fmt: skip
    add_source_arguments(parser)
    add_json_argument(parser)
    parser.add_argument("-n", "--numeric", action="store_true", help="numbers instead of names")
    parser.add_argument("--no-legend", action="store_true", help="no closing line on a terminal")


def run(args: argparse.Namespace) -> int:
    wanted = parse_slot(args.slot).matches if args.slot is not None else None
    source = Source(args)
    if args.json:
        _print_json(source, wanted, args.json)
    else:
        _print_rows(source, wanted, args)
    return 0


def _print_json(source: Source, wanted: Wanted | None, form: str) -> None:
    from pcipt.pci.json_view import json_from_function

    machine = source.machine(Depth.FULL, wanted)
    devices = [
        json_from_function(function)
        for sbdf, function in machine.functions.items()
        if wanted is None or wanted(sbdf)
    ]
    print_json({"devices": devices}, form)


def _print_rows(source: Source, wanted: Wanted | None, args: argparse.Namespace) -> None:
    legend = on_terminal() and not args.no_legend
    raws = source.read(Depth.HEADER if legend else Depth.GLANCE, wanted)
    chosen = [raw for raw in raws if wanted is None or wanted(raw.sbdf)]
    chosen.sort(key=_order)
    colour = wants_colour()
    describe = _describer(Names(numeric=args.numeric), colour=colour)
    bold = BOLD if colour else None
    sys.stdout.writelines(f"{painted(str(raw.sbdf), bold)} {describe(raw)}\n" for raw in chosen)
    if legend:
        machine = decode_machine(raws)
        findings = sum(len(machine.functions[raw.sbdf].findings) for raw in chosen)
        print(f"\n{count_text(len(chosen), 'function')}, {count_text(findings, 'finding')} in their headers.")


def _order(raw: RawFunction) -> tuple[int, int, int, int]:
    return (raw.sbdf.segment, raw.sbdf.bus, raw.sbdf.device, raw.sbdf.function)


def _describer(names: Names, *, colour: bool) -> Callable[[RawFunction], str]:
    """Make the function that describes a row; equal devices are described once."""
    known: dict[tuple[Ids, bytes], str] = {}
    silent = " " + painted("(does not answer)", RED if colour else None)

    def describe(raw: RawFunction) -> str:
        config = ConfigSpace(raw.config or b"")
        answers = config.answers
        key = (raw.ids, config.data[:IDENTITY_BYTES] if answers else b"")
        row = known.get(key)
        if row is None:
            ids = raw.ids
            if answers:
                ids, _ = join_ids(ids, config, virtual=raw.physfn is not None, subsystem_at=None)
            row = known[key] = names.row(ids)
        return row if answers or not raw.config else row + silent

    return describe
