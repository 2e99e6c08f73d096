"""Compare what hardware, Linux and Xen know now, and repair what the guards allow.

With --dry-run the same plan is made and shown, and nothing is done.
Exit codes: 0 they agree (again), 3 the daemon is not running, 4 findings remain, 5 not root.
"""

import argparse
import json

from pcipt.cli.client import call
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.cli.status import EXIT_DEGRADED, action_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, do nothing")
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    outcome = call(args.socket, "Resync", {"dry_run": args.dry_run})
    if args.json:
        print(json.dumps(outcome, indent=2 if args.json == "pretty" else None))
    else:
        for item in outcome["actions"]:
            print(action_line(item))
        if not outcome["actions"]:
            print("nothing to do: hardware, Linux and Xen agree" if outcome["health"] == "healthy" else
                  "nothing to do; see the findings of pcipt status")  # fmt: skip
    return 0 if outcome["health"] == "healthy" else EXIT_DEGRADED
