"""Show the smallest sets of functions that can only go to a guest together, each with the reasons.

Functions are in the same set if the IOMMU cannot tell them apart (requester ids), if one can reach another
without the IOMMU (no ACS), if they share a reserved region or a page, or if one reset resets all of them.
SBDF is an address in any notation, a set of addresses such as 03:00.*, or a PCI path. With SBDF only the sets
of these functions are shown.

Exit codes: 0 done, 1 the machine cannot be read, 2 malformed address, 6 no such device.
"""

import argparse
from collections.abc import Sequence

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.find import chosen_functions
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
from pcipt.cli.text.render import count_text, print_json, say_nothing
from pcipt.cli.text.terminal import BOLD, folded, on_terminal, painted, prose_columns, wants_colour
from pcipt.errors import printable
from pcipt.firmware.passthrough.groups import FunctionSet, groups_of, sets_of
from pcipt.firmware.passthrough.groups_losses import words_of_uses
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.pci import Sbdf

HANG = 8
EXAMPLES = (
    ("pcipt groups", "all sets of this machine"),
    ("pcipt groups 03:00.0", "what goes with this function, and why"),
    ("pcipt groups --root machine --json=pretty", "the sets of a recorded machine, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", nargs="*", help="address, set of addresses or PCI path")
    add_source_arguments(parser)
    add_json_argument(parser)
    add_numeric_argument(parser)
    add_colour_argument(parser)
    add_legend_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    live = args.dump is None and args.root == "/"
    evidence = gather(source, None if args.dump is not None else args.root, args.socket if live else None)
    chosen = chosen_functions(source, evidence.machine, args.sbdf)
    sets = sets_of(evidence, groups_of(evidence))
    numbers = numbered(sets)
    shown = [each for each in sets if _is_shown(each, chosen)]
    if args.json:
        print_json({"sets": [_json(each, numbers, evidence) for each in shown]}, args.json)
        return 0
    if not shown:
        say_nothing("this machine has no function that a guest can be given")
        return 0
    names = Names(numeric=args.numeric)
    colour = wants_colour(args.color)
    for each in shown:
        print("\n".join(_lines(each, numbers, evidence, names, colour=colour)))
    unknown = dict.fromkeys(what for each in shown for what in each.unknown)
    if evidence.regions is None:
        unknown["reserved regions"] = None
    if unknown:
        text = f"Not known here, so sets may be larger: {', '.join(unknown)}."
        print("\n".join(folded(text, prose_columns(), 2)))
    if on_terminal() and not args.no_legend:
        several = sum(len(each.assignable) > 1 for each in shown)
        print(f"\n{count_text(len(shown), 'set')}, {several} with more than one function.")
    return 0


def _is_shown(each: FunctionSet, chosen: Sequence[Sbdf]) -> bool:
    """Return True for the sets of `chosen`; if it is empty, for all sets that a guest can be given."""
    return any(sbdf in chosen for sbdf in each.members) if chosen else bool(each.assignable)


def _lines(
    each: FunctionSet, numbers: dict[Sbdf, int], evidence: Evidence, names: Names, *, colour: bool
) -> list[str]:
    """Return the lines of one set: its functions, the bridges in it, and the reason of each edge."""
    number = numbers.get(each.members[0])
    count = count_text(len(each.assignable), "function")
    head = f"set {number}: {count} together" if number is not None else "alone:"
    if not each.assignable:
        head = "stays in dom0:"
    lines = [painted(head, BOLD if colour else None)]
    for sbdf in each.assignable or each.members:
        function = evidence.machine.functions[sbdf]
        uses = words_of_uses(evidence.uses.get(sbdf, ()))
        driver = f"driver {printable(function.driver)}" if function.driver else ""
        about = ": ".join(part for part in (driver, printable(uses)) if part)
        text = f"    {sbdf} {names.row(function.ids)}{f' ({about})' if about else ''}"
        lines += folded(text, prose_columns(), HANG)
    bridges = [str(sbdf) for sbdf in each.members if sbdf not in each.assignable]
    if bridges and each.assignable:
        lines += folded(f"    through {', '.join(bridges)}", prose_columns(), HANG)
    reasons = ((edge.why.value, edge.text) for edge in each.edges if len(each.assignable) > 1)
    for why, text in dict.fromkeys(reasons):  # all behind a bridge have the same
        lines += folded(f"      {why}: {printable(text)}", prose_columns(), HANG)
    return lines


def _json(each: FunctionSet, numbers: dict[Sbdf, int], evidence: Evidence) -> dict[str, object]:
    """Return one set as JSON."""
    return {
        "number": numbers.get(each.members[0]),
        "functions": [
            {
                "sbdf": str(sbdf),
                "driver": evidence.machine.functions[sbdf].driver,
                "iommu_group": evidence.facts_of(sbdf).iommu_group,
                "uses": [
                    {"kind": use.kind.value, "name": use.name, "through": use.through or None}
                    for use in evidence.uses.get(sbdf, ())
                ],
            }
            for sbdf in each.assignable
        ],
        "bridges": [str(sbdf) for sbdf in each.members if sbdf not in each.assignable],
        "edges": [
            {"one": str(edge.one), "other": str(edge.other), "rule": edge.why.value, "text": edge.text}
            for edge in each.edges
        ],
        "unknown": list(each.unknown),
    }
