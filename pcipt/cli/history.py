"""Show what happened to a function: its last changes, actions and hot-plug events, through renumbering.

The function may be given by its address or by its PCI path, as the daemon's machine has it.
"""

import argparse
import json

from pcipt.cli.client import call
from pcipt.cli.event_text import text_from_event
from pcipt.cli.options import add_json_argument, add_socket_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help="the function, in any notation of addresses")
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    from pcipt.pci import PciPath, parse_sbdf, parse_target

    target = parse_target(args.sbdf)
    address = target if isinstance(target, PciPath) else parse_sbdf(args.sbdf)
    told = call(args.socket, "History", {"function": str(address)})
    if args.json:
        print(json.dumps(told, indent=2 if args.json == "pretty" else None))
        return 0
    for event in told["events"]:
        print(text_from_event(event))
    if not told["events"]:
        print(f"nothing has happened to {told['sbdf']} since the daemon started")
    return 0
