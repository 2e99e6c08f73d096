"""Show which function is behind which bridge, as a tree like that of lspci -tv.

Each root bus starts a tree. A bridge is followed by the bus numbers behind it, any other function by its
name. A bus with a "?" is not known to be a root bus: the bridge that leads to it has vanished, or has
impossible bus numbers. On a terminal, a name that does not fit is cut. Functions that can only go to a guest
together have the same mark [set N] before their names; pcipt groups says why.
"""

import argparse
import re
from collections.abc import Mapping

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.names import Names
from pcipt.cli.machine.sets import numbered
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import (
    add_colour_argument,
    add_json_argument,
    add_legend_argument,
    add_numeric_argument,
)
from pcipt.cli.text.render import count_text, print_json
from pcipt.cli.text.terminal import BOLD, clipped, columns, on_terminal, painted, wants_colour
from pcipt.firmware.passthrough.groups import groups_of, sets_of
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.pci import Function, Machine, Sbdf

Lines = list[tuple[str, str]]  # each line: its stem, which is never cut, and a name
_PLACE = re.compile(r"[0-9a-f]{2}\.[0-7]")
EXAMPLES = (
    ("pcipt tree", "this machine"),
    ("pcipt tree --root machine", "a recorded one"),
    ("pcipt tree -n | less", "numbers instead of names; in a pipe no name is cut"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_json_argument(parser)
    add_numeric_argument(parser)
    add_legend_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    evidence = gather(Source(args), None if args.dump is not None else args.root, None)
    machine = evidence.machine
    forest = _Forest(machine, numbered(sets_of(evidence, groups_of(evidence))))
    if args.json:
        print_json({"buses": forest.json()}, args.json)
        return 0
    width, colour = columns(), wants_colour(args.color)
    for stem, name in forest.lines(Names(numeric=args.numeric)):
        line = clipped(stem + name, width, len(stem))
        shown = _PLACE.sub(lambda found: painted(found[0], BOLD), stem) if colour else stem
        print(shown + line[len(stem) :])
    if on_terminal() and not args.no_legend:
        functions, buses = len(machine.functions), len(forest.roots)
        print(f"\n{count_text(functions, 'function')} on {count_text(buses, 'root bus', 'root buses')}.")
    return 0


class _Forest:
    """The trees of `pcipt tree`: one for each root bus, with the functions below it.

    A function without a known bridge above it is at the top of the tree of its own bus. `roots` maps
    (segment, bus) to the functions at the top, in address order. `sets` has the number of the set of each
    function that can only go together with others.
    """

    def __init__(self, machine: Machine, sets: Mapping[Sbdf, int]) -> None:
        self._sets = {
            sbdf: number for sbdf, number in sets.items() if not belongs_to_machine(machine.functions[sbdf])
        }
        self._below: dict[Sbdf, list[Function]] = {}
        top: list[Function] = []
        for function in machine.functions.values():
            if function.parent is None:
                top.append(function)
            else:
                self._below.setdefault(function.parent, []).append(function)
        self.roots: dict[tuple[int, int], list[Function]] = {}
        for function in top:
            self.roots.setdefault((function.sbdf.segment, function.sbdf.bus), []).append(function)

    def lines(self, names: Names) -> Lines:
        """Return the drawn lines, each as (stem, name). Root buses and functions are in address order.

        A stem has only ASCII characters, because every terminal and pipe can transport these. A name may have
        others.
        """
        blocks = [
            _prefixed(
                f"[{segment:04x}:{bus:02x}]{'-' if _is_root(functions) else '?'}", self._bus(functions, names)
            )
            for (segment, bus), functions in self.roots.items()
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
                "root": _is_root(functions),
                "functions": [self._json(function) for function in functions],
            }
            for (segment, bus), functions in self.roots.items()
        ]

    def _bus(self, functions: list[Function], names: Names) -> Lines:
        """Return the lines of the functions on one bus, and of the functions below them."""
        return _joined([self._function(function, names) for function in functions], single="--")

    def _function(self, function: Function, names: Names) -> Lines:
        """Return the lines of one function and of the functions below it.

        A bridge shows the bus numbers below it, any other function its name.
        """
        place = f"{function.sbdf.device:02x}.{function.sbdf.function:x}"
        bridge, below = function.bridge, self._below.get(function.sbdf, [])
        if bridge is None and not below:
            number = self._sets.get(function.sbdf)
            mark = f"[set {number}] " if number is not None else ""
            return [(f"{place}  {mark}", names.device(function.ids, function.title))]
        buses = ""
        if bridge is not None and bridge.secondary:
            last = f"-{bridge.subordinate:02x}" if bridge.subordinate != bridge.secondary else ""
            buses = f"-[{bridge.secondary:02x}{last}]"
        stem = f"{place}{buses}--"
        return _prefixed(stem, self._bus(below, names)) if below else [(stem, "")]

    def _json(self, function: Function) -> dict[str, object]:
        """Return a function and the functions below it as JSON. Bus numbers are None if it is no bridge."""
        bridge = function.bridge
        return {
            "sbdf": str(function.sbdf),
            "secondary": bridge.secondary if bridge is not None else None,
            "subordinate": bridge.subordinate if bridge is not None else None,
            "set": self._sets.get(function.sbdf),
            "functions": [self._json(below) for below in self._below.get(function.sbdf, [])],
        }


def _is_root(functions: list[Function]) -> bool:
    """Return True if a bus whose functions have no bridge above them is known to be a root bus.

    It is not if none of its functions has a PCI path.
    """
    return any(function.path is not None for function in functions)


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
