"""List the machine's PCI functions, one line each, in the words of lspci -Dnn.

Reads only the 64 header bytes of each function; --json reads and decodes everything.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from pcipt.cli.machine.find import wanted_of
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.source import Source, Wanted, add_source_arguments
from pcipt.cli.options import (
    add_colour_argument,
    add_json_argument,
    add_legend_argument,
    add_numeric_argument,
)
from pcipt.cli.text.render import count_text, print_json
from pcipt.cli.text.terminal import BOLD, RED, columns, folded, on_terminal, painted, wants_colour
from pcipt.host.files import Depth
from pcipt.pci import ConfigSpace, Ids, RawFunction, decode_machine
from pcipt.pci.ids import join_ids

Row = tuple[str, str, str]
IDENTITY_BYTES = 16  # ids, class and revision are in these header bytes
SILENT = "(does not answer)"
EXAMPLES = (
    ("pcipt list", "all functions"),
    ("pcipt list -s 03:", "those of bus 03; -s .0 those with function number 0"),
    ("pcipt list --root machine --json=pretty", "a recorded machine, decoded in full"),
    ("pcipt list --dump lspci.txt", "what somebody sent: the output of lspci, or a boot log"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", "--slot", metavar="SLOT",
        help="only these: [[[[segment]:]bus]:][device][.[function]], each hex, empty or *; or a PCI path",
    )  # fmt: skip
    add_source_arguments(parser)
    add_json_argument(parser)
    add_numeric_argument(parser)
    add_legend_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    wanted = wanted_of(source, args.slot) if args.slot is not None else None
    if args.json:
        _print_json(source, wanted, args.json)
    else:
        _print_rows(source, wanted, args)
    return 0


def _print_json(source: Source, wanted: Wanted | None, form: str) -> None:
    """Print the functions that `wanted` accepts (None: all) as JSON, decoded in full, in address order."""
    from pcipt.pci.json_view import json_from_function
    from pcipt.pci.space.shortage import depends_on_others

    functions = source.machine(Depth.FULL, wanted).functions
    chosen = [sbdf for sbdf in functions if wanted is None or wanted(sbdf)]
    if wanted is not None and any(depends_on_others(functions[sbdf]) for sbdf in chosen):
        functions = source.machine(Depth.FULL).functions
    devices = [json_from_function(functions[sbdf]) for sbdf in chosen if sbdf in functions]
    print_json({"devices": devices}, form)


def _print_rows(source: Source, wanted: Wanted | None, args: argparse.Namespace) -> None:
    """Print the functions that `wanted` accepts (None: all), one line each, in address order.

    On a terminal a closing line with counts follows, but not with --no-legend.
    """
    legend = on_terminal() and not args.no_legend
    raws = source.read(Depth.HEADER if legend else Depth.GLANCE, wanted)
    chosen = [raw for raw in raws if wanted is None or wanted(raw.sbdf)]
    chosen.sort(key=lambda raw: raw.sbdf)
    describe = _describer(Names(numeric=args.numeric))
    width, colour = columns(), wants_colour(args.color)
    if width is None and not colour:
        sys.stdout.writelines(f"{raw.sbdf} {': '.join(describe(raw))}\n" for raw in chosen)
    else:
        rows = [(str(raw.sbdf), *describe(raw)) for raw in chosen]
        sys.stdout.writelines(f"{line}\n" for line in _lines(rows, width, colour=colour))
    if legend:
        machine = decode_machine(raws)
        findings = sum(len(machine.functions[raw.sbdf].findings) for raw in chosen)
        print(f"\n{count_text(len(chosen), 'function')}, {count_text(findings, 'finding')} in their headers.")


def _lines(rows: list[Row], width: int | None, *, colour: bool) -> Iterator[str]:
    """Yield rows (address, class, name) as lines for a terminal, in their order.

    If each row fits into `width` columns, all classes are padded to the length of the longest one. Otherwise,
    or if `width` is None, no class is padded. A row that is too long is folded.
    """
    room = max((len(kind) for _, kind, _ in rows), default=0) + 1
    place = max((len(address) for address, _, _ in rows), default=0) + 1
    fits = width is not None and all(place + room + 1 + len(about) <= width for _, _, about in rows)
    for address, kind, about in rows:
        head = f"{kind}:".ljust(room if fits else 0)
        first, *more = folded(f"{address} {head} {about}", width, place)
        first = painted(first[: len(address)], BOLD if colour else None) + first[len(address) :]
        yield from (line.replace(SILENT, painted(SILENT, RED if colour else None)) for line in (first, *more))


def _describer(names: Names) -> Callable[[RawFunction], tuple[str, str]]:
    """Return a function that returns the description of a raw function: (class, vendor and device).

    Functions with the same ids are described once, because the result is cached. If config space was read and
    shows that the function does not answer, the description has the mark SILENT.
    """
    known: dict[tuple[Ids, bytes], tuple[str, str]] = {}

    def describe(raw: RawFunction) -> tuple[str, str]:
        config = ConfigSpace(raw.config or b"")
        answers = config.answers
        key = (raw.ids, config.data[:IDENTITY_BYTES] if answers else b"")
        parts = known.get(key)
        if parts is None:
            ids = raw.ids
            if answers:
                ids, _ = join_ids(ids, config, virtual=raw.physfn is not None, subsystem_at=None)
            title = raw.told.title if raw.told is not None else ""
            if ids.vendor is None and title:
                return names.parts(ids, title)
            parts = known[key] = names.parts(ids)
        return parts if answers or not raw.config else (parts[0], f"{parts[1]} {SILENT}")

    return describe
