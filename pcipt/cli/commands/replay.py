"""Run the engine on a recorded machine and a trace of its configuration writes, with a simulated Xen.

Prints the actions that the service would take on the recorded machine. Nothing is changed on this machine.
MACHINE is a directory that holds sys/, as `pcipt record` writes it. MACHINE may also hold a sequence of
steps, xen.json and writes.jsonl.

The simulated Xen has the version and the kind of dom0 that MACHINE names; the default is Xen 4.17.7 with a PV
dom0.

With --expect FILE the actions are compared with the actions in FILE (JSON Lines). Only keys that FILE has are
compared.

Exit codes: 0 done, 1 a file cannot be read, or the actions differ.
"""

import argparse
import json
import sys

from pcipt.cli.options import add_colour_argument, add_json_lines_argument
from pcipt.cli.text.event_text import text_from_action
from pcipt.cli.text.progress import progress
from pcipt.cli.text.render import count_text
from pcipt.cli.text.terminal import BOLD, GREEN, RED, YELLOW, folded, painted, prose_columns, wants_colour
from pcipt.hints import Any

SHADES = {"refused": YELLOW, "failed": RED}
SIGNS = {"+": GREEN, "-": RED, "@": BOLD}
HANG = 24
EXAMPLES = (
    ("pcipt replay machine", "with the steps and writes of the recording"),
    ("pcipt replay machine --trace trace.writes.jsonl --dom0 pvh", "with another trace, on a PVH dom0"),
    ("pcipt replay machine --json > actions.jsonl", "write the actions into a file"),
    ("pcipt replay machine --expect actions.jsonl", "compare the actions with those in this file"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("machine", metavar="MACHINE", help="directory of a recorded machine")
    parser.add_argument(
        "--trace", metavar="FILE", help="a recording of writes, in a format of `pcipt decode`; - is stdin"
    )
    parser.add_argument("--dom0", choices=("pv", "pvh"), help="the kind of dom0, instead of the recorded one")
    parser.add_argument("--expect", metavar="FILE", help="compare with the actions in FILE (JSON Lines)")
    add_json_lines_argument(parser)
    add_colour_argument(parser)


def run(args: argparse.Namespace) -> int:
    from pcipt.daemon.replay.player import differences, replayed

    shown = args.json or args.expect is None
    colour, width = wants_colour(args.color), prose_columns()
    actions: list[dict[str, Any]] = []
    with progress("replaying", lambda: count_text(len(actions), "action"), beside_output=shown):
        for action in replayed(args.machine, trace=args.trace, dom0=args.dom0, lose=_lose):
            actions.append(action)
            if shown:
                print(json.dumps(action) if args.json else _text(action, width, colour=colour))
    if args.expect is None:
        return 0
    found = differences(args.expect, actions)
    out = sys.stderr if args.json else sys.stdout  # stdout has JSON Lines only
    for line in found:
        shade = SIGNS.get(line[:1]) if colour else None
        print(*(painted(part, shade) for part in folded(line, width, 1)), sep="\n", file=out)
    if not found:
        print(f"{count_text(len(actions), 'action')}, as expected", file=out)
    return 1 if found else 0


def _lose(count: int | None) -> None:
    """Print on stderr that `count` records of the trace were lost; None is an unknown number."""
    how_many = "an unknown number of" if count is None else count
    print(
        f"pcipt: {how_many} records of the trace were lost here; pcipt reads the whole machine again",
        file=sys.stderr,
    )


def _text(action: dict[str, Any], width: int | None, *, colour: bool) -> str:
    """Return one action as text: number, address, name, range, result and reason, folded to `width`.

    A `width` of None does not fold. The text may have several lines.
    """
    sbdf, shade = str(action["sbdf"]), SHADES.get(action["result"])
    first, *more = folded(
        f"{action['n']:>8}  {sbdf} {action['action']}{text_from_action(action)}", width, HANG
    )
    if not colour:
        return "\n".join([first, *more])
    number, _, rest = first.partition(sbdf)
    return "\n".join(
        [number + painted(sbdf, BOLD) + painted(rest, shade), *(painted(line, shade) for line in more)]
    )
