"""Show which function is behind which bridge, as a tree like that of lspci -tv.

Each root bus starts a tree. A bridge is followed by the bus numbers behind it, any other function by its
name. A "?" after a bus number means: this is perhaps no root bus, because the bridge that leads to this bus
is gone or has impossible bus numbers. On a terminal, a name that does not fit is cut.

Functions that can only go to a guest together have the same mark [set N] before their names; `pcipt groups`
shows the reasons.

--svg draws a picture instead. The picture shows for each function its name, its owner, its set, its reserved
regions, and whether it can be passed through.

Exit codes: 0 done, 1 the machine cannot be read or FILE cannot be written.
"""

import argparse
import re
from collections.abc import Mapping, Sequence

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.forest import Forest, buses_below, is_root
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.sets import numbered
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import (
    add_colour_argument,
    add_json_argument,
    add_legend_argument,
    add_numeric_argument,
    add_socket_argument,
)
from pcipt.cli.text.render import NO_FUNCTIONS, count_text, print_json, say_nothing
from pcipt.cli.text.terminal import BOLD, clipped, columns, on_terminal, painted, wants_colour
from pcipt.firmware.passthrough.groups import FunctionSet, groups_of, sets_of
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.pci import Function, Machine, Sbdf

Lines = list[tuple[str, str]]  # each line: its stem, which is never cut, and a name
STDOUT = "-"
_PLACE = re.compile(r"[0-9a-f]{2}\.[0-7]")
EXAMPLES = (
    ("pcipt tree", "this machine"),
    ("pcipt tree --root machine", "a recorded machine"),
    ("pcipt tree --svg machine.svg", "this machine as a picture"),
    ("pcipt tree -n | less", "numbers instead of names; in a pipe no name is cut"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--svg", metavar="FILE", nargs="?", const=STDOUT,
        help="draw a picture into FILE, or on stdout without FILE: owners, sets, reserved regions, verdicts",
    )  # fmt: skip
    add_json_argument(form)
    add_numeric_argument(parser)
    add_legend_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    live = args.dump is None and args.root == "/"
    root = None if args.dump is not None else args.root
    evidence = gather(Source(args), root, args.socket if live else None)
    machine = evidence.machine
    sets = sets_of(evidence, groups_of(evidence))
    if args.svg is not None:
        _draw(evidence, sets, args)
        return 0
    trees = _Trees(machine, numbered(sets))
    if args.json:
        print_json({"buses": trees.json()}, args.json)
        return 0
    if not machine.functions:
        say_nothing(NO_FUNCTIONS)
        return 0
    width, colour = columns(), wants_colour(args.color)
    for stem, name in trees.lines(Names(numeric=args.numeric)):
        line = clipped(stem + name, width, len(stem))
        shown = _PLACE.sub(lambda found: painted(found[0], BOLD), stem) if colour else stem
        print(shown + line[len(stem) :])
    if on_terminal() and not args.no_legend:
        functions, buses = len(machine.functions), trees.buses
        print(f"\n{count_text(functions, 'function')} on {count_text(buses, 'root bus', 'root buses')}.")
    return 0


def _draw(evidence: Evidence, sets: Sequence[FunctionSet], args: argparse.Namespace) -> None:
    """Draw the machine into the file that --svg names. Raises: InputError if it cannot be written."""
    from pcipt.cli.picture.draw import draw
    from pcipt.cli.picture.file import write_drawing
    from pcipt.cli.picture.gathered import make_picture
    from pcipt.firmware.passthrough.check import check_functions

    reports = check_functions(evidence.machine.functions, evidence)
    drawn = draw(make_picture(evidence, sets, reports, Names(numeric=args.numeric)))
    if args.svg == STDOUT:
        print(drawn, end="")
    else:
        write_drawing(args.svg, drawn)


class _Trees:
    """The trees of `pcipt tree` as text and as JSON.

    `sets` has the number of the set of each function that can only go together with others.
    """

    def __init__(self, machine: Machine, sets: Mapping[Sbdf, int]) -> None:
        self._forest = Forest(machine)
        self._sets = {
            sbdf: number for sbdf, number in sets.items() if not belongs_to_machine(machine.functions[sbdf])
        }

    @property
    def buses(self) -> int:
        """The number of trees."""
        return len(self._forest.roots)

    def lines(self, names: Names) -> Lines:
        """Return the drawn lines, each as (stem, name). Root buses and functions are in address order.

        A stem has only ASCII characters, because every terminal and pipe can transport these. A name may have
        others.
        """
        blocks = [
            _prefixed(
                f"[{segment:04x}:{bus:02x}]{'-' if is_root(functions) else '?'}", self._bus(functions, names)
            )
            for (segment, bus), functions in self._forest.roots.items()
        ]
        return _prefixed("-", _joined(blocks, single=""))

    def json(self) -> list[dict[str, object]]:
        """Return the value of "buses" in `pcipt tree --json`: the root buses, each with the tree of its
        functions.
        """
        return [
            {
                "segment": segment,
                "bus": bus,
                "root": is_root(functions),
                "functions": [self._json(function) for function in functions],
            }
            for (segment, bus), functions in self._forest.roots.items()
        ]

    def _bus(self, functions: Sequence[Function], names: Names) -> Lines:
        """Return the lines of the functions on one bus, and of the functions below them."""
        return _joined([self._function(function, names) for function in functions], single="--")

    def _function(self, function: Function, names: Names) -> Lines:
        """Return the lines of one function and of the functions below it.

        A bridge shows the bus numbers below it, any other function its name.
        """
        place = f"{function.sbdf.device:02x}.{function.sbdf.function:x}"
        below = self._forest.below(function.sbdf)
        if function.bridge is None and not below:
            number = self._sets.get(function.sbdf)
            mark = f"[set {number}] " if number is not None else ""
            return [(f"{place}  {mark}", names.device(function.ids, function.title))]
        numbers = buses_below(function)
        stem = f"{place}{f'-[{numbers}]' if numbers else ''}--"
        return _prefixed(stem, self._bus(below, names)) if below else [(stem, "")]

    def _json(self, function: Function) -> dict[str, object]:
        """Return a function and the functions below it as JSON. Bus numbers are None if it is no bridge."""
        bridge = function.bridge
        return {
            "sbdf": str(function.sbdf),
            "secondary": bridge.secondary if bridge is not None else None,
            "subordinate": bridge.subordinate if bridge is not None else None,
            "set": self._sets.get(function.sbdf),
            "functions": [self._json(below) for below in self._forest.below(function.sbdf)],
        }


def _prefixed(prefix: str, lines: Lines) -> Lines:
    """Return the lines with `prefix` before the first line, and as many spaces before each other line."""
    room = " " * len(prefix)
    return [((prefix if number == 0 else room) + stem, name) for number, (stem, name) in enumerate(lines)]


def _joined(blocks: list[Lines], single: str) -> Lines:
    """Draw several blocks of lines below each other along a vertical line.

    A single block has no vertical line; its prefix is `single`.
    """
    if len(blocks) == 1:
        return _prefixed(single, blocks[0])
    lines: Lines = []
    for number, block in enumerate(blocks, 1):
        last = number == len(blocks)
        lines += _prefixed("\\-" if last else "+-", block[:1])
        lines += [(("  " if last else "| ") + stem, name) for stem, name in block[1:]]
    return lines
