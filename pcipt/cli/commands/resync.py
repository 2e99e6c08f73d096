"""Compare what hardware, Linux and Xen know now, and repair what the guards allow.

With --dry-run pcipt makes the same plan and shows it, but changes nothing.

Exit codes: 0 hardware, Linux and Xen agree (again), 3 the daemon is not running, 4 findings remain, 5 not
root.
"""

import argparse

from pcipt.cli.commands.status import EXIT_DEGRADED, RESULTS, action_line
from pcipt.cli.machine.client import call
from pcipt.cli.options import add_colour_argument, add_json_argument, add_socket_argument
from pcipt.cli.text.render import print_json, say_nothing
from pcipt.cli.text.terminal import folded, painted, prose_columns, wants_colour

AGREED = "nothing to do: hardware, Linux and Xen agree"
NO_ACTION = "no action would change the findings; `pcipt status` shows the next step of each finding"
EXAMPLES = (
    ("pcipt resync --dry-run", "what would be done, and why"),
    ("pcipt resync", "do what --dry-run shows"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would be done; change nothing")
    add_json_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    outcome = call(args.socket, "Resync", {"dry_run": args.dry_run})
    healthy = outcome["health"] == "healthy"
    if args.json:
        print_json(outcome, args.json)
    else:
        colour, width = wants_colour(args.color), prose_columns()
        for item in outcome["actions"]:
            shade = RESULTS.get(item["result"]) if colour else None
            print(*(painted(line, shade) for line in folded(action_line(item), width, 4)), sep="\n")
        if not outcome["actions"]:
            say_nothing(AGREED if healthy else NO_ACTION)
    return 0 if healthy else EXIT_DEGRADED
