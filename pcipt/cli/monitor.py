"""Show live what happens: one line a change, action, finding or hot-plug, as it comes.

Events that are not read in time are counted, and the count is shown. Ends with Ctrl-C or when the daemon
stops (exit code 3).
"""

import argparse
import json

from pcipt.cli.client import stream
from pcipt.cli.event_text import text_from_event
from pcipt.cli.options import add_json_lines_argument, add_socket_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--slot", metavar="SLOT", help="only these functions, as in pcipt list")
    add_json_lines_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    parameters = {} if args.slot is None else {"slot": _checked(args.slot)}
    for event in stream(args.socket, "Monitor", parameters):
        if event.get("kind") != "start":
            print(json.dumps(event) if args.json else text_from_event(event), flush=True)
    return 0


def _checked(slot: str) -> str:
    """Have a malformed filter refused here, with the exit code of a malformed address."""
    from pcipt.pci import parse_slot

    parse_slot(slot)
    return slot
