"""Decode recordings of configuration accesses: each write, what it changed, and the state at the end.

FILE holds port accesses (*.ports.jsonl, *.ports.bin), decoded writes (*.writes.jsonl), the text of the
kernel's trace_pipe with pcipt's probes, or the output of xentrace. Each FILE may be compressed with gzip; -
is standard input. Several files are read as parts of one recording.

pcipt learns the size of a BAR from the accesses in the recording, or reads it from the recorded machine that
--root names. If the size of a BAR is unknown, its changes are not reported.

Exit codes: 0 done, 1 a file cannot be read, or --strict is given and a record is damaged.
"""

import argparse
import json
import sys
from collections.abc import Callable

from pcipt.cli.options import add_json_argument
from pcipt.cli.text.event_text import text_from_change, text_from_write
from pcipt.cli.text.progress import progress
from pcipt.cli.text.render import print_json, say_nothing
from pcipt.cli.text.terminal import columns, folded
from pcipt.errors import InputError, PciptError, printable
from pcipt.pci.write import ConfigWrite, EcamRegion, Lost
from pcipt.remap.writes.changes import Change
from pcipt.remap.writes.json_view import Json, json_from_change, json_from_shadow, json_from_write
from pcipt.remap.writes.shadow import Shadow, settle, step, with_routes
from pcipt.watch.recording import Damaged, Format, Options, Reader

TABLES = "sys/firmware/acpi/tables"
_MCFG_LIMIT = 1 << 16
_MAX_COMPLAINTS = 100
EXAMPLES = (
    ("pcipt decode boot.ports.jsonl.gz", "each write, and what it changed"),
    ("pcipt decode --final --json=pretty trace.ports.bin", "only the state at the end"),
    ("pcipt decode --root machine trace.txt", "with the BAR sizes of a recorded machine"),
    ("zcat trace.gz | grep 0xcf | pcipt decode -", "from a pipe"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=[form.value for form in Format],
        help=f"the format of FILE, instead of recognising it: {', '.join(form.value for form in Format)}",
    )
    parser.add_argument(
        "--root",
        metavar="MACHINE",
        help="the recorded machine on which the recording began: MACHINE holds sys/",
    )
    parser.add_argument(
        "--ecam", metavar="BASE[,SEGMENT[,FIRST-LAST]]", action="append", default=[], type=_region,
        help="address of ECAM, its segment and its buses, all hexadecimal; default: the regions in the table "
        "MCFG of --root; without --root the region of the first access to ECAM in the recording",
    )  # fmt: skip
    parser.add_argument(
        "--per-vcpu", action="store_true", help="each vCPU has an address register of its own"
    )
    parser.add_argument("--amd", action="store_true", help="bits 27:24 of the address register are used")
    parser.add_argument(
        "--ignore-while-decoding", action="store_true",
        help="ignore a new address for a BAR while the BAR decodes, as Xen's vPCI does",
    )  # fmt: skip
    parser.add_argument(
        "--final", action="store_true", help="print only one JSON object: the state at the end"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first damaged record and exit with 1"
    )
    add_json_argument(parser, "print JSON Lines; with --final one object")


def run(args: argparse.Namespace) -> int:
    shadow = _first_state(args)
    options = Options(
        form=Format(args.format) if args.format else None,
        per_vcpu=args.per_vcpu,
        amd=args.amd,
        regions=tuple(args.ecam) or _regions_of(args.root),
    )
    printer = _Printer(args)
    reader = Reader(options)
    for number, path in enumerate(args.files, 1):
        which = f", file {number} of {len(args.files)}" if len(args.files) > 1 else ""
        with progress(f"decoding{which}", lambda: _far(reader), beside_output=not args.final):
            for item in reader.read(path):
                if isinstance(item, Damaged):
                    if not printer.complain(path, item):
                        return 1
                    continue
                shadow, changes = step(shadow, item)
                if isinstance(item, Lost):
                    printer.lose(item)
                elif isinstance(item, ConfigWrite):
                    printer.write(item)
                printer.changes(changes)
    # A 32-bit BAR that was written in part is final now; half of a 64-bit BAR is still undecided.
    shadow, changes = settle(shadow, halves=False)
    printer.changes(changes)
    printer.finish(shadow, reader)
    return 0


class _Printer:
    """The output of `pcipt decode`: writes and changes as text or JSON Lines, or with --final the last state
    only.

    It also counts lost and damaged records, and reports them on stderr.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._final, self._json, self._strict = args.final, args.json, args.strict
        self._lost = self._damaged = self._shown = 0
        self._width = columns()

    def write(self, write: ConfigWrite) -> None:
        """Print one write; print nothing with --final."""
        if not self._final:
            self._print(json_from_write(write), text_from_write)

    def changes(self, changes: tuple[Change, ...]) -> None:
        """Print each change that has a JSON form (all except `RereadWanted`); print nothing with --final."""
        if self._final:
            return
        for change in changes:
            found = json_from_change(change)
            if found is not None:
                self._print(found, lambda told: f"  * {text_from_change(told)}")

    def _print(self, told: Json, words: Callable[[Json], str]) -> None:
        """Print `told`, the JSON form of a write or change: as one JSON line, or as folded text.

        The text is its number ("-" if unknown), its address and `words(told)`.
        """
        self._shown += 1
        if self._json:
            print(json.dumps(told))
        else:
            number = "-" if told["n"] is None else told["n"]
            print(*folded(f"{number:>8}  {told['sbdf']}{words(told)}", self._width, 26), sep="\n")

    def lose(self, lost: Lost) -> None:
        """Report on stderr that records were lost, and add their number to the count (1 if it is unknown)."""
        self._lost += lost.count or 1
        count = "an unknown number of" if lost.count is None else lost.count
        print(f"pcipt: {count} records were lost here; what follows may be incomplete", file=sys.stderr)

    def complain(self, path: str, damaged: Damaged) -> bool:
        """Count a damaged record and report it on stderr; only the first 100 are reported.

        Return True if decoding continues, False if it must stop (--strict).
        """
        self._damaged += 1
        if self._damaged <= _MAX_COMPLAINTS:
            what = "stopped" if self._strict else "skipped"
            print(f"pcipt: {printable(path)}: {damaged}; {what}", file=sys.stderr)
        return not self._strict

    def finish(self, shadow: Shadow, reader: Reader) -> None:
        """Print the final state as JSON if --final is set, then warnings on stderr about what could not be
        decoded.
        """
        if self._final:
            counts = {"lost": self._lost, "damaged": self._damaged}
            print_json({**json_from_shadow(shadow), **counts}, self._json or "short")
        elif not self._shown and not self._json:
            say_nothing("no write of configuration space was found")
        if self._damaged > _MAX_COMPLAINTS:
            print(f"pcipt: {self._damaged} damaged records in all", file=sys.stderr)
        if reader.unknown:
            print(
                f"pcipt: {reader.unknown} accesses by port whose function is unknown: "
                "no write of the address register came before them",
                file=sys.stderr,
            )
        if reader.outside:
            print(
                f"pcipt: {reader.outside} accesses outside of the known ECAM regions; --ecam names them",
                file=sys.stderr,
            )


def _far(reader: Reader) -> str:
    """Return the progress of a reader as text: a percentage, or "in progress" if the size is unknown."""
    done = reader.done
    return "in progress" if done is None else f"{done:.0%}"


def _first_state(args: argparse.Namespace) -> Shadow:
    """Return the registers before the first write: of the recorded machine (--root), else of an unknown
    machine.

    Raises: InputError if the recorded machine cannot be read.
    """
    if args.root is None:
        return with_routes(Shadow(obeys=not args.ignore_while_decoding))
    from pcipt.host.sysfs import read_machine
    from pcipt.remap.writes.initial import shadow_from_raws

    return shadow_from_raws(read_machine(args.root), obeys=not args.ignore_while_decoding)


def _region(text: str) -> EcamRegion:
    """Parse the value of --ecam: BASE[,SEGMENT[,FIRST-LAST]], all hexadecimal.

    The default is segment 0, buses 0-ff.

    Raises: ArgumentTypeError if it is malformed.
    """
    try:
        base, *rest = text.split(",")
        segment = rest[0] if rest else "0"
        first, _, last = (rest[1] if len(rest) > 1 else "0-ff").partition("-")
        region = EcamRegion(int(base, 16), int(segment, 16), int(first, 16), int(last, 16))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not BASE[,SEGMENT[,FIRST-LAST]]") from None
    return region


def _regions_of(root: str | None) -> tuple[EcamRegion, ...]:
    """Return the ECAM regions of the machine recorded in `root`, as far as its memory map reserves them.

    Return an empty tuple if `root` is None, if the MCFG is missing, or if it cannot be read.
    """
    if root is None:
        return ()
    from pcipt.cli.machine.pvh import memory_of
    from pcipt.firmware.mmcfg import taken_of_tables
    from pcipt.host.tree import Tree, read_file

    try:
        with Tree(root) as tree:
            data = read_file(tree.enter(TABLES), "MCFG", _MCFG_LIMIT)
    except (OSError, InputError):
        return ()
    try:
        memory = memory_of(root).entries
    except PciptError:
        memory = ()
    return taken_of_tables([data], memory)
