"""List the machine's PCI functions, one line each: on a terminal address, driver, class, name and ids.

On a terminal long names are shortened; addresses and ids are never shortened. In a pipe the lines are those
of lspci -Dnn. The command reads only the 64 header bytes of each function; with --json it reads and decodes
everything.

If -s names a set of addresses without any function, the list is empty, as with lspci. If -s names one
function that does not exist, the exit code is 6.

Exit codes: 0 done, 1 the machine cannot be read, 2 malformed address, 6 no such device.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator

from pcipt.cli.machine.find import require_set, wanted_of
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.source import Source, Wanted, add_source_arguments
from pcipt.cli.options import (
    add_colour_argument,
    add_json_argument,
    add_legend_argument,
    add_numeric_argument,
)
from pcipt.cli.text.render import NO_FUNCTIONS, count_text, print_json, say_nothing
from pcipt.cli.text.terminal import BOLD, RED, clipped, columns, on_terminal, painted, wants_colour
from pcipt.errors import printable
from pcipt.host.files import Depth
from pcipt.pci import ConfigSpace, Ids, RawFunction
from pcipt.pci.ids import join_ids

Row = tuple[str, str, str, str]
NO_DRIVER = "-"
SHORTEST = 8  # columns that a shortened driver or class keeps
IDS = re.compile(
    r" (?=\[[0-9a-f?]{4}:[0-9a-f?]{4}\])|(?<![^ ]) ?(?=[0-9a-f?]{4}:[0-9a-f?]{4})| (?=\(does not)"
)
IDENTITY_BYTES = 16  # ids, class and revision are in these header bytes
SILENT = "(does not answer)"
EXAMPLES = (
    ("pcipt list", "all functions"),
    ("pcipt list -s 03:", "the functions of bus 03; -s .0: those with function number 0"),
    ("pcipt list --root machine --json=pretty", "a recorded machine, decoded in full, as JSON"),
    ("pcipt list --dump lspci.txt", "what somebody sent: the output of lspci, or a boot log"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", "--slot", metavar="SLOT",
        help="only these: [[[[segment]:]bus]:][device][.[function]], each part hexadecimal, empty or *; "
        "or a PCI path",
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
        _print_json(source, wanted, args)
    else:
        _print_rows(source, wanted, args)
    return 0


def _say_that_nothing_fits(source: Source, slot: str | None) -> None:
    """Say that the machine has no functions, or that none fits `slot`.

    Raises: NoSuchDeviceError if `slot` names one function, or was meant to.
    """
    if slot is None:
        say_nothing(NO_FUNCTIONS)
    else:
        require_set(source, slot)
        say_nothing(f"no function fits {printable(slot)}")


def _print_json(source: Source, wanted: Wanted | None, args: argparse.Namespace) -> None:
    """Print the functions that `wanted` accepts (None: all) as JSON, decoded in full, in address order."""
    from pcipt.pci.json_view import json_from_function
    from pcipt.pci.space.shortage import depends_on_others

    functions = source.machine(Depth.FULL, wanted).functions
    chosen = [sbdf for sbdf in functions if wanted is None or wanted(sbdf)]
    if not chosen:
        _say_that_nothing_fits(source, args.slot)
    if wanted is not None and any(depends_on_others(functions[sbdf]) for sbdf in chosen):
        functions = source.machine(Depth.FULL).functions
    devices = [json_from_function(functions[sbdf]) for sbdf in chosen if sbdf in functions]
    print_json({"devices": devices}, args.json)


def _print_rows(source: Source, wanted: Wanted | None, args: argparse.Namespace) -> None:
    """Print the functions that `wanted` accepts (None: all), one line each, in address order.

    In a pipe the lines are those of lspci -Dnn. On a terminal they have the driver, too, and a closing line
    with counts follows, but not with --no-legend.
    """
    width, colour = columns(), wants_colour(args.color)
    raws = source.read(Depth.GLANCE if width is None else Depth.HEADER, wanted)
    chosen = [raw for raw in raws if wanted is None or wanted(raw.sbdf)]
    chosen.sort(key=lambda raw: raw.sbdf)
    describe = _describer(Names(numeric=args.numeric))
    if not chosen:
        _say_that_nothing_fits(source, args.slot)
    if width is not None:
        rows = [(str(raw.sbdf), printable(raw.driver or NO_DRIVER), *describe(raw)) for raw in chosen]
        sys.stdout.writelines(f"{line}\n" for line in _lines(rows, width, colour=colour))
    else:
        lines = ((str(raw.sbdf), ": ".join(describe(raw))) for raw in chosen)
        sys.stdout.writelines(
            f"{_painted(f'{address} {about}', address, colour=colour)}\n" for address, about in lines
        )
    if on_terminal() and not args.no_legend:
        from pcipt.pci import decode_machine

        machine = decode_machine(raws)
        findings = sum(len(machine.functions[raw.sbdf].findings) for raw in chosen)
        print(f"\n{count_text(len(chosen), 'function')}, {count_text(findings, 'finding')} in their headers.")


def _lines(rows: list[Row], width: int, *, colour: bool) -> Iterator[str]:
    """Yield rows (address, driver, class, name with ids) as one line each for a terminal, in their order.

    The columns are aligned. If a row does not fit into `width` columns, drivers and classes are shortened in
    all rows, without the number of the class, and the name in its row. Addresses and ids are never shortened.
    """
    full = [max((len(row[at]) for row in rows), default=0) for at in range(3)]
    ids = max((len(_ids_of(row[3])[1]) for row in rows), default=0)
    if any(sum(full) + 3 + len(row[3]) > width for row in rows):
        rows = [(address, driver, kind.partition(" [")[0], about) for address, driver, kind, about in rows]
        full[2] = max((len(row[2]) for row in rows), default=0)
        room = max(width - full[0] - ids - 3, 2 * SHORTEST)
        full = [full[0], min(full[1], max(SHORTEST, room // 4)), min(full[2], max(SHORTEST, room // 3))]
    for address, driver, kind, about in rows:
        name, number = _ids_of(about)
        head = " ".join(
            (
                address.ljust(full[0]),
                clipped(driver, full[1], 0).ljust(full[1]),
                clipped(kind, full[2], 0).ljust(full[2]),
            )
        )
        left = width - len(head) - 1 - len(number)
        yield _painted(f"{head} {clipped(name, max(left, 1), 0)}{number}", address, colour=colour)


def _ids_of(about: str) -> tuple[str, str]:
    """Return the name of a function, and what follows it: ids, revision and marks, with a space before."""
    found = IDS.search(about)
    return (about[: found.start()], about[found.start() :]) if found is not None else (about, "")


def _painted(line: str, address: str, *, colour: bool) -> str:
    """Return the line with its address and the mark SILENT coloured; unchanged if `colour` is False."""
    if not colour:
        return line
    return painted(address, BOLD) + line[len(address) :].replace(SILENT, painted(SILENT, RED))


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
            title = raw.told.title if raw.told is not None and ids.vendor is None else ""
            parts = names.parts(ids, title)
            if not title:
                known[key] = parts
        silent = (bool(raw.config) and not answers) or (raw.told is not None and raw.told.silent)
        return (parts[0], f"{parts[1]} {SILENT}") if silent else parts

    return describe
